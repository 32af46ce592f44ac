"""The canonical camera: the 64x64 depth view, fixed to the hand, that the network is trained on.

Any depth camera at any mount is brought into it by `Reprojector`: every return becomes a point, the
point is moved into the view's frame and drawn there, and the nearest wins. A point is drawn as a
small square, not as a dot: its source pixel's footprint, half as large again, and it fills every
view pixel whose centre that square covers. So a coarse camera leaves no gaps between its samples, and
a fine one gives each view pixel the depth along that pixel's own ray, as a ray tracer does, not the
least of the dozens of returns that fall into it (which would bring slopes and noise nearer). A view
pixel that no square reaches takes the nearest return inside its own cell, and is 0 if there is none:
holes are kept, not invented over. Only the network is shown a view whose small gaps are closed
(`close_gaps`); the guard and the grasp's height go by what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.camera import Intrinsics
from rt.camera.units import other_unit, wrong_mount
from rt.native import native

_FOOTPRINT_GROWTH = 1.5
"""Below 2, so that a camera equal to the view gives back its image; above 1, because a surface that
the camera sees at a slant and the view face on has its samples further apart than face-on ones: by
1/cos^2 of the tilt between them, so 1.5 closes the gaps up to 35 degrees."""

_MAX_HALF_PX = 8.0
"""Bounds the work for returns that the camera sees grazing or far nearer than the view does."""


class ViewError(ValueError):
    """A depth image or a mount that cannot be brought into the view."""


@dataclass(frozen=True)
class View:
    """A square pinhole depth camera whose frame is the hand's: x right, y down, z along the approach.

    A pixel (u, v) looks along ((u + 0.5 - size/2) / f, (v + 0.5 - size/2) / f, 1). A depth is metres
    along z; one outside [near_m, far_m], or none at all, is 0.
    """

    size_px: int = 64
    fov_deg: float = 70.0
    near_m: float = 0.01
    far_m: float = 0.60

    @property
    def focal_px(self) -> float:
        return self.size_px / 2 / float(np.tan(np.radians(self.fov_deg) / 2))

    @property
    def intrinsics(self) -> Intrinsics:
        """The same camera in the terms of a real one."""
        f, c = self.focal_px, self.size_px / 2 - 0.5
        return Intrinsics(self.size_px, self.size_px, f, f, c, c)

    def rays(self) -> NDArray[np.float32]:
        """Direction of every pixel, (size, size, 3) float32, z = 1 (so range along it is depth)."""
        c = ((np.arange(self.size_px) + 0.5 - self.size_px / 2) / self.focal_px).astype(np.float32)
        x, y = np.meshgrid(c, c)
        return np.stack([x, y, np.ones_like(x)], axis=-1)


VIEW = View()
"""The view of every network in this project, unless its metadata says otherwise."""

START_HEIGHT_M, END_HEIGHT_M = 0.30, 0.15
"""The hand's travel above the table (Viereck et al. 2017, Section IV)."""


