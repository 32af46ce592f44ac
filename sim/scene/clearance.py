"""Room for a hand that comes straight down, fully open, on a height map: exact for a vertical approach."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from rt.hand import Hand

MAP_STEP_M = 0.002
"""Cell of the height map."""
MARGIN_M = 0.002
"""Free space asked for around fingers and palm on the way down: the height map's step."""


class OpenHand:
    """The hand, fully open, coming straight down on a height map."""

    def __init__(self, hand: Hand, height: NDArray[np.float32]) -> None:
        self.hand, self.top = hand, height.max()
        self.finger = Footprint(height, hand.finger_thickness_m, hand.finger_width_m)
        self.palm = Footprint(height, hand.palm_length_m, hand.palm_width_m)

    def clear(self, poses: NDArray[np.float32], margin_m: float = MARGIN_M) -> NDArray[np.bool_]:
        """True (N,) for hands (N, >= 4) of x, y, z [m], yaw [rad] that descend to their pose with that much
        room around fingers and palm."""
        x_finger = self.hand.opening_m / 2 + self.hand.finger_thickness_m / 2
        tip = poses[:, 2] - np.float32(margin_m)
        free = np.ones(len(poses), bool)
        for sign in (-1, 1):
            free[free] = self.finger.free(poses[free], sign * x_finger, tip[free])
        palm = tip + self.hand.finger_length_m
        low = free & (palm < self.top)  # the others' palms are above everything
        free[low] = self.palm.free(poses[low], 0.0, palm[low])
        return free


class Footprint:
    """A rectangle of points, x_size along the closing axis and y_size across it, over a height map."""

    def __init__(self, height: NDArray[np.float32], x_size: float, y_size: float) -> None:
        step = MAP_STEP_M if x_size < 0.05 else 2 * MAP_STEP_M
        x = np.linspace(-x_size / 2, x_size / 2, round(x_size / step) + 1, dtype=np.float32)
        y = np.linspace(-y_size / 2, y_size / 2, round(y_size / step) + 1, dtype=np.float32)
        self.x, self.y = (g.ravel() for g in np.meshgrid(x, y))
        self.height = height
        # No point of it is further than this from its centre, rounding to cells included.
        cells = math.ceil(math.hypot(x_size, y_size) / 2 / MAP_STEP_M) + 1
        self.cells = 2 * cells + 1

    @cached_property
    def around(self) -> NDArray[np.float32]:
        return np.asarray(maximum_filter(self.height, self.cells, mode="nearest"))

    def free(
        self, poses: NDArray[np.float32], x_centre: float, level: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """True (N,) if nothing under the rectangle, x_centre along the closing axis, is above `level`."""
        if not len(poses):
            return np.zeros(0, bool)
        c, s = np.cos(poses[:, 3:4]), np.sin(poses[:, 3:4])
        middle = np.array([x_centre], np.float32), np.zeros(1, np.float32)
        free = self._highest(self.around, poses, c, s, *middle) <= level
        # A high cell within reach need not be under the rectangle: test few of its points, then all.
        x, maybe = self.x + x_centre, np.flatnonzero(~free)
        for few in (slice(None, None, 7), slice(None)):
            highest = self._highest(
                self.height, poses[maybe], c[maybe], s[maybe], x[few], self.y[few]
            )
            maybe = maybe[highest <= level[maybe]]
        free[maybe] = True
        return free

    @staticmethod
    def _highest(
        height: NDArray[np.float32],
        poses: NDArray[np.float32],
        c: NDArray[np.float32],
        s: NDArray[np.float32],
        x: NDArray[np.float32],
        y: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Greatest height under points x, y (P,) of each hand (N,); c, s (N, 1) of its yaw."""
        n = len(height)
        half = np.float32(n / 2)
        # Closing axis (c, s), lateral axis (s, -c): rt/pose.py.
        i = ((poses[:, 0:1] + c * x + s * y) / np.float32(MAP_STEP_M) + half).astype(np.int32)
        j = ((poses[:, 1:2] + s * x - c * y) / np.float32(MAP_STEP_M) + half).astype(np.int32)
        np.clip(i, 0, n - 1, out=i)
        np.clip(j, 0, n - 1, out=j)
        return np.asarray(height.ravel()[i * n + j].max(axis=1, initial=0))
