"""Algorithm 1 (Viereck et al. 2017) as pure functions of (distances, state).

A hand that looks straight down is (4,) float64 of x, y, z [m], yaw [rad] in base (rt.pose). Each
period: draw `candidates` around the hand, ask the network for their distances, `select` the least,
go a fraction of the way there (`step`), and `descend` by a constant amount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rt.controller.target import OFF_TARGET_M, FollowedTarget, TargetPoint, beyond_m
from rt.grasp.memory import HeightMemory, blocked_share, unseen_share
from rt.hand import Hand
from rt.pose import METRES_PER_RADIAN, from_top_down, planar, top_down, wrap_theta

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


class Answer(NamedTuple):
    """A network's answer for candidates, as a controller uses it."""

    distances: NDArray[np.float32]
    """(N,) m."""
    scores: NDArray[np.float32]
    """(N,) m, which a controller goes by: the less, the better."""
    probability: NDArray[np.float32] | None
    """(N,) of a grasp; None from a network without it."""

    def at(self, best: int) -> float | None:
        """Probability of one candidate."""
        return None if self.probability is None else float(self.probability[best])


def ask(
    distance: DistanceFunction, view: NDArray[np.float32], actions: NDArray[np.float32]
) -> Answer:
    """The network's answer for actions (N, 3) in a view.

    A network with a probability is one whose `predict` gives it (rt.distance.Distance); for any other the
    scores are the distances.
    """
    predict = getattr(distance, "predict", None)
    if predict is None:
        found = distance(view, actions)
        return Answer(found, found, None)
    said = predict(view, actions)
    if said.probability is None:
        return Answer(said.distance, said.distance, None)
    scores = said.distance + np.float32(DOUBT_WEIGHT_M) * (1 - said.probability)
    return Answer(said.distance, scores, said.probability)


@dataclass(frozen=True)
class Surroundings:
    """All that a controller may know of a cycle besides the view."""

    exposed_s: float = 0.0
    """Time of the view's exposure, on any clock that runs on."""
    period_s: float = 1 / 30
    """Time until the next command."""
    ahead_s: float = 0.0
    """From the exposure until the hand obeys this cycle's command: the view's age, and the arm's lag."""
    heights: HeightMemory | None = None
    """Heights of all that the views have shown."""
    hand: Hand | None = None
    """Shape of the hand, for the ground under its jaws."""
    target: TargetPoint | None = None
    """The object that is wanted; None: any object."""


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
    probability: float | None = None
    """Of a grasp at the goal, in this view; None from a network without one."""


class Paper:
    """Algorithm 1, with no memory: candidates, the least, `ratio` of the way."""

    around: Surroundings | None = None
    """Set by the loop before each call."""

    def __init__(self, ratio: float, n: int, rng: np.random.Generator) -> None:
        self.ratio, self.n, self.rng = ratio, n, rng
        self.target = FollowedTarget()
        """The object that is wanted; it outlives `forget`."""

    @property
    def scene_moves(self) -> bool:
        """True while the objects are known to move: the heights where they were are no obstacles then."""
        return False

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
        answer = ask(distance, view, actions)
        scores = answer.scores + self.penalties_m(place_all(seen_from, actions))
        best = select(actions, scores)
        goal = place(seen_from, actions[best])
        move = step(commanded, goal, self.ratio)
        return Decision(actions, answer.distances, best, goal, move, 0, answer.at(best))

    def penalties_m(self, places: NDArray[np.float64]) -> NDArray[np.float64] | float:
        """(N,) m to add to the scores of places (N, 4) in base: for jaws on ground that no view has shown
        or kept from their depth by what stands beside, and for places off the object that is wanted."""
        around = self.around
        penalty: NDArray[np.float64] | float = 0.0
        if around is None:
            return penalty
        if around.heights is not None and around.hand is not None:
            penalty = UNSEEN_M * unseen_share(around.heights, places, around.hand)
            if not self.scene_moves:
                penalty += BLOCKED_M * blocked_share(around.heights, places, around.hand)
        self.target.give(around.target)
        self.target.look(around.heights)
        if self.target.now is not None:
            off = beyond_m(self.target.now, self.target.cells, places[:, :2])
            penalty = penalty + np.where(off > 0, OFF_TARGET_M + off, 0)
        return penalty


UNSEEN_M = 0.10
"""Score of jaws that would stand wholly on ground that no view has shown: worse than another object."""

BLOCKED_M = 0.10
"""Score of a hand that something beside its object keeps from getting any deeper than its top."""


def place(hand: NDArray[np.float64], action: NDArray[np.floating]) -> NDArray[np.float64]:
    """The hand (4,) that an action (3,) in the view of a hand (4,) leads to."""
    return np.array(from_top_down(top_down(*hand) @ planar(action)))


def place_all(hand: NDArray[np.float64], actions: NDArray[np.floating]) -> NDArray[np.float64]:
    """`place` for actions (N, 3): hands (N, 4)."""
    x, y, theta = actions.T.astype(np.float64)
    c, s, yaw = np.cos(hand[3]), np.sin(hand[3]), hand[3] - theta
    places = [hand[0] + x * c + y * s, hand[1] + x * s - y * c, np.full(len(x), hand[2])]
    return np.stack([*places, np.arctan2(np.sin(yaw), np.cos(yaw))], axis=-1)
