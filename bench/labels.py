"""Number of grasps that a scene's labels need: `python -m sim.convergence`.

A label is the distance to the nearest true grasp, so too few grasps make labels too long. Poses as in
training (uniform over the view) are labelled with the first m grasps found on each object, and with all
of a dense set drawn independently; the number to keep is where more brings them no nearer, as near as
another dense set is (a scene's rarest grasps are found by luck even then). And of the objects on
which the dense set has any grasp, the share that still has one: rare grasps need many points tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from rt.hand import HandError, load_hand
from rt.pose import grasp_distance
from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_figure, write_json
from rt.tools.pool import PoolError, spread
from sim.scene.arrange import make_scene
from sim.scene.grasps import ENOUGH, SAMPLES, Grasps, true_grasps
from sim.scene.objects import ObjectError, object_set
from sim.scene.scene import Scene, SceneError

Array = NDArray[np.floating]

COUNTS = (10, 25, 50, 100, 200, 400, 800)
"""Grasps kept of each object."""
TRIED = (500, 1000, 2000, 4000, 8000)
"""Surface points tried on each object."""
_COLUMNS = ("mean_mm", "off_mean_mm", "off_median_mm", "off_p95_mm")
VIEW_M = 0.15
"""Poses are this far from an object's centre, along x and y, at most."""


@dataclass(frozen=True)
class LabelsOptions:
    """Measure how labels converge as more grasps are sampled.

    Example: python -m sim.convergence --scenes 40
    """

    scenes: int = 30
    """Scenes."""
    split: Literal["train", "test"] = "train"
    """Split of the objects."""
    dense: int = 16000
    """Surface points tried on each object for the set that the others are measured by."""
    poses: int = 400
    """Poses labelled in each scene."""
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file."""
    seed: int = 0
    """Seed of scenes, grasps and poses."""
    workers: int = 0
    """Processes. 0: one for each core."""
    out: Path | None = None
    """Folder for convergence.json and convergence.png. Default: runs/convergence/<time>/."""


def first_of_each(grasps: Grasps, count: int) -> NDArray[np.intp]:
    """Indices of the first `count` grasps of each object, in the order found."""
    rank = np.zeros(len(grasps), int)
    for k in np.unique(grasps.object):
        own = grasps.object == k
        rank[own] = np.arange(own.sum())
    return np.flatnonzero(rank < count)


def nearest_m(poses: Array, grasps: Array) -> Array:
    """Distance (P,) [m] from planar poses (P, 3) of x, y, yaw to the nearest grasp (G, 5); inf for none."""
    if not len(grasps):
        return np.full(len(poses), np.inf)
    planar = grasps[:, [0, 1, 3]].astype(np.float64)
    return np.array([grasp_distance(pose, planar).min() for pose in poses])


def measure(config: LabelsOptions, number: int) -> dict[str, Any]:
    """One scene: labels of its poses by number of grasps, and which objects have any by points tried."""
    hand, key = load_hand(config.hand), (config.seed, number)
    scene = make_scene(object_set(config.split), np.random.default_rng((*key, 0)))
    never = 10**9

    def draw_grasps(stream: int, samples: int, enough: int) -> Grasps:
        rng = np.random.default_rng((*key, stream))
        return true_grasps(scene, rng, hand, samples=samples, enough=enough)

    dense = draw_grasps(1, config.dense, never)
    one = draw_grasps(2, config.dense, never)
    shipped = draw_grasps(2, SAMPLES, ENOUGH)
    poses = random_poses(scene, config.poses, np.random.default_rng((*key, 3)))
    true = nearest_m(poses, dense.poses)
    graspable = np.unique(dense.object)
    return {
        "names": [scene.placed[k].name for k in graspable],
        "true": true,
        "labels": {m: nearest_m(poses, one.poses[first_of_each(one, m)]) for m in COUNTS},
        "again": nearest_m(poses, one.poses),
        "shipped": nearest_m(poses, shipped.poses),
        "shipped_has": np.isin(graspable, shipped.object),
        "has": {
            s: np.isin(graspable, draw_grasps(2, s, 1).object) for s in TRIED if s <= config.dense
        },
        "dense": len(dense),
        "kept": len(shipped),
    }


def random_poses(scene: Scene, count: int, rng: np.random.Generator) -> Array:
    """Planar poses (count, 3) of x, y [m], yaw [rad] around a random object each."""
    centres = np.array([p.T_world_object[:2, 3] for p in scene.placed])
    xy = centres[rng.integers(len(centres), size=count)] + rng.uniform(-VIEW_M, VIEW_M, (count, 2))
    return np.column_stack([xy, rng.uniform(-np.pi / 2, np.pi / 2, count)])


def summary(scenes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over all scenes in which the dense set has a grasp: as in convergence.json."""
    some = [s for s in scenes if s["dense"]]
    true = np.concatenate([s["true"] for s in some])

    def row(labels: Array) -> dict[str, float | None]:
        found = np.isfinite(
            labels
        )  # a scene without any grasp has no labels: make_shard redraws it
        away = np.abs(labels[found] - true[found])
        return {
            "mean_mm": 1e3 * float(labels[found].mean()),
            "off_mean_mm": 1e3 * float(away.mean()),
            "off_median_mm": 1e3 * float(np.median(away)),
            "off_p95_mm": 1e3 * float(np.quantile(away, 0.95)),
        }

    graspable = sum(len(s["names"]) for s in some)
    lost = sorted(
        n for s in some for n, has in zip(s["names"], s["shipped_has"], strict=True) if not has
    )
    return {
        "scenes": len(some),
        "without_any_grasp": len(scenes) - len(some),
        "dense_mean_mm": 1e3 * float(true.mean()),
        "dense_grasps": float(np.mean([s["dense"] for s in some])),
        "by_grasps_per_object": {
            m: row(np.concatenate([s["labels"][m] for s in some])) for m in COUNTS
        },
        "another_dense_set": row(np.concatenate([s["again"] for s in some])),
        "shipped": row(np.concatenate([s["shipped"] for s in some]))
        | {
            "samples": SAMPLES,
            "enough": ENOUGH,
            "grasps": float(np.mean([s["kept"] for s in some])),
            "objects_covered": 1 - len(lost) / graspable,
            "objects_without": lost,
        },
        "objects": graspable,
        "covered_by_points_tried": {
            s: float(np.concatenate([scene["has"][s] for scene in some]).mean())
            for s in some[0]["has"]
        },
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Error of the labels by grasps per object, coverage by points tried."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    rows = found["by_grasps_per_object"]
    for key, label, colour in (
        ("off_mean_mm", "mean", "#2667c9"),
        ("off_median_mm", "median", "#2a9d8f"),
    ):
        left.axhline(found["another_dense_set"][key], color=colour, lw=1, ls=":")
        left.plot(list(rows), [r[key] for r in rows.values()], "o-", color=colour, label=label)
    left.axvline(found["shipped"]["enough"], color="#d1495b", lw=1)
    left.text(found["shipped"]["enough"], left.get_ylim()[1], " kept", color="#d1495b", va="top")
    left.set(xscale="log", xlabel="grasps of each object", ylabel="mm from the dense set's labels")
    left.set_ylim(bottom=0)
    left.set_title("labels converge", loc="left", fontsize=11)
    left.legend(frameon=False)
    share = found["covered_by_points_tried"]
    right.plot(list(share), list(share.values()), "o-", color="#2667c9")
    right.axvline(found["shipped"]["samples"], color="#d1495b", lw=1)
    right.set(xscale="log", xlabel="surface points tried on each object")
    right.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    right.set_title("graspable objects with a grasp", loc="left", fontsize=11)
    for axes, ticks in ((left, list(rows)), (right, list(share))):
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.grid(color="#e3e6ea")
        axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path, dpi=110)


