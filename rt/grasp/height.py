"""Depth of a grasp: the fingertip height at which to close for (x, y, yaw), from depth images alone.

Every image becomes a height map around the grasp. A cell's height is the median over the last images, or,
if a tall object hides the cell from them, over those from higher up. The hand goes as deep as fingers and
palm stay clear of all heights and of the table. On an object that is round where the fingers meet it, the
pads go to its greatest width instead. (sim.physics.approach does the same with rays through the true scene.)

All of that is about the fingertips as they hold. Fingers whose tips travel along z while they close
(rt.hand.TipTravel) start so much higher: the hand's height is the tips' and their travel at that width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand, TipTravel

FINEST_M = 0.002
"""Cell of a height map, where the camera sees as finely."""
_ROUND_WITHIN_M, _ROUND_RISE_M = 0.006, 0.004
"""A side is round if the surface rises by more than this, so near to its edge."""
_EDGE_ON_PAD = 0.75
"""Place on the pads, from the tips up, for the edge of a round object: the outermost cell of a map shows a
ball up to a cell's size above its equator, never below."""
_BELOW_M, _NEAREST_M = 0.05, 0.02
"""Ground is seen this far below the table at most. Nearer to the camera, all of an image counts."""
_ABOVE_TIPS_M = 0.003
"""Least height above the fingertips of an object between them."""


class HeightError(RuntimeError):
    """No height: too little was seen, or there is nothing between the fingers."""


@dataclass(frozen=True)
class GraspHeight:
    """Height at which to close, and its reason."""

    height_m: float
    """Of the hand, whose origin lies between the fully open fingertips, above the table."""
    limited_by: str
    """Limit of the depth: table, fingers, palm, beside (what lies beside the object), or widest (it is
    round)."""
    width_m: float
    """Of what is between the fingers."""
    seen: float
    """Seen part of the ground under and between the fingers."""
    views: int
    """Images that it was found from."""
    travel_m: float = 0.0
    """Of the fingertips down to where they hold: they then are at height_m - travel_m."""
    top_m: float = math.inf
    """Of the highest thing seen below hand and palm."""


