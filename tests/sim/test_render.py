"""Rays against closed forms."""

import numpy as np
import pytest
from solids import box

from rt.pose import top_down
from rt.view import VIEW
from sim.scene.render import Renderer
from sim.scene.scene import assemble


def test_the_empty_table_is_at_the_height_of_the_hand():
    aside = np.eye(4)
    aside[0, 3] = 5
    renderer = Renderer(assemble([(box((0.05, 0.05, 0.05)), aside)]))
    depth = renderer.depth(top_down(0.1, -0.2, 0.27, 1.0), VIEW.rays())
    np.testing.assert_allclose(depth, 0.27, atol=1e-6)


@pytest.mark.parametrize("yaw", [0.0, 0.7, np.pi / 2])
def test_a_box_is_where_the_pinhole_says(yaw):
    """Top face at 0.04 m: every pixel whose ray meets it has its depth, the rest the table's or a side's."""
    x, y, z = 0.02, -0.01, 0.25
    renderer = Renderer(assemble([(box((0.06, 0.03, 0.04)), np.eye(4))]))
    T = top_down(x, y, z, yaw)
    depth = renderer.depth(T, VIEW.rays())
    point = (VIEW.rays() * (z - 0.04)) @ T[:3, :3].T + T[:3, 3]
    inside = (np.abs(point[..., 0]) < 0.03 - 1e-5) & (np.abs(point[..., 1]) < 0.015 - 1e-5)
    assert inside.sum() > 70
    np.testing.assert_allclose(depth[inside], z - 0.04, atol=2e-7)
    assert (depth[~inside] > z - 0.04).all() and (depth <= z + 1e-6).all()


def test_a_ray_up_into_nothing_is_no_return():
    renderer = Renderer(assemble([(box((0.05, 0.05, 0.05)), np.eye(4))]))
    upward = np.eye(4)
    upward[2, 3] = 0.3
    assert (renderer.depth(upward, VIEW.rays()) == 0).all()


def test_the_height_map_is_exact_at_its_points():
    renderer = Renderer(assemble([(box((0.06, 0.032, 0.04)), np.eye(4))]))
    height = renderer.height_map(0.05, 0.002)
    c = (np.arange(50) + 0.5) * 0.002 - 0.05
    inside = (np.abs(c)[:, None] < 0.03) & (np.abs(c)[None] < 0.016)
    np.testing.assert_allclose(height, np.where(inside, 0.04, 0), atol=1e-6)


def test_the_face_map_names_what_the_height_map_shows():
    shift = np.eye(4)
    shift[:2, 3] = 0.05, -0.03
    scene = assemble([(box((0.06, 0.032, 0.04)), np.eye(4)), (box((0.02, 0.02, 0.09)), shift)])
    face, height = (
        show(0.08, 0.002) for show in (Renderer(scene).face_map, Renderer(scene).height_map)
    )
    assert face.shape == height.shape == (80, 80) and ((face < 0) == (height == 0)).all()
    tops = np.where(face < 0, 0, scene.vertices[scene.faces[face]][..., 2].mean(axis=-1))
    np.testing.assert_allclose(height, tops, atol=1e-6)
    c = (np.arange(80) + 0.5) * 0.002 - 0.08
    tall = (np.abs(c - 0.05)[:, None] < 0.01) & (np.abs(c + 0.03)[None] < 0.01)
    assert (scene.face_object[face[tall]] == 1).all()
    assert (scene.face_object[face[(face >= 0) & ~tall]] == 0).all()


def test_cast_names_the_face_and_the_range():
    scene = assemble([(box((0.06, 0.03, 0.04)), np.eye(4))])
    t, face = Renderer(scene).cast(
        np.float32([[-1, 0, 0.02], [-1, 0, 0.05]]), np.float32([[1, 0, 0], [1, 0, 0]])
    )
    assert t[0] == pytest.approx(0.97) and np.isinf(t[1]) and face[1] == -1
    np.testing.assert_allclose(scene.vertices[scene.faces[face[0]], 0], -0.03, atol=1e-6)
