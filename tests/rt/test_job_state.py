"""rt.job.state, keys, control, holding and look: the small parts of a job."""

from __future__ import annotations

import json
import math
import os
import pty
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rt.cell.options import ServoOptions
from rt.cell.place import PlacePart
from rt.gripper import GripperState
from rt.guard.rows import Stop
from rt.job.control import Control
from rt.job.holding import Held, settle_holding
from rt.job.keys import Keys
from rt.job.look import (
    GraspTarget,
    TableLook,
    has_left,
    merged,
    turned,
)
from rt.job.options import ClearOptions
from rt.job.state import DROPPED, MISSED, PLACED, Attempt, JobState, StateError, read_state
from rt.pose import grasp_distance, to_view

PLACE = PlacePart(pose=(0, 0.4, 0.2, 0), home=(0, 0, 0.3), look_m=(0.4, 0.3))


def attempt(number: int, x: float, y: float, outcome: str) -> Attempt:
    made = Attempt(number, outcome=outcome)
    made.aim(np.array([x, y, 0.3, 0.1]), 0.8)
    return made


def test_a_state_is_what_was_written(tmp_path: Path) -> None:
    state = JobState(
        "table", [attempt(1, 0.1, 0.2, PLACED), attempt(2, 0, 0, MISSED)], carrying=True
    )
    state.seconds, state.runs = 12.5, 2
    state.write(tmp_path / "state.json")
    assert read_state(tmp_path) == state == read_state(tmp_path / "state.json")
    assert state.placed == 1


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no job to resume"):
        read_state(tmp_path)
    for text in ("{", "[]", json.dumps({"format": "other/1", "attempts": []})):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(StateError, match=r"no whole state of rt\.clear"):
            read_state(tmp_path)


def test_a_state_that_cannot_be_written_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = JobState("table")
    for _ in range(2):
        state.write(tmp_path / "missing" / "state.json")
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_tries_count_where_the_hand_aimed_and_where_it_came_to() -> None:
    led_away = attempt(1, 0.0, 0.0, MISSED)
    led_away.x_m = 0.2
    state = JobState(
        "table", [led_away, attempt(2, 0.0, 0.0, PLACED), attempt(3, 0.3, 0.3, DROPPED)]
    )
    assert state.tries_at((0.01, 0.0)) == 1 == state.tries_at((0.2, 0.02))
    assert state.tries_at((0.1, 0.0)) == 0 and state.tries_at((0.3, 0.26)) == 1


def oracle(grasps: np.ndarray, seen_from: np.ndarray) -> Any:
    """A perfect network for views from one place; symmetric views are answered as the plain one."""

    def distance(view: np.ndarray, actions: np.ndarray) -> np.ndarray:
        k = int(view[0, 0])  # the symmetry, found from what the corner holds
        x, y = 1 - 2 * (k & 1), 1 - 2 * (k >> 1 & 1)
        plain = actions.copy()
        if k >> 2 & 1:
            plain[:, [0, 1]] = plain[:, [1, 0]]
            plain[:, 2] = np.pi / 2 - plain[:, 2]
        plain = plain * np.array([x, y, x * y], np.float32)
        targets = to_view(grasps, seen_from)
        return grasp_distance(plain[:, None], targets[None]).min(axis=1).astype(np.float32)

    return distance


