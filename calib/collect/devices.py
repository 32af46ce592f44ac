"""The arm and the camera that calibration talks to, as small protocols, and how they are opened."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibrationError
from calib.solve.model import LensModel
from rt.pose import Array


class PoseState(Protocol):
    """What the robot packet says; `rt.robot.RobotState` is one."""

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


_DRIVERS = {("robot", "ur"): "rt.robot.ur.driver", ("camera", "realsense"): "rt.camera.pictures"}
"""Modules that offer `open_calibration`, by kind and name."""


def open_cell(robot: str, camera: str, **options: Any) -> CalibrationCell:
    """Open devices by name: `sim`, or `rt.robot.NAME` and `rt.camera.NAME` with `open_calibration`.

    Raises CalibrationError, saying what is known, where there is no driver.
    """
    if robot == "sim" or camera == "sim":
        if robot != camera:
            raise CalibrationError("the simulated arm and camera go together: give both as sim")
        from calib.collect.rig import open_calibration

        return open_calibration(**options)
    parts = []
    for kind, name in (("robot", robot), ("camera", camera)):
        module = _DRIVERS.get((kind, name), f"rt.{kind}.{name}")
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        opener = (
            getattr(importlib.import_module(module), "open_calibration", None) if found else None
        )
        if opener is None:
            raise CalibrationError(
                f"there is no {kind} driver {name!r} for calibration in this version ({module} has no "
                "open_calibration); use 'sim', or take images and poses with the maker's own tools "
                "and give the folder to `solve`"
            )
        parts.append(opener(**options))
    import time

    return CalibrationCell(
        parts[0],
        _Camera(parts[1]),
        f"{robot}+{camera}",
        options.get("stream", ""),
        lambda period_ns: time.sleep(period_ns * 1e-9),
    )


class _Camera:
    """A camera of rt.camera, with its intrinsics as calibration has them."""

    def __init__(self, camera: Any) -> None:
        self._camera, ours = camera, camera.intrinsics
        if any(ours.distortion) and ours.distortion_model != "brown_conrady":
            raise CalibrationError(
                f"the camera's distortion model is {ours.distortion_model}, OpenCV's is brown_conrady; "
                "choose another --stream"
            )
        dist = (*ours.distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
        numbers = (ours.width_px, ours.height_px, ours.fx_px, ours.fy_px, ours.cx_px, ours.cy_px)
        self.intrinsics = LensModel(*numbers, dist)

    def read_latest(self, max_age_s: float) -> ImageFrame:
        return self._camera.read_latest(max_age_s)
