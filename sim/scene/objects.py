"""Objects: a closed mesh, the ways it rests on a table, and the sets that scenes draw from.

An object comes from the catalogue (`sim.catalogue`) or from a folder of the user's own meshes. A set only
knows names; `get` builds or loads the object, once per process.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from sim import catalogue
from sim.scene.resting import resting_poses

Split = Literal["train", "test", "all"]

MESH_SUFFIXES = (".obj", ".stl", ".ply", ".off", ".glb")
SMALLEST_M, LARGEST_M = 0.01, 0.40
"""Range of a mesh's longest side: from a pill to the largest thing that an arm lifts off a table."""


class ObjectError(ValueError):
    """An object that does not exist, a mesh that cannot be used, or a folder without any."""


@dataclass(frozen=True, eq=False)
class Object:
    """A solid of uniform density. Arrays are read-only."""

    name: str
    category: str
    vertices: NDArray[np.float32]
    """(V, 3) metres, z up."""
    faces: NDArray[np.int32]
    """(F, 3), normals outward by the right-hand rule."""
    rest: NDArray[np.float64]
    """(K, 4, 4) T_table_object of each resting pose: on the plane z = 0, centre of mass above x = y = 0."""
    rest_probability: NDArray[np.float64]
    """(K,) chance of each when the object is set down at random, falling; sums to 1, largest first."""


def make_object(name: str, category: str, vertices: Any, faces: Any) -> Object:
    """An object from a closed, outward mesh in metres, with its resting poses."""
    vertices = np.array(vertices, dtype=np.float32)
    faces = np.array(faces, dtype=np.int32)
    rest, probability = resting_poses(vertices, faces)
    for array in (vertices, faces, rest, probability):
        array.setflags(write=False)
    return Object(name, category, vertices, faces, rest, probability)


@dataclass(frozen=True)
class ObjectSet:
    """Names of objects, and where to get them."""

    names: tuple[str, ...]
    """Sorted."""
    files: dict[str, Path] = field(default_factory=dict, hash=False)
    """Files of the names that are the user's own meshes."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(file, reason) of every mesh of the user's that was not taken."""

    def __len__(self) -> int:
        return len(self.names)

    def get(self, name: str) -> Object:
        """The object of that name; the same one however often it is asked for in a process."""
        if name not in self.names:
            raise ObjectError(f"no object {name!r} in this set of {len(self.names)}")
        if name in self.files:
            return _load_mesh(self.files[name], name)
        category, index = name.split("/")
        return _catalogue_object(category, int(index))

    def category(self, name: str) -> str:
        """The category of a name, without making the object."""
        return _mesh_category(name) if name in self.files else name.partition("/")[0]

    def fingerprint(self) -> str:
        """Twelve hex digits that change with any name, any byte of a mesh file, or the catalogue."""
        digest = hashlib.sha256(f"catalogue {catalogue.VERSION}".encode())
        for name in self.names:
            digest.update(name.encode() + b"\0")
            if name in self.files:
                digest.update(hashlib.sha256(self.files[name].read_bytes()).digest())
        return digest.hexdigest()[:12]


@cache
def _catalogue_object(category: str, index: int) -> Object:
    vertices, faces = catalogue.mesh(category, index)
    return make_object(catalogue.instance_name(category, index), category, vertices, faces)


def catalogue_set(split: Split) -> ObjectSet:
    """The catalogue's objects of a split: 331 for training, 50 for test, 381 in all."""
    _check_split(split)
    return ObjectSet(
        tuple(
            sorted(
                catalogue.instance_name(category, index)
                for category, index in catalogue.instances()
                if split in ("all", catalogue.instance_split(index))
            )
        )
    )