@dataclass(frozen=True)
class Grid:
    """Cells of a height map in the frame of a grasp: x along the closing axis, z up from the table."""

    x_m: NDArray[np.floating]
    y_m: NDArray[np.floating]
    cell_m: float

    @staticmethod
    def around(hand: Hand, pixel_m: float) -> Grid:
        """All that fingers and palm come over. pixel_m: a pixel's size on the ground."""
        cell = max(FINEST_M, 1.25 * pixel_m)
        reach = max(hand.opening_m / 2 + hand.finger_thickness_m, hand.palm_length_m / 2) + cell
        nx, ny = (int(np.ceil(2 * r / cell)) | 1 for r in (reach, hand.palm_width_m / 2 + cell))
        x, y = ((np.arange(n) - n // 2) * cell for n in (nx, ny))
        return Grid(x, y, cell)


def height_map(
    depth: NDArray[np.float32],
    rays: NDArray[np.float32],
    T_base_camera: NDArray[np.float64],
    grasp: NDArray[np.float64],
    grid: Grid,
) -> NDArray[np.float32]:
    """Highest return above every cell, (ny, nx) m above the table; NaN where there is none.

    depth (H, W) m, 0 = no return; rays (H, W, 3) of its camera, z = 1; grasp (4,) of x, y, z [m], yaw
    [rad] in base: whatever is not below its fingertips is the hand itself, and left out.
    """
    c, s = np.cos(grasp[3]), np.sin(grasp[3])
    T_grasp_base = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    R = (T_grasp_base @ T_base_camera[:3, :3]).astype(np.float32)
    t = T_grasp_base @ (T_base_camera[:3, 3] - [grasp[0], grasp[1], 0])
    part = _part_of_image(rays, R.astype(np.float64), t, grid, float(grasp[2]))
    depth, rays = depth[part], rays[part]
    seen = depth > 0
    p = (rays[seen] * depth[seen][:, None]) @ R.T + t.astype(np.float32)
    ny, nx = len(grid.y_m), len(grid.x_m)
    i = np.round(p[:, 0] / grid.cell_m).astype(np.int64) + nx // 2
    j = np.round(p[:, 1] / grid.cell_m).astype(np.int64) + ny // 2
    inside = (i >= 0) & (i < nx) & (j >= 0) & (j < ny) & (p[:, 2] < grasp[2] - 0.001)
    heights = np.full(ny * nx, -np.inf, np.float32)
    np.maximum.at(heights, j[inside] * nx + i[inside], p[inside, 2])
    heights[np.isinf(heights)] = np.nan
    return heights.reshape(ny, nx)


def _part_of_image(
    rays: NDArray[np.float32],
    R: NDArray[np.float64],
    t: NDArray[np.float64],
    grid: Grid,
    top_m: float,
) -> tuple[slice, slice]:
    """Rows and columns that hold all of the grid's cells from _BELOW_M to top_m; all where some are beside or
    behind the camera. R, t: of the camera in the frame of the grasp."""
    ends = [(v[0] - grid.cell_m, v[-1] + grid.cell_m) for v in (grid.x_m, grid.y_m)]
    corners = np.array(np.meshgrid(*ends, (-_BELOW_M, top_m))).reshape(3, -1).T
    p = (corners - t) @ R
    if p[:, 2].min() < _NEAREST_M:
        return slice(None), slice(None)
    sides = []
    for axis, lines in ((1, rays[:, 0, 1]), (0, rays[0, :, 0])):
        at = p[:, axis] / p[:, 2]
        low, high = np.searchsorted(lines, (at.min(), at.max()))
        sides.append(slice(max(int(low) - 1, 0), int(high) + 1))
    return sides[0], sides[1]


def grasp_height(
    maps: Sequence[NDArray[np.float32]],
    earlier: Sequence[NDArray[np.float32]],
    grid: Grid,
    hand: Hand,
    *,
    clearance_m: float,
    table_gap_m: float,
    min_seen: float,
    tips: TipTravel | None = None,
) -> GraspHeight:
    """The height at which to close, from height maps (ny, nx) of one grasp: the last ones, and those from
    higher up, which count only where the last ones saw nothing. tips: None if they do not travel. Raises
    HeightError."""
    if not maps:
        raise HeightError("no trustworthy view of the last ones; look at the camera")
    heights = _median(np.stack(maps))
    if earlier:
        heights = np.where(np.isnan(heights), _median(np.stack(earlier)), heights)
    x, y, half = np.abs(grid.x_m), np.abs(grid.y_m), grid.cell_m / 2
    slab = y <= hand.finger_width_m / 2 + half
    inner, outer = hand.opening_m / 2, hand.opening_m / 2 + hand.finger_thickness_m
    under = (x >= inner - half) & (x <= outer + half)
    between = x < inner
    both = [heights[np.ix_(slab, under & side)] for side in (grid.x_m < 0, grid.x_m > 0)]
    middle = heights[np.ix_(slab, between)]
    seen = min(float(np.isfinite(part).mean()) for part in (*both, middle))
    if seen < min_seen:
        raise HeightError(
            f"only {seen:.0%} of the ground under the jaws was seen, {min_seen:.0%} are needed; check the "
            "mount (rt.mount) and the camera's nearest depth"
        )
    palm = heights[np.ix_(y <= hand.palm_width_m / 2, x <= hand.palm_length_m / 2)]
    floors = {
        "table": table_gap_m,
        "fingers": max(float(np.nanmax(part)) for part in both) + clearance_m,
        "palm": float(np.nanmax(palm)) + clearance_m - hand.finger_length_m,
    }
    limited_by = max(floors, key=lambda name: floors[name])
    lowest = floors[limited_by]
    tops = np.nanmax(np.where(np.isfinite(middle), middle, -np.inf), axis=0)
    (over,) = np.nonzero(tops > lowest + _ABOVE_TIPS_M)
    if not len(over):
        raise HeightError(
            f"nothing rises between the fingers: they could go down to {lowest * 1e3:.0f} mm, and what is "
            f"seen there ends at {max(float(tops.max()), 0.0) * 1e3:.0f} mm"
        )
    width = float((over[-1] - over[0] + 1) * grid.cell_m)
    travel = 0.0
    if tips is not None and tips.moves:
        # Open, the tips clear all below them anyway; closing, they come down on the table and on what lies
        # beside the object. The palm stays where it is.
        travel = tips(max(width - 2 * grid.cell_m, 0.0))  # as seen to within two cells
        floors["table"] += travel
        at = grid.x_m[between]
        beside = (np.arange(len(at)) < over[0]) | (np.arange(len(at)) > over[-1])
        swept = [h + tips(2 * abs(x)) for h, x in zip(tops[beside], at[beside], strict=True)]
        floors["beside"] = max(swept, default=0.0)
    limited_by = max(floors, key=lambda name: floors[name])
    lowest = floors[limited_by]
    step = max(round(_ROUND_WITHIN_M / grid.cell_m), 1)
    edges = []
    for edge, inward in ((over[0], step), (over[-1], -step)):
        further = tops[min(max(edge + inward, over[0]), over[-1])]
        edges.append((float(tops[edge]), bool(further - tops[edge] > _ROUND_RISE_M)))
    height = lowest
    if all(is_round for _, is_round in edges):
        widest = min(top for top, _ in edges) - _EDGE_ON_PAD * hand.pad_height_m + travel
        if widest > lowest:
            height, limited_by = widest, "widest"
    top = float(np.nanmax(heights))
    return GraspHeight(float(height), limited_by, width, seen, len(maps), travel, top)


def _median(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over those maps that saw a cell; one of many that did is not believed."""
    count = np.isfinite(maps).sum(axis=0)
    ordered = np.sort(maps, axis=0)  # NaN last
    low = np.maximum((count - 1) // 2, 0)
    result = np.take_along_axis(ordered, low[None], axis=0)[0]
    result[count < max(1, len(maps) // 3)] = np.nan
    return np.asarray(result, dtype=np.float32)
