"""rt.controller: Algorithm 1 as pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt import controller
from rt.pose import METRES_PER_RADIAN, grasp_distance
from rt.view import END_HEIGHT_M, START_HEIGHT_M

metres = st.floats(-0.3, 0.3)
hands = st.tuples(metres, metres, st.floats(0.1, 0.3), st.floats(-9, 9)).map(np.array)


@given(st.integers(2, 3000), st.integers(0, 1000))
def test_candidates_lie_in_the_region_and_staying_is_one(n: int, seed: int) -> None:
    actions = controller.candidates(np.random.default_rng(seed), n)
    assert actions.shape == (n, 3) and actions.dtype == np.float32
    assert actions.flags.c_contiguous
    np.testing.assert_array_equal(actions[0], 0)
    assert np.hypot(actions[:, 0], actions[:, 1]).max() <= controller.RADIUS_M * (1 + 1e-6)
    assert np.abs(actions[:, 2]).max() <= controller.TURN_RAD * (1 + 1e-6)


def test_the_first_half_fills_the_disc_evenly() -> None:
    actions = controller.candidates(np.random.default_rng(0), 40_000)[:20_000]
    radius = np.hypot(actions[:, 0], actions[:, 1]) / controller.RADIUS_M
    for part in (0.25, 0.5, 0.75):
        assert (radius < part).mean() == pytest.approx(part**2, abs=0.02)
        assert (np.abs(actions[:, 2]) < part * controller.TURN_RAD).mean() == pytest.approx(
            part, abs=0.02
        )


def test_there_are_candidates_at_every_scale() -> None:
    actions = controller.candidates(np.random.default_rng(0), 1024)
    reach = grasp_distance(actions[1:], np.zeros(3))
    for size in (0.06, 0.03, 0.015, 0.0075):
        assert ((reach < size) & (reach > size / 2)).sum() > 30


def test_the_same_generator_gives_the_same_candidates() -> None:
    a, b = (controller.candidates(np.random.default_rng(5), 100) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_the_least_distance_is_selected_and_staying_wins_a_tie() -> None:
    actions = controller.candidates(np.random.default_rng(0), 4)
    assert controller.select(actions, np.float32([0.3, 0.1, 0.05, 0.2])) == 2
    assert controller.select(actions, np.float32([0.1, 0.1, 0.1, 0.1])) == 0
    with pytest.raises(ValueError, match="4 actions but 3 distances"):
        controller.select(actions, np.zeros(3, np.float32))


@given(hands, hands, st.floats(0.01, 1.0))
def test_a_step_brings_the_hand_nearer_by_its_ratio(
    commanded: np.ndarray, goal: np.ndarray, ratio: float
) -> None:
    dx, dy, dyaw = controller.step(commanded, goal, ratio)
    after = commanded[[0, 1, 3]] + [dx, dy, dyaw]
    before_m = grasp_distance(commanded[[0, 1, 3]], goal[[0, 1, 3]])
    after_m = grasp_distance(after, goal[[0, 1, 3]])
    assert after_m == pytest.approx((1 - ratio) * before_m, abs=1e-9)
    assert abs(dyaw) <= ratio * np.pi / 2 + 1e-12


def test_the_descent_ends_at_the_end_height_after_75_iterations() -> None:
    z, cycles = START_HEIGHT_M, 0
    descent = (START_HEIGHT_M - END_HEIGHT_M) / controller.ITERATIONS
    while z > END_HEIGHT_M + 1e-9:
        z, cycles = controller.descend(z, descent, END_HEIGHT_M), cycles + 1
    assert cycles == 75
    assert controller.descend(END_HEIGHT_M, descent, END_HEIGHT_M) == END_HEIGHT_M


def test_kinematic_noise_is_as_long_as_the_factor_times_the_displacement() -> None:
    rng = np.random.default_rng(0)
    move = np.array([0.010, -0.004, np.radians(6)])
    metric = np.array([1, 1, METRES_PER_RADIAN])
    length = float(np.linalg.norm(move * metric))
    noise = np.array([controller.disturb(rng, move, 0.4) - move for _ in range(4000)]) * metric
    np.testing.assert_allclose(noise.std(axis=0), 0.4 * length, rtol=0.05)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.02 * length)


def test_no_displacement_has_no_noise() -> None:
    still = controller.disturb(np.random.default_rng(0), np.zeros(3), 0.4)
    np.testing.assert_array_equal(still, 0)


@given(st.integers(0, 100))
def test_following_a_perfect_distance_finds_the_grasp(seed: int) -> None:
    """The paper's loop without arm or camera: 75 steps on the true distance."""
    rng = np.random.default_rng(seed)
    hand = np.array([0.0, 0.0, 0.3, 0.0])
    grasp = np.array([*rng.uniform(-0.1, 0.1, 2), 0.0, rng.uniform(-np.pi, np.pi)])
    for _ in range(75):
        actions = controller.candidates(rng, 256)
        at = hand[[0, 1, 3]] + actions
        best = controller.select(actions, grasp_distance(at, grasp[[0, 1, 3]]).astype(np.float32))
        goal = np.array([*at[best, :2], 0, at[best, 2]])
        hand[[0, 1, 3]] += controller.step(hand, goal)
    assert grasp_distance(hand[[0, 1, 3]], grasp[[0, 1, 3]]) < 0.002


