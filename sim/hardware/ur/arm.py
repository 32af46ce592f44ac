"""The emulated arm: joints of a model of rt.robot.kinematics that follow a command through a lag.

The state is the six joints and their speeds; the tool's pose comes from them by the maker's nominal
parameters, and cartesian commands reach them through the Jacobian, so joints and
pose always agree. Tracking: a command acts `delay_s` after it came; servoing aims at a speed of
error / lookahead, which the arm takes on through a first-order lag of SPEED_LAG_S and below its
acceleration limits. At a lookahead of 0.03 s an arm in even motion is delay + 30 ms behind: with the
default 4 ms that is the 34 ms measured on a UR10e (UR client library, issue 86). Gain, payload, friction,
and gravity are not modelled; joint limits and sudden changes are the controller's.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rt.robot.kinematics import ArmModel, joints_at, solve, tool
from rt.robot.ur_pose import difference, rotation

Array = NDArray[np.float64]

HOME_Q = (0.0, -1.5708, -1.5708, -1.5708, 1.5708, 0.0)
"""Elbow up, the tool looks straight down."""
SPEED_LAG_S = 0.004


@dataclass(frozen=True)
class Motion:
    """Commanded motion: its kind, target or speed, and parameters."""

    kind: Literal["stop", "stop_j", "servo", "servo_j", "speed", "speed_j", "move", "move_j"]
    aim: Array = field(default_factory=lambda: np.zeros(6))
    """Joints, joint speeds or twist (6,); T_base_tcp (4, 4) for `servo` and `move`."""
    acceleration: float = 4.0
    """m/s^2 or rad/s^2"""
    speed: float = 0.0
    lookahead_s: float = 0.1


class JointArm:
    """Joints and their speeds; `step` moves them by one tick."""

    def __init__(
        self,
        model: ArmModel,
        q: Array,
        T_flange_tcp: Array,
        delay_ticks: int,
        acceleration_m_s2: float,
        dt_s: float,
    ) -> None:
        self.model, self.fastest = model, np.radians(model.max_speed_deg_s)
        self.q, self.qd, self.dt = q.copy(), np.zeros(6), dt_s
        self.limit = np.array([acceleration_m_s2] * 3 + [5 * acceleration_m_s2] * 3)
        """Greatest acceleration in each direction, m/s^2 and rad/s^2."""
        self.joint_limit = 5 * acceleration_m_s2
        self.motion = Motion("stop")
        self.coming: deque[Motion] = deque([self.motion] * delay_ticks)
        """Commands of the last ticks, which act after the delay."""
        self.arrived = True
        self.set_tcp(T_flange_tcp)

    def set_tcp(self, T_flange_tcp: Array) -> None:
        self.T_flange_tcp = T_flange_tcp
        self.T, self.J = tool(self.model, self.q, T_flange_tcp)

    @property
    def twist(self) -> Array:
        """(6,) of the tool in base."""
        return np.asarray(self.J @ self.qd)

    def brake(self, deceleration: float) -> None:
        """Stop now, whatever was commanded."""
        self.motion = Motion("stop", acceleration=deceleration)
        self.coming = deque([self.motion] * len(self.coming))

    def hurry(self, m: Motion) -> float:
        """Joint speed that a servo target asks for at once, as a part of the greatest: a jump is above 1."""
        if m.kind == "servo_j":
            wanted = (m.aim - self.q) / m.lookahead_s
        else:
            wanted = solve(self.J, difference(self.T, m.aim) / m.lookahead_s)
        return float((np.abs(wanted) / self.fastest).max())

    def step(self, commanded: Motion, scale: float = 1.0) -> None:
        """One tick. scale: the speed slider, 0 to 1: every commanded speed is slower by it."""
        self.coming.append(commanded)
        self.motion = self.coming.popleft()
        m, dt = self.motion, self.dt
        if m.kind in ("stop", "stop_j"):
            self.qd = self.qd * self._slower(m)
            self.arrived = True
        elif m.kind in ("servo_j", "speed_j", "move_j"):
            wanted, limit = self._joint_speed(m)
            self.qd = self.qd + _lagged(scale * wanted - self.qd, limit * dt, dt)
        else:
            wanted, most = self._twist(m)
            twist = self.twist
            twist = twist + _lagged(scale * wanted - twist, most * dt, dt)
            self.qd = solve(self.J, twist)
        fastest = float((np.abs(self.qd) / self.fastest).max())
        if fastest > 1:
            self.qd = self.qd / fastest
        if fastest > 0:
            self.q = self.q + self.qd * dt
            self.T, self.J = tool(self.model, self.q, self.T_flange_tcp)

    def _slower(self, m: Motion) -> float:
        """Factor on the joints' speeds after one tick of braking along the path."""
        if m.kind == "stop_j":
            fastest, drop = float(np.abs(self.qd).max()), m.acceleration * self.dt
            return max(0.0, 1 - drop / fastest) if fastest > 1e-9 else 0.0
        twist = self.twist
        v, w = float(np.linalg.norm(twist[:3])), float(np.linalg.norm(twist[3:]))
        # turning slows down five times as fast in rad as moving in m; the slower of both counts
        ticks = max(v, w / 5) / (m.acceleration * self.dt)
        return 1 - 1 / ticks if ticks > 1 else 0.0

    def _joint_speed(self, m: Motion) -> tuple[Array, float]:
        if m.kind == "speed_j":
            return m.aim, min(m.acceleration, self.joint_limit)
        error = m.aim - self.q
        if m.kind == "servo_j":
            return error / max(m.lookahead_s, self.dt), self.joint_limit
        most = float(np.abs(error).max())
        self.arrived = most < 1e-5
        return error * _towards(most, m), min(2 * m.acceleration, self.joint_limit)

    def _twist(self, m: Motion) -> tuple[Array, Array]:
        if m.kind == "speed":
            return m.aim, np.minimum(
                np.array([m.acceleration] * 3 + [5 * m.acceleration] * 3), self.limit
            )
        error = difference(self.T, m.aim)
        if m.kind == "servo":
            return error / max(m.lookahead_s, self.dt), self.limit
        most = max(float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:])) / 5)
        self.arrived = most < 1e-5
        # twice the acceleration that the profile asks for, so that the lag does not make it overshoot
        a = 2 * m.acceleration
        return error * _towards(most, m), np.minimum(np.array([a] * 3 + [5 * a] * 3), self.limit)


def _lagged(change: Array, most: Array | float, dt: float) -> Array:
    """One tick of a first-order lag, below a limit in each direction."""
    part = 1 - math.exp(-dt / SPEED_LAG_S)
    return np.clip(change * part, -most, most)


def _towards(distance: float, m: Motion) -> float:
    """Speed over distance of a straight motion: as fast as told, and slow enough to stop in time."""
    if distance < 1e-9:
        return 0.0
    return min(m.speed, math.sqrt(2 * 0.5 * m.acceleration * distance), distance / 0.02) / distance


def home(model: ArmModel, T_flange_tcp: Array, pose: Array | None) -> Array:
    """Joints at the start: HOME_Q, or those that hold the tool at a pose (6,)."""
    q = np.array(HOME_Q)
    if pose is None:
        return q
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation(pose[3:]), pose[:3]
    # turn the base towards the pose first: Newton's method does not like to go round the column
    here, _ = tool(model, q, T_flange_tcp)
    q[0] += math.atan2(T[1, 3], T[0, 3]) - math.atan2(here[1, 3], here[0, 3])
    return joints_at(model, T, T_flange_tcp, q)
