"""Lift true grasps of numbered scenes: `python -m sim.lifts --scenes 20 --grasps 5`.

The share of geometrically good grasps that hold when the hand closes and lifts in MuJoCo, by category with
95 % intervals. `lift_grasps` is the Python function.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table

from rt.hand import Hand, HandError, TipTravel, load_hand, load_tip_travel
from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_figure, write_json
from rt.tools.pool import PoolError, spread
from sim.experiment.statistics import wilson
from sim.physics.approach import approach_height
from sim.physics.convex import PhysicsError
from sim.scene.graspable import require_graspable
from sim.scene.grasps import FRICTION, Grasps, numbered_scene
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import Catalogue, ObjectError, ObjectSet, object_set
from sim.scene.render import Renderer
from sim.scene.scene import Scene, SceneError


@dataclass(frozen=True)
class LiftsOptions:
    """Lift a sample of the true grasps of numbered scenes, and count those that hold.

    Example: python -m sim.lifts --scenes 20 --split test
    """

    scenes: int = 20
    """Number of scenes."""
    first: int = 0
    """Number of the first of them."""
    split: Literal["train", "test"] = "test"
    """Split of the objects."""
    grasps: int = 5
    """Grasps lifted on each object that has any (all of them if there are fewer)."""
    height: Literal["label", "approach"] = "label"
    """Fingertip height: the label's own, or the one that the final approach finds for its x, y, yaw."""
    tips: Literal["level", "travel"] = "level"
    """Fingertips: `level` close in a plane, as the labels have it; `travel` move along z as the hand's file
    says, and the open hand comes down to where they hold at the label's height."""
    friction: float = FRICTION
    """Coulomb friction coefficient of the pads in the lifts; labels are made for 0.5."""
    force: float = 40.0
    """Grip force of each finger [N]."""
    time_step: float = 2.0
    """Time step of the simulation [ms]."""
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file."""
    seed: int = 0
    """Seed of the set that the scenes belong to, and of the sample."""
    workers: int = 0
    """Processes. 0: one for each core."""
    catalogue: Catalogue = "household"
    """Objects: the household catalogue, the wide one of twenty categories, or both."""
    meshes: Path | None = None
    """Folder of your own meshes to add."""
    only_meshes: bool = False
    """Use the meshes alone."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = PLAIN
    out: Path | None = None
    """Folder for lifts.json and lifts.png. Default: runs/lifts/<time>/."""


@dataclass(frozen=True)
class LiftRecord:
    """One grasp that was lifted."""

    scene: int
    object: str
    category: str
    pose: tuple[float, float, float, float, float]
    """Fingertip x, y, z [m], yaw [rad], width held [m]."""
    success: bool
    reason: str
    height_m: float
    wall_s: float


def lift_grasps(
    scene: Scene,
    grasps: Grasps,
    rng: np.random.Generator,
    k: int,
    hand: Hand | None = None,
    *,
    number: int = 0,
    at_approach_height: bool = False,
    tips: TipTravel | None = None,
    **options: Any,
) -> list[LiftRecord]:
    """Lift k grasps of each object of a scene, drawn without repetition; all if there are fewer.

    options go to sim.physics.lift. A grasp holds only if the object lifted is its own.
    """
    from sim.physics.lift import lift

    hand, renderer = hand or load_hand(), Renderer(scene)
    records = []
    for thing, placed in enumerate(scene.placed):
        own = np.flatnonzero(grasps.object == thing)
        for index in rng.choice(own, min(k, len(own)), replace=False):
            x, y, z, yaw, width = (float(v) for v in grasps.poses[index])
            if at_approach_height:
                z = approach_height(scene, renderer, x, y, yaw, hand)
            begun = time.perf_counter()
            done = lift(scene, (x, y, z, yaw), hand, tips=tips, width_m=width, **options)
            other = done.success and done.object != thing
            records.append(
                LiftRecord(
                    scene=number,
                    object=placed.name,
                    category=placed.category,
                    pose=(x, y, z, yaw, width),
                    success=done.success and not other,
                    reason="another object" if other else done.reason,
                    height_m=done.height_m,
                    wall_s=time.perf_counter() - begun,
                )
            )
    return records


def rates(records: list[LiftRecord]) -> dict[str, dict[str, Any]]:
    """Success per category and over "all": n, held, rate, ci95, and how many failed for which reason."""
    result = {}
    for name in [*sorted({r.category for r in records}), "all"]:
        some = [r for r in records if name in ("all", r.category)]
        held = sum(r.success for r in some)
        result[name] = {
            "n": len(some),
            "held": held,
            "rate": held / len(some) if some else None,
            "ci95": wilson(held, len(some)),
            "failed": dict(Counter(r.reason for r in some if not r.success).most_common()),
        }
    return result


