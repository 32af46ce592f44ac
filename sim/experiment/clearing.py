"""Clearing: ten objects in a circle of 30 cm, picked one after another until none is left.

clutter  the objects stay where they are until the hand touches them
moved    they are pushed by 2 to 8 cm, all together, during every approach (sim/experiment/disturbance.py)

A scenario (controller or baseline) has a copy of the scene of its own. Every pick starts over a random one of
the objects left, or beside it. The next scene is as the physics leaves it: fingers push neighbours, and an
object that slips falls. A scene ends when it is empty or after two misses in a row. Objects that roll away
are out of reach and count as not cleared.

With `target` only one object, drawn for each pick, is wanted: the controller is told the middle (x, y) of it
in the world at the start (`target` of its Surroundings); lifts of another are counted as wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rt.distance import Distance
from rt.hand import Hand
from sim.experiment.disturbance import TrialCamera, TrialChance
from sim.experiment.ending import Ending
from sim.experiment.trial import (
    Approach,
    Bench,
    TrialSetup,
    World,
    make_world,
    once,
    random_start,
    reach,
    servo,
)
from sim.scene.grasps import true_grasps
from sim.scene.render import Renderer
from sim.scene.scene import Scene, rearranged

MISSES = 2
"""Misses in a row that end a scene."""
REACH_M = 0.40
"""Objects whose centre is further from the circle's middle have rolled away."""
_SAMPLES = 500
"""Surface points tried on each object for the true grasps after a pick."""

Way = Callable[[World, TrialCamera, TrialChance], Approach]
"""One controller or baseline: from a scene to the way of its hand."""


def clear_scene(bench: Bench, number: int) -> dict[str, Any]:
    """Scene `number`, cleared by every scenario, ready for JSON. `final` maps each to its `picks` (one end
    each, as sim/experiment/ending.py makes it), the number `cleared`, and the `reason` of its end."""
    setup = bench.setup
    first = make_world(bench.objects, setup, number)
    ways: dict[str, Way] = {}
    for k, name in enumerate(setup.controllers):
        ways["CTR" if k == 0 else f"CTR_{name}"] = _closed(name, bench.distance, setup)
    for name in setup.baselines:
        ways[name] = _blind(name, bench)
    return {
        "trial": number,
        "objects": [thing.name for thing in first.scene.placed],
        "grasps": len(first.grasps),
        "final": {name: _clear(first, way, setup, number) for name, way in ways.items()},
    }


def _closed(name: str, distance: Distance, setup: TrialSetup) -> Way:
    return lambda world, eye, fate: servo(name, world, eye, fate, False, distance, setup)


def _blind(name: str, bench: Bench) -> Way:
    def way(world: World, eye: TrialCamera, fate: TrialChance) -> Approach:
        found = None
        if name == "GPD":
            found = bench.detector.best(*eye.image(fate.to_objects(world.start, 0), world.start))
        goal = once(name, world, eye, fate, bench.distance, found)
        return reach(world, goal, fate, False, bench.setup)

    return way


def _clear(world: World, way: Way, setup: TrialSetup, number: int) -> dict[str, Any]:
    """One scenario: picks until the scene is empty, or MISSES in a row."""
    count, cleared, misses = len(world.scene.placed), 0, 0
    picks: list[dict[str, Any]] = []
    scene = world.scene
    while True:
        fate = TrialChance(
            setup.disturbance,
            setup.seed,
            number,
            setup.iterations,
            pick=1 + len(picks),
            pushed=setup.experiment == "moved",
        )
        if picks:
            world = _again(scene, world.hand, fate)
        if setup.target:
            world = replace(world, target=_wanted(world, fate))
        eye = setup.eye(world.renderer, fate)
        ended, done = Ending(world, setup, fate)(way(world, eye, fate), settle=True)
        assert done is not None  # clearing needs lifts
        ended["grasps"] = len(world.grasps)
        ended["object"] = None if done.object is None else world.scene.placed[done.object].name
        if world.target is not None:
            ended["wrong"] = done.success and world.target not in done.objects
        picks.append(ended)
        cleared += len(done.objects)
        misses = 0 if done.success else misses + 1
        T = done.T_world_object
        near = np.linalg.norm(T[:, :2, 3], axis=1) <= REACH_M
        left = [k for k in range(len(T)) if near[k] and k not in done.objects]
        if not left or misses == MISSES:
            reason = "two misses" if left else "empty" if cleared == count else "out of reach"
            return {"picks": picks, "cleared": cleared, "of": count, "reason": reason}
        scene = rearranged(world.scene, T, left)


def _wanted(world: World, fate: TrialChance) -> int:
    """A random object, one that can be grasped if there is any."""
    some = np.unique(world.grasps.object) if len(world.grasps) else range(len(world.scene.placed))
    return int(fate.rng("target").choice(list(some)))


def _again(scene: Scene, hand: Hand, fate: TrialChance) -> World:
    """A scene after a pick, with its true grasps, seen from a new start."""
    renderer = Renderer(scene)
    grasps = true_grasps(scene, fate.rng("grasps"), hand, samples=_SAMPLES)
    return World(scene, grasps, renderer, random_start(scene, fate.rng("start")), hand)