def test_a_look_finds_each_grasp_once_best_first_and_only_in_the_area(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen_from = np.array([0.02, -0.03, 0.3, 0.4])
    grasps = np.array([[0.05, 0.05, 0.02, 0.3], [-0.06, 0.0, 0.02, -1.0], [0.02, -0.16, 0.02, 0.0]])
    monkeypatch.setattr("rt.job.look.SYMMETRIES", (0,))
    look = TableLook(np.zeros((64, 64), np.float32), seen_from)
    assert look.weigh(oracle(grasps, seen_from))
    found = look.targets(0.5, PLACE)
    assert len(found) == 2 and look.best > 0.5  # the third lies outside
    for target in found:
        away = np.linalg.norm(grasps[:2, :2] - target.hand[:2], axis=1)
        assert away.min() < 0.012 and look.covers(target.hand)
    assert found[0].distance_m <= found[1].distance_m
    assert not look.covers(np.array([0.3, 0.0, 0.3, 0.0]))


def test_of_targets_at_one_spot_the_most_probable_is_kept() -> None:
    def target(x: float, p: float) -> GraspTarget:
        return GraspTarget(np.array([x, 0, 0.3, 0]), p, 0.01)

    kept = merged([target(0.0, 0.6), target(0.02, 0.9), target(0.2, 0.7)])
    assert [t.probability for t in kept] == [0.9, 0.7]


def test_an_object_has_left_if_the_ground_fell() -> None:
    assert has_left(0.04, 0.001) is True and has_left(0.04, 0.039) is False
    assert has_left(0.04, None) is None is has_left(None, 0.0) is has_left(0.002, 0.0)


def test_equal_yaws_are_chosen_near() -> None:
    hand = np.array([0, 0, 0.3, 3.0])
    assert turned(hand, 0.0)[3] == pytest.approx(3.0 - np.pi)
    assert turned(hand, 3.2)[3] == pytest.approx(3.0)


def test_keys_are_read_without_waiting() -> None:
    ours, theirs = pty.openpty()
    try:
        keys = Keys(theirs)
        assert keys.pressed() == []  # before it is entered
        with keys:
            assert keys.live
            os.write(ours, b"s nxq")
            time.sleep(0.05)
            assert keys.pressed() == ["step", "pause", "skip", "stop"]
            begun = time.monotonic()
            assert keys.pressed() == [] and time.monotonic() - begun < 0.3
        assert not keys.live
    finally:
        os.close(ours)
        os.close(theirs)


class Ring:
    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    def asked(self, word: str) -> int:
        return self.words.get(word, 0)

    def ask(self, word: str, value: int) -> None:
        self.words[word] = value

    def answer(self, word: str) -> None:
        self.ask(word, 0)


def control() -> tuple[Control, Any, Ring]:
    ring = Ring()
    loop: Any = SimpleNamespace(requests={}, record=SimpleNamespace(ring=ring))
    return Control(loop), loop, ring


def test_pause_and_single_steps_from_the_keyboard() -> None:
    made, loop, ring = control()
    made.ask("pause")
    assert made.waits() and ring.words["pause"] == 1  # the page shows it
    made.ask("step")
    assert not made.waits()
    made.end_pick()
    assert made.waits()
    made.ask("step")
    assert not made.waits()
    made.end_pick()
    made.ask("pause")  # goes on for good
    assert not made.waits()
    made.end_pick()
    assert not made.waits()
    made.ask("stop")
    assert loop.requests["stop"] == 1


def test_pause_steps_and_skip_from_the_page() -> None:
    made, loop, ring = control()
    ring.words["pause"] = 1
    made.poll()
    assert made.waits()
    ring.words["step"] = 1
    made.poll()
    assert not made.waits() and ring.words == {"pause": 0, "step": 0}
    made.end_pick()
    assert made.waits()
    ring.words["pause"] = 1  # the button of the page, while a step is over: go on
    made.poll()
    assert not made.waits() and ring.words["pause"] == 0
    made.ask("step")
    ring.words["pause"] = 1  # while a step is under way: the arm stands
    made.poll()
    assert made.waits()
    made.ask("pause")
    made.end_pick()
    assert not made.waits()
    ring.words["skip"] = 1
    made.poll()
    assert made.take("skip") and not made.take("skip") and not loop.requests.get("skip")
    loop.requests["skip"] = 1
    made.begin_pick()  # of the pick before
    assert not made.take("skip")


def loop_with(holding: bool) -> Any:
    state = GripperState(0, 0.03 if holding else 0.085, False, holding)
    return SimpleNamespace(cell=SimpleNamespace(gripper=SimpleNamespace(state=lambda: state)))


@pytest.mark.parametrize(
    ("choice", "expected"), [("place", Held.SOMETHING), ("open", Held.NOTHING)]
)
def test_fingers_that_hold_something_are_settled_as_told(choice: str, expected: Held) -> None:
    cut = attempt(3, 0, 0, "")
    state = JobState("table", [cut], carrying=True)
    assert settle_holding(loop_with(True), state, choice) is expected
    assert cut.outcome == DROPPED and "cut off" in cut.reason


def test_fingers_that_hold_something_refuse_a_job_that_does_not_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for choice in ("stop", "ask"):  # nobody to ask
        with pytest.raises(Stop, match=r"30 mm.*nothing moved.*--if-holding"):
            settle_holding(loop_with(True), JobState("table"), choice)
    assert settle_holding(loop_with(False), JobState("table", carrying=True), "ask") is Held.NOTHING
    assert "feels nothing now" in capsys.readouterr().err


def test_a_job_descends_in_fewer_cycles_and_refuses_an_impossible_rate() -> None:
    assert ClearOptions().iterations == 24 and ServoOptions().iterations == 75
    assert ClearOptions(rate=60.0).iterations == 48
    for rate in (math.inf, math.nan, 0.0):
        with pytest.raises(ValueError, match=r"Hz must be from 0\.5 to 1000 Hz"):
            ClearOptions(rate=rate)
