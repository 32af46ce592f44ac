"""Algorithm 1 (Viereck et al. 2017) as pure functions of (distances, state).

A hand that looks straight down is (4,) float64 of x, y, z [m], yaw [rad] in base (rt.pose). Each
period: draw `candidates` around the hand, ask the network for their distances, `select` the least,
go a fraction of the way there (`step`), and `descend` by a constant amount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rt.pose import METRES_PER_RADIAN, from_top_down, planar, to_view, top_down, wrap_theta
from rt.tools.resolve import resolve

RADIUS_M = 0.06
"""Greatest displacement of a candidate: local, so that the hand follows the gradient to the nearest object
and not the global minimum (the paper's Section III-C); wide enough to span most of one object, because
the distances of candidates that are all on one slope differ by little more than the network's error."""

TURN_RAD = RADIUS_M / METRES_PER_RADIAN
"""60 degrees to either side: as far in the grasp metric as RADIUS_M, so that no direction of the
metric is explored further than another. A grasp at right angles is reached by turning toward it."""

HALVINGS = 5
"""Half of the candidates fill the region evenly; the other half fill ever smaller copies of it, down to
2^-5 of its size. Evenly alone, 256 candidates lie 11 mm apart in the metric, and a hand closer than that
to a grasp finds nothing better than to stay."""

RATIO = 0.2
"""Fraction of the way to the goal in one iteration (the paper's rho in simulation)."""

ITERATIONS = 75
"""From the start height to the end height (the paper's experiment in simulation)."""


def candidates(
    rng: np.random.Generator, n: int, radius_m: float = RADIUS_M, turn_rad: float = TURN_RAD
) -> NDArray[np.float32]:
    """Candidate actions around the hand, (n, 3) float32 of x, y [m], theta [rad].

    Uniform in the disc of that radius and in [-turn, turn], half of them scaled down (HALVINGS). The
    first is the zero action: staying is always considered, and preferred to anything no better.
    """
    radius, angle, turn = rng.random((3, n), dtype=np.float32)
    scale = np.exp2(-HALVINGS * np.linspace(-1, 1, n, dtype=np.float32).clip(0, 1))
    np.sqrt(radius, out=radius)  # uniform over the area
    radius *= scale * np.float32(radius_m)
    angle *= np.float32(2 * np.pi)
    actions = np.empty((n, 3), dtype=np.float32)
    actions[:, 0] = radius * np.cos(angle)
    actions[:, 1] = radius * np.sin(angle)
    actions[:, 2] = scale * np.float32(turn_rad) * (2 * turn - 1)
    actions[0] = 0
    return actions


def select(actions: NDArray[np.float32], distances: NDArray[np.float32]) -> int:
    """Index of the candidate with the least distance; the first of equals."""
    if len(actions) != len(distances):
        raise ValueError(f"{len(actions)} actions but {len(distances)} distances")
    return int(np.argmin(distances))


def step(
    commanded: NDArray[np.float64], goal: NDArray[np.float64], ratio: float = RATIO
) -> NDArray[np.float64]:
    """(3,) of dx, dy [m], dyaw [rad]: `ratio` of the way from the commanded hand to the goal, the
    short way round (jaws are equal modulo pi). From the commanded pose and not the measured one, so
    that the arm's lag does not enter: both are where the arm is told to be."""
    way = goal[[0, 1, 3]] - commanded[[0, 1, 3]]
    way[2] = wrap_theta(way[2])
    return np.asarray(ratio * way)


def descend(commanded_z_m: float, descent_m: float, end_height_m: float) -> float:
    """The next height: one constant step lower, never below the end."""
    return max(commanded_z_m - descent_m, end_height_m)


def disturb(
    rng: np.random.Generator, displacement: NDArray[np.float64], factor: float
) -> NDArray[np.float64]:
    """Kinematic noise of the paper's experiment: delta + factor * w * ||delta||, w ~ N(0, I).

    displacement (3,) of dx, dy [m], dyaw [rad]. Norm and noise are taken in the grasp metric, where
    a degree weighs a millimetre. The paper's factor is 0.4; 0 is no noise.
    """
    scale = np.array([1.0, 1.0, METRES_PER_RADIAN])
    delta = displacement * scale
    w = rng.standard_normal(3)
    return np.asarray((delta + factor * w * np.linalg.norm(delta)) / scale)


class DistanceFunction(Protocol):
    """d(I, a) of rt.distance: (64, 64) float32 m and (N, 3) float32 -> (N,) float32 m."""

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]: ...


DOUBT_WEIGHT_M = 0.04
"""A candidate's score is its distance + this * (1 - probability of a grasp there), where the network has a
probability: far above a distance's error near grasps, below the way to another object."""


