"""Was the camera knocked? A few depth views of anything, against the cell's transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.data.recording import Recording
from calib.errors import CalibrationError
from calib.scene.clouds import clouds_of, flattened, planes_of
from calib.scene.still import SCALE_SD, SceneFit, fit_scene
from calib.solve.model import LensModel
from calib.solve.se3 import inverse, skew, to_vector
from rt.pose import Array

DISTANCE_M = 0.3
"""Distance from the camera at which its error is told."""
CALIBRATED_SCALE_SD = 0.0015
"""Standard deviation of the depth camera's scale as a calibration with depth images tells it."""


@dataclass(frozen=True)
class Knock:
    """Motion of the camera on the hand since the calibration, with 95 % intervals, along its axes."""

    turn_deg: Array
    """(3,)."""
    turn_half_deg: Array
    point_mm: Array
    """(3,) displacement of the point on the optical axis at DISTANCE_M."""
    point_half_mm: Array
    views: int

    @classmethod
    def of(cls, fit: SceneFit, T_hand_camera: Array, cov: Array) -> Knock:
        """T_hand_camera (4, 4) of the cell; cov (6, 6) of it, along the hand's axes."""
        R = np.kron(np.eye(2), T_hand_camera[:3, :3].T)
        moved = to_vector(inverse(T_hand_camera) @ fit.T_hand_camera)
        both = fit.cov + R @ cov @ R.T
        J = _at_distance()
        return cls(
            np.degrees(moved[:3]),
            fit.factor * np.degrees(np.sqrt(np.diag(both)[:3])),
            J @ moved * 1e3,
            fit.factor * np.sqrt(np.diag(J @ both @ J.T)) * 1e3,
            fit.views,
        )

    @staticmethod
    def displacement(moved: Array) -> Array:
        """(3,) [mm] of the point at DISTANCE_M for a motion (6,) of the camera in its own frame."""
        return np.asarray(_at_distance() @ moved * 1e3)

    def judge(self, tolerance_mm: float) -> tuple[str, str]:
        """(`true`, `moved` or `unknown`, one line): by the worst axis, the interval included."""
        bound = np.abs(self.point_mm) + self.point_half_mm
        beyond = np.abs(self.point_mm) / np.maximum(self.point_half_mm, 1e-9)
        sure = (beyond > 1) & (np.abs(self.point_mm) > tolerance_mm)
        turned = float(np.linalg.norm(self.turn_deg))
        k = int(
            np.argmax(np.where(sure, np.abs(self.point_mm), 0)) if sure.any() else np.argmax(bound)
        )
        said = (
            f"at {DISTANCE_M * 1e3:.0f} mm its points have moved by {self.point_mm[k]:+.2f} ± "
            f"{self.point_half_mm[k]:.2f} mm along its {'xyz'[k]}, the worst direction, and it has turned by "
            f"{turned:.2f} ± {self.turn_half_deg.max():.2f} deg; the tolerance is {tolerance_mm:g} mm"
        )
        if bound.max() <= tolerance_mm:
            return "true", f"still true: {said}"
        if sure.any():
            return "moved", f"KNOCKED: {said}; calibrate again"
        return "unknown", (
            f"NOT known, since {self.views} views of this scene cannot tell: {said}; put some things of "
            "several heights on the table, or use `verify`"
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers."""
        return {
            "distance_m": DISTANCE_M,
            "views": self.views,
            "point_mm": self.point_mm.tolist(),
            "point_interval95_mm": self.point_half_mm.tolist(),
            "rotation_deg": self.turn_deg.tolist(),
            "rotation_interval95_deg": self.turn_half_deg.tolist(),
        }


def _at_distance() -> Array:
    return np.concatenate([-skew([0, 0, DISTANCE_M]), np.eye(3)], axis=1)


def check_scene(
    recording: Recording,
    camera: LensModel,
    T_hand_camera: Array,
    cov: Array,
    depth_scale: float | None = None,
) -> tuple[Knock, SceneFit]:
    """The motion since T_hand_camera (4, 4), known with cov (6, 6), by the depth images of a recording.

    depth_scale: of the depth camera, true over measured, if the calibration told it.
    Raises CalibrationError below three views with a table, or if the format of the poses is unknown.
    """
    if recording.format is None:
        raise CalibrationError(
            f"{recording.pose_files} does not say how its poses are written; give --pose-format"
        )
    clouds, rows = clouds_of(recording, camera)
    if len(clouds) < 3:
        raise CalibrationError(
            f"{len(clouds)} of {len(recording.entries)} views have depth; at least 3 are needed, 5 are good"
        )
    planes = planes_of(clouds, np.random.default_rng(0))
    clouds = [flattened(c, p) for c, p in zip(clouds, planes, strict=True)]
    T_base_hand = recording.read_poses(recording.format)[rows]
    known = (1.0, SCALE_SD) if depth_scale is None else (depth_scale, CALIBRATED_SCALE_SD)
    fit = fit_scene(clouds, T_base_hand, camera, T_hand_camera, known)
    return Knock.of(fit, T_hand_camera, cov), fit
