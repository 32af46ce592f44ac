"""rt.camera.realsense: the real pipeline on a software device of the library."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from needs import needed_realsense
from numpy.typing import NDArray

rs = needed_realsense()

from rt.camera import CameraError, Frame, Intrinsics, StaleFrameError
from rt.camera.realsense import RealSense, library, open_camera, read_intrinsics
from sim.hardware.realsense import Feeder, SoftwareCamera, SoftwareMode, d405_modes, to_z16
from sim.twin import MOUNTS

MOUNT = MOUNTS["wrist"].T_hand_camera
MODES = d405_modes([(848, 480), (480, 270)], [30, 60])


def noise(seed: int, size: tuple[int, int] = (480, 270)) -> NDArray[np.uint16]:
    width, height = size
    return np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16)


def eventually(get: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    """The value of `get` once it is true."""
    end = time.monotonic() + timeout_s
    while not (value := get()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)
    return value


def frame_number(camera: RealSense, number: int) -> Frame:
    """That frame, once it has come."""

    def look() -> Frame | None:
        try:
            frame = camera.read_latest(60.0)
        except StaleFrameError:
            return None
        return frame if frame.number == number else None

    return eventually(look)  # type: ignore[no-any-return]


def test_the_bundled_libusb_serves_where_the_system_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = []

    def load(name: str) -> ctypes.CDLL:
        if name == "libusb-1.0.so.0":
            raise OSError("cannot open shared object file")
        loaded.append(real(name))
        return loaded[-1]

    real = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert library() is rs
    (bundled,) = loaded
    assert bundled.libusb_get_version and "libusb_package" in bundled._name


def test_a_library_that_does_not_load_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"{name}: libusb-1.0.so.0: cannot open shared object file")

    monkeypatch.setattr("rt.camera.realsense.importlib.import_module", broken)
    with pytest.raises(
        CameraError, match=r"(?s)libusb-1\.0\.so\.0.*grasp-servo\[realsense\].*libusb-1\.0-0"
    ):
        library()


@contextmanager
def opened(
    device: SoftwareCamera | None = None, **options: Any
) -> Iterator[tuple[RealSense, SoftwareCamera]]:
    device = device or SoftwareCamera(MODES)
    with open_camera(MOUNT, device=device, **options) as camera:
        yield camera, device


def test_frames_come_through_bit_by_bit() -> None:
    with opened(width=480, height=270) as (camera, device):
        for number in range(3):
            pixels = noise(number)
            device.send(pixels, number)
            frame = frame_number(camera, number)
            true = pixels.astype(np.float32) * np.float32(1e-4)
            np.testing.assert_array_equal(frame.depth.view(np.uint32), true.view(np.uint32))
            assert frame.depth.shape == (270, 480) and frame.intrinsics == camera.intrinsics


@pytest.mark.parametrize("unit", [1e-4, 1e-3])
def test_depth_is_metres_whatever_the_camera_counts_in(unit: float) -> None:
    with opened(SoftwareCamera(MODES, depth_unit_m=unit), width=480, height=270) as (
        camera,
        device,
    ):
        device.send(np.full((270, 480), round(0.25 / unit), np.uint16), 1)
        np.testing.assert_allclose(frame_number(camera, 1).depth, 0.25, rtol=1e-6)
        assert camera.info["depth_unit_m"] == pytest.approx(unit)


def test_only_the_newest_frame_is_kept() -> None:
    """The camera is faster than the driver's thread, which is held up here."""
    with opened(width=480, height=270) as (camera, device):
        device.send(noise(0), 0)
        frame_number(camera, 0)
        held, seen = threading.Event(), []
        take = camera.stream.take

        def slow(frames: Any) -> Frame | None:
            seen.append(frames.get_frame_number())
            held.wait(5.0)
            return take(frames)

        camera.stream.take = slow
        device.send(noise(1), 1)
        eventually(lambda: seen == [1])
        for number in range(2, 12):
            device.send(noise(number), number)
        held.set()
        frame_number(camera, 11)
        assert seen == [1, 11]


