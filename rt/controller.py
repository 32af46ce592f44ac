"""Algorithm 1 (Viereck et al. 2017) as pure functions of (distances, state).

A hand that looks straight down is (4,) float64 of x, y, z [m], yaw [rad] in base (rt.pose). Each
period: draw `candidates` around the hand, ask the network for their distances, `select` the least,
go a fraction of the way there (`step`), and `descend` by a constant amount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rt.pose import METRES_PER_RADIAN, from_top_down, planar, top_down, wrap_theta

RADIUS_M = 0.06
"""How far candidates reach. Local, so that the hand follows the gradient to the nearest object and
not the global minimum (the paper's Section III-C); wide enough to span most of one object, because
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
    """d(I, a), as rt.distance makes it."""

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Told:
    """What a controller decided in one period."""

    actions: NDArray[np.float32]
    """(N, 3): all that was weighed, in the view."""
    distances: NDArray[np.float32]
    """(N,) of each [m]."""
    best: int
    """Index of the one chosen."""
    goal: NDArray[np.float64]
    """(4,) hand in base: where to go."""
    move: NDArray[np.float64]
    """(3,) of dx, dy [m], dyaw [rad] of the commanded hand: part of the way there."""


class Paper:
    """Algorithm 1, with no memory: candidates, the least, `ratio` of the way."""

    looks = 1
    """Calls of the network in one period, at most."""

    def __init__(self, ratio: float, n: int, rng: np.random.Generator) -> None:
        self.ratio, self.n, self.rng = ratio, n, rng

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Told:
        """view (64, 64) as seen from the hand `seen_from` (4,); the hand is now told to be at
        `commanded` (4,). The goal is a place in base, so an old frame is only old news."""
        actions = candidates(self.rng, self.n)
        distances = self.weigh(distance, view, actions)
        best = select(actions, distances)
        goal = place(seen_from, actions[best])
        return Told(actions, distances, best, goal, step(commanded, goal, self.ratio))

    def weigh(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        actions: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The distance (N,) of every candidate."""
        return distance(view, actions)


NEAR_M = 0.02
"""Predicted distance below which `Symmetric` takes its four looks."""


class Symmetric(Paper):
    """Algorithm 1; near a grasp, on the mean of four looks at the same view: as it is, turned by half a
    turn, and both in the mirror.

    A parallel hand is its own half turn and its own mirror image, so the true distance is the same in
    all four. The network's errors are not, and a mean of four is nearer to the truth than one. Far
    away that brings nothing (which object is taken matters more), so there it looks once.
    """

    looks = 4

    def weigh(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        actions: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        total = distance(view, actions)
        if total.min() > NEAR_M:
            return total
        for x, y in ((-1, -1), (-1, 1), (1, -1)):
            seen = np.ascontiguousarray(view[::y, ::x])
            total = total + distance(seen, actions * np.array([x, y, x * y], np.float32))
        return total / np.float32(4)


def place(hand: NDArray[np.float64], action: NDArray[np.floating]) -> NDArray[np.float64]:
    """The hand (4,) that an action (3,) in the view of a hand (4,) leads to."""
    return np.array(from_top_down(top_down(*hand) @ planar(action)))


CONTROLLERS: dict[str, type[Paper]] = {"paper": Paper, "symmetric": Symmetric}
"""By the name that the user gives."""
