"""A cell: an arm, a camera and perhaps a gripper that share a clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rt.camera.protocol import Camera
from rt.cell.setup import RunSetup
from rt.gripper.protocol import Gripper
from rt.robot.protocol import Robot

if TYPE_CHECKING:
    from rt.cell.open import Devices


@dataclass
class Cell(AbstractContextManager["Cell"]):
    """Devices that share a clock. As a context it closes its devices at the end (rt.Servo enters them)."""

    robot: Robot
    camera: Camera
    name: str
    info: dict[str, Any] = field(default_factory=dict)
    """For the flight record: scene, objects, mount, ..."""
    advance: Callable[[int], None] = lambda period_ns: None
    """Lets a simulated world pass `period_ns`; a real one passes by itself."""
    true_distance_m: Callable[[], float] | None = None
    """Distance from the hand now to the nearest true grasp; None if it is not known."""
    gripper: Gripper | None = None
    simulated: bool = False
    """True for a simulated world: it may be hurried (`fast`) and set up anew, and by default nothing is
    grasped in it."""
    setup: RunSetup | None = None
    """Limits, speeds and grasp settings; None: the defaults."""
    devices: Devices | None = None
    """The settled cell file; None without one."""

    def __exit__(self, *error: Any) -> None:
        with ExitStack() as stack:
            for device in (self.robot, self.camera):  # a gripper opens only when it is entered
                if isinstance(device, AbstractContextManager):
                    stack.push(device)
