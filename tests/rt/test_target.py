"""The wanted object: rt.controller.target (restricted, followed) and rt.grasp.target (named in four ways)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_approach import CONFIG as GRASPING
from test_approach import Oracle, cell, go
from test_motion import BLOCKS, view_of

from rt import controller
from rt.camera import Frame, Intrinsics
from rt.cell.open import open_cell, open_devices, settle
from rt.cell.options import ServoOptions
from rt.cell.transform import CellError
from rt.controller import Surroundings, TargetPoint
from rt.controller.motion import Shift
from rt.controller.target import FollowedTarget, beyond_m, object_cells
from rt.distance import open_model
from rt.grasp.memory import HeightMemory
from rt.grasp.target import WantedObject, point_of
from rt.grasp.target_function import TargetError
from rt.guard.limits import Limits
from rt.hand import load_hand
from rt.outcome import Outcome
from rt.pose import grasp_distance, to_view, top_down
from rt.record.ring import Reader
from rt.servo import Servo, run
from rt.view import VIEW

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))

HAND = np.array([0.02, -0.01, 0.28, 0.4])
OPTIONS = ServoOptions(fast=True, candidates=128, seed=3)


def memory_of(blocks: NDArray[np.float64], hand: NDArray[np.float64] = HAND) -> HeightMemory:
    memory = HeightMemory()
    memory.see(view_of(blocks, hand), hand)
    return memory


def test_an_object_ends_at_a_gap_and_at_a_step() -> None:
    memory = memory_of(BLOCKS)
    target = TargetPoint((float(BLOCKS[0, 0]), float(BLOCKS[0, 1])))
    on, other = BLOCKS[:1, :2], BLOCKS[1:, :2]
    assert beyond_m(target, object_cells(target, memory), on)[0] == 0
    # 25 mm from the point, and the same block:
    end = BLOCKS[0, :2] + 0.025 * np.array([np.cos(0.3), np.sin(0.3)])
    assert beyond_m(target, object_cells(target, memory), end[None])[0] == 0
    assert (
        0.01 < beyond_m(target, object_cells(target, memory), other)[0] < np.linalg.norm(on - other)
    )
    # A lower block that touches it is another object.
    low = (memory.heights_m > 0.02) & (np.arange(memory.heights_m.shape[1]) < 96)
    memory.heights_m[low] = 0.03
    half = np.argwhere(memory.heights_m == np.float32(0.03))
    assert len(half) > 10
    found = object_cells(target, memory)
    inside = beyond_m(target, found, memory._corner + (half[:, ::-1] + 0.5) * 0.005)
    assert (inside > 0).mean() > 0.5
    assert beyond_m(TargetPoint((9.0, 9.0)), None, np.array([[9.01, 9.0], [9.05, 9.0]]))[0] == 0


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(-1, 1))
def test_a_target_of_an_earlier_picture_moves_as_the_scene_has_since(
    x: float, y: float, turn: float
) -> None:
    followed, shift = FollowedTarget(), Shift(np.array([0.1, 0.0]), np.array([x, y]), turn)
    followed.carry(shift, 1.0, None)
    followed.carry(shift, 2.0, None)
    followed.give(TargetPoint((0.2, 0.1), seen_s=1.5))
    once = shift.carry(np.array([[0.2, 0.1, 0.0, 0.0]]))[0, :2]
    assert followed.now is not None
    np.testing.assert_allclose(followed.now.xy_m, once, atol=1e-12)
    followed.give(TargetPoint((0.2, 0.1), seen_s=1.5))  # the same again: no news
    followed.carry(shift, 3.0, None)
    twice = shift.carry(np.array([[*once, 0.0, 0.0]]))[0, :2]
    np.testing.assert_allclose(followed.now.xy_m, twice, atol=1e-12)
    followed.give(None)
    assert followed.now is None


class Pits:
    """A network that knows grasps (G, 4) in base, each with a distance that is left there (G,) m."""

    contract = open_model().contract

    def __init__(self, grasps: NDArray[np.float64], left_m: NDArray[np.float64]) -> None:
        self.grasps, self.left_m, self.seen_from = grasps, left_m, HAND

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        there = to_view(self.grasps, self.seen_from)
        away = grasp_distance(actions[:, None], there[None]) + self.left_m
        return np.float32(away.min(axis=1))


@pytest.mark.parametrize("name", ["paper", "ensemble", "first_look"])
def test_a_bad_grasp_of_the_wanted_object_is_chosen_before_a_perfect_one_beside_it(
    name: str,
) -> None:
    control = controller.CONTROLLERS[name](0.2, 256, np.random.default_rng(0))
    distance, hand = Pits(BLOCKS, np.array([0.03, 0.0])), HAND.copy()
    memory = memory_of(BLOCKS)
    wanted = TargetPoint((float(BLOCKS[0, 0]), float(BLOCKS[0, 1])))
    for k in range(30):
        control.around = Surroundings(k / 30, heights=memory, hand=load_hand(), target=wanted)
        control.symmetry = -1  # Pits does not know of symmetries
        distance.seen_from = hand
        decision = control(distance, view_of(BLOCKS, hand), hand, hand)
        hand = hand + np.array([*decision.move[:2], -0.001, decision.move[2]])
    assert beyond_m(wanted, object_cells(wanted, memory), decision.goal[None, :2])[0] == 0


def test_the_target_goes_with_an_object_that_moves_and_stays_with_one_that_stands() -> None:
    for speed_m_s in (0.0, 0.04, 0.2):
        control: Any = controller.FirstLook(0.2, 64, np.random.default_rng(0))
        blocks, hand, memory = BLOCKS.copy(), HAND.copy(), HeightMemory()
        wanted = TargetPoint((float(BLOCKS[0, 0]), float(BLOCKS[0, 1])))
        distance = Pits(blocks, np.zeros(2))
        for k in range(25):
            view = view_of(blocks, hand)
            memory.see(view, hand)
            control.around = Surroundings(k / 30, heights=memory, hand=load_hand(), target=wanted)
            control.symmetry = -1
            distance.grasps, distance.seen_from = blocks, hand
            control(distance, view, hand, hand)
            moved_m = np.linalg.norm(np.subtract(control.target.now.xy_m, wanted.xy_m))
            off_m = np.linalg.norm(control.target.now.xy_m - blocks[0, :2])
            assert off_m < 0.015, (speed_m_s, k)
            blocks = blocks + np.array([0.8, 0.6, 0, 0]) * speed_m_s / 30
            hand = hand + np.array([0.8, 0.6, 0, 0]) * speed_m_s / 30
        assert (moved_m > 0.02) == (speed_m_s > 0)


def test_a_box_is_the_middle_of_what_stands_in_it_or_refused_by_name() -> None:
    view, T = view_of(BLOCKS, HAND), top_down(*HAND)
    rays, frame_s = VIEW.rays(), 3.0
    there = to_view(BLOCKS[:1], HAND)[0, :2] * VIEW.focal_px / (HAND[2] - 0.05) + 31.5
    u, v = np.round(there).astype(int)
    wanted = WantedObject(None, (u - 6, v - 6, u + 6, v + 6), VIEW.intrinsics)
    frame = Frame(int(frame_s * 1e9), 0, view, VIEW.intrinsics)
    wanted.begin(lambda: (frame, T), 1.0, Limits())
    assert wanted.now is not None and wanted.now.seen_s == frame_s
    assert np.linalg.norm(np.subtract(wanted.now.xy_m, BLOCKS[0, :2])) < 0.008
    assert 0.02 < wanted.now.radius_m < 0.05
    with pytest.raises(TargetError, match=r"is not in the camera's depth image: columns 0 to 63"):
        WantedObject(None, (60, 3, 64, 9), VIEW.intrinsics)
    near = Limits(workspace_min_m=(0.3, 0.3))
    with pytest.raises(
        TargetError, match=r"the wanted object at .* lies 0.\d+ m outside the workspace"
    ):
        wanted.begin(lambda: (frame, T), 1.0, near)
    empty = np.zeros((64, 64), np.float32)
    with pytest.raises(TargetError, match="0 of 169 pixels there have a depth"):
        point_of(empty, wanted._where, rays, T, 0.0)  # type: ignore[arg-type]


def test_options_that_contradict_each_other_are_refused() -> None:
    for given_, message in (
        ({"target": (0, 0), "target_box": (1, 2, 3, 4)}, "give one"),
        ({"target": "click"}, "add --view"),
        ({"target": "no_such_module:red"}, "cannot be imported"),
        ({"target": "red"}, "give module:attribute"),
    ):
        with pytest.raises(ValueError, match=message):
            ServoOptions(**given_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            (9.0, 9.0),
            r"9.000, 9.000 m lies 12.021 m outside the workspace \(x -0.5 to 0.5, y .* m\)",
        ),
        ((120.0, -45.0), "workspace .*; is it given in mm"),
    ],
)
def test_a_point_that_no_hand_comes_to_is_refused_before_a_device_is_opened(
    target: tuple[float, float], message: str
) -> None:
    with pytest.raises(CellError, match=message):
        settle(replace(OPTIONS, target=target))
    settle(replace(OPTIONS, target=(0.55, 0.5)))  # its object reaches into the workspace


def colour_of_the_nearest(run_cell: Any) -> str:
    """Of the object below the hand."""
    from sim.scene.render import COLOURS

    frame = run_cell.camera.read_latest(1.0)
    colour = frame.colour[28:36, 28:36].reshape(-1, 3)
    found = [name for name, rgb in COLOURS.items() if (colour == rgb).all(axis=1).sum() >= 8]
    return found[0] if len(found) == 1 else ""


def test_an_own_function_finds_its_colour_and_the_run_ends_on_it() -> None:
    options = replace(OPTIONS, target="own_target:red")
    with open_devices(options, settle(options)) as twin:
        report = run(options, twin, open_model(), 128)
        assert report.outcome is Outcome.ARRIVED and not report.reason
        assert colour_of_the_nearest(twin) == "red"


@pytest.mark.parametrize(
    ("name", "message"),
    [("found_nothing", "sees no such object; nothing moved"), ("hangs", "does not answer within")],
)
def test_a_function_that_finds_nothing_ends_the_run_before_it_begins(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt.grasp.target_function.SLOW_S", 0.2)
    monkeypatch.setattr("rt.grasp.target_function._STARTS_WITHIN_S", 20.0)
    options = replace(OPTIONS, target=f"targets:{name}", patience=0.5)
    with (
        open_devices(options, settle(options)) as twin,
        pytest.raises(TargetError, match=message),
        Servo(twin, open_model(), options, candidates=16),
    ):
        pass


def test_a_function_that_fails_is_told_holds_its_target_and_stops_the_run_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rt.grasp.target.LOST_S", 0.5)
    options = replace(OPTIONS, target="targets:fails_later", fast=False, iterations=300)
    with open_devices(options, settle(options)) as twin:
        report = run(options, twin, open_model(), 16)
    assert report.outcome is Outcome.STOPPED and "the lamp is off" in report.reason
    assert "the last target holds" in capfd.readouterr().err
    assert report.trace  # it went on meanwhile


def test_a_target_without_a_grasp_ends_the_run_without_a_touch() -> None:
    report = go(cell(), replace(GRASPING, target=(0.15, 0.1)))
    assert report.outcome is Outcome.NO_GRASP and report.grasp is not None
    assert report.grasp.phase == "look" and report.grasp.closed_at_m is None
    assert "of the wanted object at 0.150, 0.100 m" in report.reason
    assert "nothing was touched" in report.reason
    assert go(cell(), replace(GRASPING, target=(0.0, 0.0))).outcome is Outcome.GRASPED


def test_a_click_is_heard_by_the_loop_recorded_and_cleared(tmp_path: Path) -> None:
    simulated = cell()
    with Servo(
        simulated, Oracle(simulated), replace(GRASPING, grasp="no"), candidates=64,
        record=tmp_path / "flight.mcap",
    ) as servo:  # fmt: skip
        assert servo.loop.record is not None
        page = Reader(servo.loop.record.ring.name)
        seen = []
        for k, _ in enumerate(servo):
            if k == 5:
                page.ask_target((0.01, 0.0, 0.5))
            if k == 10:
                page.ask_target(None)
            seen.append(servo.loop.wanted_now)
        page.close()
    assert seen[4] is None and seen[-1] is None
    assert seen[7] is not None and seen[7].xy_m == (0.01, 0.0)
    from rt.record.recorder import read_record

    recorded = read_record(tmp_path / "flight.mcap").cycles["target"]
    assert np.isnan(recorded[:4]).all() and (recorded == (0.01, 0.0)).all(axis=1).sum() == 5


def test_intrinsics_of_another_size_take_a_box_of_that_size() -> None:
    intrinsics = Intrinsics(640, 480, 600.0, 600.0, 319.5, 239.5)
    assert WantedObject(None, (600, 400, 639, 479), intrinsics).now is None
    with pytest.raises(TargetError, match="rows 0 to 479"):
        WantedObject(None, (600, 400, 639, 480), intrinsics)
    with open_cell("twin", colour=True) as twin:
        twin.advance(100_000_000)
        frame = twin.camera.read_latest(1.0)
        assert frame.colour is not None and frame.colour.shape == (*frame.depth.shape, 3)
