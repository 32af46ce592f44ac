"""rt.camera.replay: recordings give back the frames that went in, pixel by pixel and at their times."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from flights import cycle, header
from needs import needed_realsense

from rt.camera import CameraError, StaleFrameError
from rt.camera.replay import Recorded, ReplayCamera, open_replay
from rt.record.recorder import Recorder
from rt.view import VIEW, Reprojector

MOUNT = np.eye(4)


def recording(tmp_path: Path, count: int = 12) -> tuple[Path, list[np.ndarray], list[int]]:
    """A .db3 that the library has recorded of a software device, its pixels and stamps."""
    needed_realsense()
    from rt.camera.realsense import open_camera
    from sim.hardware.realsense import SoftwareCamera, d405_modes

    path = tmp_path / "session.db3"
    device = SoftwareCamera(d405_modes([(424, 240)], [30]))
    rng = np.random.default_rng(0)
    sent, stamps = [], []
    with open_camera(MOUNT, device=device, final_height_m=None, record=path) as camera:
        for k in range(count):
            pixels = rng.integers(0, 65536, (240, 424), dtype=np.uint16)
            stamps.append(time.monotonic_ns())
            device.send(pixels, 100 + k, stamp_ns=stamps[-1])
            sent.append(pixels)
            end = time.monotonic() + 5
            while camera.stream.latest is None or camera.stream.latest.number != 100 + k:
                assert time.monotonic() < end
                time.sleep(0.005)
    return path, sent, stamps


def test_a_db3_gives_back_every_frame_bit_by_bit(tmp_path: Path) -> None:
    path, sent, stamps = recording(tmp_path)
    camera = open_replay(path, MOUNT, paced=False)
    assert len(camera) == len(sent) and camera.intrinsics.width_px == 424
    for k, pixels in enumerate(sent):
        frame = camera.read_latest(0.1)
        true = pixels.astype(np.float32) * np.float32(1e-4)
        np.testing.assert_array_equal(frame.depth.view(np.uint32), true.view(np.uint32))
        assert frame.number == 100 + k
    with pytest.raises(CameraError, match="at its end, after 12 frames"):
        camera.read_latest(0.1)
    recorded = np.diff([r.stamp_ns for r in camera._recorded])
    np.testing.assert_allclose(recorded, np.diff(stamps), atol=2_000_000)


def test_a_flight_record_gives_back_its_views(tmp_path: Path) -> None:
    path, cycles = tmp_path / "flight.mcap", [cycle(k) for k in range(5)]
    with Recorder(path, header()) as recorder:
        for one in cycles:
            recorder.put(**one)
    assert not recorder.error
    camera = open_replay(path, paced=False)
    to_view = Reprojector(camera.intrinsics, camera.T_hand_camera)
    assert len(camera) == 5
    for one in cycles:
        frame = camera.read_latest(1.0)
        assert frame.number == one["frame"]
        np.testing.assert_array_equal(frame.depth, one["view"])
        np.testing.assert_array_equal(to_view(frame.depth), one["view"])


def made(now: list[int], paced: bool = True) -> ReplayCamera:
    frames = [
        Recorded(5_000 + k * 100_000_000, k, np.full((64, 64), 1000 + k, np.uint16), 1e-3)
        for k in range(3)
    ]
    return ReplayCamera(
        frames, VIEW.intrinsics, MOUNT, "made up", paced=paced, now_ns=lambda: now[0]
    )


def test_frames_come_when_they_came_then() -> None:
    now = [10**12]
    camera = made(now)
    for wait_ms, number in ((0, 0), (99, 0), (1, 1), (140, 2)):
        now[0] += wait_ms * 1_000_000
        frame = camera.read_latest(0.15)
        assert frame.number == number and frame.stamp_ns == 10**12 + number * 100_000_000
    now[0] += 200_000_000
    with pytest.raises(CameraError, match="at its end"):
        camera.read_latest(0.15)


def test_an_old_frame_is_stale() -> None:
    now = [10**12]
    camera = made(now)
    now[0] += 60_000_000
    with pytest.raises(StaleFrameError) as stale:
        camera.read_latest(0.05)
    assert stale.value.age_s == pytest.approx(0.06)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.db3"
    bad.write_text("hello")
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"hello")
    for path, message in (
        (tmp_path / "none.db3", "no recording"),
        (text, "neither"),
        (bad, r"pyrealsense2 is not|cannot be played"),
        (broken, "no flight record"),
    ):
        with pytest.raises(CameraError, match=message):
            open_replay(path, None if path.suffix == ".mcap" else MOUNT)
    with pytest.raises(CameraError, match="T_hand_camera is needed"):
        open_replay(bad)
    with pytest.raises(CameraError, match="leave T_hand_camera out"):
        open_replay(broken, np.diag([-1.0, -1, 1, 1]))


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(CameraError, match="no depth frames"):
        ReplayCamera([], VIEW.intrinsics, MOUNT, "empty")
