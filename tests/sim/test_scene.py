"""Scenes: objects at rest on the table, low enough, apart."""

import manifold3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solids import box

from sim.scene.arrange import _disjoint, make_scene
from sim.scene.objects import catalogue_set
from sim.scene.scene import MAX_HEIGHT_M, SceneError, assemble, camera_poses


@pytest.mark.parametrize("seed", range(12))
def test_objects_rest_on_the_table_below_the_hand(seed):
    scene = make_scene(catalogue_set("train"), np.random.default_rng(seed))
    assert 1 <= len(scene.placed) <= 5
    for k in range(len(scene.placed)):
        z = scene.vertices[scene.faces[scene.face_object == k], 2]
        assert abs(z.min()) < 1e-6
        assert z.max() <= MAX_HEIGHT_M + 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_objects_do_not_interpenetrate(seed):
    scene = make_scene(catalogue_set("train"), np.random.default_rng(seed), count=5)
    bodies = []
    for k in range(5):
        own = scene.faces[scene.face_object == k]
        used, faces = np.unique(own, return_inverse=True)
        mesh = manifold3d.Mesh(scene.vertices[used], faces.reshape(-1, 3).astype(np.uint32))
        mesh.merge()
        bodies.append(manifold3d.Manifold(mesh))
        assert bodies[-1].status() == manifold3d.Error.NoError
    for i in range(5):
        for j in range(i):
            assert (bodies[i] ^ bodies[j]).volume() == 0
            assert bodies[i].min_gap(bodies[j], 0.01) > 0.0029


def test_the_number_of_objects_is_as_asked():
    rng = np.random.default_rng(0)
    assert [len(make_scene(catalogue_set("test"), rng, count=n).placed) for n in (1, 3, 5)] == [
        1,
        3,
        5,
    ]
    counts = {len(make_scene(catalogue_set("test"), rng).placed) for _ in range(40)}
    assert counts == {1, 2, 3, 4, 5}


def test_the_same_seed_gives_the_same_scene():
    a, b = (make_scene(catalogue_set("train"), np.random.default_rng(7)) for _ in range(2))
    assert a.vertices.tobytes() == b.vertices.tobytes()
    assert [p.name for p in a.placed] == [p.name for p in b.placed]


def test_a_set_of_towers_is_refused():
    class Towers:
        names = ("tower",)

        def get(self, name):
            return box((0.2, 0.2, 0.2))

    with pytest.raises(SceneError, match=r"0\.13 m"):
        make_scene(Towers(), np.random.default_rng(0))


def test_cameras_look_from_the_travel_at_an_object():
    scene = assemble([(box((0.05, 0.05, 0.05)), np.eye(4))])
    poses = camera_poses(scene, 500, np.random.default_rng(0))
    assert poses.dtype == np.float32
    assert np.hypot(poses[:, 0], poses[:, 1]).max() <= 0.12
    assert 0.145 <= poses[:, 2].min() < 0.16 and 0.30 < poses[:, 2].max() <= 0.31


@given(
    st.floats(0.001, 0.2),
    st.floats(-np.pi, np.pi),
    st.floats(-np.pi, np.pi),
)
def test_disjoint_agrees_with_the_gap_between_discs(gap, direction, turn):
    """Two many-sided discs of 3 cm: apart by the gap, whatever the direction."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False) + turn
    disc = 0.03 * np.column_stack([np.cos(angle), np.sin(angle)])
    other = disc + (0.06 + gap) * np.array([np.cos(direction), np.sin(direction)])
    if gap > 0.0031:
        assert _disjoint(disc, other) and _disjoint(other, disc)
    elif gap < 0.0029:
        assert not _disjoint(disc, other)
