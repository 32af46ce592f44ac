"""Make a training set: `python -m sim.generate --scenes 200 --out data/small`.

Scenes of training objects (and a few of test objects) are drawn, their true grasps found, and depth
views of them traced, on all cores. Killed at any instant, the same command goes on where it was.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.renderers import RENDERERS
from rt.hand import HandError, load_hand
from rt.pose import top_down
from rt.tools.pool import PoolError
from rt.tools.progress import progress
from rt.view import VIEW
from sim.dataset import store
from sim.dataset.claim import claim, locked, parse_share
from sim.dataset.engines import ENGINES, Job
from sim.dataset.store import DatasetError
from sim.physics.convex import PhysicsError
from sim.scene.grasps import FRICTION, SAMPLES, Grasps, numbered_scene
from sim.scene.objects import ObjectError, Split, object_set
from sim.scene.openrave import RendererError, probe
from sim.scene.rig import IDEAL, RigView, random_rig, settings
from sim.scene.scene import Scene, SceneError, camera_poses
from sim.scene.sensor import SensorError

"""Seconds between lines of progress where there is no terminal for a bar."""


_objects = cache(object_set)


@dataclass(frozen=True)
class GenerateOptions:
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
    engine: Literal["local", "ray"] = "local"
    """Where shards are made: processes of this machine, or a Ray cluster (extra `cluster`)."""
    ray_address: str | None = None
    """Of a running cluster's head, host:port, or auto. Default: one of --workers processes, started here."""
    shard: str = "0/1"
    """i/n: make the shards k with k % n == i alone, as one of the n jobs of a batch scheduler, all into one
    folder or each into its own (sim.merge puts those together)."""
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file."""
    friction: float = FRICTION
    """Coulomb friction coefficient between pads and objects."""
    sensors: tuple[str, ...] = (IDEAL, "d405", "d435", "sr300")
    """Depth cameras, one drawn for each scene, somewhere on the hand (sim.scene.sensor, .rig); `ideal` is the
    view itself, exact."""
    renderer: Literal["embree", "openrave"] = "embree"
    """What traces the views: openrave where openravepy is installed (sim.compare holds them together)."""
    grasp_samples: int = SAMPLES
    """Surface points tried for grasps on each object."""
    meshes: Path | None = None
    """Folder of your own meshes (obj, stl, ply, off, glb; metres) to add to the catalogue."""
    only_meshes: bool = False
    """Use the meshes alone, without the catalogue."""
    physics_check: int = 0
    """Lift about this many of the set's grasps in MuJoCo and report how many hold, by category (extra
    `physics`). 0: none."""
    scenes_per_shard: int = 20
    """Scenes in a shard, the unit of work and of resuming."""

    def scene(self, split: Split, number: int) -> tuple[Scene, Grasps, np.random.Generator]:
        """A scene of the set, as numbered_scene makes it."""
        return numbered_scene(
            _objects(split, self.meshes, self.only_meshes),
            self.seed,
            split,
            number,
            load_hand(self.hand),
            friction=self.friction,
            samples=self.grasp_samples,
        )


def parameters(config: GenerateOptions) -> dict[str, Any]:
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
        ("--physics-check", config.physics_check, 0),
    ):
        if value < least:
            raise DatasetError(f"{name} {value} must be at least {least}")
    if not 0 < config.friction <= 2:
        raise DatasetError(f"--friction {config.friction} must be above 0 and at most 2")
    if config.only_meshes and config.meshes is None:
        raise DatasetError("--only-meshes needs --meshes DIR")
    if not config.sensors:
        raise DatasetError("--sensors needs at least one; ideal is the view itself")
    traced = {}
    if config.renderer == "openrave":
        probe()
        traced = {"renderer": config.renderer}  # its depths differ from embree's by rounding
    return traced | {
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
            for split in store.SPLITS
        },
    }


def make_shard(
    config: GenerateOptions, folder: Path, split: Split, shard: int, numbers: range
) -> int:
    """Make and write one shard; returns the number of grasps in it."""
    hand, rays = load_hand(config.hand), VIEW.rays()
    depth = np.zeros((len(numbers) * config.views, VIEW.size_px, VIEW.size_px), np.uint16)
    cameras, poses, owners, names, sensors = [], [], [], [], []
    row = 0
    for number in numbers:
        scene, grasps, rng = config.scene(split, number)
        camera = camera_poses(scene, config.views, rng)
        rig, renderer = random_rig(config.sensors, hand, rng), RENDERERS[config.renderer](scene)
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
    store.write_shard(
        store.shard_path(folder, split, shard),
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
    return np.where(seen, np.rint(depth / store.DEPTH_UNIT_M), 0).astype(np.uint16)


def generate(config: GenerateOptions) -> dict[str, float]:
    """Make the set, or what is missing of it (of this --shard). Returns what was done in this run."""
    part, parts = parse_share(config.shard)
    if config.ray_address and config.engine != "ray":
        raise DatasetError("--ray-address needs --engine ray")
    params = parameters(config)
    for name, reason in object_set("all", config.meshes, config.only_meshes).skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    folder = config.out
    manifest = {"format": store.FORMAT, "id": store.dataset_id(params), "params": params}
    claim(folder, manifest)
    with locked(folder, part, parts):
        mine: list[Job] = [
            (split, k, numbers)
            for split in store.SPLITS
            for k, numbers in enumerate(store.shard_scenes(manifest, split))
            if k % parts == part
        ]
        todo = [job for job in mine if not store.shard_path(folder, *job[:2]).exists()]
        every, missing = (sum(len(job[2]) for job in jobs) for jobs in (mine, todo))
        if missing < every:
            print(f"{folder}: {every - missing} of {every} scenes are there, making the rest")
        started = time.monotonic()
        if todo:
            _run(config, folder, todo, every, missing)
        seconds = time.monotonic() - started
    return {
        "scenes": missing,
        "images": missing * config.views,
        "seconds": seconds,
        "images_per_s": missing * config.views / seconds if missing else 0.0,
        "peak_mb": peak_mb(),
        "peak_worker_mb": _most_resident_mb(resource.RUSAGE_CHILDREN),
    }


def peak_mb() -> float:
    """Most memory that this process has held, in MB.

    Linux's ru_maxrss counts what the process that started this one held when it forked, so there
    it is read from /proc.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return _most_resident_mb(resource.RUSAGE_SELF)
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1.024e-3


