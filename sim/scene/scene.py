"""Scenes: one to five objects at rest on a table, at random, not touching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from rt.view import END_HEIGHT_M, START_HEIGHT_M
from sim.scene.objects import Object, ObjectSet

MAX_OBJECTS = 5
MAX_HEIGHT_M = 0.13
"""Objects lie lower than this, so that a hand at the end of its travel (0.15 m) clears them."""
GAP_M = 0.003
"""Least horizontal distance between the convex outlines of two objects."""
TILT_SHARE, TILT_MAX_DEG = 0.25, 8.0
"""A quarter of the objects are not quite at rest: leaning by up to this, as when half supported."""
SPREAD_M = 0.06
"""Objects' centres lie in a disc of radius SPREAD_M * sqrt(number of objects), wider if full."""


class SceneError(ValueError):
    """No scene can be made of these objects."""


@dataclass(frozen=True)
class Placed:
    """One object of a scene."""

    name: str
    category: str
    T_world_object: NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Objects on the table z = 0, near the world's origin; all triangles in one mesh."""

    placed: tuple[Placed, ...]
    vertices: NDArray[np.float32]
    """(V, 3) metres, world."""
    faces: NDArray[np.int32]
    """(F, 3), outward by the right-hand rule."""
    face_object: NDArray[np.int16]
    """(F,): index into `placed`."""


def assemble(objects: list[tuple[Object, NDArray[np.float64]]]) -> Scene:
    """A scene of objects at given poses T_world_object (4, 4)."""
    vertices, faces, owner, placed, offset = [], [], [], [], 0
    for k, (thing, T) in enumerate(objects):
        vertices.append((thing.vertices @ T[:3, :3].T + T[:3, 3]).astype(np.float32))
        faces.append(thing.faces + np.int32(offset))
        owner.append(np.full(len(thing.faces), k, np.int16))
        placed.append(Placed(thing.name, thing.category, T))
        offset += len(thing.vertices)
    return Scene(
        placed=tuple(placed),
        vertices=np.concatenate(vertices),
        faces=np.concatenate(faces).astype(np.int32),
        face_object=np.concatenate(owner),
    )


def make_scene(
    objects: ObjectSet,
    rng: np.random.Generator,
    count: int | None = None,
    clutter: int = MAX_OBJECTS,
) -> Scene:
    """A random scene of `count` objects of the set, or of 1 to `clutter` if count is None.

    Each rests on one of its stable poses lower than MAX_HEIGHT_M, turned at random. Their convex
    outlines on the table are disjoint, which is more than not interpenetrating. Raises SceneError if
    the set holds nothing low enough.
    """
    if count is None:
        count = int(rng.integers(1, clutter + 1))
    radius = SPREAD_M * np.sqrt(count)
    chosen: list[tuple[Object, NDArray[np.float64]]] = []
    outlines: list[NDArray[np.float64]] = []
    for _ in range(count):
        thing, T = _rest(objects, rng)
        points = thing.vertices[:, :2] @ T[:2, :2].T + thing.vertices[:, 2:] * T[:2, 2] + T[:2, 3]
        outline = points[ConvexHull(points).vertices]
        while True:
            xy = radius * np.sqrt(rng.random()) * _direction(rng)
            if all(_disjoint(outline + xy, other) for other in outlines):
                break
            radius *= 1.02
        T = T.copy()
        T[:2, 3] += xy
        chosen.append((thing, T))
        outlines.append(outline + xy)
    return assemble(chosen)


def camera_poses(scene: Scene, views: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random views (views, 4) of x, y, z [m], yaw [rad]: hands above a random object of the scene.

    The offset from the object's centre is up to 0.12 m, denser near the middle, where the loop spends
    most of its cycles; the height is uniform over the hand's travel and a little more.
    """
    centres = np.array([p.T_world_object[:2, 3] for p in scene.placed])
    xy = centres[rng.integers(len(centres), size=views)]
    angle = rng.uniform(-np.pi, np.pi, views)
    xy = xy + 0.12 * rng.random((views, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    z = rng.uniform(END_HEIGHT_M - 0.005, START_HEIGHT_M + 0.01, views)
    yaw = rng.uniform(-np.pi, np.pi, views)
    return np.column_stack([xy, z, yaw]).astype(np.float32)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _rest(objects: ObjectSet, rng: np.random.Generator) -> tuple[Object, NDArray[np.float64]]:
    """A random object in a random resting pose above the origin, low enough, turned, perhaps leaning."""
    for _ in range(1000):
        thing = objects.get(objects.names[rng.integers(len(objects.names))])
        T = thing.rest[rng.choice(len(thing.rest), p=thing.rest_probability)]
        R = _about_z(rng.uniform(-np.pi, np.pi)) @ T[:3, :3]
        if rng.random() < TILT_SHARE:
            R = _tilt(_direction(rng), np.radians(TILT_MAX_DEG) * rng.random()) @ R
        z = thing.vertices @ R[2]
        if z.max() - z.min() <= MAX_HEIGHT_M:
            lifted = np.eye(4)
            lifted[:3, :3] = R
            # T puts the centre of mass above the origin: the object's point below it stays there.
            lifted[:2, 3] = (R @ T[:3, :3].T @ T[:3, 3])[:2]
            lifted[2, 3] = -z.min()
            return thing, lifted
    raise SceneError(
        f"no object of this set rests lower than {MAX_HEIGHT_M} m in 1000 tries; use smaller objects"
    )


def _about_z(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _tilt(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rotation by angle about the horizontal axis (2,), by Rodrigues' formula."""
    x, y = axis
    K = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K)


def _disjoint(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """True if two convex polygons (N, 2) are at least GAP_M apart, by the separating-axis theorem."""
    for p in (a, b):
        edge = np.roll(p, -1, axis=0) - p
        normal = np.column_stack([edge[:, 1], -edge[:, 0]])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        pa, pb = normal @ a.T, normal @ b.T
        gap = np.maximum(pb.min(1) - pa.max(1), pa.min(1) - pb.max(1))
        if gap.max() >= GAP_M:
            return True
    return False
