"""A RealSense camera without the camera: the library's own software device, fed with simulated depth.

`SoftwareCamera` is entered to get the `rs.device` that rt.camera.realsense.open_camera takes. Frames
are given to it one by one (`send`), by a thread that asks a function for them (`Feeder`), or by a
renderer in a process of its own (`emulated`), so that rendering takes no time from the loop. The last
is what runs the real driver over a simulated scene:

    python -m rt.servo --cell cell.toml \
        --camera-device "sim.hardware.realsense:emulated?cell=cell.toml&scene=3"
"""

from __future__ import annotations

import math
import os
import struct
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError, Intrinsics
from rt.camera.models import parse_size
from rt.camera.realsense import library
from rt.tools.process import Child

HEADER = struct.Struct("<qqII")
"""Before every frame in the renderer's pipe: stamp [ns], number, height, width; z16 pixels follow."""

D405_SIZES = ((848, 480), (640, 360), (480, 270), (424, 240), (240, 136))
RATES_HZ = (30, 60, 90)


@dataclass(frozen=True)
class SoftwareMode:
    """One depth mode to offer."""

    intrinsics: Intrinsics
    rate_hz: int


def d405_modes(
    sizes: Sequence[tuple[int, int]] = D405_SIZES, rates_hz: Sequence[int] = RATES_HZ
) -> tuple[SoftwareMode, ...]:
    """87 degrees wide in each."""
    modes = []
    for width, height in sizes:
        focal = width / 2 / math.tan(math.radians(87.0) / 2)
        intrinsics = Intrinsics(width, height, focal, focal, width / 2 - 0.5, height / 2 - 0.5)
        modes += [SoftwareMode(intrinsics, rate) for rate in rates_hz]
    return tuple(modes)


class SoftwareCamera(AbstractContextManager[Any]):
    """A software device of the library; a context, which gives the `rs.device`."""

    def __init__(
        self,
        modes: Sequence[SoftwareMode] | None = None,
        *,
        name: str = "Intel RealSense D405 (software)",
        serial: str = "software",
        depth_unit_m: float = 1e-4,
        baseline_m: float | None = 0.018,
        pictures: Sequence[SoftwareMode] = (),
        colours: Sequence[SoftwareMode] = (),
    ) -> None:
        """modes: of depth, default d405_modes(). pictures: of the left imager. colours: modes of colour
        images, which are taken from where depth is.

        Raises CameraError where pyrealsense2 is not installed.
        """
        rs = self._rs = library()
        self.depth_unit_m = depth_unit_m
        self._software = rs.software_device()
        self._software.register_info(rs.camera_info.name, name)
        self._software.register_info(rs.camera_info.serial_number, serial)
        self._sensor = self._software.add_sensor("Stereo Module")
        self._profiles: dict[tuple[int, int], Any] = {}
        for uid, mode in enumerate(modes or d405_modes(), start=1):
            profile = self._sensor.add_video_stream(_stream(rs, mode, uid))
            size = (mode.intrinsics.width_px, mode.intrinsics.height_px)
            self._profiles.setdefault(size, profile.as_video_stream_profile())
        self._pictures: dict[tuple[int, int], Any] = {}
        for uid, mode in enumerate(pictures, start=1001):
            stream = _stream(rs, mode, uid)
            stream.type, stream.index = rs.stream.infrared, 1
            stream.bpp, stream.fmt = 1, rs.format.y8
            profile = self._sensor.add_video_stream(stream)
            size = (mode.intrinsics.width_px, mode.intrinsics.height_px)
            self._pictures.setdefault(size, profile.as_video_stream_profile())
        self._colours: dict[tuple[int, int], Any] = {}
        for uid, mode in enumerate(colours, start=2001):
            stream = _stream(rs, mode, uid)
            stream.type, stream.bpp, stream.fmt = rs.stream.color, 3, rs.format.rgb8
            profile = self._sensor.add_video_stream(stream)
            size = (mode.intrinsics.width_px, mode.intrinsics.height_px)
            self._colours.setdefault(size, profile.as_video_stream_profile())
        here = rs.extrinsics()
        here.rotation, here.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]
        for one in self._colours.values():
            for other in self._profiles.values():
                other.register_extrinsics_to(one, here)
                one.register_extrinsics_to(other, here)
        self._sensor.add_read_only_option(rs.option.depth_units, depth_unit_m)
        if baseline_m is not None:
            self._sensor.add_read_only_option(rs.option.stereo_baseline, baseline_m * 1e3)
        self._software.create_matcher(rs.matchers.default)

    def __enter__(self) -> Any:
        return self._software

    def __exit__(self, *_: object) -> None:
        """The device goes when nobody holds it any more."""

    def send(
        self,
        pixels: NDArray[np.uint16] | NDArray[np.uint8],
        number: int,
        *,
        stamp_ns: int | None = None,
        domain: str = "global_time",
        metadata: dict[str, int] | None = None,
    ) -> None:
        """One z16 frame or y8 picture (H, W), or rgb8 image (H, W, 3), exposed at `stamp_ns` on the monotonic
        clock (default: now).

        domain: what its stamp is; `hardware_clock` counts from the monotonic clock's origin.
        metadata: by name of rs.frame_metadata_value. Raises CameraError for a size of no mode.
        """
        rs, (height, width) = self._rs, pixels.shape[:2]
        profiles = self._profiles if pixels.dtype == np.uint16 else self._pictures
        if pixels.ndim == 3:
            profiles = self._colours
        if pixels.dtype not in (np.uint16, np.uint8) or (width, height) not in profiles:
            raise CameraError(f"{width}x{height} {pixels.dtype} is no frame of a mode")
        now = time.monotonic_ns()
        at = now if stamp_ns is None else stamp_ns
        if domain != "hardware_clock":
            at += time.time_ns() - now
        for key, value in (metadata or {}).items():
            self._sensor.set_metadata(getattr(rs.frame_metadata_value, key), value)
        frame = rs.software_video_frame()
        frame.pixels = np.ascontiguousarray(pixels)
        bytes_px = pixels.itemsize * (3 if pixels.ndim == 3 else 1)
        frame.stride, frame.bpp = width * bytes_px, bytes_px
        frame.timestamp, frame.domain = at * 1e-6, getattr(rs.timestamp_domain, domain)
        frame.frame_number, frame.depth_units = number, self.depth_unit_m
        frame.profile = profiles[width, height]
        self._sensor.on_video_frame(frame)


