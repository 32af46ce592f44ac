"""The training set on disk: shards of memory-mapped arrays and a manifest that names every parameter.

    DIR/manifest.json                      format, id, every parameter
    DIR/train-00000/depth.npy              (S*V, 64, 64) uint16, 0.1 mm, 0 = no return
    DIR/train-00000/camera.npy             (S*V, 4) float32: x, y, z [m], yaw [rad] of the view, world
    DIR/train-00000/grasps.npy             (G, 5) float32: x, y, z [m], yaw [rad], width [m], world
    DIR/train-00000/grasp_object.npy       (G,) int16: which object of the scene a grasp holds
    DIR/train-00000/grasp_start.npy        (S+1,) int64: scene s owns grasps [start[s], start[s+1])
    DIR/train-00000/shard.json             the set's id, the split, the shard's number; names of each scene's
                                           objects, its depth sensor, SHA-256 of every file
    DIR/test-00000/...                     the same for scenes of test objects

S scenes a shard, V views a scene, image i of a shard belongs to scene i // V. A shard is written
beside and renamed, so one that exists is whole. Every scene has at least one grasp.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.tools.files import disk_full_named
from sim.scene import SPLITS as SPLITS

FORMAT = "grasp-dataset/1"
DEPTH_UNIT_M = 1e-4
ARRAYS = ("depth", "camera", "grasps", "grasp_object", "grasp_start")


class DatasetError(ValueError):
    """A folder that is not a dataset, is half-written, damaged, or made with other parameters."""


@contextmanager
def shard_beside(path: Path, needed_bytes: int) -> Iterator[Path]:
    """A new folder beside `path` to write a shard to: synced and renamed to it at the block's end, removed
    if the block raises. Raises DiskFullError if the disk is full; nothing half-written is left then."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_full_named(
            path, needed_bytes, "free some, and the same command goes on from here"
        ):
            beside.mkdir()  # no parents: a set that was removed meanwhile is not begun again
            yield beside
            for file in beside.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            move_into_place(beside, path)
    finally:
        if beside.exists():
            shutil.rmtree(beside, ignore_errors=True)


def dataset_id(params: dict[str, Any]) -> str:
    """Twelve hex digits that stand for the parameters of a set."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:12]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a dataset; raises DatasetError if the folder is not one."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise DatasetError(
            f"{folder} is not a dataset: it has no manifest.json; sim.generate makes one"
        )
    try:
        manifest = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"{path} is not a {FORMAT} manifest; give another folder")
    return manifest


def shard_scenes(manifest: dict[str, Any], split: str) -> list[range]:
    """Scene indices of every shard of a split."""
    n, step = manifest["params"][f"{split}_scenes"], manifest["params"]["scenes_per_shard"]
    return [range(a, min(a + step, n)) for a in range(0, n, step)]


def shard_path(folder: str | Path, split: str, shard: int) -> Path:
    return Path(folder) / f"{split}-{shard:05d}"


@dataclass(frozen=True)
class ShardIdentity:
    """The place of a shard: its set, its split, its number. Written into it, it tells exchanged ones."""

    set: str
    split: str
    number: int

    def __str__(self) -> str:
        return f"{self.split}-{self.number:05d} of set {self.set}"


def identity_of(about: dict[str, Any]) -> ShardIdentity | None:
    """The place that a shard.json was written for; None in sets from before shards carried it."""
    try:
        return ShardIdentity(about["set"], about["split"], about["number"])
    except KeyError:
        return None


def write_shard(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    objects: list[list[str]],
    sensors: list[str],
    identity: ShardIdentity,
    **about_it: Any,
) -> None:
    """Write one shard beside its place and rename it there, synced to disk first. Raises DiskFullError.

    about_it: what else its shard.json is to say.
    """
    with shard_beside(
        path, sum(getattr(array, "nbytes", 0) for array in arrays.values())
    ) as beside:
        digests = {}
        for name in ARRAYS:
            file = beside / f"{name}.npy"
            np.save(file, arrays[name])
            digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        about = {"objects": objects, "sensors": sensors, "sha256": digests, **asdict(identity)}
        text = json.dumps(about | about_it, indent=1, sort_keys=True)
        (beside / "shard.json").write_text(text + "\n")


def move_into_place(beside: Path, path: Path) -> None:
    """Rename a finished shard; if another process was quicker, its bytes are the same and stay."""
    try:
        os.rename(beside, path)
    except OSError:
        if not (path / "shard.json").is_file():
            raise
        shutil.rmtree(beside)


@dataclass(frozen=True)
class Split:
    """One split of a dataset, memory-mapped. Images are numbered through all shards."""

    depth: list[NDArray[np.uint16]]
    """A memory map (S*V, 64, 64) of each shard, 0.1 mm."""
    camera: NDArray[np.float32]
    """(images, 4) of x, y, z [m], yaw [rad] in the world."""
    grasps: NDArray[np.float32]
    """(G, 5) of x, y, z [m], yaw [rad], width [m] in the world."""
    grasp_object: NDArray[np.int16]
    grasp_start: NDArray[np.int64]
    """(scenes + 1,): scene s owns grasps [grasp_start[s], grasp_start[s + 1])."""
    objects: list[list[str]]
    """Names of each scene's objects."""
    sensors: list[str]
    """The depth sensor of each scene (sim.scene.sensor)."""
    views: int
    first: NDArray[np.int64]
    """First image of each shard, and the number of images at the end."""

    def __len__(self) -> int:
        return len(self.camera)

    def depth_m(self, images: NDArray[np.integer]) -> NDArray[np.float32]:
        """Depth of the images (B,) as (B, 64, 64) float32 metres."""
        images = np.asarray(images)
        shard = np.searchsorted(self.first, images, side="right") - 1
        raw = np.empty((len(images), *self.depth[0].shape[1:]), dtype=np.uint16)
        for k in np.unique(shard):
            here = np.flatnonzero(shard == k)
            raw[here] = self.depth[k][images[here] - self.first[k]]
        return raw * np.float32(DEPTH_UNIT_M)

    def scene_grasps(self, scene: int) -> NDArray[np.float32]:
        return self.grasps[self.grasp_start[scene] : self.grasp_start[scene + 1]]


