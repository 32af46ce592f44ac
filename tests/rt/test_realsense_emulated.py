"""sim.hardware.realsense.emulated: the RealSense driver sees a scene from where the emulated arm is."""

from __future__ import annotations

import time

import numpy as np
import pytest
from needs import needed_realsense

needed_realsense()

from rt.camera import CameraError, StaleFrameError
from rt.camera.realsense import open_camera
from sim.hardware.realsense import emulated
from sim.hardware.ur.process import start_emulator

ADDRESS, PORT = "127.0.0.71", 30971


def test_it_sees_the_table_below_the_arm_and_ends_with_the_camera() -> None:
    options = f"host={ADDRESS}&control_port={PORT}&scene=1&size=120x68&rate_hz=30"
    with (
        start_emulator(ADDRESS, control_port=PORT) as emulator,
        open_camera(
            np.eye(4), device=f"sim.hardware.realsense:emulated?{options}", final_height_m=None
        ) as camera,
    ):
        height_m = emulator.pose()[1][2, 3]
        end = time.monotonic() + 60
        frame = None
        while frame is None:
            assert time.monotonic() < end, "no frame came"
            try:
                frame = camera.read_latest(2.0)
            except StaleFrameError:
                time.sleep(0.02)
        assert frame.depth.shape == (68, 120)
        # The tool looks straight down: the farthest is the table, and something stands on it.
        assert frame.depth.max() == pytest.approx(height_m, abs=1e-3)
        assert frame.depth[frame.depth > 0].min() < height_m - 0.01
        assert 0 <= time.monotonic_ns() - frame.stamp_ns < 10e9
        process = camera.stream._stack._exit_callbacks[0][1].__self__._child.process  # the renderer
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("options", "message"), [({"hots": "x"}, "no option hots"), ({"rate_hz": "x"}, "rate_hz")]
)
def test_options_that_are_none_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        emulated(np.eye(4), **options)
