"""Clamps of the guard's rows: each makes of a command about to be sent one that keeps its limit.

`s` is a CycleState (rt.guard.rows, which has these functions in its table).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Hand = NDArray[np.float64]
_CLIMB_M_S = 0.1
"""Speed at which the hand goes up from what stands in its way."""


def shorten(s: Any) -> Hand:
    part = s.limits.max_speed_m_s / s.command_speed_m_s
    return np.append(s.commanded[:3] + part * (s.command[:3] - s.commanded[:3]), s.command[3])


def soften(s: Any) -> Hand:
    part = s.limits.max_acceleration_m_s2 / s.command_acceleration_m_s2
    change = s.command[:3] - s.commanded[:3] - s.last_step
    return np.append(s.commanded[:3] + s.last_step + part * change, s.command[3])


def slow_turn(s: Any) -> Hand:
    part = s.limits.max_turn_deg_s / s.command_turn_deg_s
    return np.append(s.command[:3], s.commanded[3] + part * (s.command[3] - s.commanded[3]))


def into_workspace(s: Any) -> Hand:
    inside = np.clip(s.command[:2], s.limits.workspace_min_m, s.limits.workspace_max_m)
    return np.append(inside, s.command[2:])


def clear_of_the_scene(s: Any) -> Hand:
    """On to the side, but no deeper; if that is too low even so, straight up."""
    before = s.commanded
    beside = np.array([*s.command[:2], before[2], s.command[3]])
    lack_m = max(s.lack_m(beside), s.lack_m(before))
    if lack_m <= 0:
        return np.array([*s.command[:2], s.command[2] + s.lack_m(s.command), s.command[3]])
    return np.array([*before[:2], before[2] + min(lack_m, _CLIMB_M_S * s.period_s), before[3]])


def up_to_floor(s: Any) -> Hand:
    return np.array([*s.command[:2], s.floor, s.command[3]])


def down_to_ceiling(s: Any) -> Hand:
    return np.array([*s.command[:2], s.limits.max_height_m, s.command[3]])
