"""Heights of what stands on the table, in base, as all views of an approach have shown them.

A view sees less the lower the hand is, and nothing of what hides behind a tall object; there the sight of an
earlier view still counts. A cell takes the height that a new view shows there. A lower one only if that view
looked through the old height, so what has gone is forgotten, but not what reaches out over the ground that is
seen below it: a view knows nothing of what is above the hand or beside its own narrow cone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from rt.distance.metric_map import metric_map
from rt.hand import Hand
from rt.view import VIEW, View

CELL_M = 0.005
SIDE = 192
"""Cells a side: 0.96 m, twice a view."""
_SEEN_CELLS = 96
"""Cells a side of one view's own map: 0.48 m, all that a view shows of the table at 0.34 m."""
_ABOVE_TIPS_M = 0.001
"""Returns this far below the fingertips or higher are the hand's own fingers, and left out."""
_RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
_ALONE_M = 0.01
"""A return this much nearer than those about it is of no thing."""
_ACROSS = (0.0, 0.5, 1.0)
"""Points of a cell, along either side."""
_LOWER_M = 0.003
"""Heights and depths that differ by less are the same."""
_STEP_M = 0.004
"""Distance between the points at which the hand's outline is compared with the heights."""
GRIP_SHARE, GRIP_M = 0.55, 0.035
"""Depth to which the fingertips shall reach beside a thing: this part of its height, past the widest place of
what is round, and no more than this."""
_NOTHING = np.float32(-1.0)
"""Height where no view has shown anything, for those who look for obstacles."""
_LEAST_GRIP_M = np.float32(0.005)
"""Less than this is no depth to have a part of."""


