"""The last poses of the hand, to find where it was when a frame was exposed."""

from __future__ import annotations

from collections import deque

from rt.pose import interpolate
from rt.robot.protocol import RobotError, RobotState, Transform


class PoseHistory:
    """The last poses of the hand, to find where it was when a frame was exposed."""

    def __init__(self, length: int = 256) -> None:
        self._states: deque[RobotState] = deque(maxlen=length)

    def append(self, state: RobotState) -> None:
        """Keep a state; one that is not newer than the last is the same packet, and is ignored."""
        if not self._states or state.stamp_ns > self._states[-1].stamp_ns:
            self._states.append(state)

    def gap_s(self, stamp_ns: int) -> float:
        """Time between a stamp and the history [s]: 0 if poses on both sides are known."""
        if not self._states:
            return float("inf")
        first, last = self._states[0].stamp_ns, self._states[-1].stamp_ns
        return max(first - stamp_ns, stamp_ns - last, 0) * 1e-9

    def at(self, stamp_ns: int) -> Transform:
        """T_base_hand (4, 4) at that time: interpolated, or the nearest end of the history."""
        if not self._states:
            raise RobotError("no robot state has arrived yet")
        after = self._states[-1]
        if stamp_ns >= after.stamp_ns:
            return after.T_base_hand
        for before in reversed(self._states):
            if before.stamp_ns <= stamp_ns:
                part = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
                return interpolate(before.T_base_hand, after.T_base_hand, part)
            after = before
        return after.T_base_hand
