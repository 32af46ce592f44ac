"""Line queries and closing jaws against embree's rays, and the kernels against their twins."""

from unittest.mock import patch

import numpy as np
import pytest
from needs import NO_NATIVE
from solids import box

from rt.hand import load_hand
from rt.native import native
from sim.scene import hull, lines, raster
from sim.scene.arrange import make_scene
from sim.scene.closing import Surface, closed_widths
from sim.scene.grasps import true_grasps
from sim.scene.lines import Lines, cross_numpy, hands_at
from sim.scene.objects import catalogue_set
from sim.scene.render import Renderer
from sim.scene.scene import Scene, assemble

HAND = load_hand()
Z, W = (
    np.linspace(0.001, 0.02, 4).astype(np.float32),
    np.linspace(-0.01, 0.01, 3).astype(np.float32),
)
HALF = HAND.opening_m / 2
needs_native = pytest.mark.skipif(native is None, reason=NO_NATIVE)


@pytest.fixture(scope="module", params=range(3))
def scene(request: pytest.FixtureRequest) -> Scene:
    return make_scene(catalogue_set("train"), np.random.default_rng(request.param))


def some_hands(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    xy, z = rng.uniform(-0.1, 0.1, (count, 2)), rng.uniform(0, 0.08, count)
    return hands_at(np.column_stack([xy, z, rng.uniform(-np.pi, np.pi, count)]))


def test_contacts_are_what_rays_from_both_sides_meet(scene: Scene) -> None:
    hands, renderer = some_hands(60), Renderer(scene)
    met = Lines(scene.vertices, scene.faces).cross(hands, Z, W, -HALF, HALF)
    c, s = hands[:, 3], hands[:, 4]
    axis = np.stack([c, s, 0 * c], -1)[:, None, None]
    across = np.stack([s, -c, 0 * c], -1)[:, None, None]
    middle = hands[:, None, None, :3] + Z[:, None, None] * [0, 0, 1] + W[:, None] * across
    for sign, place, face in ((1, met.left, met.left_face), (-1, met.right, met.right_face)):
        origins = (middle - sign * HALF * axis).astype(np.float32).reshape(-1, 3)
        directions = np.broadcast_to(sign * axis, middle.shape).astype(np.float32).reshape(-1, 3)
        t, f = renderer.cast(origins, directions)
        t[t > 2 * HALF] = np.inf
        mine = (HALF + sign * place).reshape(-1)
        both = np.isfinite(mine) & np.isfinite(t)
        differ = np.isfinite(mine) != np.isfinite(t)
        differ[both] = np.abs(mine[both] - t[both]) > 1e-5
        assert np.isfinite(t).sum() > 50
        assert differ.mean() < 0.005  # lines that graze an edge
        assert ((face.reshape(-1) == -1) == np.isinf(mine)).all()
        assert (face.reshape(-1) != f)[np.isfinite(mine) & ~differ].mean() < 0.02


@needs_native
def test_crossings_agree_with_the_twin_bit_by_bit(scene: Scene) -> None:
    hands = some_hands(80)
    found = Lines(scene.vertices, scene.faces).cross(hands, Z, W, -HALF, HALF)
    twin = cross_numpy(scene.vertices, scene.faces, hands, Z, W, -HALF, HALF)
    for name in ("left", "left_face", "right", "right_face"):
        np.testing.assert_array_equal(getattr(found, name), getattr(twin, name), err_msg=name)


@needs_native
def test_grasps_are_the_same_without_the_kernels(scene: Scene) -> None:
    """Crossings, closing jaws, hull and height map: the twins give the same bytes."""
    found = true_grasps(scene, np.random.default_rng(2), HAND, samples=200)
    with (
        patch.object(lines, "native", None),
        patch.object(hull, "native", None),
        patch.object(raster, "native", None),
    ):
        twin = true_grasps(scene, np.random.default_rng(2), HAND, samples=200)
    assert len(found) > 5
    assert found.poses.tobytes() == twin.poses.tobytes()
    assert found.object.tobytes() == twin.object.tobytes()


def test_a_hand_beside_the_middle_is_told_the_way_there() -> None:
    thing = box((0.04, 0.06, 0.05))
    scene = assemble([(thing, np.eye(4))])
    a, b, c = (scene.vertices[scene.faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)
    surface = Surface(normals, scene.face_object)
    poses = np.float32(
        [[0.005, 0, 0.01, 0], [0.03, 0, 0.01, 0], [0, 0, 0.01, 0.5], [0.2, 0, 0.01, 0]]
    )
    width, shift = closed_widths(
        Lines(scene.vertices, scene.faces), surface, poses, np.zeros(4, np.int16), HAND, 0.5
    )
    # Beside the middle; too far beside; askew by more than the friction cone; nothing there.
    np.testing.assert_allclose(width, [0.04, -1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(shift, [-0.005, 0, 0, 0], atol=1e-6)


def test_a_mesh_without_faces_meets_nothing() -> None:
    empty = Lines(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert np.isinf(empty.cross(some_hands(2), Z, W, -HALF, HALF).left).all()
