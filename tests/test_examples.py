"""docs/examples: devices of one's own run the loop, in under 80 lines each."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_approach import CONFIG, GRASPS, START, Oracle, depth_of_a_box

from rt.camera import CameraError, StaleFrameError
from rt.cell.cell import Cell
from rt.distance import DistanceError, open_model
from rt.gripper import GripperError
from rt.robot import RobotError
from rt.servo import run
from sim.twin import build

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))

from own_arm import OwnArm
from own_camera import OwnCamera
from own_cell import T_FLANGE_HAND, TwinVendor, own_cell
from own_gripper import OwnGripper


def twin() -> Cell:
    return build(depth_of_a_box, GRASPS, START, mount="wrist", camera_rate_hz=30)


def test_a_cell_of_own_devices_grasps() -> None:
    simulated = twin()
    report = run(CONFIG, own_cell(simulated), Oracle(simulated), 64)
    assert report.outcome == "grasped" and report.exit_code == 0
    assert report.cell.name == "own"
    assert report.grasp is not None and report.grasp.width_m == pytest.approx(0.04, abs=1e-3)
    assert report.true_end_m is not None and report.true_end_m < 0.005


def test_the_arm_converts_flange_and_hand_and_refuses_to_run_when_stopped() -> None:
    simulated = twin()
    vendor = TwinVendor(simulated)
    arm = OwnArm(vendor, T_FLANGE_HAND, simulated.robot.now_ns)
    target = simulated.robot.state().T_base_hand.copy()
    target[:3, 3] += (0.02, -0.01, -0.03)
    arm.move(target)
    simulated.advance(20_000_000)
    ours, theirs = arm.state(), simulated.robot.state()
    np.testing.assert_allclose(ours.T_base_hand, theirs.T_base_hand, atol=1e-9)
    np.testing.assert_allclose(ours.twist, theirs.twist, atol=1e-9)
    assert np.abs(ours.twist).max() > 0.01
    simulated.advance(2_000_000_000)
    np.testing.assert_allclose(arm.state().T_base_hand, target, atol=1e-3)
    stamp, pose, velocity, _ = vendor.read()
    vendor.read = lambda: (stamp, pose, velocity, False)  # type: ignore[method-assign]
    with pytest.raises(RobotError, match="stopped by itself"):
        arm.__enter__()


def test_the_camera_refuses_old_frames_and_another_mode() -> None:
    like = twin().camera
    size = like.intrinsics.height_px, like.intrinsics.width_px
    newest: list[tuple[int, int, NDArray[np.uint16]] | None] = [None]
    camera = OwnCamera(lambda: newest[0], like.intrinsics, np.eye(4), lambda: 1_000_000_000)
    with pytest.raises(StaleFrameError):
        camera.read_latest(1.0)
    newest[0] = (7, 900_000_000, np.full(size, 250, np.uint16))
    frame = camera.read_latest(0.15)
    assert (frame.number, frame.depth.dtype) == (7, np.float32)
    assert frame.depth == pytest.approx(0.25)
    with pytest.raises(StaleFrameError, match="100 ms"):
        camera.read_latest(0.05)
    newest[0] = (8, 900_000_000, np.zeros((3, 4), np.uint16))
    with pytest.raises(CameraError, match=r"\(3, 4\)"):
        camera.read_latest(0.15)


def test_the_gripper_names_what_it_does_not_understand() -> None:
    answers = {"OPEN": "OK", "CLOSE": "OK", "?": "41.5 0 20.0"}
    gripper = OwnGripper(lambda line: answers[line])
    assert not gripper.state().holding  # a force without having been told to close
    gripper.close()
    state = gripper.state()
    assert state.holding and state.width_m == pytest.approx(0.0415)
    answers["?"] = "80.0 0 0.0"
    assert not gripper.state().holding
    answers["?"] = "ERR"
    with pytest.raises(GripperError, match="'ERR'"):
        gripper.state()
    answers["OPEN"] = "BUSY"
    with pytest.raises(GripperError, match="BUSY"):
        gripper.open()

    def dead(line: str) -> str:
        raise TimeoutError("timed out")

    with pytest.raises(GripperError, match="silent"):
        OwnGripper(dead).__enter__()


def test_the_backend_equals_the_reference(
    model_file: Path, depth_view: NDArray[np.float32]
) -> None:
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (33, 3)).astype(np.float32)
    own, reference = open_model(model_file, "provider"), open_model(model_file, "reference")
    out = np.empty(33, np.float32)
    assert own(depth_view, actions, out) is out
    np.testing.assert_allclose(out, reference(depth_view, actions), atol=1e-4)
    assert own.backend == "provider" and not own.has_gradient
    with pytest.raises(DistanceError, match="no precision 'half', only float32"):
        open_model(model_file, "provider", precision="half")


def test_examples_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 80, f"{path.name} has 80 lines or more"


def test_a_run_with_the_own_cell_is_the_twins_own() -> None:
    """The adapters lose nothing but the camera's half millimetre."""
    plain, own = twin(), twin()
    config = replace(CONFIG, grasp="no", iterations=10)
    a = run(config, plain, Oracle(plain), 64)
    b = run(config, own_cell(own), Oracle(own), 64)
    assert a.outcome == b.outcome == "arrived"
    np.testing.assert_allclose(a.trace[-1]["hand"], b.trace[-1]["hand"], atol=2e-3)
