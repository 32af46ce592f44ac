"""rt.camera.coverage and rt.mount: which part of the view a camera covers, and the command that says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rt.camera import CameraError, Intrinsics
from rt.camera.coverage import MIN_SHARE, SURFACES_M, Coverage
from rt.camera.host_clock import HostClock, Stamp
from rt.camera.models import MODELS, find_model, nearest_depth_m, parse_size
from rt.cell.file import EXAMPLE
from rt.guard.limits import Limits
from rt.hand import load_hand
from rt.mount import main, tilted
from rt.view import VIEW
from sim.twin import MOUNTS

WRIST = MOUNTS["wrist"].T_hand_camera


def test_the_view_itself_covers_itself() -> None:
    coverage = Coverage(VIEW.intrinsics, np.eye(4))
    for seen in coverage.over_travel():
        assert seen.share == 1.0
        assert seen.nearest_m == pytest.approx(seen.height_m - seen.surface_m)


def test_half_an_image_covers_half_the_view() -> None:
    half = Intrinsics(32, 64, VIEW.focal_px, VIEW.focal_px, 31.5, 31.5)  # the left half
    seen = Coverage(half, np.eye(4)).see(0.30, 0.0)
    assert seen.share == pytest.approx(0.5, abs=0.02) and seen.mask[:, :31].all()
    assert not seen.mask[:, 34:].any()


def test_what_is_too_near_is_not_covered() -> None:
    near = Coverage(VIEW.intrinsics, np.eye(4), nearest_m=0.2)
    assert near.see(0.30, 0.0).share == 1 and near.see(0.30, 0.13).share == 0


def test_the_second_imager_does_not_see_the_left_edge() -> None:
    """f B / z columns: 45.7 px * 0.1 m / 0.3 m = 15.2."""
    seen = Coverage(VIEW.intrinsics, np.eye(4), baseline_m=0.1).see(0.30, 0.0)
    assert not seen.mask[:, :15].any() and seen.mask[:, 16:].all()


def test_a_surface_that_the_hand_would_touch_is_left_out() -> None:
    heights = {
        (s.height_m, s.surface_m) for s in Coverage(VIEW.intrinsics, np.eye(4)).over_travel((0.05,))
    }
    assert heights == {(0.05, s) for s in SURFACES_M if s <= 0.03}


def test_a_palm_before_the_camera_hides_what_it_does(capsys, tmp_path) -> None:
    behind = tilted("0,-0.05,-0.20,-8")
    model = MODELS["D405"]
    shares = [
        Coverage(model.intrinsics((640, 360)), behind, hand=hand).see(0.15, 0.0).share
        for hand in (None, load_hand())
    ]
    assert shares[0] > 0.8 and shares[1] < 0.5
    free = Coverage(model.intrinsics((640, 360)), WRIST, hand=load_hand())
    assert free.see(0.15, 0.0).share > 0.95
    blocked = ["--mount", "0,-0.05,-0.20,-8", "--mode", "640x360", "--out", str(tmp_path)]
    assert main(blocked) == 1
    assert "behind the hand itself" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "size", "enough"),
    [
        ("D405", (848, 480), True),
        ("D435", (480, 270), True),
        ("D435", (848, 480), False),
        ("D415", (640, 360), False),
    ],
)
def test_which_cameras_fit_the_travel(name: str, size: tuple[int, int], enough: bool) -> None:
    model = MODELS[name]
    coverage = Coverage(model.intrinsics(size), WRIST, model.nearest(size), model.baseline_m)
    assert (min(s.share for s in coverage.over_travel()) >= 0.5) == enough


def test_models_are_found_by_a_device_s_name() -> None:
    assert find_model("Intel RealSense D435IF") is MODELS["D435"]
    assert find_model("Intel RealSense L515") is None
    intrinsics = MODELS["D435"].intrinsics((960, 540))
    # a mode that is not listed: not nearer than the worst of those that are, for its width
    assert nearest_depth_m("D435", intrinsics, None) == pytest.approx(0.175 / 640 * 960)
    assert nearest_depth_m("L515", intrinsics, None) is None
    assert nearest_depth_m("Other", MODELS["D405"].intrinsics((848, 480)), 0.018) == pytest.approx(
        0.0798, abs=1e-3
    )


@pytest.mark.parametrize("text", ["480", "480x", "axb", "0x10", "-4x3"])
def test_a_mode_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CameraError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_a_mount_by_tilt_is_the_twin_s() -> None:
    np.testing.assert_allclose(tilted("0,-0.0705,-0.10,-12.4245"), WRIST, atol=1e-4)


# when a frame was exposed


class Clocks:
    """A monotonic and a wall clock to be set by hand."""

    def __init__(self) -> None:
        self.now, self.wall = 10**12, 1_795_000_000 * 10**9

    def host(self) -> HostClock:
        return HostClock(lambda: self.now, lambda: self.wall)


def test_a_wall_clock_that_is_set_moves_no_later_frame() -> None:
    clocks = Clocks()
    host = clocks.host()
    for step in (0, 3600 * 10**9, -7200 * 10**9):
        clocks.wall += step
        stamp = Stamp("global_time", (clocks.wall - 25_000_000) * 1e-6)
        assert abs(host.exposure_ns(stamp) - (clocks.now - 25_000_000)) < 10_000


def test_a_camera_s_own_clock_is_placed_by_the_fastest_frame() -> None:
    clocks = Clocks()
    host = clocks.host()
    begin = clocks.now
    for k, delay_ms in enumerate((30, 12, 25, 12, 60)):
        clocks.now = begin + k * 33_000_000 + delay_ms * 1_000_000
        got = host.exposure_ns(Stamp("hardware_clock", 77.0 + k * 33.0))
        late = got - (begin + k * 33_000_000)
        assert late == pytest.approx(30e6 if k == 0 else 12e6, abs=2)


def test_a_camera_s_clock_that_begins_anew_is_placed_anew() -> None:
    clocks = Clocks()
    host = clocks.host()
    host.exposure_ns(Stamp("hardware_clock", 4_294_967.0))
    clocks.now += 33_000_000
    assert host.exposure_ns(Stamp("hardware_clock", 0.5)) == clocks.now


def test_the_exposure_s_middle_is_told_by_the_best_that_is_known() -> None:
    clocks = Clocks()
    wall_ms = clocks.wall * 1e-6
    by = {
        Stamp("global_time", wall_ms, 1000, 9000, 4000): 8_000_000,
        Stamp("global_time", wall_ms, None, 9000, 4000): 2_000_000,
        Stamp("global_time", wall_ms, 9000, 1000, None): 0,
    }
    for stamp, before in by.items():
        assert abs(clocks.host().exposure_ns(stamp) - (clocks.now - before)) < 1000


def test_no_frame_is_from_the_future() -> None:
    clocks = Clocks()
    stamp = Stamp("global_time", (clocks.wall + 3_000_000) * 1e-6)
    assert clocks.host().exposure_ns(stamp) == clocks.now
    with pytest.raises(CameraError, match="clock set"):
        clocks.host().exposure_ns(Stamp("global_time", (clocks.wall + 60 * 10**9) * 1e-6))


# the command


def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rt.mount", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_says_what_suffices(tmp_path: Path) -> None:
    done = mount(
        "--cell", str(EXAMPLE), "--camera", "D405", "--mode", "480x270", "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert "enough: D405 at 480x270" in done.stdout
    result = json.loads((tmp_path / "mount.json").read_text())
    assert result["enough"] and result["modes"][0]["least_share"] > 0.9
    assert (tmp_path / "mount.png").stat().st_size > 10_000


def test_the_command_says_what_does_not_and_why(tmp_path: Path) -> None:
    done = mount("--camera", "D415", "--mode", "640x360", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "not enough" in done.stdout and "220 mm" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--camera", "D999"),
        ("--mode", "big"),
        ("--mount", "1,2"),
        ("--cell", "none.toml"),
        ("--end-height", "0.5"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: tuple[str, ...]) -> None:
    done = mount(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 12 and done.stderr.strip()


def test_the_share_that_modes_are_judged_by_is_the_guard_s_default() -> None:
    assert Limits().min_view_filled == MIN_SHARE


@pytest.mark.parametrize(
    ("delays_ms", "words"),
    [
        ([25] * 180, []),
        ([25, 40, 70, 30] * 45, []),
        ([-20] + [25] * 179, ["20 ms in the future"]),
        ([110] * 180, ["every frame is 110 ms old or more"]),
        ([25 + 0.3 * k for k in range(180)], ["moved by", "old or more"]),
        ([25] * 90 + [60] * 150, ["moved by +35 ms"]),
    ],
)
def test_stamps_are_compared_with_the_frames_arrival(
    delays_ms: list[float], words: list[str]
) -> None:
    """Six seconds of frames at 30 Hz; each doubt is told once."""
    clocks, told = Clocks(), []
    host = clocks.host()
    for delay_ms in delays_ms:
        clocks.now += 33_333_333
        clocks.wall += 33_333_333
        host.exposure_ns(Stamp("global_time", clocks.wall * 1e-6 - delay_ms))
        told += host.doubts()
    assert len(told) == len(set(told)) and bool(told) == bool(words)
    assert all(any(word in line for line in told) for word in words[:1])
