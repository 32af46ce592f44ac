"""Tables cleared in simulation: `python -m bench.clear` lays tables of catalogue objects and runs the job.

Each table is the simulated one with physics (sim.table) at the speeds of a UR, and `rt.job` as it runs on an
arm; simulated time counts. Figures: the share of objects that came into the bin, of those that were lost on
the way or pushed out of the area, and objects an hour; beside them the bars, and if they were met.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from rt.distance import open_model
from rt.gripper import GripperError
from rt.guard.rows import Stop
from rt.job.job import Job
from rt.job.options import ClearOptions
from rt.job.report import report_of
from rt.robot import RobotError
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.pool import PoolError, spread
from sim.experiment.statistics import wilson
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.scene import SceneError
from sim.table import ARM, PLACE, open_cell

CLEARED_BAR, CLEARED_AIM = 0.95, 0.98
PICKS_BAR, PICKS_AIM = 300.0, 600.0


@dataclass(frozen=True)
class TablesOptions:
    """Clear tables of test objects in simulation.

    Example: python -m bench.clear --tables 20
    """

    tables: int = 20
    """Number of tables."""
    first: int = 0
    """Number of the first."""
    objects: int = 10
    """Objects on each."""
    meshes: Path | None = None
    """Folder of your own meshes in place of the test objects (bench.meshes downloads some)."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = PLAIN
    sensor: str = "ideal"
    """Depth noise of the camera on the wrist (sim.scene.sensor)."""
    controller: str = "ensemble"
    """See rt.servo."""
    candidates: int = 256
    """Candidates of each cycle."""
    model: Path | None = None
    """Network; None: the shipped one."""
    seed: int = 0
    """Seed of scenes and runs."""
    workers: int = 1
    """Processes. 0: one for each core."""
    out: Path | None = None
    """Folder for clear_tables.json. Default: runs/clear_tables/<time>/."""


@dataclass(frozen=True)
class ClearedTable:
    """One table after its job."""

    scene: int
    objects: int
    binned: int
    """Objects that came into the bin."""
    wrong: int
    """Wrong drops: objects that were held, lost, and lie outside the area that is to be cleared."""
    pushed: int
    """Other objects that lie outside that area."""
    left: list[str]
    """Names of the objects that are not in the bin."""
    outcome: str
    reason: str
    seconds: float
    """Simulated, from the first look to the end of the last one."""
    picks: dict[str, int]
    """Attempts by outcome."""
    reasons: dict[str, int]
    """Reasons of the attempts in vain."""


def clear_table(config: TablesOptions, scene: int) -> ClearedTable:
    """Lay table number `scene` and clear it. Raises SceneError and PhysicsError."""
    cell = open_cell(
        seed=config.seed,
        scene=scene,
        objects=config.objects,
        sensor=config.sensor,
        meshes=config.meshes,
        mesh=config.mesh,
    )
    options = ClearOptions(
        fast=True,
        record="off",
        seed=config.seed,
        scene=scene,
        candidates=config.candidates,
        controller=config.controller,
    )
    distance = open_model(config.model)
    job = Job(cell, distance, options)
    with cell, job:
        lost: set[int] = set()
        robot: Any = cell.robot
        world = robot.world
        for step in job:
            if step.phase in ("carry", "lift") and world.holding:
                near = min(world.present(), key=lambda k: _away(world, k, step.hand), default=None)
                if near is not None and _away(world, near, step.hand) < 0.08:
                    lost.add(near)
    report = report_of(job)
    place = job.place
    half = np.array(place.look_m) / 2
    outside = [
        k for k in world.present() if (np.abs(world.place(k)[:2] - place.home[:2]) > half).any()
    ]
    vain = [a for a in report.state.attempts if a.outcome != "placed"]
    return ClearedTable(
        scene=scene,
        objects=len(world.placed),
        binned=len(world.binned),
        wrong=sum(k in lost for k in outside),
        pushed=sum(k not in lost for k in outside),
        left=[world.placed[k].name for k in world.present()],
        outcome=report.outcome.value,
        reason=report.reason,
        seconds=report.state.seconds,
        picks=dict(Counter(a.outcome or "cut off" for a in report.state.attempts)),
        reasons=dict(Counter(re.split("[:;,]", a.reason)[0] for a in vain)),
    )


