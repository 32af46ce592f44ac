"""One trial of the paper's experiment: a scene, a start, and the end of each way of grasping.

A trial is a pure function of its setup and its number: every scenario sees the same scene, starts at
the same pose and draws the same noise. It is kinematic, as in the paper's simulation (Viereck et al.
2017, Section IV): the hand is at its commanded pose but for the noise, and time is counted in iterations.
`sim.twin` adds the arm's dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from rt import controller
from rt.controller import Surroundings, TargetPoint
from rt.controller.algorithm import place
from rt.controller.motion import scene_velocity_m_s
from rt.controller.target import FollowedTarget
from rt.distance import Distance
from rt.grasp.memory import HeightMemory, needed_height_m
from rt.grasp.target import off_target
from rt.guard.clamps import clear_of_the_scene
from rt.guard.rows import CycleState, Limits
from rt.hand import Hand, load_hand
from rt.pose import from_top_down, grasp_distance, planar, to_view, top_down
from rt.view import END_HEIGHT_M, START_HEIGHT_M
from sim.experiment.disturbance import CONTROL_HZ, Disturbance, TrialCamera, TrialChance
from sim.gpd.detector import Detector, Found
from sim.scene.grasps import Grasps, numbered_scene
from sim.scene.hull import MAP_STEP_M, HandHull
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import Catalogue, ObjectError, ObjectSet, object_set
from sim.scene.render import Renderer
from sim.scene.rig import IDEAL
from sim.scene.scene import CIRCLE_M, CLUTTER, MAX_HEIGHT_M, Scene, camera_poses

Hand4 = NDArray[np.float64]
"""(4,) of x, y, z [m], yaw [rad] of a hand that looks straight down."""

CHANGE_M = 0.02
"""A goal that moves by less is at the same place: as near as an end must be to a grasp, to count."""
_PLAN_M = 0.004
"""Side of a cell of the map of objects seen from above."""

Experiment = Literal["figure5", "single", "clutter", "moved"]
Baseline = Literal["GPD", "MAP", "TRUE"]
BASELINES: tuple[Baseline, ...] = ("GPD", "MAP", "TRUE")


@dataclass(frozen=True)
class TrialSetup:
    """All that decides a trial but its number."""

    experiment: Experiment = "figure5"
    """single: one object in the scene; clutter, moved: see sim/experiment/clearing.py."""
    seed: int = 0
    category: str | None = None
    clutter: int | None = None
    catalogue: Catalogue = "household"
    meshes: Path | None = None
    mesh: MeshOptions = PLAIN
    hand: str = "robotiq_2f85"
    """A name of rt/hands/ or a TOML file: whose grasps are the truth."""
    controllers: tuple[str, ...] = ("paper",)
    """The first is CTR, the others CTR_<name>."""
    candidates: int = 256
    iterations: int = controller.ITERATIONS
    ratio: float = controller.RATIO
    camera: Literal["ideal", "wrist"] = "ideal"
    sensor: str = IDEAL
    """A name of sim.scene.sensor; any but the ideal one sits beside the hand, whatever `camera` says."""
    disturbance: Disturbance = field(default_factory=Disturbance)
    lift: bool = True
    """Close and lift at every end, in MuJoCo."""
    label: Literal["paper", "lifted"] = "paper"
    """Grasps that distances are measured to: see sim/experiment/ending.py."""
    baselines: tuple[Baseline, ...] = BASELINES
    bin: bool = False
    """A bin stands around the objects (sim/scene/bin.py)."""
    pile: bool = False
    """The objects are poured into a bin (sim/physics/pile.py)."""
    max_height_m: float = MAX_HEIGHT_M
    """Objects rest lower than this."""
    target: bool = False
    """Only one object of a cluttered scene, drawn for each pick, is wanted."""
    noisy: tuple[bool, ...] = (False, True)
    """Without kinematic noise, with it, or both."""

    @property
    def clearing(self) -> bool:
        """True if scenes are cleared, object after object."""
        return self.experiment in ("clutter", "moved")

    def eye(self, renderer: Renderer, fate: TrialChance) -> TrialCamera:
        """The camera of these trials."""
        camera = self.camera if self.sensor == IDEAL else "wrist"
        return TrialCamera(renderer, camera, fate, self.sensor, load_hand(self.hand))


def objects_of(setup: TrialSetup) -> ObjectSet:
    """The objects that scenes are drawn from: the test split, or all meshes of the user's folder.

    Raises ObjectError for a category that is not among them.
    """
    if setup.meshes is not None:
        objects = object_set("all", setup.meshes, True, setup.mesh)
    else:
        objects = object_set("test", which=setup.catalogue)
    if setup.category is None:
        return objects
    names = tuple(n for n in objects.names if objects.category(n) == setup.category)
    if not names:
        known = ", ".join(sorted({objects.category(n) for n in objects.names}))
        raise ObjectError(f"no object of category {setup.category!r}; known are {known}")
    return replace(objects, names=names)


@dataclass(frozen=True)
class World:
    """A scene with its truth, and the hand above it."""

    scene: Scene
    grasps: Grasps
    renderer: Renderer
    start: Hand4
    hand: Hand
    target: int | None = None
    """Index into scene.placed of the only object that is wanted; None: any."""

    @property
    def target_xy_m(self) -> NDArray[np.float64] | None:
        """Middle (2,) of the wanted object, seen from above."""
        if self.target is None:
            return None
        own = self.scene.vertices[self.scene.faces[self.scene.face_object == self.target], :2]
        points = own.reshape(-1, 2).astype(np.float64)
        return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)

    def distance_m(self, hand: Hand4) -> float:
        """From a hand to the nearest true grasp, in (x, y, theta); inf if there is none."""
        return float(distances_m(self.grasps, hand).min(initial=np.inf))

    def nearest(self, hand: Hand4) -> int:
        """Index of that grasp."""
        return int(distances_m(self.grasps, hand).argmin())

    def object_at(self, hand: Hand4) -> int:
        """Index into scene.placed of the object seen from above where a hand is, or else nearest to there."""
        owner, half_m = self._plan
        cell = np.floor((hand[:2] + half_m) / _PLAN_M).astype(int).clip(0, len(owner) - 1)
        return int(owner[cell[0], cell[1]])

    @cached_property
    def _plan(self) -> tuple[NDArray[np.int16], float]:
        """The objects (n, n) of the cells of a square, by x and y, and its half side [m]."""
        half_m = float(np.ceil(np.abs(self.scene.vertices[:, :2]).max() / _PLAN_M) * _PLAN_M)
        face = self.renderer.face_map(half_m, _PLAN_M)
        owner = np.where(face < 0, np.int16(-1), self.scene.face_object[face])
        nearest = distance_transform_edt(owner < 0, return_distances=False, return_indices=True)
        return owner[tuple(nearest)], half_m

    @cached_property
    def room(self) -> HandHull:
        """The room around the scene's objects and walls."""
        reach = float(np.abs(self.scene.vertices[:, :2]).max()) + self.hand.palm_length_m
        half = float(np.ceil(reach / 0.01) * 0.01)
        return HandHull(self.hand, self.renderer.height_map(half, MAP_STEP_M))


