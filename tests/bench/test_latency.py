"""bench.latency: the command end to end, quickly; budgets; the load and the bare loop."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.latency import callgrind, inference
from bench.latency.budgets import BudgetError, check, read_budgets
from bench.latency.command import LatencyOptions, prepared
from bench.latency.cycle import background_load, bare_loop
from rt.distance.contract import read_model
from rt.distance.native import pack
from rt.native import native

BUDGETS = Path(__file__).parents[2] / "bench/latency/budgets.toml"
KEYS = {"backend", "candidates", "threads", "p50_ms", "p99_ms", "p999_ms", "max_ms"}


def latency(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.latency", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_command_end_to_end(model_file, tmp_path):
    fast = ["native"] if native is not None else []
    done = latency(
        *("--quick", "--model", model_file, "--out", tmp_path / "run"),
        *("--backends", "reference", "onnx", *fast, "--candidates", 1, 256),
        *("--cycles", 6, "--load", 0, 1, "--cycle-candidates", 32, "--rate", 10),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/latency.json").read_text())
    assert (tmp_path / "run/latency.png").read_bytes().startswith(b"\x89PNG")
    assert {(e["backend"], e["candidates"]) for e in result["inference"]} >= {
        ("reference", 1),
        ("onnx", 256),
        *((name, 256) for name in fast),
    }
    for entry in result["inference"]:
        assert set(entry) >= KEYS
        assert 0 < entry["p50_ms"] <= entry["p99_ms"] <= entry["p999_ms"] <= entry["max_ms"]
        assert entry["max_abs_error_m"] <= 1e-5
        assert ("stages_ms" in entry) == entry["backend"].startswith("native")
    assert [c["load"] for c in result["cycle"]] == [0, 1]
    for cycle in result["cycle"]:
        assert cycle["cycles"] + cycle["held"] >= 6
        assert set(cycle["stages"]) >= {"camera", "view", "distance", "control"}
        assert cycle["latency"]["count"] > 0 and cycle["bare_wake_up"]["count"] > 0
    assert result["machine"]["threads"] == len(os.sched_getaffinity(0))
    assert all(name in done.stdout for name in fast) and "bare loop woken late" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--backends", "abacus"), "abacus: only reference, tiled, onnx"),
        (("--candidates", 0), "--candidates"),
        (("--seconds", 0), "--seconds"),
        (("--model", "/nowhere.onnx"), "no model file /nowhere.onnx"),
        (("--check", "/nowhere.toml"), "/nowhere.toml"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, says, tmp_path):
    done = latency(*arguments, "--out", tmp_path / "run")
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_defaults_of_this_machine():
    prepare = LatencyOptions(load=(), check=Path("budgets.toml"), quick=True)
    options = prepared(prepare)
    cores = len(os.sched_getaffinity(0))
    assert options.load == (0, cores) and options.threads == tuple(sorted({1, cores}))
    assert options.check == BUDGETS and options.cycles == 20 and len(options.candidates) == 3


def measured() -> dict:
    """A result that keeps every budget that ships."""

    def entry(backend, candidates, p50_ms, error=1e-7):
        return {
            "backend": backend,
            "candidates": candidates,
            "threads": 2,
            "p50_ms": p50_ms,
            "max_abs_error_m": error,
        }

    return {
        "machine": {"threads": 2},
        "inference": [
            entry("native", 1024, 2.0),
            entry("native", 4096, 5.0),
            entry("native", inference.FULL_MAP, 80.0),
            entry("native-half", 1024, 2.0, 1e-5),
            entry("onnx", 1024, 40.0),
            entry("tiled", 1024, 400.0),
            entry("field-native", 1024, 1.1),
            entry("field-native", inference.FULL_MAP, 5.0),
            entry("field-onnx", 1024, 1.8),
        ],
        "cycle": [{"load": 0, "missed_share": 0.0, "latency": {"p99_ms": 5.0}}],
    }


def test_the_shipped_budgets():
    budgets = read_budgets(BUDGETS)
    verdicts = check(measured(), budgets)
    assert len(verdicts) == 14 and all(v["kept"] for v in verdicts)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda r: r["inference"][0].update(p50_ms=2.6), ["p50 in ms"]),
        (lambda r: r["inference"][4].update(p50_ms=29.0), ["faster than onnx"]),
        (lambda r: r["inference"][3].update(max_abs_error_m=2e-3), ["native-half: error"]),
        (lambda r: r["inference"][1].update(p50_ms=float("nan")), ["each candidate"]),
        (lambda r: r["inference"].pop(5), ["faster than tiled"]),  # not measured
        (lambda r: r.update(cycle=[]), ["missed_share", "p99_ms"]),
        (lambda r: r["cycle"][0]["latency"].update(p99_ms=None), ["p99_ms"]),
    ],
)
def test_a_broken_or_unmeasured_budget_is_named(change, broken):
    result = copy.deepcopy(measured())
    change(result)
    names = [v["budget"] for v in check(result, read_budgets(BUDGETS)) if not v["kept"]]
    assert len(names) == len(broken)
    assert all(b in n for b, n in zip(broken, names, strict=True))


def test_a_broken_budget_ends_the_command_with_1(model_file, tmp_path):
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('[[error]]\nbackend = "onnx"\nat_most_m = 1e-12\n')
    done = latency(
        *("--quick", "--model", model_file, "--out", tmp_path / "run", "--check", budgets),
        *("--backends", "onnx", "--candidates", 4, "--cycles", 0, "--threads", 1),
    )
    assert done.returncode == 1 and "broken: onnx: error" in done.stdout
    assert json.loads((tmp_path / "run/latency.json").read_text())["check"][0]["kept"] is False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[ration]]\nfast = 1\n", "unknown .*ration"),
        ('[[error]]\nbackend = "native"\n', "needs at_most_m, backend"),
        ("[[error\n", "budgets.toml"),
    ],
)
def test_a_budget_file_that_says_something_else_is_refused(tmp_path, text, says):
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    with pytest.raises(BudgetError, match=says):
        read_budgets(path)


def test_the_full_map_covers_the_view():
    actions = inference.some_actions(inference.FULL_MAP, np.random.default_rng(0))
    assert actions.shape == (73728, 3) and len(np.unique(actions, axis=0)) == 73728
    assert np.abs(actions[:, :2]).max() < 0.2 and np.ptp(actions[:, 2]) < np.pi


def test_the_bare_loop_counts_every_wake_up():
    received = []

    class Pipe:
        send = received.append

    bare_loop(500.0, 20, Pipe)
    ((counts, count, _, max_ns),) = received
    assert counts.sum() == count and 1 <= count <= 19 and max_ns > 0


def test_the_load_ends_with_the_block():
    before = _children()
    with background_load(2):
        assert len(_children()) == len(before) + 2
    assert _children() == before


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.skipif(
    shutil.which("valgrind") is None or native is None,
    reason="no valgrind (or no rt._native): apt-get install valgrind g++ python3-dev, then make again",
)
def test_instructions_are_counted(model_file, tmp_path):
    """One run under valgrind; the command takes the difference of two."""
    contract, weights = read_model(model_file)
    rng = np.random.default_rng(0)
    arrays = pack(contract, weights, "float32")
    arrays |= {"depth": inference.view(rng), "actions": inference.some_actions(64, rng)}
    for name, array in arrays.items():
        np.save(tmp_path / name, array)
    count, isa = callgrind._run(str(native.__file__), str(tmp_path), 1)
    # 500 units x 8,450 weights, at most 8 in an instruction; Python and NumPy start in 1e9 or so
    assert 500 * 8450 / 8 < count < 1e11
    assert isa in ("avx2", "sse2", "neon")
