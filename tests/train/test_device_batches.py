"""Batches made on the device: labels, views and symmetries equal their NumPy twins; parts make a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from needs import NO_GPU
from synthetic import make_dataset, random_actions

import train.device_batches
from sim.dataset.store import Split, open_split
from train.batches import Batches
from train.device_batches import DeviceBatches, resident_bytes, turned
from train.offsets import REACH_M, BatchOptions, apply_symmetry, nearest_grasp

PLAIN = BatchOptions(symmetry=False, depth_noise_m=0, depth_dropout=0)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder: Path = tmp_path_factory.mktemp("data") / "set"
    make_dataset(folder)
    return open_split(folder, "train")


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_a_gpu_makes_the_same_labels(split: Split) -> None:
    batches = DeviceBatches(split, 8, 5, seed=0, options=PLAIN, device="cuda")
    batch = batches(0)
    assert batch.depth.is_cuda and batch.distance.is_cuda
    expected, _ = nearest_grasp(split, batches.images(0), batch.actions.cpu().numpy())
    np.testing.assert_allclose(batch.distance.cpu(), expected, rtol=0, atol=2e-6)
