"""True grasps of a scene: top-down hand poses that are free on the way down and close in force closure.

Sampled on the meshes and kept if, for the hand fully open and descending straight down,
1. fingers and palm meet nothing on the way (a height map is exact for a vertical approach),
2. closing, both pads meet the same object before anything else does (lines across the fingers' whole
   inner faces: a jaw stops at the first thing it touches), and the hand is moved to the middle of it,
3. some of the lines across the jaws run, on both sides, through or between contacts whose normals lie
   in the friction cone about the closing axis, contact being whatever lies within the pads'
   compliance of the first: two soft-finger contacts on a line inside both cones are in force closure
   (Nguyen 1988), and a flat jaw presses anywhere between its outermost contacts, as inside a mug's rim,
4. the object's weight pulls no further than LEVER_M beside the closing axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand, load_hand
from rt.pose import wrap_theta
from sim.scene import SPLITS
from sim.scene.arrange import NoRoomError, Pour, make_scene
from sim.scene.closing import LINES, Surface, closed_widths
from sim.scene.hull import MAP_STEP_M, HandHull
from sim.scene.lines import Lines
from sim.scene.objects import ObjectSet
from sim.scene.raster import RasterRenderer
from sim.scene.scene import MAX_HEIGHT_M, Scene, SceneError

FRICTION = 0.5
"""Coulomb coefficient of rubber pads on household materials; 0.4 to 1 in handbooks."""
SAMPLES = 4000
"""Most surface points tried on each object."""
ENOUGH = 200
"""An object with this many grasps is sampled no further: rare grasps get the work, easy ones do not."""
TRIES = 300
"""Scenes drawn, until one has a grasp, before the set's objects are refused."""
CROWDED_TRIES = 5
"""Circles or bins drawn without room for so many objects, before these are refused."""
_ROUND = 500
"""Surface points tried on each object before looking again which of them has enough."""

MARGIN_M = 0.002
"""Free space asked for around fingers and palm on the way down: the height map's step."""
TABLE_GAP_M = 0.003
"""Lowest fingertips above the table."""
LEVER_M = 0.08
"""Longest way from a grasp's closing axis to the line of the object's weight. Pads hold a turn about the
axis by friction alone: a hammer gripped further from its head than this is lifted by the handle and
leaves its head on the table (all failures of hammers in sim.lifts were of this kind)."""


class NoGraspError(SceneError):
    """The hand can grasp none of the objects from above."""


@dataclass(frozen=True)
class Grasps:
    """True grasps of a scene."""

    poses: NDArray[np.float32]
    """(G, 5): fingertip x, y, z [m], yaw of the closing axis [rad, mod pi], width held [m]; world."""
    object: NDArray[np.int16]
    """(G,): index into scene.placed."""

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Grasps:
        return Grasps(self.poses[index], self.object[index])


def true_grasps(
    scene: Scene,
    rng: np.random.Generator,
    hand: Hand | None = None,
    *,
    friction: float = FRICTION,
    samples: int = SAMPLES,
    enough: int = ENOUGH,
    lever_m: float = LEVER_M,
    least_lines: int = LINES,
) -> Grasps:
    """Sample the scene's true grasps, trying up to `samples` surface points on each object.

    friction, lever_m and least_lines are the label's; a caller that means to try the grasps in the physics
    may be more lenient.
    """
    hand = hand or load_hand()
    lines = Lines(scene.vertices, scene.faces)
    normals, weight = _face_normals(scene), centres_of_mass(scene)
    surface = Surface(normals, scene.face_object)
    share = _face_shares(scene, normals, friction)
    reach = float(np.abs(scene.vertices[:, :2]).max()) + hand.palm_length_m
    height = RasterRenderer(scene).height_map(np.ceil(reach / 0.01) * 0.01, MAP_STEP_M)
    hull = HandHull(hand, height)
    found: list[Grasps] = []
    count = np.zeros(len(scene.placed), int)
    for begun in range(0, samples, _ROUND):
        wanting = np.flatnonzero(count < enough)
        points = min(_ROUND, samples - begun)
        some = _antipodal_candidates(
            scene, normals, share, lines, hand, friction, wanting, points, rng
        )
        # Closing moves a hand along its closing axis, which leaves the lever as it is.
        some = some[_lever_m(some, weight) <= lever_m]
        some = some[hull.clear(some.poses, MARGIN_M)]
        # Closing moves the hand to the middle of what it holds, so it is judged again there.
        some = _closed(lines, surface, some, hand, friction, least_lines)
        some = some[hull.clear(some.poses, MARGIN_M)]
        count += np.bincount(some.object, minlength=len(count))
        found.append(some)
        if (count >= enough).all():
            break
    return Grasps(
        np.concatenate([g.poses for g in found]), np.concatenate([g.object for g in found])
    )


