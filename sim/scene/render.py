"""Depth images and rays over a scene, by embree: exact hits, no rasteriser, no display."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore import EmbreeDevice
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from sim.scene.scene import Scene

_device: EmbreeDevice | None = None
_MISS = 1e36
"""Embree reports 1e37 for a ray that hits nothing."""
_TOP_M = np.float32(1.0)
"""Vertical rays begin here."""


COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 200),
    "yellow": (220, 200, 50),
    "magenta": (190, 60, 180),
    "cyan": (60, 190, 200),
    "orange": (230, 130, 40),
    "brown": (120, 80, 50),
}
"""Of objects in simulated colour images, by their index modulo their number."""
TABLE_COLOUR = (185, 185, 185)


class DepthRenderer(Protocol):
    def depth(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> NDArray[np.float32]: ...


class Renderer:
    """Ray queries on the objects of one scene and on its table (the plane z = 0)."""

    def __init__(self, scene: Scene) -> None:
        global _device
        if _device is None:
            _device = EmbreeDevice()
        self._scene = EmbreeScene(_device)
        self._mesh = TriangleMesh(self._scene, scene.vertices, scene.faces)
        self._face_object = scene.face_object
        xy = scene.vertices[:, :2]
        self._box = list(zip(xy.min(axis=0), xy.max(axis=0), strict=True))

    def cast(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """First hit of every ray with an object, from either side of a face; the table is not there.

        origins, directions: (N, 3) float32, world, metres. Returns range (N,) in lengths of the
        direction (inf for a miss) and the face hit (N,) (-1 for a miss).
        """
        return self.range(origins, directions), self.face(origins, directions)

    def range(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The ranges of `cast` alone, at half its cost."""
        t = self._scene.run(origins, directions, query="DISTANCE")
        t[t > _MISS] = np.inf
        return t

    def face(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """The faces of `cast` alone. Asking embree for both at once costs more than asking twice."""
        return self._scene.run(origins, directions, query="INTERSECT")

    def depth(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Depth image (H, W) float32 metres along the optical axis, 0 where nothing is hit.

        T_world_camera: (4, 4), optical frame (x right, y down, z forward). rays: (H, W, 3) float32,
        the direction of each pixel in the camera, z = 1, so that the range along it is its depth.
        """
        R = T_world_camera[:3, :3].astype(np.float32)
        origin = T_world_camera[:3, 3].astype(np.float32)
        directions = rays.reshape(-1, 3) @ R.T
        origins = np.broadcast_to(origin, directions.shape)
        depth = self._scene.run(np.ascontiguousarray(origins), directions, query="DISTANCE")
        depth[depth > _MISS] = np.inf
        with np.errstate(divide="ignore"):
            table = -origin[2] / directions[:, 2]
        depth = np.where(table > 0, np.minimum(depth, table), depth)
        depth[~np.isfinite(depth)] = 0
        return depth.reshape(rays.shape[:2])

    def colour(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Colours of what `depth` sees, (H, W, 3) RGB: objects in COLOURS by their index, the table grey."""
        R, origin = T_world_camera[:3, :3], T_world_camera[:3, 3].astype(np.float32)
        directions = np.ascontiguousarray(rays.reshape(-1, 3) @ R.T.astype(np.float32))
        origins = np.ascontiguousarray(np.broadcast_to(origin, directions.shape))
        face = self.face(origins, directions)
        thing = np.where(face < 0, -1, self._face_object[face])
        colours = np.array(list(COLOURS.values()), np.uint8)[thing % len(COLOURS)]
        colours[thing < 0] = TABLE_COLOUR
        return colours.reshape(*rays.shape[:2], 3)

    def height_map(self, half_m: float, step_m: float) -> NDArray[np.float32]:
        """Height of the scene above the table, (n, n) float32 metres, seen straight down.

        Cell [i, j] is the point x = -half + (i + 0.5) step, y = -half + (j + 0.5) step. Exact at its
        points for everything that comes from above.
        """
        return np.maximum(_TOP_M - self._from_above(half_m, step_m, "DISTANCE", _TOP_M), 0)

    def face_map(self, half_m: float, step_m: float) -> NDArray[np.int32]:
        """Index of the face (n, n) that each cell of height_map shows, -1 for the table."""
        return self._from_above(half_m, step_m, "INTERSECT", np.int32(-1))

    def _from_above(
        self, half_m: float, step_m: float, query: str, missed: np.generic
    ) -> NDArray[Any]:
        """(n, n) answers to vertical rays over the cells of height_map; `missed` where none is needed."""
        n = round(2 * half_m / step_m)
        c = ((np.arange(n) + 0.5) * step_m - half_m).astype(np.float32)
        # Rays that miss the objects' bounding box, with a cell to spare, need not be cast.
        near = [(c >= low - step_m) & (c <= high + step_m) for low, high in self._box]
        x, y = np.meshgrid(*(c[k] for k in near), indexing="ij")
        origins = np.stack([x, y, np.full_like(x, _TOP_M)], axis=-1).reshape(-1, 3)
        down = np.tile(np.array([0, 0, -1], np.float32), (x.size, 1))
        found = np.full((n, n), missed)
        found[np.ix_(*near)] = self._scene.run(origins, down, query=query).reshape(x.shape)
        return found
