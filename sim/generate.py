"""Make a training set: `python -m sim.generate --scenes 200 --out data/small`.

Scenes of training objects (and a few of test objects) are drawn, their true grasps found, and depth
views of them traced, on all cores. After a kill at any instant the same command continues.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from rt.hand import HandError, load_hand
from rt.tools.command import command, screen
from rt.tools.files import require_room
from rt.tools.pool import PoolError
from rt.tools.progress import progress
from rt.view import VIEW
from sim.dataset import store
from sim.dataset.claim import claim, locked, parse_share
from sim.dataset.engines import ENGINES, Job
from sim.dataset.lifted import write_rates
from sim.dataset.make import make_shard
from sim.dataset.options import GenerateOptions, manifest
from sim.dataset.store import DatasetError
from sim.physics.convex import PhysicsError
from sim.scene.graspable import require_graspable
from sim.scene.objects import ObjectError
from sim.scene.openrave import RendererError
from sim.scene.scene import SceneError
from sim.scene.sensor import SensorError


def generate(config: GenerateOptions) -> dict[str, float]:
    """Make the set, or what is missing of it (of this --shard). Returns what was done in this run."""
    part, parts = parse_share(config.shard)
    if config.ray_address and config.engine != "ray":
        raise DatasetError("--ray-address needs --engine ray")
    made = manifest(config)
    params = made["params"]
    config.objects("all").say_skipped()
    if config.only_meshes:  # the catalogue can be grasped
        for split in store.SPLITS:
            if params[f"{split}_scenes"]:
                require_graspable(config.objects(split), split, load_hand(config.hand))
    folder = config.out
    _require_room(config, params, part, parts)
    claim(folder, made)
    with locked(folder, part, parts):
        mine: list[Job] = [
            (split, k, numbers)
            for split in store.SPLITS
            for k, numbers in enumerate(store.shard_scenes(made, split))
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


def _require_room(config: GenerateOptions, params: dict[str, Any], part: int, parts: int) -> None:
    """Raise DiskFullError if the images alone that are missing do not fit onto the disk."""
    missing = sum(
        len(scenes)
        for split in store.SPLITS
        for k, scenes in enumerate(store.shard_scenes({"params": params}, split))
        if k % parts == part and not store.shard_path(config.out, split, k).exists()
    )
    size = missing * config.views * VIEW.size_px**2 * np.dtype(np.uint16).itemsize
    require_room(config.out, size, f"the depth of {missing * config.views:,} images")


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


def lift_table(found: dict[str, dict[str, Any]]) -> Table:
    """Rates of lifted grasps by category, as in the manifest."""
    table = Table("category", "lifts", "held", "95 % interval", title="grasps lifted")
    for name, rate in found.items():
        low, high = rate["ci95"]
        table.add_row(name, f"{rate['n']:,}", f"{rate['rate']:.1%}", f"{low:.1%} to {high:.1%}")
    return table


REFUSALS = (
    PhysicsError,
    DatasetError,
    ObjectError,
    SceneError,
    SensorError,
    HandError,
    RendererError,
)
"""Errors that the user can mend."""


@command(
    "sim.generate",
    GenerateOptions,
    mistakes=REFUSALS,
    failures=(PoolError,),
    interrupted="the same command goes on from here",
)
def main(config: GenerateOptions) -> int:
    done = generate(config)
    _, parts = parse_share(config.shard)
    table = Table("split", "scenes", "images", "grasps", "grasps a scene", title=str(config.out))
    params = store.read_manifest(config.out)["params"]
    for split in store.SPLITS:
        if params[f"{split}_scenes"] and parts == 1:
            part = store.open_split(config.out, split)
            counts = np.diff(part.grasp_start)
            per_scene = f"{np.median(counts):.0f} (median), {counts.min()} to {counts.max()}"
            row = len(counts), len(part), len(part.grasps)
            table.add_row(split, *(f"{n:,}" for n in row), per_scene)
    console = screen()
    if table.rows:
        console.print(table)
    if config.lift_share > 0 and (found := write_rates(config.out)):
        console.print(lift_table(found))
    if config.physics_check:
        from sim.dataset import label_check

        label_check.report(config, label_check.check_labels(config))
    print(
        f"{done['images']:,.0f} images in {done['seconds']:.1f} s: {done['images_per_s']:.0f} images/s; "
        f"peak memory {done['peak_mb']:.0f} MB, the largest worker {done['peak_worker_mb']:.0f} MB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
