"""Parallel grippers: one small protocol and its data.

Nothing here waits for fingers: `open` and `close` start a motion, `state` says how far it is, so the loop
keeps its rate meanwhile.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


class GripperError(RuntimeError):
    """A gripper that is missing, silent, faulty, or that does not do what it was told."""


@dataclass(frozen=True)
class GripperState:
    """The newest that the gripper said of itself."""

    stamp_ns: int
    """time.monotonic_ns of the answer (the robot's clock, as all data of a cell)."""
    width_m: float
    """Between the pads."""
    moving: bool
    """A motion that was told has not ended."""
    holding: bool
    """The fingers stopped on something while they closed, and still press on it."""


class Gripper(AbstractContextManager["Gripper"], Protocol):
    """A gripper that is activated on entry. Leaving the context lets go of the line, not of the object."""

    def open(self) -> None:
        """Starts to open fully; returns at once. Raises GripperError as `state` does."""

    def close(self) -> None:
        """Starts to close with the force and speed it was opened with; returns at once."""

    def state(self) -> GripperState:
        """The newest state, at once. Raises GripperError, by name, if it is silent, answers nonsense,
        reports a fault, or did not end a motion in time."""
