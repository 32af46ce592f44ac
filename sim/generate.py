"""Make a training set: `python -m sim.generate --scenes 200 --out data/small`.

Scenes of training objects (and a few of test objects) are drawn, their true grasps found, and depth
views of them traced, on all cores. Killed at any instant, the same command goes on where it was.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from rt.hand import HandError, load_hand
from rt.pose import top_down
from rt.view import VIEW
from sim import dataset
from sim.dataset import DatasetError
from sim.grasps import FRICTION, SAMPLES, numbered_scene
from sim.objects import ObjectError, Split, object_set
from sim.render import Renderer
from sim.rig import IDEAL, RigView, random_rig, settings
from sim.scene import SceneError, camera_poses
from sim.sensor import SensorError

_TELL_S = 10.0
"""Seconds between lines of progress where there is no terminal for a bar."""


@dataclass(frozen=True)
class Config:
    """Make a training set: scenes, their true grasps, and depth views of them.

    Example: python -m sim.generate --scenes 200 --views 40 --out data/small
    """

    scenes: int = 200
    """Scenes of training objects."""
    test_scenes: int | None = None
    """Scenes of test objects, for validation. Default: a twentieth of --scenes, at least 4."""
    views: int = 40
    """Depth images per scene."""
    out: Path = Path("data/grasps")
    """Folder of the set. If it holds the same set unfinished, the work goes on there."""
    seed: int = 0
    """The same seed gives the same bytes, whatever the number of workers."""
    workers: int = 0
    """Processes. 0: one for each core."""
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file."""
    friction: float = FRICTION
    """Coulomb friction coefficient between pads and objects."""
    sensors: tuple[str, ...] = (IDEAL, "d405", "d435", "sr300")
    """Depth cameras, one drawn for each scene, somewhere on the hand (sim.sensor, sim.rig); `ideal` is the
    view itself, exact."""
    grasp_samples: int = SAMPLES
    """Surface points tried for grasps on each object."""
    meshes: Path | None = None
    """Folder of your own meshes (obj, stl, ply, off, glb; metres) to add to the catalogue."""
    only_meshes: bool = False
    """Use the meshes alone, without the catalogue."""
    scenes_per_shard: int = 20
    """Scenes in a shard, the unit of work and of resuming."""


