"""`python -m sim.trials camera`: how often the guard's row `camera_moved` tells a displaced camera.

Each approach is a hand that follows the nearest true grasp as the loop would, over a scene of test objects,
with a depth camera beside it whose true place differs from the calibrated one. It is kinematic, and the
images go through rt.guard.camera_watch as in the loop.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.spatial.transform import Rotation

from rt import controller
from rt.camera.own_hand import OwnHand
from rt.guard.camera_watch import CameraWatch
from rt.guard.limits import Limits
from rt.hand import load_hand
from rt.pose import METRES_PER_RADIAN, top_down, wrap_theta
from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.pool import PoolError, spread
from rt.view import END_HEIGHT_M, START_HEIGHT_M, Reprojector, close_gaps
from sim.experiment.disturbance import CONTROL_HZ
from sim.experiment.run import ERRORS
from sim.experiment.statistics import wilson
from sim.experiment.trial import TrialSetup, World, make_world, objects_of
from sim.scene.objects import ObjectSet
from sim.scene.rig import RigView, make_rig, mounted
from sim.scene.scene import camera_poses
from sim.scene.sensor import sensor as preset

KINDS = ("none", "tilt", "height", "shift", "knock")
STRENGTHS: tuple[tuple[str, float], ...] = (
    ("none", 0.0),
    ("tilt", 0.5), ("tilt", 1.0), ("tilt", 2.0),
    ("height", 0.0025), ("height", 0.005), ("height", 0.010),
    ("shift", 0.0025), ("shift", 0.005), ("shift", 0.010), ("shift", 0.020),
    ("knock", 0.005), ("knock", 0.010),
)  # fmt: skip
"""Displacements: of the camera's attitude about a level axis [deg]; along its optical axis, beside it, and
beside it from the middle of the approach on [m]."""
WORDS = {
    "none": "none",
    "tilt": "tilted by {:g} deg",
    "height": "{:.1f} mm along its axis",
    "shift": "{:.1f} mm beside its axis",
    "knock": "{:.0f} mm beside its axis, from the middle of the approach on",
}
_GOAL_ERROR = np.array([0.004, 0.004, 0.004 / METRES_PER_RADIAN])
"""Standard deviation of a cycle's goal: x, y [m], yaw [rad]."""
_STARTS = 10
"""Approaches over one scene."""


@dataclass(frozen=True)
class DisplacedOptions:
    """Displace the camera and count the approaches in which the guard tells: camera.json in --out.

    Example: python -m sim.trials camera
    """

    approaches: int = 100
    """With each displacement."""
    clean: int = 1500
    """With none, for the false alarms."""
    sensor: Literal["d405", "d435", "sr300"] = "d405"
    """Model of the depth camera (sim.scene.sensor)."""
    fingers: bool = True
    """The open fingers are known, and compared with what the camera sees of them."""
    seed: int = 0
    """Seed of scenes, starts and displacements."""
    workers: int = 0
    """Processes. 0: one for each core. The result does not depend on it."""
    out: Path | None = None
    """Folder for camera.json. Default: runs/camera/<time>/."""

    def __post_init__(self) -> None:
        for name in ("approaches", "clean"):
            value = getattr(self, name)
            if not 1 <= value <= 1_000_000:
                raise ValueError(f"{name} = {value} must be from 1 to 1000000")


@dataclass(frozen=True)
class Told:
    """One approach."""

    yaw_deg: float
    """Turn of the hand."""
    height_m: float | None
    """Height of the hand when the guard told; None if it did not."""
    words: str


