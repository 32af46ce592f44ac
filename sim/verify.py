"""Check a training set: `python -m sim.verify data/grasps`.

Every shard is read: its files, their SHA-256, counts, types and the range of every array, which must agree
with the manifest. Broken and missing shards are named with the reason.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table

from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.progress import progress
from rt.view import END_HEIGHT_M, START_HEIGHT_M
from sim.dataset import store
from sim.dataset.claim import locked
from sim.dataset.options import GenerateOptions, options_of
from sim.dataset.store import DatasetError
from sim.scene.objects import Split, catalogue_set
from sim.scene.scene import BIN_MAX_HEIGHT_M, CLUTTER, MAX_HEIGHT_M, MAX_OBJECTS, PILED

_DRAWN = 20
"""Scenes drawn for a number until one has a grasp: more than ever happens with the catalogue."""


@dataclass(frozen=True)
class VerifyOptions:
    """Check every shard of a training set.

    Example: python -m sim.verify data/grasps --repair
    """

    folder: tyro.conf.Positional[Path]
    """The set."""
    repair: bool = False
    """Move broken shards and foreign files into DIR/broken/; the sim.generate command that made the set then
    makes only the missing shards."""
    out: Path | None = None
    """Folder for verify.json. Default: runs/verify/<time>/."""


@dataclass
class Shard:
    """Result of checking one shard."""

    split: str
    number: int
    scenes: int
    problems: list[str] = field(default_factory=list)
    images: int = 0
    empty_images: int = 0
    """Without a single return."""
    grasps: int = 0
    bytes: int = 0
    missing: bool = False
    silent: bool = False
    """Made by an older version: it does not say of which set it is."""


def check_shard(folder: Path, manifest: dict[str, Any], split: Split, number: int) -> Shard:
    """Read a whole shard and list its problems. One shard at a time is held in memory."""
    scenes = store.shard_scenes(manifest, split)[number]
    found = Shard(split, number, len(scenes))
    path, wrong = store.shard_path(folder, split, number), found.problems
    if not path.is_dir():
        found.missing = True
        wrong.append("is missing")
        return found
    try:
        about = json.loads((path / "shard.json").read_text())
        objects, digests = about["objects"], about["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong.append(f"shard.json: {type(error).__name__} {error}")
        return found
    place, own = store.ShardIdentity(manifest["id"], split, number), store.identity_of(about)
    found.silent = own is None
    if own is not None and own != place:
        wrong.append(f"holds {own}, not {place}")
    arrays: dict[str, NDArray[Any]] = {}
    for name in store.ARRAYS:
        file = path / f"{name}.npy"
        try:
            content = file.read_bytes()
            found.bytes += len(content)
            if hashlib.sha256(content).hexdigest() != digests.get(name):
                wrong.append(f"{file.name}: SHA-256 is not the one written in shard.json")
            del content
            arrays[name] = np.load(file)
        except (OSError, ValueError, EOFError) as error:
            wrong.append(f"{file.name}: {type(error).__name__} {error}")
    for extra in sorted(
        {p.name for p in path.iterdir()} - {f"{n}.npy" for n in store.ARRAYS} - {"shard.json"}
    ):
        wrong.append(f"{extra} does not belong there")
    if len(arrays) == len(store.ARRAYS):
        shapes = list(_shapes(arrays, manifest, len(scenes)))
        wrong += shapes or list(_values(arrays, manifest))
        if not shapes:
            found.images, found.grasps = len(arrays["depth"]), len(arrays["grasps"])
            found.empty_images = int((~arrays["depth"].any(axis=(1, 2))).sum())
            names = _names(about, objects, arrays, manifest, split, len(scenes))
            wrong += names or list(_foreign(manifest, split, scenes, objects))
    return found


def _foreign(
    manifest: dict[str, Any], split: Split, scenes: range, objects: list[list[str]]
) -> Iterator[str]:
    """A problem if the shard's scenes are not those that seed, split and number give.

    Its first and last scene are drawn again: a shard of another set or split, or one in another's place,
    has other objects. Sets with the user's own meshes are not looked at, nor those of older versions that do
    not say their options, unless their objects are the household catalogue's in loose scenes.
    """
    options, params = options_of(manifest), manifest["params"]
    if options is None:
        known = catalogue_set("train" if split == "train" else "test").fingerprint()
        if params.get("objects", {}).get(split) != known or {"bins", "tight", "piles"} & set(
            params
        ):
            return
        options = GenerateOptions(seed=params["seed"])
    if options.meshes is not None:
        return
    for number in {scenes[0], scenes[-1]}:
        there = objects[number - scenes[0]]
        first: list[str] = []
        for drawn in options.names(split, number, _DRAWN):
            first = first or drawn
            if there == drawn:
                break
        else:
            yield (
                f"scene {number} has {', '.join(there)}; this set's seed, split and number give "
                f"{', '.join(first)}: a shard of another set, split or number"
            )
            return


def _shapes(
    arrays: dict[str, NDArray[Any]], manifest: dict[str, Any], scenes: int
) -> Iterator[str]:
    """Types and counts that are not what the manifest says."""
    size = manifest["params"]["view"]["size_px"]
    images, grasps = scenes * manifest["params"]["views"], len(arrays["grasp_object"])
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "depth": (np.uint16, (images, size, size)),
        "camera": (np.float32, (images, 4)),
        "grasps": (np.float32, (grasps, 5)),
        "grasp_object": (np.int16, (grasps,)),
        "grasp_start": (np.int64, (scenes + 1,)),
    }
    for name, (kind, shape) in expected.items():
        array = arrays[name]
        if array.dtype != kind or array.shape != shape:
            yield (
                f"{name}.npy is {array.dtype} {array.shape}, "
                f"should be {np.dtype(kind).name} {shape}"
            )


def _values(arrays: dict[str, NDArray[Any]], manifest: dict[str, Any]) -> Iterator[str]:
    """Values out of range; the shapes are right."""
    view, hand = manifest["params"]["view"], manifest["params"]["hand"]
    unit = store.DEPTH_UNIT_M
    depth, camera, grasps = arrays["depth"], arrays["camera"], arrays["grasps"]
    seen = depth[depth > 0]
    if len(seen):
        yield from _range("depth", seen * unit, view["near_m"], view["far_m"], unit / 2, "m")
    yield from _range("camera z", camera[:, 2], END_HEIGHT_M - 0.005, START_HEIGHT_M + 0.01, 1e-6)
    yield from _range("camera yaw", camera[:, 3], -np.pi, np.pi, 1e-6, "rad")
    yield from _range("camera x, y", camera[:, :2], -1.0, 1.0, 0)
    yield from _range("grasp x, y", grasps[:, :2], -1.0, 1.0, 0)
    binned = {"bins", "piles"} & set(manifest["params"])
    highest = BIN_MAX_HEIGHT_M if binned else MAX_HEIGHT_M
    yield from _range("grasp z", grasps[:, 2], 0.0, highest, 0)
    yield from _range("grasp yaw", grasps[:, 3], -np.pi / 2, np.pi / 2, 1e-6, "rad")
    yield from _range("grasp width", grasps[:, 4], 0.0, hand["opening_m"], 0)
    start = arrays["grasp_start"]
    if start[0] != 0 or start[-1] != len(grasps) or (np.diff(start) < 1).any():
        yield f"grasp_start does not give each scene at least one of the {len(grasps)} grasps"


def _range(
    name: str, values: NDArray[Any], low: float, high: float, slack: float, unit: str = "m"
) -> Iterator[str]:
    if not len(values):
        return
    least, most = float(values.min()), float(values.max())
    if not (least >= low - slack and most <= high + slack):  # NaN is neither
        yield f"{name}: {least:.4g} to {most:.4g} {unit}, not within {low:.4g} to {high:.4g}"


def _names(
    about: dict[str, Any],
    objects: list[list[str]],
    arrays: dict[str, NDArray[Any]],
    manifest: dict[str, Any],
    split: str,
    scenes: int,
) -> list[str]:
    """Problems with the names of objects and sensors, and with the grasps' owners."""
    wrong, params = [], manifest["params"]
    most = CLUTTER if {"bins", "tight"} & set(params) else MAX_OBJECTS
    most = PILED[1] if "piles" in params else most
    if len(objects) != scenes or not all(1 <= len(o) <= most for o in objects):
        return [f"shard.json does not name one to {most} objects for each of {scenes} scenes"]
    known = catalogue_set("train" if split == "train" else "test")
    if params.get("objects", {}).get(split) == known.fingerprint():  # else the user's meshes too
        unknown = {o for scene in objects for o in scene} - set(known.names)
        if unknown:
            wrong.append(f"objects that are not of the {split} split: {', '.join(sorted(unknown))}")
    if "rigs" in params:
        sensors, kinds = about.get("sensors", []), {s["name"] for s in params["rigs"]["sensors"]}
        if len(sensors) != scenes or not set(sensors) <= kinds:
            wrong.append(f"sensors are not one of {', '.join(sorted(kinds))} for each scene")
    counts = np.repeat([len(o) for o in objects], np.maximum(np.diff(arrays["grasp_start"]), 0))
    owner = arrays["grasp_object"]
    if len(counts) == len(owner) and ((owner < 0) | (owner >= counts)).any():
        wrong.append("grasp_object names objects that the scene does not have")
    return wrong


