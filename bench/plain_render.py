"""Depth by every ray against every triangle, in NumPy: slow, and the oracle of the other renderers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.scene.scene import Scene

_SIDE = 1e-9
"""Barycentric distance outside an edge that still counts as on it, so that no ray slips between two faces."""


class PlainRenderer:
    """Depth of one scene and its table, in float64 by Moller and Trumbore (1997)."""

    def __init__(self, scene: Scene) -> None:
        a, b, c = (scene.vertices[scene.faces[:, k]].astype(np.float64) for k in range(3))
        self._a, self._ab, self._ac = a, b - a, c - a

    def depth(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """As sim.scene.render.Renderer.depth."""
        R, origin = T_world_camera[:3, :3].astype(np.float64), T_world_camera[:3, 3]
        directions = rays.reshape(-1, 3).astype(np.float64) @ R.T
        to_a = origin - self._a
        q = np.cross(to_a, self._ab)
        depth = np.full(len(directions), np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            for i, d in enumerate(directions):
                p = np.cross(d, self._ac)
                scale = 1 / np.einsum("ij,ij->i", self._ab, p)
                u, v = np.einsum("ij,ij->i", to_a, p) * scale, q @ d * scale
                t = np.einsum("ij,ij->i", self._ac, q) * scale
                met = (u >= -_SIDE) & (v >= -_SIDE) & (u + v <= 1 + _SIDE) & (t > 0)
                depth[i] = t[met].min(initial=np.inf)
            table = -origin[2] / directions[:, 2]
        depth = np.where(table > 0, np.minimum(depth, table), depth)
        depth[~np.isfinite(depth)] = 0
        return depth.astype(np.float32).reshape(rays.shape[:2])
