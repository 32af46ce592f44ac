"""rt.grasp.memory: heights in base over an approach, and the height that a hand needs above them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from solids import box

from rt.grasp.memory import (
    CELL_M,
    GRIP_M,
    GRIP_SHARE,
    HeightMemory,
    _probes,
    blocked_share,
    in_base,
    needed_height_m,
    unseen_share,
)
from rt.hand import load_hand
from rt.pose import planar, to_view, top_down
from rt.view import VIEW
from sim.scene.grasps import numbered_scene
from sim.scene.objects import catalogue_set
from sim.scene.render import Renderer
from sim.scene.scene import assemble

HAND = load_hand()


def tower(x: float, y: float, height_m: float, hand: NDArray[np.float64]) -> NDArray[np.float32]:
    """Depth (64, 64) of a column of 40 by 40 mm along base's axes, seen straight down."""
    rays = VIEW.rays().astype(np.float64) * (hand[2] - height_m)
    points = in_base(rays[..., :2], hand)
    inside = (np.abs(points - [x, y]) < 0.02).all(axis=-1)
    return np.where(inside, hand[2] - height_m, hand[2]).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(
    x=st.floats(-0.05, 0.05),
    y=st.floats(-0.05, 0.05),
    yaw=st.floats(-3, 3),
    height_m=st.floats(0.02, 0.2),
)
def test_a_column_stands_where_it_is_in_base(
    x: float, y: float, yaw: float, height_m: float
) -> None:
    hand, memory = np.array([0.3, -0.2, 0.3, yaw]), HeightMemory()
    memory.see(tower(0.3 + x, -0.2 + y, height_m, hand), hand)
    top = memory.at(np.array([0.3 + x, -0.2 + y]))
    assert float(top) == pytest.approx(height_m, abs=1e-5)
    for dx, dy in ((0.036, 0), (-0.036, 0), (0, 0.036), (0, -0.036)):
        beside = memory.at(np.array([0.3 + x + dx, -0.2 + y + dy]))
        assert np.isnan(beside) or abs(float(beside)) < 1e-5  # the table, or in the column's shadow


def test_an_earlier_view_counts_where_a_later_one_saw_nothing() -> None:
    high, low, memory = np.array([0, 0, 0.30, 0.0]), np.array([0, 0, 0.16, 0.0]), HeightMemory()
    memory.see(tower(0.12, 0, 0.05, high), high)
    memory.see(np.full((64, 64), 0.16, np.float32), low)
    assert float(memory.at(np.array([0.13, 0.0]))) == pytest.approx(0.05, abs=1e-5)
    memory.see(np.full((64, 64), 0.30, np.float32), high)  # it is gone
    assert float(memory.at(np.array([0.13, 0.0]))) == pytest.approx(0.0, abs=1e-5)
    assert np.isnan(memory.at(np.array([0.45, 0.0])))


def test_the_hand_itself_and_single_returns_are_left_out() -> None:
    hand, memory = np.array([0, 0, 0.2, 0.0]), HeightMemory()
    view = np.full((64, 64), 0.2, np.float32)
    view[30:34, 50:54] = 0.0005  # a finger
    memory.see(view, hand)
    assert np.nanmax(memory.heights_m) < 0.001
    view[:] = 0.2
    view[10, 10] = 0.19  # one flying pixel, smaller than two cells on the table
    low = HeightMemory()
    low.see(view, np.array([0, 0, 0.2, 0.0]))
    assert np.nanmax(low.heights_m) < 0.011


def test_fingers_and_palm_need_their_own_height() -> None:
    high, memory = np.array([0, 0, 0.30, 0.0]), HeightMemory()
    memory.see(tower(0, 0, 0.18, high), high)
    # The column fits between the fingers: only the palm needs to be above it.
    assert needed_height_m(memory, high, HAND) == pytest.approx(
        0.18 - HAND.finger_length_m, abs=1e-5
    )
    beside = np.array([HAND.opening_m / 2, 0, 0.3, 0.0])
    assert needed_height_m(memory, beside, HAND) == pytest.approx(0.18, abs=1e-5)
    assert needed_height_m(HeightMemory(), high, HAND) == -np.inf


