"""Parallel grippers: one small protocol. A device is a module of this folder that offers `open_gripper`.

Nothing here waits for fingers: `open` and `close` start a motion, `state` says how far it is, so the loop
keeps its rate meanwhile.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast


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


GRIPPERS = {"robotiq": "rt.gripper.robotiq"}
"""Modules that offer `open_gripper(host, **options) -> Gripper`, by the name the user gives."""


def open_gripper(name: str, **options: Any) -> Gripper:
    """Prepare a gripper by name; nothing is sent before its context is entered."""
    if name not in GRIPPERS:
        raise GripperError(f"no gripper {name!r}; known are: {', '.join(sorted(GRIPPERS))}, none")
    return cast(Gripper, importlib.import_module(GRIPPERS[name]).open_gripper(**options))
