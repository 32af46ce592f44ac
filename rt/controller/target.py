"""The wanted object: a point of it in base, followed with the scene, and the candidates that are on it.

A target is a point and the farthest that its object may reach from there. The object itself is read from the
remembered heights: all cells that hang together with the point, without a step. Candidates elsewhere get
OFF_TARGET_M and their way to it on top of their score: none is chosen while one on the object is left, and a
hand that is still far away goes toward it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rt.controller.motion import Shift
from rt.grasp.memory import CELL_M, HeightMemory
from rt.guard.limits import Limits, outside_m

OFF_TARGET_M = 1.0
"""Added to the score of a candidate off the wanted object: more than any distance, doubt or unseen ground."""
RADIUS_M = 0.10
"""Reach of an object from the point, where only the point is given."""
NEAR_M = 0.02
"""An object begins within this of the point (the middle of a ring is table); where nothing stands, places
this near to the point are on it."""
LOW_M = 0.005
"""Lower than this is table."""
STEP_M = 0.010
"""A higher step between neighbouring cells of the height map is the border of another object."""
MARGIN_M = 0.005
"""A hand's middle may be this far outside: a cell of the height map."""
NEWS, OWN_SHARE = 0.15, 0.4
"""Weight of the newest view in the share of views in which a cell was the object's, and the share from which
on it is: slopes are steps in some views and none in others."""
_ALONG = np.arange(-0.03, 0.031, CELL_M)
_ABOUT = np.stack(np.meshgrid(_ALONG, _ALONG), axis=-1).reshape(-1, 2)
_ABOUT = _ABOUT[np.hypot(*_ABOUT.T) < 0.031]
"""Points about a target whose heights tell whether it is still the same place."""
_SEEN = 0.5
SAME_M = 0.0015
"""A place that differs by less from how it looked at first has not moved."""
_REMEMBERED = 64
"""Shifts that a target which was seen earlier is carried by: two seconds at 30 Hz."""


@dataclass(frozen=True)
class TargetPoint:
    """A point of the wanted object, as it was at one time."""

    xy_m: tuple[float, float]
    """x and y in base."""
    radius_m: float = RADIUS_M
    """No part of the object is further from the point."""
    seen_s: float = -np.inf
    """Time of the exposure that showed it there, on the clock of Surroundings.exposed_s; minus infinity: of
    no picture, it stands."""

    def trouble(self, limits: Limits) -> str:
        """Reason why no hand within the workspace comes to the object, or an empty text."""
        off_m = outside_m(self.xy_m, limits)
        if off_m <= self.radius_m:
            return ""
        x, y = self.xy_m
        (x0, y0), (x1, y1) = limits.workspace_min_m, limits.workspace_max_m
        mm = off_m > 1 and outside_m((x / 1e3, y / 1e3), limits) <= self.radius_m
        return (
            f"the wanted object at {x:.3f}, {y:.3f} m lies {off_m:.3f} m outside the workspace "
            f"(x {x0:g} to {x1:g}, y {y0:g} to {y1:g} m)" + ("; is it given in mm?" if mm else "")
        )


class FollowedTarget:
    """The target that was given last, moved with the scene since.

    A registration of two views may err, most where little stands. So the target only goes along if the
    heights about it no longer look as they did at first, and look more so where it is to go; and not before
    they have been seen.
    """

    def __init__(self) -> None:
        self.now: TargetPoint | None = None
        """None: any object."""
        self._given: TargetPoint | None = None
        self._at = self._along = np.zeros(4)
        """(4,) like a hand: where `now` is, and the same moved by all shifts since that was believed."""
        self._looks: NDArray[np.float32] | None = None
        """(N,) heights about the target at first."""
        self._share: NDArray[np.float64] | None = None
        """(n, n) share of the last views in which a cell of object_cells was the object's."""
        self._shifts: deque[tuple[float, Shift]] = deque(maxlen=_REMEMBERED)

    def give(self, target: TargetPoint | None) -> None:
        """Take a target; one that is equal to the last one is no news. One of an earlier picture is moved as
        the scene has moved since."""
        if target == self._given:
            return
        self._given, self.now, self._looks, self._share = target, target, None, None
        if target is None:
            return
        at = np.array([*target.xy_m, 0.0, 0.0])
        if np.isfinite(target.seen_s):
            for seen_s, shift in self._shifts:
                at = shift.carry(at[None])[0] if seen_s > target.seen_s else at
        self._go(at)

    def of(self, target: TargetPoint | None) -> TargetPoint | None:
        """The target now: followed if it is the last one given, else as it is."""
        return self.now if target == self._given else target

    def carry(self, shift: Shift, exposed_s: float, heights: HeightMemory | None) -> None:
        """The scene has moved by this, up to the view exposed then, which the heights know already."""
        self._shifts.append((exposed_s, shift))
        if self.now is None or (heights is not None and self._looks is None):
            return
        self._along = shift.carry(self._along[None])[0]
        if heights is None or self._looks is None:
            self._go(self._along)
            return
        stays, goes = (_unlike(self._looks, heights, at) for at in (self._at, self._along))
        if stays >= SAME_M and goes < stays:
            self._go(self._along)
        elif goes > stays + SAME_M:
            self._along = self._at

    def look(self, heights: HeightMemory | None) -> None:
        """Take in the heights after a view: the cells that are the object's, and its looks once they have
        been seen."""
        if self.now is None or heights is None:
            return
        found = object_cells(self.now, heights)
        if self._share is None:
            self._share = None if found is None else found.astype(np.float64)
        else:
            self._share += NEWS * ((0.0 if found is None else found) - self._share)
        if self._looks is None:
            looks = _heights_about(heights, self._at)
            if np.isfinite(looks).mean() > _SEEN:
                self._looks = looks

    @property
    def cells(self) -> NDArray[np.bool_] | None:
        """The object's cells, as object_cells gives them, steadied over views."""
        own = None if self._share is None else self._share > OWN_SHARE
        return own if own is not None and own.any() else None

    def _go(self, at: NDArray[np.float64]) -> None:
        assert self.now is not None
        self._at = self._along = at
        self.now = replace(self.now, xy_m=(float(at[0]), float(at[1])))


