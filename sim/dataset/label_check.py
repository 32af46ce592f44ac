"""Lift a sample of a training set's labels in MuJoCo: `sim.generate --physics-check K`, by category."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rt.hand import Hand, load_hand
from rt.tools.command import screen
from rt.tools.files import output_folder, write_json
from rt.tools.pool import spread
from sim.dataset import store
from sim.dataset.options import GenerateOptions
from sim.dataset.store import DatasetError
from sim.lifts import LiftRecord, draw, lift_grasps, rate_table, rates
from sim.physics.convex import PhysicsError
from sim.scene.objects import Split

ENOUGH = 0.85
"""Categories whose labels hold less often are named."""

Scene = tuple[Split, int]


def sample(folder: Path, k: int, seed: int) -> list[Scene]:
    """Scenes in random order, as many as together have at least k objects with grasps."""
    manifest = store.read_manifest(folder)
    chosen: list[Scene] = []
    objects: dict[Scene, int] = {}
    for split in store.SPLITS:
        for number, scenes in enumerate(store.shard_scenes(manifest, split)):
            path = store.shard_path(folder, split, number)
            if not path.is_dir():  # another job's, with --shard
                continue
            owner, start = (np.load(path / f"{n}.npy") for n in ("grasp_object", "grasp_start"))
            for i, scene in enumerate(scenes):
                objects[split, scene] = len(np.unique(owner[start[i] : start[i + 1]]))
    if not objects:
        return []
    order, names = np.random.default_rng((seed, k)).permutation(len(objects)), list(objects)
    count = 0
    for index in order:
        if count >= k:
            break
        chosen.append(names[index])
        count += objects[chosen[-1]]
    return chosen


def stored_grasps(folder: Path, split: Split, number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The grasps (G, 5) that the set holds for a scene."""
    step = store.read_manifest(folder)["params"]["scenes_per_shard"]
    path, i = store.shard_path(folder, split, number // step), number % step
    start = np.load(path / "grasp_start.npy")
    return np.asarray(np.load(path / "grasps.npy")[start[i] : start[i + 1]])


def lift_scene(config: GenerateOptions, scene: Scene) -> list[LiftRecord]:
    """One grasp of each object of a scene, lifted. Raises DatasetError if the set holds other grasps."""
    split, number = scene
    hand: Hand = load_hand(config.hand)
    made, grasps, _ = config.scene(split, number)
    if not np.array_equal(grasps.poses, stored_grasps(config.out, split, number)):
        raise DatasetError(
            f"{config.out}: {split} scene {number} has other grasps than this version makes; check it "
            "with sim.verify, or make the set again"
        )
    rng = np.random.default_rng((config.seed, number))
    return lift_grasps(made, grasps, rng, 1, hand, number=number, friction=config.friction)


def check_labels(config: GenerateOptions) -> dict[str, Any]:
    """Lift at least config.physics_check grasps of the set at config.out; rates as sim.lifts gives them.

    Raises PhysicsError without the extra `physics`.
    """
    try:
        import sim.physics.lift  # noqa: F401
    except ImportError as error:
        raise PhysicsError(
            f"--physics-check needs the extra `physics` (pip install 'grasp-servo[physics]'): {error}"
        ) from error
    scenes = sample(config.out, config.physics_check, config.seed)
    work = partial(lift_scene, config)
    lifted = spread(work, scenes, config.workers, unit="scene", title="lifts")
    return rates([record for some in lifted for record in some])


def report(config: GenerateOptions, found: dict[str, Any]) -> Path:
    """Print the table and write label_check.json and label_check.png; returns their folder."""
    folder = output_folder("label_check")
    content = {
        "command": "sim.generate --physics-check",
        "folder": str(config.out),
        "id": store.read_manifest(config.out)["id"],
        "seed": config.seed,
        "categories": found,
    }
    write_json(folder / "label_check.json", content)
    draw(found, folder / "label_check.png")
    screen().print(rate_table(found))
    few = [n for n, r in found.items() if r["n"] and r["rate"] < ENOUGH]
    print(f"categories under {ENOUGH:.0%}: {', '.join(few) or 'none'}; {folder}/label_check.json")
    return folder
