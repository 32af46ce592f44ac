"""The bin around a scene's objects: four upright walls on the table, no lid, its floor the table itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE_M = (0.28, 0.45)
"""Range of each inner side: small totes (0.40 by 0.30 m outside) to half a pallet box's width."""
WALL_HEIGHT_M = (0.05, 0.15)
"""Range of the walls' height; at 0.15 m they reach the height at which the hand's travel ends."""
THICKNESS_M = (0.003, 0.015)
"""Range of the walls' thickness: sheet metal to a folded rim."""


@dataclass(frozen=True)
class OpenBin:
    """A bin in the middle of the world, turned by `yaw_rad` about the vertical. Metres."""

    inner_m: tuple[float, float]
    """Inner sides along its own x and y."""
    height_m: float
    thickness_m: float
    yaw_rad: float

    def walls(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """The four walls as boxes: middle (3,) in the world and sides (3,) along the bin's own axes."""
        (a, b), t, h = self.inner_m, self.thickness_m, self.height_m
        boxes = [
            (np.array([sign * (a + t) / 2, 0.0, h / 2]), np.array([t, b + 2 * t, h]))
            for sign in (-1, 1)
        ]
        boxes += [
            (np.array([0.0, sign * (b + t) / 2, h / 2]), np.array([a, t, h])) for sign in (-1, 1)
        ]
        return [(self._R() @ middle, sides) for middle, sides in boxes]

    def mesh(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """All walls as triangles: vertices (32, 3) in the world, faces (48, 3), outward."""
        corner = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
        vertices = [middle + (corner * sides) @ self._R().T for middle, sides in self.walls()]
        faces = [_BOX + 8 * k for k in range(4)]
        return np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32)

    def place(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """A point (2,) of the bin's own axes, in the world."""
        return np.asarray(self._R()[:2, :2] @ own)

    def holds(self, outline: NDArray[np.float64], gap_m: float) -> bool:
        """True if an outline (N, 2) in the world lies inside the walls, at least `gap_m` from them."""
        own = outline @ self._R()[:2, :2]
        return bool((np.abs(own) <= np.array(self.inner_m) / 2 - gap_m).all())

    def above_wall(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """True (N,) for points (N, 2) of the world that lie in the walls' outline."""
        own = np.abs(points @ self._R()[:2, :2])
        inner = np.array(self.inner_m) / 2
        outside = (own <= inner + self.thickness_m).all(axis=-1)
        return np.asarray(outside & (own >= inner).any(axis=-1))

    def _R(self) -> NDArray[np.float64]:
        c, s = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def random_bin(rng: np.random.Generator) -> OpenBin:
    """A bin with sides, height and thickness uniform in their ranges, turned at random."""
    a, b = rng.uniform(*SIDE_M, 2)
    height, thickness = rng.uniform(*WALL_HEIGHT_M), rng.uniform(*THICKNESS_M)
    return OpenBin((float(a), float(b)), height, thickness, rng.uniform(-np.pi, np.pi))


_BOX = np.array(
    [
        *((0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5)),  # -x, +x
        *((0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6)),  # -y, +y
        *((0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)),  # -z, +z
    ]
)
"""Triangles of a box whose corners are numbered 4 x + 2 y + z."""
