"""Opens the arm and the camera that calibration uses, by name."""

from __future__ import annotations

import importlib
import importlib.util
import time
from typing import Any

from calib.collect.protocol import CalibrationCell, ImageFrame
from calib.collect.rig import open_rig
from calib.errors import CalibrationError
from calib.solve.model import LensModel

_DRIVERS = {("robot", "ur"): "rt.robot.ur.driver"}
"""Modules that offer `open_calibration` under another name than rt.KIND.NAME."""


def open_cell(robot: str, camera: str, **options: Any) -> CalibrationCell:
    """Open devices by name: `sim`, or `rt.robot.NAME` and `rt.camera.NAME` with `open_calibration`.

    Raises CalibrationError, saying what is known, where there is no driver.
    """
    if robot == "sim" or camera == "sim":
        if robot != camera:
            raise CalibrationError("the simulated arm and camera go together: give both as sim")
        return open_rig(**options)
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
        self._camera = camera
        self.intrinsics = LensModel.of(camera.intrinsics)

    def read_latest(self, max_age_s: float) -> ImageFrame:
        return self._camera.read_latest(max_age_s)
