"""rt.grasp.approach: the last centimetres on the twin, and how each phase may end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

import rt.servo
from rt.camera import StaleFrameError
from rt.cell.cell import Cell
from rt.cell.options import ServoOptions
from rt.distance import Contract
from rt.grasp import approach
from rt.gripper import GripperError, GripperState
from rt.guard.force import ZERO_SAMPLES, wrench_at_rest
from rt.hand import load_hand, load_tip_travel
from rt.outcome import Report
from rt.pose import grasp_distance, to_view, top_down
from rt.record.report import write
from rt.robot import RobotState
from rt.servo import RunSetup, run
from sim.scene.render import Renderer
from sim.scene.scene import Scene
from sim.twin import build

BOX_M, HIGH_M = 0.04, 0.03
START = np.array([0.02, -0.03, 0.30, 0.3])
GRASPS = np.array([[0.0, 0.0, 0.006, 0.0, BOX_M], [0.0, 0.0, 0.006, np.pi / 2, BOX_M]])
CONFIG = ServoOptions(fast=True, candidates=64, grasp="yes", iterations=25, controller="paper")


def depth_of_a_box(T: NDArray[np.float64], rays: NDArray[np.float32]) -> NDArray[np.float32]:
    """A box on the table at the origin, seen without its walls: plane by plane."""
    directions = rays.astype(np.float64) @ T[:3, :3].T
    depth = np.zeros(rays.shape[:2])
    for z in (0.0, HIGH_M):
        d = (z - T[2, 3]) / directions[..., 2]
        at = T[:3, 3] + d[..., None] * directions
        on = (np.abs(at[..., :2]) < BOX_M / 2).all(axis=-1) if z > 0 else np.ones_like(d, bool)
        depth = np.where(on & (d > 0), d, depth)
    return depth.astype(np.float32)


class Oracle:
    """A perfect network."""

    contract = Contract(hand=load_hand(), training_set="oracle")
    backend = "oracle"

    def __init__(self, cell: Cell) -> None:
        self.camera: Any = cell.camera

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        targets = to_view(GRASPS[:, :4], self.camera.seen_from)
        return np.float32(grasp_distance(actions[:, None], targets[None]).min(axis=1))


def cell(mount: str = "ideal") -> Cell:
    return build(depth_of_a_box, GRASPS, START, mount=mount, camera_rate_hz=30)


def go(cell: Cell, config: ServoOptions = CONFIG) -> Report:
    return run(config, cell, Oracle(cell), 64)


def feeling(cell: Cell, force_N: Any) -> None:
    """Give the twin a sense of force: `force_N` of the hand's height."""
    robot: Any = cell.robot
    plain = robot.state

    def state() -> RobotState:
        s = plain()
        push = force_N(float(s.T_base_hand[2, 3]))
        return replace(s, wrench=np.array([0.0, 0.0, push, 0, 0, 0]))

    robot.state = state


def test_a_box_is_grasped_and_lifted(tmp_path: Path) -> None:
    report = go(cell("wrist"))
    assert (report.outcome, report.exit_code) == ("grasped", 0)
    grasp = report.grasp
    assert grasp is not None and grasp.height is not None and grasp.phase == "done"
    assert 0.004 <= grasp.height.height_m < 0.008
    assert grasp.closed_at_m == pytest.approx(grasp.height.height_m, abs=0.001)
    assert grasp.width_m == pytest.approx(BOX_M)
    assert grasp.lifted_m == pytest.approx(0.10, abs=0.002)
    assert grasp.contact_N is None and not grasp.touched
    assert grasp.true_m is not None and grasp.true_m < 0.005
    write(report, tmp_path)
    record = json.loads((tmp_path / "servo.json").read_text())
    assert record["grasp"]["outcome"] == "grasped"
    assert record["ended"] == record["grasp"]["ended"] == "grasped" and record["reason"] == ""


def test_without_being_asked_the_twin_stops_at_the_end_height() -> None:
    report = go(cell(), replace(CONFIG, grasp="auto"))
    assert report.outcome == "arrived" and report.grasp is None


