"""The catalogue: 381 CAD objects of ten household categories, each a (category, index).

The same (category, index) always gives the same mesh: it has a generator of its own, seeded by nothing
else. Instances cycle through the styles of their category and draw the rest. The split follows the
numbers of Viereck et al. (CoRL 2017): 331 objects for training, 50 for test, every category in both.
`sim.catalogue.wide` is a second catalogue of 1,000 objects of twenty categories.

`python -m sim.catalogue` draws them all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from manifold3d import Manifold, Mesh
from numpy.typing import NDArray

from . import boxes, tools, toys, vessels, wide

VERSION = 2
"""Raised whenever the shape of any instance changes: a data set names it among its parameters."""

FAMILIES: dict[str, tuple[Callable[[np.random.Generator, int], Manifold], int]] = {
    "apple": (toys.apple, 38),
    "bottle": (vessels.bottle, 38),
    "camera": (boxes.camera, 38),
    "can": (vessels.can, 38),
    "flashlight": (tools.flashlight, 38),
    "hammer": (tools.hammer, 38),
    "mug": (vessels.mug, 39),
    "screwdriver": (tools.screwdriver, 38),
    "tetra_pak": (boxes.tetra_pak, 38),
    "toy_car": (toys.toy_car, 38),
}
"""The function that draws a category's instances, and how many it has."""

CATEGORIES = tuple(FAMILIES)

_TOLERANCE_MM = 0.03
"""Features below this are merged: far under what a depth camera sees, far above float32 rounding."""


def instance_name(category: str, index: int) -> str:
    return f"{category}/{index:03d}"


def instance_split(index: int) -> str:
    """Every seventh instance of a category, five in all, is for test."""
    return "test" if index % 7 == 3 and index < 35 else "train"


def instances() -> list[tuple[str, int]]:
    """Every (category, index)."""
    return [
        (category, index) for category, (_, count) in FAMILIES.items() for index in range(count)
    ]


def generator(category: str, index: int) -> np.random.Generator:
    """The instance's own source of chance."""
    return np.random.default_rng([*category.encode(), index])


def mesh(category: str, index: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices (V, 3) in metres and faces (F, 3) of an instance: closed, outward, z up."""
    draw, count = (FAMILIES if category in FAMILIES else wide.WIDE)[category]
    if not 0 <= index < count:
        raise IndexError(f"{category} has instances 0 to {count - 1}, not {index}")
    drawn = draw(generator(category, index), index).to_mesh()
    # Edges that Boolean operations leave in pairs a hair apart collapse only in a mesh that is given a
    # tolerance from the start: five times fewer slivers than simplifying the solid itself.
    solid = Manifold(
        Mesh(
            np.array(drawn.vert_properties[:, :3], dtype=np.float32),
            np.array(drawn.tri_verts, dtype=np.uint32),
            tolerance=_TOLERANCE_MM,
        )
    ).simplify(_TOLERANCE_MM)
    result = solid.scale([1e-3] * 3).to_mesh()
    vertices = np.array(result.vert_properties[:, :3], dtype=np.float32)
    return vertices, np.array(result.tri_verts, dtype=np.int32)
