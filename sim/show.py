"""Draw one scene with its true grasps: `python -m sim.show --scene 3`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rt.hand import Hand, HandError, load_hand
from rt.pose import to_view, top_down
from rt.tools.command import command
from rt.tools.files import write_figure
from rt.view import VIEW
from sim.dataset.lifted import require_physics
from sim.dataset.options import kind_of_scene
from sim.physics.convex import PhysicsError
from sim.scene.graspable import require_graspable
from sim.scene.grasps import Grasps, NoGraspError, numbered_scene
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import Catalogue, ObjectError, object_set
from sim.scene.render import Renderer
from sim.scene.scene import CLUTTER, Scene, SceneError, camera_poses

_NAMED = 5
"""Objects of a scene that are all named in the picture; of more, those with a grasp."""


@dataclass(frozen=True)
class ShowOptions:
    """Draw one scene from above, with its true grasps, and three of its depth views.

    Example: python -m sim.show --scene 3 --split test --out scene.png
    """

    scene: int = 0
    """Number of the scene."""
    split: Literal["train", "test"] = "train"
    """Split of the objects."""
    seed: int = 0
    """Seed of the set that the scene belongs to."""
    kind: Literal["loose", "tight", "bin", "pile"] = "loose"
    """loose: one to five objects on the table; tight: ten in a circle of 30 cm; bin: ten inside walls; pile:
    fifteen poured into a bin (extra `physics`)."""
    grasps: int = 60
    """Most grasps drawn on each object; all of them are counted."""
    catalogue: Catalogue = "household"
    """Objects: the household catalogue, the wide one of twenty categories, or both."""
    meshes: Path | None = None
    """Folder of your own meshes to add."""
    only_meshes: bool = False
    """Use the meshes alone."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = PLAIN
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file."""
    out: Path = Path("runs/show/scene.png")
    """Picture to write."""


def hand_lines(poses: NDArray[np.floating], hand: Hand) -> NDArray[np.float64]:
    """Hands as line segments (3 * N, 2, 2): the closing line between the pads and a tick for each pad.

    poses: (N, 3) of x, y, angle of the closing axis in the plane drawn in.
    """
    half, tick = hand.opening_m / 2, hand.finger_width_m / 2
    shape = np.array(
        [[[-half, 0], [half, 0]], [[-half, -tick], [-half, tick]], [[half, -tick], [half, tick]]]
    )
    c, s = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], axis=-2)
    return (np.einsum("nij,skj->nski", turn, shape) + poses[:, None, None, :2]).reshape(-1, 2, 2)


def draw(scene: Scene, grasps: Grasps, views: NDArray[np.float32], hand: Hand, most: int) -> Figure:
    """The scene from above and three of its views (3, 4) of x, y, z, yaw."""
    figure = plt.figure(figsize=(11.5, 8), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=[2.6, 1])
    renderer = Renderer(scene)
    _draw_above(figure.add_subplot(grid[:, 0]), scene, grasps, renderer, hand, most)
    size = VIEW.size_px
    for k, view in enumerate(views):
        axes = figure.add_subplot(grid[k, 1])
        depth = renderer.depth(top_down(*view), VIEW.rays())
        axes.imshow(np.where(depth > 0, depth, np.nan), cmap="viridis_r", extent=(0, size, size, 0))
        shown = grasps.poses[:: max(1, len(grasps) // 80)]
        in_view = to_view(shown[:, :4], view)
        # A hand at its grasp's height, by the view's pinhole; the hand now, at the table's.
        scale = np.repeat(VIEW.focal_px / (view[2] - shown[:, 2]), 3)[:, None, None]
        lines = hand_lines(in_view, hand) * scale + size / 2
        axes.add_collection(LineCollection(list(lines), colors="lime", lw=0.5, alpha=0.6))
        here = hand_lines(np.zeros((1, 3)), hand) * VIEW.focal_px / view[2] + size / 2
        axes.add_collection(LineCollection(list(here), colors="red", lw=2))
        axes.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
        axes.set_title(f"depth from {view[2]:.2f} m; red: the hand, at the table", fontsize=8)
    return figure


def _draw_above(
    axes: Axes, scene: Scene, grasps: Grasps, renderer: Renderer, hand: Hand, most: int
) -> None:
    half, step = float(np.abs(scene.vertices[:, :2]).max()) + 0.06, 0.001
    height = renderer.height_map(half, step)
    gx, gy = np.gradient(height.T, step)[::-1]
    light = np.clip((1 - 0.5 * gx - 0.6 * gy) / np.sqrt(1 + gx**2 + gy**2), 0, 1.3)
    shade = np.clip(0.25 + 0.5 * light + 1.5 * height.T, 0, 1)
    axes.imshow(shade, cmap="gray", vmin=0, vmax=1.2, origin="lower", extent=(-half, half) * 2)
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    bare = 0
    for k, placed in enumerate(scene.placed):
        own = grasps.poses[grasps.object == k]
        if len(scene.placed) > _NAMED and not len(own):
            bare += 1
            continue
        shown = own[np.linspace(0, len(own) - 1, min(most, len(own))).astype(int)]
        lines = hand_lines(shown[:, [0, 1, 3]], hand)
        colour = colours[k % len(colours)]
        axes.add_collection(LineCollection(list(lines), colors=[colour], lw=0.7, alpha=0.7))
        axes.plot([], [], color=colour, label=f"{placed.name}: {len(own)} grasps")
    if bare:
        axes.plot([], [], " ", label=f"{bare} without a grasp")
    axes.legend(loc="upper right", fontsize=9)
    axes.set(xlim=(-half, half), ylim=(-half, half), xlabel="x [m]", ylabel="y [m]")
    axes.set_title("from above: a line between the pads for each true grasp")


def _arguments(kind: Literal["loose", "tight", "bin", "pile"]) -> dict[str, Any]:
    """Arguments of numbered_scene. Raises PhysicsError for a pile without the extra `physics`."""
    if kind == "loose":
        return {}
    if kind == "pile":
        require_physics("--kind pile")
        return kind_of_scene(kind, 15)
    return kind_of_scene(kind, CLUTTER)


@command("sim.show", ShowOptions, mistakes=(ObjectError, HandError, SceneError, PhysicsError))
def main(config: ShowOptions) -> int:
    hand = load_hand(config.hand)
    objects = object_set(
        config.split, config.meshes, config.only_meshes, config.mesh, config.catalogue
    )
    objects.say_skipped()
    number, kind = (config.seed, config.split, config.scene), _arguments(config.kind)
    try:
        if config.only_meshes:
            require_graspable(objects, config.split, hand)
        scene, grasps, rng = numbered_scene(objects, *number, hand, **kind)
    except NoGraspError as error:
        print(f"sim.show: {error}", file=sys.stderr)
        scene, grasps, rng = numbered_scene(objects, *number, hand, empty=True, **kind)
    figure = draw(scene, grasps, camera_poses(scene, 3, rng), hand, config.grasps)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_figure(figure, config.out, dpi=110)
    print(f"{len(grasps)} grasps on {len(scene.placed)} objects: {config.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
