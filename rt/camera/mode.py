"""Which of a camera's modes fits the hand's travel at this mount."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError, Intrinsics
from rt.camera.coverage import CLEARANCE_M, MIN_SHARE, SURFACES_M, USUAL_SURFACE_M, Coverage
from rt.camera.models import Size

_MOST_PX = 640 * 480
"""More pixels only cost time: the view has 64x64."""


@dataclass(frozen=True, eq=False)
class Mode:
    """One depth mode of a camera at its mount."""

    camera: str
    intrinsics: Intrinsics
    rate_hz: float
    nearest_m: float | None
    """None: not known."""
    baseline_m: float
    T_hand_camera: NDArray[np.float64]

    @property
    def size(self) -> Size:
        return self.intrinsics.width_px, self.intrinsics.height_px

    def __str__(self) -> str:
        return f"{self.camera} at {self.size[0]}x{self.size[1]}"

    def seen_up_to_m(self, height_m: float) -> float:
        """The highest surface such that this one and all below fill enough of the view from a height;
        -inf if not even the table does."""
        coverage = Coverage(
            self.intrinsics, self.T_hand_camera, self.nearest_m or 0.0, self.baseline_m
        )
        top = -np.inf
        for surface_m in SURFACES_M:
            if height_m - surface_m < CLEARANCE_M:
                break
            if coverage.see(height_m, surface_m).share < MIN_SHARE:
                break
            top = surface_m
        return float(top)


def choose_mode(
    modes: list[Mode], size: Size | None, rate_hz: float, final_height_m: float | None
) -> Mode:
    """The mode of that size; without one, the finest up to 640x480 that sees most at the final height.

    Its rate is the lowest that is at least `rate_hz`, or the highest there is. Raises CameraError,
    listing what there is, for a size that is not.
    """
    if not modes:
        raise CameraError("the camera has no depth mode (z16)")
    if size is not None:
        wanted = [m for m in modes if m.size == size]
        if not wanted:
            known = ", ".join(f"{w}x{h}" for w, h in sorted({m.size for m in modes}, reverse=True))
            raise CameraError(f"{modes[0].camera} has no mode {size[0]}x{size[1]}; it has {known}")
        return _at_rate(wanted, rate_hz)
    # A mode too slow for the loop is no choice as long as there is a faster one.
    fastest = max(m.rate_hz for m in modes)
    fast = [m for m in modes if m.rate_hz >= min(rate_hz, fastest)]
    small = [m for m in fast if m.size[0] * m.size[1] <= _MOST_PX] or fast
    sizes = sorted({m.size for m in small}, key=lambda s: (s[0] * s[1], s), reverse=True)
    best, best_top = small[0], -np.inf
    for one in sizes:
        mode = _at_rate([m for m in small if m.size == one], rate_hz)
        if final_height_m is None or mode.nearest_m is None:
            return mode
        top = mode.seen_up_to_m(final_height_m)
        if top > best_top or one == sizes[0]:
            best, best_top = mode, top
        if top >= SURFACES_M[-1]:
            break
    return best


def judge_mode(mode: Mode, final_height_m: float | None) -> list[str]:
    """Warnings for the user about a mode. Raises CameraError for a mode that is unusable."""
    if final_height_m is None:
        return []
    if mode.nearest_m is None:
        return [
            f"the nearest depth of {mode} is not known; check that it sees objects from "
            f"{final_height_m:g} m"
        ]
    top = mode.seen_up_to_m(final_height_m)
    highest = max((s for s in SURFACES_M if final_height_m - s >= CLEARANCE_M), default=0.0)
    if top >= highest:
        return []
    limits = (
        f"{mode} sees nothing nearer than {mode.nearest_m * 1e3:.0f} mm, and at this mount, from the "
        f"final height of {final_height_m * 1e3:.0f} mm, "
    )
    remedy = "choose a smaller mode, mount it further back, or see python -m rt.mount"
    if top < min(USUAL_SURFACE_M, highest):
        what = "not even the table" if top < 0 else f"nothing higher than {top * 1e3:.0f} mm"
        raise CameraError(
            f"{limits}{what} fills the {MIN_SHARE:g} of the view that the guard wants; {remedy}"
        )
    return [f"{limits}it does not see the tops of things higher than {top * 1e3:.0f} mm; {remedy}"]


def _at_rate(modes: list[Mode], rate_hz: float) -> Mode:
    ordered = sorted(modes, key=lambda m: m.rate_hz)
    return next((m for m in ordered if m.rate_hz >= rate_hz - 0.5), ordered[-1])
