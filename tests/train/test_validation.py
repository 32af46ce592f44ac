"""train.validation: errors that add up, by category and sensor, from a model file and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_dataset

from rt.hand import load_hand
from sim.dataset.store import DatasetError, Split, open_split
from train.calibration import Answers
from train.graspable import graspable_report
from train.offsets import nearest_grasp, uniform_offsets
from train.validation import (
    OFFSETS,
    ValidationOptions,
    draw_validation_set,
    full_report,
    quick_errors,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test scenes whose grasps hold objects of three categories, seen by two sensors."""
    folder = tmp_path_factory.mktemp("validation") / "set"
    make_dataset(folder, train_scenes=1, test_scenes=4)
    file = folder / "test-00000/shard.json"
    about = json.loads(file.read_text())
    about["objects"] = [["mug/3"], ["meshes/wrench"], ["meshes/tools/a"], ["mug/5"]]
    about["sensors"] = ["ideal", "d405", "d405", "ideal"]
    file.write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def test(data: Path) -> Split:
    return open_split(data, "test")


def test_a_perfect_network_has_no_error_and_chooses_the_best(test: Split) -> None:
    def predict(depth: np.ndarray, actions: np.ndarray) -> np.ndarray:
        images = np.array([all_depths[d.tobytes()] for d in depth])
        return nearest_grasp(test, images, actions)[0]

    all_depths = {d.tobytes(): i for i, d in enumerate(test.depth_m(np.arange(len(test))))}
    report, true, predicted = full_report(predict, test, 16, seed=0)
    np.testing.assert_array_equal(true, predicted)
    assert report["all"]["mean_absolute_error_m"] == report["near"]["mean_absolute_error_m"] == 0
    choice = report["choice"]
    assert choice["chosen_median_m"] == choice["best_median_m"] < choice["start_median_m"]


def test_parts_of_a_report_add_up_to_its_whole(test: Split) -> None:
    report, true, predicted = full_report(lambda _, a: np.abs(a[..., 0]), test, 16, seed=0)
    assert report["images"] == 16 and report["scenes"] == 4
    for kind, part in (("all", np.s_[:, :OFFSETS]), ("near", np.s_[:, OFFSETS:])):
        error = float(np.abs(predicted - true)[part].mean())
        assert report[kind]["mean_absolute_error_m"] == pytest.approx(error)
        groups = (report[kind]["categories"], report[kind]["sensors"])
        for parts in (report[kind]["bins"], *(group.values() for group in groups)):
            samples = [p["samples"] for p in parts]
            assert sum(samples) == 16 * OFFSETS
            mean = np.average([p["mean_absolute_error_m"] for p in parts], weights=samples)
            assert mean == pytest.approx(error, rel=1e-5)
        assert set(report[kind]["categories"]) == {"mug", "meshes", "tools"}
        assert report[kind]["categories"]["mug"]["samples"] == 8 * OFFSETS
        assert report[kind]["sensors"].keys() == {"ideal", "d405"}
    assert sum(c["images"] for c in report["choice"]["categories"].values()) == 16


def test_quick_errors_are_those_of_the_full_report(test: Split) -> None:
    def predict(_: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return np.hypot(actions[..., 0], actions[..., 1])

    quick = quick_errors(predict, draw_validation_set(test, 16, seed=4))
    full, _, _ = full_report(predict, test, 16, seed=4)
    assert quick["all_m"] == pytest.approx(full["all"]["mean_absolute_error_m"])
    assert quick["near_m"] == pytest.approx(full["near"]["mean_absolute_error_m"])


def test_nearest_grasp_names_a_grasp_at_that_distance(test: Split) -> None:
    images = np.array([0, 7, 13])
    actions = uniform_offsets((3, 6), np.random.default_rng(0))
    distance, row = nearest_grasp(test, images, actions)
    for i, image in enumerate(images):
        start, end = test.grasp_start[image // test.views :][:2]
        assert ((row[i] >= start) & (row[i] < end)).all()
        one = Split(**{**vars(test), "grasps": test.grasps.copy()})
        one.grasps[start:end] = test.grasps[row[i, 0]]
        np.testing.assert_allclose(
            nearest_grasp(one, images[i : i + 1], actions[i : i + 1, :1])[0][0], distance[i, 0]
        )


def validation(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, in a process where importing torch fails."""
    code = """
import runpy, sys

class NoTorch:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ImportError("torch is not there")

sys.meta_path.insert(0, NoTorch)
sys.argv[0] = "train.validation"
runpy.run_module("train.validation", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_on_a_fresh_set_without_torch(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (
        "--model",
        model_file,
        "--scenes",
        2,
        "--views",
        2,
        "--seed",
        3,
        "--threads",
        1,
        "--object-scenes",
        4,
    )
    done = validation(*options, "--sensors", "ideal", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "near offsets" in done.stdout and "one choice among" in done.stdout
    record = json.loads((out / "validation.json").read_text())
    assert record["fresh"] and record["validation"]["images"] == 4
    assert record["data_params"]["seed"] == 3 and record["data_params"]["test_scenes"] == 2
    assert (out / "validation.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_validated_is_refused_in_one_line(
    data: Path, model_file: Path, tmp_path: Path
) -> None:
    for arguments, message in (
        (("--model", tmp_path / "no.onnx", "--data", data), "no model file"),
        (("--model", model_file, "--data", tmp_path), "not a dataset"),
    ):
        done = validation(*arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    with pytest.raises(DatasetError, match="--scenes 0 must be 1 or more"):
        ValidationOptions(scenes=0)


def test_what_a_network_says_of_itself_is_judged(test: Split) -> None:
    """A network with all three answers, from the truth: its spread holds, its probability is right."""
    depths = {d.tobytes(): i for i, d in enumerate(test.depth_m(np.arange(len(test))))}

    def predict(depth: np.ndarray, actions: np.ndarray) -> Answers:
        true = nearest_grasp(test, np.array([depths[d.tobytes()] for d in depth]), actions)[0]
        near = (true < 0.015).astype(np.float32)
        return Answers(true + np.float32(0.001), near, np.full_like(true, 0.002))

    report, _, _ = full_report(predict, test, 16, seed=0)
    assert report["spread"]["held"] == 1 and report["probability"]["calibration_error"] == 0
    for kind in ("all", "near"):
        assert sum(row["samples"] for row in report[kind]["heights"]) == 16 * OFFSETS
        assert report[kind]["bias_m"] == pytest.approx(0.001, rel=1e-3)


def test_objects_are_told_apart_by_the_least_distance_over_them() -> None:
    """Asked of every object over its own pixels: an oracle by the scene's own grasps separates perfectly."""
    asked: list[np.ndarray] = []

    def ask(view: np.ndarray, actions: np.ndarray) -> Answers:
        asked.append(actions)
        return Answers(np.full(len(actions), 0.01 * len(asked), np.float32))

    report = graspable_report(ask, load_hand(), scenes=2, seed=0)
    assert report["objects"] * len(report["heights"]) == len(asked)
    assert [row["height_m"] for row in report["heights"]] == [0.20, 0.30]
    for actions in asked:
        assert len(actions) % 12 == 0 and np.abs(actions[:, :2]).max() < 0.25
        assert len(np.unique(actions[:, 2])) == 12
