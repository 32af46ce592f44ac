"""The catalogue: every instance is a solid, the same on every run, unlike the others, of sensible size."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from sim import catalogue
from sim.catalogue.vessels import mug_body
from sim.scene.grasps import true_grasps
from sim.scene.objects import catalogue_set
from sim.scene.render import Renderer
from sim.scene.scene import assemble

EVERY = catalogue_set("all")
HASH = """
import hashlib
from sim import catalogue
for category in catalogue.CATEGORIES:
    for index in (0, 5, 17, 37):
        vertices, faces = catalogue.mesh(category, index)
        print(hashlib.sha256(vertices.tobytes() + faces.tobytes()).hexdigest())
"""


def test_381_instances_of_ten_categories_split_331_to_50_with_five_for_test_in_each() -> None:
    train, test = catalogue_set("train"), catalogue_set("test")
    assert (len(EVERY), len(train), len(test)) == (381, 331, 50)
    assert set(train.names) | set(test.names) == set(EVERY.names)
    assert len(catalogue.CATEGORIES) == 10
    for category in catalogue.CATEGORIES:
        assert sum(EVERY.category(name) == category for name in test.names) == 5
    assert list(EVERY.names) == sorted(EVERY.names)


@pytest.mark.parametrize("category", catalogue.CATEGORIES)
def test_every_instance_is_one_closed_outward_solid_of_household_size(category: str) -> None:
    for name in (n for n in EVERY.names if EVERY.category(n) == category):
        thing = EVERY.get(name)
        mesh = trimesh.Trimesh(thing.vertices, thing.faces, process=False)
        assert mesh.is_watertight and mesh.is_winding_consistent, name
        assert mesh.volume > 2e-6, name  # 2 ml
        parts = trimesh.graph.connected_component_labels(
            mesh.face_adjacency, node_count=len(mesh.faces)
        )
        assert parts.max() == 0, name
        assert 0.05 < mesh.extents.max() < 0.34 and mesh.extents.min() > 0.008, name
        assert 40 < len(mesh.faces) < 4000, name
        # Slivers that Boolean operations leave: no harm, but few.
        assert np.count_nonzero(mesh.area_faces < 1e-12) < 10, name


def test_no_two_instances_are_alike() -> None:
    things = [EVERY.get(name) for name in EVERY.names]
    meshes = {hashlib.sha256(t.vertices.tobytes()).digest() for t in things}
    assert len(meshes) == len(things)
    for category in catalogue.CATEGORIES:
        own = [t for t in things if t.category == category]
        # Not one shape scaled: volume over that of the bounding box tells shapes apart.
        filled = [
            trimesh.Trimesh(t.vertices, t.faces, process=False).volume
            / float(np.prod(np.ptp(t.vertices, axis=0)))
            for t in own
        ]
        assert len({round(f, 3) for f in filled}) > 0.7 * len(own), category


def test_a_category_shows_several_styles_among_its_test_instances() -> None:
    styles = {
        mug_body(catalogue.generator("mug", i), i).style
        for i in range(39)
        if catalogue.instance_split(i) == "test"
    }
    assert len(styles) >= 4


def test_same_bytes_in_another_process() -> None:
    command = [sys.executable, "-c", HASH]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    here = [
        hashlib.sha256(b"".join(a.tobytes() for a in catalogue.mesh(category, index))).hexdigest()
        for category in catalogue.CATEGORIES
        for index in (0, 5, 17, 37)
    ]
    assert here == other


def test_an_index_beyond_the_last_is_refused() -> None:
    with pytest.raises(IndexError, match="mug has instances 0 to 38, not 39"):
        catalogue.mesh("mug", 39)


@pytest.mark.parametrize("index", range(0, 39, 3))
def test_walls_of_mugs_are_as_thick_as_designed(index: int) -> None:
    body = mug_body(catalogue.generator("mug", index), index)
    thing = EVERY.get(f"mug/{index:03d}")
    rays = Renderer(assemble([(thing, np.eye(4))]))
    # From the axis out and from outside in, away from the handle, at two thirds of the height.
    z = np.float32(0.66 * body.height * 1e-3)
    centre, far = np.float32([[0, 0, z]]), np.float32([[0, 0.2, z]])
    out, _ = rays.cast(centre, np.float32([[0, 1, 0]]))
    back, _ = rays.cast(far, np.float32([[0, -1, 0]]))
    wall = float(0.2 - back[0] - out[0])
    assert 3 <= body.wall <= 5
    # A facet of the inner wall and one of the outer are parallel, to what the profile bends between.
    assert wall == pytest.approx(body.wall * 1e-3, abs=2e-4)


def test_mugs_are_hollow_and_have_a_hole_through_the_handle() -> None:
    for index in (0, 10, 24):
        thing = EVERY.get(f"mug/{index:03d}")
        mesh = trimesh.Trimesh(thing.vertices, thing.faces, process=False)
        assert mesh.euler_number <= 0  # genus 1 or more
        assert mesh.volume < 0.5 * mesh.convex_hull.volume


@pytest.mark.parametrize("category", catalogue.CATEGORIES)
def test_a_hand_finds_grasps_on_test_objects(category: str) -> None:
    """The default hand, from above, in the likeliest resting poses."""
    for index in (3, 24):
        thing = EVERY.get(catalogue.instance_name(category, index))
        found = [
            len(true_grasps(assemble([(thing, T)]), np.random.default_rng(0)))
            for T in thing.rest[:3]
        ]
        assert max(found) > 0, thing.name


def test_the_command_draws_a_sheet_and_describes_every_object(tmp_path: Path) -> None:
    out = tmp_path / "sheet"
    command = [sys.executable, "-m", "sim.catalogue", "--category", "can", "tetra_pak"]
    command += [
        "--split",
        "all",
        "--columns",
        "8",
        "--tile",
        "48",
        "--no-grasps",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries = json.loads((out / "catalogue.json").read_text())["objects"]
    assert len(entries) == 2 * 38
    assert sum(e["split"] == "test" for e in entries) == 10
    first = entries[0]
    thing = EVERY.get(first["name"])
    assert first["faces"] == len(thing.faces) and first["resting_poses"] == len(thing.rest)
    np.testing.assert_allclose(first["extents_mm"], np.ptp(thing.vertices, axis=0) * 1e3, atol=0.01)
    import matplotlib.image

    picture = matplotlib.image.imread(out / "catalogue.png")[..., :3]
    assert picture.shape[1] == 8 * 48
    blue = (picture[..., 2] > picture[..., 0] + 0.05).mean()
    orange = (picture[..., 0] > picture[..., 2] + 0.2).mean()
    assert blue > orange > 0.005
    assert "tetra_pak" in done.stdout


def test_the_command_says_in_which_resting_poses_a_mesh_can_be_grasped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sim.catalogue.__main__ import main

    for name, side in (("small", 0.04), ("large", 0.12)):
        trimesh.creation.box((side, side, side)).export(tmp_path / f"{name}.stl")
    out = tmp_path / "sheet"
    arguments = ["--meshes", str(tmp_path), "--only-meshes", "--workers", "1", "--tile", "48"]
    assert main([*arguments, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    # jaws that close a little askew, within friction, stand up to 43 mm apart on 40 mm
    assert re.search(
        r"meshes/small: graspable in 6 of 6 resting poses \(17% whole, 40 to 4[0-3] mm", said
    )
    assert "meshes/large: graspable in 0 of 6 resting poses (17% none" in said
    entries = {e["name"]: e for e in json.loads((out / "catalogue.json").read_text())["objects"]}
    assert entries["meshes/small"]["graspable_poses"] == 6
    assert entries["meshes/large"]["grasps"][0]["count"] == 0


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sim.catalogue", "--out", str(tmp_path / "no")]
    done = subprocess.run([*command, "--category", "teapot"], capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "no").exists()
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("sim.catalogue: no category teapot; there are apple")
    )
    done = subprocess.run([*command, "--columns", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and "--columns 0 must be at least 1" in done.stderr
