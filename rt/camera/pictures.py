"""RealSense pictures for calibration: infrared or colour, and depth in the same frame."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError, Intrinsics
from rt.camera.host_clock import HostClock
from rt.camera.realsense import (
    DeviceSource,
    find_device,
    fresh,
    in_metres,
    library,
    read_intrinsics,
)
from rt.camera.stream import FrameStream, depth_sensor, depth_unit_m, frame_stamp

STREAMS = ("infrared", "colour")
_MOST_RATE_HZ = 30
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Picture:
    """One picture, with depth in its frame."""

    stamp_ns: int
    """Middle of the exposure, time.monotonic_ns."""
    number: int
    image: NDArray[np.uint8]
    """(H, W) grey."""
    depth: NDArray[np.float32] | None
    """(H, W) metres, 0 = no return; None where the camera gives none of that size."""


class PictureCamera:
    """The finest pictures that a camera has. `infrared` is the left imager, whose frame is the depth's:
    what is calibrated with it holds for the loop. `colour` has depth aligned to it, which is slow."""

    def __init__(
        self, rs: Any, context: Any, device: Any, stream: str, *, software: bool = False
    ) -> None:
        if stream not in STREAMS:
            raise CameraError(f"no stream {stream!r}; known are {', '.join(STREAMS)}")
        self._rs, self._clock = rs, HostClock()
        self._colour = stream == "colour"
        self.stream: FrameStream[Picture] = FrameStream(
            rs, context, device, software=software, take=self._take
        )
        self._device = device
        self._unit_m = depth_unit_m(rs, depth_sensor(rs, device))
        picture, depth = self._profiles()
        self.intrinsics: Intrinsics = read_intrinsics(rs, picture.get_intrinsics())
        self._align = rs.align(rs.stream.color) if self._colour and depth else None
        self._wanted = [_enable(p) for p in (picture, depth) if p is not None]

    def read_latest(self, max_age_s: float) -> Picture:
        """The newest picture, at once. Raises StaleFrameError, or CameraError if the camera is lost."""
        return fresh(self.stream, max_age_s)

    def start(self) -> None:
        rs, sensor = self._rs, depth_sensor(self._rs, self._device)
        # The projector's dots would lie on the target.
        if not self._colour and sensor.supports(rs.option.emitter_enabled):
            sensor.set_option(rs.option.emitter_enabled, 0)
        self.stream.start(self._wanted, f"{'colour' if self._colour else 'infrared'} pictures")

    def close(self) -> None:
        self.stream.close()

    def __enter__(self) -> PictureCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _profiles(self) -> tuple[Any, Any]:
        """The finest pictures, and depth: of the same size and rate for infrared, else the finest."""
        rs = self._rs
        found = [p for s in self._device.query_sensors() for p in s.get_stream_profiles()]
        kind, index, form = (
            (rs.stream.color, 0, rs.format.rgb8)
            if self._colour
            else (rs.stream.infrared, 1, rs.format.y8)
        )
        pictures = [
            p.as_video_stream_profile()
            for p in found
            if (p.stream_type(), p.stream_index(), p.format()) == (kind, index, form)
            and p.fps() <= _MOST_RATE_HZ
        ]
        if not pictures:
            raise CameraError(
                f"{self.stream.name} has no {'colour' if self._colour else 'infrared'} pictures; "
                f"choose the other of {', '.join(STREAMS)}"
            )
        picture = max(pictures, key=_fineness)
        depths = [
            p.as_video_stream_profile()
            for p in found
            if p.stream_type() == rs.stream.depth and p.format() == rs.format.z16
        ]
        if not self._colour:
            depths = [p for p in depths if _fineness(p) == _fineness(picture)]
        else:
            depths = [p for p in depths if p.fps() == picture.fps()]
        return picture, max(depths, key=_fineness, default=None)

    def _take(self, frames: Any) -> Picture | None:
        frames = frames.as_frameset()
        if self._align is not None:
            frames = self._align.process(frames)
        picture = frames.get_color_frame() if self._colour else frames.get_infrared_frame(1)
        if not picture:
            return None
        image = np.array(picture.get_data())
        if self._colour:
            image = np.round(image.astype(np.float32) @ _GREY).astype(np.uint8)
        depth = frames.get_depth_frame()
        metres = in_metres(depth.as_depth_frame(), self._unit_m) if depth else None
        if metres is not None and metres.shape != image.shape:
            metres = None
        at = self._clock.exposure_ns(frame_stamp(self._rs, picture))
        return Picture(at, picture.get_frame_number(), image, metres)


def open_pictures(
    stream: str = "infrared", *, serial: str | None = None, device: DeviceSource | None = None
) -> PictureCamera:
    """Open a camera for calibration and start it; it is closed when the program ends, if not before.

    stream: infrared or colour. Raises CameraError for a camera or a stream that is not there.
    """
    rs = library()
    context = rs.context()
    with ExitStack() as stack:
        found = find_device(rs, context, serial) if device is None else stack.enter_context(device)
        camera = PictureCamera(rs, context, found, stream, software=device is not None)
        camera.start()
        camera.stream.closes(stack.pop_all())
    atexit.register(camera.close)
    return camera


def open_calibration(*, address: str = "", stream: str = "infrared") -> PictureCamera:
    """Camera for calib.handeye. address: of the arm, which a camera on USB does not need."""
    return open_pictures(stream)


def _fineness(profile: Any) -> tuple[int, int, int]:
    return profile.width() * profile.height(), profile.width(), profile.fps()


def _enable(profile: Any) -> tuple[Any, ...]:
    """Arguments of rs.config.enable_stream."""
    index, size = profile.stream_index(), (profile.width(), profile.height())
    return profile.stream_type(), index, *size, profile.format(), profile.fps()
