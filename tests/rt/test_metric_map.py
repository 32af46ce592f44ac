"""The metric map: against its NumPy twin bit by bit, and against what a map must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from needs import NO_NATIVE

import rt.distance.metric_map
from rt.distance.contract import DistanceError
from rt.distance.metric_map import CELL_M, CELLS, metric_map
from rt.view import VIEW, View

NATIVE = rt.distance.metric_map.native
ISAS = NATIVE.metric_map_isas() if NATIVE else [""]
needs_native = pytest.mark.skipif(NATIVE is None, reason=NO_NATIVE)


def by_numpy(*arguments, **options):
    """The same call on the NumPy twin."""
    try:
        rt.distance.metric_map.native = None
        return metric_map(*arguments, **options)
    finally:
        rt.distance.metric_map.native = NATIVE


def views(count: int, size: int, seed: int) -> np.ndarray:
    """Views (B, S, S) of tables with steps, noise, holes and depths that are no depths."""
    rng = np.random.default_rng(seed)
    table = rng.uniform(0.05, 0.6, (count, 1, 1))
    depth = table + rng.normal(0, 0.002, (count, size, size))
    depth[:, size // 3 : size // 2, size // 4 : size // 2] *= rng.uniform(0.3, 1)
    depth = depth.astype(np.float32)
    bad = np.array([0, -1, np.nan, np.inf, -np.inf, 1e-30, 1e30, 9.9, 65.535], np.float32)
    spoiled = rng.random(depth.shape) < 0.1
    depth[spoiled] = rng.choice(bad, spoiled.sum())
    return depth


@needs_native
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([64, 17, 1]),
    cells=st.sampled_from([96, 64, 33, 1]),
    cell_m=st.sampled_from([0.0035, 0.001, 0.02]),
    turn=st.floats(-7, 7),
    mirror=st.booleans(),
)
@example(0, 64, 96, 0.0035, 0.0, False)
def test_native_equals_numpy_bit_by_bit(seed, size, cells, cell_m, turn, mirror) -> None:
    depth, view = views(2, size, seed), View(size_px=size)
    options = {"turn_rad": turn, "mirror": mirror}
    wanted = by_numpy(depth, cells, cell_m, view, **options)
    for isa in ISAS:
        found = metric_map(depth, cells, cell_m, view, **options, isa=isa)
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32), err_msg=isa)


def test_a_batch_is_its_views_one_by_one() -> None:
    depth = views(5, 64, 1)
    turns, mirrors = np.linspace(-3, 3, 5), np.arange(5) % 2 == 0
    batch = metric_map(depth, turn_rad=turns, mirror=mirrors)
    assert batch.shape == (5, 2, CELLS, CELLS) and batch.dtype == np.float32
    for b in range(5):
        alone = metric_map(depth[b], turn_rad=turns[b], mirror=mirrors[b])
        np.testing.assert_array_equal(batch[b], alone)


@given(height_m=st.floats(0.11, 0.33), size=st.sampled_from([32, 64]))
@settings(deadline=None, max_examples=25)
def test_a_table_face_on_has_no_gaps_and_the_extent_that_the_view_covers(height_m, size) -> None:
    view = View(size_px=size)
    depth = np.full((size, size), height_m, np.float32)
    z, seen = metric_map(depth, view=view)
    reach_m = height_m / view.focal_px * (size / 2 - 0.5 + 0.75)  # the last pixel's footprint
    centres_m = (np.arange(CELLS) + 0.5 - CELLS / 2) * CELL_M
    inside = np.abs(centres_m) < reach_m - 1e-6
    np.testing.assert_array_equal(seen, inside[:, None] & inside[None])
    np.testing.assert_allclose(z[seen > 0], (height_m - 0.2) / 0.1, atol=1e-6)


def test_the_nearest_wins_and_a_lone_return_lies_where_it_is() -> None:
    depth = np.zeros((64, 64), np.float32)
    depth[40, 20] = 0.25
    z, seen = metric_map(depth)
    rows, columns = np.nonzero(seen)
    x_m = (columns.mean() + 0.5 - CELLS / 2) * CELL_M
    y_m = (rows.mean() + 0.5 - CELLS / 2) * CELL_M
    ray = VIEW.rays()[40, 20]
    assert abs(x_m - 0.25 * ray[0]) < CELL_M and abs(y_m - 0.25 * ray[1]) < CELL_M
    width_cells = 1.5 * 0.25 / VIEW.focal_px / CELL_M
    assert abs(np.ptp(rows) + 1 - width_cells) <= 1 and abs(np.ptp(columns) + 1 - width_cells) <= 1
    depth[40, 21] = 0.2  # over the other's edge
    nearer, _ = metric_map(depth)
    assert (nearer <= np.where(seen > 0, z, np.inf) + 1e-6)[seen > 0].all()
    assert abs(nearer.min()) < 1e-6 < nearer[seen > 0].max()


def test_close_returns_that_reach_no_cell_centre_are_kept_in_their_own_cells() -> None:
    """At 0.03 m a footprint is a seventh of a cell wide; every return still shows."""
    depth = np.full((64, 64), 0.03, np.float32)
    _, seen = metric_map(depth)
    reach = int(np.ceil(0.03 * 31.5 / VIEW.focal_px / CELL_M))
    middle = slice(CELLS // 2 - reach + 1, CELLS // 2 + reach - 1)
    assert seen[middle, middle].all() and seen.sum() <= (2 * reach) ** 2


@given(quarters=st.integers(0, 3), mirror=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_quarter_turns_and_mirrors_turn_and_mirror_the_map(quarters, mirror, seed) -> None:
    """x towards y is a turn from columns to rows; a few cells on a footprint's edge may round away."""
    depth = views(1, 64, seed)[0]
    plain = metric_map(depth)
    moved = metric_map(depth, turn_rad=quarters * np.pi / 2, mirror=mirror)
    wanted = plain[:, ::-1] if mirror else plain
    wanted = np.rot90(wanted, -quarters, axes=(1, 2))
    assert plain[1].mean() > 0.05
    assert (np.abs(moved - wanted).max(axis=0) > 1e-5).mean() < 0.01


