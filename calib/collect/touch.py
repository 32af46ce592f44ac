"""A touch test: the hand points at spots that the camera chose, and the operator says how far off it is.

Residuals agree with themselves; a finger at a spot does not. Camera, depth, arm and the length of the fingers
are in the answer together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from calib.collect.protocol import ImageFrame
from calib.errors import CalibrationError
from calib.solve.model import LensModel
from calib.solve.se3 import inverse, skew, transform
from calib.target.detect import detect
from calib.target.targets import Target
from rt.pose import Array

ENTERED_M = 5e-4
"""Standard deviation of what an operator reads off [m]."""
PRIOR_RAD, PRIOR_M = np.radians(3.0), 0.03
"""Prior standard deviation of a camera's error: three spots alone leave it open in some directions."""
PATCH = 4
"""Half side of the patch of depth around a spot, px."""


@dataclass(frozen=True)
class Spot:
    """A place that the hand is to point at."""

    pixel: Array
    """(2,)."""
    point_m: Array
    """(3,) in the camera's frame, by depth."""


def choose_spots(
    frame: ImageFrame, camera: LensModel, target: Target | None, count: int
) -> list[Spot]:
    """Corners of the target, or else corners in the picture, with even depth around them, far apart.

    Raises CalibrationError if there are fewer than `count` with depth.
    """
    if frame.depth is None:
        raise CalibrationError("the camera gives no depth in the frame of its pictures")
    found = detect(target, frame.image) if target else None
    if found is not None:
        pixels = found.pixels
    else:
        corners = cv2.goodFeaturesToTrack(frame.image, 60, 0.05, frame.image.shape[1] / 40)
        pixels = np.zeros((0, 2)) if corners is None else corners[:, 0].astype(np.float64)
    spots = [s for uv in pixels if (s := _spot(frame.depth, camera, uv)) is not None]
    if len(spots) < count:
        raise CalibrationError(
            f"{len(spots)} marks with depth are in view, {count} are needed; lay the target or a sheet of "
            "printed paper flat on the table, in the middle of the view"
        )
    return _far_apart(spots, count)


def _spot(depth: NDArray[np.float32], camera: LensModel, uv: Array) -> Spot | None:
    """The point behind a pixel by the plane through the depth around it; None at holes and edges."""
    u, v = round(float(uv[0])), round(float(uv[1]))
    if not (PATCH <= u < camera.width - PATCH and PATCH <= v < camera.height - PATCH):
        return None
    z = depth[v - PATCH : v + PATCH + 1, u - PATCH : u + PATCH + 1].astype(np.float64)
    if np.mean(z > 0) < 0.8:
        return None
    at = float(np.median(z[z > 0]))
    if np.quantile(np.abs(z[z > 0] - at), 0.8) > 0.02 * at:
        return None
    ideal = cv2.undistortPoints(uv.reshape(1, 1, 2), camera.K, np.array(camera.dist))[0, 0]
    return Spot(np.asarray(uv), at * np.array([*ideal, 1.0]))


def _far_apart(spots: list[Spot], count: int) -> list[Spot]:
    """The spots whose least distance is largest, one after another, from the farthest two on."""
    p = np.array([s.point_m for s in spots])
    far = np.linalg.norm(p[:, None] - p[None], axis=-1)
    chosen = list(max(combinations(range(len(p)), 2), key=lambda ij: far[ij])) if count > 1 else [0]
    while len(chosen) < count:
        chosen.append(int(np.argmax(far[:, chosen].min(axis=1))))
    return [spots[k] for k in chosen[:count]]


def pointing_pose(T_base_hand: Array, spot_base_m: Array, tip_m: Array, above_m: float) -> Array:
    """T_base_hand (4, 4), turned as now, with the tip (3,) in the hand's frame above a spot in base."""
    R = T_base_hand[:3, :3]
    return np.asarray(transform(R, spot_base_m + np.array([0, 0, above_m]) - R @ tip_m))


