"""Parallel grippers: one small protocol. A driver is a module of this room with a function `open_gripper`."""

from rt.gripper.protocol import Gripper, GripperError, GripperState

__all__ = ["Gripper", "GripperError", "GripperState"]