class MirrorBlind:
    """A network that is right but for an error that depends on which side it looks from."""

    def __init__(self, error_m: float) -> None:
        self.error_m = error_m

    def __call__(self, depth: np.ndarray, actions: np.ndarray) -> np.ndarray:
        grasp = np.argwhere(depth > 0)[0][::-1] - 31.5  # (u, v): x right, y down
        miss = np.hypot(actions[:, 0] - 0.001 * grasp[0], actions[:, 1] - 0.001 * grasp[1])
        turn = METRES_PER_RADIAN * (actions[:, 2] - np.sign(grasp[0] * grasp[1]) * 0.3)
        error = self.error_m * np.sign(actions[:, 0] - 0.001 * grasp[0])
        return np.asarray(np.hypot(miss, turn) + error, np.float32)


def test_four_looks_agree_on_the_truth_and_cancel_what_depends_on_the_side() -> None:
    view = np.zeros((64, 64), np.float32)
    view[20, 50] = 0.3
    actions = controller.candidates(np.random.default_rng(0), 500)
    four = controller.Symmetric(0.2, 500, np.random.default_rng(0))
    true = MirrorBlind(0.0)(view, actions)
    np.testing.assert_allclose(four.weigh(MirrorBlind(0.0), view, actions), true, atol=1e-6)
    np.testing.assert_allclose(four.weigh(MirrorBlind(0.01), view, actions), true, atol=1e-6)
    far = actions + np.array([0.1, 0, 0], np.float32)  # nothing near: one look
    once = MirrorBlind(0.01)(view, far)
    np.testing.assert_array_equal(four.weigh(MirrorBlind(0.01), view, far), once)


@pytest.mark.parametrize("name", list(controller.CONTROLLERS))
def test_every_controller_goes_part_of_the_way_to_its_goal(name: str) -> None:
    control = controller.CONTROLLERS[name](0.25, 64, np.random.default_rng(0))
    view = np.zeros((64, 64), np.float32)
    view[20, 50] = 0.3
    seen_from, commanded = np.array([0.1, 0.2, 0.25, 2.0]), np.array([0.11, 0.19, 0.24, 2.1])
    told = control(MirrorBlind(0.0), view, seen_from, commanded)
    assert told.distances[told.best] == told.distances.min() and len(told.actions) == control.n
    np.testing.assert_allclose(told.goal, controller.place(seen_from, told.actions[told.best]))
    np.testing.assert_allclose(told.move, controller.step(commanded, told.goal, 0.25))
