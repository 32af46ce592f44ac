"""Fixtures for everybody: a small-world model file with random weights, in both encodings."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

import rt.tools.clock
from rt.distance.contract import ENCODED, Contract
from rt.distance.field_shapes import FIELD_WEIGHTS, field_shapes
from rt.distance.graph import write_model
from rt.hand import load_hand

rt.tools.clock.MEMORY_LOCK |= (
    4  # MCL_ONFAULT: not the gigabytes that all the tests' imports could touch
)

settings.register_profile("random", derandomize=False)
settings.register_profile("same", derandomize=True)
settings.load_profile("same")  # new examples: pytest --hypothesis-profile random

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets its background jobs ignore SIGINT, and they their children; the tests interrupt both.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = (
    "test_cell_end_to_end", "test_faults", "test_trials", "test_page_browser", "test_page_process",
    "test_generate", "test_engines", "test_team", "test_servo", "test_calib_handeye", "test_target_camera",
    "test_throughput",
)  # fmt: skip
"""Begun first, so that where files are shared out no processor waits for the last of them."""

SLOW = (
    *LONG,
    "test_bench_training", "test_calib_outliers", "test_calib_scene", "test_calib_targets", "test_catalogue",
    "test_clear", "test_clear_emulated", "test_compare", "test_convergence", "test_device_batches",
    "test_emulator", "test_endless", "test_export", "test_fit", "test_gpd", "test_job_faults",
    "test_label_check", "test_latency", "test_lifts",
    "test_look", "test_merge", "test_meshes", "test_packaging", "test_physics", "test_realsense",
    "test_realsense_emulated", "test_record", "test_replay", "test_sequences", "test_show", "test_table",
    "test_twin", "test_ur", "test_ur_stream", "test_validation", "test_verify",
)  # fmt: skip
"""Files that `make check` leaves out, by their names alone wherever they lie: those that take longer than a
few seconds, most of them because they run whole commands. `pytest --durations=30` shows candidates."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell in the last lines what was skipped, for want of what, and the remedy."""
    if line := skipped_line(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, yellow=True)


def skipped_line(reports: Sequence[pytest.TestReport | pytest.CollectReport]) -> str:
    """One line for all skips, grouped by reason; empty if there is none."""
    reasons: Counter[str] = Counter()
    for report in reports:
        _, _, text = report.longrepr  # type: ignore[misc]
        whole_file = isinstance(report, pytest.CollectReport)
        reasons[text.removeprefix("Skipped: ") + (" [whole file]" if whole_file else "")] += 1
    parts = [f"{count} x {reason}" for reason, count in reasons.most_common()]
    return "skipped: " + "; ".join(parts) if parts else ""


def random_weights(encoding: str, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights of a sensible scale: fan-in normal, actions of centimetres move every channel."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, fan_in: int) -> NDArray[np.float32]:
        return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)

    conv2 = normal(50, 20, 5, 5, fan_in=500)
    # x, y in centimetres weigh about as much as cos and sin of the angle
    action = normal(20, ENCODED[encoding], fan_in=ENCODED[encoding])
    action[:, :2] *= 20
    return {
        "conv1.weight": 5 * normal(20, 1, 5, 5, fan_in=25),
        "conv1.bias": normal(20, fan_in=1) / 4,
        "action.weight": action,
        "action.bias": normal(20, fan_in=1) / 4,
        "conv2.weight": conv2,
        "conv2.bias": normal(50, fan_in=1) / 4,
        "conv2.weight_sum": conv2.sum(axis=(2, 3), dtype=np.float64).astype(np.float32),
        "fc1.weight": normal(500, 8450, fan_in=8450),
        "fc1.bias": normal(500, fan_in=1) / 4,
        "fc2.weight": normal(1, 500, fan_in=500) / 10,
        "fc2.bias": np.array([0.1], np.float32),
    }


def write_random_model(path: Path, encoding: str = "double_angle", seed: int = 0) -> Path:
    """A model file like train.export's, with random weights."""
    contract = Contract(hand=load_hand(), training_set="random", action_encoding=encoding)
    write_model(path, contract, random_weights(encoding, seed))
    return path


def random_field_weights(
    seed: int = 0,
    channels: tuple[int, int, int, int, int] = (24, 32, 64, 128, 192),
    features: int = 32,
    hidden: int = 64,
) -> dict[str, NDArray[np.float32]]:
    """Weights of a field network whose distances are centimetres and vary with place and angle."""
    rng = np.random.default_rng(seed)
    widths = dict(zip(("in1", "in2", "down2", "down3", "down4"), channels, strict=True))
    widths |= {"out": features, "head1": hidden}
    shapes = field_shapes({f"{k}.weight": np.empty((w,)) for k, w in widths.items()})
    weights = {}
    for name in FIELD_WEIGHTS:
        shape = shapes[name]
        scale = 0.1 if name.endswith("bias") else np.sqrt(2 / np.prod(shape[1:]))
        weights[name] = (rng.normal(size=shape) * scale).astype(np.float32)
    weights["head3.weight"] *= np.float32(0.1)
    weights["head3.bias"][:] = 0.8, -1.0, -4.0
    return weights


def field_contract(**changes: Any) -> Contract:
    """Of a field network with random weights."""
    values = {"hand": load_hand(), "training_set": "random", "architecture": "field"}
    values |= {"cells": 80, "cell_m": 0.0042} | changes
    return Contract(**values)


@pytest.fixture(scope="session")
def field_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A field network's model file with random weights."""
    path = tmp_path_factory.mktemp("model") / "field.onnx"
    write_model(path, field_contract(), random_field_weights())
    return path


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with random weights and the double-angle encoding."""
    return write_random_model(tmp_path_factory.mktemp("model") / "double_angle.onnx")


@pytest.fixture(scope="session")
def raw_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the raw (x, y, theta) encoding."""
    return write_random_model(tmp_path_factory.mktemp("model") / "raw.onnx", "raw")


@pytest.fixture(scope="session", params=list(ENCODED))
def any_model_file(request: pytest.FixtureRequest, model_file: Path, raw_model_file: Path) -> Path:
    """Both of them, one after the other."""
    return {"double_angle": model_file, "raw": raw_model_file}[request.param]


@pytest.fixture
def depth_view() -> NDArray[np.float32]:
    """A view in metres, (64, 64) float32: a sloping table, a box on it, some holes."""
    rng = np.random.default_rng(3)
    v, u = np.mgrid[0:64, 0:64].astype(np.float32)
    depth = 0.28 + 0.0004 * u - 0.0002 * v
    depth[20:40, 25:45] -= 0.06
    depth += rng.normal(0, 0.0005, depth.shape)
    depth[rng.random(depth.shape) < 0.02] = 0.0
    return depth.astype(np.float32)
