"""A controller of one's own: the mean of the best candidates, instead of the single best.

python -m rt.servo --controller own_controller:Mean
python -m sim.trials --against own_controller:Mean
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rt.controller import Decision, DistanceFunction, candidates, place, select, step

BEST = 16


class Mean:
    """Called once a period; made once a run as `Mean(ratio, n, rng)`."""

    def __init__(self, ratio: float, n: int, rng: np.random.Generator) -> None:
        """ratio: part of the way to the goal per cycle. n: candidates. rng: the run's own random numbers."""
        self.ratio, self.n, self.rng = ratio, n, rng

    def forget(self) -> None:
        """No memory: nothing to forget after a pause or a long hold."""

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision:
        """view: (64, 64) m. seen_from, commanded: (4,) of x, y, z [m], yaw [rad] in base."""
        actions = candidates(self.rng, self.n)
        distances = distance(view, actions)
        best = actions[np.argsort(distances, kind="stable")[:BEST]]
        # The mean of those that are near the best one, jaws being equal modulo half a turn.
        near = np.abs(best[:, 2] - best[0, 2]) < np.pi / 4
        goal = place(seen_from, best[near].mean(axis=0))
        move = step(commanded, goal, self.ratio)
        return Decision(actions, distances, select(actions, distances), goal, move)
