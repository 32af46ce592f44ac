"""The metric map: a view's returns put where they are, seen from above, in cells of fixed size.

The perspective view shows one object at many places and in many sizes as the hand moves; in the map a
displacement of the hand is a shift, whatever the height, and a convolution is equivariant to shifts.
Every return of the view covers a square footprint, one and a half source pixels wide as in rt.view, and
the nearest wins. A cell that no footprint covers takes the nearest return inside it, and is unseen if
there is none.

The map's frame is the view's, which is the hand's: x right along the columns, y down along the rows.
Cell (i, j) of G x G has its centre at x = (j + 0.5 - G/2) cell_m, y = (i + 0.5 - G/2) cell_m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.distance.contract import DistanceError
from rt.native import native
from rt.view import VIEW, View

CELLS = 96
"""Cells a side, unless a model's contract says otherwise."""
CELL_M = 0.0035
"""A cell's side in metres, likewise: half of the width of a pixel of the view at 0.30 m."""
CHANNELS = 2
"""Depth as (z - 0.2 m) / 0.1 m, 0 where unseen; and 1 where seen, 0 where not."""

MAX_HALF_CELLS = 8.0
"""Most that a footprint reaches to either side, which bounds the work."""
MAX_CELLS = 512
_FOOTPRINT_PX = 1.5


def metric_map(
    depth: NDArray[np.float32],
    cells: int = CELLS,
    cell_m: float = CELL_M,
    view: View = VIEW,
    *,
    turn_rad: ArrayLike = 0.0,
    mirror: ArrayLike = False,
    isa: str = "",
) -> NDArray[np.float32]:
    """Maps (B, 2, G, G) float32 of views (B, S, S) float32 [m]; (2, G, G) of one view (S, S).

    A depth of 0, below, above the view's far end or not a number is no return. Before they are drawn,
    points are mirrored (y to -y) where `mirror` is true, then turned by `turn_rad` about z (from x towards
    y); both are one value, or one for each view. An action (x, y, theta) goes with its view as
    (x, -y, -theta), then (cos t x - sin t y, sin t x + cos t y, theta + t). isa: instruction set of the
    native path, one of `native.metric_map_isas()`; default: the best. Raises DistanceError for a wrong
    shape, type or size.
    """
    single = depth.ndim == 2
    size = view.size_px
    if depth.dtype != np.float32 or depth.ndim not in (2, 3) or depth.shape[-2:] != (size, size):
        raise DistanceError(
            f"depth is {depth.shape} {depth.dtype}, must be ({size}, {size}) or (B, {size}, {size}), "
            "float32 metres"
        )
    if not 1 <= cells <= MAX_CELLS or not 1e-4 <= cell_m <= 1.0:
        raise DistanceError(
            f"cells = {cells} must be from 1 to {MAX_CELLS}, cell_m = {cell_m:g} from 0.0001 to 1 m"
        )
    views = np.ascontiguousarray(depth[None] if single else depth)
    turns = _turns(len(views), turn_rad, mirror)
    rays, growth = rays_cells_per_m(cell_m, view), growth_cells_per_m(cell_m, view)
    if native is None:
        maps = metric_map_numpy(views, rays, turns, cells, growth, view.far_m)
    else:
        maps = np.empty((len(views), CHANNELS, cells, cells), np.float32)
        native.metric_map(views, rays, turns, maps, growth, view.far_m, MAX_HALF_CELLS, isa)
    return maps[0] if single else maps


def rays_cells_per_m(cell_m: float, view: View = VIEW) -> NDArray[np.float32]:
    """Offset of a column's (a row's) return from the middle, in cells per metre of depth: (S,)."""
    size = view.size_px
    offset_px = np.arange(size) + 0.5 - size / 2
    return (offset_px / (view.focal_px * cell_m)).astype(np.float32)


