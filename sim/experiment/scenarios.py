"""All scenarios of one trial: every controller and baseline in the same scene, from the same start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.experiment.clearing import clear_scene
from sim.experiment.disturbance import TrialChance
from sim.experiment.ending import Ending
from sim.experiment.trial import (
    Approach,
    Bench,
    Hand4,
    TrialSetup,
    make_world,
    once,
    reach,
    servo,
)


def run_trial(bench: Bench, number: int) -> dict[str, Any]:
    """Everything about trial `number`, ready for JSON: its scene, and `final`, which maps each
    scenario to where it ended. See `scenario_names`."""
    setup, distance = bench.setup, bench.distance
    if setup.clearing:
        return clear_scene(bench, number)
    world = make_world(bench.objects, setup, number)
    fate = TrialChance(setup.disturbance, setup.seed, number, setup.iterations)
    eye = setup.eye(world.renderer, fate)
    judge = Ending(world, setup, fate)
    target = world.nearest(world.start)
    found = bench.detector.best(*eye.image(fate.to_objects(world.start, 0), world.start))
    still = Approach(fate.to_objects(world.start, setup.iterations)[None])
    final: dict[str, Any] = {"INIT": judge(still)[0]}

    def scenario(name: str, go: Callable[[bool], Approach]) -> None:
        for noisy in setup.noisy:
            final[f"{name}_noise" if noisy else name] = judge(go(noisy))[0]

    for k, name in enumerate(setup.controllers):

        def closed(noisy: bool, name: str = name) -> Approach:
            eye.restart()
            return servo(name, world, eye, fate, noisy, distance, setup)

        scenario("CTR" if k == 0 else f"CTR_{name}", closed)
    for name in setup.baselines:
        goal = once(name, world, eye, fate, distance, found)

        def blind(noisy: bool, goal: Hand4 = goal) -> Approach:
            return reach(world, goal, fate, noisy, setup)

        scenario(name, blind)
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
    names = ["CTR", *(f"CTR_{name}" for name in setup.controllers[1:]), *setup.baselines]
    if setup.clearing:
        return names
    return ["INIT", *(f"{n}_noise" if noisy else n for n in names for noisy in setup.noisy)]