def open_split(folder: str | Path, split: str) -> Split:
    """Open a split of a finished dataset; raises DatasetError, as open_shards."""
    manifest = read_manifest(folder)
    return open_shards(folder, manifest, split, enumerate(shard_scenes(manifest, split)))


def open_shards(
    folder: str | Path, manifest: dict[str, Any], split: str, shards: Iterable[tuple[int, range]]
) -> Split:
    """Open shards of a set, each given by its number and its scenes.

    Raises DatasetError, naming the shard, if one is missing, or is of another set, split or number. Shards of
    older sets do not say it: those are read with a note, and copies among them are found.
    """
    views = manifest["params"]["views"]
    loaded: dict[str, list[Any]] = {name: [] for name in ARRAYS}
    objects: list[list[str]] = []
    sensors: list[str] = []
    seen: dict[tuple[str, str], Path] = {}
    silent = False
    for k, scenes in shards:
        path = shard_path(folder, split, k)
        if not (path / "shard.json").is_file():
            raise DatasetError(
                f"{path} is missing: run the same sim.generate command again to finish"
            )
        for name in ARRAYS:
            file = path / f"{name}.npy"
            loaded[name].append(np.load(file, mmap_mode="r") if name == "depth" else np.load(file))
        if len(loaded["depth"][-1]) != len(scenes) * views:
            raise DatasetError(
                f"{path} has {len(loaded['depth'][-1])} images, not {len(scenes) * views}"
            )
        about = json.loads((path / "shard.json").read_text())
        place, own = ShardIdentity(manifest["id"], split, k), identity_of(about)
        if own is None and not silent:
            silent = True
            print(
                f"{folder}: its shards do not say of which set they are (made by an older version); "
                "sim.verify compares their objects",
                file=sys.stderr,
            )
        elif own is not None and own != place:
            raise DatasetError(
                f"{path} holds {own}, not {place}: put there by mistake; sim.verify --repair moves it aside"
            )
        digests = about["sha256"]["depth"], about["sha256"]["camera"]
        if digests in seen:
            raise DatasetError(
                f"{path} holds the images of {seen[digests]}: a copy in its place; sim.verify --repair moves "
                "it aside"
            )
        seen[digests] = path
        objects += about["objects"]
        sensors += about.get("sensors", ["ideal"] * len(scenes))
    if not objects:
        raise DatasetError(f"{folder} has no {split} scenes; generate some with sim.generate")
    starts, offset = [np.zeros(1, np.int64)], 0
    for start in loaded["grasp_start"]:
        starts.append(start[1:] + offset)
        offset += start[-1]
    first = np.concatenate([[0], np.cumsum([len(d) for d in loaded["depth"]])]).astype(np.int64)
    return Split(
        depth=loaded["depth"],
        camera=np.concatenate(loaded["camera"]),
        grasps=np.concatenate(loaded["grasps"]),
        grasp_object=np.concatenate(loaded["grasp_object"]),
        grasp_start=np.concatenate(starts),
        objects=objects,
        sensors=sensors,
        views=views,
        first=first,
    )