def run(config: LabelsOptions) -> dict[str, Any]:
    """Measure every scene; raises SceneError on a number out of range, and what scenes raise."""
    for name, value, least in (
        ("scenes", config.scenes, 1),
        ("poses", config.poses, 1),
        ("dense", config.dense, SAMPLES),
    ):
        if value < least:
            raise SceneError(f"--{name} {value} must be at least {least}")
    load_hand(config.hand)
    work, numbers = partial(measure, config), range(config.scenes)
    scenes = list(spread(work, numbers, config.workers, unit="scene", title="labels"))
    if not any(s["dense"] for s in scenes):
        raise SceneError("none of the scenes has any grasp for this hand; try more scenes")
    return summary(scenes)


@command(
    "sim.convergence",
    LabelsOptions,
    mistakes=(SceneError, ObjectError, HandError),
    failures=(PoolError,),
)
def main(config: LabelsOptions) -> int:
    found = run(config)
    folder = output_folder("convergence", config.out)
    content = {"command": "sim.convergence", "config": asdict(config), **found}
    write_json(folder / "convergence.json", content)
    draw(found, folder / "convergence.png")
    table = Table(
        "grasps of each object",
        "mean label",
        "off by, mean",
        "median",
        "95 %",
        title=f"labels against a dense set of {found['dense_grasps']:.0f} grasps a scene "
        f"(mean {found['dense_mean_mm']:.2f} mm)",
    )
    kept = found["shipped"]
    rows = {str(m): r for m, r in found["by_grasps_per_object"].items()}
    rows["another dense set"] = found["another_dense_set"]
    rows[f"as kept ({kept['enough']} from {kept['samples']} points)"] = kept
    for name, r in rows.items():
        table.add_row(name, *(f"{r[k]:.2f} mm" for k in _COLUMNS))
    cover = Table("points tried on each object", "graspable objects with a grasp")
    for tried, share in found["covered_by_points_tried"].items():
        cover.add_row(str(tried), f"{share:.1%} of {found['objects']}")
    console = screen()
    console.print(table, cover)
    if kept["objects_without"]:
        print(f"graspable, but without a grasp as kept: {', '.join(kept['objects_without'])}")
    print(f"{folder}/convergence.json, convergence.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