def strays(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """Files in the folder that are no part of the set: left by a killed run, or from another set."""
    own = {"manifest.json", "broken"} | {
        store.shard_path(folder, split, k).name
        for split in store.SPLITS
        for k in range(len(store.shard_scenes(manifest, split)))
    }
    return sorted(p for p in folder.iterdir() if p.name not in own)


def verify(folder: Path) -> tuple[list[Shard], list[Path]]:
    """Every shard of the set, and strays. Raises DatasetError if the folder is no dataset at all."""
    manifest = store.read_manifest(folder)
    if store.dataset_id(manifest["params"]) != manifest["id"]:
        raise DatasetError(
            f"{folder}/manifest.json was changed: its id {manifest['id']} is not that of its parameters"
        )
    jobs = [
        (split, k)
        for split in store.SPLITS
        for k in range(len(store.shard_scenes(manifest, split)))
    ]
    bar = progress(jobs, unit="shard", title=str(folder))
    return [check_shard(folder, manifest, *job) for job in bar], strays(folder, manifest)


def repair(folder: Path, shards: list[Shard], others: list[Path]) -> list[Path]:
    """Move broken shards and strays into DIR/broken/; returns where they are now."""
    broken = [
        store.shard_path(folder, s.split, s.number) for s in shards if s.problems and not s.missing
    ]
    with locked(folder):  # refuses while somebody writes there, and clears away half-written shards
        return [_moved_aside(folder, path) for path in broken + others if path.exists()]


def _moved_aside(folder: Path, path: Path) -> Path:
    to, count = folder / "broken" / path.name.lstrip("."), 1
    to.parent.mkdir(exist_ok=True)
    while to.exists():
        to, count = to.with_name(f"{path.name.lstrip('.')}.{count}"), count + 1
    path.rename(to)
    return to


def _table(folder: Path, shards: list[Shard]) -> Table:
    table = Table(title=str(folder))
    for name in ("split", "sound", "broken", "missing", "images", "empty"):
        table.add_column(name, justify="left" if name == "split" else "right")
    table.add_column("grasps", justify="right")
    table.add_column("size", justify="right")
    for split in store.SPLITS:
        some = [s for s in shards if s.split == split]
        missing = sum(s.missing for s in some)
        broken = sum(bool(s.problems) for s in some) - missing
        sums = (sum(getattr(s, n) for s in some) for n in ("images", "empty_images", "grasps"))
        row = (len(some) - broken - missing, broken, missing)
        size = sum(s.bytes for s in some) / 1e9
        table.add_row(split, *(f"{n:,}" for n in (*row, *sums)), f"{size:.2f} GB")
    return table


@command("sim.verify", VerifyOptions, mistakes=(DatasetError,))
def main(config: VerifyOptions) -> int:
    begun = time.monotonic()
    shards, others = verify(config.folder)
    bad = [s for s in shards if s.problems]
    out = output_folder("verify", config.out)
    content = {
        "command": "sim.verify",
        "folder": str(config.folder),
        "id": store.read_manifest(config.folder)["id"],
        "sound": len(shards) - len(bad),
        "shards": len(shards),
        "images": sum(s.images for s in shards),
        "broken": {f"{s.split}-{s.number:05d}": s.problems for s in bad},
        "strays": [p.name for p in others],
    }
    write_json(out / "verify.json", content)
    moved = repair(config.folder, shards, others) if config.repair else []
    screen().print(_table(config.folder, shards))
    for shard in bad:
        print(f"{shard.split}-{shard.number:05d}: {'; '.join(shard.problems)}")
    for path in others:
        print(f"{path.name} is no part of the set")
    for path in moved:
        print(f"moved to {path}")
    if silent := sum(s.silent for s in shards):
        print(
            f"{silent} shards were made by an older version and do not say of which set they are; foreign "
            "ones are known by their objects alone"
        )
    if bad:
        first = "" if moved or all(s.missing for s in bad) else "--repair, and then "
        print(f"to repair: {first}the sim.generate command that made the set makes just these")
    print(
        f"{len(shards) - len(bad)} of {len(shards)} shards sound, {time.monotonic() - begun:.1f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
