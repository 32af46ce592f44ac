"""Mesh files as people have them: units, repairs, closed holes, bodies, and files that are no mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from sim.scene.meshes import (
    MeshOptions,
    MeshRead,
    MeshSource,
    ObjectError,
    grouped,
    mesh_paths,
    read_mesh,
)
from sim.scene.objects import folder_set
from sim.scene.repair import examine, united, winding_number

BOX = (0.05, 0.03, 0.08)


def box(size: tuple[float, float, float] = BOX) -> trimesh.Trimesh:
    return trimesh.creation.box(size)


def soup(mesh: trimesh.Trimesh, path: Path) -> Path:
    """Written with three vertices of its own for each face, as STL files hold them."""
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces)].reshape(-1, 3)
    faces = np.arange(len(corners)).reshape(-1, 3)
    trimesh.Trimesh(corners, faces, process=False).export(path)
    return path


def good(path: Path, options: MeshOptions | None = None) -> MeshRead:
    found = read_mesh(MeshSource(path, options or MeshOptions()), "meshes/it")
    assert isinstance(found, MeshRead), found
    assert examine(found.vertices, found.faces).sound
    return found


def reason(path: Path, options: MeshOptions | None = None) -> str:
    found = read_mesh(MeshSource(path, options or MeshOptions()), "meshes/it")
    assert isinstance(found, str)
    return found


def volume(found: MeshRead) -> float:
    return float(trimesh.Trimesh(found.vertices, found.faces, process=False).volume)


def test_a_sound_mesh_is_left_as_it_is(tmp_path: Path) -> None:
    box().export(tmp_path / "box.ply")
    found = good(tmp_path / "box.ply")
    assert found.changes == found.notes == () and found.faces.shape == (12, 3)


def test_double_faces_go(tmp_path: Path) -> None:
    mesh = box()
    mesh.faces = np.vstack([mesh.faces, mesh.faces[:5]])
    mesh.export(tmp_path / "box.obj")
    found = good(tmp_path / "box.obj")
    assert found.changes == ("5 double faces removed",) and len(found.faces) == 12


def test_faces_that_point_inward_are_turned(tmp_path: Path) -> None:
    mesh = box()
    mesh.invert()
    found = good(soup(mesh, tmp_path / "box.stl"))
    assert found.changes == ("faces pointed inward: turned outward",)
    assert volume(found) == pytest.approx(np.prod(BOX), rel=1e-5)


def test_one_face_turned_over_is_turned_back(tmp_path: Path) -> None:
    mesh = box()
    mesh.faces = np.vstack([mesh.faces[:1, ::-1], mesh.faces[1:]])
    found = good(soup(mesh, tmp_path / "box.stl"))
    assert found.changes == ("1 face turned over",)
    assert volume(found) == pytest.approx(np.prod(BOX), rel=1e-5)


def test_cracks_far_below_a_gripper_s_notice_are_closed(tmp_path: Path) -> None:
    mesh = box()
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces)].reshape(-1, 3)
    corners = corners + np.random.default_rng(0).uniform(-5e-8, 5e-8, corners.shape)
    faces = np.arange(len(corners)).reshape(-1, 3)
    trimesh.Trimesh(corners, faces, process=False).export(tmp_path / "box.off", digits=12)
    found = good(tmp_path / "box.off")
    assert len(found.vertices) == 8 and "cracks" in found.changes[0]
    assert volume(found) == pytest.approx(np.prod(BOX), rel=1e-4)


def test_a_sliver_that_closes_the_mesh_is_no_hole(tmp_path: Path) -> None:
    """A point on an edge, met by the faces of one side only through a face without area."""
    mesh = box()
    edge = mesh.edges_unique[0]
    middle = np.asarray(mesh.vertices)[edge].mean(axis=0)
    vertices = np.vstack([mesh.vertices, middle])
    faces, cut = [], False
    for face in np.asarray(mesh.faces):
        if not cut and set(edge) <= set(face):
            (third,) = set(face.tolist()) - set(edge.tolist())
            k = face.tolist().index(third)
            a, b = face[(k + 1) % 3], face[(k + 2) % 3]
            faces += [[third, a, 8], [third, 8, b], [8, a, b]]
            cut = True
        else:
            faces.append(face.tolist())
    trimesh.Trimesh(vertices, faces, process=False).export(tmp_path / "box.off", digits=12)
    found = good(tmp_path / "box.off")
    assert len(found.faces) == 14
    assert volume(found) == pytest.approx(np.prod(BOX), rel=1e-6)


@pytest.mark.parametrize(("unit", "metre"), [("mm", 1e3), ("cm", 1e2), ("inch", 1 / 0.0254)])
def test_a_unit_is_said_once_for_all_files(tmp_path: Path, unit: str, metre: float) -> None:
    box(tuple(metre * s for s in BOX)).export(tmp_path / "box.stl")  # type: ignore[arg-type]
    found = good(tmp_path / "box.stl", MeshOptions(mesh_unit=unit))  # type: ignore[arg-type]
    np.testing.assert_allclose(np.ptp(found.vertices, axis=0), BOX, rtol=1e-5)
    if unit != "inch":
        assert f"--mesh-unit {unit}" in reason(tmp_path / "box.stl")


def test_a_scale_is_applied_after_the_unit(tmp_path: Path) -> None:
    box((50, 30, 80)).export(tmp_path / "box.stl")
    found = good(tmp_path / "box.stl", MeshOptions(mesh_unit="mm", mesh_scale=2))
    np.testing.assert_allclose(np.ptp(found.vertices, axis=0), np.multiply(BOX, 2), rtol=1e-5)


def test_meshes_without_a_unit_are_fitted_by_their_longest_side(tmp_path: Path) -> None:
    for k in range(6):
        box((5.0, 3.0, 8.0)).export(tmp_path / f"box{k}.stl")
    box().export(tmp_path / "right.stl")
    objects, skipped = folder_set(tmp_path, "all", MeshOptions(mesh_fit="0.05,0.15"))
    sides = {n: float(np.ptp(objects.get(n).vertices, axis=0).max()) for n in objects.names}
    assert not skipped and all(0.05 <= side <= 0.15 for side in sides.values())
    assert sides.pop("meshes/right") == pytest.approx(0.08)
    assert len({round(side, 6) for side in sides.values()}) == 6
    again, _ = folder_set(tmp_path, "all", MeshOptions(mesh_fit="0.05,0.15"))
    assert again.fingerprint() == objects.fingerprint()


@pytest.mark.parametrize("text", ["0.05", "0.2,0.1", "0.001,0.1", "0.1,3", "a,b"])
def test_a_fit_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ObjectError, match=r"MIN,MAX in metres within 0\.01 to 0\.4"):
        MeshOptions(mesh_fit=text)


def test_equal_reasons_are_one_line_with_a_count(tmp_path: Path) -> None:
    box().export(tmp_path / "ok.stl")
    for k in range(7):
        box((50.0 + k, 30, 80)).export(tmp_path / f"mm{k}.stl")
    (tmp_path / "bottle.dae").write_text("<COLLADA/>")
    (tmp_path / "cup.step").write_text("ISO-10303-21;")
    _, skipped = folder_set(tmp_path)
    lines = grouped(skipped)
    assert len(skipped) == 9 and len(lines) == 3
    assert any(line.startswith("mm0.stl and 6 more: longest side") for line in lines)
    assert any(line.startswith("bottle.dae: .dae files are not read") for line in lines)


def test_folders_that_are_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "set").mkdir()
    box().export(tmp_path / "real" / "box.stl")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "set")
    objects, _ = folder_set(tmp_path / "set")
    assert objects.names == ("meshes/linked/box",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.stl", b"", "is empty (0 bytes)"),
        ("a.obj", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("a.glb", b"<!DOCTYPE html><html></html>", "HTML page"),
        ("a.stl", bytes(80) + (12).to_bytes(4, "little") + bytes(100), "684 for its 12 triangles"),
        (
            "a.glb",
            b"glTF" + (2).to_bytes(4, "little") + (900).to_bytes(4, "little"),
            "of 900 bytes",
        ),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
            b"property float z\nend_header\n0 0 0\n",
            "a point cloud of 1 points",
        ),
        ("a.ply", b"ply\nformat ascii 1.0\nelement tristrips 1\nend_header\n", "triangle strips"),
    ],
)
def test_a_file_that_is_no_mesh_is_called_so(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in reason(tmp_path / name)


def holed() -> trimesh.Trimesh:
    """A fine ball with a hole of one face."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.03)
    ball.update_faces(np.arange(len(ball.faces)) > 0)
    return ball