class FrameFeeder(AbstractContextManager[Any]):
    """Feeds a SoftwareCamera from a thread, at a rate: `send` is called for every moment."""

    def __init__(self, camera: SoftwareCamera, rate_hz: float) -> None:
        self.camera, self._period_s = camera, 1 / rate_hz
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)

    def __enter__(self) -> Any:
        device = self.camera.__enter__()
        self._thread.start()
        return device

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5.0)
        self.camera.__exit__()

    def _feed(self) -> None:
        number, due = 0, time.monotonic()
        while not self._over.wait(max(due - time.monotonic(), 0)) and self.send(number):
            number, due = number + 1, max(due + self._period_s, time.monotonic() - self._period_s)

    @abstractmethod
    def send(self, number: int) -> bool:
        """Send the frames of one moment; False where there will be no more."""


class Feeder(FrameFeeder):
    """Feeds a SoftwareCamera with depth: `depth(stamp_ns)` gives (H, W) float32 metres."""

    def __init__(
        self, camera: SoftwareCamera, depth: Callable[[int], NDArray[np.float32]], rate_hz: float
    ) -> None:
        super().__init__(camera, rate_hz)
        self._depth = depth

    def send(self, number: int) -> bool:
        stamp_ns = time.monotonic_ns()
        depth = to_z16(self._depth(stamp_ns), self.camera.depth_unit_m)
        self.camera.send(depth, number, stamp_ns=stamp_ns)
        return True


