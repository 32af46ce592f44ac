"""Rasterised depth against embree's rays, and the kernel against its twin."""

from unittest.mock import patch

import numpy as np
import pytest
from needs import NO_NATIVE
from solids import box

from rt.native import native
from rt.pose import top_down
from rt.view import VIEW
from sim.scene import raster
from sim.scene.arrange import make_scene
from sim.scene.objects import catalogue_set
from sim.scene.raster import RasterRenderer
from sim.scene.render import Renderer
from sim.scene.rig import make_rig, mounted
from sim.scene.scene import Scene, SceneError, assemble
from sim.scene.sensor import SENSORS

needs_native = pytest.mark.skipif(native is None, reason=NO_NATIVE)


@pytest.fixture(scope="module", params=range(3))
def scene(request: pytest.FixtureRequest) -> Scene:
    return make_scene(catalogue_set("train"), np.random.default_rng(request.param))


def cameras() -> list[tuple[np.ndarray, np.ndarray]]:
    """Poses and rays: the view from three places, a tilted sensor, and one that looks along the table."""
    from rt.hand import load_hand

    rig = make_rig(SENSORS["d405"], mounted(load_hand()))
    along = np.eye(4)
    along[:3, :3], along[:3, 3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [-0.4, 0, 0.05]
    return [
        (top_down(0, 0, 0.3, 0), VIEW.rays()),
        (top_down(0.03, -0.02, 0.15, 0.7), VIEW.rays()),
        (top_down(0.01, 0.02, 0.2, 2) @ mounted(load_hand()), rig.intrinsics.rays()),
        (along, VIEW.rays()),
    ]


def test_depth_is_what_rays_meet(scene: Scene) -> None:
    for pose, rays in cameras():
        drawn, traced = RasterRenderer(scene).depth(pose, rays), Renderer(scene).depth(pose, rays)
        # A ray that meets an edge may fall to either side of it.
        assert (np.abs(drawn - traced) > 1e-5).sum() <= 2


def test_the_face_seen_is_the_one_that_the_ray_meets(scene: Scene) -> None:
    pose, rays = cameras()[1]
    depth, face = RasterRenderer(scene).depth_and_face(pose, rays)
    T = pose.astype(np.float32)
    directions = rays.reshape(-1, 3) @ T[:3, :3].T
    origins = np.tile(T[:3, 3], (len(directions), 1))
    met = Renderer(scene).face(origins, directions).reshape(face.shape)
    assert (face >= 0).sum() > 20
    assert (face != met).mean() < 0.01  # neighbours that share an edge, and faces below the table
    assert (face[depth == 0] == -1).all()


def test_heights_are_what_rays_from_above_meet(scene: Scene) -> None:
    drawn, traced = (R(scene).height_map(0.2, 0.002) for R in (RasterRenderer, Renderer))
    assert (np.abs(drawn - traced) > 1e-5).sum() <= 2


@needs_native
def test_kernel_and_twin_agree_bit_by_bit(scene: Scene) -> None:
    renderer = RasterRenderer(scene)
    for pose, rays in cameras():
        depth, face = renderer.depth_and_face(pose, rays)
        height = renderer.height_map(0.2, 0.002)
        with patch.object(raster, "native", None):
            again = renderer.depth_and_face(pose, rays)
            np.testing.assert_array_equal(depth, again[0])
            np.testing.assert_array_equal(face, again[1])
            np.testing.assert_array_equal(height, renderer.height_map(0.2, 0.002))


def test_a_camera_among_faces_loses_none() -> None:
    """Corners behind the camera: a wide table top below, seen from 2 cm above it."""
    scene = assemble([(box((0.8, 0.8, 0.05)), np.eye(4))])
    depth = RasterRenderer(scene).depth(top_down(0.1, 0.05, 0.07, 0.3), VIEW.rays())
    np.testing.assert_allclose(depth, 0.02, atol=1e-6)


def test_a_distorted_camera_and_a_broken_mesh_are_refused() -> None:
    scene = assemble([(box((0.05, 0.05, 0.05)), np.eye(4))])
    rays = VIEW.rays()
    rays[3, 4, 0] += 0.01
    with pytest.raises(SceneError, match="--renderer embree"):
        RasterRenderer(scene).depth(top_down(0, 0, 0.3, 0), rays)
    with pytest.raises(SceneError, match="not there"):
        RasterRenderer(Scene(scene.placed, scene.vertices[:3], scene.faces, scene.face_object))
