"""rt.replay: the recorded model gives the recorded distances again; another one differs, and where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import write_random_model
from flights import cycle, header

from rt.distance import DEFAULT_MODEL, open_model
from rt.record.recorder import Recorder, RecordError, read_record
from rt.replay import (
    ReplayOptions,
    compare,
    flight,
    recorded,
    recorded_model,
    replay,
    scorable,
    score,
)

CYCLES = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flight with the shipped network; cycle 4 has no frame and is held."""
    path = tmp_path_factory.mktemp("flight") / "flight.mcap"
    distance = open_model(backend="reference")
    with Recorder(path, header(distance)) as recorder:
        for k in range(CYCLES):
            fields = cycle(k, distance)
            fields["stamp_ns"] = k * 33_000_000
            fields["held"] = int(k >= 4)
            if k == 4:
                for name in ("view", "candidates", "distances", "frame"):
                    del fields[name]
                fields |= {"guard_name": "frame_age", "guard_action": "hold"}
            recorder.put(**fields, true_m=0.05)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rt.replay", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_recorded_model_gives_the_recorded_distances(made: Path, tmp_path: Path) -> None:
    done = run(made, "--backend", "onnx", "--tolerance-mm", "0.1", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "replay.json").read_text())
    difference = result["difference"]
    assert difference["views"] == CYCLES - 1 and difference["choices_changed"] == 0
    assert 0 < difference["max_mm"] < 1e-3
    assert result["flight"]["guard"] == {"frame_age": 1} and result["flight"]["held"] == 1
    assert result["flight"]["rate_hz"] == pytest.approx(1 / 0.033)
    assert result["flight"]["stages"]["view"]["p50_ms"] == 2.0
    assert matplotlib.image.imread(tmp_path / "replay.png").shape[2] == 4
    assert "frame_age" in done.stdout and f"0 of {CYCLES - 1}" in done.stdout


def test_two_models_are_compared_and_the_tolerance_judges(
    made: Path, model_file: Path, tmp_path: Path
) -> None:
    done = run(made, "--against", model_file, "--tolerance-mm", "0.1", "--out", tmp_path)
    assert done.returncode == 1 and "the tolerance is 0.1 mm" in done.stderr
    result = json.loads((tmp_path / "replay.json").read_text())
    assert result["difference"]["max_mm"] > 0.1
    assert (
        set(result["error_of_staying_mm"])
        == {
            f"{DEFAULT_MODEL.name} (native)",
            f"{model_file.name} (native)",
        }
        or open_model().backend != "native"
    )


def test_a_difference_is_found_where_it_is(made: Path) -> None:
    record = read_record(made)
    rows = scorable(record)
    assert rows.tolist() == [k for k in range(CYCLES) if k != 4]
    a = recorded(record, rows)
    b = [d.copy() for d in a]
    best = int(np.argmin(b[6]))
    b[6][best] += 0.5  # another candidate is now the best
    found = compare(record, rows, a, b, ("a", "b"))
    summary = found.summary(record)
    assert summary["max_at_cycle"] == 7 and summary["max_mm"] == pytest.approx(500)
    assert summary["choices_changed_at_cycles"] == [7] and summary["median_mm"] == 0
    second = int(np.argmin(b[6]))
    way = record.cycles["candidates"][7][best] - record.cycles["candidates"][7][second]
    expected = np.hypot(np.hypot(way[0], way[1]), np.degrees(way[2]) * 0.001)
    assert summary["choice_moved_median_mm"] == pytest.approx(1e3 * expected, rel=1e-5)


def test_views_are_weighed_as_they_were_looked_at(made: Path) -> None:
    record = read_record(made)
    rows = scorable(record, every=4)
    distance = open_model()
    record.cycles["symmetry"][rows] = 3
    for row, turned in zip(rows, score(record, rows, distance), strict=True):
        view, actions = record.cycles["view"][row], record.cycles["candidates"][row]
        mirrored = np.ascontiguousarray(view[::-1, ::-1]), actions * np.float32([-1, -1, 1])
        assert np.abs(turned - distance(*mirrored)).max() < 1e-6
        assert np.abs(turned - distance(view, actions)).max() > 1e-3


def test_the_recorded_model_is_found_by_its_weights(made: Path, model_file: Path) -> None:
    record = read_record(made)
    record.header["model"]["path"] = "/nowhere/else.onnx"
    assert recorded_model(record) == DEFAULT_MODEL
    # A file of that name with other weights is not the recorded model.
    record.header["model"]["path"] = str(model_file)
    assert recorded_model(record) == DEFAULT_MODEL
    record.header["model"]["weights_sha256"] = "0" * 64
    with pytest.raises(RecordError, match="no longer there; give one with --model"):
        recorded_model(record)


def test_a_flight_without_views_is_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    with Recorder(path, header()) as recorder:
        recorder.put(cycle=0, stamp_ns=0, missed=0, held=1, guard_name="state_age")
    result, difference = replay(ReplayOptions(path), read_record(path))
    assert difference is None and result["difference"] is None
    assert flight(read_record(path))["rate_hz"] is None


def test_another_weights_file_scores_differently(made: Path, tmp_path: Path) -> None:
    other = write_random_model(tmp_path / "other.onnx", seed=5)
    record = read_record(made)
    result, difference = replay(ReplayOptions(made, model=other), record)
    assert difference is not None and result["difference"]["max_mm"] > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.mcap"], "missing.mcap: No such file"),
        ([__file__], "is no flight record"),
        (["missing.mcap", "--every", "0"], "every = 0 must be 1 or more"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode in (1, 2) and said in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
