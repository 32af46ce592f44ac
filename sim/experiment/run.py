"""Trials on all cores: their options, the checks before anything runs, and the run itself.

Used by sim.trials (one set of trials) and by its sweep (one set for each strength of a disturbance).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from rt.controller import CONTROLLERS, ITERATIONS, RATIO, open_controller
from rt.distance import DistanceError, open_model
from rt.hand import HandError, load_hand
from rt.pose import METRES_PER_DEGREE
from rt.tools.pool import spread
from rt.tools.resolve import resolve
from rt.view import VIEW
from sim.experiment.disturbance import Disturbance
from sim.experiment.scenarios import run_trial
from sim.experiment.trial import BASELINES, Baseline, Bench, Experiment, TrialSetup, objects_of
from sim.gpd.detector import Detector, GpdError
from sim.scene.graspable import require_graspable
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import Catalogue, ObjectError
from sim.scene.scene import MAX_HEIGHT_M, SceneError

_CHUNK = 4
ERRORS = (
    ObjectError,
    SceneError,
    DistanceError,
    HandError,
    GpdError,
    ValueError,
)
"""Errors that the user can mend."""


@dataclass(frozen=True)
class TrialsOptions:
    """Run an experiment on test objects: a table of lifts and distances, trials.json and trials.png.

    Example: python -m sim.trials --experiment clutter --trials 40
    """

    experiment: Experiment = "figure5"
    """figure5: the paper's, one grasp a scene, with and without kinematic noise. single: one object. clutter:
    ten objects in a circle of 30 cm, picked until none is left or two picks in a row miss. moved: the same,
    pushed by 2 to 8 cm during every approach. The last three are without kinematic noise."""
    trials: int = 400
    """Scenes; one grasp in each, or as many picks as it takes to clear it."""
    disturbance: Annotated[Disturbance, tyro.conf.arg(name="")] = field(default_factory=Disturbance)
    controller: str = "ensemble"
    """Controller of CTR: a name of rt.controller, or module:attribute of a class of your own."""
    against: tuple[str, ...] = ()
    """Other controllers, run beside it as CTR_<name>."""
    seed: int = 0
    """Seed of scenes, starts, candidates and noise."""
    category: str | None = None
    """Objects of this category only."""
    clutter: int | None = None
    """Exactly this many objects in a scene. Default: 1 to 5; in clutter and moved 10."""
    catalogue: Catalogue = "household"
    """Test objects: the household catalogue's, those of the wide one of twenty categories, or both."""
    meshes: Path | None = None
    """Folder of your own meshes (obj, stl, ply, off, glb; metres) in place of the test objects."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = PLAIN
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
    """Model of the depth camera (sim.scene.sensor). Any but the ideal one sits beside the hand."""
    lift: bool = True
    """Close and lift at every end, in MuJoCo. Without it figure5 and single report distances alone."""
    label: Literal["paper", "lifted"] = "lifted"
    """Grasps that distances are measured to: the geometric true grasps, as in the paper, or grasps that lift
    in MuJoCo. Without lifts always the paper's."""
    baselines: tuple[Baseline, ...] = BASELINES
    """Baselines beside the controllers: one-shot detector, network used once, nearest true grasp."""
    bin: bool = False
    """Put a bin around the objects, with walls of 5 to 15 cm."""
    pile: bool = False
    """Pour the objects into such a bin, where they lie on each other (extra `physics`)."""
    target: bool = False
    """In clutter and moved: only one object, drawn for each pick, is wanted; lifts of another are counted."""
    max_height: float = MAX_HEIGHT_M
    """Objects rest lower than this [m]; up to 0.25."""
    model: str | None = None
    """Network: paper, field, an ONNX file with the contract (train.export), or module:attribute of a function
    that returns one. Default: the shipped one."""
    backend: str = "auto"
    """Backend that computes the network: auto, native, onnx, reference, or module:attribute."""
    workers: int = 0
    """Processes. 0: one for each core. The result does not depend on it."""
    out: Path | None = None
    """Folder for the results. Default: runs/trials/<time>/."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("trials", self.trials, 1, 1_000_000),
            ("clutter", self.clutter or 1, 1, 20 if self.pile else 12),
            ("candidates", self.candidates, 2, 100_000),
            ("iterations", self.iterations, 1, 10_000),
            ("ratio", self.ratio, 1e-6, 1.0),
            ("seed", self.seed, 0, 2**63),
            ("max_height", self.max_height, 0.02, 0.25),
            ("workers", self.workers, 0, 1024),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")
        if not self.lift and self.experiment in ("clutter", "moved"):
            raise ValueError(
                f"--experiment {self.experiment} is decided by lifts; leave --no-lift out"
            )
        if self.experiment == "single" and self.clutter not in (None, 1):
            raise ValueError(f"--experiment single has one object, not --clutter {self.clutter}")
        if self.pile and self.bin:
            raise ValueError("--pile has a bin of its own; leave --bin out")
        if self.target and self.experiment not in ("clutter", "moved"):
            raise ValueError(f"--target is for clutter and moved, not for {self.experiment}")
        for name in (self.controller, *self.against):
            resolve("controller", name, CONTROLLERS)
            made = open_controller(name, self.ratio, self.candidates, np.random.default_rng(0))
            if self.target and not hasattr(made, "around"):
                raise ValueError(f"controller {name} takes no target; leave --target out")

    def setup(self) -> TrialSetup:
        others = [name for name in dict.fromkeys(self.against) if name != self.controller]
        return TrialSetup(
            experiment=self.experiment,
            seed=self.seed,
            category=self.category,
            clutter=self.clutter,
            catalogue=self.catalogue,
            meshes=self.meshes,
            mesh=self.mesh,
            hand=self.hand,
            controllers=(self.controller, *others),
            candidates=self.candidates,
            iterations=self.iterations,
            ratio=self.ratio,
            camera=self.camera,
            sensor=self.sensor,
            disturbance=self.disturbance,
            lift=self.lift,
            label=self.label if self.lift else "paper",
            baselines=self.baselines,
            bin=self.bin,
            pile=self.pile,
            max_height_m=self.max_height,
            target=self.target,
            noisy=(False, True) if self.experiment == "figure5" else (False,),
        )


_worker: Bench


def _begin(setup: TrialSetup, model: str | None, backend: str) -> None:
    """Start of a worker: open once what every trial needs, with one thread, as processes share the cores."""
    global _worker
    distance = open_model(model, backend, threads=1)
    _worker = Bench(objects_of(setup), setup, distance, Detector(hand=load_hand(setup.hand)))


def _one(number: int) -> dict[str, Any]:
    try:
        return run_trial(_worker, number)
    except Exception as error:
        error.add_note(f"in trial {number} of seed {_worker.setup.seed}")
        raise


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
    objects.say_skipped()
    if config.meshes is not None:
        require_graspable(objects, "test", load_hand(config.hand))
    Detector()
    distance = open_model(config.model, config.backend)
    hand = load_hand(config.hand)
    distance.contract.require(hand=hand, view=VIEW, metres_per_degree=METRES_PER_DEGREE)
    if config.lift or config.pile:
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
            f"lifts and piles need MuJoCo and CoACD ({error}): pip install 'grasp-servo[physics]', or "
            "--no-lift for distances alone"
        ) from error