def parameters(config: Config) -> dict[str, Any]:
    """Everything that decides the bytes of the set; raises DatasetError on a value out of range."""
    test = config.test_scenes
    if test is None:
        test = max(4, -(-config.scenes // 20))
    for name, value, least in (
        ("--scenes", config.scenes, 1),
        ("--test-scenes", test, 0),
        ("--views", config.views, 1),
        ("--grasp-samples", config.grasp_samples, 1),
        ("--scenes-per-shard", config.scenes_per_shard, 1),
        ("--seed", config.seed, 0),
        ("--workers", config.workers, 0),
    ):
        if value < least:
            raise DatasetError(f"{name} {value} must be at least {least}")
    if not 0 < config.friction <= 2:
        raise DatasetError(f"--friction {config.friction} must be above 0 and at most 2")
    if config.only_meshes and config.meshes is None:
        raise DatasetError("--only-meshes needs --meshes DIR")
    if not config.sensors:
        raise DatasetError("--sensors needs at least one; ideal is the view itself")
    return {
        "train_scenes": config.scenes,
        "test_scenes": test,
        "views": config.views,
        "seed": config.seed,
        "hand": asdict(load_hand(config.hand)),
        "view": asdict(VIEW),
        "rigs": settings(config.sensors),
        "friction": config.friction,
        "grasp_samples": config.grasp_samples,
        "scenes_per_shard": config.scenes_per_shard,
        "objects": {
            split: object_set(split, config.meshes, config.only_meshes).fingerprint()
            for split in dataset.SPLITS
        },
    }


def make_shard(config: Config, folder: Path, split: Split, shard: int, numbers: range) -> int:
    """Make and write one shard; returns the number of grasps in it."""
    objects = object_set(split, config.meshes, config.only_meshes)
    hand = load_hand(config.hand)
    rays = VIEW.rays()
    depth = np.zeros((len(numbers) * config.views, VIEW.size_px, VIEW.size_px), np.uint16)
    cameras, poses, owners, names, sensors = [], [], [], [], []
    row = 0
    for number in numbers:
        scene, grasps, rng = numbered_scene(
            objects,
            config.seed,
            split,
            number,
            hand,
            friction=config.friction,
            samples=config.grasp_samples,
        )
        camera = camera_poses(scene, config.views, rng)
        rig, renderer = random_rig(config.sensors, hand, rng), Renderer(scene)
        seen = RigView(renderer, rig, hand) if rig else None
        for pose in camera:
            view = seen(pose, rng) if seen else renderer.depth(top_down(*pose), rays)
            depth[row] = encode_depth(view)
            row += 1
        cameras.append(camera)
        poses.append(grasps.poses)
        owners.append(grasps.object)
        names.append([placed.name for placed in scene.placed])
        sensors.append(rig.sensor.name if rig else IDEAL)
    dataset.write_shard(
        dataset.shard_path(folder, split, shard),
        {
            "depth": depth,
            "camera": np.concatenate(cameras),
            "grasps": np.concatenate(poses),
            "grasp_object": np.concatenate(owners),
            "grasp_start": np.cumsum([0] + [len(p) for p in poses]).astype(np.int64),
        },
        names,
        sensors,
    )
    return sum(len(p) for p in poses)


def encode_depth(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth in metres as stored, 0.1 mm; what is outside the view's range is 0."""
    seen = (depth >= VIEW.near_m) & (depth <= VIEW.far_m)
    return np.where(seen, np.rint(depth / dataset.DEPTH_UNIT_M), 0).astype(np.uint16)


def generate(config: Config) -> dict[str, float]:
    """Make the set, or what is missing of it. Returns what was done in this run."""
    params = parameters(config)
    for name, reason in object_set("all", config.meshes, config.only_meshes).skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    folder = config.out
    manifest = {"format": dataset.FORMAT, "id": dataset.dataset_id(params), "params": params}
    _claim(folder, manifest)
    with _locked(folder):
        dataset.remove_partial_shards(folder)
        todo = [
            (split, k, numbers)
            for split in dataset.SPLITS
            for k, numbers in enumerate(dataset.shard_scenes(manifest, split))
            if not dataset.shard_path(folder, split, k).exists()
        ]
        every = params["train_scenes"] + params["test_scenes"]
        missing = sum(len(numbers) for _, _, numbers in todo)
        if missing < every:
            print(f"{folder}: {every - missing} of {every} scenes are there, making the rest")
        started = time.monotonic()
        _run(config, folder, todo, every, missing)
        seconds = time.monotonic() - started
    return {
        "scenes": missing,
        "images": missing * config.views,
        "seconds": seconds,
        "images_per_s": missing * config.views / seconds,
    }


def _run(
    config: Config, folder: Path, todo: Sequence[tuple[Split, int, range]], every: int, missing: int
) -> None:
    """Make the shards on a pool of processes, with a progress bar in scenes."""
    workers = min(config.workers or os.cpu_count() or 1, max(len(todo), 1))
    # spawn, not fork: a forked child would inherit embree's threads half alive.
    context = multiprocessing.get_context("spawn")
    on_terminal, begun, told = sys.stderr.isatty(), time.monotonic(), time.monotonic()
    bar = tqdm(
        total=every,
        initial=every - missing,
        unit="scene",
        desc=str(folder),
        disable=not on_terminal,
    )
    with (
        bar,
        ProcessPoolExecutor(workers, context, _die_with_parent, (os.getpid(),)) as pool,
    ):
        shards = {
            pool.submit(make_shard, config, folder, split, k, numbers): len(numbers)
            for split, k, numbers in todo
        }
        made = 0
        try:
            for done in as_completed(shards):
                done.result()
                bar.update(shards[done])
                made += shards[done]
                now = time.monotonic()
                if not on_terminal and now - told > _TELL_S:
                    told, rate = now, made / (now - begun)
                    left = (missing - made) / rate
                    print(
                        f"{every - missing + made} of {every} scenes, {rate:.1f} a second, "
                        f"{left / 60:.1f} min left",
                        file=sys.stderr,
                    )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _die_with_parent(parent: int) -> None:
    """A worker of a killed run must not go on writing beside the run that resumes it."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the folder this set's, or refuse: it holds something else, or a set made otherwise."""
    if (folder / "manifest.json").exists():
        there = dataset.read_manifest(folder)["params"]
        here = manifest["params"]
        differ = [
            f"{k}: there {there.get(k)!r}, asked {here.get(k)!r}"
            for k in sorted({*there, *here})
            if there.get(k) != here.get(k)
        ]
        if differ:
            raise DatasetError(
                f"{folder} holds a set made with other parameters ({'; '.join(differ)}); "
                "give another --out, or the same parameters to go on"
            )
        return
    if folder.is_dir():
        for half in folder.glob(".manifest.json.*"):  # a run killed while it began
            half.unlink()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} exists and is not a dataset; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    dataset.write_text(folder / "manifest.json", text)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second writer; the kernel lets go of it however this process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{folder}: another sim.generate is writing there") from None
        yield
    finally:
        os.close(handle)


def main() -> int:
    config = tyro.cli(Config, prog="python -m sim.generate")
    try:
        done = generate(config)
        table = Table(
            "split", "scenes", "images", "grasps", "grasps a scene", title=str(config.out)
        )
        params = dataset.read_manifest(config.out)["params"]
        for split in dataset.SPLITS:
            if params[f"{split}_scenes"]:
                part = dataset.open_split(config.out, split)
                counts = np.diff(part.grasp_start)
                per_scene = f"{np.median(counts):.0f} (median), {counts.min()} to {counts.max()}"
                row = len(counts), len(part), len(part.grasps)
                table.add_row(split, *(f"{n:,}" for n in row), per_scene)
        Console().print(table)
    except (DatasetError, ObjectError, SceneError, SensorError, HandError) as error:
        print(f"sim.generate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sim.generate: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(
        f"{done['images']:,.0f} images in {done['seconds']:.1f} s: {done['images_per_s']:.0f} images/s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
