"""Batches made on the device equal their NumPy twins (labels, views, maps, turns); parts make a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from needs import NO_GPU
from synthetic import make_dataset, random_actions

import train.device_batches
import train.fit
from rt.distance.metric_map import metric_map
from sim.dataset.store import Split, open_split
from train.batches import Batches
from train.checkpoint import load_checkpoint
from train.device_batches import (
    DeviceBatches,
    FieldDeviceBatches,
    device_maps,
    resident_bytes,
    turned,
)
from train.field import FieldShape
from train.field_batches import FieldBatches, FieldDraw
from train.offsets import REACH_M, BatchOptions, apply_symmetry, nearest_grasp

PLAIN = BatchOptions(symmetry=False, depth_noise_m=0, depth_dropout=0)


TINY = FieldShape(cells=32, cell_m=0.01, channels=(4, 5, 6, 7, 8), features=3, hidden=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data") / "set"
    make_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def split(data: Path) -> Split:
    return open_split(data, "train")


@pytest.mark.parametrize("elements", [1, 300, 1 << 26])
def test_labels_equal_the_plain_ones(
    split: Split, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is computed at once: one image, a few, all."""
    monkeypatch.setattr(train.device_batches, "LABEL_ELEMENTS", elements)
    batches = DeviceBatches(split, 8, 5, seed=0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, len(split), 9)
    actions = random_actions((9, 5), rng)
    actions[0, 0, 2], actions[0, 1, 2] = -torch.pi / 2, torch.pi / 2  # at the wrap
    expected, _ = nearest_grasp(split, images, actions.numpy())
    np.testing.assert_allclose(batches.nearest(images, actions), expected, rtol=0, atol=2e-6)


def test_an_undisturbed_batch_is_the_stored_views_and_their_labels(split: Split) -> None:
    batches, host = (B(split, 8, 5, 3, options=PLAIN) for B in (DeviceBatches, Batches))
    batch = batches(2)
    images = batches.images(2)
    np.testing.assert_array_equal(images, host.images(2))
    np.testing.assert_allclose(batch.depth, split.depth_m(images), rtol=0, atol=1e-7)
    expected, _ = nearest_grasp(split, images, batch.actions.numpy())
    np.testing.assert_allclose(batch.distance, expected, rtol=0, atol=2e-6)


def test_depths_beyond_15_bits_survive_storage_as_signed(split: Split) -> None:
    batches = DeviceBatches(split, 8, 2, seed=0, options=PLAIN)
    batches.depth[:] = torch.from_numpy(np.full(1, 60_000, np.uint16).view(np.int16))
    assert batches(0).depth.mean().item() == pytest.approx(6.0, rel=1e-6)


def test_symmetries_equal_the_plain_ones() -> None:
    rng = np.random.default_rng(1)
    depth = rng.random((8, 64, 64)).astype(np.float32)
    actions, kinds = random_actions((8, 3), rng), np.arange(8)
    found_depth, found = turned(torch.from_numpy(depth), actions, torch.from_numpy(kinds))
    expected = actions.numpy().copy()
    apply_symmetry(depth, expected, kinds)
    np.testing.assert_array_equal(found_depth, depth)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


def test_turned_batches_keep_their_labels(split: Split) -> None:
    quiet = BatchOptions(depth_noise_m=0, depth_dropout=0)
    plain, other = (DeviceBatches(split, 8, 5, 3, options=o)(1) for o in (PLAIN, quiet))
    torch.testing.assert_close(plain.distance, other.distance, rtol=0, atol=0)
    assert not torch.equal(plain.depth, other.depth)


@pytest.mark.parametrize("offsets", ["mixed", "uniform", "fixed"])
def test_parts_of_a_batch_make_the_whole_and_steps_repeat(split: Split, offsets: str) -> None:
    def at(part: tuple[int, int], seed: int = 7) -> list[torch.Tensor]:
        batch = DeviceBatches(split, 8, 4, seed, offsets, part=part)(5)  # type: ignore[arg-type]
        return [batch.depth, batch.actions, batch.distance]

    whole = at((0, 1))
    for one, a, b in zip(whole, at((0, 2)), at((1, 2)), strict=True):
        torch.testing.assert_close(torch.cat([a, b]), one, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(whole, at((0, 1)), strict=True))
    assert not torch.equal(whole[0], at((0, 1), seed=8)[0])


def test_the_papers_offsets_are_those_of_the_host(split: Split) -> None:
    batches, host = (B(split, 8, 4, 1, "fixed", PLAIN) for B in (DeviceBatches, Batches))
    np.testing.assert_array_equal(batches(3).actions, host(3).actions)


