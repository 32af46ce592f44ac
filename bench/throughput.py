"""Rates of generation and training: `python -m bench.throughput`.

Generation: images and scenes per second of one process and of all, the share of each stage, and the ratio
to bare rays, which is embree alone on the same scenes and views. Both take turns in the same run, so that
load on the machine slows both and the ratio stays valid. Training: see bench.training.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from bench.stages import STAGES, timed_generation
from rt.pose import top_down
from rt.tools.command import DONE, command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.plots import panels, plain_axes, save
from rt.view import VIEW
from sim import generate
from sim.dataset.make import make_shard
from sim.dataset.options import GenerateOptions
from sim.dataset.store import DatasetError
from sim.scene.grasps import numbered_scene
from sim.scene.objects import object_set
from sim.scene.render import Renderer
from sim.scene.scene import camera_poses


@dataclass(frozen=True)
class ThroughputOptions:
    """Measure generation, and training if torch is installed.

    Example: python -m bench.throughput --scenes 40
    """

    scenes: int = 40
    """Scenes for the measurement of the stages, in one process."""
    views: int = 40
    """Images per scene."""
    sensors: tuple[str, ...] = GenerateOptions().sensors
    """Depth cameras, as for sim.generate."""
    whole: int = 80
    """Scenes for the measurement of the whole command on --workers processes; 0 skips it."""
    workers: int = 0
    """Processes of the whole command. 0: one per core."""
    training: float = 30.0
    """Time for training [s]; 0 skips it."""
    seed: int = 0
    """Seed of the scenes."""
    out: Path | None = None
    """Folder for throughput.json and throughput.png. Default: runs/throughput/<time>/."""


def bare_rays(config: ThroughputOptions, numbers: range) -> float:
    """Processor time [s] of embree alone on the 64x64 views of the same scenes."""
    objects, rays = object_set("train"), VIEW.rays().reshape(-1, 3)
    seconds = 0.0
    for number in numbers:
        # Few samples: the rays do not depend on the grasps.
        scene, _, rng = numbered_scene(objects, config.seed, "train", number, samples=500)
        renderer = Renderer(scene)
        for pose in camera_poses(scene, config.views, rng):
            T = top_down(*pose).astype(np.float32)
            directions = rays @ T[:3, :3].T
            origins = np.tile(T[:3, 3], (len(directions), 1))
            begun = time.process_time()
            renderer.range(origins, directions)
            seconds += time.process_time() - begun
    return seconds


def measure_stages(config: ThroughputOptions) -> dict[str, Any]:
    """Stages of make_shard in this process, alternating with bare rays."""
    step, images = 4, config.scenes * config.views
    settings = GenerateOptions(views=config.views, seed=config.seed, sensors=config.sensors)
    objects = object_set("train")
    for name in objects.names:  # built once per worker, so not part of a scene's time
        objects.get(name)
    bare, wall = 0.0, 0.0
    seconds = dict.fromkeys(STAGES, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for k, first in enumerate(range(0, config.scenes, step)):
            numbers = range(first, min(first + step, config.scenes))
            begun = time.monotonic()
            with timed_generation() as stages:
                make_shard(settings, Path(folder), "train", k, numbers)
            wall += time.monotonic() - begun
            for name, value in stages.seconds.items():
                seconds[name] += value
            bare += bare_rays(config, numbers)
    total = sum(seconds.values())
    return {
        "scenes": config.scenes,
        "images": images,
        "processor_s": total,
        "wall_s": wall,
        "images_per_s": images / total,
        "scenes_per_s": config.scenes / total,
        "share": {name: value / total for name, value in seconds.items()},
        "ms_per_image": {name: 1e3 * value / images for name, value in seconds.items()},
        "bare_rays_images_per_s": images / bare,
        "times_bare_rays": total / bare,
    }


def measure_command(config: ThroughputOptions) -> dict[str, Any]:
    """Wall time of the command as a user runs it, including the start of its workers."""
    with tempfile.TemporaryDirectory() as folder:
        settings = GenerateOptions(
            config.whole,
            0,
            config.views,
            Path(folder) / "set",
            config.seed,
            config.workers,
            sensors=config.sensors,
            scenes_per_shard=max(1, min(20, config.whole // (4 * (os.cpu_count() or 1)))),
        )
        done = generate.generate(settings)
    return {
        "workers": config.workers or os.cpu_count(),
        "wall_s": done["seconds"],
        "images_per_s": done["images_per_s"],
        "scenes_per_s": done["scenes"] / done["seconds"],
        "peak_worker_mb": done["peak_worker_mb"],
    }


def measure_training(seconds: float, seed: int) -> dict[str, Any] | str:
    """Figures of bench.training, or the reason why it was left out."""
    try:
        training = importlib.import_module("bench.training")
    except ImportError as error:
        return f"left out: {error}"
    return dict(training.measure(seconds=seconds, seed=seed))


def draw(result: dict[str, Any], path: Path) -> None:
    """Bar chart: time per image by stage, and that of bare rays."""
    stages = result["generation"]
    figure, axes = panels(size_in=(8, 2.4))
    left = 0.0
    colours = ("#8d99ae", "#2667c9", "#2a9d8f", "#e9a23b", "#d1495b", "#6d597a", "#c9ced6")
    for name, colour in zip(STAGES, colours, strict=True):
        width = stages["ms_per_image"][name]
        axes.barh("generation", width, left=left, color=colour, label=name)
        left += width
    axes.barh("bare rays", 1e3 / stages["bare_rays_images_per_s"], color="#2a9d8f")
    axes.invert_yaxis()
    axes.set_xlabel("ms of a processor per image")
    axes.set_title(
        f"generation: {stages['times_bare_rays']:.1f} times the bare rays of its views",
        loc="left",
        fontsize=11,
    )
    axes.legend(ncols=4, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    plain_axes(axes)
    save(figure, path, dpi=110)


def run(config: ThroughputOptions) -> dict[str, Any]:
    """Content of throughput.json for these options. Raises DatasetError, SensorError."""
    for name, value, least in (("scenes", config.scenes, 1), ("views", config.views, 1)):
        if value < least:
            raise DatasetError(f"--{name} {value} must be at least {least}")
    result: dict[str, Any] = {"command": "bench.throughput", "config": asdict(config)}
    result["load_before"] = os.getloadavg()[0]
    result["cores"] = os.cpu_count()
    print(f"{config.scenes} scenes in one process, in turns with bare rays ...", file=sys.stderr)
    result["generation"] = measure_stages(config)
    if config.whole > 0:
        print(f"sim.generate --scenes {config.whole} ...", file=sys.stderr)
        result["command_itself"] = measure_command(config)
    if config.training > 0:
        print("training ...", file=sys.stderr)
        result["training"] = measure_training(config.training, config.seed)
    result["peak_mb"] = generate.peak_mb()
    return result


def _print(result: dict[str, Any]) -> None:
    console, stages = screen(), result["generation"]
    table = Table(title="generation, one process (processor time)")
    table.add_column("stage")
    table.add_column("share", justify="right")
    table.add_column("ms per image", justify="right")
    for name in STAGES:
        table.add_row(name, f"{stages['share'][name]:.1%}", f"{stages['ms_per_image'][name]:.3f}")
    table.add_section()
    table.add_row("all", "100 %", f"{1e3 / stages['images_per_s']:.3f}")
    table.add_row("bare rays", "", f"{1e3 / stages['bare_rays_images_per_s']:.3f}")
    console.print(table)
    print(
        f"{stages['images_per_s']:.0f} images/s, {stages['scenes_per_s']:.1f} scenes/s a core; "
        f"{stages['times_bare_rays']:.2f} times the time of bare rays"
    )
    if "command_itself" in result:
        r = result["command_itself"]
        print(
            f"sim.generate, {r['workers']} workers, wall time: {r['images_per_s']:.0f} images/s, "
            f"{r['scenes_per_s']:.1f} scenes/s; largest worker {r['peak_worker_mb']:.0f} MB "
            f"(load before: {result['load_before']:.1f})"
        )
    training = result.get("training")
    if isinstance(training, dict):
        table = Table("training", "", title="training")
        for name, value in training.items():
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
        console.print(table)
    elif training:
        print(f"training {training}")


@command("bench.throughput", ThroughputOptions)
def main(config: ThroughputOptions) -> int:
    """Run the command; returns its exit code."""
    result = run(config)
    folder = output_folder("throughput", config.out)
    write_json(folder / "throughput.json", result)
    draw(result, folder / "throughput.png")
    _print(result)
    print(f"{folder}/throughput.json, throughput.png")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