class Reprojector:
    """Depth of one camera at one mount -> the view. Rays are computed once; a call allocates only
    its result (native) and does not hold the interpreter lock meanwhile."""

    def __init__(
        self,
        intrinsics: Intrinsics,
        T_view_camera: ArrayLike,
        view: View = VIEW,
        *,
        isa: str = "",
    ) -> None:
        """T_view_camera (4, 4) maps points in `camera` to `view`; raises ViewError if it is not rigid, or its
        translation is in another unit than metres.

        isa: instruction set of the native path, one of `native.view_isas()`; default: the best.
        """
        T = np.asarray(T_view_camera, dtype=np.float64)
        rigid = T.shape == (4, 4) and np.isfinite(T).all() and np.array_equal(T[3], [0, 0, 0, 1])
        R = T[:3, :3] if rigid else np.zeros((3, 3))
        if not rigid or not np.allclose(R.T @ R, np.eye(3), atol=1e-6) or np.linalg.det(R) < 0:
            raise ViewError(f"T_view_camera is not a rigid transform:\n{T}")
        if doubt := wrong_mount(T):
            raise ViewError(f"T_view_camera: {doubt}")
        self.intrinsics, self.view, self._isa = intrinsics, view, isa
        rays = intrinsics.rays()
        self._directions = np.ascontiguousarray(
            np.moveaxis(rays.astype(np.float64) @ R.T, -1, 0), dtype=np.float32
        )
        self._origin = np.ascontiguousarray(T[:3, 3], dtype=np.float32)
        # A source pixel is a square of side d/f across the optical axis at depth d. Its image in
        # the view, to first order: f_view / z * (dx - (x/z) dz), with |x/z| <= tan(fov/2).
        edge = view.size_px / 2 / view.focal_px
        half_x = np.abs(R[:, 0]) / (2 * intrinsics.fx_px) + np.abs(R[:, 1]) / (2 * intrinsics.fy_px)
        half = _FOOTPRINT_GROWTH * view.focal_px * (half_x[:2] + edge * half_x[2])
        self._half = np.ascontiguousarray(half, dtype=np.float32)
        self._spans = _spans(self._directions, self._origin, self._half, view)

    def __call__(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """depth (H, W) float32 metres, 0, negative or not finite = no return -> (size, size) float32.

        Raises ViewError for an image of another size or type, and if none of it is in the view because its
        depths are in another unit.
        """
        shape = (self.intrinsics.height_px, self.intrinsics.width_px)
        if depth.shape != shape or depth.dtype != np.float32:
            raise ViewError(
                f"depth is {depth.shape} {depth.dtype}, must be {shape} float32 metres: the frame and "
                "the intrinsics disagree"
            )
        depth = np.ascontiguousarray(depth)
        view = self.view
        place = (self._origin, self._half)
        numbers = (view.focal_px, view.near_m, view.far_m, _MAX_HALF_PX)
        if native is None:
            out = reproject_numpy(depth, self._directions, *place, view.size_px, *numbers)
        else:
            out = np.empty((view.size_px, view.size_px), dtype=np.float32)
            native.reproject(depth, self._directions, self._spans, *place, out, *numbers, self._isa)
        if not out.any() and (doubt := other_unit(depth)):
            raise ViewError(f"nothing is in the view: {doubt}")
        return out


def _spans(
    directions: NDArray[np.float32],
    origin: NDArray[np.float32],
    half: NDArray[np.float32],
    view: View,
) -> NDArray[np.int32]:
    """First column of each row whose return can touch the view at some depth, and one past the last.

    (H, 2). A return at depth d lies at origin + d * direction; it can touch the view if, for some d
    with near <= z <= far, |x| and |y| are at most z times the view's edge, a splat further out.
    """
    dx, dy, dz = directions.astype(np.float64)
    ox, oy, oz = (float(v) for v in origin)
    slack = 1e-5  # far more than float32 rounds
    with np.errstate(all="ignore"):
        ends = np.stack([(view.near_m - slack - oz) / dz, (view.far_m + slack - oz) / dz])
        low, high = np.maximum(ends.min(axis=0), 0), ends.max(axis=0)
        # d/z, which scales a splat, is monotonic in d: its greatest value is at one of the ends.
        least_z = np.maximum(oz + np.stack([low, high]) * dz, view.near_m / 2)
        ratio = (np.stack([low, high]) / least_z).max(axis=0)
        for d, o, half_px in ((dx, ox, half[0]), (dy, oy, half[1])):
            splat = np.minimum(half_px * ratio, _MAX_HALF_PX)
            edge = (view.size_px / 2 + splat + 1.5) / view.focal_px
            for sign in (1.0, -1.0):  # sign * (o + t d) <= edge (oz + t dz), so a t <= b
                a, b = sign * d - edge * dz, edge * oz - sign * o + slack
                high = np.where(a > 0, np.minimum(high, b / a), high)
                low = np.where(a < 0, np.maximum(low, b / a), low)
                low = np.where((a == 0) & (b < 0), np.inf, low)
    # Rays along the view's plane, or backwards, are no matter of speed: they are kept.
    touches = (low <= high) | ~(dz > 1e-3) | np.isnan(low) | np.isnan(high)
    columns = np.arange(dx.shape[1])
    first = np.where(touches, columns, dx.shape[1]).min(axis=1)
    last = np.where(touches, columns + 1, 0).max(axis=1)
    return np.ascontiguousarray(np.stack([np.minimum(first, last), last], axis=1), dtype=np.int32)


def reproject(
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    T_view_camera: ArrayLike,
    view: View = VIEW,
) -> NDArray[np.float32]:
    """One depth image (H, W) float32 metres, of any pinhole camera at any mount, in the view."""
    return Reprojector(intrinsics, T_view_camera, view)(depth)


_NEIGHBOURS = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]


