"""A RealSense pipeline and the thread that takes its newest frames; the loop never waits for either."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from rt.camera import CameraError
from rt.camera.host_clock import Stamp

_WAIT_MS = 100
_STOP_S = 3.0


class Item(Protocol):
    @property
    def stamp_ns(self) -> int: ...


T = TypeVar("T", bound=Item)


class FrameStream(Generic[T]):
    """Frames of one device, as `take` makes them of the library's."""

    def __init__(
        self, rs: Any, context: Any, device: Any, *, software: bool, take: Callable[[Any], T | None]
    ) -> None:
        self.name = device_text(rs, device, "name") or "RealSense"
        self.latest: T | None = None
        """The newest; whoever reads it checks `gone` first."""
        self.gone: str | None = None
        """Why there will be no more frames."""
        self.take = take
        self._rs, self._context, self._device, self._software = rs, context, device, software
        self._pipeline: Any = None
        self._queue: Any = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._grab, name="realsense", daemon=True)
        self._stack = ExitStack()

    def start(
        self, wanted: Sequence[tuple[Any, ...]], what: str, record: str | Path | None = None
    ) -> None:
        """Begin; `wanted` are arguments of rs.config.enable_stream. Raises CameraError."""
        rs = self._rs
        self._queue = rs.frame_queue(1)  # of several frames that wait, only the newest is kept
        config, self._pipeline = rs.config(), rs.pipeline(self._context)
        try:
            sensor = depth_sensor(rs, self._device)
            for option, value in (("global_time_enabled", 1), ("frames_queue_size", 2)):
                if sensor.supports(getattr(rs.option, option)):
                    sensor.set_option(getattr(rs.option, option), value)
            if self._software:
                self._pipeline.set_device(self._device)
            else:
                config.enable_device(self._device.get_info(rs.camera_info.serial_number))
            for one in wanted:
                config.enable_stream(*one)
            if record is not None:
                config.enable_record_to_file(str(record))
            self._pipeline.start(config, self._queue)
        except RuntimeError as error:
            raise CameraError(
                f"{self.name} does not start {what}: {error}; is another program using it? Unplug it "
                "and plug it in again"
            ) from error
        if not self._software:
            self._context.set_devices_changed_callback(self.devices_changed)
        self._thread.start()

    def closes(self, stack: ExitStack) -> None:
        """Take over what must be left when this is closed."""
        self._stack = stack

    def close(self) -> None:
        """Stop; may be called twice. A camera that hangs is left behind after a while."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_S)
        stopper = threading.Thread(target=self._stop, name="realsense-stop", daemon=True)
        stopper.start()
        stopper.join(timeout=_STOP_S)
        self.gone = self.gone or f"{self.name} is closed"
        # Let go of the device, so that it can be opened again and a recording of it is written out.
        self._device = self._pipeline = self._queue = None
        self._stack.close()

    def devices_changed(self, event: Any) -> None:
        """The library calls this from a thread of its own."""
        if self._device is not None and event.was_removed(self._device):
            self.gone = (
                f"{self.name} was disconnected; check its cable and start again: it is not "
                "reconnected by itself"
            )

    def _stop(self) -> None:
        pipeline = self._pipeline
        if pipeline is not None:
            with suppress(RuntimeError):
                pipeline.stop()

    def _grab(self) -> None:
        """In a thread of its own until this is closed."""
        queue = self._queue
        try:
            while not self._over.is_set():
                came, frames = queue.try_wait_for_frame(_WAIT_MS)
                if came and (item := self.take(frames)) is not None:
                    self.latest = item
        except Exception as error:
            self.gone = f"{self.name}: {error}"


def depth_sensor(rs: Any, device: Any) -> Any:
    """The sensor with the depth stream (also of a device that is being recorded). Raises CameraError."""
    for sensor in device.query_sensors():
        if any(p.stream_type() == rs.stream.depth for p in sensor.get_stream_profiles()):
            return sensor
    raise CameraError(f"{device_text(rs, device, 'name') or 'the camera'} has no depth stream")


def depth_unit_m(rs: Any, sensor: Any) -> float:
    """Metres per count of z16. Raises CameraError for a unit that is not positive."""
    unit_m = float(sensor.get_option(rs.option.depth_units))
    if not unit_m > 0:
        raise CameraError(
            f"the camera reports a depth unit of {unit_m:g} m, so every depth would be 0: reset its "
            "`Depth Units` (0.001, D405: 0.0001) in the RealSense Viewer"
        )
    return unit_m


def depth_of(frames: Any) -> Any:
    """The depth frame of what a pipeline hands out, or None."""
    depth = frames.as_frameset().get_depth_frame() if frames.is_frameset() else frames
    return depth.as_depth_frame() if depth else None


def frame_stamp(rs: Any, frame: Any) -> Stamp:
    """Time stamps of a frame of the library."""

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


def device_text(rs: Any, device: Any, key: str) -> str | None:
    """One of rs.camera_info, None if the device does not say."""
    info = getattr(rs.camera_info, key)
    return str(device.get_info(info)) if device.supports(info) else None
