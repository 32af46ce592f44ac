"""Pictures of depth cameras' faults: `python -m bench.sensors` writes docs/figures/sensors.png.

One scene seen by one rig: exact, through the sensor, and with each of the faults of sim.scene.material and
sim.scene.sensor that docs/sensors.md describes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rt.hand import load_hand
from rt.tools.command import DONE, command
from rt.tools.files import write_figure
from sim.scene.arrange import make_scene
from sim.scene.material import MaterialScene
from sim.scene.objects import catalogue_set
from sim.scene.raster import RasterRenderer
from sim.scene.rig import RigView, make_rig, mounted
from sim.scene.sensor import sensor


@dataclass(frozen=True)
class SensorPictureOptions:
    """Draw the faults of depth cameras on one scene."""

    out: Path = Path("docs/figures/sensors.png")
    """The picture."""
    seed: int = 4
    """Seed of the scene."""


def pictures(seed: int) -> dict[str, NDArray[np.float32]]:
    """Depth images (H, W) [m] by their titles."""
    scene = make_scene(catalogue_set("train"), np.random.default_rng(seed), 3)
    hand, found = load_hand(), {}
    centre = np.mean([p.T_world_object[:2, 3] for p in scene.placed], axis=0)
    pose = np.array([*centre, 0.28, 0.3])
    for title, name, material in (
        ("exact", "ideal", "matte"),
        ("d435: shadows, fingers too near", "d435", "matte"),
        ("d435_flying", "d435_flying", "matte"),
        ("black", "d435", "black"),
        ("shiny", "d435", "shiny"),
        ("transparent", "d435", "transparent"),
    ):
        rig = make_rig(sensor(name), mounted(hand))
        special = MaterialScene(scene, (material,) * len(scene.placed), rig.intrinsics)
        view = RigView(RasterRenderer(scene), rig, hand, materials=special)
        found[title] = view.image(pose, np.random.default_rng(seed))
    return found


@command("bench.sensors", SensorPictureOptions)
def main(options: SensorPictureOptions) -> int:
    """Run the command; returns its exit code."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.2), layout="constrained")
    for ax, (title, depth) in zip(axes.flat, pictures(options.seed).items(), strict=True):
        shades = plt.get_cmap("viridis_r").copy()
        shades.set_bad("black")
        ax.imshow(np.where(depth > 0, depth, np.nan), cmap=shades, vmin=0.2, vmax=0.45)
        ax.set_title(f"{title} ({(depth == 0).mean():.0%} holes)", fontsize=10, loc="left")
        ax.set_axis_off()
    write_figure(figure, options.out, dpi=110)
    print(f"wrote {options.out}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
