"""Contact force: the measured force minus its mean at rest."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from rt.robot import Robot, RobotState

ZERO_SAMPLES = 10
"""Packets whose mean is the force's zero: one alone is off by the sensor's noise."""
_ZEROED_WITHIN_S = 0.1


def wrench_at_rest(robot: Robot) -> NDArray[np.float64] | None:
    """(6,) mean of the next few packets of an arm that stands; None for one that feels nothing. Takes a few
    hundredths of a second, so not for the loop."""
    stamp_ns = -1
    wrenches: list[NDArray[np.float64]] = []
    end = time.monotonic() + _ZEROED_WITHIN_S
    while len(wrenches) < ZERO_SAMPLES and (not wrenches or time.monotonic() < end):
        state = robot.state()
        if state.wrench is None:
            return None
        if state.stamp_ns > stamp_ns:
            stamp_ns = state.stamp_ns
            wrenches.append(state.wrench)
        time.sleep(0.001)
    return np.asarray(np.mean(wrenches, axis=0))


def contact_force(state: RobotState, zero: NDArray[np.float64] | None) -> tuple[float, float]:
    """Force [N] and torque [N m] on the hand beyond `zero`; 0 for an arm that feels nothing."""
    if state.wrench is None or zero is None:
        return 0.0, 0.0
    more = state.wrench - zero
    return float(np.linalg.norm(more[:3])), float(np.linalg.norm(more[3:]))
