"""Closed-loop grasping on the robot PC: view, distance, controller, loop. Imports nothing from sim or train.

    from rt import Servo, open_cell, open_model

    with open_cell("twin") as cell, Servo(cell, open_model()) as servo:
        for step in servo:
            print(step.phase, step.hand)

The names below are the public ones (docs/api.md). Each is imported when it is first asked for, so `import rt`
loads neither the command line nor drawing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rt.tools.interrupt import one_line

one_line()

if TYPE_CHECKING:
    from rt.camera import Camera as Camera
    from rt.camera import CameraError as CameraError
    from rt.camera import Frame as Frame
    from rt.camera import Intrinsics as Intrinsics
    from rt.cell.cell import Cell as Cell
    from rt.cell.file import load_cell as load_cell
    from rt.cell.open import open_cell as open_cell
    from rt.cell.options import ServoOptions as ServoOptions
    from rt.cell.transform import CellError as CellError
    from rt.controller import Decision as Decision
    from rt.controller import candidates as candidates
    from rt.cycle import Step as Step
    from rt.distance import Contract as Contract
    from rt.distance import Distance as Distance
    from rt.distance import DistanceError as DistanceError
    from rt.distance import open_model as open_model
    from rt.grasp.single_view import Look as Look
    from rt.grasp.single_view import look_at as look_at
    from rt.gripper import Gripper as Gripper
    from rt.gripper import GripperError as GripperError
    from rt.guard.limits import Limits as Limits
    from rt.hand import Hand as Hand
    from rt.hand import load_hand as load_hand
    from rt.outcome import Outcome as Outcome
    from rt.outcome import Report as Report
    from rt.record.recorder import FlightRecord as FlightRecord
    from rt.record.recorder import read_record as read_record
    from rt.replay import rescore as rescore
    from rt.robot import Robot as Robot
    from rt.robot import RobotError as RobotError
    from rt.servo import Servo as Servo
    from rt.view import VIEW as VIEW
    from rt.view import Reprojector as Reprojector
    from rt.view import View as View
    from rt.view import close_gaps as close_gaps

_HOMES = {
    "VIEW": "rt.view",
    "Camera": "rt.camera",
    "CameraError": "rt.camera",
    "Cell": "rt.cell.cell",
    "CellError": "rt.cell.transform",
    "Contract": "rt.distance",
    "Decision": "rt.controller",
    "Distance": "rt.distance",
    "DistanceError": "rt.distance",
    "FlightRecord": "rt.record.recorder",
    "Frame": "rt.camera",
    "Gripper": "rt.gripper",
    "GripperError": "rt.gripper",
    "Hand": "rt.hand",
    "Intrinsics": "rt.camera",
    "Limits": "rt.guard.limits",
    "Look": "rt.grasp.single_view",
    "Outcome": "rt.outcome",
    "Report": "rt.outcome",
    "Reprojector": "rt.view",
    "Robot": "rt.robot",
    "RobotError": "rt.robot",
    "Servo": "rt.servo",
    "ServoOptions": "rt.cell.options",
    "Step": "rt.cycle",
    "View": "rt.view",
    "candidates": "rt.controller",
    "close_gaps": "rt.view",
    "load_cell": "rt.cell.file",
    "load_hand": "rt.hand",
    "look_at": "rt.grasp.single_view",
    "open_cell": "rt.cell.open",
    "open_model": "rt.distance",
    "read_record": "rt.record.recorder",
    "rescore": "rt.replay",
}
"""Module of each public name."""

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rt' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
