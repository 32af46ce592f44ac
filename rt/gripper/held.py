"""An object between the fingers: held, shifting, or lost."""

from __future__ import annotations

from rt.gripper.protocol import Gripper

REGRIP_S = 0.1
"""Fingers that close on after an object that shifts feel it again sooner than this."""


class HeldObject:
    """Asks a gripper once a cycle, from when it holds something.

    A gripper says nothing of an object while its fingers move, and they move whenever the object gives way a
    little: it is lost once that lasts REGRIP_S.
    """

    def __init__(self, gripper: Gripper) -> None:
        self._gripper = gripper
        self._without_since_ns: int | None = None
        self.width_m = gripper.state().width_m
        """Between the pads, as last asked."""

    def lost(self, now_ns: int) -> bool:
        """True once the object is lost; now_ns: on the robot's clock. Raises GripperError."""
        state = self._gripper.state()
        self.width_m = state.width_m
        if state.holding:
            self._without_since_ns = None
            return False
        if self._without_since_ns is None:
            self._without_since_ns = now_ns
        return (now_ns - self._without_since_ns) * 1e-9 >= REGRIP_S - 1e-9
