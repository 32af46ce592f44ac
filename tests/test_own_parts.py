"""docs/examples: a controller, a network and a loop of one's own, in the loop, in trials and in workers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from rt.cell.open import open_cell
from rt.cell.options import ServoOptions
from rt.distance import DistanceError, ModelError, open_model
from rt.outcome import Outcome
from rt.record.recorder import read_record
from rt.servo import Servo, run

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))

import loop
import own_network

OPTIONS = ServoOptions(fast=True, candidates=64, iterations=20)


@pytest.fixture(scope="module")
def highest_point(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "highest_point.onnx"
    onnx.save(own_network.highest_point(), path)
    return path


def test_a_network_of_another_architecture_opens(
    highest_point: Path, depth_view: NDArray[np.float32]
) -> None:
    distance = open_model(highest_point)
    assert distance.backend == "onnx" and distance.contract.architecture == "highest-point"
    actions = np.zeros((3, 3), np.float32)
    actions[1:, 0] = (0.03, 0.06)
    found = distance(depth_view, actions)
    assert found.shape == (3,) and np.isfinite(found).all()
    assert abs(found[1] - found[0]) <= 0.03 + 1e-6
    with pytest.raises(DistanceError, match="use backend 'onnx'"):
        open_model(highest_point, "reference")


def test_it_flies(highest_point: Path) -> None:
    """The hand goes over the highest point, whatever a grasp there is worth."""
    with open_cell("twin", seed=2) as cell:
        report = run(OPTIONS, cell, open_model(highest_point), 64)
    assert report.outcome is Outcome.ARRIVED, report.text
    predicted = [entry["predicted_m"] for entry in report.trace]
    assert predicted[-1] < 0.5 * predicted[0]


@pytest.mark.parametrize("name", ["own_controller:Mean", "rt.controller:Ensemble"])
def test_an_own_controller_flies(name: str, highest_point: Path) -> None:
    with open_cell("twin", seed=2) as cell:
        report = run(replace(OPTIONS, controller=name), cell, open_model(highest_point), 64)
    assert report.outcome is Outcome.ARRIVED, report.text
    assert report.trace[-1]["predicted_m"] < 0.5 * report.trace[0]["predicted_m"]


def test_trials_take_an_own_controller_and_network_to_their_workers(highest_point: Path) -> None:
    from sim import TrialsOptions, run_trials

    options = TrialsOptions(
        trials=2,
        controller="own_controller:Mean",
        against=("paper",),
        model=str(highest_point),
        candidates=16,
        iterations=3,
        workers=2,
    )
    report = run_trials(options)
    assert len(report["trials"]) == 2 and "CTR_paper" in report["scenarios"]
    assert report["config"]["controller"] == "own_controller:Mean"


def test_a_network_made_by_a_function_opens(depth_view: NDArray[np.float32]) -> None:
    distance = open_model(f"{__name__}:constant")
    assert (distance(depth_view, np.zeros((5, 3), np.float32)) == 0.25).all()
    with pytest.raises(ModelError, match="has no contract"):
        open_model(f"{__name__}:bare")
    with pytest.raises(DistanceError, match="cannot be imported"):
        open_model("no_such_module:network")


class Constant:
    contract = open_model().contract

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return np.full(len(actions), 0.25, np.float32)


def constant() -> Constant:
    return Constant()


def bare() -> object:
    return object()


def test_the_loop_of_the_example_flies_and_is_recorded(tmp_path: Path) -> None:
    outcome = loop.approach("twin", tmp_path / "flight.mcap", fast=True)
    assert outcome in (Outcome.ARRIVED, Outcome.STOPPED)
    flight = read_record(tmp_path / "flight.mcap")
    assert flight.whole and flight.cycles["phase"][-1] == b"end"
    assert np.isfinite(flight.cycles["command"][1:-1]).all()


def test_steps_tell_phase_hand_and_decision_and_leaving_stops_the_arm(highest_point: Path) -> None:
    with open_cell("twin", seed=2) as cell:
        stopped = []
        usual = cell.robot.stop
        cell.robot.stop = lambda: (stopped.append(True), usual())[1]  # type: ignore[method-assign]
        with Servo(cell, open_model(highest_point), OPTIONS, candidates=64) as servo:
            steps = []
            for step in servo:
                steps.append(step)
                if len(steps) == 8:
                    break
            assert not stopped
        assert stopped
    assert {step.phase for step in steps} == {"approach"}
    assert [step.number for step in steps] == sorted({step.number for step in steps})
    decisions = [step.decision for step in steps]
    assert all(d is not None and d.distances.shape == (len(d.actions),) for d in decisions)
    assert np.linalg.norm(steps[-1].hand - steps[0].hand) > 0
    assert servo.outcome is Outcome.STOPPED and servo.reason == "left before its end"
    with pytest.raises(RuntimeError, match="has run already"):
        next(iter(servo))


def test_an_error_in_the_body_stops_the_arm(highest_point: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        open_cell("twin", seed=2) as cell,
        Servo(cell, open_model(highest_point), OPTIONS, candidates=64) as servo,
    ):
        for step in servo:
            step.number / 0
    state = cell.robot.state()
    assert servo.outcome is Outcome.STOPPED and np.abs(state.twist).max() < 0.5


def test_a_body_that_takes_too_long_is_stopped_by_the_guard(highest_point: Path) -> None:
    import time

    options = replace(OPTIONS, fast=False, iterations=200)
    with (
        open_cell("twin", seed=2) as cell,
        Servo(cell, open_model(highest_point), options, candidates=16) as servo,
    ):
        for _ in servo:
            time.sleep(0.15)
    assert servo.outcome is Outcome.STOPPED
    assert "missed_deadlines" in servo.reason or "target_age" in servo.reason
