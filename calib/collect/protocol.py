"""The arm and the camera that calibration needs, as small protocols; rigs and drivers implement them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calib.solve.model import LensModel
from rt.pose import Array


class PoseState(Protocol):
    """A stamped hand pose; `rt.robot.RobotState` is one."""

    @property
    def stamp_ns(self) -> int: ...
    @property
    def T_base_hand(self) -> Array: ...


class PoseSource(Protocol):
    """The part of `rt.robot.Robot` that calibration uses."""

    def now_ns(self) -> int:
        """The clock that stamps states and frames."""

    def state(self) -> PoseState: ...

    def move(self, T_base_hand: Array) -> None:
        """Streams a target for the hand; the arm goes there smoothly and holds the last."""

    def stop(self) -> None: ...


@dataclass(frozen=True)
class ImageFrame:
    """One picture, and depth in the same frame where the camera has it."""

    stamp_ns: int
    """Middle of the exposure."""
    number: int
    image: NDArray[np.uint8]
    """(H, W) grey: infrared or colour made grey."""
    depth: NDArray[np.float32] | None
    """(H, W) metres, 0 = no return, registered to `image`."""


class ImageCamera(Protocol):
    """A camera that shows pictures. For a depth camera, the stream in whose frame depth is given."""

    @property
    def intrinsics(self) -> LensModel: ...

    def read_latest(self, max_age_s: float) -> ImageFrame: ...


@dataclass
class CalibrationCell:
    """An arm and a camera that share a clock."""

    robot: PoseSource
    camera: ImageCamera
    name: str
    stream: str = ""
    wait: Callable[[int], None] = lambda period_ns: None
    """Lets `period_ns` pass: sleeps, or moves simulated time on."""
    poses_of: str = "hand"
    """hand, or flange: the frame whose poses the arm tells."""

    def close(self) -> None:
        """Let go of arm and camera, so that another program can have them; may be called twice."""
        for part in (self.robot, self.camera):
            if (close := getattr(part, "close", None)) is not None:
                close()
