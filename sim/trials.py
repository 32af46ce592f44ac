"""The paper's experiment: `python -m sim.trials --noise 0.4` (Figure 5 of Viereck et al. 2017, and more).

The gain of closing the loop, by object and by disturbance. In every trial each way of grasping has an end:
the hand closes and lifts there in MuJoCo, and it is at some distance from the nearest grasp:

INIT   no motion
CTR    the closed loop; CTR_<name> another controller
GPD    grasp pose detection, one blind move to its best (sim/gpd/detector.py)
MAP    the same network used once: the best of a dense map at the first view
TRUE   the true grasp nearest to the start: what a perfect detector without feedback would reach

*_noise: with kinematic noise. `--experiment single`, `clutter` and `moved` are those of the paper's robot and
of its successors (sim/experiment/clearing.py), without that noise; `--bin` puts walls around the objects.
`python -m sim.trials sweep --over latency` varies one disturbance;
`python -m sim.trials camera` displaces the camera and counts how often the guard tells.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.pool import PoolError
from sim.experiment import displaced, sweep
from sim.experiment.run import ERRORS, TrialsOptions, check, run
from sim.experiment.scenarios import scenario_names
from sim.experiment.statistics import by_category, by_clutter, compare, summary
from sim.experiment.tables import tables


def results(
    config: TrialsOptions, model: dict[str, Any], trials: list[dict[str, Any]]
) -> dict[str, Any]:
    """trials.json but for the time taken: the same for the same seed."""
    setup = config.setup()
    names = scenario_names(setup)
    pairs = [("CTR_noise", "CTR"), ("GPD", "CTR"), ("GPD_noise", "CTR_noise"), ("GPD_noise", "GPD")]
    pairs += [
        ("MAP", "CTR"),
        ("MAP_noise", "CTR_noise"),
        ("TRUE", "CTR"),
        ("TRUE_noise", "CTR_noise"),
    ]
    for other in setup.controllers[1:]:
        pairs += [(f"CTR_{other}", "CTR"), (f"CTR_{other}_noise", "CTR_noise")]
        pairs += [("GPD", f"CTR_{other}"), ("GPD_noise", f"CTR_{other}_noise")]
    pairs = [(a, b) for a, b in pairs if a in names and b in names]
    groups: dict[str, Any] = {}
    if not setup.clearing:
        groups = {
            "categories": by_category(trials, names),
            "clutter": by_clutter(trials, names),
        }
    return {
        "command": "sim.trials",
        "label": setup.label,
        "scenarios": {name: summary(trials, name, config.seed) for name in names},
        "pairs": [compare(trials, a, b, config.seed) for a, b in pairs],
        **groups,
        "model": model,
        "config": asdict(config),
        "trials": trials,
    }


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
    from sim.experiment.pictures import draw_trials, draw_worst

    draw_trials(report, folder / "trials.png")
    written = "trials.json, trials.png"
    if not config.setup().clearing:
        draw_worst(report, config.setup(), folder / "worst.png")
        written += ", worst.png"
    console = screen(160)
    for table in tables(report):
        console.print(table)
    print(f"{config.trials} trials in {took:.0f} s; {folder}/: {written}")
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