def growth_cells_per_m(cell_m: float, view: View = VIEW) -> float:
    """Half a footprint's width in cells for each metre of depth."""
    return float(np.float32(_FOOTPRINT_PX / 2 / (view.focal_px * cell_m)))


def _turns(count: int, turn_rad: ArrayLike, mirror: ArrayLike) -> NDArray[np.float32]:
    """Cosine, sine and sign of y for every view: (count, 3) float32. Raises DistanceError."""
    angle, mirrored = np.asarray(turn_rad, np.float64), np.asarray(mirror)
    for name, array in (("turn_rad", angle), ("mirror", mirrored)):
        if array.shape not in ((), (count,)):
            raise DistanceError(f"{name} has shape {array.shape}, must be one value or ({count},)")
    if not np.isfinite(angle).all() or mirrored.dtype != np.bool_:
        raise DistanceError(f"turn_rad must be finite and mirror boolean ({mirrored.dtype} given)")
    turns = np.empty((count, 3), np.float32)
    turns[:, 0], turns[:, 1] = np.cos(angle), np.sin(angle)
    turns[:, 2] = np.where(mirrored, -1.0, 1.0)
    return turns


def metric_map_numpy(
    depth: NDArray[np.float32],
    rays: NDArray[np.float32],
    turns: NDArray[np.float32],
    cells: int,
    growth: float,
    far_m: float,
    max_half: float = MAX_HALF_CELLS,
) -> NDArray[np.float32]:
    """The oracle of native.metric_map, equal to it bit by bit: float32 throughout, in the same order.

    depth (B, S, S) m; rays (S,) and growth as `rays_cells_per_m` and `growth_cells_per_m` give them;
    turns (B, 3) of cosine, sine and the sign of y -> (B, 2, cells, cells).
    """
    maps = np.empty((len(depth), CHANNELS, cells, cells), np.float32)
    for view, turn, out in zip(depth, turns, maps, strict=True):
        kept = np.where(view <= np.float32(far_m), view, np.float32(0))
        z = _nearest_numpy(kept, rays, turn, cells, np.float32(growth), np.float32(max_half))
        seen = np.isfinite(z)
        out[0] = np.where(seen, (z - np.float32(0.2)) * np.float32(10), np.float32(0))
        out[1] = seen
    return maps


def _nearest_numpy(
    depth: NDArray[np.float32],
    rays: NDArray[np.float32],
    turn: NDArray[np.float32],
    cells: int,
    growth: np.float32,
    max_half: np.float32,
) -> NDArray[np.float32]:
    """Depth of the nearest return of each cell, infinite where there is none: (cells, cells)."""
    cosine, sine, sign = turn
    one = np.float32
    row, column = np.nonzero(depth > 0)
    z = depth[row, column]
    x, y = z * rays[column], (z * rays[row]) * sign
    centre = one(cells / 2 - 0.5)
    p = (x * cosine - y * sine) + centre
    q = (x * sine + y * cosine) + centre
    half = np.minimum(z * growth, max_half)
    left, right = np.ceil(p - half), np.floor(p + half)
    top, bottom = np.ceil(q - half), np.floor(q + half)
    nearest = np.full((cells, cells), np.inf, np.float32)
    own = nearest.copy()
    last = one(cells - 1)
    for down in range(2 * int(max_half) + 1):
        for along in range(2 * int(max_half) + 1):
            a, b = left + one(along), top + one(down)
            inside = (a <= right) & (b <= bottom) & (a >= 0) & (a <= last) & (b >= 0) & (b <= last)
            if inside.any():
                at = b[inside].astype(np.int64), a[inside].astype(np.int64)
                np.minimum.at(nearest, at, z[inside])
    a, b = np.floor(p + one(0.5)), np.floor(q + one(0.5))
    inside = (a >= 0) & (a <= last) & (b >= 0) & (b <= last)
    np.minimum.at(own, (b[inside].astype(np.int64), a[inside].astype(np.int64)), z[inside])
    return np.where(np.isfinite(nearest), nearest, own)