def numbered_scene(
    objects: ObjectSet,
    seed: int,
    split: str,
    number: int,
    hand: Hand | None = None,
    *,
    friction: float = FRICTION,
    samples: int = SAMPLES,
    count: int | None = None,
    circle_m: float | None = None,
    walled: bool = False,
    pour: Pour | None = None,
    max_height_m: float = MAX_HEIGHT_M,
    empty: bool = False,
) -> tuple[Scene, Grasps, np.random.Generator]:
    """Scene `number` of a split, its true grasps (at least one), and a generator for its views.

    The scene has `count` objects, or one to five; circle_m, walled, pour and max_height_m are those of
    make_scene. The result depends on the arguments alone: the same ones give the same bytes on any worker,
    in any order. With `empty` the first scene drawn, also if it has no grasp. Raises NoGraspError if TRIES
    scenes have none, and NoRoomError if CROWDED_TRIES have no room for the objects.
    """
    root = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), number))
    crowded = 0
    for _ in range(TRIES):
        for_scene, for_grasps, for_views, root = root.spawn(4)
        try:
            scene = make_scene(
                objects,
                np.random.default_rng(for_scene),
                count,
                circle_m=circle_m,
                walled=walled,
                pour=pour,
                max_height_m=max_height_m,
            )
        except NoRoomError:  # another bin, and other objects, may do
            crowded += 1
            if crowded == CROWDED_TRIES:
                raise
            continue
        grasps = true_grasps(
            scene, np.random.default_rng(for_grasps), hand, friction=friction, samples=samples
        )
        if len(grasps) or empty:
            return scene, grasps, np.random.default_rng(for_views)
    names = ", ".join(objects.names[:5])
    raise NoGraspError(
        f"{split} scene {number}: no grasp from above in {TRIES} tries with the set's {len(objects)} objects "
        f"({names}{', ...' if len(objects) > 5 else ''}); add parts that the hand can grasp (sim.catalogue "
        "tells which)"
    )


def scene_names(
    objects: ObjectSet, seed: int, split: str, number: int, draws: int, **kind: Any
) -> Iterator[list[str]]:
    """Names of the objects in the first scenes drawn for a number: numbered_scene takes one of them.

    kind: the arguments of make_scene that numbered_scene was given.
    """
    root = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), number))
    for _ in range(draws):
        for_scene, _, _, root = root.spawn(4)
        try:
            scene = make_scene(objects, np.random.default_rng(for_scene), **kind)
        except NoRoomError:
            continue
        yield [placed.name for placed in scene.placed]


def _face_normals(scene: Scene) -> NDArray[np.float32]:
    """Outward unit normal of every face (F, 3), zero for a degenerate one."""
    a, b, c = (scene.vertices[scene.faces[:, k]] for k in range(3))
    n = np.cross(b - a, c - a)
    return np.asarray(n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-20), np.float32)


def _face_shares(
    scene: Scene, normals: NDArray[np.float32], friction: float
) -> list[NDArray[np.float64] | None]:
    """Share (F,) of each object's graspable area up to and with every face; None without such an area."""
    a, b, c = (scene.vertices[scene.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).astype(np.float64)
    # No horizontal line is in this face's cone.
    area[np.abs(normals[:, 2]) > np.sin(np.arctan(friction))] = 0
    own = [np.where(scene.face_object == k, area, 0) for k in range(len(scene.placed))]
    return [np.cumsum(o) / o.sum() if o.sum() > 0 else None for o in own]


def centres_of_mass(scene: Scene) -> NDArray[np.float64]:
    """Centre of mass (K, 3) of every object in the world, for uniform density: a sum over tetrahedra."""
    a, b, c = (scene.vertices[scene.faces[:, k]].astype(np.float64) for k in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c))
    count = len(scene.placed)
    own = scene.face_object >= 0  # a bin's walls weigh nothing here
    owner, volume, middle = scene.face_object[own], volume[own], ((a + b + c) / 4)[own]
    moment = [np.bincount(owner, volume * m, count) for m in middle.T]
    return np.stack(moment, axis=-1) / np.bincount(owner, volume, count)[:, None]