@pytest.mark.parametrize("domain", ["global_time", "system_time", "hardware_clock"])
def test_a_frame_carries_its_exposure_on_the_host_clock(domain: str) -> None:
    with opened(width=480, height=270) as (camera, device):
        device.send(noise(0), 0, domain=domain)
        frame_number(camera, 0)
        at = time.monotonic_ns() - 40_000_000
        device.send(noise(1), 1, stamp_ns=at, domain=domain)
        frame = frame_number(camera, 1)
        if domain == "hardware_clock":  # placed by the frame that came fastest, the first one
            assert at <= frame.stamp_ns < at + 30_000_000
        else:
            assert abs(frame.stamp_ns - at) < 1_000_000
        assert camera.info["stamps"] == domain


def test_the_middle_of_the_exposure_is_meant() -> None:
    with opened(width=480, height=270) as (camera, device):
        at = time.monotonic_ns() - 40_000_000
        clock = {"sensor_timestamp": 1_000_000, "frame_timestamp": 1_008_000}
        device.send(noise(0), 0, stamp_ns=at, metadata=clock)
        assert abs(frame_number(camera, 0).stamp_ns - (at - 8_000_000)) < 1_000_000


def test_an_old_frame_and_none_at_all_are_refused_with_their_age() -> None:
    with opened(width=480, height=270) as (camera, device):
        with pytest.raises(StaleFrameError) as none:
            camera.read_latest(0.1)
        assert none.value.age_s == np.inf
        at = time.monotonic_ns() - 300_000_000
        device.send(noise(0), 0, stamp_ns=at)
        frame_number(camera, 0)
        with pytest.raises(StaleFrameError) as stale:
            camera.read_latest(0.15)
        assert 0.3 <= stale.value.age_s < 10.0


def test_a_stream_that_stalls_ages() -> None:
    with opened(width=480, height=270) as (camera, device):
        device.send(noise(0), 0)
        first = frame_number(camera, 0)
        eventually(lambda: time.monotonic_ns() - first.stamp_ns > 60_000_000)
        with pytest.raises(StaleFrameError, match="limit is 50 ms"):
            camera.read_latest(0.05)
        device.send(noise(1), 1)
        assert frame_number(camera, 1).stamp_ns > first.stamp_ns  # and lives again


def test_reading_never_waits() -> None:
    """A hundred thousand reads take less time than one frame's, as nothing is waited for."""
    with opened(width=480, height=270) as (camera, device):
        device.send(noise(0), 0)
        frame = frame_number(camera, 0)
        assert all(camera.read_latest(60.0) is frame for _ in range(1000))


def test_a_lost_camera_is_an_error_that_says_so() -> None:
    with opened(width=480, height=270) as (camera, device):
        device.send(noise(0), 0)
        frame_number(camera, 0)

        class Event:
            def was_removed(self, device: Any) -> bool:
                return device is camera.stream._device

        camera.stream.devices_changed(Event())
        with pytest.raises(CameraError, match="disconnected"):
            camera.read_latest(60.0)


def test_a_stamp_that_cannot_be_true_ends_the_stream() -> None:
    with opened(width=480, height=270) as (camera, device):
        device.send(noise(0), 0, stamp_ns=time.monotonic_ns() + 3600 * 10**9)
        with pytest.raises(CameraError, match="3600"):
            eventually(lambda: camera.stream.gone)
            camera.read_latest(60.0)


def test_it_is_closed_once_and_for_all() -> None:
    with opened(width=480, height=270) as (camera, device):
        device.send(noise(0), 0)
        frame_number(camera, 0)
        began = time.monotonic()
        camera.close()
        camera.close()
        assert time.monotonic() - began < 10
        assert not camera.stream._thread.is_alive()
        with pytest.raises(CameraError, match="closed"):
            camera.read_latest(60.0)


def test_the_mode_is_the_finest_that_fits() -> None:
    with opened() as (camera, _):
        assert (camera.intrinsics.width_px, camera.intrinsics.height_px) == (480, 270)
        assert camera.info["rate_hz"] == 60 and not camera.warnings
    with opened(rate_hz=15) as (camera, _):
        assert camera.info["rate_hz"] == 30