def folder_set(folder: str | Path, split: Split = "all") -> tuple[ObjectSet, list[tuple[str, str]]]:
    """The user's own meshes below a folder, and (file, reason) of those that cannot be used.

    A mesh must be closed, wound outward, and in metres; nothing is repaired or scaled. The object of
    `tools/wrench.stl` is "meshes/tools/wrench" of category "tools"; one beside no other is of category
    "meshes". About one in eight, chosen by its name, is for test, and at least one of two or more.

    Raises ObjectError, with every reason, if nothing in the folder can be used.
    """
    _check_split(split)
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ObjectError(
            f"no folder {folder}; give one that holds {', '.join(MESH_SUFFIXES)} files"
        )
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in MESH_SUFFIXES and p.is_file()
    )
    if not paths:
        raise ObjectError(f"{folder} holds no mesh; known are {', '.join(MESH_SUFFIXES)}")
    stems = Counter(p.relative_to(folder).with_suffix("") for p in paths)
    files: dict[str, Path] = {}
    skipped: list[tuple[str, str]] = []
    for path in paths:
        relative = path.relative_to(folder)
        shared = (
            stems[relative.with_suffix("")] > 1
        )  # wrench.stl beside wrench.obj keep their suffix
        name = f"meshes/{(relative if shared else relative.with_suffix('')).as_posix()}"
        try:
            _load_mesh(path, name)
        except ObjectError as error:
            skipped.append((relative.as_posix(), str(error)))
        else:
            files[name] = path
    if not files:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in skipped)
        raise ObjectError(f"{folder}: none of its {len(paths)} meshes can be used:\n{reasons}")
    test = _test_names(sorted(files))
    chosen = [n for n in sorted(files) if split == "all" or (n in test) == (split == "test")]
    return ObjectSet(tuple(chosen), {n: files[n] for n in chosen}, tuple(skipped)), skipped


def object_set(split: Split, meshes: Path | None = None, only_meshes: bool = False) -> ObjectSet:
    """The catalogue, the catalogue and a folder of meshes, or the folder alone.

    Meshes that cannot be used are in the set's `skipped`, for the caller to print.
    """
    if meshes is None:
        if only_meshes:
            raise ObjectError(
                "only the user's meshes are asked for, but no folder of them is given"
            )
        return catalogue_set(split)
    own, _ = folder_set(meshes, split)
    if only_meshes:
        if not own.names:
            raise ObjectError(
                f"{meshes} has no {split} object: it needs two usable meshes to split"
            )
        return own
    names = tuple(sorted(catalogue_set(split).names + own.names))
    return ObjectSet(names, own.files, own.skipped)


def _check_split(split: str) -> None:
    if split not in ("train", "test", "all"):
        raise ObjectError(f"split {split!r} is none of train, test, all")


def _test_names(names: list[str]) -> set[str]:
    """Names for test: the eighth of them whose hashes come first, so that it looks drawn by lot."""
    count = max(1, round(len(names) / 8)) if len(names) > 1 else 0
    return set(sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest())[:count])


def _mesh_category(name: str) -> str:
    folder = name.split("/")[1:-1]
    return folder[-1] if folder else "meshes"


def _load_mesh(path: Path, name: str) -> Object:
    found = _try_mesh(path, name)
    if isinstance(found, str):
        raise ObjectError(found)
    return found


@cache
def _try_mesh(path: Path, name: str) -> Object | str:
    """The mesh, or why it cannot be used: either is found out once."""
    try:
        return _read_mesh(path, name)
    except ObjectError as error:
        return str(error)


def _read_mesh(path: Path, name: str) -> Object:
    """A user's mesh, checked; raises ObjectError with the reason and the remedy."""
    try:
        mesh = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # the readers raise anything
        raise ObjectError(f"cannot be read: {error or type(error).__name__}") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise ObjectError("has no triangles")
    if not np.isfinite(mesh.vertices).all():
        raise ObjectError("has vertices that are not finite")
    # Formats store a vertex once per face, normal or texture coordinate.
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    longest = float(np.max(mesh.extents)) if len(mesh.faces) else 0.0
    if not SMALLEST_M <= longest <= LARGEST_M:
        raise ObjectError(_wrong_size(longest))
    if not mesh.is_watertight:
        edges = np.sort(mesh.edges, axis=1)
        counts = np.unique(edges, axis=0, return_counts=True)[1]
        raise ObjectError(
            f"not watertight: {np.count_nonzero(counts != 2)} of {len(counts)} edges do not join exactly "
            "two faces; close it in a mesh editor"
        )
    if not mesh.is_winding_consistent:
        raise ObjectError("winding is inconsistent: neighbouring faces point to opposite sides")
    if not mesh.volume > 0:
        raise ObjectError("faces point inward (negative volume); flip its normals")
    return make_object(name, _mesh_category(name), mesh.vertices, mesh.faces)


def _wrong_size(longest: float) -> str:
    """Why a longest side is out of range, and the unit that was probably meant."""
    text = f"longest side {longest:.4g} m, not within {SMALLEST_M} to {LARGEST_M} m"
    for unit, metres in (("millimetres", 1e-3), ("centimetres", 1e-2), ("inches", 0.0254)):
        if longest > LARGEST_M and SMALLEST_M <= longest * metres <= LARGEST_M:
            return f"{text}: likely {unit}; scale the file to metres"
    return (
        f"{text}: too {'large' if longest > LARGEST_M else 'small'} to grasp; check the file's unit"
    )