def distances_m(grasps: Grasps, hand: Hand4) -> NDArray[np.floating]:
    """Distance (G,) of a hand from each grasp, in (x, y, theta)."""
    return grasp_distance(to_view(grasps.poses[:, :4].astype(float), hand), np.zeros(3))


def make_world(objects: ObjectSet, setup: TrialSetup, number: int) -> World:
    """Scene `number` of the seed, and the start: the region of the training views, at 0.30 m."""
    hand, count = load_hand(setup.hand), setup.clutter
    if setup.experiment == "single":
        count = 1
    elif setup.clearing:
        count = count or CLUTTER
    kind: dict[str, Any] = {"walled": setup.bin}
    if setup.pile:
        from sim.physics.pile import pour

        kind = {"pour": pour}
    elif setup.clearing:
        kind["circle_m"] = CIRCLE_M
    scene, grasps, rng = numbered_scene(
        objects,
        setup.seed,
        "test",
        number,
        hand,
        count=count,
        max_height_m=setup.max_height_m,
        **kind,
    )
    return World(scene, grasps, Renderer(scene), random_start(scene, rng), hand)


def random_start(scene: Scene, rng: np.random.Generator) -> Hand4:
    """A hand over a random object of the scene, or beside it, at the start height."""
    start = camera_poses(scene, 1, rng)[0].astype(np.float64)
    start[2] = START_HEIGHT_M
    return start


@dataclass(frozen=True)
class Approach:
    """The way of one hand, relative to the objects as they are by then."""

    path: NDArray[np.float64]
    """(K, 4), from the start to the end."""
    velocity_m_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """(2,) of the objects in the world, as the controller believes it at the end."""
    notes: dict[str, Any] = field(default_factory=dict)
    """More about it, ready for JSON."""

    @property
    def end(self) -> Hand4:
        return np.asarray(self.path[-1])