class Piped(AbstractContextManager[Any]):
    """Feeds a SoftwareCamera with what a process writes to its output: `HEADER`, pixels, and again."""

    def __init__(self, camera: SoftwareCamera, module: str, arguments: Sequence[str] = ()) -> None:
        self.camera, self._module, self._arguments = camera, module, list(arguments)
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._feed, name="renderer-pipe", daemon=True)

    def __enter__(self) -> Any:
        device = self.camera.__enter__()
        # Its errors appear on this program's stderr; when this program dies, its pipe breaks and it ends.
        self._child = Child(self._module, self._arguments, reads=True)
        self._thread.start()
        return device

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.end(2.0)
        self._thread.join(timeout=2.0)
        self.camera.__exit__()

    def _feed(self) -> None:
        assert self._child is not None and self._child.process.stdout is not None
        pipe = os.dup(self._child.process.stdout.fileno())
        with os.fdopen(pipe, "rb") as frames:
            self._send_all(frames)

    def _send_all(self, frames: BinaryIO) -> None:
        while len(head := frames.read(HEADER.size)) == HEADER.size:
            stamp_ns, number, height, width = HEADER.unpack(head)
            raw = frames.read(2 * height * width)
            if len(raw) < 2 * height * width:
                return
            pixels = np.frombuffer(raw, np.uint16).reshape(height, width)
            with suppress(RuntimeError):  # not started yet, or stopped already
                self.camera.send(pixels, number, stamp_ns=stamp_ns)


def emulated(
    T_hand_camera: NDArray[np.float64],
    *,
    size: str = "240x136",
    rate_hz: str = "30",
    beside_m: str = "",
    **options: str,
) -> Piped:
    """A D405 on the hand of an emulated arm (`rt.robot.emulator`), over a simulated scene.

    What it sees follows the arm's true pose. The options are texts, as they come from
    `module:function?name=value&...`: size, rate_hz, beside_m (x,y in the hand by which a camera that was
    knocked is beside its calibrated place), host, control_port, cell, seed, scene, objects,
    origin, place, gone (sim.hardware.renderer.RendererOptions). Raises CameraError for one that is not known.
    """
    known = ("host", "control_port", "cell", "seed", "scene", "objects", "origin", "place", "gone")
    if unknown := sorted(set(options) - set(known)):
        raise CameraError(
            f"sim.hardware.realsense:emulated has no option {', '.join(unknown)}; known are size, rate_hz, "
            f"beside_m, {', '.join(known)}"
        )
    try:
        rate = int(rate_hz)
        x_m, y_m = (float(v) for v in (beside_m or "0,0").split(","))
    except ValueError as error:
        raise CameraError(
            f"sim.hardware.realsense:emulated: rate_hz = {rate_hz!r} must be an integer, beside_m = "
            f"{beside_m!r} two numbers with a comma between"
        ) from error
    modes = d405_modes([parse_size(size)], [rate])
    camera = SoftwareCamera(modes, name="Intel RealSense D405 (emulated)", serial="emulated")
    arguments = [f"--size={size}", f"--rate-hz={rate}"]
    arguments += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    T_true = np.array(T_hand_camera, dtype=np.float64)
    T_true[:2, 3] += (x_m, y_m)
    pose = ",".join(f"{v:.12g}" for v in T_true.ravel())
    return Piped(camera, "sim.hardware.renderer", [*arguments, f"--camera={pose}"])


def to_z16(depth: NDArray[np.float32], depth_unit_m: float) -> NDArray[np.uint16]:
    """Metres -> the camera's units, rounded; what does not fit is no return."""
    units = np.round(depth / np.float32(depth_unit_m))
    return np.where((units > 0) & (units < 65536), units, 0).astype(np.uint16)


def _stream(rs: Any, mode: SoftwareMode, uid: int) -> Any:
    ours = mode.intrinsics
    theirs = rs.intrinsics()
    theirs.width, theirs.height = ours.width_px, ours.height_px
    theirs.fx, theirs.fy, theirs.ppx, theirs.ppy = ours.fx_px, ours.fy_px, ours.cx_px, ours.cy_px
    theirs.model = getattr(rs.distortion, ours.distortion_model)
    theirs.coeffs = [*ours.distortion, 0.0, 0.0, 0.0, 0.0, 0.0][:5]
    stream = rs.video_stream()
    stream.type, stream.index, stream.uid = rs.stream.depth, 0, uid
    stream.width, stream.height, stream.fps = ours.width_px, ours.height_px, mode.rate_hz
    stream.bpp, stream.fmt, stream.intrinsics = 2, rs.format.z16, theirs
    return stream
