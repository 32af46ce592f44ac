"""The paper's experiment: `python -m sim.trials --noise 0.4` (Figure 5 of Viereck et al. 2017, and more).

The gain of closing the loop, by object and by disturbance. In every trial each way of grasping ends at some
distance from the nearest true grasp:

INIT   no motion
CTR    the closed loop; CTR_<name> another controller
GPD    grasp pose detection, one blind move to its best (sim/gpd/detector.py)
MAP    the same network used once: the best of a dense map at the first view
TRUE   the true grasp nearest to the start: what a perfect detector without feedback would reach

*_noise: with kinematic noise. `python -m sim.trials sweep --over latency` varies one disturbance;
`python -m sim.trials camera` displaces the camera and counts how often the guard tells.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from rt.tools.command import command
from rt.tools.files import output_folder, write_json
from rt.tools.pool import PoolError
from sim.experiment import displaced, sweep
from sim.experiment.run import ERRORS, TrialsOptions, check, run
from sim.experiment.statistics import by_category, by_clutter, compare, summary
from sim.experiment.trial import scenario_names


def results(
    config: TrialsOptions, model: dict[str, Any], trials: list[dict[str, Any]]
) -> dict[str, Any]:
    """trials.json but for the time taken: the same for the same seed."""
    names = scenario_names(config.setup())
    pairs = [("CTR_noise", "CTR"), ("GPD", "CTR"), ("GPD_noise", "CTR_noise"), ("GPD_noise", "GPD")]
    pairs += [("MAP", "CTR"), ("MAP_noise", "CTR_noise"), ("TRUE_noise", "CTR_noise")]
    for other in config.setup().controllers[1:]:
        pairs += [(f"CTR_{other}", "CTR"), (f"CTR_{other}_noise", "CTR_noise")]
    return {
        "command": "sim.trials",
        "scenarios": {name: summary(trials, name, config.seed) for name in names},
        "pairs": [compare(trials, a, b, config.seed) for a, b in pairs],
        "categories": by_category(trials, names),
        "clutter": by_clutter(trials, names),
        "model": model,
        "config": asdict(config),
        "trials": trials,
    }


def tables(report: dict[str, Any]) -> list[Table]:
    """On screen: the scenarios, the paired differences, the categories."""
    lifts = "lifted" in report["scenarios"]["INIT"]
    main = Table(
        "scenario", title=f"distance to the nearest true grasp, n = {len(report['trials'])}"
    )
    for name in ("median [95 %]", "mean", "p90", "< 1 cm", "< 2 cm", *(["lifted"] * lifts)):
        main.add_column(name, justify="right", no_wrap=True)
    for name, s in report["scenarios"].items():
        low, high = s["ci95_m"]
        row = [
            f"{_mm(s['median_m'])} [{_mm(low)}, {_mm(high)}] mm",
            *(f"{_mm(s[key])} mm" for key in ("mean_m", "p90_m")),
            *(f"{s[key]:.0%}" for key in ("under_1cm", "under_2cm")),
        ]
        if lifts:
            row.append(_share(s["lifted"], s["lifted_ci95"]))
        main.add_row(name, *row)
    pairs = Table("paired", title="on the same trials")
    for name in ("difference [95 %]", "medians' ratio [95 %]", "nearer", *(["lifted"] * lifts)):
        pairs.add_column(name, justify="right", no_wrap=True)
    for p in report["pairs"]:
        (low, high), (rlow, rhigh) = p["difference_ci95_m"], p["ratio_ci95"]
        row = [
            f"{p['median_difference_m'] * 1e3:+.1f} [{low * 1e3:+.1f}, {high * 1e3:+.1f}] mm",
            f"{p['ratio_of_medians']:.2f} [{rlow:.2f}, {rhigh:.2f}]",
            f"{p['a_nearer']:.0%}",
        ]
        if lifts:
            low, high = p["lifted_difference_ci95"]
            row.append(f"{p['lifted_difference']:+.0%} [{low:+.0%}, {high:+.0%}]")
        pairs.add_row(f"{p['a']} - {p['b']}", *row)
    shown = [n for n in report["scenarios"] if n.startswith(("CTR", "GPD"))]
    groups = Table("objects", "n", *shown, title="median in mm" + (", lifted" if lifts else ""))
    for kind in ("categories", "clutter"):
        for name, group in report[kind].items():
            cells = [
                _mm(group[s]["median_m"]) + (f", {group[s]['lifted']:.0%}" if lifts else "")
                for s in shown
            ]
            label = f"{name} in the scene" if kind == "clutter" else name
            groups.add_row(label, str(group["n"]), *cells)
        groups.add_section()
    return [main, pairs, groups]


def _mm(metres: float) -> str:
    return f"{metres * 1e3:.1f}"


def _share(share: float, interval: list[float]) -> str:
    return f"{share:.0%} [{interval[0]:.0%}, {interval[1]:.0%}]"


def run_trials(config: TrialsOptions) -> dict[str, Any]:
    """Run trials on all cores; returns what trials.json holds: `scenarios` by name, with medians and
    intervals, `pairs`, and every trial. config.controller and config.model may be `module:attribute`.

    Raises ERRORS for options that cannot be served, before any process starts, and PoolError.
    """
    model = check(config)
    trials = run(config.setup(), config.trials, config.model, config.backend, config.workers)
    return results(config, model, trials)


@command("sim.trials", TrialsOptions, mistakes=ERRORS, failures=(PoolError,))
def one_set(config: TrialsOptions) -> int:
    model = check(config)
    folder = output_folder("trials", config.out)
    begun = time.monotonic()
    trials = run(config.setup(), config.trials, config.model, config.backend, config.workers)
    took = time.monotonic() - begun
    report = results(config, model, trials)
    write_json(folder / "trials.json", report)
    from sim.experiment.pictures import draw_histogram, draw_worst

    draw_histogram(report, folder / "trials.png")
    draw_worst(report, config.setup(), folder / "worst.png")
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in tables(report):
        console.print(table)
    print(f"{config.trials} trials in {took:.0f} s; {folder}/: trials.json, trials.png, worst.png")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments[:1]) == ["sweep"]:
        return sweep.main(arguments[1:])
    if list(arguments[:1]) == ["camera"]:
        return displaced.main(arguments[1:])
    return one_set(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