def test_contact_near_the_depth_ends_the_descent() -> None:
    c = cell()
    feeling(c, lambda z: 30.0 if z < 0.010 else 0.0)
    report = go(c)
    assert report.outcome == "grasped" and report.grasp is not None
    assert report.grasp.touched and report.grasp.contact_N == pytest.approx(30)
    assert report.grasp.closed_at_m == pytest.approx(0.009, abs=0.002)


def test_the_force_counts_from_its_mean_at_rest() -> None:
    """A sensor that is 5 N off, with 2 N of noise."""
    rng, zeros = np.random.default_rng(0), []
    c = cell()
    feeling(c, lambda z: 5.0 + 2.0 * rng.standard_normal() + (30.0 if z < 0.010 else 0.0))

    def descend(loop: Any, options: Any, notes: Any, zero: Any) -> Any:
        zeros.append((zero, loop.wrench_zero))
        yield from usual(loop, options, notes, zero)

    usual = approach._descend
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approach, "_descend", descend)
        report = go(c)
    assert report.outcome == "grasped" and report.grasp is not None and report.grasp.touched
    for zero in zeros[0]:
        assert zero[2] == pytest.approx(5.0, abs=2.5 * 2 / np.sqrt(ZERO_SAMPLES))


def test_a_zero_is_of_packets_that_differ() -> None:
    class Arm:
        reads = 0

        def state(self) -> RobotState:
            self.reads += 1
            wrench = np.full(6, float(self.reads // 3))
            return RobotState(1 + self.reads // 3, np.eye(4), np.zeros(6), wrench)

    arm: Any = Arm()
    zero = wrench_at_rest(arm)
    assert zero is not None and zero[0] == pytest.approx((ZERO_SAMPLES - 1) / 2)
    arm.state = lambda: RobotState(1, np.eye(4), np.zeros(6), np.ones(6))
    zero = wrench_at_rest(arm)
    assert zero is not None and zero[0] == 1  # one that sends no more, for a while
    arm.state = lambda: RobotState(1, np.eye(4), np.zeros(6))
    assert wrench_at_rest(arm) is None


def test_contact_high_up_is_a_collision_and_the_arm_stays() -> None:
    c = cell()
    feeling(c, lambda z: 30.0 if z < 0.060 else 0.0)
    report = go(c)
    assert report.text.startswith("no grasp: collided") and report.exit_code == 3
    assert report.grasp is not None and report.grasp.phase == "descend"
    for _ in range(10):
        c.advance(33_333_333)
    state = c.robot.state()
    assert 0.05 < state.T_base_hand[2, 3] < 0.062
    np.testing.assert_allclose(state.twist, 0, atol=0.005)


def test_a_blow_stops_everything() -> None:
    c = cell()
    feeling(c, lambda z: 80.0 if z < 0.100 else 0.0)
    report = go(c)
    assert report.text.startswith("stopped: force: 80 N") and report.exit_code == 1
    assert "(during: descend)" in report.text and report.guard.counts["force"] == 1


def test_fingers_that_close_on_nothing_open_again_and_go_back() -> None:
    c = cell()
    gripper: Any = c.gripper
    gripper.close = lambda: gripper._start(0.0, False)
    report = go(c)
    assert report.text.startswith("no grasp: missed") and report.exit_code == 3
    assert c.robot.state().T_base_hand[2, 3] == pytest.approx(0.15, abs=0.002)
    assert gripper.state().width_m == pytest.approx(0.085)


def test_an_object_that_slips_is_noticed() -> None:
    c = cell()
    gripper, robot = c.gripper, c.robot
    assert gripper is not None
    plain = gripper.state

    def lost() -> GripperState:
        high = robot.state().T_base_hand[2, 3] > 0.05
        return replace(plain(), holding=False) if high else plain()

    gripper.state = lost  # type: ignore[method-assign]
    report = go(c)
    assert report.text.startswith("no grasp: slipped") and report.grasp is not None
    assert report.grasp.phase == "lift" and report.grasp.lifted_m < 0.06


def test_a_gripper_that_fails_ends_the_run_by_name() -> None:
    c = cell()
    gripper: Any = c.gripper

    def silent() -> None:
        raise GripperError("the gripper is silent")

    gripper.close = silent
    report = go(c)
    assert report.text == "stopped: the gripper is silent (during: close)"
    assert report.exit_code == 1 and report.guard.counts["gripper"] == 1 and report.standing


def test_a_grasp_without_a_gripper_is_refused_before_anything_moves() -> None:
    c = cell()
    c.gripper = None
    with pytest.raises(GripperError, match="needs a gripper"):
        go(c)
    np.testing.assert_allclose(c.robot.state().T_base_hand[:3, 3], START[:3])


def test_an_object_as_high_as_the_hand_is_not_run_into() -> None:
    c = cell()
    camera: Any = c.camera
    rays = camera.intrinsics.rays()

    def table_alone(hand: Any) -> Any:
        depth = depth_of_a_box(top_down(*hand) @ camera.T_hand_camera, rays)
        return np.where(depth < hand[2] - 0.01, np.float32(0.0), depth)

    camera._image = table_alone
    report = go(c)
    assert report.text.startswith("no grasp") and report.exit_code == 3


@pytest.mark.parametrize("how", ["silent", "black"])
def test_nothing_is_grasped_blindly(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera fails when the arm has arrived: what it saw before is no longer believed."""
    c = cell()
    camera: Any = c.camera
    plain, newest = rt.servo.dwell, camera.read_latest

    def dark(max_age_s: float) -> Any:
        if how == "silent":
            raise StaleFrameError(1.0, max_age_s)
        frame = newest(max_age_s)
        return replace(frame, depth=np.zeros_like(frame.depth))

    def stand_still(*arguments: Any) -> bool:
        camera.read_latest = dark
        return plain(*arguments)

    monkeypatch.setattr(rt.servo, "dwell", stand_still)
    report = go(c)
    assert "nothing is grasped blindly" in report.text and report.exit_code == 1
    assert report.grasp is None and report.standing
    assert float(c.robot.state().T_base_hand[2, 3]) == pytest.approx(0.15, abs=0.002)
    assert report.guard.counts["frame_age" if how == "silent" else "view_filled"] > 0


def test_the_page_pauses_the_last_centimetres_too() -> None:
    """Its wish is looked at in every cycle: the hand stands as long as it lasts."""
    c = cell()

    class Ring:
        cycles = 0

        def asked(self, word: str) -> int:
            height = float(c.robot.state().T_base_hand[2, 3])
            if word != "pause" or not 0.02 < height < 0.10:
                return 0
            self.cycles += 1
            return int(20 < self.cycles <= 60)

    class Record:
        ring = Ring()
        heights: list[float] = []  # noqa: RUF012

        def put(self, **fields: Any) -> None:
            if "hand" in fields and 20 < self.ring.cycles <= 60:
                self.heights.append(float(fields["hand"][2]))

    report = run(CONFIG, c, Oracle(c), 64, RunSetup(record=Record()))  # type: ignore[arg-type]
    assert report.outcome == "grasped"
    assert len(Record.heights) >= 40 and np.ptp(Record.heights[20:40]) < 1e-4


TIPS = load_tip_travel()


def travelling(gripper_finds: bool = True) -> tuple[Report, list[tuple[bytes, float, float]]]:
    """A run with fingers whose tips travel; (phase, height of the hand, width) of its last centimetres."""
    c = build(depth_of_a_box, GRASPS, START, camera_rate_hz=30, tips=TIPS)
    gripper: Any = c.gripper
    if not gripper_finds:
        gripper.close = lambda: gripper._start(0.0, False)

    class Record:
        ring = type("Ring", (), {"asked": lambda self, word: 0})()
        seen: list[tuple[bytes, float, float]] = []  # noqa: RUF012

        def put(self, **fields: Any) -> None:
            if "gripper_m" in fields:
                self.seen.append((fields["phase"], float(fields["hand"][2]), fields["gripper_m"]))

    record: Any = Record()
    return run(CONFIG, c, Oracle(c), 64, RunSetup(record=record, tips=TIPS)), record.seen


def test_tips_that_travel_grasp_where_others_do() -> None:
    report, seen = travelling()
    assert (
        report.outcome == "grasped" and report.grasp is not None and report.grasp.height is not None
    )
    held_m = report.grasp.closed_at_m - TIPS(BOX_M)
    assert 0.004 <= held_m < 0.008
    assert report.grasp.height.height_m == pytest.approx(0.004 + TIPS(BOX_M), abs=0.004)
    assert min(z - TIPS(width) for _, z, width in seen) > 0.003


def test_tips_that_travel_clear_the_table_when_they_close_on_nothing() -> None:
    """They go down farther than on the box that was seen, and the hand rises by as much."""
    report, seen = travelling(gripper_finds=False)
    assert report.text.startswith("no grasp: missed")
    closing = [(z, z - TIPS(width)) for phase, z, width in seen if phase == b"close"]
    assert closing[0][0] < 0.0174 < 0.0175 < closing[-1][0] < 0.0185  # 4 mm and 13.9 mm
    assert min(tip for _, tip in closing) > 0.002


def test_an_object_higher_than_the_end_of_the_travel_is_never_hit() -> None:
    """It is refused by name, since it hides the ground under the far jaw from a camera beside the hand."""
    high_m = 0.22
    box = trimesh.creation.box((BOX_M, BOX_M, high_m))
    box.apply_translation((0, 0, high_m / 2))
    faces = box.faces.astype(np.int32)
    scene = Scene((), box.vertices.astype(np.float32), faces, np.zeros(len(faces), np.int16))
    c = build(Renderer(scene).depth, GRASPS, START, mount="wrist", camera_rate_hz=30)
    lowest: list[float] = []
    robot: Any = c.robot
    plain = robot.state

    def state() -> RobotState:
        s: RobotState = plain()
        lowest.append(float(s.T_base_hand[2, 3]))
        return s

    robot.state = state
    report = go(c, replace(CONFIG, iterations=75))
    assert report.exit_code == 3 and "of the ground under the jaws was seen" in report.reason
    assert report.guard.counts["path"] > 0
    # The approach ends with the palm above the box, and the palm stays there.
    palm_m = load_hand().finger_length_m
    assert report.trace[-1]["command"][2] == pytest.approx(high_m + 0.01 - palm_m, abs=0.002)
    assert min(lowest) + palm_m >= high_m


def test_nothing_is_touched_where_the_network_doubts() -> None:
    class Doubtful(Oracle):
        def predict(self, depth: NDArray[np.float32], actions: NDArray[np.float32]) -> Any:
            distance = self(depth, actions)
            return SimpleNamespace(distance=distance, probability=np.full_like(distance, 0.1))

    c = cell()
    report = run(CONFIG, c, Doubtful(c), 64)
    assert report.exit_code == 3 and "probability of a grasp here is 0.10" in report.text


def test_an_object_on_a_conveyor_is_followed_down_and_lifted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the end of the approach and the closed fingers the belt goes 30 mm or more."""
    monkeypatch.setattr(
        rt.controller.ensemble, "symmetry", lambda k, view, actions: (view, actions)
    )  # the oracle does not look at the view
    belt = replace(CONFIG, controller="ensemble", conveyor=(0.05, -0.02))
    c = build(depth_of_a_box, GRASPS, START, camera_rate_hz=30, conveyor_m_s=belt.conveyor)
    report = go(c, replace(belt, iterations=60))
    grasp = report.grasp
    assert report.outcome == "grasped" and grasp is not None
    assert grasp.drift_m_s == pytest.approx(np.hypot(*belt.conveyor), rel=0.05)
    np.testing.assert_allclose(c.robot.state().twist[:2], 0, atol=1e-3)  # at the end it stands
