"""Room for the open hand, coming straight down onto a height map."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from rt.hand import Hand
from rt.native import native
from sim.scene.lines import hands_at

MAP_STEP_M = 0.002
"""Side of a height map's cell."""
_PER_M = np.float32(1 / MAP_STEP_M)


class HandHull:
    """The hand, fully open, over a height map (n, n) [m] of cells MAP_STEP_M wide about the origin."""

    def __init__(self, hand: Hand, height: NDArray[np.float32]) -> None:
        self.hand, self.top = hand, height.max()
        self.finger = Footprint(height, hand.finger_thickness_m, hand.finger_width_m)
        self.palm = Footprint(height, hand.palm_length_m, hand.palm_width_m)

    def clear(self, poses: NDArray[np.float32], margin_m: float) -> NDArray[np.bool_]:
        """True (N,) for hands that descend to their pose (N, 4 or more) without coming nearer than that to
        anything below them."""
        x_finger = self.hand.opening_m / 2 + self.hand.finger_thickness_m / 2
        hands, tip = hands_at(poses), poses[:, 2] - np.float32(margin_m)
        free = np.ones(len(poses), bool)
        for sign in (-1, 1):
            self.finger.keep_free(free, hands, sign * x_finger, tip)
        palm = tip + np.float32(self.hand.finger_length_m)
        low = np.flatnonzero(free & (palm < self.top))  # the others' palms are above everything
        lows = free[low]
        self.palm.keep_free(lows, hands[low], 0.0, palm[low])
        free[low] = lows
        return free


class Footprint:
    """A rectangle of points, x_size along the closing axis and y_size across it, over a height map."""

    def __init__(self, height: NDArray[np.float32], x_size: float, y_size: float) -> None:
        step = MAP_STEP_M if x_size < 0.05 else 2 * MAP_STEP_M
        x = np.linspace(-x_size / 2, x_size / 2, round(x_size / step) + 1, dtype=np.float32)
        y = np.linspace(-y_size / 2, y_size / 2, round(y_size / step) + 1, dtype=np.float32)
        self.x, self.y = (g.ravel() for g in np.meshgrid(x, y))
        self.height = np.ascontiguousarray(height)
        # No point of it is further than this from its centre, rounding to cells included.
        cells = math.ceil(math.hypot(x_size, y_size) / 2 / MAP_STEP_M) + 1
        self.cells = 2 * cells + 1
        # The kernel tries them in this order: far apart first, so that most obstacles are met at once.
        self._order = np.argsort(np.arange(len(self.x)) % 7, kind="stable")

    @cached_property
    def around(self) -> NDArray[np.float32]:
        return np.asarray(maximum_filter(self.height, self.cells, mode="nearest"))

    def keep_free(
        self,
        free: NDArray[np.bool_],
        hands: NDArray[np.float32],
        x_centre: float,
        level: NDArray[np.float32],
    ) -> None:
        """Unmark in `free` (N,) the hands under whose rectangle something is above `level`.

        hands (N, 5): x, y, z, cosine and sine of the yaw; x_centre: the rectangle's middle along the closing
        axis [m]; level (N,) [m].
        """
        x = self.x + np.float32(x_centre)
        if native is None:
            free[free] = self.free_numpy(hands[free], x, level[free])
            return
        native.footprint_free(
            self.height,
            hands,
            np.ascontiguousarray(level, np.float32),
            x[self._order],
            self.y[self._order],
            _PER_M,
            free.view(np.uint8),
        )

    def free_numpy(
        self, hands: NDArray[np.float32], x: NDArray[np.float32], level: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """The oracle of native.footprint_free, equal to it: x (P,) are the points' places on the axis."""
        if not len(hands):
            return np.zeros(0, bool)
        middle = np.array([(x[0] + x[-1]) / 2], np.float32), np.zeros(1, np.float32)
        free = self._highest(self.around, hands, *middle) <= level
        # A high cell within reach need not be under the rectangle: test few of its points, then all.
        maybe = np.flatnonzero(~free)
        for few in (slice(None, None, 7), slice(None)):
            highest = self._highest(self.height, hands[maybe], x[few], self.y[few])
            maybe = maybe[highest <= level[maybe]]
        free[maybe] = True
        return free

    @staticmethod
    def _highest(
        height: NDArray[np.float32],
        hands: NDArray[np.float32],
        x: NDArray[np.float32],
        y: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Greatest height under points x, y (P,) of each hand (N,)."""
        n = len(height)
        half = np.float32(n / 2)
        c, s = hands[:, 3:4], hands[:, 4:5]
        # Closing axis (c, s), lateral axis (s, -c): rt/pose.py.
        i = ((hands[:, 0:1] + c * x + s * y) * _PER_M + half).astype(np.int32)
        j = ((hands[:, 1:2] + s * x - c * y) * _PER_M + half).astype(np.int32)
        np.clip(i, 0, n - 1, out=i)
        np.clip(j, 0, n - 1, out=j)
        return np.asarray(height.ravel()[i * n + j].max(axis=1, initial=0))