def d435(*sizes: tuple[int, int]) -> SoftwareCamera:
    return SoftwareCamera(
        d405_modes(sizes, [30]), name="Intel RealSense D435I", depth_unit_m=1e-3, baseline_m=0.05
    )


def test_a_mode_that_sees_nothing_near_enough_is_refused() -> None:
    with pytest.raises(CameraError, match=r"nearer than 280 mm.*rt\.mount"):
        open_camera(MOUNT, device=d435((1280, 720), (480, 270)), width=1280, height=720)
    with opened(d435((1280, 720), (480, 270))) as (camera, _):
        assert camera.intrinsics.width_px == 480 and not camera.warnings
    with opened(d435((1280, 720)), final_height_m=None) as (camera, _):
        assert camera.intrinsics.width_px == 1280


def test_a_mode_that_misses_high_things_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    with opened(d435((848, 480))) as (camera, _):
        assert "nearer than 195 mm" in camera.warnings[0] and "60 mm" in camera.warnings[0]
    assert "nearer than 195 mm" in capsys.readouterr().err


def test_a_camera_not_known_is_judged_by_its_baseline() -> None:
    odd = SoftwareCamera(d405_modes([(848, 480)], [30]), name="Other", baseline_m=0.095)
    with pytest.raises(CameraError, match="sees nothing nearer"):
        open_camera(MOUNT, device=odd)
    odd = SoftwareCamera(d405_modes([(848, 480)], [30]), name="Other", baseline_m=None)
    with opened(odd) as (camera, _):
        assert "not known" in camera.warnings[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 640, "height": 480}, "it has 848x480, 480x270"),
        ({"width": 640}, "both"),
        ({"record": "session.bag"}, "db3"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        open_camera(MOUNT, device=SoftwareCamera(MODES), **options)  # type: ignore[arg-type]


def test_a_missing_camera_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CameraError, match=r"udev|serial number 123"):
        open_camera(MOUNT, serial="123")


@pytest.mark.parametrize(
    "device", ["sim.hardware.realsense", "sim.nothing:at_all", "sim.hardware.realsense:no_such"]
)
def test_a_device_that_is_no_function_is_refused(device: str) -> None:
    with pytest.raises(CameraError, match="camera device"):
        open_camera(MOUNT, device=device)


BENT = (-0.05, 0.01, 0.001, -0.002, 0.0)


@pytest.mark.parametrize(
    "model", ["brown_conrady", "inverse_brown_conrady", "modified_brown_conrady"]
)
def test_distortion_is_what_the_library_makes_of_it(model: str) -> None:
    found = rs.intrinsics()
    found.width, found.height, found.fx, found.fy, found.ppx, found.ppy = (
        640,
        480,
        600,
        600,
        319,
        241,
    )
    found.model, found.coeffs = getattr(rs.distortion, model), list(BENT)
    ours = read_intrinsics(rs, found)
    assert ours.distortion == pytest.approx(BENT)
    for u, v in ((0, 0), (320, 240), (639, 100)):
        ray = ours.rays()[v, u].tolist()
        np.testing.assert_allclose(rs.rs2_project_point_to_pixel(found, ray), (u, v), atol=0.3)


def test_a_distortion_that_is_not_known_is_refused() -> None:
    found = rs.intrinsics()
    found.width, found.height, found.fx, found.fy, found.ppx, found.ppy = (
        640,
        480,
        600,
        600,
        319,
        241,
    )
    found.model, found.coeffs = rs.distortion.kannala_brandt4, [0.3, 0.2, 0.1, 0.1, 0.0]
    with pytest.raises(CameraError, match="kannala_brandt4"):
        read_intrinsics(rs, found)


def test_a_distorted_camera_keeps_its_distortion() -> None:
    intrinsics = Intrinsics(480, 270, 252.9, 252.9, 239.5, 134.5, BENT)
    with opened(SoftwareCamera([SoftwareMode(intrinsics, 30)])) as (camera, _):
        assert camera.intrinsics.distortion == pytest.approx(BENT)


