"""Simple objects with known geometry, for the simulation's tests."""

from __future__ import annotations

import manifold3d
import numpy as np
import trimesh

from sim.scene.objects import Object


def box(size: tuple[float, float, float]) -> Object:
    """A box of these sides [m], standing at the origin with its base on z = 0."""
    mesh = trimesh.creation.box(size)
    return _standing(mesh.vertices + np.array([0, 0, size[2] / 2]), mesh.faces)


def solid(body: manifold3d.Manifold) -> Object:
    """A CSG solid as it stands."""
    mesh = body.to_mesh()
    return _standing(mesh.vert_properties[:, :3], mesh.tri_verts)


def _standing(vertices: np.ndarray, faces: np.ndarray) -> Object:
    return Object(
        name="test/solid",
        category="test",
        vertices=np.asarray(vertices, np.float32),
        faces=np.asarray(faces, np.int32),
        rest=np.eye(4)[None],
        rest_probability=np.ones(1),
    )
