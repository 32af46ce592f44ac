"""URDF and MJCF objects: their own scale, frames, packages, and what cannot be read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import trimesh
from needs import no

from sim.scene.meshes import MeshOptions, MeshRead, MeshSource, object_paths, read_mesh
from sim.scene.models import ModelFileError, is_model, load_model
from sim.scene.objects import folder_set

URDF = """<robot name="it"><link name="base"><visual><origin xyz="0.01 0 0" rpy="0 0 1.5707963"/><geometry>
<mesh filename="{file}" scale="0.001 0.001 0.001"/></geometry></visual></link></robot>"""
MJCF = """<mujoco><compiler meshdir="parts"/><default><mesh scale="0.001 0.001 0.001"/></default>
<asset><mesh name="m" file="box.stl"/></asset><worldbody><geom type="plane" size="1 1 1"/>
<body pos="0 0 1"><freejoint/><geom type="mesh" mesh="m"/></body></worldbody></mujoco>"""
needs_mujoco = pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason=no("mujoco"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A box of 50 x 30 x 80 mm in millimetres, in parts/box.stl."""
    (tmp_path / "parts").mkdir()
    trimesh.creation.box((50, 30, 80)).export(tmp_path / "parts" / "box.stl")
    return tmp_path


def read(path: Path, options: MeshOptions | None = None) -> MeshRead | str:
    return read_mesh(MeshSource(path, options or MeshOptions()), f"meshes/{path.stem}")


@pytest.mark.parametrize(
    "file", ["parts/box.stl", "package://any_name/parts/box.stl", "file://parts/box.stl"]
)
def test_a_urdf_is_read_with_its_own_scale_and_frame(folder: Path, file: str) -> None:
    (folder / "it.urdf").write_text(URDF.format(file=file))
    for options in (MeshOptions(), MeshOptions(mesh_unit="mm")):
        found = read(folder / "it.urdf", options)
        assert isinstance(found, MeshRead), found
        np.testing.assert_allclose(np.ptp(found.vertices, axis=0), [0.03, 0.05, 0.08], atol=1e-6)
        assert found.vertices[:, 0].mean() == pytest.approx(0.01, abs=1e-6)


@needs_mujoco
def test_an_mjcf_is_read_with_its_own_scale_and_without_its_floor(folder: Path) -> None:
    (folder / "it.xml").write_text(MJCF)
    found = read(folder / "it.xml")
    assert isinstance(found, MeshRead), found
    np.testing.assert_allclose(
        np.sort(np.ptp(found.vertices, axis=0)), [0.03, 0.05, 0.08], atol=1e-6
    )
    assert found.notes == ()


def test_links_are_put_together_with_joints_at_zero(tmp_path: Path) -> None:
    (tmp_path / "two.urdf").write_text(
        """<robot name="two"><link name="a"><visual><geometry><box size="0.04 0.04 0.04"/></geometry>
        </visual></link><link name="b"><visual><geometry><cylinder radius="0.01" length="0.06"/></geometry>
        </visual></link><joint name="j" type="revolute"><origin xyz="0 0 0.04"/><parent link="a"/>
        <child link="b"/></joint></robot>"""
    )
    found = read(tmp_path / "two.urdf")
    assert isinstance(found, MeshRead), found
    assert np.ptp(found.vertices, axis=0)[2] == pytest.approx(0.09, abs=1e-6)
    assert found.notes == ("its 1 joints are held at zero",)


def test_the_meshes_of_a_model_are_no_objects_of_their_own(folder: Path) -> None:
    (folder / "it.urdf").write_text(URDF.format(file="parts/box.stl"))
    (folder / "package.xml").write_text("<package/>")
    trimesh.creation.box((0.05, 0.05, 0.05)).export(folder / "other.ply")
    assert [p.name for p in object_paths(folder)] == ["it.urdf", "other.ply"]
    objects, skipped = folder_set(folder)
    assert objects.names == ("meshes/it", "meshes/other") and not skipped
    before = objects.fingerprint()
    trimesh.creation.box((50, 30, 81)).export(folder / "parts" / "box.stl")
    assert objects.fingerprint() != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<robot", "no sound XML"),
        ("<robot name='x'><link name='a'/></robot>", "has no shape"),
        (URDF.format(file="gone.stl"), "gone.stl, which is not there"),
        (URDF.format(file="box.dae"), "box.dae, which is not read; convert it to .obj"),
        (URDF.replace("0.001 0.001 0.001", "1 2").format(file="parts/box.stl"), "3 numbers"),
    ],
)
def test_a_model_that_gives_no_object_is_named(folder: Path, text: str, said: str) -> None:
    (folder / "it.urdf").write_text(text)
    found = read(folder / "it.urdf")
    assert isinstance(found, str) and said in found


def test_other_xml_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.xml").write_text("<notes/>")
    assert not is_model(tmp_path / "notes.xml")
    with pytest.raises(ModelFileError, match="<notes>"):
        load_model(tmp_path / "notes.xml", lambda path: trimesh.Trimesh(), (".stl",))
