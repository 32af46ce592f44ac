"""Compare two renderers on the same scenes: `python -m sim.compare --other openrave`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from bench.plain_render import PlainRenderer
from rt.pose import top_down
from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.progress import progress
from rt.view import VIEW
from sim.scene.arrange import make_scene
from sim.scene.objects import object_set
from sim.scene.openrave import RENDERERS, RendererError
from sim.scene.render import DepthRenderer
from sim.scene.scene import SceneError, camera_poses

EDGE_M = 1e-3
"""Pixels that differ by more see another surface: the ray runs along an outline."""


Name = Literal["embree", "openrave", "plain"]
WITH_PLAIN: dict[str, Any] = {**RENDERERS, "plain": PlainRenderer}


@dataclass(frozen=True)
class RenderersOptions:
    """Render the same views of the same scenes twice and print the largest difference.

    Example: python -m sim.compare --other plain --scenes 2 --views 1
    """

    one: Name = "embree"
    """Renderer: embree (what sets are made with), openrave (openravepy, built from source), or plain
    (every ray against every triangle in NumPy: seconds an image)."""
    other: Name = "openrave"
    """The renderer that it is compared with."""
    scenes: int = 5
    """Scenes of test objects."""
    views: int = 4
    """Views of each."""
    tolerance: float = 1e-5
    """Largest difference [m] on a surface that both see; exit code 1 beyond it."""
    edges: float = 0.001
    """Largest share of pixels that may see different surfaces; exit code 1 beyond it."""
    seed: int = 0
    """Seed of scenes and views."""
    out: Path | None = None
    """Folder for compare.json. Default: runs/compare/<time>/."""


def compare(config: RenderersOptions) -> dict[str, Any]:
    """Largest difference in metres of any pixel, and of those on one surface; seconds of each."""
    for name, value in (("scenes", config.scenes), ("views", config.views)):
        if value < 1:
            raise RendererError(f"--{name} {value} must be at least 1")
    objects, rays = object_set("test"), VIEW.rays()
    seconds = {"one": 0.0, "other": 0.0}
    largest = on_surface = 0.0
    pixels = edges = 0
    for k in progress(range(config.scenes), unit="scene", title="compared"):
        rng = np.random.default_rng((config.seed, k))
        scene = make_scene(objects, rng)
        renderers: dict[str, DepthRenderer] = {
            which: WITH_PLAIN[getattr(config, which)](scene) for which in seconds
        }
        for pose in camera_poses(scene, config.views, rng):
            images = {}
            for which, renderer in renderers.items():
                begun = time.perf_counter()
                images[which] = renderer.depth(top_down(*pose), rays)
                seconds[which] += time.perf_counter() - begun
            away = np.abs(images["one"].astype(np.float64) - images["other"])
            same = away <= EDGE_M
            largest = max(largest, float(away.max()))
            on_surface = max(on_surface, float(away[same].max(initial=0)))
            pixels, edges = pixels + away.size, edges + int((~same).sum())
    return {
        "largest_m": largest,
        "largest_on_a_surface_m": on_surface,
        "pixels": pixels,
        "pixels_on_other_surfaces": edges,
        "images": config.scenes * config.views,
        "ms_per_image": {w: 1e3 * s / (config.scenes * config.views) for w, s in seconds.items()},
    }


@command("sim.compare", RenderersOptions, mistakes=(RendererError, SceneError))
def main(config: RenderersOptions) -> int:
    found = compare(config)
    folder = output_folder("compare", config.out)
    content = {"command": "sim.compare", "config": asdict(config), **found}
    write_json(folder / "compare.json", content)
    table = Table("", "", title=f"{config.one} and {config.other}, {found['images']} images")
    share = found["pixels_on_other_surfaces"] / found["pixels"]
    ms = found["ms_per_image"]
    for name, value in (
        ("largest depth difference", f"{found['largest_m']:.3g} m"),
        ("largest on a surface that both see", f"{found['largest_on_a_surface_m']:.3g} m"),
        ("pixels that see different surfaces", f"{share:.4%} of {found['pixels']:,}"),
        ("time of an image", f"{ms['one']:.2f} and {ms['other']:.2f} ms"),
    ):
        table.add_row(name, value)
    screen().print(table)
    bad = found["largest_on_a_surface_m"] > config.tolerance or share > config.edges
    if bad:
        print(
            f"they differ by more than {config.tolerance:g} m, or on more than {config.edges:.2%}"
        )
    return int(bad)


if __name__ == "__main__":
    raise SystemExit(main())