def test_offsets_and_noise_are_distributed_as_on_the_host(split: Split) -> None:
    """Means over a few hundred draws; the options are the same, the random numbers are not."""
    noisy = BatchOptions(symmetry=False, depth_noise_m=0.002, depth_dropout=0.01)
    batches, host = (B(split, 48, 16, 0, options=noisy) for B in (DeviceBatches, Batches))
    a, b = batches(0), host(0)
    assert float(a.actions[..., :2].abs().max()) < REACH_M + 0.1
    for part in (
        np.s_[:, :8],
        np.s_[:, 8:12],
        np.s_[:, 12:],
    ):  # uniform, near the hand, near grasps
        for column in (0, 2):
            x, y = (float(batch.actions[part][..., column].abs().mean()) for batch in (a, b))
            assert x == pytest.approx(y, rel=0.25), (part, column)
        x, y = (float(batch.distance[part].mean()) for batch in (a, b))
        assert x == pytest.approx(y, rel=0.25), part
    clean = torch.from_numpy(split.depth_m(batches.images(0)))
    dropped = a.depth == 0
    assert 0.005 < float(dropped.float().mean()) < 0.015
    assert 0.0018 < float((a.depth - clean)[~dropped].std()) < 0.0022


def test_a_batch_that_does_not_divide_is_refused(split: Split) -> None:
    for B in (Batches, DeviceBatches):
        with pytest.raises(ValueError, match="multiple of 3"):
            B(split, 8, 4, 0, part=(0, 3))


def test_resident_bytes_are_those_of_the_arrays(split: Split) -> None:
    assert resident_bytes(split) > len(split) * 64 * 64 * 2


def made_views(count: int, rng: np.random.Generator) -> np.ndarray:
    """Slopes, steps, holes and returns too near, too far and of the wrong sign (count, 64, 64) [m]."""
    depth = rng.uniform(0.1, 0.4, (count, 1, 1)) + rng.normal(0, 0.002, (count, 64, 64))
    depth += np.linspace(0, 0.1, 64) * rng.uniform(-1, 1, (count, 1, 1))
    depth[:, 20:40, 10:30] -= 0.05
    depth[rng.random(depth.shape) < 0.05] = 0
    depth[rng.random(depth.shape) < 0.01] = 0.7
    depth[rng.random(depth.shape) < 0.01] = -0.1
    return depth.astype(np.float32)


@pytest.mark.parametrize(("cells", "cell_m"), [(80, 0.0042), (32, 0.01), (48, 0.001)])
def test_maps_equal_the_metric_maps_bit_by_bit(cells: int, cell_m: float) -> None:
    rng = np.random.default_rng(cells)
    depth = made_views(6, rng)
    turn, mirror = rng.uniform(-np.pi, np.pi, 6), rng.random(6) < 0.5
    turns = np.stack([np.cos(turn), np.sin(turn), np.where(mirror, -1, 1)], -1).astype(np.float32)
    expected = metric_map(depth, cells, cell_m, turn_rad=turn, mirror=mirror)
    found = device_maps(torch.from_numpy(depth), torch.from_numpy(turns), cells, cell_m)
    np.testing.assert_array_equal(found, expected)
    empty = device_maps(torch.zeros(1, 64, 64), torch.tensor([[1.0, 0.0, 1.0]]), cells, cell_m)
    assert not empty.any()


def test_labels_and_maps_of_a_field_batch_turn_together(split: Split) -> None:
    """The same step without a turn has the same labels; undone, the turned actions are the plain ones."""
    draw = FieldDraw(depth_noise_m=0, depth_dropout=0)
    batches = FieldDeviceBatches(split, 8, 16, 3, TINY, draw)
    batch = batches(2)
    images = batches.images(2)
    index = torch.from_numpy(images)
    plain = batches._draw(index, batches._depth_m(index), batches._generator(2))
    expected, _ = nearest_grasp(split, images, plain.numpy())
    np.testing.assert_allclose(batch.distance, expected, rtol=0, atol=2e-6)
    assert not torch.equal(plain, batch.actions)
    torch.testing.assert_close(
        plain[..., :2].square().sum(-1), batch.actions[..., :2].square().sum(-1)
    )
    # Each map is the metric map of its view under the turn that the actions tell of.
    depth = split.depth_m(images)
    for view, before, after, image in zip(
        depth, plain.numpy(), batch.actions.numpy(), batch.image.numpy(), strict=True
    ):
        z, z2 = before[:, 0] + 1j * before[:, 1], after[:, 0] + 1j * after[:, 1]
        turned_by, mirrored_by = z2 / z, z2 / z.conj()
        mirror = np.ptp(mirrored_by.real) < np.ptp(turned_by.real)
        turn = np.angle((mirrored_by if mirror else turned_by)[0])
        shown = metric_map(view, TINY.cells, TINY.cell_m, turn_rad=turn, mirror=bool(mirror))
        assert (np.abs(shown - image) < 1e-4).mean() > 0.99
        theta = turn + (-before[:, 2] if mirror else before[:, 2])
        np.testing.assert_allclose(np.cos(2 * (after[:, 2] - theta)), 1, atol=1e-4)


