"""Random scenes: objects at rest on a table, loose, in a tight circle, in a bin, or poured into one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from sim.scene.bin import OpenBin, random_bin
from sim.scene.objects import Object, ObjectSet
from sim.scene.scene import MAX_HEIGHT_M, MAX_OBJECTS, Scene, SceneError, assemble

GAP_M = 0.003
"""Least horizontal distance between the convex outlines of two objects."""
TILT_SHARE, TILT_MAX_DEG = 0.25, 8.0
"""A quarter of the objects are not quite at rest: leaning by up to this, as when half supported."""
SPREAD_M = 0.06
"""Objects' centres lie in a disc of radius SPREAD_M * sqrt(number of objects), wider if full."""
_PLACES, _DRAWS, _PACKINGS = 40, 20, 20
"""Tries to pack objects tightly: places for one object, objects without a place in a row, beginnings."""

Pour = Callable[[list[tuple[Object, NDArray[np.float64]]], OpenBin], NDArray[np.float64]]
"""Objects at poses T_world_object (4, 4) over a bin, to their poses (K, 4, 4) at rest."""


class NoRoomError(SceneError):
    """Objects found no room in a circle or a bin."""


def make_scene(
    objects: ObjectSet,
    rng: np.random.Generator,
    count: int | None = None,
    clutter: int = MAX_OBJECTS,
    *,
    circle_m: float | None = None,
    walled: bool = False,
    pour: Pour | None = None,
    max_height_m: float = MAX_HEIGHT_M,
) -> Scene:
    """A random scene of `count` objects of the set, or of 1 to `clutter` if count is None.

    Each rests on one of its stable poses lower than max_height_m, turned at random. Their convex
    outlines on the table are disjoint, which is more than not interpenetrating. Loose by default;
    with circle_m all centres lie in a circle of that radius [m] about the origin, and with walled a
    random bin (sim/scene/bin.py) stands around the objects. With `pour` they lie in a bin as that leaves
    them (sim/physics/pile.py), without those that stand higher than max_height_m or fell out. Raises
    SceneError if the set holds nothing low enough, or that many objects find no room.
    """
    if count is None:
        count = int(rng.integers(1, clutter + 1))
    if pour is not None:
        return _poured(objects, rng, count, pour, max_height_m)
    if circle_m is not None or walled:
        around = random_bin(rng) if walled else None
        return _packed(objects, rng, count, circle_m, around, max_height_m)
    radius = SPREAD_M * np.sqrt(count)
    chosen: list[tuple[Object, NDArray[np.float64]]] = []
    outlines: list[NDArray[np.float64]] = []
    for _ in range(count):
        thing, T = _rest(objects, rng, max_height_m)
        outline = _outline(thing, T)
        while True:
            xy = radius * np.sqrt(rng.random()) * _direction(rng)
            if all(_disjoint(outline + xy, other) for other in outlines):
                break
            radius *= 1.02
        chosen.append((thing, _moved(T, xy)))
        outlines.append(outline + xy)
    return assemble(chosen)


def _packed(
    objects: ObjectSet,
    rng: np.random.Generator,
    count: int,
    circle_m: float | None,
    around: OpenBin | None,
    max_height_m: float,
) -> Scene:
    """`count` objects with their centres in a circle, or inside a bin, by rejection.

    An object that finds no place is drawn again, so small ones are more frequent than in loose scenes; after
    _DRAWS of these the whole is begun again. Raises NoRoomError after _PACKINGS of these.
    """
    radius = circle_m if circle_m is not None else np.inf
    if around is not None:
        radius = min(radius, float(np.hypot(*around.inner_m)) / 2)
    for _ in range(_PACKINGS):
        chosen: list[tuple[Object, NDArray[np.float64]]] = []
        outlines: list[NDArray[np.float64]] = []
        missed = 0
        while missed < _DRAWS:
            thing, T = _rest(objects, rng, max_height_m)
            outline = _outline(thing, T)
            xy = _free_place(outline, outlines, radius, around, rng)
            if xy is None:
                missed += 1
                continue
            missed = 0
            chosen.append((thing, _moved(T, xy)))
            outlines.append(outline + xy)
            if len(chosen) == count:
                return assemble(chosen, around)
    room = f"a circle of {circle_m} m" if circle_m is not None else "a bin"
    raise NoRoomError(
        f"{count} objects found no room in {room} in {_PACKINGS} tries; ask for fewer, or use smaller objects"
    )


