"""Algorithm 1 with a memory: goals kept in base, moved with the scene, each with its mean score over the
last views."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rt.controller.algorithm import (
    Decision,
    DistanceFunction,
    Paper,
    Surroundings,
    ask,
    candidates,
    place_all,
    step,
)
from rt.controller.motion import SceneMotion
from rt.pose import METRES_PER_RADIAN, to_view, wrap_theta


class Ensemble(Paper):
    """Algorithm 1 with a memory: goals kept in base, each with its mean distance over the last views.

    The error of a distance exceeds the width of a grasp, and the least of many candidates is the one with
    the luckiest error. The best candidates are therefore kept as places in base and scored again in the
    next views; the goal is the place with the least mean. A new candidate replaces a kept goal only if it
    is better by the uncertainty of a single view, which keeps the hand from turning back and forth
    between two grasps, and one that is further than STAY_WITHIN_M from the last goal only if it is better by
    STAY_M, which keeps it from turning to another object. A quarter of the new candidates is drawn around
    the best, as in the cross-entropy method. Each view is scored in the next of its eight symmetries
    (`symmetry`), so that the mean is over these too. If no good grasp is near, the search widens, to leave an
    object without a grasp.

    The goals move with the scene (rt.controller.motion): with an object that is pushed or carried by a
    conveyor, and with one that seems to move because the arm does not go where it is told. The command leads
    by the scene's velocity, so that the hand does not trail behind.

    One call of the network in a cycle, with as many candidates as the paper's.
    """

    def __init__(self, ratio: float, n: int, rng: np.random.Generator) -> None:
        super().__init__(ratio, n, rng)
        self.motion = SceneMotion()
        self.symmetry = -1
        self.forget()

    def forget(self) -> None:
        self.motion.forget()
        self.goals = np.empty((0, 4))
        """(K, 4) hands in base."""
        self.mean_m, self.views = np.empty(0), np.empty(0)
        """(K,) mean score of each, and the number of views in it, at most MEMORY."""
        self.best_m = np.inf
        self.aim: NDArray[np.float64] | None = None
        """(4,) the last goal, in base."""

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision:
        self._follow(view, seen_from)
        kept = to_view(self.goals, seen_from).astype(np.float32)
        fresh = self.fresh(self.n - len(kept), kept)
        actions = np.concatenate([fresh, kept])
        self.symmetry = (self.symmetry + 1) % 8
        answer = ask(distance, *symmetry(self.symmetry, view, actions))
        places = np.concatenate([place_all(seen_from, fresh), self.goals])
        scores = answer.scores + self.penalties_m(places)

        self.views = np.append(np.ones(len(fresh)), np.minimum(self.views + 1, MEMORY))
        self.mean_m = np.append(scores[: len(fresh)], self.mean_m)
        self.mean_m += (scores - self.mean_m) / self.views
        doubtful_m = self.mean_m + DOUBT_M * (self.views**-0.5 - MEMORY**-0.5)
        order = np.argsort(doubtful_m + self.turns_m(places), kind="stable")[: self.most_kept]
        self.goals, self.mean_m, self.views = (a[order] for a in (places, self.mean_m, self.views))
        best = int(order[0])
        self.best_m = float(doubtful_m[best])
        goal = self.goals[0].copy()
        self.aim = goal.copy()
        goal[2] = seen_from[2]
        move = self.step(commanded, goal)
        return Decision(actions, answer.distances, best, goal, move, self.symmetry, answer.at(best))

    @property
    def scene_moves(self) -> bool:
        return bool(self.motion.velocity_m_s.any())

    @property
    def most_kept(self) -> int:
        """Number of goals that are kept from one view to the next."""
        return self.n // 4

    def turns_m(self, places: NDArray[np.float64]) -> NDArray[np.float64] | float:
        """(N,) m to add to the scores of places (N, 4) in base: for turning away from the last goal."""
        if self.aim is None:
            return 0.0
        way = places[:, :2] - self.aim[:2]
        beyond = np.hypot(way[:, 0], way[:, 1]) / STAY_WITHIN_M - 1
        return np.asarray(STAY_M * np.clip(beyond, 0, 1))

    def _follow(self, view: NDArray[np.float32], seen_from: NDArray[np.float64]) -> None:
        """Move what is remembered as the scene has moved; forget it if the scene is another."""
        around = self.around or Surroundings()
        centre_m = (seen_from if self.aim is None else self.aim)[:2]
        shift = self.motion.see(view, seen_from, centre_m, around.exposed_s)
        if self.motion.lost:
            self.forget()
        elif shift is not None:
            self.target.carry(shift, around.exposed_s, around.heights)
            self.goals = shift.carry(self.goals)
            if self.aim is not None:
                self.aim = shift.carry(self.aim)
        self._leave_behind(seen_from)

    def _leave_behind(self, seen_from: NDArray[np.float64]) -> None:
        """Forget goals that the scene has carried out of sight."""
        near = np.hypot(*(self.goals[:, :2] - seen_from[:2]).T) < OUT_OF_SIGHT_M
        if near.all():
            return
        self.goals, self.mean_m, self.views = (
            a[near] for a in (self.goals, self.mean_m, self.views)
        )
        if not near[0]:  # the best of them, and so the aim
            self.aim = None
        if not near.any():
            self.best_m = np.inf

    def step(
        self, commanded: NDArray[np.float64], goal: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(3,) of dx, dy [m], dyaw [rad]: part of the way to where the goal is by then, and its own way in
        one period."""
        around, velocity = self.around or Surroundings(), self.motion.velocity_m_s
        ahead = goal.copy()
        ahead[:2] += velocity * around.ahead_s
        move = step(commanded, ahead, self.ratio)
        move[:2] += velocity * around.period_s
        return move

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

OUT_OF_SIGHT_M = 0.40
"""Farther from the hand than any view shows."""

STAY_M, STAY_WITHIN_M = 0.008, 0.03
"""Twice as far from the last goal as the second, a goal must be better by the first: nearly the DOUBT_M of
one view. Without it a fifth of the approaches turn to another object more than once."""

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
