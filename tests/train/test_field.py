"""train.field and its batches: shapes, shifts, look-up, labels, losses, and a run that resumes exactly."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_dataset

import train.fit
import train.nearest
from rt.distance.metric_map import metric_map
from rt.pose import grasp_distance, to_view
from rt.view import VIEW
from sim.dataset.store import Split, open_split
from train.checkpoint import load_checkpoint, network_of
from train.field import FieldNetwork, FieldShape, field_loss, field_predictor, looked_up
from train.field_batches import FieldBatches, FieldDraw, turned
from train.fit import FitError, FitOptions, main
from train.nearest import NearestGrasps

TINY = FieldShape(cells=32, cell_m=0.01, channels=(4, 5, 6, 7, 8), features=3, hidden=8)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(train.fit, "keep_freed_memory", lambda: True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("field") / "set"
    make_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def split(data: Path) -> Split:
    return open_split(data, "train")


def test_shapes_follow_from_the_sizes() -> None:
    torch.manual_seed(0)
    network = FieldNetwork(TINY)
    maps, actions = torch.rand(3, 2, 32, 32), torch.rand(3, 7, 3) * 0.1
    assert network.features(maps).shape == (3, 3, 16, 16)
    assert [t.shape for t in network(maps, actions)] == [(3, 7)] * 3
    said = field_predictor(network, views=2)(np.full((3, 64, 64), 0.2, np.float32), actions.numpy())
    assert said.distance.shape == (3, 7)
    assert said.probability is not None and said.spread is not None
    assert ((said.probability > 0) & (said.probability < 1)).all() and (said.spread > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": 40}, "multiple of 16"),
        ({"cell_m": 0.0}, "cell_m"),
        ({"scale_m": -1.0}, "scale_m"),
        ({"channels": (1, 2, 3)}, "channels"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_features_move_with_the_map_where_no_border_reaches() -> None:
    """A shift by 16 cells, the stride of the coarsest level: bit for bit the same features, 8 further."""
    torch.manual_seed(1)
    network = FieldNetwork(replace(TINY, cells=256)).double()
    torch.nn.init.zeros_(network.whole.weight)  # the mean over the map is of the map as a whole
    maps = torch.zeros(1, 2, 256, 256, dtype=torch.float64)
    maps[:, :, 112:144, 96:128] = torch.rand(1, 2, 32, 32)
    with torch.no_grad():
        still, moved = network.features(maps), network.features(maps.roll((16, 32), (2, 3)))
    inner = slice(40, 80)  # 60 cells and more from the border: the reach of a feature
    torch.testing.assert_close(
        still[:, :, inner, inner], moved[:, :, 48:88, 56:96], rtol=0, atol=1e-12
    )
    assert still[:, :, inner, inner].std() > 1e-3


def test_a_move_of_the_hand_is_a_shift_of_the_map() -> None:
    """A plane's edge at one height, seen from a hand that moved by whole cells."""
    shape = FieldShape()
    c = (np.arange(64) - 31.5) / VIEW.focal_px
    maps = []
    for cells in (0, 8):
        x = c * 0.2 + cells * shape.cell_m  # where each column's ray meets the plane at 0.2 m
        depth = np.where(x > 0.02, 0.2, 0).astype(np.float32)[None].repeat(64, axis=0)
        maps.append(metric_map(depth, shape.cells, shape.cell_m)[1, shape.cells // 2])
    edges = [int(np.flatnonzero(m)[0]) for m in maps]
    assert abs(edges[0] - edges[1] - 8) <= 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_look_up_is_bilinear_with_zeros_outside(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, 8, 8, generator=rng).requires_grad_()
    places = torch.rand(2, 40, 2, generator=rng) * 3 - 1.5
    found = looked_up(features, places)
    expected = F.grid_sample(
        features, places[:, :, None], padding_mode="zeros", align_corners=False
    )[..., 0].transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    ones = torch.ones_like(found)
    ours, theirs = (torch.autograd.grad(t, features, ones)[0] for t in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_labels_are_the_distance_to_the_nearest_grasp(
    split: Split, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(train.nearest, "native", None)
    rng = np.random.default_rng(2)
    images = rng.integers(0, len(split), 6)
    actions = rng.uniform(-0.2, 0.2, (6, 9, 3)).astype(np.float32)
    actions[..., 2] *= 20
    found = NearestGrasps(split)(images, actions)
    for image, asked, row in zip(images, actions, found, strict=True):
        grasps = split.scene_grasps(image // split.views)[:, :4].astype(float)
        in_view = to_view(grasps, split.camera[image].astype(float))
        for action, distance in zip(asked, row, strict=True):
            assert distance == pytest.approx(grasp_distance(in_view, action).min(), abs=2e-6)


def test_actions_turn_with_the_points_of_their_view() -> None:
    """One return; the action that leads to it leads to its cell under any turn and mirror."""
    rng = np.random.default_rng(3)
    shape = FieldShape()
    for _ in range(20):
        v, u = rng.integers(16, 48, 2)
        depth = np.zeros((1, 64, 64), np.float32)
        depth[0, v, u] = z = rng.uniform(0.15, 0.3)
        actions = np.array([[[(u - 31.5), (v - 31.5), 0]]], np.float32) * z / VIEW.focal_px
        actions[..., 2] = theta = rng.uniform(-1.5, 1.5)
        turn, mirror = rng.uniform(-np.pi, np.pi, 1), rng.random(1) < 0.5
        seen = metric_map(depth, shape.cells, shape.cell_m, turn_rad=turn, mirror=mirror)[0, 1] > 0
        turned(actions, turn, mirror)
        row, column = np.nonzero(seen)
        middle = np.array([column.mean(), row.mean()]) + 0.5 - shape.cells / 2
        np.testing.assert_allclose(middle * shape.cell_m, actions[0, 0, :2], atol=shape.cell_m)
        expected = turn[0] + (-theta if mirror[0] else theta)
        assert np.cos(2 * (actions[0, 0, 2] - expected)) == pytest.approx(1, abs=1e-5)


def test_a_batch_is_a_function_of_its_step_and_has_all_kinds_of_actions(split: Split) -> None:
    batches = FieldBatches(split, 8, 64, 5, TINY, FieldDraw())
    first, again, other = (
        batches(3),
        FieldBatches(split, 8, 64, 5, TINY, FieldDraw())(3),
        batches(4),
    )
    for name in ("image", "actions", "distance"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    near, objects, uniform = first.distance.split([32, 16, 16], dim=1)
    assert near.median() < objects.median() < uniform.median()
    halves = [FieldBatches(split, 8, 64, 5, TINY, FieldDraw(), part=(k, 2))(3) for k in (0, 1)]
    for name in ("image", "actions", "distance"):
        assert torch.equal(torch.cat([getattr(h, name) for h in halves]), getattr(first, name))


def test_hard_negatives_lie_on_objects(split: Split) -> None:
    """With no other actions and no turn, each leads to a pixel that shows the box."""
    batches = FieldBatches(split, 4, 32, 0, TINY, FieldDraw(grasp_share=0, object_share=1))
    images = batches.images(0)
    depth = split.depth_m(images)
    actions = batches._draw(images, depth, np.random.default_rng(0))
    for view, camera, asked in zip(depth, split.camera[images], actions, strict=True):
        if not (view < camera[2] - 0.01).any():
            continue
        pixel = asked[:, :2] / (camera[2] - 0.05) * VIEW.focal_px + 31.5  # the box is 0.05 m high
        column, row = np.rint(pixel).astype(int).T
        assert (view[row, column] < camera[2] - 0.01).all()


def test_the_losses_are_least_at_the_truth_and_the_quantile() -> None:
    torch.manual_seed(0)
    network = FieldNetwork(TINY)
    true = torch.rand(1, 4000) * 0.1
    scaled = torch.asinh((true + torch.randn_like(true) * 0.01).clamp_min(0) / TINY.scale_m)
    logit = torch.where(true < 0.015, 8.0, -8.0)
    error = (network.distance(scaled) - true).abs()

    def loss(scaled: torch.Tensor, logit: torch.Tensor, spread_m: float) -> float:
        log_spread = torch.full_like(true, spread_m).log()
        return float(field_loss(network, (scaled, logit, log_spread), true)[0])

    width = float(error.quantile(0.95))
    best = loss(scaled, logit, width)
    assert best < loss(scaled, logit, 0.8 * width) and best < loss(scaled, logit, 1.25 * width)
    assert best < loss(scaled, -logit, width) and best < loss(scaled + 0.1, logit, width)
    moving = scaled.clone().requires_grad_()
    outputs = (moving, logit, torch.full_like(true, width).log())
    field_loss(network, outputs, true)[0].backward()
    only = scaled.clone().requires_grad_()
    (only - torch.asinh(true / TINY.scale_m)).abs().mean().backward()
    torch.testing.assert_close(moving.grad, only.grad)  # the spread does not move the distance


SMALL = (
    "--model", "field", "--batch", "8", "--offsets-per-image", "8", "--threads", "1",
    "--validation-images", "8", "--field.shape.cells", "32", "--field.shape.cell-m", "0.01",
    "--field.shape.channels", "4", "4", "4", "4", "4", "--field.shape.hidden", "8", "--steps", "12",
)  # fmt: skip


def fit(*arguments: object) -> tuple[int, str, str]:
    """Exit code and what the command prints, within this process."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main([*map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("field") / "straight"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.fit, "keep_freed_memory", lambda: True)
        code, text, errors = fit(data, "--out", out, *SMALL)
    assert code == 0, errors
    assert "spread holds" in text and "calibration error" in text
    return out


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    straight: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "train.fit", str(data), "--out", str(out), *SMALL]
    command += ["--checkpoint-minutes", "1e-6"]  # a checkpoint after every step
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        while not (out / "checkpoint.pt").exists() and p.poll() is None:
            time.sleep(0.005)
        p.send_signal(signal.SIGTERM)
        _, errors = p.communicate(timeout=120)
    assert p.returncode == 128 + signal.SIGTERM, errors
    assert 0 < load_checkpoint(out / "checkpoint.pt")["step"] < 12

    code, _, errors = fit(data, "--out", out, *SMALL, "--resume", "--field.shape.hidden", "9")
    assert code == 2 and "field: was" in errors
    assert fit(data, "--out", out, *SMALL, "--resume")[0] == 0
    a, b = (load_checkpoint(folder / "checkpoint.pt") for folder in (straight, out))
    assert a["step"] == b["step"] == 12 and a["curve"] == b["curve"]
    for kind in ("network", "average"):
        for name, weight in a[kind].items():
            assert torch.equal(weight, b[kind][name]), name


def test_the_moving_average_is_what_a_run_has_come_to(straight: Path) -> None:
    saved = load_checkpoint(straight / "checkpoint.pt")
    network = network_of(saved)
    assert isinstance(network, FieldNetwork)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, saved["average"][f"module.{name}"])
    assert any(not torch.equal(w, saved["network"][n]) for n, w in network.state_dict().items())


def test_another_kind_of_network_is_no_place_to_begin(
    straight: Path, data: Path, tmp_path: Path
) -> None:
    begin = ("--init", straight / "checkpoint.pt", "--out", tmp_path / "run")
    code, _, errors = fit(data, *begin, *SMALL, "--field.shape.hidden", "9")
    assert code == 2 and "hidden is 8, here 9" in errors
    code, _, errors = fit(data, *begin, "--model", "paper", "--steps", "1")
    assert code == 2 and "architecture is field, here paper" in errors
    assert fit(data, *begin, *SMALL)[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "paper"},
        {"offsets": "uniform"},
        {"action_encoding": "raw"},
    ],
)
def test_options_of_the_paper_are_refused_for_the_field(options: dict[str, object]) -> None:
    with pytest.raises(FitError, match="--model paper"):
        FitOptions(Path("set"), model="field", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"grasp_share": 0.9}, {"depth_dropout": 1.0}, {"reach_m": 0.0}, {"grasp_sigma_m": -1.0}],
)
def test_a_draw_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        FieldDraw(**wrong)
