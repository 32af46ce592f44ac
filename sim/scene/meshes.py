"""Mesh files of the user's: found in a folder, read, put into metres, repaired, checked.

A mesh becomes an object if it is a closed solid of 10 to 400 mm. Flaws that leave no doubt are repaired and
noted (sim.scene.repair); holes are closed if the user asks for it (sim.scene.remesh).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from sim.scene.models import MODEL_SUFFIXES, ModelFileError, load_model, mesh_files, without_parts
from sim.scene.repair import Faces, Vertices, examine, repaired, solids, united

MESH_SUFFIXES = (".obj", ".stl", ".ply", ".off", ".glb", ".gltf")
OTHER_SUFFIXES = (
    *(".dae", ".3mf", ".step", ".stp", ".iges", ".igs", ".fbx", ".blend", ".3ds", ".wrl", ".x3d"),
    *(".usd", ".usda", ".usdc", ".usdz"),
)
"""Formats of shapes that are named, but not read."""
SMALLEST_M, LARGEST_M = 0.01, 0.40
"""Range of a mesh's longest side: from a pill to the largest thing that an arm lifts off a table."""
UNITS_M = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "inch": 0.0254}
MOST_DEVIATION_M = 0.001
"""Furthest that a repair may move the surface of a mesh."""
MOST_CLOSED = 0.1
"""Furthest that a repair may close over an opening, of the mesh's longest side."""
_HEAD = 4096
"""Bytes of a file that are looked at to tell its kind."""


class ObjectError(ValueError):
    """An object that does not exist, a mesh that cannot be used, or a folder without any."""


@dataclass(frozen=True)
class MeshOptions:
    """Reading of the user's meshes."""

    mesh_unit: Literal["mm", "cm", "m", "inch"] = "m"
    """Unit of the mesh files; URDF and MJCF objects have a scale of their own."""
    mesh_scale: float = 1.0
    """Factor on every mesh, after --mesh-unit."""
    mesh_fit: str = ""
    """MIN,MAX [m]: a mesh whose longest side is outside of this is scaled into it, to a size drawn by its
    name; the others keep theirs. For meshes without a unit."""
    mesh_repair: bool = False
    """Close meshes that are not watertight by a volumetric remesh, which may move the surface by 1 mm."""
    split_bodies: bool = False
    """Make an object of each body of a mesh that holds several apart."""

    def __post_init__(self) -> None:
        if not 1e-6 <= self.mesh_scale <= 1e6:
            raise ObjectError(f"--mesh-scale {self.mesh_scale:g} must be from 1e-6 to 1e6")
        _ = self.fit_m

    @property
    def fit_m(self) -> tuple[float, float] | None:
        """MIN and MAX of --mesh-fit; raises ObjectError."""
        if not self.mesh_fit:
            return None
        try:
            low, high = (float(part) for part in self.mesh_fit.split(","))
        except ValueError:
            low, high = 1.0, 0.0
        if not SMALLEST_M <= low <= high <= LARGEST_M:
            raise ObjectError(
                f"--mesh-fit {self.mesh_fit!r} must be MIN,MAX in metres within {SMALLEST_M} to "
                f"{LARGEST_M}, such as 0.05,0.15"
            )
        return low, high

    def scale(self, longest: float, name: str) -> float:
        """Factor that brings a mesh of this longest side [file's unit] into metres."""
        factor = UNITS_M[self.mesh_unit] * self.mesh_scale
        if self.fit_m is None or longest <= 0:
            return factor
        low, high = self.fit_m
        if low <= longest * factor <= high:
            return factor
        drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        return (low + drawn * (high - low)) / longest


PLAIN = MeshOptions()
"""Metres, no scale, certain repairs alone."""


@dataclass(frozen=True)
class MeshSource:
    """A mesh of the user's: its file, and which body of it."""

    path: Path
    options: MeshOptions = PLAIN
    body: int | None = None
    """None: all of the file."""


@dataclass(frozen=True, eq=False)
class MeshRead:
    """A mesh that can be used."""

    vertices: NDArray[np.float64]
    """(V, 3) metres."""
    faces: Faces
    changes: tuple[str, ...]
    """Repairs of the geometry."""
    notes: tuple[str, ...]
    """Properties that the user may not expect."""


