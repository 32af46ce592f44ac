"""From targets that come now and then to a smooth set-point for every instant (Ruckig, jerk-limited).

Each target is planned to be reached, at rest, at the end of `horizon_s` or as soon as the limits
permit. With a horizon of two periods of the loop the arm moves evenly under steady targets, and one that
comes late by up to a period changes nothing. There is no feed-forward of the targets' own speed: the
set-point never passes a target that was checked, and comes to rest at the last one whatever
happens to the loop. The price is lag, about the time that stopping takes: 70 ms behind targets of
up to 0.09 m/s at 1 m/s^2.

Limits hold for the length of the vectors: Ruckig's are per axis, so they are shared out along the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.robot import RobotError
from rt.robot.ur_pose import rotation, rotation_vector

try:
    from ruckig import (
        ControlInterface,
        InputParameter,
        Result,
        Ruckig,
        Synchronization,
        Trajectory,
    )
except ImportError as error:
    raise RobotError(f"a UR needs {error.name}: pip install 'grasp-servo[ur]'") from error

Array = NDArray[np.float64]

_SIDEWAYS = 0.1
"""Share (squared) of the limits for axes across the way: what is left of other motion must end too."""


@dataclass(frozen=True)
class MotionLimits:
    """Greatest speed, acceleration and jerk, of moving and turning."""

    speed_m_s: float
    acceleration_m_s2: float
    jerk_m_s3: float
    turn_rad_s: float
    turn_rad_s2: float
    turn_rad_s3: float

    def rows(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        return (
            (self.speed_m_s, self.acceleration_m_s2, self.jerk_m_s3),
            (self.turn_rad_s, self.turn_rad_s2, self.turn_rad_s3),
        )


class Follower:
    """The set-point of the hand. Times are seconds on any one clock, and do not run backwards."""

    def __init__(self, T_base_hand: Array, limits: MotionLimits, horizon_s: float) -> None:
        self.limits, self.horizon_s = limits, horizon_s
        self._otg, self._trajectory = Ruckig(6), Trajectory(6)
        self._began_s = 0.0
        self._R, self._fixed = T_base_hand[:3, :3].copy(), T_base_hand.copy()
        """Turns are rotation vectors from here: T = turn @ _R. _fixed: where it rests, if it does."""
        self._planned = False

    def at(self, now_s: float) -> tuple[Array, Array]:
        """Set-point T_base_hand (4, 4) and its twist (6,) in base."""
        if not self._planned:
            return self._fixed, np.zeros(6)
        x, v, _ = self._sample(now_s)
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = rotation(x[3:]) @ self._R, x[:3]
        return T, np.concatenate([v[:3], _left_jacobian(x[3:]) @ v[3:]])

    def resting(self, now_s: float) -> bool:
        return not self._planned or now_s - self._began_s >= self._trajectory.duration

    def go(self, T_base_hand: Array, now_s: float) -> None:
        """A new target (4, 4)."""
        request = self._request(now_s)
        turn = rotation_vector(T_base_hand[:3, :3] @ self._R.T)
        aim = np.concatenate([T_base_hand[:3, 3], turn])
        request.target_position = aim.tolist()
        request.minimum_duration = self.horizon_s
        self._plan(request, aim - np.array(request.current_position), self.limits, now_s)

    def stop(self, now_s: float, limits: MotionLimits | None = None) -> None:
        """To rest as soon as the limits (these, or its own) permit, straight on."""
        if not self.resting(now_s):
            request = self._request(now_s)
            request.control_interface = ControlInterface.Velocity
            # A turn that takes longer to end does not stretch the way out with it.
            request.per_dof_synchronization = [Synchronization.Time] * 3 + [Synchronization.No] * 3
            self._plan(request, np.array(request.current_velocity), limits or self.limits, now_s)

    def _sample(self, now_s: float) -> tuple[Array, Array, Array]:
        t = min(max(now_s - self._began_s, 0.0), self._trajectory.duration)
        x, v, a = self._trajectory.at_time(t)
        return np.array(x), np.array(v), np.array(a)

    def _request(self, now_s: float) -> InputParameter:
        """From where it is now, with turns counted from now on."""
        x, v, a = np.zeros(6), np.zeros(6), np.zeros(6)
        x[:3] = self._fixed[:3, 3]
        if self._planned:
            x, v, a = self._sample(now_s)
            J = _left_jacobian(x[3:])
            self._R = rotation(x[3:]) @ self._R
            v[3:], a[3:], x[3:] = J @ v[3:], J @ a[3:], 0.0
        request = InputParameter(6)
        request.current_position, request.current_velocity = x.tolist(), v.tolist()
        request.current_acceleration = a.tolist()
        return request

    def _plan(
        self, request: InputParameter, way: Array, limits: MotionLimits, now_s: float
    ) -> None:
        speed, acceleration, jerk = np.empty(6), np.empty(6), np.empty(6)
        for part, row in zip((slice(0, 3), slice(3, 6)), limits.rows(), strict=True):
            length = float(np.linalg.norm(way[part]))
            square = (way[part] / length) ** 2 if length > 1e-9 else np.full(3, 1 / 3)
            share = np.sqrt((square + _SIDEWAYS) / (1 + 3 * _SIDEWAYS))
            speed[part], acceleration[part], jerk[part] = (value * share for value in row)
        request.max_velocity, request.max_acceleration = speed.tolist(), acceleration.tolist()
        request.max_jerk = jerk.tolist()
        found = Trajectory(6)
        result = self._otg.calculate(request, found)
        if result not in (Result.Working, Result.Finished):
            raise ValueError(f"no trajectory along {way.round(4).tolist()}: {result}")
        self._trajectory, self._began_s, self._planned = found, now_s, True


def _left_jacobian(vector: Array) -> Array:
    """Angular velocity = J @ d(vector)/dt, (3, 3), to third order: turns are counted from nearby."""
    x, y, z = vector
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + K / 2 + K @ K / 6)
