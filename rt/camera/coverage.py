"""Part of the canonical view that a camera at a mount can fill, by height above the table.

The scene is a flat surface: the table, or the top of an object that fills the view. Its depth image is
brought into the view by the loop's own `Reprojector`, and the pixels with a return are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.camera import Intrinsics
from rt.camera.own_hand import hand_depth
from rt.hand import Hand
from rt.view import END_HEIGHT_M, START_HEIGHT_M, VIEW, Reprojector, View

MIN_SHARE = 0.5
"""Least part of the view that must be filled: the default of the guard's limit `min_view_filled`."""
SURFACES_M = (0.0, 0.03, 0.06, 0.09, 0.13)
"""The table, and tops of objects up to the highest that the network is made for [m]."""
USUAL_SURFACE_M = 0.06
"""Height of a usual object's top [m]. A camera that cannot see it is refused; one that misses only higher
objects is warned about."""
CLEARANCE_M = 0.015
"""Surfaces nearer to the fingertips than this are left out: the hand would touch them [m]."""


@dataclass(frozen=True)
class SurfaceView:
    """The view of one surface from one height."""

    height_m: float
    """Of the fingertips above the table."""
    surface_m: float
    mask: NDArray[np.bool_]
    """(size, size): the view's pixels with a return."""
    nearest_m: float
    """Least depth, from the camera, of the surface within the view; inf if none of it is in the image."""

    @property
    def share(self) -> float:
        return float(self.mask.mean())


class Coverage:
    """A camera at a mount. Stereo cameras see nothing nearer than `nearest_m`, and nothing in the
    band at the left edge of the image that their right imager does not see."""

    def __init__(
        self,
        intrinsics: Intrinsics,
        T_hand_camera: ArrayLike,
        nearest_m: float = 0.0,
        baseline_m: float = 0.0,
        view: View = VIEW,
        hand: Hand | None = None,
    ) -> None:
        """hand: open fingers and palm that hide what is behind them.

        Raises ViewError if T_hand_camera (4, 4) is not rigid.
        """
        self.intrinsics, self.nearest_m, self.baseline_m = intrinsics, nearest_m, baseline_m
        self._reproject = Reprojector(intrinsics, T_hand_camera, view)
        self._T = np.asarray(T_hand_camera, dtype=np.float64)
        rays = intrinsics.rays()
        self._along = rays.astype(np.float64) @ self._T[2, :3]
        own = hand_depth(self._T, rays, hand) if hand else np.zeros_like(self._along)
        self._own_m = np.where(own > 0, own, np.inf)
        self._view_rays = view.rays().astype(np.float64)

    def see(self, height_m: float, surface_m: float) -> SurfaceView:
        """A surface `surface_m` above the table, from a hand that looks straight down at it."""
        below_m = height_m - surface_m
        with np.errstate(divide="ignore"):
            depth = (below_m - self._T[2, 3]) / self._along
            band_px = self.intrinsics.fx_px * self.baseline_m / depth
        seen = np.isfinite(depth) & (depth > 0) & (depth >= self.nearest_m) & (depth < self._own_m)
        seen &= np.arange(self.intrinsics.width_px) >= band_px
        mask = self._reproject(np.where(seen, depth, 0).astype(np.float32)) > 0
        points = below_m * self._view_rays - self._T[:3, 3]
        return SurfaceView(height_m, surface_m, mask, float((points @ self._T[:3, 2]).min()))

    def over_travel(
        self,
        heights_m: tuple[float, ...] = (START_HEIGHT_M, 0.25, 0.20, END_HEIGHT_M),
        surfaces_m: tuple[float, ...] = SURFACES_M,
    ) -> list[SurfaceView]:
        """Every surface from every height, but for those that the hand would touch."""
        return [
            self.see(h, s) for h in heights_m for s in surfaces_m if h - s >= CLEARANCE_M - 1e-9
        ]
