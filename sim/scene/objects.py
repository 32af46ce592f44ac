"""Objects: a closed mesh, the ways it rests on a table, and the sets that scenes draw from.

An object comes from the catalogue (`sim.catalogue`) or from a folder of the user's own meshes. A set only
knows names; `get` builds or loads the object, once per process.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sim import catalogue
from sim.scene.meshes import LARGEST_M as LARGEST_M
from sim.scene.meshes import MESH_SUFFIXES as MESH_SUFFIXES
from sim.scene.meshes import (
    PLAIN,
    MeshOptions,
    MeshRead,
    MeshSource,
    body_count,
    file_bytes,
    grouped,
    names_of,
    not_read,
    object_paths,
    read_mesh,
)
from sim.scene.meshes import SMALLEST_M as SMALLEST_M
from sim.scene.meshes import ObjectError as ObjectError
from sim.scene.resting import resting_poses

Split = Literal["train", "test", "all"]
Catalogue = Literal["household", "wide", "both"]
"""Catalogues by name: 381 objects of ten categories, and 1,000 of twenty."""


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
    files: dict[str, MeshSource] = field(default_factory=dict, hash=False)
    """Sources of the names that are the user's own meshes."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(file, reason) of every mesh of the user's that was not taken."""
    notes: tuple[tuple[str, str], ...] = ()
    """(name, note) of every mesh that was repaired or is unusual."""

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
        """Twelve hex digits that change with any name, byte or repair of a mesh file, or the catalogue."""
        digest = hashlib.sha256(f"catalogue {catalogue.VERSION}".encode())
        if any(name.startswith(catalogue.wide.PREFIX) for name in self.names):
            digest.update(f"wide {catalogue.wide.VERSION}".encode())
        for name in self.names:
            digest.update(name.encode() + b"\0")
            if name in self.files:
                digest.update(hashlib.sha256(file_bytes(self.files[name].path)).digest())
                for change in _read(self.files[name], name).changes:
                    digest.update(change.encode())
        return digest.hexdigest()[:12]

    def say_skipped(self) -> None:
        """Print to stderr the meshes that were not taken, and those repaired: equal reasons in one line."""
        for line in grouped(self.skipped):
            print(f"skipped {line}", file=sys.stderr)
        for line in grouped(self.notes):
            print(line, file=sys.stderr)


@cache
def _catalogue_object(category: str, index: int) -> Object:
    vertices, faces = catalogue.mesh(category, index)
    return make_object(catalogue.instance_name(category, index), category, vertices, faces)


def catalogue_set(split: Split, which: Catalogue = "household") -> ObjectSet:
    """A catalogue's objects of a split: 331 for training and 50 for test; of the wide one 850 and 150."""
    _check_split(split)
    if which == "both":
        return ObjectSet(
            tuple(sorted(catalogue_set(split).names + catalogue_set(split, "wide").names))
        )
    if which == "wide":
        split_of, instances = catalogue.wide.instance_split, catalogue.wide.instances()
    else:
        split_of, instances = catalogue.instance_split, catalogue.instances()
    return ObjectSet(
        tuple(
            sorted(
                catalogue.instance_name(category, index)
                for category, index in instances
                if split in ("all", split_of(index))
            )
        )
    )


def folder_set(
    folder: str | Path, split: Split = "all", options: MeshOptions = PLAIN
) -> tuple[ObjectSet, list[tuple[str, str]]]:
    """The user's own meshes below a folder, and (file, reason) of those that cannot be used.

    A mesh must be a closed solid (sim.scene.meshes says how it is read and repaired). The object of
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
    paths = object_paths(folder)
    skipped = not_read(folder)
    if not paths and not skipped:
        raise ObjectError(
            f"{folder} holds no mesh; known are {', '.join(MESH_SUFFIXES)}, URDF and MJCF"
        )
    files: dict[str, MeshSource] = {}
    notes: list[tuple[str, str]] = []
    for path, name in zip(paths, names_of(folder, paths), strict=True):
        source = MeshSource(path, options)
        found = read_mesh(source, name)
        if isinstance(found, str):
            skipped.append((path.relative_to(folder).as_posix(), found))
            continue
        sources = {name: source}
        if options.split_bodies and (count := body_count(found)) > 1:
            sources = {f"{name}.{k}": MeshSource(path, options, k) for k in range(count)}
        for each, part in sources.items():
            read = read_mesh(part, each)
            if isinstance(read, str):
                skipped.append((path.relative_to(folder).as_posix(), read))
            else:
                files[each] = part
                notes += [(each, note) for note in (*read.changes, *read.notes)]
    if not files:
        reasons = "\n".join(f"  {line}" for line in grouped(skipped))
        raise ObjectError(
            f"{folder}: none of its {len(paths) or len(skipped)} meshes can be used:\n{reasons}"
        )
    test = _test_names(sorted(files))
    chosen = [n for n in sorted(files) if split == "all" or (n in test) == (split == "test")]
    kept = {n: files[n] for n in chosen}
    return ObjectSet(tuple(chosen), kept, tuple(skipped), tuple(notes)), skipped


def object_set(
    split: Split,
    meshes: Path | None = None,
    only_meshes: bool = False,
    options: MeshOptions = PLAIN,
    which: Catalogue = "household",
) -> ObjectSet:
    """A catalogue, the catalogue and a folder of meshes, or the folder alone.

    Meshes that cannot be used are in the set's `skipped`, repairs in its `notes`; `say_skipped` prints both.
    """
    if meshes is None:
        if only_meshes:
            raise ObjectError(
                "only the user's meshes are asked for, but no folder of them is given"
            )
        return catalogue_set(split, which)
    own, _ = folder_set(meshes, split, options)
    if only_meshes:
        if not own.names:
            raise ObjectError(
                f"{meshes} has no {split} object: it needs two usable meshes to split; give "
                "another one, or --test-scenes 0"
            )
        return own
    names = tuple(sorted(catalogue_set(split, which).names + own.names))
    return ObjectSet(names, own.files, own.skipped, own.notes)


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


def _read(source: MeshSource, name: str) -> MeshRead:
    found = read_mesh(source, name)
    if isinstance(found, str):
        raise ObjectError(found)
    return found


@cache
def _load_mesh(source: MeshSource, name: str) -> Object:
    read = _read(source, name)
    return make_object(name, _mesh_category(name), read.vertices, read.faces)
