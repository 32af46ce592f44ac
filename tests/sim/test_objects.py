"""Objects: resting poses against physics, sets and splits, and folders of the user's own meshes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from sim.scene.objects import (
    MESH_SUFFIXES,
    Object,
    ObjectError,
    catalogue_set,
    folder_set,
    make_object,
    object_set,
)
from sim.scene.resting import resting_poses

EVERY = catalogue_set("all")


def centre_of_mass(thing: Object) -> np.ndarray:
    """By the divergence theorem, tetrahedron by tetrahedron."""
    a, b, c = (thing.vertices[thing.faces[:, k]].astype(np.float64) for k in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c))
    return np.asarray((volume[:, None] * (a + b + c) / 4).sum(axis=0) / volume.sum())


def assert_rests(thing: Object) -> None:
    assert 1 <= len(thing.rest) == len(thing.rest_probability) <= 12, thing.name
    assert thing.rest_probability.sum() == pytest.approx(1, abs=1e-12)
    assert (thing.rest_probability >= 0.01).all()
    assert (np.diff(thing.rest_probability) <= 1e-12).all()
    for T in thing.rest:
        R = T[:3, :3]
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        points = thing.vertices @ R.T + T[:3, 3]
        assert abs(points[:, 2].min()) < 1e-6, thing.name
        centre = R @ centre_of_mass(thing) + T[:3, 3]
        np.testing.assert_allclose(centre[:2], 0, atol=1e-6)
        # The contact with the table supports the centre of mass, which is above x = y = 0.
        foot = points[points[:, 2] < 2e-4, :2]
        assert len(foot) >= 3, thing.name
        assert ConvexHull(foot).equations[:, 2].max() < 1e-5, thing.name


@pytest.mark.parametrize("category", sorted({n.partition("/")[0] for n in EVERY.names}))
def test_catalogue_objects_rest_on_what_holds_them(category: str) -> None:
    for name in EVERY.names[::3]:
        if EVERY.category(name) == category:
            assert_rests(EVERY.get(name))


def test_a_cube_rests_on_six_faces_alike() -> None:
    cube = trimesh.creation.box((0.05, 0.05, 0.05))
    poses, probability = resting_poses(cube.vertices, cube.faces)
    np.testing.assert_allclose(probability, np.full(6, 1 / 6), atol=1e-12)
    down = {tuple(np.round(T[2, :3]).astype(int)) for T in poses}
    assert len(down) == 6


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.floats(0.02, 0.2)] * 3), st.integers(0, 10**6))
def test_resting_poses_do_not_depend_on_the_frame(
    size: tuple[float, float, float], seed: int
) -> None:
    """A box turned at random: the same chances, each the exact solid angle of a face."""
    box = trimesh.creation.box(size)
    turned, rng = box.copy(), np.random.default_rng(seed)
    turned.apply_transform(trimesh.transformations.random_rotation_matrix(rng.random(3)))
    turned.apply_translation(rng.normal(size=3))
    _, plain = resting_poses(box.vertices, box.faces)
    _, probability = resting_poses(turned.vertices, turned.faces)
    a, b, c = np.array(size) / 2
    exact = []
    for p, q, h in ((a, b, c), (b, c, a), (c, a, b)):
        exact += [4 * np.arctan(p * q / (h * np.sqrt(p * p + q * q + h * h))) / (4 * np.pi)] * 2
    exact = np.array([e for e in sorted(exact, reverse=True) if e >= 0.01])
    np.testing.assert_allclose(plain, exact / exact.sum(), atol=1e-9)
    np.testing.assert_allclose(probability, plain, atol=1e-6)


def test_chances_agree_with_an_independent_library() -> None:
    """trimesh's stable poses on angular solids, where no poses are merged."""
    for name in ("tetra_pak/000", "tetra_pak/007"):
        thing = EVERY.get(name)
        mesh = trimesh.Trimesh(thing.vertices, thing.faces, process=False)
        _, theirs = mesh.compute_stable_poses(threshold=0.01)
        np.testing.assert_allclose(thing.rest_probability[:4], theirs[:4], atol=0.02)


