"""bench.sequences: the cell on virtual time grasps, every fault stops it, and the invariants can fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from needs import needed

needed("ur", "ruckig")

from bench import sequences
from bench.sequences import FAULTS, Event, SequencesOptions, drawn, main, play


def only(monkeypatch: pytest.MonkeyPatch, *events: Event) -> None:
    monkeypatch.setattr(sequences, "drawn", lambda _: events)


def test_without_a_fault_the_cell_grasps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only(monkeypatch)
    done = play(0, 0, tmp_path)
    assert (done.outcome, done.wrong, done.still_s) == ("grasped", "", None)


@pytest.mark.parametrize("fault", range(len(FAULTS)), ids=[f.name for f in FAULTS])
def test_every_fault_alone_keeps_the_invariants(
    fault: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only(monkeypatch, Event(fault, 0.6, float("inf")))
    done = play(1, 0, tmp_path)
    assert done.wrong == "", done
    if FAULTS[fault].stops:
        assert done.outcome == "stopped"


def test_an_arm_that_lags_behind_stands_in_time_when_its_packets_repeat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At 60 % speed it is behind its set-points, and went on to the last of them for 116 ms."""
    names = [fault.name for fault in FAULTS]
    slow, again = names.index("slider at 60 %"), names.index("packets repeat")
    only(monkeypatch, Event(slow, 1.139, float("inf")), Event(again, 2.324, float("inf")))
    done = play(1, 0, tmp_path)
    assert done.wrong == "" and done.still_s < 0.06, done


def test_a_stop_that_does_nothing_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A controller whose protective stop lets the arm run on."""
    from sim.hardware.ur.controller import EmulatedController

    def lame(self: EmulatedController, why: str = "") -> None:
        self.safety = "protective_stop"

    monkeypatch.setattr(EmulatedController, "protective_stop", lame)
    monkeypatch.setattr("rt.robot.ur.stream.safety_fault", lambda _: None)
    only(monkeypatch, Event(0, 0.6, float("inf")))
    assert "moved for" in play(1, 0, tmp_path).wrong


def test_sequences_are_drawn_from_the_seed_alone() -> None:
    one, two = (drawn(np.random.default_rng([0, 5])) for _ in range(2))
    assert one == two and 1 <= len(one) <= 3
    assert all(0.1 <= e.begins_s <= 5.0 and e.lasts_s > 0 for e in one)


def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    assert main(["--sequences", "2", "--out", str(tmp_path)]) == 0
    said = json.loads((tmp_path / "sequences.json").read_text())
    assert said["sequences"] == 2 and said["broken"] == 0 and sum(said["faults"].values()) >= 2
    with pytest.raises(ValueError, match="1 or more"):
        SequencesOptions(sequences=0)


def test_a_fault_before_the_first_cycle_is_in_the_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The gripper is still opening."""
    names = [f.name for f in FAULTS]
    only(monkeypatch, Event(names.index("safety fault"), 0.13, float("inf")))
    done = play(0, 0, tmp_path)
    assert (done.outcome, done.wrong) == ("stopped", "")
