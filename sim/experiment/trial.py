"""One trial of the paper's experiment: a scene, a start, and where each way of grasping ends up.

A trial is a pure function of its setup and its number: every scenario sees the same scene, starts at
the same pose and draws the same noise. It is kinematic, as in the paper's simulation (Viereck et al.
2017, Section IV): the hand is at its commanded pose but for the noise, and time is counted in iterations.
`sim.twin` adds the arm's dynamics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rt import controller
from rt.distance import Distance
from rt.hand import Hand, load_hand
from rt.pose import from_top_down, grasp_distance, planar, to_view, top_down
from rt.view import END_HEIGHT_M, START_HEIGHT_M
from sim.experiment.disturbance import Disturbance, TrialCamera, TrialChance
from sim.gpd.detector import Detector
from sim.scene.grasps import Grasps, numbered_scene
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import ObjectError, ObjectSet, object_set
from sim.scene.render import Renderer
from sim.scene.rig import IDEAL
from sim.scene.scene import Scene, camera_poses

Hand4 = NDArray[np.float64]
"""(4,) of x, y, z [m], yaw [rad] of a hand that looks straight down."""


@dataclass(frozen=True)
class TrialSetup:
    """All that decides a trial but its number."""

    seed: int = 0
    category: str | None = None
    clutter: int | None = None
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
    lift: bool = False
    noisy: tuple[bool, ...] = (False, True)
    """Without kinematic noise, with it, or both."""

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
        objects = object_set("test")
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

    def distance_m(self, hand: Hand4) -> float:
        """From a hand to the nearest true grasp, in (x, y, theta)."""
        return float(self._distances(hand).min())

    def nearest(self, hand: Hand4) -> int:
        """Index of that grasp."""
        return int(self._distances(hand).argmin())

    def _distances(self, hand: Hand4) -> NDArray[np.floating]:
        return grasp_distance(to_view(self.grasps.poses[:, :4].astype(float), hand), np.zeros(3))


def make_world(objects: ObjectSet, setup: TrialSetup, number: int) -> World:
    """Scene `number` of the seed, and the start: the region of the training views, at 0.30 m."""
    scene, grasps, rng = numbered_scene(
        objects, setup.seed, "test", number, load_hand(setup.hand), count=setup.clutter
    )
    start = camera_poses(scene, 1, rng)[0].astype(np.float64)
    start[2] = START_HEIGHT_M
    return World(scene, grasps, Renderer(scene), start)


def servo(
    name: str,
    world: World,
    eye: TrialCamera,
    fate: TrialChance,
    noisy: bool,
    distance: Distance,
    setup: TrialSetup,
) -> tuple[Hand4, float]:
    """The closed loop (Algorithm 1): the hand at the end, relative to the objects, and the distance
    that the network gave to its last goal.

    The hand is known to the controller by what it was told (`believed`), and is where the noise
    brought it (`hand`). All that crosses from one to the other is the image.
    """
    rng, noise = fate.rng("candidates"), fate.rng("noise")
    control = controller.open_controller(name, setup.ratio, setup.candidates, rng)
    hand, believed = world.start.copy(), world.start.copy()
    descent = (START_HEIGHT_M - END_HEIGHT_M) / setup.iterations
    latency = setup.disturbance.latency
    exposed: list[tuple[NDArray[np.float32], Hand4]] = []
    predicted = float("nan")
    for k in range(setup.iterations):
        exposed.append((eye.view(fate.to_objects(hand, k)), believed.copy()))
        view, seen_from = exposed.pop(0) if len(exposed) > latency else exposed[0]
        told = control(distance, view, seen_from, believed)
        predicted = float(told.distances[told.best])
        move = np.array([told.move[0], told.move[1], 0.0, told.move[2]])
        move[2] = controller.descend(believed[2], descent, END_HEIGHT_M) - believed[2]
        believed = believed + move
        hand = hand + fate.disturbed(noise, move, noisy)
        hand[2] = believed[2]
    return fate.to_objects(hand, setup.iterations), predicted


def reach(world: World, goal: Hand4, fate: TrialChance, noisy: bool, setup: TrialSetup) -> Hand4:
    """One blind displacement from the start to a goal: the hand at its end, relative to the objects
    as they are by then."""
    way = np.append(controller.step(world.start, goal, 1.0), 0.0)[[0, 1, 3, 2]]
    way[2] = END_HEIGHT_M - START_HEIGHT_M
    hand = world.start + fate.disturbed(fate.rng("noise"), way, noisy)
    return fate.to_objects(hand, setup.iterations)


def map_once(world: World, view: NDArray[np.float32], distance: Distance) -> Hand4:
    """The least of a dense map of the distance over the first view: the network without the loop."""
    actions = controller.dense_actions()
    best = actions[controller.select(actions, controller.ask(distance, view, actions)[1])]
    return np.array(from_top_down(top_down(*world.start) @ planar(best)))


def run_trial(
    objects: ObjectSet, setup: TrialSetup, distance: Distance, detector: Detector, number: int
) -> dict[str, Any]:
    """Everything about trial `number`, ready for JSON: its scene, and `final`, which maps each
    scenario to where it ended. See SCENARIOS and `scenario_names`."""
    world = make_world(objects, setup, number)
    fate = TrialChance(setup.disturbance, setup.seed, number, setup.iterations)
    eye = setup.eye(world.renderer, fate)
    target = world.nearest(world.start)
    found = detector.best(*eye.image(fate.to_objects(world.start, 0), world.start))
    goals: dict[str, Hand4] = {
        "GPD": world.start if found is None else found.hand,
        "MAP": map_once(world, eye.view(fate.to_objects(world.start, 0)), distance),
        "TRUE": world.grasps.poses[target, :4].astype(np.float64),
    }
    final: dict[str, Any] = {"INIT": _ended(world, fate.to_objects(world.start, setup.iterations))}

    def scenario(name: str, go: Callable[[bool], tuple[Hand4, float | None]]) -> None:
        for noisy in setup.noisy:
            key = f"{name}_noise" if noisy else name
            hand, predicted = go(noisy)
            final[key] = _ended(world, hand)
            if predicted is not None:
                final[key]["predicted_m"] = predicted

    for k, name in enumerate(setup.controllers):

        def closed(noisy: bool, name: str = name) -> tuple[Hand4, float | None]:
            eye.restart()
            return servo(name, world, eye, fate, noisy, distance, setup)

        scenario("CTR" if k == 0 else f"CTR_{name}", closed)
    for name, goal in goals.items():

        def once(noisy: bool, goal: Hand4 = goal) -> tuple[Hand4, float | None]:
            return reach(world, goal, fate, noisy, setup), None

        scenario(name, once)
    if setup.lift:
        _lift(world, final, load_hand(setup.hand))
    return {
        "trial": number,
        "objects": [thing.name for thing in world.scene.placed],
        "category": world.scene.placed[world.grasps.object[target]].category,
        "grasps": len(world.grasps),
        "start": world.start.tolist(),
        "gpd_candidates": 0 if found is None else found.candidates,
        "gpd_score": None if found is None else found.score,
        "final": final,
    }


def scenario_names(setup: TrialSetup) -> list[str]:
    """Keys of a trial's `final`, in the order of the table."""
    ctr = ["CTR", *(f"CTR_{name}" for name in setup.controllers[1:])]
    names = [*ctr, "GPD", "MAP", "TRUE"]
    return ["INIT", *(f"{n}_noise" if noisy else n for n in names for noisy in setup.noisy)]


def _ended(world: World, hand: Hand4) -> dict[str, Any]:
    return {"distance_m": world.distance_m(hand), "hand": hand.tolist()}


def _lift(world: World, final: dict[str, Any], hand: Hand) -> None:
    """Close and lift at every scenario's end, as high as depth says (sim.physics)."""
    from sim.physics.lift import approach_height, lift

    for end in final.values():
        x, y, _, yaw = end["hand"]
        z = approach_height(world.scene, world.renderer, x, y, yaw, hand)
        done = lift(world.scene, (x, y, z, yaw), hand)
        end["lifted"], end["why"] = bool(done.success), done.reason