def _scene_lifts(config: LiftsOptions, objects: ObjectSet, number: int) -> list[LiftRecord]:
    """The records of one numbered scene; depends on the arguments alone."""
    hand = load_hand(config.hand)
    scene, grasps, _ = numbered_scene(objects, config.seed, config.split, number, hand)
    rng = np.random.default_rng((config.seed, number))
    return lift_grasps(
        scene,
        grasps,
        rng,
        config.grasps,
        hand,
        number=number,
        at_approach_height=config.height == "approach",
        tips=load_tip_travel(config.hand) if config.tips == "travel" else None,
        friction=config.friction,
        force_N=config.force,
        time_step_s=config.time_step * 1e-3,
    )


def run(config: LiftsOptions) -> list[LiftRecord]:
    """All records, in the order of the scenes. Raises PhysicsError and what scenes raise."""
    try:
        import sim.physics.lift  # noqa: F401
    except ImportError as error:
        raise PhysicsError(str(error)) from error
    for name, value, least in (("scenes", config.scenes, 1), ("grasps", config.grasps, 1)):
        if value < least:
            raise PhysicsError(f"--{name} {value} must be at least {least}")
    objects = object_set(
        config.split, config.meshes, config.only_meshes, config.mesh, config.catalogue
    )
    objects.say_skipped()
    hand = load_hand(config.hand)
    if config.only_meshes:
        require_graspable(objects, config.split, hand)
    numbers = range(config.first, config.first + config.scenes)
    work = partial(_scene_lifts, config, objects)
    lifted = spread(work, numbers, config.workers, unit="scene", title="lifts")
    return [record for some in lifted for record in some]


def rate_table(found: dict[str, dict[str, Any]]) -> Table:
    """The result of `rates` as a table."""
    table = Table(title="grasps that held when lifted")
    for name in ("category", "lifts", "held", "95 % interval", "failed"):
        table.add_column(name, justify="left" if name in ("category", "failed") else "right")
    for name, r in found.items():
        if name == "all":
            table.add_section()
        low, high = r["ci95"]
        failed = ", ".join(f"{n} {reason}" for reason, n in r["failed"].items())
        rate = "-" if r["rate"] is None else f"{r['rate']:.1%}"
        table.add_row(name, str(r["n"]), rate, f"{low:.1%} to {high:.1%}", failed)
    return table


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Success of each category, and of all, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in reversed(found) if found[name]["n"]]
    figure, axes = plt.subplots(figsize=(7, 1 + 0.36 * len(names)), layout="constrained")
    for row, name in enumerate(names):
        (low, high), rate = found[name]["ci95"], found[name]["rate"]
        colour = "#22262b" if name == "all" else "#2667c9"
        axes.plot([low, high], [row, row], color=colour, lw=2.4, alpha=0.5, solid_capstyle="butt")
        axes.plot(rate, row, "o", color=colour, ms=6, clip_on=False)
    labels = [f"{name} ({found[name]['n']})" for name in names]
    axes.set(xlim=(0, 1.0), ylim=(-0.6, len(names) - 0.4), yticks=range(len(names)))
    axes.set_yticklabels(labels)
    axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axes.set_title(
        "true grasps held when lifted (lifts), with 95 % intervals", loc="left", fontsize=11
    )
    axes.grid(axis="x", color="#e3e6ea")
    axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path, dpi=110)


def _write(config: LiftsOptions, found: dict[str, Any], records: list[LiftRecord]) -> Path:
    folder = output_folder("lifts", config.out)
    content = {
        "command": "sim.lifts",
        "config": asdict(config),
        "categories": found,
        "lifts": [asdict(r) for r in records],
    }
    write_json(folder / "lifts.json", content)
    draw(found, folder / "lifts.png")
    return folder


@command(
    "sim.lifts",
    LiftsOptions,
    mistakes=(PhysicsError, ObjectError, SceneError, HandError),
    failures=(PoolError,),
)
def main(config: LiftsOptions) -> int:
    begun = time.monotonic()
    records = run(config)
    found = rates(records)
    folder = _write(config, found, records)
    screen().print(rate_table(found))
    walls: NDArray[np.float64] = np.array([r.wall_s for r in records])
    median = f", {np.median(walls):.2f} s the median lift" if len(walls) else ""
    print(
        f"{len(records)} lifts in {time.monotonic() - begun:.0f} s{median}: {folder}/lifts.json, lifts.png"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
