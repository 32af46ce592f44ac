"""train.fit as its users run it: it learns, stops and goes on exactly, and refuses what it cannot do."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic import make_dataset

import train.fit
from sim.dataset.store import open_split
from train.batches import Batches
from train.checkpoint import FitError, load_checkpoint
from train.fit import FitOptions, main, total_steps, train_step
from train.network import DistanceNetwork
from train.presets import PRESETS, learning_rate, make_optimizer

SMALL = ("--batch", "8", "--offsets-per-image", "4", "--threads", "1", "--validation-images", "8")


def fit(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command within this process: what it prints and its exit code (an import of torch less)."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as exit_:  # a mistake that the parser found
            code = int(exit_.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training keeps what it has freed for as long as its process lives, which here is that of all tests."""
    monkeypatch.setattr(train.fit, "keep_freed_memory", lambda: True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit") / "set"
    make_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "straight"
    done = fit(data, "--out", out, "--steps", 12, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout and "best constant" in done.stdout
    return out


def test_a_run_writes_checkpoint_record_plot_and_curves(straight: Path) -> None:
    record = json.loads((straight / "fit.json").read_text())
    assert record["steps"] == 12 and record["images_seen"] == 96 and record["samples_seen"] == 384
    assert record["images_per_s"] > 0 and record["machine"]["torch"] == torch.__version__
    v = record["validation"]
    assert sum(b["samples"] for b in v["all"]["bins"]) == v["images"] * v["offsets_per_image"]
    mean = np.average(
        [b["mean_absolute_error_m"] for b in v["all"]["bins"]],
        weights=[b["samples"] for b in v["all"]["bins"]],
    )
    assert mean == pytest.approx(v["all"]["mean_absolute_error_m"], rel=1e-4)
    assert len(record["curve"]) == 12
    assert (straight / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert any((straight / "tensorboard").iterdir())


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    straight: Path, data: Path, tmp_path: Path
) -> None:
    """SIGTERM, then --resume: the same weights, bit for bit, and the same curve."""
    out = tmp_path / "stopped"
    arguments = [str(data), "--out", str(out), "--steps", "12", *SMALL]
    arguments += ["--checkpoint-minutes", "1e-6"]  # a checkpoint after every step
    command = [sys.executable, "-m", "train.fit", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        deadline = time.monotonic() + 120
        while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        p.send_signal(signal.SIGTERM)
        _, errors = p.communicate(timeout=120)
    assert p.returncode == 128 + signal.SIGTERM, errors
    stopped_at = load_checkpoint(out / "checkpoint.pt")["step"]
    assert 0 < stopped_at < 12 and "--resume" in errors

    refused = fit(data, "--out", out, "--steps", 12, *SMALL)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    other = fit(data, "--out", out, "--steps", 12, *SMALL, "--resume", "--seed", 1)
    assert other.returncode == 2 and "seed: was 0, now 1" in other.stderr

    done = fit(data, "--out", out, "--steps", 12, *SMALL, "--resume")
    assert done.returncode == 0, done.stderr
    a, b = (load_checkpoint(folder / "checkpoint.pt") for folder in (straight, out))
    assert a["step"] == b["step"] == 12 and a["curve"] == b["curve"]
    for name, weight in a["network"].items():
        assert torch.equal(weight, b["network"][name]), name


def test_batches_made_on_the_device_are_part_of_what_a_run_is(data: Path, tmp_path: Path) -> None:
    """They train, they resume to the same weights, and another way of making them is another run."""
    options = (data, *SMALL, "--batches", "device")
    for name in ("a", "b"):
        done = fit(*options, "--out", tmp_path / name, "--steps", 4)
        assert done.returncode == 0, done.stderr
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("a", "b"))
    assert a["run"]["batches"] == "device"
    for name, weight in a["network"].items():
        assert torch.equal(weight, b["network"][name]), name
    other = fit(data, *SMALL, "--out", tmp_path / "a", "--steps", 4, "--resume")
    assert other.returncode == 2 and "batches: was 'device', now 'host'" in other.stderr
    del b["run"]["batches"]  # as in checkpoints from before there was a choice
    b["run"]["steps"] = 5
    torch.save(b, tmp_path / "b/checkpoint.pt")
    done = fit(data, *SMALL, "--out", tmp_path / "b", "--steps", 5, "--resume")
    assert done.returncode == 0, done.stderr


def test_minutes_are_kept_and_the_rate_ends_at_zero(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on 50 ms whenever it is read: 3 s are some 60 steps on any machine."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: 0.05 * next(ticks))
    monkeypatch.setattr(train.fit, "time", clock)
    done = fit(data, "--out", tmp_path, "--minutes", 0.05, *SMALL)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "fit.json").read_text())
    assert 3.0 <= record["training_s"] < 3.1 and 50 <= record["steps"] <= 60
    rates = [p["rate"] for p in record["curve"]]
    assert rates[-1] < 0.01 * max(rates) and max(rates) > 0.9 * PRESETS["modern"].rate


def test_training_learns_what_it_is_shown(data: Path) -> None:
    """Steps on one batch bring its loss well under that of the best constant."""
    torch.manual_seed(0)
    network = DistanceNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    preset = PRESETS["modern"]
    optimizer = make_optimizer(network, preset)
    batch = Batches(open_split(data, "train"), 16, 8, seed=0)(0)
    constant = float((batch.distance - batch.distance.median()).abs().mean())
    losses = [train_step(network, optimizer, batch, clip=preset.clip) for _ in range(40)]
    assert min(losses) < 0.5 * constant


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(data: Path) -> None:
    network = DistanceNetwork()
    optimizer = make_optimizer(network, PRESETS["modern"])
    batch = Batches(open_split(data, "train"), 4, 2, seed=0)(0)
    batch.depth[0, 0, 0] = math.nan
    before = {name: p.clone() for name, p in network.named_parameters()}
    with pytest.raises(FitError, match="not finite"):
        train_step(network, optimizer, batch)
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]), name


