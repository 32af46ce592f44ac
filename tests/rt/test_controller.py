"""rt.controller: Algorithm 1 as pure functions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt import controller
from rt.controller.motion import Shift
from rt.grasp.memory import HeightMemory
from rt.hand import load_hand
from rt.pose import METRES_PER_RADIAN, grasp_distance, wrap_theta
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


@settings(deadline=None)
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


class SideBlind:
    """A network that is right about the grasp at a view's brightest pixel, but for an error that depends
    on which side of it an action is."""

    def __init__(self, error_m: float = 0.0, angle: float = 0.3) -> None:
        self.error_m, self.angle = error_m, angle

    def __call__(self, depth: np.ndarray, actions: np.ndarray) -> np.ndarray:
        bright, second = np.argsort(depth.ravel())[[-1, -2]]
        (v, v2), (u, u2) = np.array(np.divmod([bright, second], 64)) - 31.5
        grasp = np.array([0.001 * u, 0.001 * v, np.arctan2(v2 - v, u2 - u)])
        error = self.error_m * np.sign(actions[:, 0] - grasp[0])
        return np.asarray(grasp_distance(actions, grasp) + error, np.float32)


def spot(row: int = 20, column: int = 50, to: tuple[int, int] = (3, 8)) -> np.ndarray:
    """A view with a grasp at a pixel, closing toward another."""
    view = np.zeros((64, 64), np.float32)
    view[row, column], view[row + to[0], column + to[1]] = 0.3, 0.2
    return view


def test_a_view_and_its_symmetries_show_the_same_distances() -> None:
    actions = controller.candidates(np.random.default_rng(0), 500)
    true = SideBlind()(spot(), actions)
    seen = [SideBlind()(*controller.symmetry(k, spot(), actions)) for k in range(8)]
    np.testing.assert_allclose(seen, np.tile(true, (8, 1)), atol=2e-6)
    views = {controller.symmetry(k, spot(), actions)[0].tobytes() for k in range(8)}
    assert len(views) == 8
    # What depends on the side is gone from their mean.
    seen = [SideBlind(0.01)(*controller.symmetry(k, spot(), actions)) for k in range(4)]
    np.testing.assert_allclose(np.mean(seen, axis=0), true, atol=2e-6)


@given(hands, st.integers(0, 99))
def test_all_places_are_the_places(hand: np.ndarray, seed: int) -> None:
    actions = controller.candidates(np.random.default_rng(seed), 5)
    every = controller.place_all(hand, actions)
    for action, found in zip(actions, every, strict=True):
        np.testing.assert_allclose(found, controller.place(hand, action), atol=1e-9)


@pytest.mark.parametrize("name", list(controller.CONTROLLERS))
def test_every_controller_goes_part_of_the_way_to_its_goal(name: str) -> None:
    control = controller.CONTROLLERS[name](0.25, 64, np.random.default_rng(0))
    commanded = np.array([0.11, 0.19, 0.24, 2.1])
    for k in range(3):
        seen_from = np.array([0.1, 0.2 + 0.01 * k, 0.25, 2.0])
        decision = control(SideBlind(), spot(), seen_from, commanded)
        assert len(decision.actions) == len(decision.distances) >= control.n
        if name != "first_look":  # which weighs a dense map in its first eight views
            assert len(decision.actions) == control.n
        place = controller.place(seen_from, decision.actions[decision.best])
        assert grasp_distance(decision.goal[[0, 1, 3]], place[[0, 1, 3]]) < 1e-6
        np.testing.assert_allclose(decision.move, controller.step(commanded, decision.goal, 0.25))


def test_what_was_forgotten_has_no_say() -> None:
    """After `forget` the ensemble decides as one that has seen nothing, with the same chance."""
    hand = np.array([0.1, 0.2, 0.25, 2.0])
    decision = []
    for before in (0, 4):
        control = controller.Ensemble(0.2, 64, np.random.default_rng(0))
        for k in range(before):
            control(SideBlind(0.02), spot(20 + k), hand, hand)
        control.forget()
        control.rng, control.symmetry = np.random.default_rng(1), -1
        decision.append(control(SideBlind(), spot(), hand, hand))
    np.testing.assert_array_equal(decision[0].actions, decision[1].actions)
    np.testing.assert_array_equal(decision[0].goal, decision[1].goal)
    controller.Paper(0.2, 64, np.random.default_rng(0)).forget()  # has nothing to forget


class World:
    """Grasps in base and a network that knows them, with an error of its own for every candidate, and
    one that stands still in the view: where it takes things to be."""

    def __init__(
        self, grasps: np.ndarray, error_m: float, seed: int = 0, off_m: tuple[float, float] = (0, 0)
    ) -> None:
        self.grasps, self.error_m, self.rng = grasps, error_m, np.random.default_rng(seed)
        self.off = np.array([*off_m, 0.0], np.float32)
        self.hand = np.array([0.0, 0.0, 0.3, 0.0])

    def see(self, hand: np.ndarray) -> np.ndarray:
        self.hand = hand
        return spot()

    def __call__(self, depth: np.ndarray, actions: np.ndarray) -> np.ndarray:
        # The view is marked, so its symmetry can be told, and undone.
        for k in range(8):
            if np.array_equal(controller.symmetry(k, spot(), actions)[0], depth):
                break
        inverse = {5: 6, 6: 5}.get(k, k)
        true = controller.symmetry(inverse, depth, actions - self.off)[1]
        places = controller.place_all(self.hand, true)[:, None, [0, 1, 3]]
        nearest = grasp_distance(places, self.grasps[None]).min(axis=1)
        return np.asarray(nearest + self.error_m * self.rng.standard_normal(len(true)), np.float32)

    def run(self, control: controller.Paper, cycles: int = 75) -> tuple[np.ndarray, np.ndarray]:
        """The hand at the end, and every goal (cycles, 4)."""
        hand, goals = np.array([0.0, 0.0, 0.3, 0.0]), []
        for _ in range(cycles):
            decision = control(self, self.see(hand), hand, hand)
            goals.append(decision.goal)
            hand = hand + np.insert(decision.move, 2, 0.0)
        return hand, np.array(goals)

    def away_m(self, hand: np.ndarray) -> float:
        return float(grasp_distance(hand[[0, 1, 3]], self.grasps).min())


def controllers(seed: int) -> tuple[controller.Paper, controller.Paper]:
    return tuple(  # type: ignore[return-value]
        controller.CONTROLLERS[name](0.2, 256, np.random.default_rng(seed))
        for name in ("paper", "ensemble")
    )


def test_an_error_that_stands_still_in_the_view_ends_in_the_mean_of_its_symmetries() -> None:
    ends: list[list[float]] = []
    for seed in range(6):
        grasp = np.append(np.random.default_rng(seed).uniform(-0.05, 0.05, 2), 0.4)[None]
        worlds = [World(grasp, 0.0, seed, (0.006, 0.003)) for _ in range(2)]
        pairs = zip(worlds, controllers(seed), strict=True)
        ends.append([world.away_m(world.run(control)[0]) for world, control in pairs])
    paper, ensemble = np.median(ends, axis=0)
    assert paper > 0.005 and ensemble < 0.4 * paper


def test_it_does_not_turn_back_and_forth_between_two_grasps() -> None:
    """At one place, closing along either of two axes at right angles, both as far from the start."""
    grasps = np.array([[0.01, 0.0, np.pi / 4], [0.01, 0.0, -np.pi / 4]])
    flips = []
    for k in (0, 1):
        total = 0
        for seed in range(6):
            _, goals = World(grasps, 0.01, seed).run(controllers(seed)[k], cycles=40)
            side = np.sign(wrap_theta(goals[:, 3]))
            total += int((side[1:] != side[:-1]).sum())
        flips.append(total)
    assert flips[1] < 0.5 * flips[0]


def test_it_leaves_an_object_without_a_grasp() -> None:
    """Nothing within the paper's reach, and a grasp beyond it that the paper's candidates cannot tell."""

    class Plateau(World):
        def __call__(self, depth: np.ndarray, actions: np.ndarray) -> np.ndarray:
            return np.minimum(super().__call__(depth, actions), np.float32(0.03))

    for seed in range(4):
        grasp = np.array([[0.09, 0.06, 0.1]])
        paper, ensemble = controllers(seed)
        assert Plateau(grasp, 0.0).away_m(Plateau(grasp, 0.0).run(paper)[0]) > 0.05
        world = Plateau(grasp, 0.0)
        assert world.away_m(world.run(ensemble)[0]) < 0.005


def test_it_lets_go_of_a_goal_that_moved_away() -> None:
    world, control = World(np.array([[0.02, 0.0, 0.0]]), 0.003), controllers(0)[1]
    world.run(control, cycles=40)
    world.grasps = np.array([[0.02, 0.05, 0.0]])
    assert world.away_m(world.run(control, cycles=40)[0]) < 0.006


def test_goals_that_the_scene_carries_out_of_sight_are_forgotten() -> None:
    """A scene that goes 1.4 m in a view: no candidate is farther than what a view can show."""

    class Fast:
        lost, velocity_m_s = False, np.zeros(2)

        def see(self, *_: object) -> Shift:
            return Shift(np.zeros(2), np.array([1.2, 0.7]), 0.3)

    world, control = World(np.array([[0.02, 0.0, 0.0]]), 0.0), controllers(0)[1]
    assert isinstance(control, controller.Ensemble)
    control.motion = Fast()  # type: ignore[assignment]
    hand = np.array([0.0, 0.0, 0.3, 0.0])
    for _ in range(20):
        decision = control(world, world.see(hand), hand, hand)
        assert np.hypot(*decision.actions[:, :2].T).max() < 0.45
        assert np.hypot(*decision.goal[:2]) < 0.45


class Doubtful(World):
    """A network with a probability: where it has none of a grasp, its distance is of no use."""

    def __init__(self, grasps: np.ndarray, decoy: np.ndarray) -> None:
        super().__init__(np.concatenate([grasps, decoy]), 0.0)
        self.true, self.decoy = grasps, decoy

    def predict(self, depth: np.ndarray, actions: np.ndarray) -> SimpleNamespace:
        distance = self(depth, actions)
        every, self.grasps = self.grasps, self.true
        probability = (self(depth, actions) < 0.015).astype(np.float32)
        self.grasps = every
        return SimpleNamespace(distance=distance, probability=probability)


@pytest.mark.parametrize("name", list(controller.CONTROLLERS))
def test_a_probability_tells_a_grasp_from_what_looks_like_one(name: str) -> None:
    """Two places with no distance to go, of which the nearer one has no probability."""
    world = Doubtful(np.array([[0.045, 0.0, 0.0]]), np.array([[-0.02, 0.0, 0.0]]))
    hand, _ = world.run(controller.CONTROLLERS[name](0.2, 512, np.random.default_rng(0)))
    assert grasp_distance(hand[[0, 1, 3]], world.true[0]) < 0.008


def test_scores_are_distances_where_there_is_no_probability() -> None:
    world = World(np.zeros((1, 3)), 0.0)
    actions = controller.candidates(np.random.default_rng(0), 16)
    distances, scores, _ = controller.ask(world, spot(), actions)
    np.testing.assert_array_equal(distances, scores)
    doubtful = Doubtful(np.zeros((1, 3)), np.ones((1, 3)))
    distances, scores, _ = controller.ask(doubtful, spot(), actions)
    near = distances < 0.015
    np.testing.assert_array_equal(scores[near], distances[near])
    np.testing.assert_allclose(scores[~near], distances[~near] + controller.DOUBT_WEIGHT_M)


def test_the_first_look_chooses_from_the_whole_view_and_is_not_drawn_aside() -> None:
    """A bait beside the hand that looks like 1 cm from a grasp, and a grasp 0.12 m away."""
    grasp = np.array([[0.10, 0.07, 0.4]])

    class Baited(World):
        def __call__(self, depth: np.ndarray, actions: np.ndarray) -> np.ndarray:
            far = super().__call__(depth, actions)
            true, self.grasps = self.grasps, np.array([[-0.03, 0.0, 0.0]])
            bait = super().__call__(depth, actions) + np.float32(0.01)
            self.grasps = true
            return np.minimum(far, bait)

    for name, found in (("paper", False), ("first_look", True)):
        world = Baited(grasp, 0.0)
        hand, _ = world.run(controller.CONTROLLERS[name](0.2, 256, np.random.default_rng(0)))
        assert (world.away_m(hand) < 0.005) == found


def test_a_first_look_weighs_the_same_places_in_eight_views_and_then_n_candidates() -> None:
    control = controller.FirstLook(0.2, 256, np.random.default_rng(0))
    side = 15  # the largest odd one of which 18 turns cost at most 20 * 256 candidates
    weighed = []
    for k in range(10):
        seen_from = np.array([0.0, 0.004 * k, 0.3, 0.1])
        decision = control(SideBlind(), spot(), seen_from, seen_from)
        assert np.array_equal(decision.actions[0], [0, 0, 0])
        weighed.append(len(decision.actions))
    assert weighed[:8] == [side**2 * 18 + 1 + k for k in range(8)]
    assert weighed[8:] == [256, 256]


def test_a_target_draws_the_hand_past_a_grasp_that_is_as_good() -> None:
    for name in ("paper", "ensemble", "first_look"):
        for wanted in (0.04, -0.04):
            world = World(np.array([[0.04, 0.0, 0.0], [-0.04, 0.0, 0.0]]), 0.0)
            control = controller.CONTROLLERS[name](0.2, 256, np.random.default_rng(0))
            control.around = controller.Surroundings(target=controller.TargetPoint((wanted, 0.0)))
            hand, _ = world.run(control)
            assert abs(hand[0] - wanted) < 0.006, name


def test_jaws_on_unseen_ground_are_worse_than_another_grasp() -> None:
    shape, memory = load_hand(), HeightMemory()
    memory.see(np.full((64, 64), 0.3, np.float32), np.array([0.0, 0.0, 0.3, 0.0]))
    memory.heights_m[:, 96 + 12 :] = np.nan  # nothing was seen beyond x = 0.06 m
    control = controller.Paper(0.2, 256, np.random.default_rng(0))
    control.around = controller.Surroundings(heights=memory, hand=shape)
    places = np.array([[-0.02, 0, 0.3, 0.0], [0.05, 0, 0.3, 0.0], [0.2, 0, 0.3, 0.0]])
    penalty = control.penalties_m(places)
    np.testing.assert_allclose(
        penalty, [0, controller.algorithm.UNSEEN_M / 2, controller.algorithm.UNSEEN_M]
    )
