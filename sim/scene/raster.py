"""Depth images and height maps by rasterisation: what rays through the pixels meet, without a ray."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rt.native import native
from sim.scene.scene import Scene, SceneError

_NEAR_M = np.float32(1e-3)
"""A face that comes nearer to the camera is tested against every pixel."""
_MARGIN_PX = np.float32(0.01)
_PIXELS_AT_ONCE = 1 << 21
"""Most pairs of a face and a pixel that the twin holds in memory."""


class RasterRenderer:
    """Depth images of the objects of one scene over its table (the plane z = 0); see DepthRenderer."""

    def __init__(self, scene: Scene) -> None:
        self._vertices = np.ascontiguousarray(scene.vertices, np.float32)
        self._faces = np.ascontiguousarray(scene.faces, np.int32)
        if len(self._faces) and not 0 <= self._faces.min() <= self._faces.max() < len(
            self._vertices
        ):
            raise SceneError("a face of the scene names a vertex that is not there")

    def depth(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Depth image (H, W) float32 metres along the optical axis, 0 where nothing is hit.

        T_world_camera (4, 4), rays (H, W, 3) with z = 1: as for sim.scene.render.Renderer.depth, of a camera
        without distortion (x even along the rows, y along the columns). Raises SceneError for others.
        """
        return self._drawn(T_world_camera, rays, named=False)[0]

    def depth_and_face(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The image of `depth`, and the face seen by every pixel (H, W), -1 for the table and for nothing."""
        return self._drawn(T_world_camera, rays, named=True)

    def _drawn(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32], *, named: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        x, y = np.ascontiguousarray(rays[0, :, 0]), np.ascontiguousarray(rays[:, 0, 1])
        if not ((rays[..., 0] == x).all() and (rays[..., 1] == y[:, None]).all()):
            raise SceneError(
                "rays of a distorted camera cannot be rasterised: use --renderer embree"
            )
        pose = np.ascontiguousarray(T_world_camera[:3], np.float32)
        if native is None:
            return rasterise_numpy(self._vertices, self._faces, pose, x, y)
        shape = rays.shape[:2]
        out = np.empty(shape, np.float32)
        face = np.empty(shape if named else (0, 0), np.int32)
        native.rasterise(self._vertices, self._faces, pose, x, y, out, face)
        return out, face

    def height_map(self, half_m: float, step_m: float) -> NDArray[np.float32]:
        """Height of the scene above the table, (n, n) float32 metres, seen straight down.

        Cell [i, j] is the point x = -half + (i + 0.5) step, y = -half + (j + 0.5) step.
        """
        n = round(2 * half_m / step_m)
        c = ((np.arange(n) + 0.5) * step_m - half_m).astype(np.float32)
        if native is None:
            return height_map_numpy(self._vertices, self._faces, c, c)
        out = np.empty((n, n), np.float32)
        native.height_map(self._vertices, self._faces, c, c, out)
        return out


def rasterise_numpy(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    pose: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The oracle of native.rasterise, equal to it bit by bit: float32 in the same order.

    pose (3, 4): T_world_camera's upper rows; x (W,), y (H,): rays (x, y, 1) of the columns and rows. Of
    equally near faces the one with the lowest number is seen.
    """
    W, H = len(x), len(y)
    R = pose[:, :3]
    d = vertices - pose[:, 3]
    p = [R[0, k] * d[:, 0] + R[1, k] * d[:, 1] + R[2, k] * d[:, 2] for k in range(3)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u = (p[0] / p[2] - x[0]) * (np.float32(W - 1) / (x[-1] - x[0]))
        v = (p[1] / p[2] - y[0]) * (np.float32(H - 1) / (y[-1] - y[0]))
    px, py, pz = (axis[faces] for axis in p)
    least, most = pz.min(-1), pz.max(-1)
    near = least < _NEAR_M
    columns, rows = (_span(a[faces], n, near) for a, n in ((u, W), (v, H)))
    seen = (most > 0) & (columns[0] <= columns[1]) & (rows[0] <= rows[1])
    edges = []
    for i in range(3):
        k = (i + 1) % 3
        A = py[:, i] * pz[:, k] - py[:, k] * pz[:, i]
        B = pz[:, i] * px[:, k] - pz[:, k] * px[:, i]
        edges.append((A, B, px[:, i] * py[:, k] - px[:, k] * py[:, i]))
    nx, ny, nz = _normal(px, py, pz)
    height = nx * px[:, 0] + ny * py[:, 0] + nz * pz[:, 0]
    image, number = np.full(H * W, np.inf, np.float32), np.full(H * W, -1, np.int32)
    for f, r, c in _pixels(np.flatnonzero(seen), rows, columns):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            edge = np.stack([A[f] * x[c] + (B[f] * y[r] + C[f]) for A, B, C in edges])
            t = height[f] / (nx[f] * x[c] + (ny[f] * y[r] + nz[f]))
        t = np.where(t < least[f], least[f], t)
        t = np.where(t > most[f], most[f], t)
        inside = ((edge >= 0).all(0) | (edge <= 0).all(0)) & (t > 0)
        place, t, f = (r * W + c)[inside], t[inside], f[inside]
        order = np.lexsort((f, t, place))
        first = order[np.unique(place[order], return_index=True)[1]]
        first = first[t[first] < image[place[first]]]
        image[place[first]], number[place[first]] = t[first], f[first]
    down = R[2, 0] * x + R[2, 1] * y[:, None] + R[2, 2]
    with np.errstate(divide="ignore"):
        table = -pose[2, 3] / down
    depth = image.reshape(H, W)
    under = (table > 0) & (table < depth)
    depth = np.where(under, table, depth)
    face = np.where(under, np.int32(-1), number.reshape(H, W))
    return np.where(depth < np.inf, depth, np.float32(0)), face


def height_map_numpy(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The oracle of native.height_map, equal to it bit by bit. x (n,), y (m,): the grid's places."""
    px, py, pz = (vertices[faces][..., k] for k in range(3))
    never = np.zeros(len(faces), bool)
    rows, columns = (
        _span((p - a[0]) * (np.float32(len(a) - 1) / (a[-1] - a[0])), len(a), never)
        for p, a in ((px, x), (py, y))
    )
    edges = []
    for i in range(3):
        k = (i + 1) % 3
        C = px[:, i] * py[:, k] - px[:, k] * py[:, i]
        edges.append((py[:, i] - py[:, k], px[:, k] - px[:, i], C))
    nx, ny, nz = _normal(px, py, pz)
    least, most = pz.min(-1), pz.max(-1)
    image = np.zeros(len(x) * len(y), np.float32)
    seen = (rows[0] <= rows[1]) & (columns[0] <= columns[1])
    for f, r, c in _pixels(np.flatnonzero(seen), rows, columns):
        edge = np.stack([A[f] * x[r] + (B[f] * y[c] + C[f]) for A, B, C in edges])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slope = nx[f] * (x[r] - px[f, 0]) + ny[f] * (y[c] - py[f, 0])
            h = pz[f, 0] - slope / nz[f]
        h = np.where(h < least[f], least[f], h)
        h = np.where(h > most[f], most[f], h)
        inside = ((edge >= 0).all(0) | (edge <= 0).all(0)) & (h > 0)
        np.maximum.at(image, (r * len(y) + c)[inside], h[inside])
    return image.reshape(len(x), len(y))


def _normal(
    px: NDArray[np.float32], py: NDArray[np.float32], pz: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    ux, uy, uz = (p[:, 1] - p[:, 0] for p in (px, py, pz))
    vx, vy, vz = (p[:, 2] - p[:, 0] for p in (px, py, pz))
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


def _span(
    place: NDArray[np.float32], count: int, whole: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last pixel of each face (F, 3 corners) along one axis; last < first: none."""
    last = np.float32(count - 1)
    low, high = place.min(-1), place.max(-1)
    with np.errstate(invalid="ignore"):
        off = ~((high >= 0) & (low <= last)) & ~whole
        first = np.ceil(np.maximum(low - _MARGIN_PX, np.float32(0)))
        end = np.floor(np.minimum(high + _MARGIN_PX, last))
    first = np.where(off, 1, np.where(whole, 0, first))
    end = np.where(off, 0, np.where(whole, last, end))
    return first.astype(np.int64), end.astype(np.int64)


def _pixels(
    faces: NDArray[np.int64],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    columns: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of a face and a pixel of its bounding box: face, row, column (P,), in pieces."""
    wide = (columns[1] - columns[0] + 1)[faces]
    area = wide * (rows[1] - rows[0] + 1)[faces]
    piece = np.cumsum(area) // _PIXELS_AT_ONCE
    found = []
    for k in np.unique(piece):
        some = np.flatnonzero(piece == k)
        each = np.repeat(some, area[some])
        inside = np.arange(len(each)) - np.repeat(np.cumsum(area[some]) - area[some], area[some])
        row, column = np.divmod(inside, wide[each])
        f = faces[each]
        found.append((f, rows[0][f] + row, columns[0][f] + column))
    return found
