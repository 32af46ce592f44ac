"""A gripper of another make, as rt.gripper.Gripper: one that answers lines of text (serial, socket)."""

from __future__ import annotations

import time
from collections.abc import Callable

from rt.gripper import GripperError, GripperState

Ask = Callable[[str], str]
"""Sends a line and returns the answer, within milliseconds; raises OSError (TimeoutError) if none comes."""


class OwnGripper:
    """`Gripper` over OPEN, CLOSE (answered with OK) and ? (width [mm], moving 0 or 1, force [N])."""

    def __init__(
        self,
        ask: Ask,
        least_force_N: float = 5.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._line, self._least_force_N, self._clock = ask, least_force_N, clock
        self._closing = False

    def __enter__(self) -> OwnGripper:
        self.state()  # refuse to begin with a gripper that is silent
        return self

    def __exit__(self, *_: object) -> None:
        pass  # what it holds, it keeps

    def open(self) -> None:
        self._tell("OPEN")
        self._closing = False

    def close(self) -> None:
        self._tell("CLOSE")
        self._closing = True

    def state(self) -> GripperState:
        answer = self._ask("?")
        try:
            width_mm, moving, force_N = (float(word) for word in answer.split())
        except ValueError as error:
            raise GripperError(
                f"the gripper answers {answer!r}, not width, moving, force"
            ) from error
        holding = self._closing and not moving and force_N >= self._least_force_N
        return GripperState(self._clock(), width_mm * 1e-3, bool(moving), holding)

    def _tell(self, command: str) -> None:
        if (answer := self._ask(command)) != "OK":
            raise GripperError(f"the gripper answers {answer!r} to {command}; see its manual")

    def _ask(self, line: str) -> str:
        try:
            return self._line(line)
        except OSError as error:
            raise GripperError(f"the gripper is silent: {error}; check its cable") from error
