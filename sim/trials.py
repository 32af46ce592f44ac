"""The paper's experiment: `python -m sim.trials --noise 0.4` (Figure 5 of Viereck et al. 2017, and more).

Does closing the loop pay, by how much, on which objects, under which disturbance? Every trial ends
each way of grasping at some distance from the nearest true grasp:

INIT   no motion
CTR    the closed loop; CTR_<name> another controller
GPD    grasp pose detection, one blind move to its best (sim/gpd/detector.py)
MAP    the same network used once: the best of a dense map at the first view
TRUE   the true grasp nearest to the start: what a perfect detector without feedback would reach

*_noise: with kinematic noise. `python -m sim.trials sweep --over latency` varies one disturbance.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from rt.controller import CONTROLLERS, ITERATIONS, RATIO
from rt.distance import Distance, DistanceError, open_model
from rt.hand import HandError, load_hand
from rt.pose import METRES_PER_DEGREE
from rt.tools.files import output_folder, write_json
from rt.tools.pool import PoolError, spread
from rt.view import VIEW
from sim.experiment.disturbance import Disturbance
from sim.experiment.statistics import by_category, by_clutter, compare, summary
from sim.experiment.trial import TrialSetup, objects_of, run_trial, scenario_names
from sim.gpd.detector import Detector, GpdError
from sim.scene.objects import ObjectError, ObjectSet
from sim.scene.scene import SceneError

_CHUNK = 4
ERRORS = (
    ObjectError,
    SceneError,
    DistanceError,
    HandError,
    GpdError,
    PoolError,
    ValueError,
    OSError,
)
"""What the user can cause."""


@dataclass(frozen=True)
class TrialsOptions:
    """Run the paper's experiment on test objects: a table, trials.json, trials.png and worst.png.

    Example: python -m sim.trials --noise 0.4
    """

    trials: int = 400
    """Scenes, each with one start."""
    disturbance: Annotated[Disturbance, tyro.conf.arg(name="")] = field(default_factory=Disturbance)
    controller: str = "paper"
    """Controller of CTR: a name of rt.controller."""
    against: tuple[str, ...] = ()
    """Other controllers, run beside it as CTR_<name>."""
    seed: int = 0
    """Of scenes, starts, candidates and noise."""
    category: str | None = None
    """Objects of this category only."""
    clutter: int | None = None
    """Exactly this many objects in a scene. Default: 1 to 5."""
    meshes: Path | None = None
    """Folder of your own meshes (obj, stl, ply, off, glb; metres) in place of the test objects."""
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file; the model must be made for it. (GPD tries its shape, but
    its network was trained with robotiq_2f85.)"""
    candidates: int = 256
    """Displacements weighed in one iteration."""
    iterations: int = ITERATIONS
    """From 0.30 m to 0.15 m."""
    ratio: float = RATIO
    """Fraction of the way to the goal in one iteration."""
    camera: Literal["ideal", "wrist"] = "ideal"
    """`ideal` is the network's own view; `wrist` sits beside the hand and is reprojected."""
    sensor: Literal["ideal", "d405", "d435", "sr300"] = "ideal"
    """What the camera makes of exact depth (sim.scene.sensor). A real one always sits beside the hand."""
    lift: bool = False
    """Also close and lift each grasp in MuJoCo."""
    model: str | None = None
    """Network: paper, field, or a file as train.export makes it. Default: the shipped one."""
    backend: str = "auto"
    """What computes the network: auto, native, onnx, reference."""
    workers: int = 0
    """Processes. 0: one for each core. The result does not depend on it."""
    out: Path | None = None
    """Folder for the results. Default: runs/trials/<time>/."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("trials", self.trials, 1, 1_000_000),
            ("clutter", self.clutter or 1, 1, 12),
            ("candidates", self.candidates, 2, 100_000),
            ("iterations", self.iterations, 1, 10_000),
            ("ratio", self.ratio, 1e-6, 1.0),
            ("seed", self.seed, 0, 2**63),
            ("workers", self.workers, 0, 1024),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")
        for controller in (self.controller, *self.against):
            if controller not in CONTROLLERS:
                known = ", ".join(CONTROLLERS)
                raise ValueError(f"no controller {controller!r}; known are {known}")

    def setup(self) -> TrialSetup:
        others = [name for name in dict.fromkeys(self.against) if name != self.controller]
        return TrialSetup(
            seed=self.seed,
            category=self.category,
            clutter=self.clutter,
            meshes=self.meshes,
            hand=self.hand,
            controllers=(self.controller, *others),
            candidates=self.candidates,
            iterations=self.iterations,
            ratio=self.ratio,
            camera=self.camera,
            sensor=self.sensor,
            disturbance=self.disturbance,
            lift=self.lift,
        )


_worker: tuple[ObjectSet, TrialSetup, Distance, Detector]


def _begin(setup: TrialSetup, model: str | None, backend: str) -> None:
    """Of a worker: open once what every trial needs. One thread each, the processes share the cores."""
    global _worker
    distance = open_model(model, backend, threads=1)
    _worker = objects_of(setup), setup, distance, Detector(hand=load_hand(setup.hand))


def _one(number: int) -> dict[str, Any]:
    return run_trial(*_worker, number)


def run(
    setup: TrialSetup,
    trials: int,
    model: str | None,
    backend: str,
    workers: int,
    title: str = "trials",
) -> list[dict[str, Any]]:
    """All trials, in order, with a progress bar. Raises PoolError if a worker dies."""
    return list(
        spread(
            _one,
            range(trials),
            workers,
            unit="trial",
            title=title,
            begin=_begin,
            arguments=(setup, model, backend),
            at_once=_CHUNK,
        )
    )


def check(config: TrialsOptions) -> dict[str, Any]:
    """Refuse what cannot run before any process starts; returns the model's record for the JSON."""
    objects = objects_of(config.setup())
    for name, reason in objects.skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    Detector()
    distance = open_model(config.model, config.backend)
    hand = load_hand(config.hand)
    distance.contract.require(hand=hand, view=VIEW, metres_per_degree=METRES_PER_DEGREE)
    if config.lift:
        _require_physics()
    return {
        "path": distance.path.name,
        "training_set": distance.contract.training_set,
        "weights_sha256": distance.contract.weights_sha256,
        "backend": distance.backend,
    }


def _require_physics() -> None:
    try:
        import coacd  # noqa: F401
        import mujoco  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--lift needs MuJoCo and CoACD ({error}): pip install 'grasp-servo[physics]'"
        ) from error


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


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["sweep"]:
        from sim.experiment.sweep import main as sweep

        return sweep(arguments[1:])
    try:
        config = tyro.cli(TrialsOptions, args=arguments, prog="python -m sim.trials")
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
    except ERRORS as error:
        print(f"sim.trials: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sim.trials: interrupted; nothing was written", file=sys.stderr)
        return 130
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in tables(report):
        console.print(table)
    print(f"{config.trials} trials in {took:.0f} s; {folder}/: trials.json, trials.png, worst.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
