"""`python -m sim.trials sweep --over latency`: one disturbance at several strengths.

The closed loop and the one-shot baselines, success and median distance with intervals, in one picture
and one JSON. Killed and started again with the same --out it goes on after the last strength done.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.table import Table

from rt.tools.command import command, screen
from rt.tools.files import output_folder, plain, write_figure, write_json
from rt.tools.pool import PoolError
from sim.experiment.disturbance import Disturbance
from sim.experiment.run import ERRORS, TrialsOptions, check, run
from sim.experiment.scenarios import scenario_names
from sim.experiment.statistics import summary
from sim.experiment.trial import BASELINES, TrialSetup
from sim.scene.meshes import PLAIN
from sim.scene.scene import MAX_HEIGHT_M
from sim.scene.sensor import USUAL

Over = Literal[
    "noise",
    "correlated",
    "depth_noise",
    "dropout",
    "hand_eye",
    "hand_eye_deg",
    "latency",
    "jump",
    "conveyor",
    "sensor",
]
STRENGTHS: dict[str, tuple[float | str, ...]] = {
    "noise": (0.0, 0.1, 0.2, 0.4, 0.6, 0.8),
    "correlated": (0.0, 0.05, 0.10, 0.15),
    "depth_noise": (0.0, 0.001, 0.002, 0.004, 0.008),
    "dropout": (0.0, 0.02, 0.05, 0.1, 0.2),
    "hand_eye": (0.0, 0.005, 0.010, 0.020, 0.030),
    "hand_eye_deg": (0.0, 1.0, 2.0, 4.0, 8.0),
    "latency": (0, 1, 2, 4, 8, 12),
    "jump": (0.0, 0.02, 0.04, 0.08),
    "conveyor": (0.0, 0.02, 0.04, 0.10, 0.25),
    "sensor": USUAL,
}
UNITS = {
    "noise": "kinematic noise, of the displacement",
    "correlated": "cross-correlation of the velocities",
    "depth_noise": "depth noise [m]",
    "dropout": "share of pixels without a return",
    "hand_eye": "hand-eye error [m]",
    "hand_eye_deg": "hand-eye error [deg]",
    "latency": "age of the frame [iterations]",
    "jump": "jump of the objects [m]",
    "conveyor": "speed of the objects [m/s]",
    "sensor": "depth camera",
}

_LATER = {
    "experiment": "figure5",
    "label": "paper",
    "baselines": BASELINES,
    "bin": False,
    "target": False,
    "max_height": MAX_HEIGHT_M,
}
"""Options that came later, each with the value that changes nothing."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig(TrialsOptions):
    """Vary one disturbance: sweep.json and sweep.png in --out.

    Example: python -m sim.trials sweep --over latency
    """

    over: Over
    """Disturbance that is varied."""
    values: tuple[float, ...] = ()
    """Strengths of the disturbance. Default: several from none to large; of sensors always all."""
    trials: int = 100
    """Trials at each strength; the same scenes for all."""
    disturbance: Annotated[Disturbance, tyro.conf.arg(name="")] = field(
        default_factory=lambda: Disturbance(noise=0.0)
    )
    """Other disturbances, at a constant strength."""
    lift: bool = True
    """Success is a lifted object; without it, an end within 2 cm of a true grasp."""
    out: Path | None = None
    """Folder for the results, and to resume from. Default: runs/sweep/<over>/."""

    def strengths(self) -> tuple[float | str, ...]:
        if self.over == "sensor" and self.values:
            raise ValueError(f"--over sensor takes no --values; it runs {', '.join(USUAL)}")
        values = tuple(dict.fromkeys(self.values or STRENGTHS[self.over]))
        if self.over == "latency" and any(v != int(v) for v in values):
            raise ValueError(f"latency is in whole iterations, not {values}")
        return values

    def at(self, value: float | str) -> tuple[TrialsOptions, TrialSetup]:
        """The trials at one strength, or with one sensor."""
        change: dict[str, Any] = {"sensor": value}
        if self.over != "sensor":
            strength = int(value) if self.over == "latency" else float(value)
            one: dict[str, Any] = {self.over: strength}
            change = {"disturbance": replace(self.disturbance, **one)}
        config = replace(self, **change)
        noisy = config.disturbance.noise > 0 and config.experiment == "figure5"
        return config, replace(config.setup(), noisy=(noisy,))


