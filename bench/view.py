"""Time to reproject a depth image into the canonical view: `python -m bench.view`.

A copy of as many bytes as the reprojection reads, timed alternately in the same run, gives the cost of
memory access alone. Times are the thread's processor time, so that load by other programs does not count.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from rt.camera import CameraError, Intrinsics
from rt.camera.models import MODELS, parse_size
from rt.native import native
from rt.tools.command import DONE, command, screen
from rt.tools.files import output_folder, write_json
from rt.view import END_HEIGHT_M, START_HEIGHT_M, Reprojector
from sim.scene.render import Renderer
from sim.twin import MOUNTS


@dataclass(frozen=True)
class ViewBenchOptions:
    """Time the reprojection of a wrist camera's depth image.

    Example: python -m bench.view --size 640x480
    """

    size: str = "640x480"
    """Width and height of the depth image [px]; 87 degrees wide."""
    repetitions: int = 300
    """Calls of each; median and percentiles are over these."""
    seed: int = 0
    """Seed of the scene."""
    out: Path | None = None
    """Folder for view.json. Default: runs/view/<time>/."""


def depth_image(
    intrinsics: Intrinsics, T_hand_camera: NDArray[np.float64], height_m: float, seed: int
) -> NDArray[np.float32]:
    """Depth image (H, W) [m] of a scene of test objects from a wrist camera; 2 % of the pixels are 0.

    height_m: height of the hand above the table.
    """
    from rt.pose import top_down
    from sim.scene.grasps import numbered_scene
    from sim.scene.objects import object_set
    from sim.scene.scene import camera_poses

    world, _, rng = numbered_scene(object_set("test"), seed, "test", 0)
    hand = camera_poses(world, 1, rng)[0]
    hand[2] = height_m
    depth = Renderer(world).depth(top_down(*hand) @ T_hand_camera, intrinsics.rays())
    depth[rng.random(depth.shape) < 0.02] = 0
    return depth


def time_in_turns(calls: dict[str, Callable[[], object]], n: int) -> dict[str, NDArray[np.float64]]:
    """Processor times (n,) [ms] of each call, called alternately."""
    times = {name: np.empty(n) for name in calls}
    for k in range(-5, n):
        for name, call in calls.items():
            began = time.thread_time_ns()
            call()
            times[name][k] = (time.thread_time_ns() - began) / 1e6
    return times


def measure(config: ViewBenchOptions) -> list[dict[str, object]]:
    """Rows of view.json, one for each path and height. Raises CameraError without the native module."""
    size, T = parse_size(config.size), MOUNTS["wrist"].T_hand_camera
    intrinsics = MODELS["D405"].intrinsics(size)
    if native is None:
        raise CameraError("rt._native is not built: there is nothing to time")
    paths = {isa: Reprojector(intrinsics, T, isa=isa) for isa in native.view_isas()}
    rows: list[dict[str, object]] = []
    for height_m in (START_HEIGHT_M, END_HEIGHT_M):
        depth = depth_image(intrinsics, T, height_m, config.seed)
        read = np.ones(4 * depth.size, np.float32)  # depth, and a direction for each pixel
        to = np.empty_like(read)
        calls: dict[str, Callable[[], object]] = {"copy": partial(np.copyto, to, read)}
        calls |= {isa: partial(reprojector, depth) for isa, reprojector in paths.items()}
        times = time_in_turns(calls, config.repetitions)
        copy_ms = float(np.median(times["copy"]))
        for name, ms in times.items():
            rows.append(
                {
                    "path": name,
                    "height_m": height_m,
                    "median_ms": float(np.median(ms)),
                    "p10_ms": float(np.percentile(ms, 10)),
                    "p99_ms": float(np.percentile(ms, 99)),
                    "of_copy": float(np.median(ms)) / copy_ms,
                }
            )
    return rows


@command("bench.view", ViewBenchOptions, failures=(CameraError,))
def main(config: ViewBenchOptions) -> int:
    """Run the command; returns its exit code."""
    folder = output_folder("view", config.out)
    rows = measure(config)
    write_json(
        folder / "view.json", {"command": "bench.view", "config": asdict(config), "rows": rows}
    )
    table = Table(title=f"{config.size} depth into the view", title_style="bold")
    for name in ("path", "from", "p10", "median", "p99", "times a copy of what it reads"):
        table.add_column(name, justify="left" if name == "path" else "right")
    for row in rows:
        table.add_row(
            str(row["path"]),
            f"{row['height_m']} m",
            *(f"{row[key]:.2f} ms" for key in ("p10_ms", "median_ms", "p99_ms")),
            f"{row['of_copy']:.2f}",
        )
    screen().print(table)
    print(f"{folder}/view.json")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