def servo(
    name: str,
    world: World,
    eye: TrialCamera,
    fate: TrialChance,
    noisy: bool,
    distance: Distance,
    setup: TrialSetup,
) -> Approach:
    """The closed loop (Algorithm 1). Its notes: `predicted_m`, the distance that the network gave to the last
    goal, `changes`, the number of times that the goal went over to another object, and, with a target,
    `declined`: why the run would end without a touch (empty: it would grasp). The guard's
    row `path` keeps the hand above all that its views have shown below fingers and palm.

    The hand is known to the controller by what it was told (`believed`), and is where the noise
    brought it (`hand`). All that crosses from one to the other is the image.
    """
    rng, noise = fate.rng("candidates"), fate.rng("noise")
    control: Any = controller.open_controller(name, setup.ratio, setup.candidates, rng)
    heights, target = HeightMemory(), world.target_xy_m
    wanted = None if target is None else TargetPoint((float(target[0]), float(target[1])))
    hand, believed = world.start.copy(), world.start.copy()
    descent = (START_HEIGHT_M - END_HEIGHT_M) / setup.iterations
    latency = setup.disturbance.latency
    exposed: list[tuple[NDArray[np.float32], Hand4]] = []
    state = CycleState(Limits(), 1 / CONTROL_HZ, hand, believed)
    state.needed_m = partial(needed_height_m, heights, shape=world.hand)
    path, goals, predicted_m = [fate.to_objects(hand, 0)], list[Hand4](), np.inf
    for k in range(setup.iterations):
        exposed.append((eye.view(fate.to_objects(hand, k)), believed.copy()))
        view, seen_from = exposed.pop(0) if len(exposed) > latency else exposed[0]
        if not view.any():  # as the guard holds an arm whose camera sees nothing
            path.append(fate.to_objects(hand, k + 1))
            continue
        heights.see(view, seen_from)
        if hasattr(control, "around"):
            control.around = Surroundings(
                exposed_s=max(k - latency, 0) / CONTROL_HZ,
                period_s=1 / CONTROL_HZ,
                ahead_s=min(k, latency) / CONTROL_HZ,
                heights=heights,
                hand=world.hand,
                target=wanted,
            )
        told = control(distance, view, seen_from, believed)
        predicted_m = float(told.distances[told.best])
        seen_goal = place(hand, to_view(told.goal[None], believed)[0])
        goal = fate.to_objects(seen_goal, k)
        goals.append(goal)
        move = np.array([told.move[0], told.move[1], 0.0, told.move[2]])
        move[2] = controller.descend(believed[2], descent, END_HEIGHT_M) - believed[2]
        state.commanded, state.command = believed, believed + move
        if state.command_in_scene_m > 0:
            move = clear_of_the_scene(state) - believed
        believed = believed + move
        hand = hand + fate.disturbed(noise, move, noisy)
        hand[2] = believed[2]
        path.append(fate.to_objects(hand, k + 1))
    notes: dict[str, Any] = {
        "predicted_m": predicted_m if np.isfinite(predicted_m) else None,
        "changes": changes(world, goals),
    }
    if wanted is not None:
        followed = getattr(control, "target", None)
        now, cells = wanted, None
        if isinstance(followed, FollowedTarget):
            now, cells = followed.now or wanted, followed.cells
        notes["declined"] = off_target(now, cells, believed, predicted_m)
    return Approach(np.stack(path), scene_velocity_m_s(control), notes)


def changes(world: World, goals: list[Hand4]) -> int:
    """Number of times that the goal went over to another object, by more than CHANGE_M from where it last was
    at the one before: at the border of two that touch every millimetre would count."""
    count, at, last = 0, -1, np.zeros(2)
    for goal in goals:
        found = world.object_at(goal)
        far = np.hypot(*(goal[:2] - last)) > CHANGE_M
        if at < 0 or found == at or far:
            count += at >= 0 and found != at
            at, last = found, goal[:2]
    return count


def reach(world: World, goal: Hand4, fate: TrialChance, noisy: bool, setup: TrialSetup) -> Approach:
    """One blind displacement from the start to a goal."""
    way = np.append(controller.step(world.start, goal, 1.0), 0.0)[[0, 1, 3, 2]]
    way[2] = END_HEIGHT_M - START_HEIGHT_M
    way = fate.disturbed(fate.rng("noise"), way, noisy)
    n = setup.iterations
    return Approach(np.stack([fate.to_objects(world.start + k / n * way, k) for k in range(n + 1)]))


def map_once(world: World, view: NDArray[np.float32], distance: Distance) -> Hand4:
    """The least of a dense map of the distance over the first view: the network without the loop."""
    actions = controller.dense_actions()
    best = actions[controller.select(actions, controller.ask(distance, view, actions)[1])]
    return np.array(from_top_down(top_down(*world.start) @ planar(best)))


@dataclass(frozen=True)
class Bench:
    """All that a worker opens once for its trials."""

    objects: ObjectSet
    setup: TrialSetup
    distance: Distance
    detector: Detector


def once(
    name: str,
    world: World,
    eye: TrialCamera,
    fate: TrialChance,
    distance: Distance,
    found: Found | None,
) -> Hand4:
    """The goal of a baseline, from the first view. found: the detector's."""
    if name == "GPD":
        return world.start if found is None else found.hand
    if name == "MAP":
        return map_once(world, eye.view(fate.to_objects(world.start, 0)), distance)
    true = world.grasps
    if world.target is not None:
        true = true[true.object == world.target]
    if not len(true):
        return world.start
    return true.poses[distances_m(true, world.start).argmin(), :4].astype(np.float64)