def test_a_hole_is_closed_if_asked_within_a_millimetre(tmp_path: Path) -> None:
    holed().export(tmp_path / "ball.ply")
    assert "not watertight: 3 of" in reason(tmp_path / "ball.ply")
    found = good(tmp_path / "ball.ply", MeshOptions(mesh_repair=True))
    assert "remeshed in steps of 0.5 mm: surface within" in found.changes[0]
    radius = np.linalg.norm(found.vertices, axis=1)
    assert abs(radius - 0.03).max() < 0.001
    assert volume(found) == pytest.approx(4 / 3 * np.pi * 0.03**3, rel=0.02)


def test_a_sheet_is_not_made_a_solid(tmp_path: Path) -> None:
    mesh = box()
    mesh.update_faces(np.abs(mesh.face_normals[:, 2]) < 0.5)
    mesh.update_faces(np.arange(len(mesh.faces)) < 2)
    mesh.export(tmp_path / "sheet.ply")
    assert "--mesh-repair" in reason(tmp_path / "sheet.ply", MeshOptions(mesh_repair=True))


def two(apart: float) -> trimesh.Trimesh:
    other = box()
    other.apply_translation((apart, 0, 0))
    return trimesh.util.concatenate([box(), other])


def test_bodies_apart_are_noted_and_split_if_asked(tmp_path: Path) -> None:
    soup(two(0.1), tmp_path / "pair.stl")
    assert good(tmp_path / "pair.stl").notes[0].startswith("2 bodies apart move as one object")
    objects, _ = folder_set(tmp_path, "all", MeshOptions(split_bodies=True))
    assert objects.names == ("meshes/pair.0", "meshes/pair.1")
    for name in objects.names:
        assert len(objects.get(name).faces) == 12


