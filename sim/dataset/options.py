"""Options of a training set: all that decides its bytes, as asked for, and as its manifest keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from rt.hand import load_hand
from rt.view import VIEW
from sim.dataset import store
from sim.dataset.lifted import require_physics
from sim.dataset.store import DatasetError
from sim.scene.grasps import FRICTION, SAMPLES, Grasps, numbered_scene, scene_names
from sim.scene.material import MATERIALS
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import Catalogue, ObjectError, ObjectSet, Split, object_set
from sim.scene.openrave import probe
from sim.scene.rig import settings
from sim.scene.scene import BIN_MAX_HEIGHT_M, CIRCLE_M, CLUTTER, PILED, Scene
from sim.scene.sensor import USUAL

_objects = cache(object_set)
_KINDS = 8
"""Stream of the choice of tight scenes, bins and piles; scenes use others."""


def kind_of_scene(kind: Literal["tight", "bin", "pile"], count: int) -> dict[str, Any]:
    """Arguments of numbered_scene for so many objects in a circle, in a bin, or poured into one."""
    if kind == "tight":
        return {"circle_m": CIRCLE_M, "count": count}
    inside: dict[str, Any] = {"count": count, "max_height_m": BIN_MAX_HEIGHT_M}
    if kind == "bin":
        return {"walled": True, **inside}
    from sim.physics.pile import pour

    return {"pour": pour, **inside}


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
    piles: float = 0.0
    """Share of the scenes that are piles: 5 to 20 objects poured into such a bin, on each other, such as 0.2
    (extra `physics`; half a second a scene)."""
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
        return numbered_scene(
            self._objects(split, number),
            self.seed,
            split,
            number,
            load_hand(self.hand),
            friction=self.friction,
            samples=self.grasp_samples,
            **self._kind(split, number),
        )

    def names(self, split: Split, number: int, draws: int) -> Iterator[list[str]]:
        """Names of the objects in the first scenes drawn for a number; its scene is one of them."""
        objects, kind = self._objects(split, number), self._kind(split, number)
        return scene_names(objects, self.seed, split, number, draws, **kind)

    def _objects(self, split: Split, number: int) -> ObjectSet:
        """The objects that a scene is drawn from."""
        if self.catalogue != "both":
            return self.objects(split)
        which: Catalogue = "wide" if number % 2 else "household"
        return _objects(split, self.meshes, self.only_meshes, self.mesh, which)

    def _kind(self, split: Split, number: int) -> dict[str, Any]:
        """Arguments of numbered_scene that make this scene loose, tight, a bin or a pile."""
        chance = np.random.default_rng((self.seed, store.SPLITS.index(split), number, _KINDS))
        draw, count = chance.random(), int(chance.integers(2, CLUTTER + 1))
        if draw < self.bins:
            return kind_of_scene("bin", count)
        if draw < self.bins + self.tight:
            return kind_of_scene("tight", count)
        if draw < self.bins + self.tight + self.piles:
            return kind_of_scene("pile", int(chance.integers(PILED[0], PILED[1] + 1)))
        return {}


_ELSEWHERE = ("out", "workers", "engine", "ray_address", "shard", "physics_check")
"""Options that decide where and how a set is made, not its bytes."""


def manifest(config: GenerateOptions) -> dict[str, Any]:
    """The manifest of the set that these options make. Raises DatasetError on a value out of range."""
    params = parameters(config)
    asked = {name: value for name, value in asdict(config).items() if name not in _ELSEWHERE}
    for name in ("meshes", "hand"):  # wherever the set is read
        if asked[name] is not None and Path(asked[name]).exists():
            asked[name] = str(Path(asked[name]).resolve())
    made = {"format": store.FORMAT, "id": store.dataset_id(params), "params": params}
    return made | {"options": json.loads(json.dumps(asked, default=str))}


def options_of(made: dict[str, Any]) -> GenerateOptions | None:
    """The options that a set was made with, by its manifest; None in one from before manifests had them."""
    asked = made.get("options")
    if asked is None:
        return None
    known = {own.name for own in fields(GenerateOptions)} - set(_ELSEWHERE)
    if other := sorted(set(asked) - known):  # those that it lacks are newer, and at their defaults
        raise DatasetError(
            f"the manifest has options that this version does not know ({', '.join(other)}); make the set "
            "again"
        )
    meshes = None if asked["meshes"] is None else Path(asked["meshes"])
    values = asked | {"sensors": tuple(asked["sensors"]), "mesh": MeshOptions(**asked["mesh"])}
    return GenerateOptions(**values | {"meshes": meshes})


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
    shares = {name: getattr(config, name) for name in ("bins", "tight", "piles")}
    if not (min(shares.values()) >= 0 and sum(shares.values()) <= 1):
        named = ", ".join(f"--{name} {share}" for name, share in shares.items())
        raise DatasetError(f"{named} are shares of the scenes: at least 0, together at most 1")
    traced |= {name: share for name, share in shares.items() if share}
    if config.piles:
        require_physics("--piles")
    if config.lift_share > 0:
        require_physics("--lift-share")
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


def _fingerprint(config: GenerateOptions, split: Split, scenes: int) -> str:
    """Fingerprint of the objects of a split; a split without scenes needs none."""
    try:
        return config.objects(split).fingerprint()
    except ObjectError:
        if scenes:
            raise
        return ObjectSet(()).fingerprint()
