"""A closed mesh from one that has holes: inside and outside voted by rays, the surface by a level set.

Each node of a grid is inside if most of six rays, along both directions of each axis, say so by the signed
number of surfaces that they cross (Nooruddin and Turk, "Simplification and repair of polygonal models using
volumetric techniques", 2003). The surface is where the signed distance is zero, found by manifold3d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore import EmbreeDevice
from embreex.rtcore_scene import EmbreeScene
from manifold3d import Manifold
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.spatial import cKDTree

from sim.scene.repair import examine

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]

FINEST_M, COARSEST_M = 0.0005, 0.0015
"""Range of the grid's step."""
_STEPS = 150
"""Steps along the longest side, within that range."""
_MOST_LAYERS = 64
"""Most surfaces counted along one ray."""
_PAST_M = 1e-6
"""A ray goes on this far behind a surface that it has met."""
_SAMPLES = 200_000


@dataclass(frozen=True)
class Remeshed:
    vertices: Vertices
    faces: Faces
    step_m: float
    """Step of the grid."""
    deviation_m: float
    """Largest distance from the input's outer surface to the new one."""
    closed_m: float
    """Largest distance from the new surface to the input's: how far openings were closed over."""


def remesh(vertices: Vertices, faces: Faces) -> Remeshed | None:
    """A closed mesh around the same solid; None if the rays find no inside."""
    low, high = vertices[faces].min(axis=(0, 1)), vertices[faces].max(axis=(0, 1))
    step = float(np.clip((high - low).max() / _STEPS, FINEST_M, COARSEST_M))
    axes = [np.arange(a - 3 * step, b + 4 * step, step) for a, b in zip(low, high, strict=True)]
    inside = _inside(vertices, faces, axes)
    if not inside.any():
        return None
    rng = np.random.default_rng(0)
    points, normals = _on_surface(vertices, faces, step / 4, rng)
    near = binary_dilation(inside, iterations=3) & ~binary_erosion(inside, iterations=3)
    distance = np.full(inside.shape, 4 * step)
    place = np.argwhere(near)
    nodes = np.stack([axes[k][place[:, k]] for k in range(3)], axis=-1)
    distance[near] = cKDTree(points).query(nodes)[0]
    signed = np.where(inside, distance, -distance)
    whole = _level_set(signed, axes, step)
    if whole.is_empty():
        return None
    mesh = whole.to_mesh64()
    corners = np.array(mesh.vert_properties[:, :3], np.float64)
    triangles = np.array(mesh.tri_verts, np.int64)
    new, _ = _on_surface(corners, triangles, step / 4, rng)
    outer = points[_outer(points, normals, inside, axes, step)]
    deviation = cKDTree(new).query(outer)[0].max(initial=0.0)
    closed = cKDTree(points).query(new)[0].max()
    return Remeshed(corners, triangles, step, float(deviation), float(closed))


