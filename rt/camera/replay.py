"""A recording as a camera: .db3 of the RealSense library, .bag of its older versions, or a flight record.

    with open_replay("session.db3", T_hand_camera) as camera:
        frame = camera.read_latest(0.1)

Frames come as they came then: each as long after the first as it was taken, on a clock that begins
when the camera is opened, with its pixels unchanged. Without pacing, every call hands out the next.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.camera import CameraError, Frame, Intrinsics, StaleFrameError
from rt.camera.frames import Recorded
from rt.camera.host_clock import since_exposure_ns
from rt.camera.realsense import library, read_intrinsics
from rt.camera.ros_bag import read_bag
from rt.camera.stream import depth_sensor, depth_unit_m, frame_stamp
from rt.camera.units import wrong_mount
from rt.view import VIEW

RECORDINGS = (".db3", ".mcap", ".bag")
"""Suffixes that are taken for a recording."""
MAX_BYTES = 4 << 30
"""A recording is held in memory; a longer one is refused."""
_PATIENCE_S, _LATE_S = 10.0, 0.2


class ReplayCamera:
    """Implements `rt.camera.Camera`; made by `open_replay`."""

    def __init__(
        self,
        recorded: list[Recorded],
        intrinsics: Intrinsics,
        T_hand_camera: NDArray[np.float64],
        name: str,
        *,
        paced: bool = True,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """paced=False: read_latest hands out every frame once, as new. Raises CameraError without frames."""
        if not recorded:
            raise CameraError(f"{name} holds no depth frames")
        self._recorded = sorted(recorded, key=lambda r: r.stamp_ns)
        self._intrinsics, self._T, self._name = intrinsics, T_hand_camera, name
        self._paced, self._now_ns = paced, now_ns
        self._stamps = [r.stamp_ns for r in self._recorded]
        self._begin_ns = now_ns()
        self._next = 0
        self._frame: tuple[int, Frame] | None = None

    def __len__(self) -> int:
        return len(self._recorded)

    @property
    def T_hand_camera(self) -> NDArray[np.float64]:
        return self._T

    @property
    def intrinsics(self) -> Intrinsics:
        return self._intrinsics

    @property
    def info(self) -> dict[str, Any]:
        """For the record."""
        size = f"{self._intrinsics.width_px}x{self._intrinsics.height_px}"
        return {"name": self._name, "mode": size, "frames": len(self)}

    def read_latest(self, max_age_s: float) -> Frame:
        """The newest frame, at once; see `rt.camera.Camera`. Raises CameraError after the last, when it
        is too old or, unpaced, has been handed out."""
        now = self._now_ns()
        if not self._paced:
            if self._next == len(self):
                raise CameraError(f"{self._name} is at its end, after {len(self)} frames")
            self._next += 1
            return self._make(self._next - 1, now)
        since = now - self._begin_ns
        index = bisect.bisect_right(self._stamps, self._stamps[0] + since) - 1
        at = self._begin_ns + self._stamps[index] - self._stamps[0]
        age_s = (now - at) * 1e-9
        if age_s > max_age_s:
            if index == len(self) - 1:
                raise CameraError(f"{self._name} is at its end, after {len(self)} frames")
            raise StaleFrameError(age_s if math.isfinite(age_s) else math.inf, max_age_s)
        return self._make(index, at)

    def close(self) -> None:
        """Nothing is open: the recording is in memory."""

    def __enter__(self) -> ReplayCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self, index: int, stamp_ns: int) -> Frame:
        if self._frame is None or self._frame[0] != index:
            found = self._recorded[index]
            self._frame = index, Frame(stamp_ns, found.number, found.depth, self._intrinsics)
        return self._frame[1]


def open_replay(
    path: str | Path,
    T_hand_camera: ArrayLike | None = None,
    *,
    paced: bool = True,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> ReplayCamera:
    """A recording as a camera: .db3 of the RealSense library, .bag of older ones, or .mcap of rt.record.

    T_hand_camera (4, 4): where the camera of a .db3 or .bag sat. A flight record holds views, which are
    images of the hand's own frame: its transform is the identity, and another is refused. Raises CameraError
    for a file that is missing, of another kind, without frames, or too long for memory.
    """
    path = Path(path)
    if not path.is_file():
        raise CameraError(f"no recording {path}")
    if path.suffix == ".mcap":
        if T_hand_camera is not None and not np.array_equal(T_hand_camera, np.eye(4)):
            raise CameraError(f"{path} holds views of the hand's frame: leave T_hand_camera out")
        frames, intrinsics = _read_flight(path)
        T = np.eye(4)
    elif path.suffix in RECORDINGS:
        if T_hand_camera is None:
            raise CameraError(f"{path}: T_hand_camera is needed, where its camera sat on the hand")
        T = np.array(T_hand_camera, dtype=np.float64)
        if doubt := wrong_mount(T):
            raise CameraError(f"T_hand_camera: {doubt}")
        frames, intrinsics = _read_db3(path) if path.suffix == ".db3" else read_bag(path, MAX_BYTES)
    else:
        raise CameraError(f"{path} is neither a .db3 nor a .bag nor an .mcap recording")
    return ReplayCamera(frames, intrinsics, T, str(path), paced=paced, now_ns=now_ns)


def open_camera(T_hand_camera: ArrayLike, *, device: str | None = None, **_: Any) -> ReplayCamera:
    """As a kind of camera of a cell: `device` is the recording. Raises CameraError."""
    if not device:
        raise CameraError("a replayed camera needs its recording: --camera-device session.db3")
    path = Path(device)
    return open_replay(path, None if path.suffix == ".mcap" else T_hand_camera)


def _read_flight(path: Path) -> tuple[list[Recorded], Intrinsics]:
    from rt.record.recorder import RecordError, read_record

    try:
        cycles = read_record(path).cycles
    except RecordError as error:
        raise CameraError(str(error)) from error
    frames: dict[int, Recorded] = {}
    for cycle in cycles:
        number = int(cycle["frame"])
        if number >= 0 and number not in frames:
            view = np.array(cycle["view"], dtype=np.float32)
            frames[number] = Recorded(int(cycle["frame_stamp_ns"]), number, view, 1.0)
    return list(frames.values()), VIEW.intrinsics


def _read_db3(path: Path) -> tuple[list[Recorded], Intrinsics]:
    """Every depth frame, with the file played as fast as it can be read."""
    rs = library()
    frames: list[Recorded] = []
    trouble: list[str] = []
    held, count, over = 0, -1, threading.Event()
    try:
        device = rs.context().load_device(str(path))
        playback = device.as_playback()
        playback.set_real_time(False)  # then the library waits for the callback, and drops nothing
        sensor = depth_sensor(rs, device)
        depths = [p for p in sensor.get_stream_profiles() if p.stream_type() == rs.stream.depth]
        intrinsics = read_intrinsics(rs, depths[0].as_video_stream_profile().get_intrinsics())
        unit_m = depth_unit_m(rs, sensor)

        def take(frame: Any) -> None:
            nonlocal held
            pixels = np.array(frame.get_data())
            held += pixels.nbytes
            if held > MAX_BYTES:
                trouble.append(f"{path} is longer than {MAX_BYTES >> 20} MiB of memory; cut it")
                over.set()
            if trouble:
                return
            stamp = frame_stamp(rs, frame)
            at = round(stamp.timestamp_ms * 1e6) - since_exposure_ns(stamp)
            unit = frame.as_depth_frame().get_units() or unit_m
            frames.append(Recorded(at, frame.get_frame_number(), pixels, unit))

        def changed(status: Any) -> None:
            if status == rs.playback_status.stopped:
                over.set()

        playback.set_status_changed_callback(changed)
        sensor.open(depths[0])
        sensor.start(take)
        while not over.wait(_PATIENCE_S) and count != len(frames):
            count = len(frames)
        while frames and not trouble and count != len(frames):
            count = len(frames)
            time.sleep(_LATE_S)  # the end may be told before the last frames are
        sensor.stop()
        sensor.close()
    except RuntimeError as error:
        if isinstance(error, CameraError):
            raise
        raise CameraError(f"{path} cannot be played: {error}") from error
    if trouble:
        raise CameraError(trouble[0])
    return frames, intrinsics