def marked(frame: ImageFrame, spots: list[Spot]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) with numbered rings around the spots."""
    picture = cv2.cvtColor(frame.image, cv2.COLOR_GRAY2BGR)
    for k, s in enumerate(spots):
        u, v = (round(float(x)) for x in s.pixel)
        cv2.circle(picture, (u, v), 9, (0, 0, 255), 2, cv2.LINE_AA)
        cv2.putText(
            picture,
            str(k + 1),
            (u + 11, v - 8),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.7,
            (0, 0, 255),
            2,
            cv2.LINE_AA,
        )
    return np.asarray(picture)


def parse_offset(text: str, above_m: float) -> Array | None:
    """(3,) [m] error from "x y [z]" in mm, the way from the tip to the spot along the base's axes.

    z counts from the tip, which stops `above_m` over the spot; NaN where it is not given. None for an empty
    line. Raises CalibrationError for anything else.
    """
    words = text.replace(",", " ").split()
    if not words:
        return None
    try:
        values = [float(w) for w in words]
    except ValueError as error:
        raise CalibrationError(f"{text!r}: give numbers in mm, as in: 1.5 -0.5 -5") from error
    if len(values) not in (2, 3) or not np.all(np.isfinite(values)) or np.abs(values).max() > 100:
        raise CalibrationError(
            f"{text!r}: give two or three numbers below 100 mm, as in: 1.5 -0.5 -5"
        )
    z = values[2] * 1e-3 + above_m if len(values) == 3 else np.nan
    return np.array([values[0] * 1e-3, values[1] * 1e-3, z])


@dataclass(frozen=True)
class TouchResult:
    """Errors at the fingers, and the error of the camera that would explain them."""

    error_m: Array
    """(k, 3) along the base's axes; NaN where it was not told."""
    turn_deg: Array
    """(3,) of the camera, along its axes."""
    moved_mm: Array
    """(3,)"""
    moved_half_mm: Array
    rest_mm: float
    """Root mean square of what no error of the camera explains."""

    @property
    def miss_mm(self) -> Array:
        """(k,) distance of each spot."""
        return np.asarray(np.sqrt(np.nansum(self.error_m**2, axis=1)) * 1e3)

    def verdict(self, tolerance_mm: float) -> tuple[bool, str]:
        """(within the tolerance, one line)."""
        miss, k = self.miss_mm, int(np.argmax(self.miss_mm))
        count = np.isfinite(self.error_m).sum(axis=0)
        mean = np.where(count, np.nansum(self.error_m, axis=0) / np.maximum(count, 1), np.nan) * 1e3
        each = ", ".join(f"{m:.1f}" for m in miss)
        said = (
            f"the fingers miss {len(miss)} spots by {each} mm (worst: spot {k + 1}), on average by "
            + " ".join(f"{a}{m:+.1f}" for a, m in zip("xyz", mean, strict=True) if np.isfinite(m))
            + f" mm in base; the tolerance is {tolerance_mm:g} mm"
        )
        if miss[k] <= tolerance_mm:
            return True, f"touched: {said}"
        moved = ", ".join(
            f"{m:+.1f} ± {h:.1f}" for m, h in zip(self.moved_mm, self.moved_half_mm, strict=True)
        )
        return False, (
            f"MISSED: {said}; a camera that sits elsewhere by {moved} mm along its axes, or fingers of "
            f"another length, would explain all but {self.rest_mm:.1f} mm"
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers."""
        return {
            "error_mm": (self.error_m * 1e3).tolist(),
            "miss_mm": self.miss_mm.tolist(),
            "camera_moved_mm": self.moved_mm.tolist(),
            "camera_moved_interval95_mm": self.moved_half_mm.tolist(),
            "camera_turned_deg": self.turn_deg.tolist(),
            "rest_mm": self.rest_mm,
        }


def explain_touch(error_m: Array, spots: list[Spot], T_base_camera: Array) -> TouchResult:
    """The camera's error (rotation, translation in its own frame) that fits errors (k, 3) best.

    T_base_camera: (4, 4) from which the spots were chosen.
    """
    rows, right = [], []
    for e, s in zip(error_m, spots, strict=True):
        J = T_base_camera[:3, :3] @ np.concatenate([-skew(s.point_m), np.eye(3)], axis=1)
        told = np.isfinite(e)
        rows.append(J[told])
        right.append(e[told])
    J, e = np.concatenate(rows) / ENTERED_M, np.concatenate(right) / ENTERED_M
    prior = np.repeat([1 / PRIOR_RAD**2, 1 / PRIOR_M**2], 3)
    cov = np.linalg.inv(J.T @ J + np.diag(prior))
    moved = cov @ J.T @ e
    rest = (e - J @ moved) * ENTERED_M
    factor = float(student.ppf(0.975, max(len(e) - 3, 2)))
    return TouchResult(
        error_m,
        np.degrees(moved[:3]),
        moved[3:] * 1e3,
        factor * np.sqrt(np.diag(cov)[3:]) * 1e3,
        float(np.sqrt(np.mean(rest**2)) * 1e3),
    )


def simulated_operator(rig: Any, tip_m: Array, T_base_camera: Array) -> Callable[[Spot], str]:
    """Answers of an operator at a simulated rig, who reads to half a millimetre.

    T_base_camera: the true one at the picture.
    """

    def answer(spot: Spot) -> str:
        ray = np.append(spot.point_m / spot.point_m[2], 0)
        table = inverse(rig.truth.T_fixed_target) @ T_base_camera
        depth = -table[2, 3] / (table @ ray)[2]
        true = (T_base_camera @ np.append(ray[:3] * depth, 1))[:3]
        tip = (rig._pose @ np.append(tip_m, 1))[:3]
        off = (true - tip) * 1e3 + rig.rng.normal(0, 0.3, 3)
        return " ".join(f"{x:.1f}" for x in off)

    return answer
