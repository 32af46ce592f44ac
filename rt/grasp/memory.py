"""Heights of what stands on the table, in base, as all views of an approach have shown them.

A view sees less the lower the hand is, and nothing of what hides behind a tall object; there the sight of an
earlier view still counts. A cell takes the height that a new view shows there. A lower one only if that view
looked through the old height, so what has gone is forgotten, but not what reaches out over the ground that is
seen below it: a view knows nothing of what is above the hand or beside its own narrow cone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

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


def _filled(length_m: float, width_m: float) -> NDArray[np.float64]:
    x, y = (
        np.linspace(-side / 2, side / 2, int(np.ceil(side / _STEP_M)) + 1)
        for side in (length_m, width_m)
    )
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
