"""rt.grasp.height: how deep to close, on things whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rt.camera import Intrinsics
from rt.grasp.height import GraspHeight, Grid, HeightError, grasp_height, height_map
from rt.hand import load_hand, load_tip_travel
from rt.pose import top_down

HAND = load_hand()
CAMERA = Intrinsics(200, 136, 126.5, 126.5, 99.5, 67.5)
GRASP = np.array([0.10, -0.05, 0.15, 0.7])

Surface = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Height [m] of the scene at x, y [m] in the frame of the grasp (x along the closing axis)."""


def seen_from(height_m: float, surface: Surface, noise_m: float = 0.0) -> NDArray[np.float32]:
    """A height map of what a camera in the hand sees, by marching its rays down to the surface."""
    hand = GRASP.copy()
    hand[2] = height_m
    T = top_down(*hand)
    rays = CAMERA.rays().astype(np.float64)
    depth = np.full(rays.shape[:2], 0.0)
    free = np.ones(rays.shape[:2], bool)
    # The view's y points the other way round than the grasp frame's.
    for z in np.arange(min(height_m, 0.1), -1e-9, -0.001):
        d = height_m - z
        hit = free & (surface(rays[..., 0] * d, -rays[..., 1] * d) >= z)
        depth[hit] = d
        free &= ~hit
    depth += np.random.default_rng(0).normal(0, noise_m, depth.shape) if noise_m else 0
    grid = Grid.around(HAND, GRASP[2] / CAMERA.fx_px)
    return height_map(depth.astype(np.float32), CAMERA.rays(), T, GRASP, grid)


def find(surface: Surface, noise_m: float = 0.0) -> GraspHeight:
    grid = Grid.around(HAND, GRASP[2] / CAMERA.fx_px)
    late = [seen_from(0.15, surface, noise_m)] * 2
    early = [seen_from(0.28, surface, noise_m)]
    return grasp_height(late, early, grid, HAND, clearance_m=0.003, table_gap_m=0.004, min_seen=0.4)


def box(wide_m: float, high_m: float, deep_m: float = 0.06) -> Surface:
    return lambda x, y: np.where((np.abs(x) < wide_m / 2) & (np.abs(y) < deep_m / 2), high_m, 0.0)


def ball(radius_m: float) -> Surface:
    def surface(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.clip(radius_m**2 - x**2 - y**2, 0, None)
        return np.where(inside > 0, radius_m + np.sqrt(inside), 0.0)

    return surface


@pytest.mark.parametrize("noise_m", [0.0, 0.0007])
def test_a_low_box_is_taken_at_the_table(noise_m: float) -> None:
    found = find(box(0.04, 0.03), noise_m)
    assert found.limited_by in ("table", "fingers")
    assert 0.004 <= found.height_m < 0.008
    assert found.width_m == pytest.approx(0.04, abs=0.005)
    assert found.seen > 0.9 and found.views == 2


def test_a_high_box_stops_the_palm() -> None:
    found = find(box(0.04, 0.09))
    assert found.limited_by == "palm"
    assert found.height_m == pytest.approx(0.09 + 0.003 - HAND.finger_length_m, abs=0.002)


def test_a_ball_is_taken_where_it_is_widest() -> None:
    radius = 0.035
    found = find(ball(radius))
    assert found.limited_by == "widest"
    assert found.height_m < radius < found.height_m + HAND.pad_height_m


def test_what_lies_under_a_finger_keeps_it_up() -> None:
    beside = HAND.opening_m / 2 + HAND.finger_thickness_m / 2

    def surface(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        block = np.where(np.abs(x - beside) < 0.006, 0.025, 0.0)
        return np.maximum(box(0.03, 0.05)(x, y), block)

    found = find(surface)
    assert found.limited_by == "fingers"
    assert found.height_m == pytest.approx(0.028, abs=0.002)


def test_nothing_between_the_fingers_is_said() -> None:
    with pytest.raises(HeightError, match="nothing rises between the fingers"):
        find(lambda x, y: np.zeros_like(x))


def test_what_was_not_seen_is_not_believed() -> None:
    grid = Grid.around(HAND, 0.001)
    blank = np.full((len(grid.y_m), len(grid.x_m)), np.nan, np.float32)
    with pytest.raises(HeightError, match="only 0% of the ground"):
        grasp_height([blank], [], grid, HAND, clearance_m=0.003, table_gap_m=0.004, min_seen=0.4)
    with pytest.raises(HeightError, match="no trustworthy view"):
        grasp_height([], [blank], grid, HAND, clearance_m=0, table_gap_m=0, min_seen=0.4)


def test_one_bad_image_of_many_changes_nothing() -> None:
    grid = Grid.around(HAND, GRASP[2] / CAMERA.fx_px)
    good = seen_from(0.15, box(0.04, 0.03))
    bad = good + np.float32(0.05)
    options = {"clearance_m": 0.003, "table_gap_m": 0.004, "min_seen": 0.4}
    with_bad = grasp_height([good, good, bad], [], grid, HAND, **options)
    assert with_bad.height_m == grasp_height([good] * 3, [], grid, HAND, **options).height_m


TIPS = load_tip_travel()


def travelling(surface: Surface) -> GraspHeight:
    grid = Grid.around(HAND, GRASP[2] / CAMERA.fx_px)
    late, early = [seen_from(0.15, surface)] * 2, [seen_from(0.28, surface)]
    return grasp_height(
        late, early, grid, HAND, clearance_m=0.003, table_gap_m=0.004, min_seen=0.4, tips=TIPS
    )


@pytest.mark.parametrize("wide_m", [0.02, 0.04, 0.06, 0.07])
def test_tips_that_travel_hold_a_box_where_others_do(wide_m: float) -> None:
    """As low above the table as the gap allows, and never lower."""
    found, plain = travelling(box(wide_m, 0.03)), find(box(wide_m, 0.03))
    tip_m = found.height_m - TIPS(wide_m)
    assert found.height_m - found.travel_m >= 0.004 - 1e-9 and found.travel_m >= TIPS(wide_m)
    assert plain.height_m - 1e-3 <= tip_m < plain.height_m + 0.003


def test_tips_that_travel_meet_a_ball_where_it_is_widest() -> None:
    found, plain = travelling(ball(0.03)), find(ball(0.03))
    assert found.limited_by == "widest"
    assert found.height_m - TIPS(0.06) == pytest.approx(plain.height_m, abs=0.002)


def test_the_palm_stays_where_it_is() -> None:
    assert travelling(box(0.04, 0.09)).height_m == find(box(0.04, 0.09)).height_m


def test_tips_that_travel_clear_what_lies_beside_the_object() -> None:
    """A strip 10 mm high between the object and the open finger: they come down on it as they close."""

    def surface(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        strip = np.where((np.abs(x - 0.03) < 0.004) & (np.abs(y) < 0.03), 0.006, 0.0)
        return np.maximum(box(0.03, 0.05)(x, y), strip)

    found = travelling(surface)
    for x in (0.026, 0.034):
        assert found.height_m - TIPS(2 * x) >= 0.006 - 1e-9