def _poured(
    objects: ObjectSet, rng: np.random.Generator, count: int, pour: Pour, max_height_m: float
) -> Scene:
    """`count` objects, each turned at random, poured one above the other into a random bin.

    Objects longer than the bin's narrower side are drawn again. Raises NoRoomError if _PACKINGS bins in a row
    come to hold nothing.
    """
    for _ in range(_PACKINGS):
        around = random_bin(rng)
        falling: list[tuple[Object, NDArray[np.float64]]] = []
        top = around.height_m
        for _ in range(count * _DRAWS):
            thing = objects.get(objects.names[rng.integers(len(objects.names))])
            middle = (thing.vertices.max(axis=0) + thing.vertices.min(axis=0)) / 2
            radius = float(np.linalg.norm(thing.vertices - middle, axis=1).max())
            free = np.array(around.inner_m) / 2 - radius - GAP_M
            if free.min() < 0:
                continue
            T = np.eye(4)
            T[:3, :3] = Rotation.random(random_state=rng).as_matrix()
            place = around.place(rng.uniform(-free, free))
            T[:3, 3] = [*place, top + radius] - T[:3, :3] @ middle
            top += 2 * radius
            falling.append((thing, T))
            if len(falling) == count:
                break
        if not falling:
            continue
        kept = []
        for (thing, _), T in zip(falling, pour(falling, around), strict=True):
            points = thing.vertices @ T[:3, :3].T + T[:3, 3]
            low, high = points.min(axis=0), points.max(axis=0)
            inside = around.holds((low + high)[None, :2] / 2, 0.0)  # it may lean on the rim
            if inside and low[2] > -GAP_M and high[2] <= max_height_m:
                kept.append((thing, T))
        if kept:
            return assemble(kept, around)
    raise NoRoomError(
        f"no object of this set stays in a bin in {_PACKINGS} tries; use smaller objects"
    )


def _free_place(
    outline: NDArray[np.float64],
    others: list[NDArray[np.float64]],
    radius: float,
    around: OpenBin | None,
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """A shift (2,) of the outline, within that radius, that is free of the others and of the walls."""
    boxes = [(other.min(axis=0) - GAP_M, other.max(axis=0) + GAP_M) for other in others]
    for _ in range(_PLACES):
        xy = radius * np.sqrt(rng.random()) * _direction(rng)
        here = outline + xy
        if around is not None and not around.holds(here, GAP_M):
            continue
        low, high = here.min(axis=0), here.max(axis=0)
        near = (
            other
            for other, (least, most) in zip(others, boxes, strict=True)
            if (low < most).all() and (high > least).all()
        )
        if all(_disjoint(here, other) for other in near):
            return np.asarray(xy)
    return None


def _outline(thing: Object, T: NDArray[np.float64]) -> NDArray[np.float64]:
    """The convex outline (N, 2) on the table of an object at T_world_object."""
    points = thing.vertices[:, :2] @ T[:2, :2].T + thing.vertices[:, 2:] * T[:2, 2] + T[:2, 3]
    return np.asarray(points[ConvexHull(points).vertices])


def _moved(T: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same pose, shifted by xy (2,) on the table."""
    moved = T.copy()
    moved[:2, 3] += xy
    return moved


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _rest(
    objects: ObjectSet, rng: np.random.Generator, max_height_m: float
) -> tuple[Object, NDArray[np.float64]]:
    """A random object in a random resting pose above the origin, low enough, turned, perhaps leaning."""
    for _ in range(1000):
        thing = objects.get(objects.names[rng.integers(len(objects.names))])
        T = thing.rest[rng.choice(len(thing.rest), p=thing.rest_probability)]
        R = _about_z(rng.uniform(-np.pi, np.pi)) @ T[:3, :3]
        if rng.random() < TILT_SHARE:
            R = _tilt(_direction(rng), np.radians(TILT_MAX_DEG) * rng.random()) @ R
        z = thing.vertices @ R[2]
        if z.max() - z.min() <= max_height_m:
            lifted = np.eye(4)
            lifted[:3, :3] = R
            # T puts the centre of mass above the origin: the object's point below it stays there.
            lifted[:2, 3] = (R @ T[:3, :3].T @ T[:3, 3])[:2]
            lifted[2, 3] = -z.min()
            return thing, lifted
    raise SceneError(
        f"no object of this set rests lower than {max_height_m} m in 1000 tries; use smaller objects"
    )


def _about_z(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _tilt(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rotation by angle about the horizontal axis (2,), by Rodrigues' formula."""
    x, y = axis
    K = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K)


def _disjoint(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """True if two convex polygons (N, 2) are at least GAP_M apart, by the separating-axis theorem."""
    for p in (a, b):
        edge = np.roll(p, -1, axis=0) - p
        normal = np.column_stack([edge[:, 1], -edge[:, 0]])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        pa, pb = normal @ a.T, normal @ b.T
        gap = np.maximum(pb.min(1) - pa.max(1), pa.min(1) - pb.max(1))
        if gap.max() >= GAP_M:
            return True
    return False