def close_gaps(view: NDArray[np.float32]) -> NDArray[np.float32]:
    """A view (H, W) float32 [m] as the network is to see it: its small gaps closed, the rest as it was.

    A pixel without depth (0) takes the median of its neighbours' if at least four of the eight have one,
    and once more with what that closed. So lost pixels that are scattered vanish, and the edge of a hole
    that is wider, a shadow or a shiny face, stays where it is but for its corners. Networks that were trained
    on real sensors' holes are thrown off by scattered ones (docs/disturbances.md).
    """
    height, width = view.shape
    for _ in range(2):
        padded = np.pad(view, 1)
        seen = padded > 0
        beside = np.sum([seen[i : i + height, j : j + width] for i, j in _NEIGHBOURS], axis=0)
        row, column = np.nonzero((view == 0) & (beside >= 4))
        if not len(row):
            return view
        around = np.stack([padded[row + i, column + j] for i, j in _NEIGHBOURS])
        around[around == 0] = np.inf
        around.sort(axis=0)
        view = view.copy()
        # the nearer of two in the middle: a depth that was seen, and no mean of object and table
        view[row, column] = around[(beside[row, column] - 1) // 2, np.arange(len(row))]
    return view


def reproject_numpy(
    depth: NDArray[np.float32],
    directions: NDArray[np.float32],
    origin: NDArray[np.float32],
    half: NDArray[np.float32],
    size_px: int,
    focal_px: float,
    near_m: float,
    far_m: float,
    max_half_px: float,
) -> NDArray[np.float32]:
    """The oracle of native.reproject, equal to it bit by bit: float32 throughout, in the same order.

    directions (3, H, W): the camera's rays turned into the view's frame; origin (3,): the camera
    there; half (2,): half a splat's width and height in view pixels where camera and view depth agree.
    """
    one = np.float32
    f, centre, most = one(focal_px), one(size_px / 2 - 0.5), one(max_half_px)
    with np.errstate(all="ignore"):  # NaN and infinite depths fall out by comparison
        x, y, z = (depth * directions[i] + origin[i] for i in range(3))
        kept = (depth > 0) & (z >= one(near_m)) & (z <= one(far_m))
        d, x, y, z = depth[kept], x[kept], y[kept], z[kept]
        scale = f / z
        u, v = x * scale + centre, y * scale + centre
        ratio = d / z
        half_u, half_v = np.minimum(half[0] * ratio, most), np.minimum(half[1] * ratio, most)
    near = np.full((size_px, size_px), np.inf, dtype=np.float32)
    cell = near.copy()
    last = one(size_px - 1)
    u0, u1 = np.ceil(u - half_u), np.floor(u + half_u)
    v0, v1 = np.ceil(v - half_v), np.floor(v + half_v)
    for dv in range(2 * int(max_half_px) + 1):
        for du in range(2 * int(max_half_px) + 1):
            column, row = u0 + one(du), v0 + one(dv)
            inside = (column <= u1) & (row <= v1)
            inside &= (column >= 0) & (column <= last) & (row >= 0) & (row <= last)
            if inside.any():
                at = row[inside].astype(np.int64), column[inside].astype(np.int64)
                np.minimum.at(near, at, z[inside])
    column, row = np.floor(u + one(0.5)), np.floor(v + one(0.5))
    inside = (column >= 0) & (column <= last) & (row >= 0) & (row <= last)
    at = row[inside].astype(np.int64), column[inside].astype(np.int64)
    np.minimum.at(cell, at, z[inside])
    out = np.where(np.isfinite(near), near, cell)
    return np.where(np.isfinite(out), out, one(0))
