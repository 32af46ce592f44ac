"""One shard of a training set: the options that decide its bytes, and the bytes.

sim.generate, its worker processes and the nodes of a cluster all make shards here, so that the same options
and seed give the same bytes wherever a shard is made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from rt.hand import load_hand
from rt.pose import top_down
from rt.view import VIEW
from sim.dataset import store
from sim.dataset.lifted import lifted, require_physics
from sim.dataset.store import DatasetError, ShardIdentity
from sim.scene.grasps import FRICTION, SAMPLES, Grasps, numbered_scene
from sim.scene.material import MATERIALS, MaterialScene, random_materials
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import Catalogue, ObjectError, ObjectSet, Split, object_set
from sim.scene.openrave import RENDERERS, probe
from sim.scene.rig import IDEAL, RigView, random_rig, settings
from sim.scene.scene import BIN_MAX_HEIGHT_M, CIRCLE_M, CLUTTER, Scene, camera_poses
from sim.scene.sensor import USUAL

_objects = cache(object_set)
_LIFTS, _KINDS = 7, 8
"""Streams of the choice of grasps that are lifted, and of tight scenes and bins; scenes use others."""


@dataclass(frozen=True)
class GenerateOptions:
    """Make a training set: scenes, their true grasps, and depth views of them.

    Example: python -m sim.generate --scenes 200 --views 40 --out data/small
    """

    scenes: int = 200
    """Scenes of training objects."""
    test_scenes: int | None = None
    """Scenes of test objects, for validation. Default: a twentieth of --scenes, at least 4."""
    views: int = 40
    """Depth images per scene."""
    out: Path = Path("data/grasps")
    """Folder of the set. If it holds the same set unfinished, the work goes on there."""
    seed: int = 0
    """The same seed gives the same bytes, whatever the number of workers."""
    workers: int = 0
    """Processes. 0: one for each core."""
    engine: Literal["local", "ray"] = "local"
    """Machines that make the shards: this one, or a Ray cluster (extra `cluster`)."""
    ray_address: str | None = None
    """Address of a running cluster's head, host:port, or auto. Default: a cluster of --workers processes is
    started here."""
    shard: str = "0/1"
    """i/n: make the shards k with k % n == i alone, as one of the n jobs of a batch scheduler, all into one
    folder or each into its own (sim.merge puts those together)."""
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file."""
    friction: float = FRICTION
    """Coulomb friction coefficient between pads and objects."""
    sensors: tuple[str, ...] = USUAL
    """Depth cameras, one drawn for each scene, somewhere on the hand (sim.scene.sensor, .rig); `ideal` is the
    view itself, exact."""
    odd_materials: float = 0.0
    """Share of the objects that are shiny, black or transparent to every sensor but `ideal`
    (sim.scene.material), such as 0.3."""
    renderer: Literal["raster", "embree", "openrave"] = "raster"
    """Maker of the views: raster draws what embree traces, in a fraction of the time; openrave needs
    openravepy (sim.compare compares them)."""
    grasp_samples: int = SAMPLES
    """Surface points tried for grasps on each object."""
    catalogue: Catalogue = "household"
    """Objects: the household catalogue of 381, the wide one of 1,000 of twenty categories, or both:
    scenes of either in turn."""
    tight: float = 0.0
    """Share of the scenes that are tight clutter: up to ten objects in a circle of 30 cm, such as 0.2."""
    bins: float = 0.0
    """Share of the scenes that are bins: up to ten objects of up to 25 cm inside walls of 5 to 15 cm, such as
    0.2. The other scenes are loose: one to five objects on a bare table."""
    meshes: Path | None = None
    """Folder of your own meshes (obj, stl, ply, off, glb; metres), URDF and MJCF objects to add to the
    catalogue."""
    only_meshes: bool = False
    """Use the meshes alone, without the catalogue."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = PLAIN
    physics_check: int = 0
    """Lift about this many of the set's grasps in MuJoCo and report how many hold, by category (extra
    `physics`). 0: none."""
    lift_share: float = 0.0
    """Share of the grasps that are lifted in MuJoCo while the set is made (extra `physics`), such as 0.05:
    their results are in the shards, rates by category in the manifest. About 30 a second and core."""
    scenes_per_shard: int = 20
    """Scenes in a shard, the unit of work and of resuming."""

    def objects(self, split: Split) -> ObjectSet:
        """The objects of a split; the same set however often it is asked for in a process."""
        return _objects(split, self.meshes, self.only_meshes, self.mesh, self.catalogue)

    def scene(self, split: Split, number: int) -> tuple[Scene, Grasps, np.random.Generator]:
        """A scene of the set, as numbered_scene makes it."""
        objects = self.objects(split)
        if self.catalogue == "both":
            which: Catalogue = "wide" if number % 2 else "household"
            objects = _objects(split, self.meshes, self.only_meshes, self.mesh, which)
        return numbered_scene(
            objects,
            self.seed,
            split,
            number,
            load_hand(self.hand),
            friction=self.friction,
            samples=self.grasp_samples,
            **self._kind(split, number),
        )

    def _kind(self, split: Split, number: int) -> dict[str, Any]:
        """Arguments of numbered_scene that make this scene loose, tight or a bin."""
        chance = np.random.default_rng((self.seed, store.SPLITS.index(split), number, _KINDS))
        draw, count = chance.random(), int(chance.integers(2, CLUTTER + 1))
        if draw < self.bins:
            return {"walled": True, "count": count, "max_height_m": BIN_MAX_HEIGHT_M}
        if draw < self.bins + self.tight:
            return {"circle_m": CIRCLE_M, "count": count}
        return {}


def parameters(config: GenerateOptions) -> dict[str, Any]:
    """Everything that decides the bytes of the set; raises DatasetError on a value out of range."""
    test = config.test_scenes
    if test is None:
        test = max(4, -(-config.scenes // 20))
    for name, value, least in (
        ("--scenes", config.scenes, 1),
        ("--test-scenes", test, 0),
        ("--views", config.views, 1),
        ("--grasp-samples", config.grasp_samples, 1),
        ("--scenes-per-shard", config.scenes_per_shard, 1),
        ("--seed", config.seed, 0),
        ("--workers", config.workers, 0),
        ("--physics-check", config.physics_check, 0),
    ):
        if value < least:
            raise DatasetError(f"{name} {value} must be at least {least}")
    if not 0 < config.friction <= 2:
        raise DatasetError(f"--friction {config.friction} must be above 0 and at most 2")
    if config.only_meshes and config.meshes is None:
        raise DatasetError("--only-meshes needs --meshes DIR")
    if not config.sensors:
        raise DatasetError("--sensors needs at least one; ideal is the view itself")
    if not 0 <= config.lift_share <= 1:
        raise DatasetError(f"--lift-share {config.lift_share} must be from 0 to 1")
    if config.renderer == "openrave":
        probe()
    # Their depths differ by rounding. Sets from before the rasteriser lack the key.
    traced: dict[str, Any] = {"renderer": config.renderer}
    if not 0 <= config.odd_materials <= 1:
        raise DatasetError(f"--odd-materials {config.odd_materials} must be from 0 to 1")
    if config.odd_materials > 0:
        if config.renderer != "raster":
            raise DatasetError(
                "--odd-materials needs --renderer raster, which names the faces seen"
            )
        traced["odd_materials"] = config.odd_materials
        traced["materials"] = {name: asdict(kind) for name, kind in MATERIALS.items()}
    if not (config.bins >= 0 and config.tight >= 0 and config.bins + config.tight <= 1):
        raise DatasetError(
            f"--bins {config.bins} and --tight {config.tight} are shares of the scenes: at least 0, together "
            "at most 1"
        )
    traced |= {
        name: share for name, share in (("bins", config.bins), ("tight", config.tight)) if share
    }
    if config.lift_share > 0:
        require_physics()
        traced["lift_share"] = config.lift_share
    if config.meshes is not None and config.mesh != PLAIN:
        traced["mesh"] = asdict(config.mesh)
    return traced | {
        "train_scenes": config.scenes,
        "test_scenes": test,
        "views": config.views,
        "seed": config.seed,
        "hand": asdict(load_hand(config.hand)),
        "view": asdict(VIEW),
        "rigs": settings(config.sensors),
        "friction": config.friction,
        "grasp_samples": config.grasp_samples,
        "scenes_per_shard": config.scenes_per_shard,
        "objects": {
            "train": _fingerprint(config, "train", config.scenes),
            "test": _fingerprint(config, "test", test),
        },
    }


@cache
def _set_id(config: GenerateOptions) -> str:
    return store.dataset_id(parameters(config))


def _fingerprint(config: GenerateOptions, split: Split, scenes: int) -> str:
    """Fingerprint of the objects of a split; a split without scenes needs none."""
    try:
        return config.objects(split).fingerprint()
    except ObjectError:
        if scenes:
            raise
        return ObjectSet(()).fingerprint()


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
