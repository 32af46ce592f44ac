"""Physics as label: a share of a set's grasps, lifted in MuJoCo while the set is generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rt.hand import Hand
from rt.tools.files import write_text
from sim.dataset import store
from sim.experiment.statistics import wilson
from sim.physics.convex import PhysicsError
from sim.scene.grasps import Grasps
from sim.scene.scene import Scene

TIME_STEP_S = 0.004
"""Longer than that of sim.lifts: a lift costs two thirds, and as many hold."""


def require_physics(option: str) -> None:
    """Raise PhysicsError without the extra `physics`, which this option needs."""
    try:
        import sim.physics.lift  # noqa: F401
    except ImportError as error:
        raise PhysicsError(
            f"{option} needs the extra `physics` (pip install 'grasp-servo[physics]'): {error}"
        ) from error


def lifted(
    scene: Scene,
    grasps: Grasps,
    share: float,
    rng: np.random.Generator,
    hand: Hand,
    friction: float,
) -> list[dict[str, Any]]:
    """Results of a scene's lifted grasps: `grasp` (its number in the scene), `category`, `result`.

    Each grasp is lifted with probability `share`. A result is "held" or why not (sim.physics.lift), also
    "another object" where the hand lifts one that the grasp is not of.
    """
    from sim.physics.lift import lift

    found = []
    for index in np.flatnonzero(rng.random(len(grasps)) < share):
        x, y, z, yaw = (float(v) for v in grasps.poses[index, :4])
        done = lift(scene, (x, y, z, yaw), hand, friction=friction, time_step_s=TIME_STEP_S)
        owner = int(grasps.object[index])
        other = done.success and done.object != owner
        found.append(
            {
                "grasp": int(index),
                "category": scene.placed[owner].category,
                "result": "another object" if other else done.reason,
            }
        )
    return found


def rates(folder: Path) -> dict[str, dict[str, Any]]:
    """Per category, and over "all": n, held, rate and its 95 % interval, of all lifts that a set holds."""
    manifest, counts = store.read_manifest(folder), dict[str, list[int]]()
    for split in store.SPLITS:
        for k in range(len(store.shard_scenes(manifest, split))):
            about = store.shard_path(folder, split, k) / "shard.json"
            if not about.is_file():  # another job's, with --shard
                continue
            for scene in json.loads(about.read_text()).get("lifts", []):
                for one in scene:
                    for name in (one["category"], "all"):
                        count = counts.setdefault(name, [0, 0])
                        count[0] += 1
                        count[1] += one["result"] == "held"
    return {
        name: {"n": n, "held": held, "rate": held / n, "ci95": list(wilson(held, n))}
        for name, (n, held) in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0]))
    }


def write_rates(folder: Path) -> dict[str, dict[str, Any]]:
    """Put the rates into the manifest of a set, beside its parameters and no part of its id; returns them."""
    found = rates(folder)
    if found:
        manifest = store.read_manifest(folder) | {"lifts": found}
        path = folder / "manifest.json"
        write_text(path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return found
