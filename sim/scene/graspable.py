"""Grasps of single objects: in which of its resting poses a hand can grasp an object from above, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.spatial import ConvexHull

from rt.hand import Hand
from sim.scene.grasps import MARGIN_M, NoGraspError, true_grasps
from sim.scene.objects import Object, ObjectSet
from sim.scene.scene import MAX_HEIGHT_M, assemble

WHOLE_SHARE = 0.8
"""A grasp that is wider than this part of the object, along the closing axis, holds all of it."""
_SAMPLES = 1000
"""Surface points tried in each resting pose."""
_NAMED = 5
"""Most objects named in a refusal."""


@dataclass(frozen=True)
class PoseGrasps:
    """Grasps of an object in one of its resting poses."""

    probability: float
    height_m: float
    count: int
    """Grasps found; 0 also if the object stands too high for the hand (MAX_HEIGHT_M)."""
    width_m: tuple[float, float] | None
    """Least and largest width held."""
    whole: float
    """Share of the grasps that hold all of the object's width; the others hold a wall, a rim or a handle."""

    def __str__(self) -> str:
        if self.height_m > MAX_HEIGHT_M:
            return f"too high ({self.height_m * 1e3:.0f} mm)"
        if self.width_m is None:
            return "none"
        low, high = (w * 1e3 for w in self.width_m)
        by = "whole" if self.whole > 0.9 else "part" if self.whole < 0.1 else "whole and part"
        return f"{by}, {low:.0f} to {high:.0f} mm"


def grasps_at_rest(thing: Object, hand: Hand) -> list[PoseGrasps]:
    """The grasps of an object that lies alone, for each of its resting poses."""
    found = []
    for T, probability in zip(thing.rest, thing.rest_probability, strict=True):
        scene = assemble([(thing, T)])
        height = float(scene.vertices[:, 2].max())
        if height > MAX_HEIGHT_M:
            found.append(PoseGrasps(float(probability), height, 0, None, 0.0))
            continue
        grasps = true_grasps(scene, np.random.default_rng(0), hand, samples=_SAMPLES)
        if not len(grasps):
            found.append(PoseGrasps(float(probability), height, 0, None, 0.0))
            continue
        widths = grasps.poses[:, 4]
        axis = np.stack([np.cos(grasps.poses[:, 3]), np.sin(grasps.poses[:, 3])])
        across = np.ptp(scene.vertices[:, :2] @ axis, axis=0)
        found.append(
            PoseGrasps(
                float(probability),
                height,
                len(grasps),
                (float(widths.min()), float(widths.max())),
                float((widths > WHOLE_SHARE * across).mean()),
            )
        )
    return found


def least_width_m(thing: Object) -> float:
    """The least horizontal width of an object, over its resting poses and all directions."""
    least = math.inf
    for T in thing.rest:
        points = thing.vertices @ T[:2, :3].T
        hull = points[ConvexHull(points).vertices]
        edge = np.roll(hull, -1, axis=0) - hull
        normal = np.column_stack([edge[:, 1], -edge[:, 0]])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        least = min(least, float(np.ptp(hull @ normal.T, axis=0).min()))
    return least


@cache
def _graspable(objects: ObjectSet, name: str, hand: Hand) -> bool:
    return any(pose.count for pose in grasps_at_rest(objects.get(name), hand))


def require_graspable(objects: ObjectSet, split: str, hand: Hand) -> None:
    """Raise NoGraspError if the hand can grasp no object of a set from above, in any resting pose."""
    if any(_graspable(objects, name, hand) for name in objects.names):
        return
    widths = {name: least_width_m(objects.get(name)) for name in objects.names}
    named = [
        f"{name} is at least {w * 1e3:.0f} mm wide" for name, w in list(widths.items())[:_NAMED]
    ]
    more = f" and {len(widths) - _NAMED} more" if len(widths) > _NAMED else ""
    raise NoGraspError(
        f"the hand can grasp none of the {len(widths)} objects of the {split} split from above "
        f"({', '.join(named)}{more}; the hand opens {hand.opening_m * 1e3:.0f} mm and needs "
        f"{2 * MARGIN_M * 1e3:.0f} mm of that free): add parts that fit, or leave these out"
    )
