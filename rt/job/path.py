"""Moves between table and place: straight lines with rounded corners, at bounded speed and acceleration.

Each line has a trapezoid of speed; the next line begins while the last one still brakes, so the corner is
rounded by about speed^2 / (8 acceleration) and the hand does not stop there. A path is judged as a whole
before it starts (`trouble`). A line on which an arm's joints cannot follow is replaced by an arc around the
arm's base (`planned`), which is above all a turn of the first joint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.guard.limits import Limits, outside
from rt.guard.reach import hand_text, joint_trouble
from rt.pose import inverse, top_down
from rt.robot.kinematics import ArmModel, joint_frames, joints_at

Array = NDArray[np.float64]

_SAMPLE_S = 0.1
_FINE_S, _BACK_RAMP_S, _BACK_RAD_S = 0.02, 0.2, 0.5
_ARC_RAD = math.radians(15.0)
_TRIES = 40
_SLOWEST = 0.1
"""A path is slowed down to this part of its speed at most, for joints that turn too fast."""


class PathError(RuntimeError):
    """A way that the arm, the workspace or the floor forbids; the message names the place and the reason."""


@dataclass(frozen=True)
class PathLimits:
    """Speeds and accelerations along a path."""

    speed_m_s: float
    acceleration_m_s2: float
    turn_rad_s: float
    turn_acceleration_rad_s2: float

    def scaled(self, part: float) -> PathLimits:
        """The same path, 1 / part as long in time."""
        return PathLimits(
            self.speed_m_s * part,
            self.acceleration_m_s2 * part**2,
            self.turn_rad_s * part,
            self.turn_acceleration_rad_s2 * part**2,
        )


class Path:
    """Hand poses over time through given ones, from rest to rest."""

    def __init__(self, points: Sequence[Array], limits: PathLimits) -> None:
        """points: (4,) each, x, y, z [m], yaw [rad] in base; yaw as it is to be turned, not wrapped."""
        self.points = [np.asarray(p, dtype=np.float64) for p in points]
        self._lines: list[tuple[Array, float, float, float]] = []
        begin = ramp_before = end_before = end_before_that = 0.0
        for a, b in zip(self.points, self.points[1:], strict=False):
            way_m, turn = float(np.linalg.norm(b[:3] - a[:3])), abs(float(b[3] - a[3]))
            if way_m < 1e-9 and turn < 1e-9:
                continue
            # Part of the line per second, and per second squared.
            speed = min(limits.speed_m_s / max(way_m, 1e-9), limits.turn_rad_s / max(turn, 1e-9))
            change = min(
                limits.acceleration_m_s2 / max(way_m, 1e-9),
                limits.turn_acceleration_rad_s2 / max(turn, 1e-9),
            )
            ramp = min(speed / change, math.sqrt(1 / change))
            whole = ramp + 1 / (change * ramp)
            if self._lines:
                begin = max(end_before - min(ramp, ramp_before), end_before_that)
            self._lines.append((b - a, begin, ramp, whole))
            end_before_that, end_before, ramp_before = end_before, begin + whole, ramp
        self.seconds = end_before

    @property
    def end(self) -> Array:
        """(4,) where it leads."""
        return self.points[-1]

    def at(self, time_s: float) -> Array:
        """(4,) at that time from the start."""
        hand = self.points[0].copy()
        for way, begin, ramp, whole in self._lines:
            t = min(max(time_s - begin, 0.0), whole)
            change = 1 / (ramp * (whole - ramp))
            if t < ramp:
                part = change * t * t / 2
            elif t < whole - ramp:
                part = change * ramp * (t - ramp / 2)
            else:
                part = 1 - change * (whole - t) ** 2 / 2
            hand += part * way
        return hand


class Retrace:
    """The way back along a path to its beginning, from near where it was left, from rest and slowly."""

    def __init__(self, path: Path, hand: Array, speed_m_s: float) -> None:
        """hand: (4,) where the arm stands now."""
        self._path = path
        times = np.arange(0.0, path.seconds + _FINE_S, _FINE_S)
        hands = np.array([path.at(float(t)) for t in times])
        nearest = int(np.argmin(np.linalg.norm(hands[:, :3] - hand[:3], axis=1)))
        self._left_s = float(times[nearest])
        self._aside = np.asarray(hand - hands[nearest], dtype=np.float64)
        self._aside[3] = math.remainder(float(self._aside[3]), 2 * math.pi)
        steps = np.diff(hands, axis=0)
        fastest = max(
            float(np.linalg.norm(steps[:, :3], axis=1).max(initial=0.0)) / speed_m_s,
            float(np.abs(steps[:, 3]).max(initial=0.0)) / _BACK_RAD_S,
        )
        self._part = min(_FINE_S / max(fastest, 1e-9), 1.0)
        self._aside_s = 0.5 + float(np.linalg.norm(self._aside[:3])) / speed_m_s
        self.seconds = max(self._left_s / self._part + _BACK_RAMP_S / 2, self._aside_s)

    @property
    def end(self) -> Array:
        """(4,) where it leads."""
        return self._path.points[0]

    def at(self, time_s: float) -> Array:
        """(4,) at that time from the start."""
        ramp = min(time_s, _BACK_RAMP_S)
        gone_s = self._part * (ramp * ramp / (2 * _BACK_RAMP_S) + max(time_s - _BACK_RAMP_S, 0.0))
        rest = 0.5 + 0.5 * math.cos(math.pi * min(time_s / self._aside_s, 1.0))
        return self._path.at(max(self._left_s - gone_s, 0.0)) + rest * self._aside


@dataclass(frozen=True)
class Reachable:
    """An arm in its posture, which paths are judged for."""

    limits: Limits
    arm: ArmModel | None = None
    """None: not known; its joints are then not judged."""
    q: Array | None = None
    """(6,) [rad] now."""
    T_base_hand: Array | None = None
    """(4, 4) now."""
    T_robot_base: Array | None = None

    def trouble(self, path: Path) -> tuple[str, float]:
        """Reason why a path cannot be followed, or an empty text, and the part of its speed at which the
        joints can follow (1: as it is). The path must begin where the arm is now."""
        times = np.append(np.arange(0.0, path.seconds, _SAMPLE_S), path.seconds)
        hands = [path.at(float(t)) for t in times]
        for hand in hands:
            if why := outside(hand, self.limits):
                return why, 1.0
        if self.arm is None or self.q is None or self.T_base_hand is None:
            return "", 1.0
        T_robot_base = np.eye(4) if self.T_robot_base is None else self.T_robot_base
        T_flange_hand = inverse(joint_frames(self.arm, self.q)[6]) @ T_robot_base @ self.T_base_hand
        fastest = np.radians(self.arm.max_speed_deg_s) * self.limits.max_joint_speed
        q, most = self.q, 0.0
        for k, hand in enumerate(hands):
            try:
                now = joints_at(self.arm, T_robot_base @ top_down(*hand), T_flange_hand, q, _TRIES)
            except ValueError:
                return f"the arm does not reach {hand_text(hand)}", 1.0
            if why := joint_trouble(self.arm, now, self.limits, hand):
                return why, 1.0
            if k:
                turned = np.abs(now - q) / max(float(times[k] - times[k - 1]), 1e-3)
                most = max(most, float((turned / fastest).max()))
            q = now
        return "", 1.0 if most <= 1 else 0.95 / most


def planned(points: Sequence[Array], limits: PathLimits, reachable: Reachable) -> Path:
    """A path through the points that the arm can follow: straight, slower where joints would turn too fast,
    or with its last line bent around the arm's base. Raises PathError."""
    reasons = []
    for way in (list(points), around_base(points, reachable)):
        if not way:
            continue
        part = 1.0
        for _ in range(3):
            path = Path(way, limits.scaled(part))
            why, slower = reachable.trouble(path)
            if why or slower == 1.0:
                break
            part *= slower
        if not why and slower == 1.0 and part >= _SLOWEST:
            return path
        reasons.append(why or f"joint_speed: only {part:.0%} of the speed could be followed")
    raise PathError(reasons[0])


