"""Check of a cell: everything that a run refuses before it opens a device, and, live, the devices themselves.

`validate` is what rt.servo does too. `live` opens arm and camera and asks the gripper; nothing moves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rt.camera import CameraError, StaleFrameError
from rt.cell.devices import Devices
from rt.cell.open import open_devices, settle
from rt.cell.options import ServoOptions
from rt.distance import open_model
from rt.gripper import GripperError
from rt.gripper.robotiq import FAULTS, read_status
from rt.guard.preflight import check_model

_FRAME_WITHIN_S, _EMULATED_S = 5.0, 90.0
"""Longest wait for a frame; one that is emulated makes its scene first."""
_FORCE_AT_REST_N = 10.0
"""A force at rest above this hints at a wrong payload."""


def validate(config: ServoOptions) -> Devices:
    """Settle the cell of these options and its model. Raises CellError, HandError, DistanceError, Stop."""
    devices = settle(config)
    check_model(open_model(devices.model, config.backend), devices)
    return devices


def live(config: ServoOptions, devices: Devices) -> Iterator[tuple[str, str]]:
    """Connect, and yield (device, line) of what is there; nothing moves. Raises the devices' errors."""
    assert devices.cell is not None
    bare = replace(devices, gripper="none")  # the gripper is only asked
    with ExitStack() as stack:
        cell = stack.enter_context(open_devices(config, bare))
        for device in (cell.robot, cell.camera):
            if isinstance(device, AbstractContextManager):
                stack.enter_context(device)
        yield from _robot(cell.robot)
        within_s = _EMULATED_S if config.camera_device else _FRAME_WITHIN_S
        yield from _camera(cell.camera, within_s)
    yield from _gripper(config, devices)


def _robot(robot: Any) -> Iterator[tuple[str, str]]:
    inner = getattr(robot, "robot", robot)  # behind the table's frame
    about = getattr(inner, "about", {})
    for key in (
        "polyscope",
        "model",
        "arm",
        "payload_kg",
        "speed_slider",
        "speed_scaling",
        "reduced",
    ):
        if about.get(key) is not None:
            yield "robot", f"{key}: {about[key]}"
    if "tcp_off" in about:
        mm, deg = about["tcp_off"]
        yield "robot", f"tool centre point: {mm:g} mm and {deg:g} deg from T_flange_hand"
    state = robot.state()
    x, y, z = state.T_base_hand[:3, 3]
    yield "robot", f"hand: x {x:.3f}, y {y:.3f}, z {z:.3f} m above the table's frame"
    if state.wrench is not None:
        force_N = float(np.linalg.norm(state.wrench[:3]))
        word = "; check payload and centre of gravity" if force_N > _FORCE_AT_REST_N else ""
        yield "robot", f"force at rest: {force_N:.1f} N{word}"


def _camera(camera: Any, within_s: float) -> Iterator[tuple[str, str]]:
    info = getattr(camera, "info", {})
    for key in (
        "name",
        "serial_number",
        "firmware_version",
        "usb_type_descriptor",
        "mode",
        "rate_hz",
    ):
        if info.get(key) is not None:
            yield "camera", f"{key}: {info[key]}"
    end = time.monotonic() + within_s
    while True:
        try:
            frame = camera.read_latest(1.0)
            break
        except StaleFrameError as error:
            if time.monotonic() > end:
                raise CameraError(
                    f"no frame within {within_s:g} s; check the camera's cable"
                ) from error
            time.sleep(0.05)
    seen = float(np.count_nonzero(frame.depth)) / frame.depth.size
    yield "camera", f"first frame: {seen:.0%} of its pixels have depth"


def _gripper(config: ServoOptions, devices: Devices) -> Iterator[tuple[str, str]]:
    if devices.gripper == "none" or devices.cell is None:
        return
    if devices.gripper != "robotiq":
        yield "gripper", f"{devices.gripper}: not asked, since opening it may move it"
        return
    part = devices.cell.gripper
    host = part.host or config.host or devices.cell.robot.host
    status = read_status(host, part.port, part.timeout_s)
    if status["FLT"]:
        raise GripperError(
            f"gripper fault {status['FLT']}: {FAULTS.get(status['FLT'], 'see the vendor manual')}"
        )
    active = status["STA"] == 3
    word = "active" if active else "not active: it will open and close when a run starts"
    yield "gripper", f"{word}; position {status['POS']} of 255, no fault"


def options_of(cell: Path, host: str = "", camera_device: str = "") -> ServoOptions:
    return ServoOptions(cell=cell, host=host, camera_device=camera_device)