def test_an_unstable_facet_passes_its_chance_on() -> None:
    """A slanted prism cannot stand on its end: it falls over."""
    tall = trimesh.creation.box((0.02, 0.02, 0.2))
    tall.vertices[tall.vertices[:, 2] > 0, 0] += 0.06
    poses, probability = resting_poses(tall.vertices, tall.faces)
    assert all(abs(T[2, 2]) < 0.9 for T in poses)
    assert probability.sum() == pytest.approx(1)


def test_a_bottle_stands_or_lies_and_its_side_is_a_few_poses() -> None:
    thing = EVERY.get("bottle/000")
    upright = [k for k, T in enumerate(thing.rest) if T[2, 2] > 0.99]
    lying = [k for k, T in enumerate(thing.rest) if abs(T[2, 2]) < 0.2]
    assert len(upright) == 1 and 4 <= len(lying) <= 9
    assert thing.rest_probability[lying].sum() > 0.7


def test_objects_are_read_only_and_made_once() -> None:
    thing = EVERY.get("mug/017")
    assert EVERY.get("mug/017") is thing is catalogue_set("test").get("mug/017")
    assert (thing.name, thing.category) == ("mug/017", "mug")
    assert thing.vertices.dtype == np.float32 and thing.faces.dtype == np.int32
    for array in (thing.vertices, thing.faces, thing.rest, thing.rest_probability):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_set_refuses_a_name_of_the_other_split() -> None:
    with pytest.raises(ObjectError, match="no object 'mug/003' in this set of 331"):
        catalogue_set("train").get("mug/003")
    with pytest.raises(ObjectError, match="split 'dev'"):
        catalogue_set("dev")  # type: ignore[arg-type]


def block(size: float = 0.05) -> trimesh.Trimesh:
    return trimesh.creation.box((size, 0.6 * size, 0.4 * size))


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".ply", ".off", ".glb"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    block().export(tmp_path / f"thing{suffix}")
    objects, skipped = folder_set(tmp_path)
    assert skipped == [] and objects.names == ("meshes/thing",)
    thing = objects.get("meshes/thing")
    assert thing.category == "meshes" and (len(thing.vertices), len(thing.faces)) == (8, 12)
    np.testing.assert_allclose(np.ptp(thing.vertices, axis=0), [0.05, 0.03, 0.02], atol=1e-6)
    assert_rests(thing)


def test_formats_are_read_without_the_libraries_that_trimesh_may_use(tmp_path: Path) -> None:
    """networkx comes with torch only, and the base install must load meshes without it."""
    for suffix in MESH_SUFFIXES:
        block().export(tmp_path / f"thing{suffix[1:]}{suffix}")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('networkx', 'rtree', 'shapely', 'lxml')))\n"
        "from sim.scene.objects import folder_set\n"
        f"objects, skipped = folder_set({str(tmp_path)!r}); print(len(objects), skipped)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == f"{len(MESH_SUFFIXES)} []", done.stderr


def test_the_parts_of_a_scene_are_placed_by_its_transforms(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(block(0.04))
    move = trimesh.transformations.translation_matrix([0, 0, 0.1])
    scene.add_geometry(block(0.04), transform=move)
    scene.export(tmp_path / "pair.glb")
    thing = folder_set(tmp_path)[0].get("meshes/pair")
    assert len(thing.faces) == 24
    assert np.ptp(thing.vertices[:, 2]) == pytest.approx(0.116, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (94.0, "longest side 94 m, not within 0.01 to 0.4 m: likely millimetres: --mesh-unit mm"),
        (12.0, "longest side 12 m, not within 0.01 to 0.4 m: likely millimetres"),
        (2.0, "likely centimetres: --mesh-unit cm"),
        (900.0, "too large to grasp; check the file's unit"),
        (0.004, "too small to grasp; check the file's unit"),
    ],
)
def test_a_mesh_of_another_unit_or_size_is_refused_not_scaled(
    tmp_path: Path, size: float, message: str
) -> None:
    block(size).export(tmp_path / "mug.stl")
    with pytest.raises(ObjectError) as error:
        folder_set(tmp_path)
    assert message in str(error.value) and "mug.stl" in str(error.value)