def _inside(vertices: Vertices, faces: Faces, axes: list[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """The vote of the rays at each node of the grid."""
    scene = EmbreeScene(EmbreeDevice())
    kept = TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    signed = not examine(vertices, faces).inconsistent
    votes = np.zeros([len(axis) for axis in axes])
    for k in range(3):
        others = [i for i in range(3) if i != k]
        u, v = (g.ravel() for g in np.meshgrid(axes[others[0]], axes[others[1]], indexing="ij"))
        for sign in (1, -1):
            along = axes[k] if sign > 0 else axes[k][::-1]
            origins = np.empty((len(u), 3), np.float32)
            origins[:, others[0]], origins[:, others[1]], origins[:, k] = u, v, along[0]
            direction = np.zeros(3, np.float32)
            direction[k] = sign
            depth = np.abs(along - along[0])
            turns = _crossed(scene, origins, direction, depth, normals[:, k] * sign, signed)
            here = turns.reshape(len(axes[others[0]]), len(axes[others[1]]), len(along))
            votes += np.moveaxis(here if sign > 0 else here[..., ::-1], -1, k)
    del kept
    return np.asarray(votes > 3)


def _crossed(
    scene: EmbreeScene,
    origins: NDArray[np.float32],
    direction: NDArray[np.float32],
    depth: NDArray[np.float64],
    facing: NDArray[np.float64],
    signed: bool,
) -> NDArray[np.float64]:
    """1 at the nodes (rays, depths) that are inside by this ray alone, 0 elsewhere."""
    count = np.zeros((len(origins), len(depth)))
    going, travelled = np.arange(len(origins)), np.zeros(len(origins))
    for _ in range(_MOST_LAYERS):
        start = origins[going] + travelled[:, None].astype(np.float32) * direction
        way = np.broadcast_to(direction, start.shape).copy()
        face = scene.run(start, way, query="INTERSECT")
        hit = face >= 0
        if not hit.any():
            break
        t = scene.run(start[hit], way[hit], query="DISTANCE")
        going, travelled = going[hit], travelled[hit] + t
        step = np.where(facing[face[hit]] < 0, 1.0, -1.0) if signed else 1.0
        count[going] += np.where(depth > travelled[:, None], np.reshape(step, (-1, 1)), 0)
        travelled = travelled + _PAST_M
    return np.asarray(count > 0 if signed else count % 2 == 1, np.float64)


def _level_set(
    signed: NDArray[np.float64], axes: list[NDArray[np.float64]], step: float
) -> Manifold:
    """The surface at zero of values on a grid, interpolated along its cells' edges."""
    x0, y0, z0 = (float(axis[0]) for axis in axes)
    nx, ny, nz = signed.shape
    flat = signed.ravel().tolist()  # lists are quicker than arrays for single values

    def value(x: float, y: float, z: float) -> float:
        fx, fy, fz = (x - x0) / step, (y - y0) / step, (z - z0) / step
        i = min(max(int(fx), 0), nx - 2)
        j = min(max(int(fy), 0), ny - 2)
        k = min(max(int(fz), 0), nz - 2)
        fx, fy, fz = fx - i, fy - j, fz - k
        n = (i * ny + j) * nz + k
        m = n + ny * nz
        p = flat[n] + fz * (flat[n + 1] - flat[n])
        q = flat[n + nz] + fz * (flat[n + nz + 1] - flat[n + nz])
        r = flat[m] + fz * (flat[m + 1] - flat[m])
        s = flat[m + nz] + fz * (flat[m + nz + 1] - flat[m + nz])
        p, r = p + fy * (q - p), r + fy * (s - r)
        return float(p + fx * (r - p))

    bounds = [*(float(a[0]) + step for a in axes), *(float(a[-1]) - step for a in axes)]
    return Manifold.level_set(value, bounds, step).simplify(0.05 * step)


def _on_surface(
    vertices: Vertices, faces: Faces, apart: float, rng: np.random.Generator
) -> tuple[Vertices, Vertices]:
    """Points about `apart` [m] from each other all over a surface, and its unit normals there."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1) / 2
    count = int(np.clip(area.sum() / apart**2, 1000, _SAMPLES))
    face = rng.choice(len(faces), count, p=area / area.sum())
    u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - u) * a[face] + u * (1 - v) * b[face] + u * v * c[face]
    unit = normal[face] / np.maximum(2 * area[face], 1e-30)[:, None]
    return np.concatenate([points, vertices[np.unique(faces)]]), np.concatenate(
        [unit, np.zeros((len(np.unique(faces)), 3))]
    )


def _outer(
    points: Vertices,
    normals: Vertices,
    inside: NDArray[np.bool_],
    axes: list[NDArray[np.float64]],
    step: float,
) -> NDArray[np.bool_]:
    """True for points that have outside on at least one side: surfaces within the solid have none."""
    low = np.array([axis[0] for axis in axes])
    free = np.zeros(len(points), bool)
    for side in (-2 * step, 2 * step):
        at = np.rint((points + side * normals - low) / step).astype(int)
        at = np.clip(at, 0, np.array(inside.shape) - 1)
        free |= ~inside[tuple(at.T)]
    return free & (np.linalg.norm(normals, axis=1) > 0)