def around_base(points: Sequence[Array], reachable: Reachable) -> list[Array]:
    """The points with every line along x, y bent to an arc about the arm's base; empty for an arm that is
    not known, or right above its base."""
    if reachable.arm is None:
        return []
    T_robot_base = np.eye(4) if reachable.T_robot_base is None else reachable.T_robot_base
    centre = inverse(T_robot_base)[:2, 3]
    result = [np.asarray(points[0], dtype=np.float64)]
    for b in points[1:]:
        a = result[-1]
        from_m, to_m = a[:2] - centre, np.asarray(b)[:2] - centre
        radii = float(np.hypot(*from_m)), float(np.hypot(*to_m))
        if min(radii) < 0.05:
            return []
        angle = math.atan2(from_m[1], from_m[0])
        turn = math.remainder(math.atan2(to_m[1], to_m[0]) - angle, 2 * math.pi)
        steps = max(math.ceil(abs(turn) / _ARC_RAD), 1)
        for k in range(1, steps + 1):
            part = k / steps
            radius = radii[0] + part * (radii[1] - radii[0])
            phi = angle + part * turn
            xy = centre + radius * np.array([math.cos(phi), math.sin(phi)])
            rest = a[2:] + part * (np.asarray(b)[2:] - a[2:])
            result.append(np.array([*xy, *rest]))
    return result