def sweep(config: SweepConfig, folder: Path) -> dict[str, Any]:
    """Run what is missing in the folder; returns sweep.json. Raises ValueError if it holds another sweep."""
    strengths = config.strengths()
    plans = [config.at(value) for value in strengths]  # refuses bad values before anything runs
    model = check(plans[0][0])
    asked = plain(asdict(config))
    for name in ("values", "out", "workers"):
        del asked[name]  # they do not change a point
    for name, plain_value in (("mesh", PLAIN), *_LATER.items()):
        if getattr(config, name) == plain_value:
            del asked[name]  # sweeps begun before this option go on
    path = folder / "sweep.json"
    report: dict[str, Any] = {
        "command": "sim.trials sweep",
        "config": asked,
        "model": model,
        "points": [],
    }
    if path.exists():
        there = json.loads(path.read_text())
        differ = [k for k in asked if there.get("config", {}).get(k) != asked[k]]
        if there.get("model", {}).get("weights_sha256") != model["weights_sha256"]:
            differ.append("the model's weights")
        if differ:
            raise ValueError(
                f"{path} is of another sweep (they differ in {', '.join(differ)}); give another --out"
            )
        report["points"] = there["points"]
    for value, (one, setup) in zip(strengths, plans, strict=True):
        if value in [point["value"] for point in report["points"]]:
            continue
        trials = run(
            setup, one.trials, one.model, one.backend, one.workers, f"{config.over} {value}"
        )
        scenarios = {n.removesuffix("_noise"): summary(trials, n) for n in scenario_names(setup)}
        report["points"].append({"value": value, "scenarios": scenarios})
        if config.over != "sensor":
            report["points"].sort(key=lambda point: point["value"])
        write_json(path, report)
    return report


def draw(report: dict[str, Any], path: Path) -> None:
    """Success and median distance against the strength, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from sim.experiment.pictures import COLOURS, GREEN, RED

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    points = report["points"]
    over = report["config"]["over"]
    x = [point["value"] for point in points]
    lifts = "lifted" in points[0]["scenarios"]["CTR"]
    share, bounds = ("lifted", "lifted_ci95") if lifts else ("under_2cm", "under_2cm_ci95")
    colours = {**COLOURS, "MAP": "#8b5cf6", "TRUE": GREEN}
    names = [name for name in points[0]["scenarios"] if name != "INIT"]
    for name in names:
        rows = [point["scenarios"][name] for point in points]
        colour = colours.get(name, RED)
        for axes, key, interval, scale in (
            (left, share, bounds, 100),
            (right, "median_m", "ci95_m", 1e3),
        ):
            y = [scale * row[key] for row in rows]
            low, high = ([scale * row[interval][i] for row in rows] for i in (0, 1))
            if over == "sensor":  # kinds have no order: side by side, not a curve
                place = np.arange(len(x)) + 0.12 * (names.index(name) - (len(names) - 1) / 2)
                off = [np.subtract(y, low), np.subtract(high, y)]
                axes.errorbar(place, y, off, fmt="o", capsize=3, color=colour, label=name)
                axes.set_xticks(np.arange(len(x)), x)
            else:
                axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
                axes.plot(x, y, "o-", color=colour, label=name)
    title = "lifted [%]" if lifts else "ends within 2 cm of a true grasp [%]"
    for axes, text in ((left, title), (right, "median distance to a true grasp [mm]")):
        axes.set_title(text, loc="left")
        axes.set_xlabel(UNITS[over])
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#e3e6ea")
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 102)
    left.legend(frameon=False)
    write_figure(figure, path, dpi=110)


def table(report: dict[str, Any]) -> Table:
    """Success with its interval and the median in mm, one row for each strength."""
    names = [name for name in report["points"][0]["scenarios"] if name != "INIT"]
    over = report["config"]["over"]
    lifts = "lifted" in report["points"][0]["scenarios"][names[0]]
    share, bounds = ("lifted", "lifted_ci95") if lifts else ("under_2cm", "under_2cm_ci95")
    success = "lifted" if lifts else "within 2 cm"
    result = Table(over, *names, title=f"{UNITS[over]}: {success} [95 %], median")
    for point in report["points"]:
        cells = []
        for name in names:
            s = point["scenarios"][name]
            low, high = s[bounds]
            cells.append(f"{s[share]:.0%} [{low:.0%}, {high:.0%}], {1e3 * s['median_m']:.1f} mm")
        result.add_row(str(point["value"]), *cells)
    return result


@command(
    "sim.trials sweep",
    SweepConfig,
    mistakes=ERRORS,
    failures=(PoolError,),
    interrupted="the same command goes on from here",
)
def main(config: SweepConfig) -> int:
    folder = output_folder("sweep", config.out or Path("runs/sweep") / config.over)
    report = sweep(config, folder)
    draw(report, folder / "sweep.png")
    screen(140).print(table(report))
    print(f"{folder}/: sweep.json, sweep.png")
    return 0