def test_the_unseen_share_of_the_ground_under_the_jaws() -> None:
    high, memory = np.array([0, 0, 0.30, 0.0]), HeightMemory()
    memory.see(np.full((64, 64), 0.3, np.float32), high)
    hands = np.array([[0, 0, 0.3, 0.0], [0.205, 0, 0.3, 0.0], [0.4, 0.3, 0.3, 0.0]])
    np.testing.assert_allclose(unseen_share(memory, hands, HAND), [0, 0.5, 1])


@given(x=st.floats(-1, 1), y=st.floats(-1, 1), yaw=st.floats(-4, 4))
def test_points_of_the_hand_are_where_the_hand_is(x: float, y: float, yaw: float) -> None:
    point = in_base(np.array([0.03, 0.01]), np.array([x, y, 0.2, yaw]))
    T = top_down(x, y, 0.2, yaw) @ planar([0.03, 0.01, 0.0])
    np.testing.assert_allclose(point, T[:2, 3], atol=1e-12)
    assert HAND.finger_thickness_m > CELL_M


@pytest.mark.parametrize("way", [(0.1, -0.06), (-0.13, 0.09)])
def test_the_memory_goes_along_with_a_hand_that_travels_far(way: tuple[float, float]) -> None:
    memory, height_m = HeightMemory(), 0.05
    hand = np.array([0.3, -0.2, 0.3, 0.4])
    for _ in range(8):  # a metre and more
        column = hand[:2] + np.array([0.02, -0.03])
        memory.see(tower(*column, height_m, hand), hand)
        assert float(memory.at(column)) == pytest.approx(height_m, abs=1e-5)
        assert unseen_share(memory, hand[None], HAND)[0] == 0
        last, hand = column, hand + np.array([*way, 0, 0])
    memory.see(tower(9, 9, height_m, hand), hand)
    assert float(memory.at(last)) in (pytest.approx(height_m, abs=1e-5), pytest.approx(0, abs=1e-5))
    assert np.isnan(memory.at(np.array([0.3, -0.2])))


def table_on_a_post(at: tuple[float, float] = (0.05, 0.0)) -> Renderer:
    """A plate of 60 by 60 mm, 0.19 to 0.20 m high, on a post of 10 mm."""
    place = np.eye(4)
    place[:2, 3] = at
    plate, post = place.copy(), place.copy()
    plate[2, 3] = 0.19
    return Renderer(assemble([(box((0.06, 0.06, 0.01)), plate), (box((0.01, 0.01, 0.19)), post)]))


def test_a_lower_view_below_an_overhang_does_not_forget_it() -> None:
    scene, memory = table_on_a_post(), HeightMemory()
    for hand in (np.array([0.0, 0, 0.30, 0.4]), np.array([-0.02, 0, 0.16, 0.4])):
        view = scene.depth(top_down(*hand), VIEW.rays())
        memory.see(view, hand)
    under = np.array([0.03, 0.02])
    column, row = (VIEW.focal_px * to_view(np.array([[*under, 0, 0]]), hand)[0, :2] / 0.16) + 32
    assert view[int(row), int(column)] == pytest.approx(0.16, abs=1e-4), "the table is seen there"
    assert float(memory.at(under)) == pytest.approx(0.20, abs=1e-4)
    for _ in range(2):
        memory.see(np.full((64, 64), 0.30, np.float32), np.array([0.0, 0, 0.30, 0]))  # it is gone
    assert abs(float(memory.at(under))) < 1e-4