def displacement(kind: str, amount: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(4, 4) error of T_hand_camera, in a random direction."""
    angle, sign = rng.uniform(-np.pi, np.pi), rng.choice((-1.0, 1.0))
    T, level = np.eye(4), np.array([np.cos(angle), np.sin(angle), 0.0])
    if kind == "tilt":
        T[:3, :3] = Rotation.from_rotvec(np.radians(amount) * level).as_matrix()
    elif kind == "height":
        T[2, 3] = amount * sign
    elif kind in ("shift", "knock"):
        T[:3, 3] = amount * level
    return T


@cache
def _own_hand(sensor: str) -> OwnHand:
    """The same for all approaches, since the calibrated place is."""
    T_hand_camera = mounted(load_hand())
    return OwnHand(
        make_rig(preset(sensor), T_hand_camera, whole_image=True).intrinsics,
        T_hand_camera,
        load_hand(),
    )


def approach(
    world: World,
    start: NDArray[np.float64],
    options: DisplacedOptions,
    kind: str,
    amount: float,
    seed: list[int],
) -> Told:
    """One approach from a start (4,), with a camera displaced so."""
    sensor, sees_hand = options.sensor, options.fingers
    rng = np.random.default_rng(seed)
    hand_shape, sort = load_hand(), preset(sensor)
    T_hand_camera, error = mounted(hand_shape), displacement(kind, amount, rng)
    scale = 1 + sort.scale_error * float(rng.standard_normal())
    rigs = [
        make_rig(sort, T_hand_camera, T_hand_camera @ off, scale, whole_image=True)
        for off in (np.eye(4) if kind == "knock" else error, error)
    ]
    cameras = [RigView(world.renderer, rig, hand_shape) for rig in rigs]
    reproject = Reprojector(rigs[0].intrinsics, T_hand_camera)
    own_hand = _own_hand(sensor) if sees_hand else None
    watch, limits = CameraWatch(rigs[0].intrinsics, T_hand_camera, own_hand), Limits()
    hand, goal = start.copy(), world.grasps.poses[world.nearest(start), :4].astype(np.float64)
    descent = (START_HEIGHT_M - END_HEIGHT_M) / controller.ITERATIONS
    yaws: list[float] = []
    for k in range(controller.ITERATIONS):
        stamp_ns = round(k * 1e9 / CONTROL_HZ)
        if watch.due(stamp_ns):
            depth = cameras[2 * k >= controller.ITERATIONS].image(hand, rng)
            view = close_gaps(reproject(depth))
            place = watch.look(depth, view, top_down(*hand), stamp_ns)
            if place.part_of(limits) > 1:
                return Told(_turn_deg(yaws), float(hand[2]), place.words)
        aim = goal.copy()
        aim[3] = hand[3] + wrap_theta(goal[3] - hand[3])
        move = controller.step(hand, aim) + controller.RATIO * _GOAL_ERROR * rng.standard_normal(3)
        hand[[0, 1, 3]] += move
        hand[2] = controller.descend(hand[2], descent, END_HEIGHT_M)
        yaws.append(hand[3])
    return Told(_turn_deg(yaws), None, "")


def _turn_deg(yaws: list[float]) -> float:
    return float(np.degrees(np.ptp(yaws))) if yaws else 0.0


_worker: tuple[ObjectSet, TrialSetup, DisplacedOptions]


def _begin(options: DisplacedOptions) -> None:
    global _worker
    setup = TrialSetup(seed=options.seed)
    _worker = objects_of(setup), setup, options


def _scene(job: tuple[int, str, float, int]) -> list[Told]:
    """The approaches over one scene: its number, the displacement, how many."""
    number, kind, amount, count = job
    objects, setup, options = _worker
    world = make_world(objects, setup, number)
    rng = np.random.default_rng([options.seed, number, 7])
    starts = camera_poses(world.scene, count, rng).astype(np.float64)
    starts[:, 2] = START_HEIGHT_M
    chances = [[options.seed, number, k, KINDS.index(kind)] for k in range(count)]
    return [
        approach(world, start, options, kind, amount, chance)
        for start, chance in zip(starts, chances, strict=True)
    ]


def measure(options: DisplacedOptions) -> dict[str, Any]:
    """Content of camera.json. Raises PoolError."""
    points = []
    for kind, amount in STRENGTHS:
        wanted = options.clean if kind == "none" else options.approaches
        jobs = [
            (number, kind, amount, min(_STARTS, wanted - first))
            for number, first in enumerate(range(0, wanted, _STARTS))
        ]
        title = WORDS[kind].format(amount if kind == "tilt" else amount * 1e3)
        found = spread(
            _scene,
            jobs,
            options.workers,
            unit="scene",
            title=title,
            begin=_begin,
            arguments=(options,),
        )
        told = [one for scene in found for one in scene]
        at = [one.height_m for one in told if one.height_m is not None]
        points.append(
            {
                "kind": kind,
                "amount": amount,
                "words": title,
                "approaches": len(told),
                "told": len(at),
                "share_ci95": list(wilson(len(at), len(told))),
                "median_height_m": float(np.median(at)) if at else None,
                "alarms": [one.words for one in told if one.words][:20] if kind == "none" else [],
            }
        )
    return {"command": "sim.trials camera", "config": asdict(options), "points": points}


def table(report: dict[str, Any]) -> Table:
    """On screen."""
    result = Table("the camera is", title=f"camera_moved, {report['config']['sensor']}")
    for name in ("approaches", "told", "share [95 %]", "told at"):
        result.add_column(name, justify="right")
    for point in report["points"]:
        low, high = point["share_ci95"]
        share = point["told"] / point["approaches"]
        at = point["median_height_m"]
        result.add_row(
            point["words"],
            str(point["approaches"]),
            str(point["told"]),
            f"{share:.1%} [{low:.1%}, {high:.1%}]",
            "-" if at is None else f"{at * 1e3:.0f} mm",
        )
    return result


@command("sim.trials camera", DisplacedOptions, mistakes=ERRORS, failures=(PoolError,))
def main(options: DisplacedOptions) -> int:
    folder = output_folder("camera", options.out)
    report = measure(options)
    write_json(folder / "camera.json", report)
    screen(130).print(table(report))
    print(f"{folder}/: camera.json")
    return 0
