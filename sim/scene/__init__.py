"""Scenes: objects, how they rest, depth by rays, true grasps, and the camera that sees them."""

from typing import Literal

SPLITS: tuple[Literal["train"], Literal["test"]] = ("train", "test")
"""The two parts of every set of objects and of scenes, in the order that scene seeds are derived by."""