def _most_resident_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _run(
    config: GenerateOptions, folder: Path, todo: Sequence[Job], every: int, missing: int
) -> None:
    """Make the shards on the engine, with a progress bar in scenes."""
    bar = progress(total=every, initial=every - missing, unit="scene", title=str(folder))
    with bar, closing(ENGINES[config.engine](config, folder, todo, make_shard)) as done:
        for _, _, numbers in done:
            bar.update(len(numbers))


REFUSALS = (
    PhysicsError,
    DatasetError,
    ObjectError,
    SceneError,
    SensorError,
    HandError,
    PoolError,
    RendererError,
)
"""What a user can mend."""


def main() -> int:
    config = tyro.cli(GenerateOptions, prog="python -m sim.generate")
    try:
        done = generate(config)
        _, parts = parse_share(config.shard)
        table = Table(
            "split", "scenes", "images", "grasps", "grasps a scene", title=str(config.out)
        )
        params = store.read_manifest(config.out)["params"]
        for split in store.SPLITS:
            if params[f"{split}_scenes"] and parts == 1:
                part = store.open_split(config.out, split)
                counts = np.diff(part.grasp_start)
                per_scene = f"{np.median(counts):.0f} (median), {counts.min()} to {counts.max()}"
                row = len(counts), len(part), len(part.grasps)
                table.add_row(split, *(f"{n:,}" for n in row), per_scene)
        if table.rows:
            Console().print(table)
        if config.physics_check:
            from sim.dataset import label_check

            label_check.report(config, label_check.check_labels(config))
    except REFUSALS as error:
        print(f"sim.generate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sim.generate: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(
        f"{done['images']:,.0f} images in {done['seconds']:.1f} s: {done['images_per_s']:.0f} images/s; "
        f"peak memory {done['peak_mb']:.0f} MB, the largest worker {done['peak_worker_mb']:.0f} MB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
