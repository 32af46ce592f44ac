"""Objects that a hand cannot grasp from above: said, and refused before anything waits for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from rt.hand import load_hand
from sim.dataset import store
from sim.dataset.options import GenerateOptions, parameters
from sim.generate import generate
from sim.scene import grasps
from sim.scene.graspable import grasps_at_rest, least_width_m, require_graspable
from sim.scene.grasps import NoGraspError, numbered_scene
from sim.scene.objects import ObjectError, make_object, object_set
from sim.show import main as show

HAND = load_hand()


def parts(folder: Path, *sides: float) -> Path:
    for k, side in enumerate(sides):
        trimesh.creation.box((side, side, side)).export(folder / f"part{k}.stl")
    return folder


def test_a_cube_wider_than_the_hand_opens_is_refused_by_name(tmp_path: Path) -> None:
    objects = object_set("all", parts(tmp_path, 0.12, 0.125), only_meshes=True)
    with pytest.raises(NoGraspError) as error:
        require_graspable(objects, "train", HAND)
    for word in ("meshes/part0 is at least 120 mm wide", "part1", "opens 85 mm", "train"):
        assert word in str(error.value)


def test_one_part_that_fits_is_enough(tmp_path: Path) -> None:
    require_graspable(object_set("all", parts(tmp_path, 0.12, 0.04), True), "all", HAND)


def test_generation_refuses_before_it_writes(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts(folder, 0.12, 0.125)
    config = GenerateOptions(2, 1, 2, tmp_path / "set", meshes=folder, only_meshes=True)
    with pytest.raises(NoGraspError, match="can grasp none of the 1 objects of the train split"):
        generate(config)
    assert not (tmp_path / "set").exists()


def test_a_scene_is_not_drawn_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = object_set("all", parts(tmp_path, 0.12), only_meshes=True)
    monkeypatch.setattr(grasps, "TRIES", 3)
    with pytest.raises(NoGraspError, match="no grasp from above in 3 tries"):
        numbered_scene(objects, 0, "test", 0, HAND)
    scene, none, _ = numbered_scene(objects, 0, "test", 0, HAND, empty=True)
    assert len(scene.placed) >= 1 and len(none) == 0


def test_such_a_scene_is_drawn_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts(folder, 0.12)
    out = tmp_path / "scene.png"
    assert show(["--meshes", str(folder), "--only-meshes", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "0 grasps on" in said.out and "at least 120 mm wide" in said.err
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_the_ways_to_grasp_are_told_for_each_resting_pose() -> None:
    """A plate of 120 x 100 x 40 mm: only standing on a long side is it narrow enough, and then low enough."""
    plate = trimesh.creation.box((0.12, 0.1, 0.04))
    thing = make_object("plate", "plate", plate.vertices, plate.faces)
    poses = grasps_at_rest(thing, HAND)
    assert len(poses) == len(thing.rest) and poses[0].count == 0  # lying flat, the likeliest
    held = [p for p in poses if p.count]
    assert held and all(p.whole > 0.9 and p.width_m is not None for p in held)
    assert all(p.width_m[0] == pytest.approx(0.04, abs=0.001) for p in held if p.width_m)
    assert least_width_m(thing) == pytest.approx(0.04, abs=1e-6)
    assert all(str(p).startswith("whole, 40 to ") for p in held)


def test_no_test_scenes_need_no_test_objects(tmp_path: Path) -> None:
    parts(tmp_path, 0.04)
    config = GenerateOptions(2, 0, 2, tmp_path / "set", meshes=tmp_path, only_meshes=True)
    assert parameters(config)["test_scenes"] == 0
    with pytest.raises(ObjectError, match="--test-scenes 0"):
        parameters(replace(config, test_scenes=1))


def test_mesh_options_are_parameters_of_the_set_if_given(tmp_path: Path) -> None:
    from sim.scene.meshes import MeshOptions

    parts(tmp_path, 40.0, 50.0)
    options = MeshOptions(mesh_unit="mm")
    config = GenerateOptions(2, 1, 2, tmp_path / "set", meshes=tmp_path, mesh=options)
    assert parameters(config)["mesh"]["mesh_unit"] == "mm"
    plain = parameters(GenerateOptions(2, 1, 2, tmp_path / "set"))
    assert set(plain) == {
        *("train_scenes", "test_scenes", "views", "seed", "hand", "view", "rigs", "friction"),
        *("grasp_samples", "scenes_per_shard", "objects", "renderer"),
    }
    assert store.dataset_id(plain) != store.dataset_id(parameters(config))


def test_a_catalogue_scene_is_what_it_was() -> None:
    """The bound on tries does not change a scene that has a grasp."""
    objects = object_set("train")
    one, first, _ = numbered_scene(objects, 0, "train", 0, HAND, samples=200)
    two, second, _ = numbered_scene(objects, 0, "train", 0, HAND, samples=200)
    np.testing.assert_array_equal(first.poses, second.poses)
    np.testing.assert_array_equal(one.vertices, two.vertices)
