"""The bin: walls that are closed, of their height, seen by rays, met by fingers and never grasped."""

import manifold3d
import numpy as np
import pytest
from solids import box

from rt.hand import load_hand
from sim.scene import grasps
from sim.scene.arrange import GAP_M, NoRoomError, make_scene
from sim.scene.bin import SIDE_M, THICKNESS_M, WALL_HEIGHT_M, OpenBin, random_bin
from sim.scene.grasps import numbered_scene, true_grasps
from sim.scene.objects import catalogue_set
from sim.scene.render import Renderer
from sim.scene.scene import SceneError, assemble


def test_the_walls_are_closed_and_of_their_size():
    around = OpenBin((0.30, 0.20), 0.08, 0.01, 0.5)
    vertices, faces = around.mesh()
    for k in range(4):
        own = manifold3d.Mesh(
            vertices[8 * k : 8 * k + 8], (faces[12 * k : 12 * k + 12] - 8 * k).astype(np.uint32)
        )
        solid = manifold3d.Manifold(own)
        assert solid.status() == manifold3d.Error.NoError
        assert solid.volume() == pytest.approx([0.22, 0.22, 0.30, 0.30][k] * 0.01 * 0.08, rel=1e-4)
    assert around.holds(np.array([[0.0, 0.0]]), 0.0)
    c, s = np.cos(0.5), np.sin(0.5)
    assert around.holds(np.array([[0.14 * c, 0.14 * s]]), 0.003)
    assert not around.holds(np.array([[-0.14 * s, 0.14 * c]]), 0.003)


@pytest.mark.parametrize("seed", range(4))
def test_objects_lie_inside_the_walls(seed):
    scene = make_scene(catalogue_set("test"), np.random.default_rng(seed), walled=True)
    assert scene.bin is not None
    walls = scene.faces[scene.face_object == -1]
    assert len(walls) == 48
    assert SIDE_M[0] <= min(scene.bin.inner_m) and max(scene.bin.inner_m) <= SIDE_M[1]
    assert THICKNESS_M[0] <= scene.bin.thickness_m <= THICKNESS_M[1]
    top = scene.vertices[walls][..., 2].max()
    assert WALL_HEIGHT_M[0] <= top <= WALL_HEIGHT_M[1] + 1e-6
    own = scene.vertices[scene.faces[scene.face_object >= 0]][..., :2].reshape(-1, 2)
    assert scene.bin.holds(own.astype(float), GAP_M - 1e-5)


def test_walls_are_seen_met_and_never_held():
    """A bar beside a wall, too near for a finger: only grasps along the wall are left."""
    bar = box((0.03, 0.16, 0.04))
    place = np.eye(4)
    place[:2, 3] = (0.15 - 0.015 - 0.008, 0.0)
    place[2, 3] = 0.02
    alone = assemble([(bar, place)])
    walled = assemble([(bar, place)], OpenBin((0.30, 0.30), 0.10, 0.005, 0.0))
    height = Renderer(walled).height_map(0.2, 0.001)
    assert height[352, 200] == pytest.approx(0.10, abs=1e-5)  # x = 0.1525: in the wall
    rng = np.random.default_rng
    free, held = (true_grasps(scene, rng(0), samples=1000) for scene in (alone, walled))
    assert len(free) and len(held) < len(free)
    assert set(held.object) <= {0}
    hand = load_hand()
    tips = (
        held.poses[:, None, :2]
        + np.array([-1, 1])[None, :, None]
        * (hand.opening_m / 2 + hand.finger_thickness_m / 2)
        * np.stack([np.cos(held.poses[:, 3]), np.sin(held.poses[:, 3])], axis=-1)[:, None]
    )
    assert len(tips) == 0 or tips[..., 0].max() < 0.15 + 1e-6


def test_a_circle_holds_ten_objects_and_too_many_are_refused():
    objects = catalogue_set("test")
    scene = make_scene(objects, np.random.default_rng(0), count=10, circle_m=0.15)
    centres = np.array([p.T_world_object[:2, 3] for p in scene.placed])
    assert len(centres) == 10 and scene.bin is None
    middles = [
        scene.vertices[scene.faces[scene.face_object == k]][..., :2].reshape(-1, 2)
        for k in range(10)
    ]
    assert max(np.linalg.norm((m.min(0) + m.max(0)) / 2) for m in middles) < 0.2
    with pytest.raises(SceneError, match="40 objects"):
        make_scene(_Cubes(), np.random.default_rng(0), count=40, circle_m=0.10)


class _Cubes:
    names = ("cube",)

    def get(self, name):
        return box((0.05, 0.05, 0.05))


def test_numbered_scenes_of_bins_repeat_and_default_ones_keep_their_bytes():
    objects = catalogue_set("test")
    a, b = (numbered_scene(objects, 0, "test", 1, samples=500, walled=True) for _ in range(2))
    assert a[0].vertices.tobytes() == b[0].vertices.tobytes() and a[0].bin == b[0].bin
    assert random_bin(np.random.default_rng(1)) == random_bin(np.random.default_rng(1))
    assert numbered_scene(objects, 0, "test", 1, samples=500)[0].bin is None


def test_a_crowded_draw_is_drawn_again_and_a_hopeless_one_refused(monkeypatch):
    test, calls, tries = catalogue_set("test"), [], grasps.CROWDED_TRIES

    def crowded(objects, rng, count, **options):
        calls.append(count)
        if len(calls) < tries:
            raise NoRoomError("full")
        return make_scene(objects, rng, count, **options)

    monkeypatch.setattr(grasps, "make_scene", crowded)
    found, _, _ = numbered_scene(test, 0, "test", 0, count=2, walled=True, samples=200)
    assert len(found.placed) == 2 and len(calls) == tries
    monkeypatch.setattr(grasps, "CROWDED_TRIES", 2)
    calls.clear()
    with pytest.raises(NoRoomError, match="full"):
        numbered_scene(test, 0, "test", 0, count=2, walled=True, samples=200)
    assert len(calls) == 2