def test_a_thin_thing_stays_though_most_rays_miss_it() -> None:
    thin, memory = np.eye(4), HeightMemory()
    thin[:2, 3] = 0.0225, 0.0025
    pen = Renderer(assemble([(box((0.006, 0.006, 0.17)), thin)]))
    held = []
    for height_m in np.linspace(0.21, 0.30, 30):
        hand = np.array([0, 0, height_m, 0.3])
        memory.see(pen.depth(top_down(*hand), VIEW.rays()), hand)
        held.append(float(memory.at(np.array([0.0225, 0.0025]))) > 0.165)
    assert held[0] and all(held)


@pytest.mark.parametrize("number", range(4))
def test_what_stands_is_not_forgotten_on_any_way_of_the_hand(number: int) -> None:
    scene, _, _ = numbered_scene(
        catalogue_set("test"),
        5,
        "test",
        number,
        count=6,
        walled=True,
        max_height_m=0.25,
        samples=50,
    )
    renderer, memory, rng = Renderer(scene), HeightMemory(), np.random.default_rng(number)
    step = 0.002
    heights = renderer.height_map(0.4, step)
    flat = minimum_filter(heights, 7), maximum_filter(heights, 7)
    i, j = np.nonzero((flat[1] - flat[0] < 0.004) & (heights > 0.02))  # no edge within 6 mm
    points, true = (np.stack([i, j], -1) - 200 + 0.5) * step, heights[i, j]
    shown = np.zeros(len(points), bool)
    hand = np.array([*rng.uniform(-0.1, 0.1, 2), 0.30, rng.uniform(-3, 3)])
    for _ in range(40):
        memory.see(renderer.depth(top_down(*hand), VIEW.rays()), hand)
        held = memory.at(points) > true - 0.006
        assert (held | ~shown).all(), "an object that stands was forgotten"
        shown |= held
        hand += [*rng.normal(0, 0.01, 2), -0.0035, rng.normal(0, 0.05)]
    assert shown.sum() > 100


def blocked_twin(memory: HeightMemory, hand: NDArray[np.float64]) -> float:
    """blocked_share of one hand, point by point and cell by cell."""
    points, counts, around = _probes(HAND)
    heights = []
    for point, cells in zip(points.astype(float), around, strict=True):
        at = in_base(point, hand)
        step = np.arange(-cells, cells + 1) * CELL_M
        square = at + np.stack(np.meshgrid(step, step), axis=-1)
        heights.append(np.nanmax(memory.at(square), initial=0.0))
    under, palm, top = (max(part) for part in np.split(np.array(heights), np.cumsum(counts)[:-1]))
    wanted = min(GRIP_SHARE * top, GRIP_M)
    depth = top - max(under, palm - HAND.finger_length_m)
    return float(np.clip((wanted - depth) / max(wanted, 0.005), 0, 1))


def remembered(*columns: tuple[float, float, float]) -> HeightMemory:
    """A memory of the table with columns of 40 by 40 mm: x, y, height [m]."""
    memory, hand = HeightMemory(), np.array([0.0, 0.0, 0.34, 0.0])
    view = np.full((64, 64), 0.34, np.float32)
    for x, y, height_m in columns:
        view = np.minimum(view, tower(x, y, height_m, hand))
    memory.see(view, hand)
    return memory


