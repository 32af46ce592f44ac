"""Draw the objects: `python -m sim.catalogue` writes a contact sheet and a table of all of them.

For every object it says in how many resting poses the hand can grasp it from above, and how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table

from rt.hand import Hand, HandError, load_hand
from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_figure, write_json
from rt.tools.pool import PoolError, spread
from rt.tools.progress import progress
from sim.scene.graspable import PoseGrasps, grasps_at_rest
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import Catalogue, Object, ObjectError, ObjectSet, object_set
from sim.scene.render import Renderer
from sim.scene.scene import assemble

_PAPER = np.array([0.965, 0.965, 0.955])
_INK = {"train": np.array([0.62, 0.70, 0.80]), "test": np.array([0.93, 0.66, 0.36])}
_OVERSAMPLE = 2
_CREASE_COS = 0.82
"""Edges sharper than this are inked."""


@dataclass(frozen=True)
class CatalogueOptions:
    """Draw a contact sheet of the objects: the catalogue's and your own meshes. Test objects are orange.

    Example: python -m sim.catalogue --category mug hammer
    """

    category: tuple[str, ...] = ()
    """Only these categories. Default: all."""
    split: Literal["train", "test", "all"] = "all"
    """Only objects of this split."""
    catalogue: Catalogue = "household"
    """The household catalogue of 381 objects, or the wide one of 1,000."""
    meshes: Path | None = None
    """Folder of your own meshes (obj, stl, ply, off, glb; metres) to add."""
    only_meshes: bool = False
    """Your own meshes alone, without the catalogue."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = PLAIN
    hand: str = "robotiq_2f85"
    """Hand: a name in rt/hands/ or a TOML file."""
    grasps: bool = True
    """Find in which resting poses the hand can grasp each object, and how."""
    workers: int = 0
    """Processes that find grasps. 0: one for each core."""
    columns: int = 20
    """Objects in a row of the sheet."""
    tile: int = 120
    """Width of an object's picture, pixels."""
    out: Path | None = None
    """Folder for catalogue.png and catalogue.json. Default: runs/catalogue/<time>/."""


