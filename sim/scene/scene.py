"""Scenes: objects at rest on a table or in a bin, as one mesh, and random views of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.view import END_HEIGHT_M, START_HEIGHT_M
from sim.scene.bin import OpenBin
from sim.scene.objects import Object

MAX_OBJECTS = 5
MAX_HEIGHT_M = 0.13
"""Objects lie lower than this, so that a hand at the end of its travel (0.15 m) clears them."""
CLUTTER, CIRCLE_M = 10, 0.15
"""Tight clutter: at most so many objects, their centres in a circle of this radius."""
BIN_MAX_HEIGHT_M = 0.25
"""Objects in the bins of a training set are up to this high."""
PILED = (5, 20)
"""Least and most objects poured into a bin of a training set."""


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
    """(F,): index into `placed`; -1 for the bin's walls, which come last."""
    bin: OpenBin | None = None


def assemble(
    objects: list[tuple[Object, NDArray[np.float64]]], around: OpenBin | None = None
) -> Scene:
    """A scene of objects at given poses T_world_object (4, 4), perhaps with a bin around them."""
    return _join(
        [
            (
                Placed(thing.name, thing.category, T),
                (thing.vertices @ T[:3, :3].T + T[:3, 3]).astype(np.float32),
                thing.faces,
            )
            for thing, T in objects
        ],
        around,
    )


def _join(
    things: list[tuple[Placed, NDArray[np.float32], NDArray[np.int32]]], around: OpenBin | None
) -> Scene:
    """One mesh of all objects, given by vertices in the world and faces, and of the bin's walls."""
    vertices = [points for _, points, _ in things]
    faces = [own for _, _, own in things]
    owner = [np.full(len(own), k, np.int16) for k, own in enumerate(faces)]
    if around is not None:
        wall_vertices, wall_faces = around.mesh()
        vertices.append(wall_vertices)
        faces.append(wall_faces)
        owner.append(np.full(len(wall_faces), -1, np.int16))
    offsets = np.cumsum([0, *(len(points) for points in vertices[:-1])])
    return Scene(
        placed=tuple(placed for placed, _, _ in things),
        vertices=np.concatenate(vertices),
        faces=np.concatenate([f + offset for f, offset in zip(faces, offsets, strict=True)]).astype(
            np.int32
        ),
        face_object=np.concatenate(owner),
        bin=around,
    )


def rearranged(scene: Scene, T_world_object: NDArray[np.float64], kept: list[int]) -> Scene:
    """The scene with only the objects `kept` (indices into placed), each at its T_world_object[k] (4, 4)."""
    things = []
    for k in kept:
        used, faces = np.unique(scene.faces[scene.face_object == k], return_inverse=True)
        old, placed = scene.placed[k].T_world_object, scene.placed[k]
        own = (scene.vertices[used].astype(np.float64) - old[:3, 3]) @ old[:3, :3]
        new = T_world_object[k]
        vertices = (own @ new[:3, :3].T + new[:3, 3]).astype(np.float32)
        at = Placed(placed.name, placed.category, new)
        things.append((at, vertices, faces.reshape(-1, 3).astype(np.int32)))
    return _join(things, scene.bin)


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
