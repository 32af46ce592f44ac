"""Piles: objects poured into a bin come to rest inside it, on each other, and can be grasped from above."""

import numpy as np
import pytest
from needs import needed

needed("physics", "mujoco")

import mujoco
from solids import box

from rt.hand import load_hand
from sim.generate import main as generate
from sim.physics.pile import _model, pour
from sim.scene.arrange import NoRoomError, make_scene
from sim.scene.bin import OpenBin
from sim.scene.grasps import numbered_scene
from sim.scene.objects import Object, catalogue_set
from sim.scene.scene import BIN_MAX_HEIGHT_M
from sim.verify import main as verify


def falling(count: int, sides: tuple[float, float, float] = (0.05, 0.04, 0.06)):
    things = []
    for k in range(count):
        T = np.eye(4)
        T[:3, 3] = 0.01 * k, -0.01 * k, 0.2 + 0.1 * k
        things.append((box(sides), T))
    return things


def corners(thing: Object, T: np.ndarray) -> np.ndarray:
    return thing.vertices @ T[:3, :3].T + T[:3, 3]


def test_boxes_come_to_rest_and_do_not_meet():
    around, things = OpenBin((0.2, 0.2), 0.1, 0.01, 0.4), falling(8)
    rest = pour(things, around)
    np.testing.assert_array_equal(rest, pour(things, around))
    for (thing, _), T in zip(things, rest, strict=True):
        assert np.linalg.det(T[:3, :3]) == pytest.approx(1, abs=1e-6)
        assert corners(thing, T)[:, 2].min() > -0.002
    settled = [(thing, T) for (thing, _), T in zip(things, rest, strict=True)]
    model = _model(settled, around)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon and data.contact.dist.min() > -0.002
    again = pour(settled, around)
    assert np.abs(again[:, :3, 3] - rest[:, :3, 3]).max() < 0.002, "they lay still"


def test_nothing_falls_beside_the_bin_while_it_is_filled():
    around = OpenBin((0.2, 0.2), 0.1, 0.003, 0.0)
    for thing, T in zip(falling(3), pour(falling(3), around), strict=True):
        assert around.holds(corners(thing[0], T)[:, :2], -0.002)


def test_a_pile_is_in_the_bin_and_some_of_it_off_the_floor():
    scene, grasps, _ = numbered_scene(
        catalogue_set("train"), 0, "train", 3, pour=pour, count=15, max_height_m=BIN_MAX_HEIGHT_M
    )
    assert scene.bin is not None and 8 <= len(scene.placed) <= 15
    assert len(grasps) and (grasps.poses[:, 4] < load_hand().opening_m).all()
    own = [scene.vertices[scene.faces[scene.face_object == k]] for k in range(len(scene.placed))]
    lowest = np.array([points[..., 2].min() for points in own])
    assert lowest.min() > -0.003 and (lowest > 0.01).sum() >= 3
    for points in own:
        middle = (points.min(axis=(0, 1)) + points.max(axis=(0, 1))) / 2
        assert scene.bin.holds(middle[None, :2].astype(float), 0)
        assert points[..., 2].max() <= BIN_MAX_HEIGHT_M + 1e-6


def test_objects_that_fit_into_no_bin_are_refused():
    class Beams:
        names = ("beam",)

        def get(self, name: str) -> Object:
            return box((0.6, 0.02, 0.02))

    with pytest.raises(NoRoomError, match="no object of this set stays in a bin"):
        make_scene(Beams(), np.random.default_rng(0), 5, pour=pour)


def test_a_set_with_piles_tight_scenes_and_bins_is_found_sound(tmp_path, capsys):
    folder = tmp_path / "set"
    size = ["--scenes", "6", "--test-scenes", "1", "--views", "2", "--scenes-per-shard", "3"]
    kinds = ["--piles", "0.4", "--tight", "0.3", "--bins", "0.3", "--grasp-samples", "500"]
    made = ["--out", str(folder), "--workers", "1", "--catalogue", "both"]
    assert generate([*size, *kinds, *made]) == 0
    assert verify([str(folder), "--out", str(tmp_path / "verify")]) == 0, capsys.readouterr().out
