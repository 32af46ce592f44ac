"""Labels against rt.pose, symmetries against rt.pose and a renderer, and batches that repeat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import box_depth, make_dataset, random_actions

from rt.pose import from_top_down, grasp_distance, planar, to_view, top_down
from sim.dataset.store import Split, open_split
from train.batches import Batches, nearest_grasp_distance
from train.offsets import (
    NEAR_M,
    REACH_M,
    BatchOptions,
    apply_symmetry,
    fixed_offsets,
    mixed_offsets,
    near_offsets,
    random_grasps_in_reach,
    uniform_offsets,
)

VIEWS = 4


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("data") / "set"
    make_dataset(folder, views=VIEWS)
    return open_split(folder, "train")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_labels_equal_the_metric_of_rt_pose(split: Split, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, len(split), 3)
    actions = random_actions((3, 5), rng).numpy()
    actions[0, 0, 2], actions[0, 1, 2] = -np.pi / 2, np.pi / 2  # at the wrap
    found = nearest_grasp_distance(split, images, actions).numpy()
    for i, image in enumerate(images):
        grasps = split.scene_grasps(int(image) // VIEWS)[:, :4].astype(np.float64)
        in_view = to_view(grasps, split.camera[image].astype(np.float64))
        expected = grasp_distance(actions[i][:, None].astype(np.float64), in_view).min(1)
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=2e-6)


def test_the_action_that_reaches_a_grasp_has_distance_zero(split: Split) -> None:
    image = np.array([7])
    grasp = split.scene_grasps(7 // VIEWS)[2]
    action = to_view(grasp[:4], split.camera[7])
    x, y, _, yaw = from_top_down(top_down(*map(float, split.camera[7])) @ planar(action))
    np.testing.assert_allclose([x, y], grasp[:2], atol=1e-6)
    assert abs(np.sin(yaw - grasp[3])) < 1e-5
    assert float(nearest_grasp_distance(split, image, action[None, None].astype(np.float32))) < 1e-5


@pytest.mark.parametrize("kind", range(8))
def test_a_symmetry_moves_the_image_as_it_moves_the_grasps(kind: int) -> None:
    """The transformed view of a box is the view of the transformed box, rendered anew."""
    rng = np.random.default_rng(kind)
    camera = np.array([0.0, 0.0, 0.25, 0.0])
    box_in_view = np.array([0.03, -0.05, 0.4])  # x, y, angle of the long axis
    expected_box = box_in_view[None, None].astype(np.float32)
    depth = render(camera, box_in_view)[None]
    apply_symmetry(depth, expected_box, np.array([kind]))
    again = render(camera, expected_box[0, 0])
    assert (depth[0] != again).mean() < 0.002  # a pixel on an edge may round either way
    # and all distances between actions stay
    pair = random_actions((1, 2), rng).numpy()
    before = grasp_distance(pair[0, 0], pair[0, 1])
    apply_symmetry(depth, pair, np.array([kind]))
    np.testing.assert_allclose(grasp_distance(pair[0, 0], pair[0, 1]), before, atol=1e-6)
    assert (pair[..., 2] >= -np.pi / 2 - 1e-6).all() and (pair[..., 2] <= np.pi / 2 + 1e-6).all()


def render(camera: np.ndarray, box_in_view: np.ndarray) -> np.ndarray:
    T = top_down(*camera) @ planar(box_in_view)
    x, y, _, yaw = from_top_down(T)
    return box_depth(camera, np.array([x, y, yaw])).astype(np.float32)


def test_the_eight_symmetries_differ_and_each_is_its_own_permutation() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((64, 64)).astype(np.float32)
    depth = np.repeat(image[None], 8, axis=0)
    apply_symmetry(depth, np.zeros((8, 1, 3), np.float32), np.arange(8))
    assert len({d.tobytes() for d in depth}) == 8
    for d in depth:
        np.testing.assert_array_equal(np.sort(d.ravel()), np.sort(image.ravel()))


def test_batches_are_a_function_of_seed_and_step(split: Split) -> None:
    a, b = Batches(split, 8, 5, seed=1), Batches(split, 8, 5, seed=1)
    other = Batches(split, 8, 5, seed=2)
    a(0), a(9)  # an object that has run, and one that has not
    for name in ("depth", "actions", "distance"):
        assert np.array_equal(getattr(a(4), name), getattr(b(4), name)), name
        assert not np.array_equal(getattr(a(4), name), getattr(other(4), name)), name
        assert not np.array_equal(getattr(a(4), name), getattr(a(5), name)), name


def test_an_epoch_visits_every_image_once(split: Split) -> None:
    batches = Batches(split, 8, 2, seed=0)
    assert batches.steps_per_epoch == len(split) // 8
    seen = np.concatenate([batches.images(s) for s in range(batches.steps_per_epoch)])
    assert sorted(seen) == list(range(len(split)))
    assert not np.array_equal(batches.images(0), batches.images(batches.steps_per_epoch))


def test_a_batch_is_labelled_for_the_view_that_it_shows(split: Split) -> None:
    """Undisturbed batches: undoing the symmetry is not needed, labels do not depend on it."""
    plain = BatchOptions(symmetry=False, depth_noise_m=0, depth_dropout=0)
    batches = Batches(split, 8, 5, seed=3, options=plain)
    images, batch = batches.images(2), batches(2)
    np.testing.assert_array_equal(batch.depth.numpy(), split.depth_m(images))
    expected = nearest_grasp_distance(split, images, batch.actions.numpy())
    np.testing.assert_array_equal(batch.distance.numpy(), expected.numpy())
    turned = Batches(split, 8, 5, seed=3, options=BatchOptions(depth_noise_m=0, depth_dropout=0))(2)
    np.testing.assert_array_equal(turned.distance.numpy(), expected.numpy())
    assert not np.array_equal(turned.depth, batch.depth)


def test_noise_is_as_strong_as_asked_and_spares_holes(split: Split) -> None:
    options = BatchOptions(symmetry=False, depth_noise_m=0.002, depth_dropout=0.01)
    batches = Batches(split, 32, 1, seed=0, options=options)
    clean, noisy = split.depth_m(batches.images(0)), batches(0).depth.numpy()
    dropped = noisy == 0
    assert 0.005 < dropped.mean() < 0.015
    assert 0.0018 < (noisy - clean)[~dropped].std() < 0.0022


def test_offsets_lie_where_they_should(split: Split) -> None:
    rng = np.random.default_rng(0)
    uniform = uniform_offsets((500, 4), rng)
    assert np.abs(uniform[..., :2]).max() <= REACH_M and np.abs(uniform[..., 2]).max() <= np.pi / 2
    near = near_offsets((500, 4), rng)
    assert np.hypot(near[..., 0], near[..., 1]).max() <= NEAR_M * 1.0001
    images = rng.integers(0, len(split), 40)
    mixed = mixed_offsets(split, images, 16, BatchOptions(), rng)
    distance = nearest_grasp_distance(split, images, mixed).numpy()
    in_reach = ~np.isnan(random_grasps_in_reach(split, images, 4, rng)[..., 0]).any(1)
    assert in_reach.any()
    assert np.median(distance[in_reach, 12:]) < 0.03 < np.median(distance[:, :8])
    assert np.hypot(*mixed[:, 8:12, :2].reshape(-1, 2).T).mean() < 0.05


def test_the_papers_offsets_are_fixed_for_each_image(split: Split) -> None:
    a, b = fixed_offsets(np.array([3, 5]), 10, seed=0), fixed_offsets(np.array([5, 9]), 10, seed=0)
    np.testing.assert_array_equal(a[1], b[0])
    assert not np.array_equal(a[0], a[1])
    assert not np.array_equal(a, fixed_offsets(np.array([3, 5]), 10, seed=1))


@pytest.mark.parametrize(
    "bad", [{"uniform_share": 0.9, "near_share": 0.2}, {"depth_dropout": 1.0}, {"near_sigma_m": -1}]
)
def test_impossible_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BatchOptions(**bad)  # type: ignore[arg-type]
