"""Controller with a first look: a place chosen from the whole first views, followed wherever it moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rt.controller.algorithm import Decision, DistanceFunction
from rt.controller.ensemble import FAR_M, MEMORY, Ensemble
from rt.pose import to_view, wrap_theta

MAP_RADIUS_M, MAP_SIDE, MAP_TURNS = 0.15, 33, 18
"""The dense map of one view: displacements on a square grid, and angles. The training views lie within
0.12 m of an object's centre, so an object is in reach."""

GIVE_UP_VIEWS = 12
"""Views in a row without a good goal after which the whole view is weighed anew."""


def dense_actions(side: int = MAP_SIDE) -> NDArray[np.float32]:
    """The actions of a dense map of one view, (side^2 * MAP_TURNS, 3)."""
    along = np.linspace(-MAP_RADIUS_M, MAP_RADIUS_M, side)
    turn = np.arange(MAP_TURNS) * np.pi / MAP_TURNS - np.pi / 2
    x, y, theta = np.meshgrid(along, along, turn, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), theta.ravel()], axis=-1).astype(np.float32)


def dense_side(n: int) -> int:
    """Side of the dense map for a controller of n candidates a cycle: the map costs some 20 times as much as
    n candidates at most, so that a slow network keeps to its period."""
    side = min(MAP_SIDE, int((20 * n / MAP_TURNS) ** 0.5))
    return max(side - (side + 1) % 2, 3)


class FirstLook(Ensemble):
    """`Ensemble` about a place chosen from the whole first eight views, that moves with the scene.

    Following the nearest object loses where that object cannot be grasped. So each of the first eight
    views is weighed everywhere, on a dense map of places in base, each view in another of its symmetries,
    and the least mean score is the place to go to. From then on candidates are drawn around the best goal
    so far, not around the hand, so that nothing on the way draws the hand aside. If no goal is good for
    some views, the whole view is weighed anew.
    """

    def forget(self) -> None:
        super().forget()
        self.looks = self.bad_views = 0
        self.shift = np.zeros(3, np.float32)
        """The same as an action in the view at hand."""

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision:
        decision = super().__call__(distance, view, seen_from, commanded)
        self.looks += 1
        self.bad_views = self.bad_views + 1 if self.best_m > FAR_M and self.looks > MEMORY else 0
        if self.bad_views >= GIVE_UP_VIEWS:
            self.looks = self.bad_views = 0
        return decision

    def _follow(self, view: NDArray[np.float32], seen_from: NDArray[np.float64]) -> None:
        super()._follow(view, seen_from)
        aim = seen_from if self.aim is None else self.aim
        self.shift = to_view(aim, seen_from).astype(np.float32)

    def turns_m(self, places: NDArray[np.float64]) -> NDArray[np.float64] | float:
        """None while the whole view is looked at."""
        return super().turns_m(places) if self.looks >= MEMORY else 0.0

    @property
    def most_kept(self) -> int:
        """All of the dense map while it is looked at."""
        return super().most_kept if self.looks >= MEMORY - 1 else 10**9

    def fresh(self, n: int, kept: NDArray[np.float32]) -> NDArray[np.float32]:
        """The dense map in the first view, then only the hand's own place while the map is looked at; after
        that those of `Ensemble`, but around the aim. The first is always to stay."""
        if self.looks < MEMORY:
            stay = np.zeros((1, 3), np.float32)
            return stay if self.looks else np.concatenate([stay, dense_actions(dense_side(self.n))])
        actions = super().fresh(n, kept)
        own = slice(1, len(actions) - (n // 4 if self.best_m <= FAR_M else 0))
        actions[1] = 0
        actions[own] += self.shift
        actions[own, 2] = wrap_theta(actions[own, 2])
        return actions
