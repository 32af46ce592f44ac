"""RealSense depth cameras, by pyrealsense2: the newest frame, with the time of its exposure.

A thread waits for frames inside the library (which lets the interpreter go meanwhile), makes metres of
them and leaves the newest for `read_latest`, which never waits. No filter is applied: most cost more
than a period, and the network is trained on what comes raw.
"""

from __future__ import annotations

import importlib
import math
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.camera import CameraError, Frame, Intrinsics, StaleFrameError
from rt.camera.host_clock import HostClock, Stamp
from rt.camera.mode import Mode, choose_mode, judge_mode
from rt.camera.models import nearest_depth_m
from rt.view import END_HEIGHT_M

_WAIT_MS = 100
_STOP_S = 3.0
_AGREE_PX = 0.3

DeviceSource = AbstractContextManager[Any]
"""Entering it gives an `rs.device` that is to be used instead of one on USB."""


def library() -> Any:
    """pyrealsense2. Raises CameraError, saying how to get it, where it is not installed."""
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        raise CameraError(
            "pyrealsense2 is not installed: pip install 'grasp-servo[realsense]'"
        ) from error


def open_camera(
    T_hand_camera: ArrayLike,
    *,
    serial: str | None = None,
    width: int | None = None,
    height: int | None = None,
    rate_hz: float = 60.0,
    final_height_m: float | None = END_HEIGHT_M,
    device: str | DeviceSource | None = None,
) -> RealSense:
    """Open a camera and start its depth stream; close it, or leave it as a context, to stop it.

    T_hand_camera: (4, 4), where it sits. serial: of several cameras; default: the only one. width,
    height: the mode [px]; default: the finest, up to 640x480, that sees near enough at the final
    height. rate_hz: frames a second, at least where the mode has it. final_height_m: of the
    fingertips above the table at the end of the travel; None: do not judge the mode. device: another
    source of frames, such as a simulated camera: an object that gives an `rs.device` when entered, or
    the text `module:function?name=value&...` of a function that returns one, called with
    T_hand_camera and the named texts.

    Raises CameraError for a camera or a mode that is not there, and for one that at the final height
    would not see even low things; what it would miss of high ones is said on stderr and in `warnings`.
    """
    rs = library()
    T = np.array(T_hand_camera, dtype=np.float64)
    if (width is None) != (height is None):
        raise CameraError(f"mode {width}x{height}: give both width and height, or neither")
    with ExitStack() as stack:
        source = _source(device, T) if isinstance(device, str) else device
        if source is None:
            context = rs.context()
            found = _find_device(rs, context, serial)
        else:
            context, found = rs.context(), stack.enter_context(source)
        modes = _depth_modes(rs, found, T)
        mode = choose_mode(
            modes,
            None if width is None or height is None else (width, height),
            rate_hz,
            final_height_m,
        )
        camera = RealSense(rs, context, found, T, mode, software=source is not None)
        for line in judge_mode(mode, final_height_m):
            camera.warnings.append(line)
            print(f"rt.camera.realsense: {line}", file=sys.stderr)
        camera.start()
        camera.closes(stack.pop_all())
        return camera


class RealSense:
    """One camera's depth stream. Implements `rt.camera.Camera`; made by `open_camera`."""

    def __init__(
        self,
        rs: Any,
        context: Any,
        device: Any,
        T_hand_camera: NDArray[np.float64],
        mode: Mode,
        *,
        software: bool = False,
    ) -> None:
        self._rs, self._context, self._device, self._mode = rs, context, device, mode
        self._software = software
        self._T = T_hand_camera
        self._T.setflags(write=False)
        self._clock = HostClock()
        self._latest: Frame | None = None
        self._gone: str | None = None
        self._over = threading.Event()
        self._pipeline: Any = None
        self._unit_m = 0.0
        self._thread = threading.Thread(target=self._grab, name="realsense", daemon=True)
        self._stack = ExitStack()
        self.warnings: list[str] = []
        """What the user should know about camera and mode."""
        self.name = device_text(rs, device, "name") or "RealSense"
        self.domain: str | None = None
        """What the stamps of its frames are, once there are some; see `host_clock.Stamp`."""

    @property
    def T_hand_camera(self) -> NDArray[np.float64]:
        return self._T

    @property
    def intrinsics(self) -> Intrinsics:
        return self._mode.intrinsics

    @property
    def info(self) -> dict[str, Any]:
        """For the record."""
        mode, texts = self._mode, ("serial_number", "firmware_version", "usb_type_descriptor")
        return {
            "name": self.name,
            **{key: device_text(self._rs, self._device, key) for key in texts},
            "mode": f"{mode.intrinsics.width_px}x{mode.intrinsics.height_px}",
            "rate_hz": mode.rate_hz,
            "depth_unit_m": self.depth_unit_m,
            "nearest_depth_m": mode.nearest_m,
            "stamps": self.domain,
            "warnings": list(self.warnings),
        }

    @property
    def depth_unit_m(self) -> float:
        return self._unit_m

    def read_latest(self, max_age_s: float) -> Frame:
        """The newest frame, at once; see `rt.camera.Camera`."""
        if self._gone is not None:
            raise CameraError(self._gone)
        frame = self._latest
        age_s = math.inf if frame is None else (time.monotonic_ns() - frame.stamp_ns) * 1e-9
        if frame is None or age_s > max_age_s:
            raise StaleFrameError(age_s, max_age_s)
        return frame

    def start(self) -> None:
        """Begin to stream. Raises CameraError if the camera does not."""
        rs, mode = self._rs, self._mode
        self._queue = rs.frame_queue(1)  # of several frames that wait, only the newest is kept
        config, self._pipeline = rs.config(), rs.pipeline(self._context)
        size = (mode.intrinsics.width_px, mode.intrinsics.height_px)
        try:
            sensor = self._device.first_depth_sensor()
            for option, value in (("global_time_enabled", 1), ("frames_queue_size", 2)):
                if sensor.supports(getattr(rs.option, option)):
                    sensor.set_option(getattr(rs.option, option), value)
            self._unit_m = float(sensor.get_depth_scale())
            if self._software:
                self._pipeline.set_device(self._device)
            else:
                config.enable_device(self._device.get_info(rs.camera_info.serial_number))
            config.enable_stream(rs.stream.depth, *size, rs.format.z16, round(mode.rate_hz))
            self._pipeline.start(config, self._queue)
        except RuntimeError as error:
            raise CameraError(
                f"{self.name} does not start {size[0]}x{size[1]} at {mode.rate_hz:g} Hz: {error}; is "
                "another program using it? Unplug it and plug it in again"
            ) from error
        if not self._software:
            self._context.set_devices_changed_callback(self._devices_changed)
        usb = device_text(rs, self._device, "usb_type_descriptor")
        if usb and usb.startswith("2"):
            self.warnings.append(f"{self.name} is on USB {usb}; use a USB 3 port and cable")
        self._thread.start()

    def closes(self, stack: ExitStack) -> None:
        """Take over what must be left when this camera is closed."""
        self._stack = stack

    def close(self) -> None:
        """Stop the stream; may be called twice. A camera that hangs is left behind after a while."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_S)
        stopper = threading.Thread(target=self._stop, name="realsense-stop", daemon=True)
        stopper.start()
        stopper.join(timeout=_STOP_S)
        self._gone = self._gone or f"{self.name} is closed"
        self._stack.close()

    def __enter__(self) -> RealSense:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _stop(self) -> None:
        with suppress(RuntimeError):
            self._pipeline.stop()

    def _devices_changed(self, event: Any) -> None:
        if event.was_removed(self._device):
            self._gone = (
                f"{self.name} was disconnected; check its cable and start again: it is not "
                "reconnected by itself"
            )

    def _grab(self) -> None:
        """In a thread of its own until the camera is closed."""
        try:
            while not self._over.is_set():
                came, frames = self._queue.try_wait_for_frame(_WAIT_MS)
                if came:
                    depth = (
                        frames.as_frameset().get_depth_frame() if frames.is_frameset() else frames
                    )
                    if depth:
                        self._latest = self._take(depth.as_depth_frame())
        except Exception as error:
            self._gone = f"{self.name}: {error}"

    def _take(self, depth: Any) -> Frame:
        """A frame of the library -> ours; it may be used again by the library afterwards."""
        stamp = frame_stamp(self._rs, depth)
        self.domain = stamp.domain
        at = self._clock.exposure_ns(stamp)
        unit = np.float32(depth.get_units() or self._unit_m)
        raw = np.asanyarray(depth.get_data())
        metres = np.multiply(raw, unit, dtype=np.float32)
        metres.setflags(write=False)
        return Frame(at, depth.get_frame_number(), metres, self._mode.intrinsics)


def frame_stamp(rs: Any, frame: Any) -> Stamp:
    """What a frame of the library says about its time."""

    def number(name: str) -> int | None:
        key = getattr(rs.frame_metadata_value, name)
        has = frame.supports_frame_metadata(key)
        return int(frame.get_frame_metadata(key)) if has else None

    return Stamp(
        frame.get_frame_timestamp_domain().name,
        frame.get_timestamp(),
        number("sensor_timestamp"),
        number("frame_timestamp"),
        number("actual_exposure"),
    )


def read_intrinsics(rs: Any, found: Any) -> Intrinsics:
    """The library's intrinsics as ours.

    What `inverse` and `modified` mean has changed between its versions, so the model that is taken
    is the one whose rays the library itself projects to the pixels that they belong to. Raises
    CameraError if there is none.
    """
    numbers = (found.width, found.height, found.fx, found.fy, found.ppx, found.ppy)
    bent = tuple(float(k) for k in found.coeffs)
    if not any(bent):
        return Intrinsics(*numbers)
    u = np.linspace(0, found.width - 1, 7).astype(int)
    v = np.linspace(0, found.height - 1, 7).astype(int)
    for model in ("brown_conrady", "inverse_brown_conrady"):
        ours = Intrinsics(*numbers, bent, model)
        try:
            rays = ours.rays()
        except CameraError:
            continue
        off = max(
            float(
                np.abs(
                    np.subtract(rs.rs2_project_point_to_pixel(found, rays[b, a].tolist()), (a, b))
                ).max()
            )
            for a in u
            for b in v
        )
        if off < _AGREE_PX:
            return ours
    raise CameraError(
        f"the camera's distortion ({found.model.name}, {bent}) is none that is known; choose another "
        "stream or calibrate it again"
    )


def device_text(rs: Any, device: Any, key: str) -> str | None:
    """One of rs.camera_info, None if the device does not say."""
    info = getattr(rs.camera_info, key)
    return str(device.get_info(info)) if device.supports(info) else None


def _find_device(rs: Any, context: Any, serial: str | None) -> Any:
    devices = list(context.query_devices())
    serials = {device_text(rs, d, "serial_number"): d for d in devices}
    if not devices:
        raise CameraError(
            "no RealSense camera was found; check its cable, and on Linux that its udev rules are "
            "installed (99-realsense-libusb.rules)"
        )
    if serial is None:
        return devices[0]
    if serial not in serials:
        raise CameraError(
            f"no RealSense camera has the serial number {serial}; connected are "
            f"{', '.join(sorted(str(s) for s in serials))}"
        )
    return serials[serial]


def _depth_modes(rs: Any, device: Any, T_hand_camera: NDArray[np.float64]) -> list[Mode]:
    """Every z16 mode of a device."""
    name = device_text(rs, device, "name") or "RealSense"
    try:
        sensor = device.first_depth_sensor()
        profiles = sensor.get_stream_profiles()
    except RuntimeError as error:
        raise CameraError(f"{name} has no depth stream: {error}") from error
    baseline_m = None
    if sensor.supports(rs.option.stereo_baseline):
        baseline_m = float(sensor.get_option(rs.option.stereo_baseline)) * 1e-3
    modes = []
    for profile in profiles:
        if profile.stream_type() != rs.stream.depth or profile.format() != rs.format.z16:
            continue
        intrinsics = read_intrinsics(rs, profile.as_video_stream_profile().get_intrinsics())
        nearest_m = nearest_depth_m(name, intrinsics, baseline_m)
        modes.append(
            Mode(
                name, intrinsics, float(profile.fps()), nearest_m, baseline_m or 0.0, T_hand_camera
            )
        )
    return modes


def _source(text: str, T_hand_camera: NDArray[np.float64]) -> DeviceSource:
    """`module:function?name=value` -> what the function returns."""
    place, _, query = text.partition("?")
    module, colon, function = place.partition(":")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not colon or not module or not function:
        raise CameraError(
            f"camera device {text!r} must be module:function, for example sim.realsense:emulated"
        )
    try:
        maker = getattr(importlib.import_module(module), function)
        return maker(T_hand_camera, **options)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, TypeError) as error:
        raise CameraError(f"camera device {text!r} cannot be made: {error}") from error
