"""RealSense depth cameras, by pyrealsense2: the newest frame, with the time of its exposure.

A thread waits for frames inside the library (which lets the interpreter go meanwhile), makes metres of
them and leaves the newest for `read_latest`, which never waits. No filter is applied: most cost more
than a period, and the network is trained on what comes raw.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.camera import CameraError, Frame, Intrinsics, StaleFrameError
from rt.camera.host_clock import HostClock
from rt.camera.mode import Mode, choose_mode, judge_mode
from rt.camera.models import nearest_depth_m
from rt.camera.stream import (
    FrameStream,
    T,
    depth_of,
    depth_sensor,
    depth_unit_m,
    device_text,
    frame_stamp,
)
from rt.tools.resolve import ResolveError, resolve, split
from rt.view import END_HEIGHT_M

_AGREE_PX = 0.3
COLOURS_HZ = 10.0
"""Most colour images in a second."""

DeviceSource = AbstractContextManager[Any]
"""Entering it gives an `rs.device` that is to be used instead of one on USB."""


def library() -> Any:
    """pyrealsense2. Raises CameraError with the remedy if pyrealsense2 is missing or does not load."""
    _load_libusb()
    try:
        return importlib.import_module("pyrealsense2")
    except ModuleNotFoundError as error:
        raise CameraError(
            "pyrealsense2 is not installed: pip install 'grasp-servo[realsense]'"
        ) from error
    except ImportError as error:
        raise CameraError(
            f"pyrealsense2 does not load ({error}): pip install 'grasp-servo[realsense]' brings the "
            "package libusb-package; or apt-get install libusb-1.0-0 (Debian, Ubuntu)"
        ) from error


def _load_libusb() -> None:
    """Load libusb, which pyrealsense2 links to and does not bring.

    The system's libusb has precedence: it is built with udev, the one in libusb-package without.
    """
    try:
        ctypes.CDLL("libusb-1.0.so.0")
    except OSError:
        with contextlib.suppress(ImportError, OSError):  # then pyrealsense2 says what it misses
            path = importlib.import_module("libusb_package").get_library_path()
            if path is not None:
                ctypes.CDLL(str(path))  # the loader then finds it by its soname


def open_camera(
    T_hand_camera: ArrayLike,
    *,
    serial: str | None = None,
    width: int | None = None,
    height: int | None = None,
    rate_hz: float = 60.0,
    final_height_m: float | None = END_HEIGHT_M,
    device: str | DeviceSource | None = None,
    record: str | Path | None = None,
    colour: bool = False,
) -> RealSense:
    """Open a camera and start its depth stream; close it, or leave it as a context, to stop it.

    T_hand_camera: (4, 4), where it sits. serial: of several cameras; default: the only one. width,
    height: the mode [px]; default: the finest, up to 640x480, that sees near enough at the final
    height. rate_hz: frames a second, at least where the mode has it. final_height_m: of the
    fingertips above the table at the end of the travel; None: do not judge the mode. device: another
    source of frames, such as a simulated camera: an object that gives an `rs.device` when entered, or
    the text `module:function?name=value&...` of a function that returns one, called with
    T_hand_camera and the named texts. record: a new .db3 file that the library writes every frame into
    (rt.camera.replay plays it). colour: also stream colour, aligned to the depth image by the library, for
    Frame.colour, at most COLOURS_HZ.

    Raises CameraError for a camera or a mode that is not there, and for one that at the final height
    would not see even low things; what it would miss of high ones is said on stderr and in `warnings`.
    """
    rs = library()
    T = np.array(T_hand_camera, dtype=np.float64)
    if (width is None) != (height is None):
        raise CameraError(f"mode {width}x{height}: give both width and height, or neither")
    if record is not None and (Path(record).suffix != ".db3" or Path(record).exists()):
        raise CameraError(f"record = {record} must be a .db3 file that does not exist yet")
    with ExitStack() as stack:
        source = device_source(device, T) if isinstance(device, str) else device
        if source is None:
            context = rs.context()
            found = find_device(rs, context, serial)
        else:
            context, found = rs.context(), stack.enter_context(source)
        modes = _depth_modes(rs, found, T)
        mode = choose_mode(
            modes,
            None if width is None or height is None else (width, height),
            rate_hz,
            final_height_m,
        )
        camera = RealSense(rs, context, found, T, mode, software=source is not None, colour=colour)
        for line in judge_mode(mode, final_height_m):
            camera.warn(line)
        if colour and not camera.has_colour:
            camera.warn(f"{mode.camera} has no colour: its frames are without")
        camera.start(record)
        camera.stream.closes(stack.pop_all())
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
        colour: bool = False,
    ) -> None:
        self._rs, self._mode = rs, mode
        self._colours = colour_streams(rs, device, mode) if colour else []
        self._align = rs.align(rs.stream.depth) if self._colours else None
        self._colour_due_s = 0.0
        texts = ("serial_number", "firmware_version", "usb_type_descriptor")
        self._texts = {key: device_text(rs, device, key) for key in texts}
        self._T = T_hand_camera
        self._T.setflags(write=False)
        self._clock = HostClock()
        self.stream: FrameStream[Frame] = FrameStream(
            rs, context, device, software=software, take=self._take
        )
        self.depth_unit_m = depth_unit_m(rs, depth_sensor(rs, device))
        self.warnings: list[str] = []
        """Warnings for the user about camera and mode."""
        self.domain: str | None = None
        """Kind of the frames' time stamps, None before the first frame; see `host_clock.Stamp`."""

    @property
    def T_hand_camera(self) -> NDArray[np.float64]:
        return self._T

    @property
    def intrinsics(self) -> Intrinsics:
        return self._mode.intrinsics

    @property
    def has_colour(self) -> bool:
        """True if frames come with colour."""
        return self._align is not None

    @property
    def info(self) -> dict[str, Any]:
        """For the record."""
        mode = self._mode
        return {
            "name": self.stream.name,
            **self._texts,
            "mode": f"{mode.size[0]}x{mode.size[1]}",
            "rate_hz": mode.rate_hz,
            "depth_unit_m": self.depth_unit_m,
            "nearest_depth_m": mode.nearest_m,
            "stamps": self.domain,
            "stamp_delay_ms": [self._clock.least_delay_ms, self._clock.most_delay_ms],
            "warnings": list(self.warnings),
        }

    def read_latest(self, max_age_s: float) -> Frame:
        """The newest frame, at once; see `rt.camera.Camera`."""
        return fresh(self.stream, max_age_s)

    def start(self, record: str | Path | None = None) -> None:
        """Begin to stream. Raises CameraError if the camera does not."""
        rs, mode = self._rs, self._mode
        depth = (rs.stream.depth, *mode.size, rs.format.z16, round(mode.rate_hz))
        what = f"{mode.size[0]}x{mode.size[1]} at {mode.rate_hz:g} Hz"
        self.stream.start([depth, *self._colours], what, record)
        usb = self._texts["usb_type_descriptor"]
        if usb and usb.startswith("2"):
            self.warn(f"{self.stream.name} is on USB {usb}; use a USB 3 port and cable")

    def warn(self, line: str) -> None:
        self.warnings.append(line)
        print(f"rt.camera.realsense: {line}", file=sys.stderr)

    def close(self) -> None:
        """Stop the stream; may be called twice."""
        self.stream.close()

    def __enter__(self) -> RealSense:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, frames: Any) -> Frame | None:
        """Frame copied from the library's frames, which the library may reuse afterwards."""
        depth = depth_of(frames)
        if depth is None:
            return None
        stamp = frame_stamp(self._rs, depth)
        self.domain = stamp.domain
        at = self._clock.exposure_ns(stamp)
        for line in self._clock.doubts():
            self.warn(line)
        metres = in_metres(depth, self.depth_unit_m)
        colour = self._colour_of(frames, metres.shape)
        return Frame(at, depth.get_frame_number(), metres, self._mode.intrinsics, colour)

    def _colour_of(self, frames: Any, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """The colour image in the depth image's pixels, if one came and it is its turn: to align costs
        milliseconds, and the depth of these frames is so much older."""
        if self._align is None or not frames.is_frameset() or time.monotonic() < self._colour_due_s:
            return None
        frameset = frames.as_frameset()
        if not frameset.get_color_frame():
            return None
        found = np.array(self._align.process(frameset).get_color_frame().get_data())
        if found.shape != (*shape, 3):
            return None
        self._colour_due_s = time.monotonic() + 1 / COLOURS_HZ
        found.setflags(write=False)
        return found


def fresh(stream: FrameStream[T], max_age_s: float) -> T:
    """The newest of a stream. Raises CameraError if it is lost, StaleFrameError if it is too old."""
    if stream.gone is not None:
        raise CameraError(stream.gone)
    newest = stream.latest
    age_s = math.inf if newest is None else (time.monotonic_ns() - newest.stamp_ns) * 1e-9
    if newest is None or age_s > max_age_s:
        raise StaleFrameError(age_s, max_age_s)
    return newest


def in_metres(depth: Any, unit_m: float) -> NDArray[np.float32]:
    """A depth frame of the library as (H, W) float32 metres; unit_m where it does not know its own."""
    raw = np.asanyarray(depth.get_data())
    metres: NDArray[np.float32] = np.multiply(
        raw, np.float32(depth.get_units() or unit_m), dtype=np.float32
    )
    metres.setflags(write=False)
    return metres


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
        grid = [(int(a), int(b)) for a in u for b in v]
        seen = [rs.rs2_project_point_to_pixel(found, rays[b, a].tolist()) for a, b in grid]
        if np.abs(np.subtract(seen, grid)).max() < _AGREE_PX:
            return ours
    raise CameraError(
        f"the camera's distortion ({found.model.name}, {bent}) is none that is known; choose another "
        "stream or calibrate it again"
    )


def find_device(rs: Any, context: Any, serial: str | None) -> Any:
    devices = list(context.query_devices())
    serials = {device_text(rs, d, "serial_number"): d for d in devices}
    if not devices:
        raise CameraError(
            "no RealSense camera was found; check its cable, and on Linux that its udev rules are "
            "installed (99-realsense-libusb.rules)"
        )
    if serial is None:
        if len(devices) > 1:
            raise CameraError(
                f"{len(devices)} RealSense cameras are connected: choose one by `serial` in [camera], of "
                f"{', '.join(sorted(str(s) for s in serials))}"
            )
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
    sensor = depth_sensor(rs, device)
    baseline_m = None
    if sensor.supports(rs.option.stereo_baseline):
        baseline_m = float(sensor.get_option(rs.option.stereo_baseline)) * 1e-3
    modes = []
    for profile in sensor.get_stream_profiles():
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


def colour_streams(rs: Any, device: Any, mode: Mode) -> list[tuple[Any, ...]]:
    """Arguments of rs.config.enable_stream for the colour mode that is nearest to a depth mode in rate and
    size; none for a camera without colour."""
    found = [
        p.as_video_stream_profile()
        for sensor in device.query_sensors()
        for p in sensor.get_stream_profiles()
        if p.stream_type() == rs.stream.color and p.format() == rs.format.rgb8
    ]
    if not found:
        return []
    best = min(
        found,
        key=lambda p: (abs(p.fps() - mode.rate_hz), abs(p.width() - mode.size[0]), -p.height()),
    )
    return [(rs.stream.color, best.width(), best.height(), rs.format.rgb8, best.fps())]


def device_source(text: str, T_hand_camera: NDArray[np.float64]) -> DeviceSource:
    """`module:function?name=value` -> what the function returns."""
    place, options = split(text)
    if ":" not in place:
        raise CameraError(
            f"camera device {text!r} must be module:function, for example sim.hardware.realsense:emulated"
        )
    try:
        return resolve("camera device", place, {})(T_hand_camera, **options)  # type: ignore[no-any-return]
    except (ResolveError, TypeError) as error:
        raise CameraError(f"camera device {text!r} cannot be made: {error}") from error