def test_parts_of_a_field_batch_make_the_whole_and_steps_repeat(split: Split) -> None:
    def at(part: tuple[int, int], step: int = 5) -> list[torch.Tensor]:
        batch = FieldDeviceBatches(split, 8, 8, 7, TINY, FieldDraw(), part)(step)
        return [batch.image, batch.actions, batch.distance]

    whole = at((0, 1))
    for one, a, b in zip(whole, at((0, 2)), at((1, 2)), strict=True):
        torch.testing.assert_close(torch.cat([a, b]), one, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(whole, at((0, 1)), strict=True))
    assert not torch.equal(whole[1], at((0, 1), 6)[1])


def test_actions_of_the_field_are_distributed_as_on_the_host(split: Split) -> None:
    given = (split, 48, 64, 0, TINY, FieldDraw())
    a, b = FieldDeviceBatches(*given)(0), FieldBatches(*given)(0)
    for part in (np.s_[:, :32], np.s_[:, 32:48], np.s_[:, 48:]):  # near grasps, objects, uniform
        for of in (lambda batch: batch.distance, lambda batch: batch.actions[..., :2].norm(dim=-1)):
            x, y = (float(of(batch)[part].mean()) for batch in (a, b))
            assert x == pytest.approx(y, rel=0.15), part
    assert float(a.image[:, 1].mean()) == pytest.approx(float(b.image[:, 1].mean()), rel=0.05)


def test_hard_negatives_lie_on_objects_and_an_empty_view_keeps_its_actions(split: Split) -> None:
    draw = FieldDraw(grasp_share=0, object_share=1)
    batches = FieldDeviceBatches(split, 4, 32, 0, TINY, draw)
    index = torch.from_numpy(batches.images(0))
    depth = batches._depth_m(index)
    depth[0] = batches.camera[index[0], 2]  # nothing but the table
    uniform = torch.rand(4, 32, 2)
    found = batches._on_objects(index, depth, uniform, torch.Generator().manual_seed(0))
    assert torch.equal(found[0], uniform[0])
    for view, height, asked in zip(depth[1:], batches.camera[index[1:], 2], found[1:], strict=True):
        if not (view < height - 0.01).any():
            continue
        pixel = asked / (height - 0.05) * train.device_batches.VIEW.focal_px + 31.5  # 0.05 m high
        column, row = pixel.round().int().T
        assert (view[row, column] < height - 0.01).all()


def fit_field(data: Path, out: Path, device: str) -> int:
    return train.fit.main(
        [str(data), "--out", str(out), "--model", "field", "--batches", "device", "--device", device,
         "--batch", "8", "--offsets-per-image", "8", "--threads", "1", "--validation-images", "8",
         "--field.shape.cells", "32", "--field.shape.cell-m", "0.01", "--field.shape.channels",
         "4", "4", "4", "4", "4", "--field.shape.hidden", "8", "--steps", "12"]
    )  # fmt: skip


def test_a_field_run_on_device_batches_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.fit, "keep_freed_memory", lambda: True)
    assert fit_field(data, tmp_path / "run", "cpu") == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"]["batches"] == "device"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_a_gpu_makes_the_same_labels(split: Split) -> None:
    batches = DeviceBatches(split, 8, 5, seed=0, options=PLAIN, device="cuda")
    batch = batches(0)
    assert batch.depth.is_cuda and batch.distance.is_cuda
    expected, _ = nearest_grasp(split, batches.images(0), batch.actions.cpu().numpy())
    np.testing.assert_allclose(batch.distance.cpu(), expected, rtol=0, atol=2e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_a_gpu_makes_the_same_maps_but_for_returns_on_a_border() -> None:
    rng = np.random.default_rng(1)
    depth = made_views(6, rng)
    turns = np.array([[1, 0, 1], [0.6, 0.8, -1], [0, 1, 1]] * 2, np.float32)
    maps = [
        device_maps(torch.from_numpy(depth).to(d), torch.from_numpy(turns).to(d), 80, 0.0042).cpu()
        for d in ("cpu", "cuda")
    ]
    assert (maps[0] == maps[1]).float().mean() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_a_gpu_trains_the_field(data: Path, tmp_path: Path) -> None:
    assert fit_field(data, tmp_path / "run", "cuda") == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == 12
