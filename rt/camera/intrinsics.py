"""The pinhole camera with its distortion, and the errors of this room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_UNDISTORT_STEPS = 100
_UNDISTORT_TOLERANCE_PX = 1e-3


class CameraError(RuntimeError):
    """A camera that is missing, lost, or that cannot do what is asked of it."""


class StaleFrameError(CameraError):
    """No frame young enough; `age_s` is the age of the newest, infinite if there is none at all."""

    def __init__(self, age_s: float, max_age_s: float) -> None:
        super().__init__(
            f"the newest frame is {age_s * 1e3:.0f} ms old, the limit is {max_age_s * 1e3:.0f} ms; "
            "check the camera's cable and its frame rate"
        )
        self.age_s = age_s


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera as OpenCV and RealSense describe it: the centre of pixel (0, 0) is (0, 0).

    `distortion` holds the Brown-Conrady coefficients k1, k2, p1, p2, k3 (all zero: none).
    `distortion_model` says which way they act: `brown_conrady` bends a true ray to where it is seen
    (OpenCV, RealSense colour), `inverse_brown_conrady` bends a seen ray back to the true one
    (RealSense depth of some models).
    """

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: tuple[float, ...] = ()
    distortion_model: str = "brown_conrady"

    def __post_init__(self) -> None:
        numbers = (self.fx_px, self.fy_px, self.cx_px, self.cy_px, *self.distortion)
        if self.width_px < 1 or self.height_px < 1 or self.fx_px <= 0 or self.fy_px <= 0:
            raise CameraError(f"{self}: size and focal lengths must be above 0")
        if not np.isfinite(numbers).all():
            raise CameraError(f"{self}: every number must be finite")
        if len(self.distortion) not in (0, 4, 5):
            raise CameraError(
                f"{len(self.distortion)} distortion coefficients; give none, or k1 k2 p1 p2 [k3]"
            )
        if self.distortion_model not in ("brown_conrady", "inverse_brown_conrady"):
            raise CameraError(
                f"distortion model {self.distortion_model!r} is not known; known are "
                "brown_conrady and inverse_brown_conrady"
            )

    def rays(self) -> NDArray[np.float32]:
        """True direction of every pixel, (height, width, 3) float32, z = 1.

        Raises CameraError if the distortion is so strong that it has no inverse at some pixel.
        """
        u, v = np.arange(self.width_px), np.arange(self.height_px)
        seen_x, seen_y = np.meshgrid((u - self.cx_px) / self.fx_px, (v - self.cy_px) / self.fy_px)
        if not any(self.distortion):
            x, y = seen_x, seen_y
        elif self.distortion_model == "inverse_brown_conrady":
            x, y = distort(seen_x, seen_y, self.distortion)
        else:
            x, y = self._undistort(seen_x, seen_y)
        return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)

    def _undistort(
        self, seen_x: NDArray[np.float64], seen_y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Inverse of `distort` by fixed-point iteration, as OpenCV does it, but to convergence."""
        x, y = seen_x, seen_y
        worst_px = np.inf
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_UNDISTORT_STEPS):
                bent_x, bent_y = distort(x, y, self.distortion)
                error_x, error_y = seen_x - bent_x, seen_y - bent_y
                worst_px = float(
                    max(np.abs(error_x).max() * self.fx_px, np.abs(error_y).max() * self.fy_px)
                )
                if worst_px < _UNDISTORT_TOLERANCE_PX / 100:
                    break
                x, y = x + error_x, y + error_y
        if not worst_px < _UNDISTORT_TOLERANCE_PX:
            raise CameraError(
                f"distortion {self.distortion} cannot be undone over the whole image (off by "
                f"{worst_px:.3g} px, limit {_UNDISTORT_TOLERANCE_PX} px); calibrate the lens again"
            )
        return x, y


def distort(
    x: NDArray[np.float64], y: NDArray[np.float64], coefficients: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Brown-Conrady: where the ray (x, y, 1) is seen, as (x, y) on the plane z = 1."""
    k1, k2, p1, p2, k3 = (*coefficients, 0.0)[:5]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )
