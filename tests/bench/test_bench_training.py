"""bench.training measures both ways on the same set and writes what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import make_dataset

import bench.training
from bench.training import TrainingBenchOptions, measure, run
from sim.dataset.store import DatasetError, open_split


@pytest.fixture(autouse=True)
def memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training keeps what it has freed for as long as its process lives, which here is that of all tests."""
    monkeypatch.setattr(bench.training, "keep_freed_memory", lambda: True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "set"
    make_dataset(folder)
    return folder


def test_rates_belong_together(data: Path) -> None:
    rates = measure(open_split(data, "train"), rounds=1, round_s=0.1, threads=1)
    assert rates.samples_per_s == pytest.approx(rates.images_per_s * rates.offsets_per_image)
    assert rates.ratio == pytest.approx(rates.samples_per_s / rates.plain_samples_per_s)
    assert rates.plain_samples_per_s > 0 and rates.threads == 1


def test_the_command_prints_a_table_and_writes_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TrainingBenchOptions(data=data, rounds=1, round_s=0.1, threads=1, out=tmp_path)
    assert run(options) == 0
    assert "ratio" in capsys.readouterr().out
    assert json.loads((tmp_path / "training.json").read_text())["ratio"] > 0
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(DatasetError, match="--rounds 0"):
        TrainingBenchOptions(rounds=0)
