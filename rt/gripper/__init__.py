"""Parallel grippers: one small protocol. A device is a module of this folder that offers `open_gripper`."""

import importlib
from typing import Any, cast

from rt.gripper.protocol import Gripper, GripperError, GripperState

__all__ = ["GRIPPERS", "Gripper", "GripperError", "GripperState", "open_gripper"]

GRIPPERS = {"robotiq": "rt.gripper.robotiq"}
"""Modules that offer `open_gripper(host, **options) -> Gripper`, by the name the user gives."""


def open_gripper(name: str, **options: Any) -> Gripper:
    """Prepare a gripper by name; nothing is sent before its context is entered."""
    if name not in GRIPPERS:
        raise GripperError(f"no gripper {name!r}; known are: {', '.join(sorted(GRIPPERS))}, none")
    return cast(Gripper, importlib.import_module(GRIPPERS[name]).open_gripper(**options))