def render(thing: Object, split: str, size: int, half_width_m: float) -> NDArray[np.float64]:
    """A shaded picture (size, size, 3) of an object as modelled, seen from its front, right and above.

    Parallel projection; half_width_m is half the side of the square seen, so that sizes compare.
    """
    n = size * _OVERSAMPLE
    forward = np.array([-0.52, 0.72, -0.46])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    u = ((np.arange(n) + 0.5) / n * 2 - 1) * half_width_m
    x, y = np.meshgrid(u, -u)
    centre = 0.5 * (thing.vertices.min(axis=0) + thing.vertices.max(axis=0))
    origins = centre - forward + x[..., None] * right + y[..., None] * up
    origins = origins.reshape(-1, 3).astype(np.float32)
    directions = np.tile(forward.astype(np.float32), (len(origins), 1))
    caster = Renderer(assemble([(thing, np.eye(4))]))
    distance, face = caster.cast(origins, directions)
    corners = thing.vertices[thing.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    hit = (face >= 0).reshape(n, n)
    normal = np.where(hit[..., None], normals[face].reshape(n, n, 3), 0.0)
    depth = np.where(hit, distance.reshape(n, n), 3.0)
    key, fill = np.array([0.15, -0.55, 0.82]), np.array([-0.9, -0.3, 0.1])
    key, fill = key / np.linalg.norm(key), fill / np.linalg.norm(fill)
    light = 0.34 + 0.62 * np.clip(normal @ key, 0, None) + 0.16 * np.clip(normal @ fill, 0, None)
    edge = np.zeros((n, n), dtype=bool)
    for axis in (0, 1):
        step = np.abs(np.diff(depth, axis=axis)) > 0.06 * half_width_m
        one, two = (np.take(normal, np.arange(a, n - 1 + a), axis=axis) for a in (0, 1))
        crease = np.einsum("ijk,ijk->ij", one, two) < _CREASE_COS
        drawn = step | (crease & (np.linalg.norm(one, axis=-1) > 0))
        edge |= np.pad(drawn, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
    picture = np.where(hit[..., None], np.clip(light[..., None] * _INK[split] * 1.25, 0, 1), _PAPER)
    picture[edge] *= 0.45
    shape = (size, _OVERSAMPLE, size, _OVERSAMPLE, 3)
    return np.asarray(picture.reshape(shape).mean(axis=(1, 3)))


def sheet(
    rows: Sequence[Sequence[tuple[Object, str]]], config: CatalogueOptions, path: Path
) -> None:
    """Write the sheet: for each category (object, split) in rows of `columns`, at one scale a category."""
    tile, label = config.tile, 16
    columns = min(config.columns, max(len(row) for row in rows))
    lines = [(row, row[k : k + columns]) for row in rows for k in range(0, len(row), columns)]
    title = 26
    height = sum(tile + label for _ in lines) + title * len(rows)
    canvas = np.broadcast_to(_PAPER, (height, columns * tile, 3)).copy()
    texts: list[tuple[float, float, str, dict[str, Any]]] = []
    y, above = 0, None
    total = sum(len(row) for row in rows)
    with progress(total=total, unit="object", title="drawing") as bar:
        for row, line in lines:
            if row is not above:
                # Half of the largest diagonal: nothing is cut off, and sizes compare.
                half = 0.5 * max(float(np.linalg.norm(np.ptp(o.vertices, axis=0))) for o, _ in row)
                text = f"{row[0][0].category}   {len(row)} objects, each picture {200 * half:.0f} cm wide"
                texts.append((6, y + 18, text, {"size": 9, "weight": "bold"}))
                y, above = y + title, row
            for k, (thing, split) in enumerate(line):
                picture = render(thing, split, tile, half)
                canvas[y : y + tile, k * tile : (k + 1) * tile] = picture
                name = thing.name.rpartition("/")[2] + (" test" if split == "test" else "")
                colour = "#b35a00" if split == "test" else "#555555"
                place = (k + 0.5) * tile, y + tile + 9
                texts.append((*place, name, {"size": 6, "ha": "center", "color": colour}))
                bar.update()
            y += tile + label
    dpi = 100
    figure = plt.figure(figsize=(columns * tile / dpi, height / dpi), dpi=dpi)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(canvas, interpolation="none", extent=(0, columns * tile, height, 0))
    axes.axis("off")
    for x, at, text, style in texts:
        axes.text(x, at, text, va="baseline", **style)
    write_figure(figure, path)


def describe(thing: Object, split: str, poses: list[PoseGrasps] | None) -> dict[str, Any]:
    """An object's entry in catalogue.json; poses: its grasps in each resting pose, if they were found."""
    found: dict[str, Any] = {}
    if poses is not None:
        found["graspable_poses"] = sum(pose.count > 0 for pose in poses)
        found["grasps"] = [{**asdict(pose), "how": str(pose)} for pose in poses]
    return found | {
        "name": thing.name,
        "category": thing.category,
        "split": split,
        "extents_mm": [round(float(e) * 1e3, 2) for e in np.ptp(thing.vertices, axis=0)],
        "faces": len(thing.faces),
        "resting_poses": len(thing.rest),
        "rest_probability": [round(float(p), 4) for p in thing.rest_probability],
    }


def ways(objects: ObjectSet, hand: Hand, name: str) -> list[PoseGrasps]:
    """The grasps of the object of a name, in each of its resting poses."""
    return grasps_at_rest(objects.get(name), hand)


def way_line(name: str, poses: list[PoseGrasps]) -> str:
    """One object's grasps in words."""
    held = sum(pose.count > 0 for pose in poses)
    each = "; ".join(f"{pose.probability:.0%} {pose}" for pose in poses)
    return f"{name}: graspable in {held} of {len(poses)} resting poses ({each})"


def report(
    rows: Sequence[Sequence[tuple[Object, str]]], found: dict[str, list[PoseGrasps]]
) -> Table:
    """A row for each category; found: the grasps of each name, empty if they were not asked for."""
    table = Table("category", "train", "test", "longest side, mm", "faces", "resting poses")
    if found:
        table.add_column("graspable poses")
    for row in rows:
        longest = [float(np.ptp(o.vertices, axis=0).max()) * 1e3 for o, _ in row]
        faces, poses = [len(o.faces) for o, _ in row], [len(o.rest) for o, _ in row]
        test = sum(split == "test" for _, split in row)
        table.add_row(
            row[0][0].category,
            str(len(row) - test),
            str(test),
            *(f"{min(v):.0f} to {max(v):.0f}" for v in (longest, faces, poses)),
            *_graspable_cell([found[o.name] for o, _ in row if o.name in found]),
        )
    return table


def _graspable_cell(every: list[list[PoseGrasps]]) -> list[str]:
    if not every:
        return []
    held = sum(pose.count > 0 for poses in every for pose in poses)
    never = sum(not any(pose.count for pose in poses) for poses in every)
    return [f"{held} of {sum(map(len, every))}" + (f", {never} objects never" if never else "")]


def run(config: CatalogueOptions) -> Path:
    """Draw and describe the objects; returns the folder written. Raises ObjectError if there are none."""
    for name, value, least in (("--columns", config.columns, 1), ("--tile", config.tile, 32)):
        if value < least:
            raise ObjectError(f"{name} {value} must be at least {least}")
    objects = object_set(
        config.split, config.meshes, config.only_meshes, config.mesh, config.catalogue
    )
    known = sorted({objects.category(name) for name in objects.names})
    if unknown := sorted(set(config.category) - set(known)):
        raise ObjectError(f"no category {', '.join(unknown)}; there are {', '.join(known)}")
    hand = load_hand(config.hand)
    test = set(objects.names if config.split == "test" else ())
    if config.split == "all":
        one_mesh = config.only_meshes and len(objects) == 1
        test = (
            set()
            if one_mesh
            else set(
                object_set(
                    "test", config.meshes, config.only_meshes, config.mesh, config.catalogue
                ).names
            )
        )
    objects.say_skipped()
    by_category: dict[str, list[tuple[Object, str]]] = {}
    for name in progress(objects.names, unit="object", title="building"):
        if not config.category or objects.category(name) in config.category:
            thing = objects.get(name)
            split = "test" if name in test else "train"
            by_category.setdefault(thing.category, []).append((thing, split))
    rows = [by_category[c] for c in sorted(by_category)]
    found: dict[str, list[PoseGrasps]] = {}
    if config.grasps:
        names = [thing.name for row in rows for thing, _ in row]
        work = partial(ways, objects, hand)
        lists = spread(work, names, config.workers, unit="object", title="grasps")
        found = dict(zip(names, lists, strict=True))
    out = output_folder("catalogue", config.out)
    sheet(rows, config, out / "catalogue.png")
    entries = {
        "fingerprint": objects.fingerprint(),
        "objects": [describe(*entry, found.get(entry[0].name)) for row in rows for entry in row],
        "skipped": [{"file": file, "reason": reason} for file, reason in objects.skipped],
    }
    write_json(out / "catalogue.json", entries)
    screen().print(report(rows, found))
    for name, poses in found.items():
        if name in objects.files or not any(pose.count for pose in poses):
            print(way_line(name, poses))
    return out


@command(
    "sim.catalogue",
    CatalogueOptions,
    mistakes=(ObjectError, HandError),
    failures=(PoolError,),
    description=__doc__,
)
def main(config: CatalogueOptions) -> int:
    out = run(config)
    print(f"{out}/catalogue.png, {out}/catalogue.json")
    return 0


if __name__ == "__main__":
    # Worker processes do not import a package's __main__ by that name: `ways` must belong to the module.
    from sim.catalogue import __main__ as module

    raise SystemExit(module.main())