class HeightMemory:
    """Heights in base over a square: (SIDE, SIDE), rows along y. It begins about the first view's hand,
    and goes along with a hand that would leave it; what falls behind is forgotten."""

    def __init__(self, view: View = VIEW) -> None:
        self._view = view
        self.heights_m = np.full((SIDE, SIDE), np.nan, np.float32)
        """NaN where no view has shown anything."""
        self._corner: NDArray[np.float64] | None = None

    def see(self, view: NDArray[np.float32], seen_from: NDArray[np.float64]) -> None:
        """Add a view (64, 64) [m] from the hand (4,) of x, y, z [m], yaw [rad] in base."""
        if self._corner is None:
            self._corner = seen_from[:2] - (SIDE / 2) * CELL_M
        turned = metric_map(
            _without_single_returns(view),
            _SEEN_CELLS,
            CELL_M,
            self._view,
            turn_rad=float(seen_from[3]),
            mirror=True,
        )
        heights = np.float32(seen_from[2]) - (turned[0] * np.float32(0.1) + np.float32(0.2))
        seen = (turned[1] > 0) & (heights < seen_from[2] - _ABOVE_TIPS_M)
        first = np.round((seen_from[:2] - self._corner) / CELL_M).astype(int) - _SEEN_CELLS // 2
        inside = np.clip(first, 0, SIDE - _SEEN_CELLS)
        self._scroll(first - inside)
        rows, columns = (slice(k, k + _SEEN_CELLS) for k in inside[::-1])
        known = self.heights_m[rows, columns]
        lower = np.nonzero(seen & (known > heights + _LOWER_M))
        stays = ~self._looked_through(view, seen_from, lower + inside[::-1, None], known[lower])
        seen[tuple(k[stays] for k in lower)] = False
        known[seen] = heights[seen]

    def _looked_through(
        self,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        cells: NDArray[np.int64],
        heights_m: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """True (N,) for heights over cells (2, N) of row and column that a view has a return behind."""
        assert self._corner is not None
        # (2, N, 9): corners, edges and middle, for a thin thing is not in all of its cell's pixels.
        points = cells[::-1, :, None] + np.stack(np.meshgrid(*[_ACROSS] * 2)).reshape(2, 1, -1)
        dx, dy = points * CELL_M + (self._corner - seen_from[:2])[:, None, None]
        c, s = np.cos(seen_from[3]), np.sin(seen_from[3])
        away = (seen_from[2] - heights_m)[:, None]
        size, per_m = self._view.size_px, self._view.focal_px / np.maximum(away, 1e-3)
        column = np.floor((c * dx + s * dy) * per_m + size / 2).astype(np.int64)
        row = np.floor((s * dx - c * dy) * per_m + size / 2).astype(np.int64)
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        depth = view[np.clip(row, 0, size - 1), np.clip(column, 0, size - 1)]
        return np.asarray((inside & (away > 0) & (depth > away + _LOWER_M)).all(axis=1))

    def _scroll(self, cells: NDArray[np.int64]) -> None:
        """Move the square by so many cells along x and y; what comes in is unseen."""
        if not cells.any():
            return
        assert self._corner is not None
        self._corner = self._corner + cells * CELL_M
        kept = np.full_like(self.heights_m, np.nan)
        if (np.abs(cells) < SIDE).all():
            x, y = (int(k) for k in cells)
            now = slice(max(-y, 0), SIDE - max(y, 0)), slice(max(-x, 0), SIDE - max(x, 0))
            before = slice(max(y, 0), SIDE - max(-y, 0)), slice(max(x, 0), SIDE - max(-x, 0))
            kept[now] = self.heights_m[before]
        self.heights_m = kept

    @property
    def corner_m(self) -> NDArray[np.float64] | None:
        """(2,) of the first cell's outer corner in base; None before the first view."""
        return self._corner

    def highest(self, cells: int) -> NDArray[np.float32]:
        """Greatest height (SIDE, SIDE) of each cell and the `cells` on every side of it [m]; -1 if all are
        unseen."""
        known = np.where(np.isnan(self.heights_m), _NOTHING, self.heights_m)
        return np.asarray(maximum_filter(known, 2 * cells + 1, mode="constant", cval=_NOTHING))

    def at(self, xy_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """Heights (...) at points (..., 2) in base [m]; NaN where nothing was seen."""
        if self._corner is None:
            return np.full(xy_m.shape[:-1], np.nan, np.float32)
        at = np.floor((xy_m - self._corner) / CELL_M).astype(np.int64)
        inside = ((at >= 0) & (at < SIDE)).all(axis=-1)
        at = np.clip(at, 0, SIDE - 1)
        found = self.heights_m[at[..., 1], at[..., 0]]
        return np.where(inside, found, np.float32(np.nan))


def _without_single_returns(view: NDArray[np.float32]) -> NDArray[np.float32]:
    """The view without returns that are nearer than all eight neighbours: flying pixels, and no things."""
    far = np.where(view > 0, view, np.float32(np.inf))
    about = minimum_filter(far, footprint=_RING, mode="nearest")
    alone = (far < about - _ALONE_M) & np.isfinite(about)  # between holes nothing tells
    return np.where(alone, np.float32(0), view)


def needed_height_m(memory: HeightMemory, hand: NDArray[np.float64], shape: Hand) -> float:
    """Least height of the fingertips [m] at which neither fingers nor palm are inside anything that was seen.

    hand: (4,) of x, y, z [m], yaw [rad] in base, fully open; its z is not looked at. Minus infinity where
    nothing was seen below it.
    """
    fingers, palm = _outline(shape)
    needed = -np.inf
    for points, above_m in ((fingers, 0.0), (palm, shape.finger_length_m)):
        heights = memory.at(in_base(points, hand))
        if np.isfinite(heights).any():
            needed = max(needed, float(np.nanmax(heights)) - above_m)
    return needed


def unseen_share(
    memory: HeightMemory, hands: NDArray[np.float64], shape: Hand
) -> NDArray[np.float64]:
    """Part (N,) of the ground under the tips of hands (N, 4) in base that no view has shown."""
    x = shape.opening_m / 2 + shape.finger_thickness_m / 2
    y = shape.finger_width_m / 2
    tips = np.array([[side * x, end * y] for side in (-1, 1) for end in (-1, 0, 1)])
    return np.asarray(np.isnan(memory.at(in_base(tips, hands[:, None]))).mean(axis=-1))


def blocked_share(
    memory: HeightMemory, hands: NDArray[np.float64], shape: Hand
) -> NDArray[np.float64]:
    """Part (N,) of the depth beside the thing between their jaws that hands (N, 4) in base cannot reach,
    because a finger or the palm meets something first: 0 at full depth, 1 if the tips get no deeper than
    its top.

    The depth wanted is GRIP_SHARE of the height of that thing, at most GRIP_M. Unseen ground is free here
    (unseen_share counts it).
    """
    if memory.corner_m is None:
        return np.zeros(len(hands))
    points, count, around = _probes(shape)
    maps = np.stack([np.pad(memory.highest(n), 1, constant_values=_NOTHING) for n in (0, 1, 2)])
    # In cells of the padded maps, float32: a cell is 5 mm, the square a metre.
    x, y = ((hands[:, :2] - memory.corner_m) / CELL_M + 1).astype(np.float32).T[..., None]
    c, s = (f(hands[:, 3, None]).astype(np.float32) / np.float32(CELL_M) for f in (np.cos, np.sin))
    column = np.clip(x + c * points[:, 0] + s * points[:, 1], 0, SIDE + 1).astype(np.int32)
    row = np.clip(y + s * points[:, 0] - c * points[:, 1], 0, SIDE + 1).astype(np.int32)
    heights = maps.ravel()[(around * (SIDE + 2) + row) * (SIDE + 2) + column]
    parts = np.split(heights, np.cumsum(count)[:-1], axis=1)
    under, palm, top = (np.maximum(part.max(axis=1), 0) for part in parts)
    depth = top - np.maximum(under, palm - np.float32(shape.finger_length_m))
    wanted = np.minimum(np.float32(GRIP_SHARE) * top, np.float32(GRIP_M))
    return np.asarray(
        np.clip((wanted - depth) / np.maximum(wanted, _LEAST_GRIP_M), 0, 1), np.float64
    )


def in_base(points_m: NDArray[np.float64], hand: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (..., 2) in the plane of a hand (..., 4) that looks straight down, to base: (..., 2)."""
    c, s = np.cos(hand[..., 3]), np.sin(hand[..., 3])
    x, y = points_m[..., 0], points_m[..., 1]
    return np.stack([hand[..., 0] + c * x + s * y, hand[..., 1] + s * x - c * y], axis=-1)


_outlines: dict[Hand, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}


def _outline(shape: Hand) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 2) under both open fingers, and under the palm, in the hand's plane [m]."""
    if shape not in _outlines:
        inner, thick = shape.opening_m / 2, shape.finger_thickness_m
        finger = _filled(thick, shape.finger_width_m)
        fingers = np.concatenate(
            [finger + np.array([side * (inner + thick / 2), 0.0]) for side in (-1, 1)]
        )
        _outlines[shape] = fingers, _filled(shape.palm_length_m, shape.palm_width_m)
    return _outlines[shape]


_probed: dict[Hand, tuple[NDArray[np.float32], list[int], NDArray[np.int32]]] = {}


def _probes(shape: Hand) -> tuple[NDArray[np.float32], list[int], NDArray[np.int32]]:
    """Points (P, 2) in the hand's plane [m]: under the open fingers, under the palm, between the jaws; how
    many of each; and how many cells around each point (P,) belong to it."""
    if shape not in _probed:
        inner, thick, width = shape.opening_m / 2, shape.finger_thickness_m, shape.finger_width_m
        # A tenth off each edge of a finger: what ends within a cell's size of it is mostly beside it.
        finger = inner + np.array([0.1, 0.55, 1.0]) * thick
        parts = (
            (np.concatenate([-finger, finger]), np.array([-0.45, 0, 0.45]) * width, 0),
            (_spread(shape.palm_length_m, 2), _spread(shape.palm_width_m, 2), 2),
            (_spread(shape.opening_m - CELL_M, 1), np.array([-0.25, 0.25]) * width, 1),
        )
        grids = [np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) for x, y, _ in parts]
        counts = [len(grid) for grid in grids]
        around = np.repeat([cells for *_, cells in parts], counts).astype(np.int32)
        _probed[shape] = np.concatenate(grids).astype(np.float32), counts, around
    return _probed[shape]


def _spread(length_m: float, cells: int) -> NDArray[np.float64]:
    """Places along a length whose points, with that many cells around each, cover it."""
    each = (2 * cells + 1) * CELL_M
    reach = max(length_m - each, 0) / 2
    return np.linspace(-reach, reach, int(np.ceil(length_m / each)))


def _filled(length_m: float, width_m: float) -> NDArray[np.float64]:
    x, y = (
        np.linspace(-side / 2, side / 2, int(np.ceil(side / _STEP_M)) + 1)
        for side in (length_m, width_m)
    )
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