def test_what_cannot_be_used_is_skipped_with_its_reason(tmp_path: Path) -> None:
    block().export(tmp_path / "good.ply")
    holed = block()
    holed.update_faces(np.arange(12) > 0)
    holed.export(tmp_path / "holed.stl")
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    (tmp_path / "notes.txt").write_text("not looked at")
    objects, skipped = folder_set(tmp_path)
    assert objects.names == ("meshes/good",) and objects.skipped == tuple(skipped)
    reasons = dict(skipped)
    assert sorted(reasons) == ["broken.glb", "holed.stl"]
    assert "not watertight: 3 of 18 edges" in reasons["holed.stl"]
    assert "--mesh-repair" in reasons["holed.stl"]
    assert "cannot be read" in reasons["broken.glb"]


def test_names_are_unique_and_categories_are_folders(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for k, path in enumerate(("a.stl", "a.ply", "tools/a.stl", "tools/wrench.obj")):
        block(0.05 + 0.01 * k).export(tmp_path / path)
    objects, _ = folder_set(tmp_path)
    assert objects.names == (
        "meshes/a.ply",
        "meshes/a.stl",
        "meshes/tools/a",
        "meshes/tools/wrench",
    )
    assert [objects.get(n).category for n in objects.names] == ["meshes"] * 2 + ["tools"] * 2
    assert [objects.category(n) for n in objects.names] == ["meshes"] * 2 + ["tools"] * 2


@pytest.mark.parametrize(("count", "test_count"), [(1, 0), (2, 1), (9, 1), (16, 2)])
def test_a_folder_splits_an_eighth_off_by_name(tmp_path: Path, count: int, test_count: int) -> None:
    for k in range(count):
        block(0.03 + 0.005 * k).export(tmp_path / f"m{k}.ply")
    train, test = (folder_set(tmp_path, split)[0] for split in ("train", "test"))
    assert (len(train), len(test)) == (count - test_count, test_count)
    assert sorted(train.names + test.names) == list(folder_set(tmp_path)[0].names)


def test_meshes_are_added_to_the_catalogue_or_used_alone(tmp_path: Path) -> None:
    for k in range(3):
        block(0.03 + 0.01 * k).export(tmp_path / f"m{k}.ply")
    both, alone = object_set("train", tmp_path), object_set("train", tmp_path, only_meshes=True)
    assert len(both) == 331 + 2 and len(alone) == 2
    assert set(alone.names) < set(both.names)
    assert both.get(alone.names[0]) is alone.get(alone.names[0])
    assert both.get("mug/000").category == "mug"
    assert both.fingerprint() != object_set("train").fingerprint()
    with pytest.raises(ObjectError, match="no folder of them is given"):
        object_set("train", None, only_meshes=True)


def test_the_fingerprint_follows_the_bytes_of_a_mesh(tmp_path: Path) -> None:
    block(0.05).export(tmp_path / "a.ply")
    before = folder_set(tmp_path)[0].fingerprint()
    assert before == folder_set(tmp_path)[0].fingerprint()
    block(0.06).export(tmp_path / "a.ply")
    assert folder_set(tmp_path)[0].fingerprint() != before


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ObjectError, match="holds no mesh; known are"):
        folder_set(tmp_path)
    with pytest.raises(ObjectError, match="no folder"):
        folder_set(tmp_path / "nowhere")
    block().export(tmp_path / "one.ply")
    with pytest.raises(ObjectError, match="needs two usable meshes"):
        object_set("test", tmp_path, only_meshes=True)


def test_a_sphere_gets_poses() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.03)
    assert_rests(make_object("ball", "ball", ball.vertices, ball.faces))