def test_the_papers_preset() -> None:
    paper = FitOptions(data=Path(), preset="paper").resolved()
    assert paper.batch * paper.offsets_per_image == 1000 and paper.offsets == "fixed"
    assert [learning_rate(paper, f) for f in (0.0, 0.5, 1.0)] == [0.001] * 3
    optimizer = make_optimizer(DistanceNetwork(), paper)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    options = FitOptions(data=Path(), preset="paper", rate=0.01)
    assert options.resolved().rate == 0.01
    assert total_steps(options, paper, steps_per_epoch=100) == 900_000
    assert total_steps(replace(options, epochs=2), paper, steps_per_epoch=100) == 200


def test_the_modern_rate_warms_up_and_anneals() -> None:
    rates = [learning_rate(PRESETS["modern"], f) for f in np.linspace(0, 1, 201)]
    top = int(np.argmax(rates))
    assert 0 < rates[0] < 0.1 * rates[top] and rates[top] == pytest.approx(PRESETS["modern"].rate)
    assert all(np.diff(rates[:top]) > 0) and all(np.diff(rates[top:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "5", "--minutes", "1"), "one length only"),
        (("--steps", "0"), "--steps 0"),
        (("--rate", "nan"), "--rate nan"),
        (("--resume",), "--out"),
        (("--uniform-share", "2"), "uniform share"),
        (("--colour", "red"), "colour"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    data: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = fit(data, *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr + done.stdout and "Traceback" not in done.stderr


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    done = fit(tmp_path)
    assert done.returncode == 2 and "not a dataset" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    make_dataset(tmp_path / "set", test_scenes=0)
    done = fit(tmp_path / "set", "--out", tmp_path / "out")
    assert done.returncode == 2 and "no test scenes" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(FitError, match="not a checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(FitError, match="train again"):
        load_checkpoint(path)
    with pytest.raises(FitError, match="no checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pt")


def test_a_run_begins_from_anothers_weights(straight: Path, data: Path, tmp_path: Path) -> None:
    """At a rate of nothing the weights stay what they were; the record says whose they are."""
    parent = straight / "checkpoint.pt"
    out = tmp_path / "run"
    assert (
        fit(data, "--out", out, "--steps", 1, "--rate", 1e-12, "--init", parent, *SMALL).returncode
        == 0
    )
    child, before = (load_checkpoint(p)["network"] for p in (out / "checkpoint.pt", parent))
    for name, weight in before.items():
        torch.testing.assert_close(child[name], weight, atol=1e-6, rtol=0)
    record = json.loads((out / "fit.json").read_text())
    assert record["init"] == {"data_id": record["data_id"], "steps": 12, "images_seen": 96}
    other = fit(data, "--steps", 1, "--init", parent, "--action-encoding", "raw", *SMALL)
    assert other.returncode == 2 and "action_encoding" in other.stderr
