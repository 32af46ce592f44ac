"""Resting poses of a solid on a table: the stable faces of its convex hull, and their probabilities.

Quasi-static (Goldberg et al., "Part pose statistics", 1999): a body set down at random lands on a hull
facet with a chance given by the solid angle that the facet fills from the centre of mass, then rolls over
the edge that the centre of mass has passed, until it rests on a facet that holds it.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

Array = NDArray[np.float64]

_FLAT_RAD = 1e-3
"""Neighbouring hull triangles within this angle are one facet."""
_ALIKE_RAD = np.radians(40.0)
"""Poses this close in direction and equal in height of the centre of mass (a bottle on its side) are one."""
_ALIKE_HEIGHT = 0.03
_LEAST_PROBABILITY = 0.01
_MOST_POSES = 12


def resting_poses(
    vertices: NDArray[np.floating], faces: NDArray[np.integer]
) -> tuple[Array, Array]:
    """Poses T_table_object (K, 4, 4) and their probabilities (K,), the largest first.

    In each the lowest vertex is at z = 0 and the centre of mass, for uniform density, above x = y = 0.
    Poses alike up to a turn about the vertical are merged, and those under 1 % left out.
    """
    points = np.asarray(vertices, dtype=np.float64)
    centre = np.asarray(trimesh.triangles.mass_properties(points[faces]).center_mass)
    hull = ConvexHull(points - centre)
    corners = hull.points[hull.simplices]
    normals = hull.equations[:, :3]

    # Facets: triangles joined where they are flat.
    n = len(corners)
    here = np.repeat(np.arange(n), 3)
    there = hull.neighbors.ravel()
    flat = np.einsum("ij,ij->i", normals[here], normals[there]) > np.cos(_FLAT_RAD)
    pairs = coo_array((np.ones(flat.sum()), (here[flat], there[flat])), shape=(n, n))
    count, facet = connected_components(pairs, directed=False)
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    facet_normal = np.zeros((count, 3))
    np.add.at(facet_normal, facet, normals * area[:, None])
    facet_normal /= np.linalg.norm(facet_normal, axis=1, keepdims=True)
    angle = _solid_angles(corners)
    landing = np.bincount(facet, weights=angle / angle.sum(), minlength=count)

    # A facet rolls over the border edge that the centre of mass lies furthest outside of.
    border = facet[here] != facet[there]
    tri, opposite = here[border], np.tile(np.arange(3), n)[border]
    a, b = corners[tri, (opposite + 1) % 3], corners[tri, (opposite + 2) % 3]
    third = corners[tri, opposite]
    outward = np.cross(b - a, facet_normal[facet[tri]])
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-15)
    outward *= -np.sign(np.einsum("ij,ij->i", outward, third - a))[:, None]
    # The centre of mass is the origin, and `outward` is level, so its projection drops out.
    beyond = -np.einsum("ij,ij->i", outward, a)
    order = np.lexsort((-beyond, facet[tri]))
    first = order[np.unique(facet[tri][order], return_index=True)[1]]
    onto = np.arange(count)
    rolls = beyond[first] > 0
    onto[facet[tri][first[rolls]]] = facet[there[border][first[rolls]]]
    stable = onto == np.arange(count)
    for _ in range(int(np.ceil(np.log2(count + 1)))):
        onto = onto[onto]
    chance = np.bincount(onto, weights=landing, minlength=count) * stable
    height = np.array([-np.inf] * count)
    np.maximum.at(height, facet, np.einsum("ij,ij->i", facet_normal[facet], corners[:, 0]))
    keep = _merge_alike(facet_normal, height, chance)
    probability = np.array([p for _, p in keep])
    poses = [_on_table(facet_normal[f], centre, points) for f, _ in keep]
    return np.array(poses), probability / probability.sum()


def _solid_angles(corners: Array) -> Array:
    """Solid angle of triangles (N, 3, 3) from the origin (Van Oosterom and Strackee 1983)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    la, lb, lc = (np.linalg.norm(p, axis=1) for p in (a, b, c))
    above = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    ab, bc, ca = (np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a)))
    return np.asarray(2 * np.arctan2(above, la * lb * lc + ab * lc + bc * la + ca * lb))


def _merge_alike(normals: Array, height: Array, chance: Array) -> list[tuple[int, float]]:
    """Facets that stand for all stable ones, with the summed chances, likeliest first."""
    left = [int(f) for f in np.argsort(-chance, kind="stable") if chance[f] > 0]
    groups = []
    while left:
        lead = left[0]
        near = (normals[left] @ normals[lead] > np.cos(_ALIKE_RAD)) & (
            np.abs(height[left] - height[lead]) < _ALIKE_HEIGHT * height[lead]
        )
        groups.append((lead, float(chance[np.array(left)[near]].sum())))
        left = [f for f, absorbed in zip(left, near, strict=True) if not absorbed]
    groups.sort(key=lambda g: -g[1])
    likely = [g for g in groups if g[1] >= _LEAST_PROBABILITY]
    return (likely or groups)[:_MOST_POSES]


def _on_table(normal: Array, centre: Array, points: Array) -> Array:
    """T_table_object that turns the outward normal down, without spin about it."""
    # Turn what points up over first, so that 1 - z below is never small.
    over = np.diag([1.0, -1.0, -1.0]) if normal[2] > 0 else np.eye(3)
    x, y, z = over @ normal / np.linalg.norm(normal)
    # Rodrigues' formula for the rotation of n onto -z: axis n x -z = (-y, x, 0), cosine -z.
    K = np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])
    R = (np.eye(3) + K + K @ K / (1 - z)) @ over
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = -R @ centre
    T[2, 3] = -np.min(points @ R[2])
    return T