def _heights_about(heights: HeightMemory, at: NDArray[np.float64]) -> NDArray[np.float32]:
    c, s = np.cos(at[3]), np.sin(at[3])
    return heights.at(_ABOUT @ np.array([[c, s], [-s, c]]) + at[:2])


def _unlike(looks: NDArray[np.float32], heights: HeightMemory, at: NDArray[np.float64]) -> float:
    """Mean difference [m] of the heights about a place from those at first, each of STEP_M at most: an edge
    that moves by a cell of the map is no other place. STEP_M where too few are seen."""
    off = np.abs(_heights_about(heights, at) - looks)
    off = off[np.isfinite(off)]
    if len(off) < _SEEN * len(looks):
        return STEP_M
    return float(np.minimum(off, STEP_M).mean())


def beyond_m(
    target: TargetPoint, found: NDArray[np.bool_] | None, xy_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Way (N,) [m] of points (N, 2) in base from the wanted object; 0 on it. found: its cells, as
    object_cells gives them; None: places near the point."""
    way = np.hypot(*(xy_m - np.asarray(target.xy_m)).T)
    if found is None:
        return np.asarray(np.maximum(way - NEAR_M, 0))
    away = distance_transform_edt(~found) * CELL_M
    at = np.floor((xy_m - target.xy_m) / CELL_M + len(found) / 2).astype(np.int64)
    inside = ((at >= 0) & (at < len(found))).all(axis=-1)
    at = np.clip(at, 0, len(found) - 1)
    # Outside of the map: from the map's edge on, the way to the point goes on growing.
    off = away[at[:, 1], at[:, 0]] + np.where(inside, 0.0, way)
    return np.asarray(np.maximum(off - MARGIN_M, 0))


def object_cells(target: TargetPoint, heights: HeightMemory) -> NDArray[np.bool_] | None:
    """Cells of the wanted object in a square map about its point, rows along y in base; None where nothing
    stands."""
    half = int(np.ceil(target.radius_m / CELL_M)) + 1
    along = (np.arange(2 * half) - half + 0.5) * CELL_M
    x, y = np.meshgrid(along, along)
    height = heights.at(np.stack([x, y], axis=-1) + np.asarray(target.xy_m))
    way = np.hypot(x, y)
    high = (height > LOW_M) & (way <= target.radius_m)  # comparison with NaN is false
    begin = high & (way <= NEAR_M)
    if not begin.any():
        return None
    label = _regions(height, high)
    own = label[np.unravel_index(np.where(begin, way, np.inf).argmin(), way.shape)]
    return np.asarray(high & (label == own))


def _regions(height: NDArray[np.float32], high: NDArray[np.bool_]) -> NDArray[np.int32]:
    """A number for each cell (n, n), the same for high cells that hang together without a step."""
    number = np.arange(height.size).reshape(height.shape)
    pairs = []
    for one, other in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ):
        with np.errstate(invalid="ignore"):
            level = np.abs(height[one] - height[other]) < STEP_M
        joined = level & high[one] & high[other]
        pairs.append(np.stack([number[one][joined], number[other][joined]]))
    a, b = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(height.size, height.size))
    _, label = connected_components(graph, directed=False)
    return np.asarray(label, np.int32).reshape(height.shape)