@given(turn=st.floats(-3.1, 3.1), mirror=st.booleans(), at=st.tuples(*[st.integers(16, 47)] * 2))
@settings(deadline=None, max_examples=40)
def test_a_point_goes_where_an_action_towards_it_goes(turn, mirror, at) -> None:
    depth = np.zeros((64, 64), np.float32)
    depth[at] = 0.3
    x, y, _ = VIEW.rays()[at] * 0.3
    y = -y if mirror else y
    moved = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    rows, columns = np.nonzero(metric_map(depth, turn_rad=turn, mirror=mirror)[1])
    found = ((np.array([columns.mean(), rows.mean()])) + 0.5 - CELLS / 2) * CELL_M
    np.testing.assert_allclose(found, moved, atol=0.6 * CELL_M)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((np.zeros((63, 64), np.float32),), {}, r"\(63, 64\).*must be \(64, 64\)"),
        ((np.zeros((64, 64)),), {}, "float64"),
        ((np.zeros((64, 64), np.float32), 0), {}, "cells = 0"),
        ((np.zeros((64, 64), np.float32), 96, 0.0), {}, "cell_m = 0"),
        (
            (np.zeros((3, 64, 64), np.float32),),
            {"turn_rad": [0.0, 1.0]},
            r"turn_rad has shape \(2,\)",
        ),
        ((np.zeros((64, 64), np.float32),), {"turn_rad": np.nan}, "finite"),
        ((np.zeros((64, 64), np.float32),), {"mirror": 1}, "mirror boolean"),
    ],
)
def test_wrong_arguments_are_refused(arguments, options, says) -> None:
    with pytest.raises(DistanceError, match=says):
        metric_map(*arguments, **options)
