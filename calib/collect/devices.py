"""Opens the arm and the camera that calibration uses, by name."""

from __future__ import annotations

import importlib
import importlib.util
import time
from pathlib import Path
from typing import Any

from calib.collect.collect import CollectLimits, Collector
from calib.collect.protocol import CalibrationCell, ImageFrame
from calib.collect.rig import open_rig
from calib.errors import CalibrationError
from calib.screen import Screen
from calib.solve.model import LensModel
from calib.target.targets import Target
from rt.tools.resolve import ResolveError, resolve, split

_DRIVERS = {("robot", "ur"): "rt.robot.ur.driver"}
"""Modules that offer `open_calibration` under another name than rt.KIND.NAME."""

_FLANGE = ("ur",)
"""Arms that calibrate with the poses of their flange."""


def open_cell(robot: str, camera: str, **options: Any) -> CalibrationCell:
    """Open devices by name: `sim`, `rt.robot.NAME` and `rt.camera.NAME` with `open_calibration`, or
    `module:function?name=value`, a function that takes `address`, `stream` and the named texts.

    Raises CalibrationError, saying what is known, where there is no driver.
    """
    if robot == "sim" or camera == "sim":
        if robot != camera:
            raise CalibrationError("the simulated arm and camera go together: give both as sim")
        return open_rig(**options)
    parts = []
    for kind, name in (("robot", robot), ("camera", camera)):
        if ":" in name:
            try:
                opener, own = resolve(kind, name, {}), split(name)[1]
            except ResolveError as error:
                raise CalibrationError(str(error)) from error
            parts.append(opener(**options, **own))
            continue
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
                "and give the folder to `solve`; or name a function of yours, module:function"
            )
        parts.append(opener(**options))
    return CalibrationCell(
        parts[0],
        _Camera(parts[1]),
        f"{robot}+{camera}",
        options.get("stream", ""),
        lambda period_ns: time.sleep(period_ns * 1e-9),
        "flange" if robot in _FLANGE else "hand",
    )


class _Camera:
    """A camera of rt.camera, with its intrinsics as calibration has them."""

    def __init__(self, camera: Any) -> None:
        self._camera = camera
        self.intrinsics = LensModel.of(camera.intrinsics)

    def read_latest(self, max_age_s: float) -> ImageFrame:
        return self._camera.read_latest(max_age_s)

    def close(self) -> None:
        self._camera.close()


def collector_for(
    options: Any,
    target: Target | None,
    folder: Path,
    limits: CollectLimits,
    screen: Screen,
    resume: bool = False,
) -> Collector:
    """A Collector on the devices that a command's options name; asks before motion unless --yes."""
    simulated = options.robot == "sim"
    extra: dict[str, Any] = {"seed": options.seed, "target": target}
    if not simulated:
        extra = {"address": options.address, "stream": getattr(options, "stream", "infrared")}
    cell = open_cell(options.robot, options.camera, **extra)
    asks = not (options.yes or simulated)
    confirm = screen.confirm if asks else (lambda question: True)
    return Collector(cell, target, folder, limits, screen.say, confirm, resume)