def test_mass_counts_once_where_bodies_overlap(tmp_path: Path) -> None:
    inner = box((0.02, 0.02, 0.02))
    soup(trimesh.util.concatenate([box(), inner]), tmp_path / "inner.stl")
    found = good(tmp_path / "inner.stl")
    assert "no mass counts twice" in found.changes[0]
    assert volume(found) == pytest.approx(np.prod(BOX), rel=1e-5)
    soup(two(0.02), tmp_path / "overlap.stl")
    assert volume(good(tmp_path / "overlap.stl")) == pytest.approx(0.07 * 0.03 * 0.08, rel=1e-5)


def test_a_cavity_stays_hollow() -> None:
    inner = box((0.02, 0.02, 0.02))
    inner.invert()
    shell = trimesh.util.concatenate([box(), inner])
    vertices, faces = np.array(shell.vertices), np.array(shell.faces, np.int64)
    _, same, count, joined = united(vertices, faces)
    assert same is faces and count == 1 and not joined
    assert winding_number(np.zeros(3), vertices, faces) == pytest.approx(0, abs=1e-9)
    assert winding_number(np.array([0.02, 0, 0]), vertices, faces) == pytest.approx(1)


def test_the_fingerprint_of_sound_meshes_is_that_of_their_bytes(tmp_path: Path) -> None:
    """Sets made before repairs existed keep their id; a mesh whose reading changed does not."""
    import hashlib

    from sim import catalogue

    box().export(tmp_path / "box.ply")
    objects, _ = folder_set(tmp_path)
    content = hashlib.sha256((tmp_path / "box.ply").read_bytes()).digest()
    digest = hashlib.sha256(f"catalogue {catalogue.VERSION}".encode())
    digest.update(b"meshes/box\0" + content)
    assert objects.fingerprint() == digest.hexdigest()[:12]


def test_hidden_files_are_no_meshes(tmp_path: Path) -> None:
    for name in ("a.stl", "._a.stl", ".git/b.stl", "deep/c.obj"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in mesh_paths(tmp_path, (".stl", ".obj"))] == ["a.stl", "c.obj"]