def mesh_paths(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of these suffixes below a folder, sorted. Links to folders are followed, each folder once."""
    return sorted(p for p in _files(folder, set()) if p.suffix.lower() in suffixes)


def _files(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):  # `._name` of another system, .git
            continue
        if entry.is_dir():
            yield from _files(entry, seen)
        elif entry.is_file():
            yield entry


def not_read(folder: Path) -> list[tuple[str, str]]:
    """(file, reason) of files below a folder that hold shapes in a format that is not read."""
    return [
        (
            path.relative_to(folder).as_posix(),
            f"{path.suffix.lower()} files are not read; convert to .obj, .stl or .glb",
        )
        for path in mesh_paths(folder, OTHER_SUFFIXES)
    ]


def grouped(skipped: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each reason: the first file, its reason, and the number of others with the same reason
    but for its numbers."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for file, reason in skipped:
        groups.setdefault(re.sub(r"\d[\d.e+-]*", "#", reason), []).append((file, reason))
    return [
        f"{some[0][0]}{f' and {len(some) - 1} more' if len(some) > 1 else ''}: {some[0][1]}"
        for some in groups.values()
    ]


@cache
def read_mesh(source: MeshSource, name: str) -> MeshRead | str:
    """The mesh, or why it cannot be used: either is found out once in a process."""
    try:
        return _read(source, name)
    except ObjectError as error:
        return str(error)


def _read(source: MeshSource, name: str) -> MeshRead:
    mesh, notes = _loaded(source.path)
    options = source.options
    if source.path.suffix.lower() in MODEL_SUFFIXES:
        options = replace(options, mesh_unit="m")  # the model's own scale gives metres
    factor = options.scale(float(np.max(mesh.extents)), name)
    if factor != 1:
        mesh.apply_scale(factor)
    # Formats store a vertex once per face, normal or texture coordinate.
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    whole = _arrays(mesh)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    longest = float(np.max(mesh.extents)) if len(mesh.faces) else 0.0
    if not SMALLEST_M <= longest <= LARGEST_M:
        raise ObjectError(_wrong_size(longest))
    changes: list[str] = []
    vertices, faces = _arrays(mesh)
    if not (flaws := examine(vertices, faces)).sound and not flaws.open_edges:
        vertices, faces, changes = repaired(vertices, faces)
    elif not flaws.sound:
        # A sliver without area may be what closes the mesh: judged again with all faces.
        for candidate in (whole, (vertices, faces)):
            vertices, faces, changes = repaired(*candidate)
            if examine(vertices, faces).sound:
                break
    flaws = examine(vertices, faces)
    if not flaws.sound and options.mesh_repair:
        vertices, faces, note = _remeshed(vertices, faces, longest)
        changes.append(note)
    elif flaws.open_edges:
        raise ObjectError(
            f"not watertight: {flaws.open_edges} of {flaws.edges} edges do not join exactly two faces; "
            "--mesh-repair closes it, or a mesh editor"
        )
    elif flaws.inconsistent:
        raise ObjectError(
            "winding is inconsistent: neighbouring faces point to opposite sides and no turning of faces "
            "mends it; --mesh-repair may"
        )
    elif not flaws.volume_m3 > 0:
        raise ObjectError("encloses no volume; give a solid, not a sheet")
    return _of_bodies(vertices, faces, changes, notes, source)


def _of_bodies(
    vertices: Vertices, faces: Faces, changes: list[str], notes: list[str], source: MeshSource
) -> MeshRead:
    """The mesh with overlapping bodies united, or the one body of it that the source names."""
    vertices, faces, count, joined = united(vertices, faces)
    if joined:
        changes.append("bodies lie in one another: united, so that no mass counts twice")
    if count > 1 and source.body is None:
        notes.append(
            f"{count} bodies apart move as one object; --split-bodies makes each an object"
        )
    if source.body is not None:
        used, inverse = np.unique(faces[solids(vertices, faces)[source.body]], return_inverse=True)
        vertices, faces = vertices[used], inverse.reshape(-1, 3)
        longest = float(np.ptp(vertices, axis=0).max())
        if not SMALLEST_M <= longest <= LARGEST_M:
            raise ObjectError(f"body {source.body}: {_wrong_size(longest)}")
    return MeshRead(vertices, faces, tuple(changes), tuple(notes))


def body_count(read: MeshRead) -> int:
    """The number of bodies apart in a mesh."""
    return len(solids(read.vertices, read.faces))


def _remeshed(vertices: Vertices, faces: Faces, longest: float) -> tuple[Vertices, Faces, str]:
    from sim.scene.remesh import remesh

    made = remesh(vertices, faces)
    if made is None:
        raise ObjectError(
            "not watertight, and --mesh-repair finds no inside: a sheet or loose faces; give a solid"
        )
    if made.deviation_m > MOST_DEVIATION_M:
        raise ObjectError(
            f"not watertight, and --mesh-repair would move its surface by {made.deviation_m * 1e3:.1f} mm, "
            f"more than {MOST_DEVIATION_M * 1e3:g} mm; close it in a mesh editor"
        )
    if made.closed_m > MOST_CLOSED * longest:
        raise ObjectError(
            f"not watertight, and --mesh-repair would close over {made.closed_m * 1e3:.0f} mm, more than "
            f"{MOST_CLOSED:.0%} of its longest side; close it in a mesh editor"
        )
    if not examine(made.vertices, made.faces).sound:
        raise ObjectError("not watertight, also after --mesh-repair; close it in a mesh editor")
    note = (
        f"remeshed in steps of {made.step_m * 1e3:.2g} mm: surface within {made.deviation_m * 1e3:.2f} mm, "
        f"openings closed over {made.closed_m * 1e3:.1f} mm"
    )
    return made.vertices, made.faces, note


def _arrays(mesh: Any) -> tuple[Vertices, Faces]:
    return np.array(mesh.vertices, np.float64), np.array(mesh.faces, np.int64)


def _loaded(path: Path) -> tuple[Any, list[str]]:
    """The mesh of a file, or the one object of a model file, and notes on it."""
    if path.suffix.lower() not in MODEL_SUFFIXES:
        return _load(path), []
    _tell_kind(path)
    try:
        return load_model(path, _load, MESH_SUFFIXES)
    except ModelFileError as error:
        raise ObjectError(str(error)) from error


def file_bytes(path: Path) -> bytes:
    """All bytes that an object's shape depends on: the file's, and those of the meshes that a model names."""
    content = path.read_bytes()
    if path.suffix.lower() in MODEL_SUFFIXES:
        content += b"".join(part.read_bytes() for part in mesh_files(path))
    return content


def object_paths(folder: Path) -> list[Path]:
    """Files below a folder that are objects: models, and meshes that no model names, sorted."""
    return list(without_parts(mesh_paths(folder, (*MESH_SUFFIXES, *MODEL_SUFFIXES))))


def _load(path: Path) -> Any:
    """The triangles of a file as they are; raises ObjectError with the file's kind if it has none."""
    _tell_kind(path)
    try:
        mesh = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # the readers raise anything
        raise ObjectError(f"cannot be read: {error or type(error).__name__}") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        points = len(getattr(mesh, "vertices", ()))
        if points:
            raise ObjectError(
                f"a point cloud of {points} points without triangles; reconstruct its surface first"
            )
        raise ObjectError("has no triangles")
    if not np.isfinite(mesh.vertices).all():
        raise ObjectError("has vertices that are not finite")
    return mesh


def _tell_kind(path: Path) -> None:
    """Raises ObjectError for a file that is plainly no mesh, or not all of one."""
    size = path.stat().st_size
    if size == 0:
        raise ObjectError("is empty (0 bytes); copy it again")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    start = head.lstrip()[:64].lower()
    if start.startswith(b"version https://git-lfs"):
        raise ObjectError("is a Git LFS pointer, not the file: run git lfs pull")
    if start.startswith((b"<!doctype html", b"<html")):
        raise ObjectError("is an HTML page, not a mesh: download it again")
    suffix = path.suffix.lower()
    if suffix == ".stl" and not start.startswith(b"solid"):
        faces = int.from_bytes(head[80:84], "little") if len(head) >= 84 else 0
        if size < 84 or size < 84 + 50 * faces:
            raise ObjectError(
                f"is truncated: {size} bytes, {84 + 50 * faces} for its {faces} triangles; copy it again"
            )
    if suffix == ".glb" and head[:4] == b"glTF":
        length = int.from_bytes(head[8:12], "little")
        if size < length:
            raise ObjectError(f"is truncated: {size} of {length} bytes; copy it again")
    if suffix == ".ply" and head.startswith(b"ply"):
        if b"element tristrips" in head:
            raise ObjectError("holds triangle strips; save it with faces in a mesh editor")
        points = re.search(rb"element vertex (\d+)", head)
        if points and not re.search(rb"element face [1-9]", head):
            raise ObjectError(
                f"a point cloud of {int(points[1])} points without triangles; reconstruct its surface first"
            )


def _wrong_size(longest: float) -> str:
    """Why a longest side is out of range, and the option that mends it."""
    text = f"longest side {longest:.4g} m, not within {SMALLEST_M} to {LARGEST_M} m"
    for name, unit in (("millimetres", "mm"), ("centimetres", "cm"), ("inches", "inch")):
        if longest > LARGEST_M and SMALLEST_M <= longest * UNITS_M[unit] <= LARGEST_M:
            return f"{text}: likely {name}: --mesh-unit {unit}"
    return (
        f"{text}: too {'large' if longest > LARGEST_M else 'small'} to grasp; check the file's unit "
        "(--mesh-unit, --mesh-scale, --mesh-fit)"
    )


def names_of(folder: Path, paths: Sequence[Path]) -> list[str]:
    """Object names of mesh files below a folder: without suffix, but for files that differ in it alone."""
    stems = Counter(p.relative_to(folder).with_suffix("") for p in paths)
    result = []
    for path in paths:
        relative = path.relative_to(folder)
        shared = stems[relative.with_suffix("")] > 1  # wrench.stl beside wrench.obj
        result.append(f"meshes/{(relative if shared else relative.with_suffix('')).as_posix()}")
    return result