def _lever_m(grasps: Grasps, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Horizontal distance (G,) from each closing axis to the centre of mass of what it holds."""
    _, y = _axes(grasps.poses[:, 3])
    way = weight[grasps.object, :2] - grasps.poses[:, :2]
    return np.abs(np.einsum("gk,gk->g", way, y[:, :2]))


def _axes(yaw: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Closing axis x_hand and lateral axis y_hand in the world, (N, 3) each; see rt/pose.py."""
    c, s, zero = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)
    return (
        np.stack([c, s, zero], axis=-1).astype(np.float32),
        np.stack([s, -c, zero], axis=-1).astype(np.float32),
    )


def _antipodal_candidates(
    scene: Scene,
    normals: NDArray[np.float32],
    share: list[NDArray[np.float64] | None],
    lines: Lines,
    hand: Hand,
    friction: float,
    objects: NDArray[np.integer],
    points: int,
    rng: np.random.Generator,
) -> Grasps:
    """Hand poses across pairs of surface points on horizontal lines within the friction cones.

    From each of `points` points on each of these objects, drawn by `share` (_face_shares), the line is
    followed to where it first leaves the material (a wall) and to the far side of the object as seen
    from beyond the opening (the whole): both are candidates.
    """
    cone = np.arctan(friction)
    face = [
        np.searchsorted(share[k], rng.random(points), side="right")
        for k in objects
        if share[k] is not None
    ]
    if not face:
        return Grasps(np.zeros((0, 5), np.float32), np.zeros(0, np.int16))
    f = np.concatenate(face)
    u, v = np.sqrt(rng.random((len(f), 1))), rng.random((len(f), 1))
    a, b, c = (scene.vertices[scene.faces[f, k]] for k in range(3))
    p = ((1 - u) * a + u * (1 - v) * b + u * v * c).astype(np.float32)
    n = normals[f]
    # Jaws settle flat on what they hold, so most lines run close to the normal.
    inward = np.arctan2(-n[:, 1], -n[:, 0]) + cone * rng.uniform(-1, 1, len(f)) ** 3
    d, _ = _axes(inward)

    met = lines.cross(
        np.column_stack([p, d[:, :2]]), np.zeros(1), np.zeros(1), 2e-4, hand.opening_m
    )
    wall, face_wall = met.left[:, 0, 0], met.left_face[:, 0, 0]
    face_back = met.right_face[:, 0, 0]
    far = np.where(face_back >= 0, met.right[:, 0, 0], np.float32(0))

    centres, yaws, widths, owners = [], [], [], []
    owner = scene.face_object[f]
    for width, hit in ((wall, face_wall), (far, face_back)):
        good = (hit >= 0) & (scene.face_object[hit] == owner) & (width > 5e-4)
        good &= width < hand.opening_m - 2 * MARGIN_M
        if hit is face_back:  # once is enough where both pairs are the same
            good &= ~(np.abs(far - wall) <= 1e-3)
        centres.append(p[good] + 0.5 * width[good, None] * d[good])
        yaws.append(inward[good])
        widths.append(width[good])
        owners.append(owner[good])
    centre, yaw = np.concatenate(centres), np.concatenate(yaws)
    # The sampled line meets the pad's middle, or as near to it as the table lets the hand come.
    tip = np.maximum(centre[:, 2] - hand.pad_height_m / 2, TABLE_GAP_M)
    width = np.concatenate(widths)
    poses = np.column_stack([centre[:, :2], tip, wrap_theta(yaw), width]).astype(np.float32)
    return Grasps(poses, np.concatenate(owners))


def _closed(
    lines: Lines,
    surface: Surface,
    grasps: Grasps,
    hand: Hand,
    friction: float,
    least_lines: int,
) -> Grasps:
    """Close each hand: those that end in force closure, moved to the middle of the width as met."""
    width, shift = closed_widths(
        lines, surface, grasps.poses, grasps.object, hand, friction, least_lines
    )
    holds = np.flatnonzero(width > 0)
    poses = grasps.poses[holds]
    x, _ = _axes(poses[:, 3])
    poses[:, :2] += shift[holds, None] * x[:, :2]
    poses[:, 4] = width[holds]
    return Grasps(poses, grasps.object[holds])
