"""One shard of a training set: its scenes, their true grasps and views.

sim.generate, its worker processes and the nodes of a cluster all make shards here, so that the same options
and seed give the same bytes wherever a shard is made.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rt.hand import load_hand
from rt.pose import top_down
from rt.view import VIEW
from sim.dataset import store
from sim.dataset.lifted import lifted
from sim.dataset.options import GenerateOptions, parameters
from sim.dataset.store import ShardIdentity
from sim.scene.material import MaterialScene, random_materials
from sim.scene.objects import Split
from sim.scene.openrave import RENDERERS
from sim.scene.rig import IDEAL, RigView, random_rig
from sim.scene.scene import camera_poses

_LIFTS = 7
"""Stream of the choice of grasps that are lifted; scenes use others."""


@cache
def _set_id(config: GenerateOptions) -> str:
    return store.dataset_id(parameters(config))


def make_shard(
    config: GenerateOptions, folder: Path, split: Split, shard: int, numbers: range
) -> int:
    """Make and write one shard; returns the number of grasps in it."""
    hand, rays = load_hand(config.hand), VIEW.rays()
    depth = np.zeros((len(numbers) * config.views, VIEW.size_px, VIEW.size_px), np.uint16)
    cameras, poses, owners, names, sensors = [], [], [], [], []
    row, lifts = 0, []
    for number in numbers:
        scene, grasps, rng = config.scene(split, number)
        camera = camera_poses(scene, config.views, rng)
        rig, renderer = random_rig(config.sensors, hand, rng), RENDERERS[config.renderer](scene)
        special = None
        if rig and config.odd_materials > 0:
            kinds = random_materials(len(scene.placed), config.odd_materials, rng)
            special = MaterialScene(scene, kinds, rig.intrinsics)
        seen = RigView(renderer, rig, hand, materials=special) if rig else None
        for pose in camera:
            view = seen(pose, rng) if seen else renderer.depth(top_down(*pose), rays)
            depth[row] = encode_depth(view)
            row += 1
        cameras.append(camera)
        poses.append(grasps.poses)
        owners.append(grasps.object)
        names.append([placed.name for placed in scene.placed])
        sensors.append(rig.sensor.name if rig else IDEAL)
        if config.lift_share > 0:
            chance = np.random.default_rng((config.seed, store.SPLITS.index(split), number, _LIFTS))
            lifts.append(lifted(scene, grasps, config.lift_share, chance, hand, config.friction))
    store.write_shard(
        store.shard_path(folder, split, shard),
        {
            "depth": depth,
            "camera": np.concatenate(cameras),
            "grasps": np.concatenate(poses),
            "grasp_object": np.concatenate(owners),
            "grasp_start": np.cumsum([0] + [len(p) for p in poses]).astype(np.int64),
        },
        names,
        sensors,
        ShardIdentity(_set_id(config), split, shard),
        **({"lifts": lifts} if config.lift_share > 0 else {}),
    )
    return sum(len(p) for p in poses)


def encode_depth(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth in metres as stored, in 0.1 mm; depths outside the view's range become 0."""
    seen = (depth >= VIEW.near_m) & (depth <= VIEW.far_m)
    return np.where(seen, np.rint(depth / store.DEPTH_UNIT_M), 0).astype(np.uint16)
