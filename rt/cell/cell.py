"""Cells: an arm, a camera and perhaps a gripper that share a clock, opened by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from rt.camera.protocol import Camera
from rt.gripper.protocol import Gripper
from rt.robot.protocol import Robot, RobotError


@dataclass
class Cell:
    """An arm, a camera and perhaps a gripper that share a clock, and what only a simulated world offers."""

    robot: Robot
    camera: Camera
    name: str
    info: dict[str, Any] = field(default_factory=dict)
    """What the record should say about it: scene, objects, mount, ..."""
    advance: Callable[[int], None] = lambda period_ns: None
    """Lets a simulated world pass `period_ns`; a real one passes by itself."""
    true_distance_m: Callable[[], float] | None = None
    """Distance from the hand now to the nearest true grasp, where that is known."""
    gripper: Gripper | None = None


CELLS = {"twin": "sim.twin"}
"""Modules that offer `open_cell(**options) -> Cell`, by the name the user gives. They are imported
only when asked for: rt needs neither the simulation nor any driver that is not used."""


def open_cell(name: str, **options: Any) -> Cell:
    """Open an arm and its camera by name; raises RobotError for one that is not known."""
    if name not in CELLS:
        raise RobotError(f"no robot {name!r}; known are: {', '.join(sorted(CELLS))}")
    return cast(Cell, importlib.import_module(CELLS[name]).open_cell(**options))
