"""rt.controller.motion: the shift of a scene between two views, and its velocity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rt.controller.motion import (
    FARTHEST_M,
    FASTEST_M_S,
    LOST_M,
    MOST_RAD,
    SceneMotion,
    Shift,
)
from rt.pose import to_view
from rt.view import VIEW

BLOCKS = np.array([[0.01, 0.0, 0.0, 0.3], [-0.05, 0.045, 0.0, 1.1]])
"""Hands (2, 4) at the middle of two blocks of 60 by 25 mm, 50 mm high, closing along their length."""


def view_of(
    blocks: NDArray[np.float64], hand: NDArray[np.float64], height_m: float = 0.05
) -> NDArray[np.float32]:
    """Depth (64, 64) of blocks on the table, straight down: their walls cover nothing."""
    rays = VIEW.rays().astype(np.float64)
    depth = np.full((64, 64), hand[2])
    top = rays[..., :2] * (hand[2] - height_m)
    for x, y, turn in to_view(blocks, hand):
        c, s = np.cos(turn), np.sin(turn)
        u = (top[..., 0] - x) * c + (top[..., 1] - y) * s
        v = (top[..., 1] - y) * c - (top[..., 0] - x) * s
        depth[(np.abs(u) < 0.03) & (np.abs(v) < 0.0125)] = hand[2] - height_m
    return depth.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(-0.008, 0.008),
    y=st.floats(-0.008, 0.008),
    turn=st.floats(-0.12, 0.12),
    yaw=st.floats(-3, 3),
    step=st.floats(-0.01, 0.01),
)
def test_a_shift_is_found_though_the_hand_moves_too(
    x: float, y: float, turn: float, yaw: float, step: float
) -> None:
    hand = np.array([0.02, -0.01, 0.25, yaw])
    later = hand + np.array([step, -step, -0.002, 0.05])
    truth = Shift(BLOCKS[0, :2], np.array([x, y]), turn)
    motion = SceneMotion()
    assert motion.see(view_of(BLOCKS, hand), hand, BLOCKS[0, :2], 0.0) is None
    found = motion.see(view_of(truth.carry(BLOCKS), later), later, BLOCKS[0, :2], 1 / 30)
    assert found is not None and not motion.lost
    # A view's pixel is 4.4 mm on the blocks; the shift is known to less than that.
    if np.hypot(x, y) > 0.004:
        assert np.linalg.norm(found.xy_m - truth.xy_m) < 0.5 * 2 * 0.0044
        assert abs(found.turn_rad - turn) < 0.06
    else:
        assert np.linalg.norm(found.xy_m) < 0.006


@given(turn=st.floats(-3, 3), x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_a_carried_hand_keeps_its_place_in_the_scene(turn: float, x: float, y: float) -> None:
    shift = Shift(np.array([0.1, 0.2]), np.array([x, y]), turn)
    hands = np.array([[0.3, 0.2, 0.1, 0.5], [0.0, 0.1, 0.2, -0.4]])
    moved = shift.carry(hands)
    np.testing.assert_allclose(to_view(moved[1], moved[0]), to_view(hands[1], hands[0]), atol=1e-12)
    at_centre = shift.carry(np.array([[0.1, 0.2, 0.0, 0.0]]))[0]
    np.testing.assert_allclose(at_centre, [0.1 + x, 0.2 + y, 0.0, turn], atol=1e-12)


@pytest.mark.parametrize("speed_m_s", [0.0, 0.04, 0.1, 0.25])
def test_a_conveyor_is_followed_and_a_still_scene_has_no_velocity(speed_m_s: float) -> None:
    motion, hand, truth = SceneMotion(), np.array([0.02, -0.01, 0.28, 0.4]), np.array([0.8, 0.6])
    blocks = BLOCKS.copy()
    for k in range(20):
        hand = hand + np.array([0.001, 0.001, -0.002, 0.01])
        motion.see(view_of(blocks, hand), hand, blocks[0, :2], k / 30)
        blocks[:, :2] += speed_m_s / 30 * truth
        hand[:2] += speed_m_s / 30 * truth
    assert np.linalg.norm(motion.velocity_m_s - speed_m_s * truth) < max(0.02, 0.1 * speed_m_s)
    if speed_m_s == 0:
        assert np.array_equal(motion.velocity_m_s, [0, 0])


@pytest.mark.parametrize("turn", np.linspace(0, 3, 7))
def test_a_slow_conveyor_is_known_by_the_longest_memory(turn: float) -> None:
    """At 10 to 20 mm/s single views are wrong by as much; the hand stays above the scene, as it does."""
    motion, hand = SceneMotion(), np.array([0.02, -0.01, 0.28, 0.4])
    rng = np.random.default_rng(0)
    truth = 0.012 * np.array([np.cos(turn), np.sin(turn)])
    for k in range(45):
        shift = np.array([*truth * k / 30, 0, 0])
        view = view_of(BLOCKS + shift, hand + shift)
        view += rng.normal(0, 0.001, view.shape).astype(np.float32)
        motion.see(view, hand + shift, BLOCKS[0, :2] + shift[:2], k / 30)
    assert np.linalg.norm(motion.velocity_m_s - truth) < 0.004


@pytest.mark.parametrize("seed", range(5))
def test_an_arm_that_drifts_is_no_conveyor(seed: int) -> None:
    """It is off by a quarter of its way, always to the same side of it, and the scene seems to move."""
    rng, motion = np.random.default_rng(seed), SceneMotion()
    told = np.array([0.02, -0.01, 0.28, 0.4])
    is_at, goal = told.copy(), rng.uniform(-0.03, 0.03, 2)
    for k in range(60):
        motion.see(view_of(BLOCKS, is_at), told, BLOCKS[0, :2], k / 30)
        assert np.linalg.norm(motion.velocity_m_s) < 0.004, k
        move = 0.05 * (goal - told[:2])
        told = told + np.array([*move, -0.002, 0])
        is_at = is_at + np.array([*(1.25 * move), -0.002, 0])


@pytest.mark.parametrize("height_m", [0.012, 0.05])
@pytest.mark.parametrize(
    ("first", "views", "speed_m_s"), [(20, 12, 0.1), (25, 9, 0.2), (50, 7, 0.2)]
)
def test_a_push_that_is_over_is_no_velocity(
    height_m: float, first: int, views: int, speed_m_s: float
) -> None:
    """In the middle of the longest memory, whose halves are then alike, or shortly before. A thing of 12 mm
    has so little slope that its velocity takes 0.4 s to fade; it never did."""
    motion, hand, blocks = SceneMotion(), np.array([0.0, 0.0, 0.28, 0.0]), BLOCKS.copy()
    for k in range(75):
        blocks[:, 0] += speed_m_s / 30 * (first <= k < first + views)
        motion.see(view_of(blocks, hand, height_m), hand, blocks[0, :2], k / 30)
        over = k > first + views + (4 if height_m > 0.02 else 12)
        assert not over or np.linalg.norm(motion.velocity_m_s) < 0.004, k
    assert np.allclose(blocks[0, 0] - BLOCKS[0, 0], speed_m_s * views / 30)


def test_a_tall_thing_below_a_hand_that_comes_down_stands_still() -> None:
    """Its top leaves the view from all sides on the way, more on one than on the other."""
    for x in (0.0, 0.015, 0.03):
        motion, blocks = SceneMotion(), BLOCKS[:1] + np.array([x, 0, 0, 0])
        for k in range(75):
            hand = np.array([0.01, 0.0, 0.30 - 0.002 * k, 0.3])
            motion.see(view_of(blocks, hand, 0.11), hand, blocks[0, :2], k / 30)
            assert np.linalg.norm(motion.velocity_m_s) < 0.004, (x, k)


def test_a_table_without_anything_stands_still() -> None:
    motion, hand = SceneMotion(), np.array([0.0, 0.0, 0.28, 0.0])
    for k in range(40):  # no slope to follow
        motion.see(np.full((64, 64), 0.28, np.float32), hand, np.zeros(2), k / 30)
    assert np.array_equal(motion.velocity_m_s, [0, 0])


def test_one_jump_is_no_velocity_and_another_scene_is_lost() -> None:
    motion, hand = SceneMotion(), np.array([0.0, 0.0, 0.28, 0.0])
    for k in range(12):
        moved = BLOCKS + np.array([0.02, 0, 0, 0]) * (k >= 6)
        shift = motion.see(view_of(moved, hand), hand, BLOCKS[0, :2], k / 30)
        if k == 6:
            assert shift is not None and np.linalg.norm(shift.xy_m - [0.02, 0]) < 0.004
        assert np.array_equal(motion.velocity_m_s, [0, 0])
    wall = np.full((64, 64), hand[2] - 0.1, np.float32)
    assert motion.see(wall, hand, BLOCKS[0, :2], 1.0) is None and motion.lost
    assert LOST_M < 0.05


def test_the_same_view_again_is_no_motion() -> None:
    motion, hand = SceneMotion(), np.array([0.0, 0.0, 0.28, 0.0])
    view = view_of(BLOCKS, hand)
    assert motion.see(view, hand, hand[:2], 1.0) is None
    assert motion.see(view, hand, hand[:2], 1.0) is None and not motion.lost


def wavy(seed: int) -> NDArray[np.float32]:
    """A view (64, 64) of random slopes and steps: two of them have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:64, :64] / 64
    depth = 0.2 + rng.uniform(-0.05, 0.05) * u + rng.uniform(-0.05, 0.05) * v
    depth += rng.uniform(0, 0.01) * np.sin(rng.uniform(1, 9) * u + rng.uniform(1, 9) * v)
    depth[rng.random((64, 64)) < rng.uniform(0, 0.3)] = 0
    return depth.astype(np.float32)


def test_a_search_that_errs_leads_nowhere_far() -> None:
    """A goal was carried 1.4 m away by the last step of a search, and the network refused to be asked."""
    hand = np.array([0.0, 0.0, 0.25, 0.0])
    for seed in range(300):
        motion = SceneMotion()
        motion.see(wavy(2 * seed), hand, hand[:2], 0.0)
        shift = motion.see(wavy(2 * seed + 1), hand, hand[:2], 1 / 30)
        if shift is not None:
            assert np.linalg.norm(shift.xy_m) <= FARTHEST_M and abs(shift.turn_rad) <= MOST_RAD
        assert np.linalg.norm(motion.velocity_m_s) <= FASTEST_M_S
