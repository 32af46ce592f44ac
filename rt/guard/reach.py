"""Reach of the joints along the path ahead, checked before anything moves.

From the joints as they are: straight down to the lowest height of this run, and around it as far as the
controller may lead the hand, with all turns of the closing axis. Each pose's joints are found from its
neighbour's, as the arm itself gets there. Some hundred poses, some ten milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.guard.limits import Limits, joint_rooms_deg
from rt.pose import from_top_down, inverse, top_down
from rt.robot.kinematics import JOINTS, ArmModel, joint_frames, joints_at, singularity

Array = NDArray[np.float64]

AROUND_M = 0.15
"""As far as candidates reach at most (rt.controller.WIDE_M); a hand seldom goes farther in all."""
_STEP_M = 0.05
_TRIES = 40


@dataclass(frozen=True)
class ReachQuery:
    """Path to check. Frames: `base` is the loop's (on the table), `robot` the arm's own."""

    arm: ArmModel
    q: Array
    """(6,) now [rad]"""
    T_base_hand: Array
    """(4, 4) now."""
    T_robot_base: Array
    start_m: float
    """Height at which the servoing begins."""
    lowest_m: float


def survey(way: ReachQuery, limits: Limits) -> tuple[str, str]:
    """Problems straight below the hand, and within AROUND_M of that line; empty strings if there is none."""
    here = np.array(from_top_down(way.T_base_hand))
    T_robot_hand = way.T_robot_base @ way.T_base_hand
    # The flange as the nominal lengths have it: what an arm's own differ by stays the same nearby.
    T_flange_hand = inverse(joint_frames(way.arm, way.q)[6]) @ T_robot_hand

    def reached(hand: Array, near: Array) -> Array:
        T = way.T_robot_base @ top_down(*hand)
        return joints_at(way.arm, T, T_flange_hand, near, _TRIES)

    def wrong(hand: Array, near: Array) -> tuple[Array, str]:
        """Joints there, and what is the matter with them."""
        try:
            q = reached(hand, near)
        except ValueError:
            return near, f"the arm does not reach {hand_text(hand)}"
        return q, joint_trouble(way.arm, q, limits, hand)

    below: list[tuple[float, Array]] = []
    q = way.q
    for z in _heights(float(here[2]), way):
        q, why = wrong(np.array([*here[:2], z, here[3]]), q)
        if why:
            return why, ""
        below.append((z, q))
    for z, q_below in below:
        if z not in (way.start_m, way.lowest_m):
            continue
        for xy in _around(here[:2], limits):
            q = q_below
            for turn in (0.0, math.pi / 2, -math.pi / 2):
                q_there, why = wrong(np.array([*xy, z, here[3] + turn]), q)
                if why:
                    return "", why
                q = q_there if turn == 0 else q
    return "", ""


def _heights(now_m: float, way: ReachQuery) -> list[float]:
    """From here to the start height, and from there down, in small steps."""
    heights = [now_m]
    for begin, end in ((now_m, way.start_m), (way.start_m, way.lowest_m)):
        steps = max(math.ceil(abs(end - begin) / _STEP_M), 1)
        heights += np.linspace(begin, end, steps + 1)[1:].tolist()
    return heights


def _around(xy: Array, limits: Limits) -> list[Array]:
    """Places around one, within the workspace."""
    ring = AROUND_M * np.array([[math.cos(a), math.sin(a)] for a in np.arange(8) * math.pi / 4])
    return [
        np.clip(xy + r, limits.workspace_min_m, limits.workspace_max_m) for r in (0 * xy, *ring)
    ]


def joint_trouble(arm: ArmModel, q: Array, limits: Limits, hand: Array) -> str:
    """Reason why joints (6,) [rad] for a hand (4,) are too near a limit or a singularity; else empty."""
    rooms = joint_rooms_deg(q, limits)
    k = int(rooms.argmin())
    if rooms[k] < limits.joint_margin_deg:
        return (
            f"joint_limit: {JOINTS[k]} would be at {math.degrees(q[k]):.0f} deg, {rooms[k]:.0f} deg from "
            f"its limit, at {hand_text(hand)}"
        )
    angle_deg, which = singularity(arm, q)
    if angle_deg < limits.min_singular_deg:
        return f"singularity: {which} ({angle_deg:.0f} deg) at {hand_text(hand)}"
    return ""


def hand_text(hand: Array) -> str:
    """A hand (4,) for people."""
    x, y, z, yaw = hand
    return f"x {x:.2f}, y {y:.2f}, z {z:.2f} m, yaw {round(math.degrees(yaw)) + 0:d} deg"