def ask(
    distance: DistanceFunction, view: NDArray[np.float32], actions: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances (N,) [m] of actions (N, 3) in a view, and their scores (N,) [m], which a controller goes by.

    A network with a probability is one whose `predict` gives it (rt.distance.Distance); for any other the
    scores are the distances.
    """
    predict = getattr(distance, "predict", None)
    if predict is None:
        found = distance(view, actions)
        return found, found
    said = predict(view, actions)
    if said.probability is None:
        return said.distance, said.distance
    return said.distance, said.distance + np.float32(DOUBT_WEIGHT_M) * (1 - said.probability)


@dataclass(frozen=True)
class Decision:
    """The choice of one period."""

    actions: NDArray[np.float32]
    """(N, 3) of x, y [m], theta [rad] in the view: all candidates."""
    distances: NDArray[np.float32]
    """(N,) of each candidate [m], in this view."""
    best: int
    """Index of the chosen candidate."""
    goal: NDArray[np.float64]
    """(4,) of x, y, z [m], yaw [rad] in base."""
    move: NDArray[np.float64]
    """(3,) of dx, dy [m], dyaw [rad] of the commanded hand: part of the way there."""
    symmetry: int = 0
    """Index of the view's symmetry that the network was given (`symmetry`)."""


class Paper:
    """Algorithm 1, with no memory: candidates, the least, `ratio` of the way."""

    def __init__(self, ratio: float, n: int, rng: np.random.Generator) -> None:
        self.ratio, self.n, self.rng = ratio, n, rng

    def forget(self) -> None:
        """Nothing to forget."""

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision:
        """view: (64, 64) m, as seen from the hand `seen_from` (4,). commanded: (4,), the arm's target now.
        The goal is a place in base, so it stays right although the hand has moved since the exposure."""
        actions = candidates(self.rng, self.n)
        distances, scores = ask(distance, view, actions)
        best = select(actions, scores)
        goal = place(seen_from, actions[best])
        return Decision(actions, distances, best, goal, step(commanded, goal, self.ratio))


class Ensemble(Paper):
    """Algorithm 1 with a memory: goals kept in base, each with its mean distance over the last views.

    The error of a distance exceeds the width of a grasp, and the least of many candidates is the one with
    the luckiest error. The best candidates are therefore kept as places in base and scored again in the
    next views; the goal is the place with the least mean. A new candidate replaces a kept goal only if it
    is better by the uncertainty of a single view, which keeps the hand from turning back and forth
    between two grasps. A quarter of the new candidates is drawn around the best, as in the cross-entropy
    method. Each view is scored in the next of its eight symmetries (`symmetry`), so that the mean is over
    these too. If no good grasp is near, the search widens, to leave an object without a grasp.

    One call of the network in a cycle, with as many candidates as the paper's.
    """

    def __init__(self, ratio: float, n: int, rng: np.random.Generator) -> None:
        super().__init__(ratio, n, rng)
        self.symmetry = -1
        self.forget()

    def forget(self) -> None:
        self.goals = np.empty((0, 4))
        """(K, 4) hands in base."""
        self.mean_m, self.views = np.empty(0), np.empty(0)
        """(K,) mean score of each, and the number of views in it, at most MEMORY."""
        self.best_m = np.inf

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision:
        kept = to_view(self.goals, seen_from).astype(np.float32)
        fresh = self.fresh(self.n - len(kept), kept)
        actions = np.concatenate([fresh, kept])
        self.symmetry = (self.symmetry + 1) % 8
        distances, scores = ask(distance, *symmetry(self.symmetry, view, actions))

        self.views = np.append(np.ones(len(fresh)), np.minimum(self.views + 1, MEMORY))
        self.mean_m = np.append(scores[: len(fresh)], self.mean_m)
        self.mean_m += (scores - self.mean_m) / self.views
        doubtful_m = self.mean_m + DOUBT_M * (self.views**-0.5 - MEMORY**-0.5)
        order = np.argsort(doubtful_m, kind="stable")[: self.n // 4]
        places = np.concatenate([place_all(seen_from, fresh), self.goals])
        self.goals, self.mean_m, self.views = (a[order] for a in (places, self.mean_m, self.views))
        best = int(order[0])
        self.best_m = float(doubtful_m[best])
        goal = self.goals[0].copy()
        goal[2] = seen_from[2]
        move = step(commanded, goal, self.ratio)
        return Decision(actions, distances, best, goal, move, self.symmetry)

    def fresh(self, n: int, kept: NDArray[np.float32]) -> NDArray[np.float32]:
        """New candidates (n, 3): the paper's, a quarter around the best kept; wider if no goal is good."""
        if self.best_m > FAR_M:
            return candidates(self.rng, n, WIDE_M, np.pi / 2)
        actions, around = candidates(self.rng, n), n // 4
        if around:
            which = self.rng.integers(min(len(kept), _ELITE), size=around)
            spread = self.rng.standard_normal((around, 3)) * (1, 1, 1 / METRES_PER_RADIAN)
            actions[-around:] = kept[which] + AROUND_M * spread
        return actions


MEMORY = 8
"""Most views in a mean: one for each symmetry, a quarter of a second at 30 Hz. More are steadier, fewer
follow an object that moves."""

DOUBT_M = 0.01
"""Standard deviation of the network's error in a single view, near a grasp."""

FAR_M = 0.015
"""A best goal farther than this (the network's mean error over the view) counts as no grasp: candidates then
reach as far as WIDE_M."""

WIDE_M = 0.15
"""Most of what a view shows."""

AROUND_M = 0.005
"""Standard deviation of new candidates around the best kept ones, in the grasp metric: about the tolerance
of a grasp."""
_ELITE = 8
"""Number of kept goals that new candidates are drawn around."""


def symmetry(
    k: int, view: NDArray[np.float32], actions: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The k-th (modulo 8) of the same view and actions: mirrored in x, in y, and in the diagonal.

    A parallel hand is its own half turn and its own mirror image, and a view is square, so the true
    distances (N,) are the same in all eight. The network's errors are not.
    """
    x, y = 1 - 2 * (k & 1), 1 - 2 * (k >> 1 & 1)
    view, actions = view[::y, ::x], actions * np.array([x, y, x * y], np.float32)
    if k >> 2 & 1:
        actions[:, [0, 1]] = actions[:, [1, 0]]
        actions[:, 2] = wrap_theta(np.float32(np.pi / 2) - actions[:, 2])
        view = view.T
    return np.ascontiguousarray(view), actions


def place(hand: NDArray[np.float64], action: NDArray[np.floating]) -> NDArray[np.float64]:
    """The hand (4,) that an action (3,) in the view of a hand (4,) leads to."""
    return np.array(from_top_down(top_down(*hand) @ planar(action)))


def place_all(hand: NDArray[np.float64], actions: NDArray[np.floating]) -> NDArray[np.float64]:
    """`place` for actions (N, 3): hands (N, 4)."""
    x, y, theta = actions.T.astype(np.float64)
    c, s, yaw = np.cos(hand[3]), np.sin(hand[3]), hand[3] - theta
    places = [hand[0] + x * c + y * s, hand[1] + x * s - y * c, np.full(len(x), hand[2])]
    return np.stack([*places, np.arctan2(np.sin(yaw), np.cos(yaw))], axis=-1)


MAP_RADIUS_M, MAP_SIDE, MAP_TURNS = 0.15, 33, 18
"""The dense map of one view: displacements on a square grid, and angles. The training views lie within
0.12 m of an object's centre, so an object is in reach."""


def dense_actions() -> NDArray[np.float32]:
    """The actions of a dense map of one view, (MAP_SIDE^2 * MAP_TURNS, 3)."""
    side = np.linspace(-MAP_RADIUS_M, MAP_RADIUS_M, MAP_SIDE)
    turn = np.arange(MAP_TURNS) * np.pi / MAP_TURNS - np.pi / 2
    x, y, theta = np.meshgrid(side, side, turn, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), theta.ravel()], axis=-1).astype(np.float32)


class FirstLook(Ensemble):
    """`Ensemble` about a place that is chosen from the whole first view.

    Following the nearest object loses where that object cannot be grasped. So the first view is weighed
    everywhere, on a dense map in all eight of its symmetries, and the least mean score is where to go. From
    then on candidates are drawn around the best goal so far, not around the hand, so that nothing on the way
    draws the hand aside.
    """

    def forget(self) -> None:
        super().forget()
        self.aim: NDArray[np.float64] | None = None
        """(4,) hand in base, which new candidates are drawn around."""
        self.shift = np.zeros(3, np.float32)
        """The same as an action in the view at hand."""

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision:
        if self.aim is None:
            actions = dense_actions()
            scores = np.zeros(len(actions), np.float32)
            for k in range(8):
                scores += ask(distance, *symmetry(k, view, actions))[1]
            self.aim = place(seen_from, actions[select(actions, scores)])
        self.shift = to_view(self.aim, seen_from).astype(np.float32)
        decision = super().__call__(distance, view, seen_from, commanded)
        self.aim = decision.goal
        return decision

    def fresh(self, n: int, kept: NDArray[np.float32]) -> NDArray[np.float32]:
        """Those of `Ensemble`, but around the aim; the first stays, the second is the aim itself."""
        actions = super().fresh(n, kept)
        own = slice(1, len(actions) - (n // 4 if self.best_m <= FAR_M else 0))
        actions[1] = 0
        actions[own] += self.shift
        actions[own, 2] = wrap_theta(actions[own, 2])
        return actions


class Controller(Protocol):
    """One period's choice, as Paper makes it. A class of your own is called as
    `MyController(ratio, n, rng)`: part of the way per cycle, candidates, numpy.random.Generator."""

    def forget(self) -> None:
        """Drop what was remembered of earlier views."""

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision: ...


CONTROLLERS: dict[str, Any] = {"paper": Paper, "ensemble": Ensemble, "first_look": FirstLook}
"""Controllers by name."""


def open_controller(name: str, ratio: float, n: int, rng: np.random.Generator) -> Controller:
    """A controller by its name or `module:attribute`. Raises ResolveError."""
    made: Controller = resolve("controller", name, CONTROLLERS)(ratio, n, rng)
    return made