@pytest.mark.parametrize(
    ("columns", "least", "most"),
    [
        ([(0, 0, 0.05)], 0.0, 0.0),  # alone
        ([(0, 0, 0.05), (0.055, 0, 0.02)], 0.0, 0.0),  # a low neighbour leaves depth enough
        ([(0, 0, 0.05), (0.055, 0, 0.045)], 0.7, 1.0),  # a finger stands on the neighbour
        ([(0, 0, 0.05), (0.055, 0, 0.08)], 1.0, 1.0),
        ([(0, 0, 0.05), (0, 0.052, 0.10)], 0.3, 0.8),  # the palm meets it
        ([(0, 0, 0.05), (0, 0.10, 0.15)], 0.0, 0.0),  # beside the palm
        ([(0, 0, 0.15)], 0.0, 0.0),  # a tall one by itself: as deep as a finger is long
        ([], 0.0, 0.0),
    ],
)
def test_a_hand_that_a_neighbour_keeps_from_its_depth(
    columns: list[tuple[float, float, float]], least: float, most: float
) -> None:
    share = blocked_share(remembered(*columns), np.array([[0.0, 0.0, 0.3, 0.0]]), HAND)[0]
    assert least <= share <= most


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-0.05, 0.05),
    y=st.floats(-0.05, 0.05),
    yaw=st.floats(-3, 3),
    places=st.lists(
        st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(0.01, 0.12)), max_size=4
    ),
)
def test_blocked_shares_are_those_of_the_twin(
    x: float, y: float, yaw: float, places: list[tuple[float, float, float]]
) -> None:
    memory = remembered(*places)
    hand = np.array([x + 0.00037, y + 0.00041, 0.3, yaw + 0.00043])  # on no cell's border
    assert blocked_share(memory, hand[None], HAND)[0] == pytest.approx(
        blocked_twin(memory, hand), abs=1e-4
    )


def test_hands_that_are_blocked_in_truth_are_known_from_the_views() -> None:
    """Random hands over cluttered scenes, judged by the true heights every 2 mm: those that get no deeper
    than the top of what is between the jaws, and those that get as deep as wanted."""
    blocked: list[float] = []
    free: list[float] = []
    objects, rng, step = catalogue_set("test"), np.random.default_rng(0), 0.002
    inner, outer = HAND.opening_m / 2, HAND.opening_m / 2 + HAND.finger_thickness_m
    for number in range(3):
        scene, _, _ = numbered_scene(objects, 0, "test", number, HAND, count=10, circle_m=0.30)
        renderer, memory = Renderer(scene), HeightMemory()
        truth = renderer.height_map(0.5, step)
        own = [scene.faces[scene.face_object == k] for k in range(len(scene.placed))]
        places = [scene.vertices[faces, :2].mean(axis=(0, 1)).astype(float) for faces in own]
        for x, y in places:
            memory.see(
                renderer.depth(top_down(x, y, 0.3, 0), VIEW.rays()), np.array([x, y, 0.3, 0])
            )

        def highest(hand: NDArray[np.float64], x0: float, x1: float, width_m: float) -> float:
            across = np.arange(-width_m / 2, width_m / 2, step)
            at = in_base(np.stack(np.meshgrid(np.arange(x0, x1, step), across), axis=-1), hand)
            i, j = np.floor((at + 0.5) / step).astype(int).reshape(-1, 2).T
            return float(truth[i, j].max())  # noqa: B023

        for x, y in places * 10:
            hand = np.array([*rng.normal((x, y), 0.01), 0.3, rng.uniform(-3, 3)])
            under = max(highest(hand, -outer, -inner, 0.022), highest(hand, inner, outer, 0.022))
            palm = highest(hand, -HAND.palm_length_m / 2, HAND.palm_length_m / 2, HAND.palm_width_m)
            top = highest(hand, -inner, inner, 0.022)
            depth = top - max(under, palm - HAND.finger_length_m)
            share = blocked_share(memory, hand[None], HAND)[0]
            if depth <= 0:
                blocked.append(share)
            elif depth >= min(GRIP_SHARE * top, GRIP_M) + 0.005:
                free.append(share)
    assert len(blocked) > 20 and len(free) > 20
    assert np.quantile(blocked, 0.05) > 0.9
    assert np.quantile(free, 0.75) < 0.05


def test_nothing_is_blocked_before_the_first_view_or_outside_the_map() -> None:
    hands = np.array([[0.0, 0.0, 0.3, 0.0], [5.0, -5.0, 0.3, 1.0]])
    assert not blocked_share(HeightMemory(), hands, HAND).any()
    assert not blocked_share(remembered((0, 0.2, 0.1)), hands, HAND).any()