def test_a_feeder_renders_what_is_to_be_seen() -> None:
    """From metres to z16, through the pipeline, and back to metres."""
    depth = np.linspace(0.1, 0.6, 480 * 270, dtype=np.float32).reshape(270, 480)
    feeder = Feeder(SoftwareCamera(MODES), lambda stamp_ns: depth, 60)
    with open_camera(MOUNT, device=feeder, width=480, height=270) as camera:
        first = eventually(lambda: camera.stream.latest)
        eventually(lambda: camera.read_latest(5.0).number > first.number)
        np.testing.assert_allclose(camera.read_latest(5.0).depth, depth, atol=0.51e-4)


def test_no_return_and_too_far_are_zero() -> None:
    depth = np.array([[0, 0.1, 7.0, np.inf]], np.float32)
    np.testing.assert_array_equal(to_z16(depth, 1e-4), [[0, 1000, 0, 0]])


def test_pictures_for_calibration_come_with_their_depth() -> None:
    from rt.camera.pictures import open_pictures

    bent = Intrinsics(480, 270, 252.9, 252.9, 239.5, 134.5, BENT)
    modes = [SoftwareMode(bent, 30), *d405_modes([(240, 136)], [30])]
    device = SoftwareCamera(modes, pictures=modes)
    with open_pictures("infrared", device=device) as camera:
        grey = np.random.default_rng(0).integers(0, 256, (270, 480), dtype=np.uint8)
        at = time.monotonic_ns() - 20_000_000
        device.send(noise(3), 5, stamp_ns=at)
        device.send(grey, 5, stamp_ns=at)
        picture = eventually(lambda: camera.stream.latest)
        np.testing.assert_array_equal(picture.image, grey)
        np.testing.assert_array_equal(picture.depth, noise(3) * np.float32(1e-4))
        assert abs(picture.stamp_ns - at) < 1_000_000 and picture.number == 5
        assert camera.intrinsics.distortion == pytest.approx(BENT)
        assert camera.read_latest(60.0) is picture
    with pytest.raises(CameraError, match="no colour pictures"):
        open_pictures("colour", device=SoftwareCamera(MODES))


def test_colour_comes_in_the_pixels_of_the_depth_image() -> None:
    """By the library's own alignment: a colour camera of another focal length sees the same square."""
    wide = Intrinsics(480, 270, 200.0, 200.0, 239.5, 134.5)
    depth_mode, colour_mode = d405_modes([(480, 270)], [30])[0], SoftwareMode(wide, 30)
    device = SoftwareCamera([depth_mode], colours=[colour_mode])
    with opened(device, width=480, height=270, rate_hz=30, colour=True) as (camera, _):
        colour = np.full((270, 480, 3), 90, np.uint8)
        part = wide.fx_px / camera.intrinsics.fx_px
        half = round(40 * part)
        colour[135 - half : 135 + half, 240 - half : 240 + half] = (200, 10, 20)
        flat = np.full((270, 480), 3000, np.uint16)

        def seen() -> Frame | None:
            at = time.monotonic_ns()
            seen.number += 1  # type: ignore[attr-defined]
            device.send(flat, seen.number, stamp_ns=at)  # type: ignore[attr-defined]
            device.send(colour, seen.number, stamp_ns=at)  # type: ignore[attr-defined]
            time.sleep(0.02)
            latest = camera.stream.latest
            return latest if latest is not None and latest.colour is not None else None

        seen.number = 0  # type: ignore[attr-defined]
        frame = eventually(seen)
        red = frame.colour[..., 0] > 150
        assert frame.colour.shape == (270, 480, 3) and frame.depth.shape == (270, 480)
        assert abs(red.sum() - 80**2) < 0.1 * 80**2
        v, u = np.nonzero(red)
        assert abs(u.mean() - 239.5) < 1.5 and abs(v.mean() - 134.5) < 1.5
    with opened(colour=True) as (camera, _):
        assert "has no colour" in camera.warnings[-1]
