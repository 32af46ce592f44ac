"""rt.pose: transforms form a group, views and actions are each other's inverse, the metric is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.pose import (
    METRES_PER_RADIAN,
    from_top_down,
    grasp_distance,
    interpolate,
    inverse,
    planar,
    to_view,
    top_down,
    wrap_theta,
)

metres = st.floats(-0.5, 0.5)
angles = st.floats(-10.0, 10.0)
actions = st.tuples(metres, metres, angles).map(np.array)
hands = st.tuples(metres, metres, metres, angles).map(np.array)


def same_axis(a: float, b: float) -> bool:
    return bool(abs(wrap_theta(a - b)) < 1e-9)


@given(actions, actions, actions)
def test_planar_actions_are_a_group(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    A, B, C = planar(a), planar(b), planar(c)
    np.testing.assert_allclose((A @ B) @ C, A @ (B @ C), atol=1e-12)
    np.testing.assert_allclose(A @ inverse(A), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(inverse(A @ B), inverse(B) @ inverse(A), atol=1e-12)
    np.testing.assert_array_equal(planar(np.zeros(3)), np.eye(4))


@given(hands)
def test_a_hand_that_looks_down_is_a_rotation_with_its_approach_down(hand: np.ndarray) -> None:
    T = top_down(*hand)
    np.testing.assert_allclose(T[:3, :3].T @ T[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    np.testing.assert_array_equal(T[:3, 2], [0, 0, -1])
    np.testing.assert_allclose(T[:3, 0], [np.cos(hand[3]), np.sin(hand[3]), 0], atol=1e-12)
    np.testing.assert_allclose(top_down(*from_top_down(T)), T, atol=1e-12)


@given(hands, actions)
def test_to_view_is_the_inverse_of_applying_an_action(hand: np.ndarray, action: np.ndarray) -> None:
    reached = np.array(from_top_down(top_down(*hand) @ planar(action)))
    seen = to_view(reached, hand)
    np.testing.assert_allclose(seen[:2], action[:2], atol=1e-9)
    assert same_axis(seen[2], action[2])
    assert reached[2] == pytest.approx(hand[2])


@given(hands, hands)
def test_the_action_that_to_view_names_reaches_the_pose(hand: np.ndarray, pose: np.ndarray) -> None:
    reached = from_top_down(top_down(*hand) @ planar(to_view(pose, hand)))
    np.testing.assert_allclose(reached[:2], pose[:2], atol=1e-9)
    assert same_axis(reached[3], pose[3])


def test_to_view_broadcasts() -> None:
    rng = np.random.default_rng(0)
    poses, hands_ = rng.normal(size=(5, 1, 4)), rng.normal(size=(1, 3, 4))
    assert to_view(poses, hands_).shape == (5, 3, 3)
    np.testing.assert_allclose(
        to_view(poses, hands_)[4, 1], to_view(poses[4, 0], hands_[0, 1]), atol=1e-12
    )


@given(actions, actions)
def test_metric_is_symmetric_and_zero_only_on_equal_grasps(a: np.ndarray, b: np.ndarray) -> None:
    assert grasp_distance(a, b) == pytest.approx(grasp_distance(b, a), abs=1e-9)
    assert grasp_distance(a, a) == 0
    if np.abs(a[:2] - b[:2]).max() > 1e-6:
        assert grasp_distance(a, b) > 0


@given(actions, actions, actions)
def test_metric_obeys_the_triangle_inequality(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    assert grasp_distance(a, c) <= grasp_distance(a, b) + grasp_distance(b, c) + 1e-9


@given(actions, actions, st.integers(-3, 3))
def test_metric_is_equal_modulo_half_a_turn(a: np.ndarray, b: np.ndarray, turns: int) -> None:
    turned = b + np.array([0, 0, turns * np.pi])
    assert grasp_distance(a, turned) == pytest.approx(grasp_distance(a, b), abs=1e-9)


@given(hands, hands, hands)
def test_metric_does_not_depend_on_who_looks(
    a: np.ndarray, b: np.ndarray, hand: np.ndarray
) -> None:
    in_world = grasp_distance(a[[0, 1, 3]], b[[0, 1, 3]])
    in_view = grasp_distance(to_view(a, hand), to_view(b, hand))
    assert in_view == pytest.approx(in_world, abs=1e-9)


def test_a_degree_weighs_a_millimetre() -> None:
    assert grasp_distance([0, 0, np.radians(30)], [0, 0, 0]) == pytest.approx(0.030)
    assert grasp_distance([0.003, 0.004, 0], [0, 0, 0]) == pytest.approx(0.005)
    assert pytest.approx(0.001 * 180 / np.pi) == METRES_PER_RADIAN


@given(st.floats(-1e6, 1e6))
def test_wrapped_theta_is_in_range_and_the_same_axis(theta: float) -> None:
    wrapped = float(wrap_theta(theta))
    assert -np.pi / 2 <= wrapped < np.pi / 2
    assert abs(np.sin(wrapped - theta)) < 1e-8


def test_wrap_keeps_the_type_and_closes_its_upper_end() -> None:
    assert wrap_theta(np.float32([1.0, 2.0])).dtype == np.float32
    for theta in (-np.pi / 2, np.pi / 2, -np.nextafter(np.pi / 2, 2)):
        assert -np.pi / 2 <= wrap_theta(theta) < np.pi / 2


@given(hands, hands)
def test_interpolation_starts_and_ends_at_its_poses(a: np.ndarray, b: np.ndarray) -> None:
    A, B = top_down(*a), top_down(*b)
    np.testing.assert_allclose(interpolate(A, B, 0.0), A, atol=1e-9)
    # Half a turn has no shortest way; anything else is reached.
    if abs(np.cos((a[3] - b[3]) / 2)) > 1e-3:
        np.testing.assert_allclose(interpolate(A, B, 1.0), B, atol=1e-6)


@given(st.floats(-3.0, 3.0), st.floats(0.0, 1.0))
def test_interpolation_turns_evenly(turn: float, part: float) -> None:
    A, B = top_down(0, 0, 0.3, 0.2), top_down(0.1, 0, 0.2, 0.2 + turn)
    x, _, z, yaw = from_top_down(interpolate(A, B, part))
    assert x == pytest.approx(0.1 * part, abs=1e-12)
    assert z == pytest.approx(0.3 - 0.1 * part, abs=1e-12)
    assert yaw == pytest.approx((0.2 + turn * part + np.pi) % (2 * np.pi) - np.pi, abs=1e-9)