def _away(world: Any, k: int, hand: np.ndarray) -> float:
    return float(np.linalg.norm(world.place(k) - hand[:3]))


def sums(tables: list[ClearedTable]) -> dict[str, Any]:
    """Figures over all tables: shares with 95 % intervals, objects an hour, bars."""
    objects, binned = sum(t.objects for t in tables), sum(t.binned for t in tables)
    picks: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for t in tables:
        picks.update(t.picks)
        reasons.update(t.reasons)
    an_hour = 3600 * binned / max(sum(t.seconds for t in tables), 1e-9)
    return {
        "tables": len(tables),
        "objects": objects,
        "cleared": binned / objects,
        "cleared_ci95": wilson(binned, objects),
        "wrong_drops": sum(t.wrong for t in tables),
        "pushed_out": sum(t.pushed for t in tables),
        "picks_per_hour": an_hour,
        "picks": dict(picks),
        "reasons": dict(reasons.most_common()),
        "stopped": sum(t.outcome == "stopped" for t in tables),
        "bars": {
            "cleared": _bar(binned / objects, CLEARED_BAR, CLEARED_AIM),
            "picks_per_hour": _bar(an_hour, PICKS_BAR, PICKS_AIM),
        },
    }


def _bar(value: float, bar: float, aim: float) -> str:
    """met, met (aim missed), or missed."""
    if value < bar:
        return f"missed: {value:.4g}, the bar is {bar:g}"
    return f"met (bar {bar:g}), aim {aim:g} " + ("met" if value >= aim else "missed")


def sums_table(found: dict[str, Any]) -> Table:
    """The figures of `sums` as a table."""
    result = Table(title=f"{found['tables']} tables cleared in simulation", title_style="bold")
    for name in ("figure", "value", "bar"):
        result.add_column(name, overflow="fold")
    low, high = found["cleared_ci95"]
    share = f"{found['cleared']:.1%} of {found['objects']} ({low:.1%} to {high:.1%})"
    result.add_row("cleared", share, found["bars"]["cleared"])
    result.add_row("wrong drops", str(found["wrong_drops"]), "")
    result.add_row("pushed out of the area", str(found["pushed_out"]), "")
    result.add_row(
        "objects an hour", f"{found['picks_per_hour']:.0f}", found["bars"]["picks_per_hour"]
    )
    result.add_row("picks", ", ".join(f"{n} {name}" for name, n in found["picks"].items()), "")
    for reason, n in list(found["reasons"].items())[:8]:
        result.add_row("", f"{n} {reason}", "")
    result.add_row("jobs stopped", str(found["stopped"]), "")
    return result


def _write(config: TablesOptions, done: list[ClearedTable], folder: Path) -> None:
    content = {
        "command": "bench.clear",
        "config": asdict(config),
        "arm": asdict(ARM),
        "place": asdict(PLACE),
        "sums": sums(done),
        "tables": [asdict(t) for t in done],
    }
    write_json(folder / "clear_tables.json", content)


@command(
    "bench.clear",
    TablesOptions,
    mistakes=(SceneError, ValueError),
    failures=(PoolError, Stop, RobotError, GripperError),
)
def main(config: TablesOptions) -> int:
    if config.tables < 1 or config.objects < 1:
        raise ValueError(f"--tables {config.tables}, --objects {config.objects}: give 1 or more")
    folder = output_folder("clear_tables", config.out)
    numbers = range(config.first, config.first + config.tables)
    done: list[ClearedTable] = []
    work = partial(clear_table, config)
    for one in spread(work, numbers, config.workers, unit="table", title="bench.clear"):
        done.append(one)  # a run that is cut off leaves what it has
        _write(config, done, folder)
    found = sums(done)
    screen().print(sums_table(found))
    print(f"{folder}/clear_tables.json")
    met = all(bar.startswith("met") for bar in found["bars"].values())
    return DONE if met else NOT_DONE


if __name__ == "__main__":
    raise SystemExit(main())
