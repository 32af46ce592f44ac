"""T_hand_camera without a target, with a verdict: the table gives the start, the still scene the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from calib.data.poses import PoseFormat
from calib.data.recording import NO_TARGET, Recording, pose_row
from calib.errors import CalibrationError, Finding
from calib.scene.clouds import clouds_of, flattened, planes_of
from calib.scene.start import start_from_planes, table_frame
from calib.scene.still import SceneFit, fit_scene
from calib.solve.model import LensModel
from calib.solve.se3 import inverse, to_vector
from calib.solve.verdict import GOOD, NO, USABLE
from rt.pose import Array

FEWEST, FEW = 6, 10
"""Views below which there is no result, and below which it is not called good."""


@dataclass(frozen=True)
class SceneResult:
    """A solution from a still scene, and what speaks against it."""

    recording: Recording
    camera: LensModel
    fit: SceneFit
    T_base_hand: Array
    """(N, 4, 4) of the views used."""
    T_base_table: Array
    working_m: float
    tolerance_m: float
    start_apart: Array
    """(6,) rotation [deg], translation [mm] from the table alone to the result."""
    halves_z: float
    """Distance between the results of every other view, in its standard deviations (root mean square)."""

    @property
    def point_half_mm(self) -> Array:
        """(3,) 95 % interval of the point at the working distance, along the camera's axes."""
        return self.fit.factor * np.sqrt(np.diag(self.fit.point_cov(self.working_m))) * 1e3

    def judge(self) -> tuple[str, str, list[Finding]]:
        """(verdict, its reason, all findings)."""
        findings, fit = list(self.recording.findings), self.fit
        half, tolerance = self.point_half_mm, self.tolerance_m * 1e3
        k = int(np.argmax(half))
        turn = fit.factor * np.degrees(np.sqrt(np.diag(fit.cov)[:3])).max()
        said = (
            f"by the still scene a point at {self.working_m * 1e3:.0f} mm is known to {half[k]:.2f} mm "
            f"(95 %, along the camera's {'xyz'[k]}, the worst direction) and the rotation to {turn:.3f} deg"
        )
        findings.append(
            Finding(
                "note",
                f"the depth camera's scale is {fit.scale:.4f} ± {2 * fit.scale_sd:.4f} by the arm's motion; "
                f"the poses disagree by {fit.robot_m * 1e3:.2f} mm and {np.degrees(fit.robot_rad):.3f} deg",
            )
        )
        if self.halves_z > 2.5:
            findings.append(
                Finding(
                    "error" if self.halves_z > 5 else "warning",
                    f"two halves of the views disagree by {self.halves_z:.1f} standard deviations",
                    "something moved, or poses and images do not belong together: take them again",
                )
            )
        if fit.views < FEW:
            findings.append(Finding("warning", f"only {fit.views} views", "15 are good"))
        if abs(fit.scale - 1) > 0.02:
            findings.append(
                Finding(
                    "warning",
                    f"the depth is {100 * (1 / fit.scale - 1):+.1f} % of what the arm's motion says",
                    "check the robot's unit and the depth camera's calibration",
                )
            )
        worst = [f for f in findings if f.level == "error"]
        if worst:
            return NO, worst[-1].text, findings
        if half[k] > 5 * tolerance:
            return (
                NO,
                f"{said}; the tolerance is {tolerance:g} mm: tilt more, put things on the table",
                findings,
            )
        if half[k] > tolerance:
            return USABLE, f"{said}, beyond the {tolerance:g} mm wished for", findings
        warned = [f for f in findings if f.level == "warning"]
        if warned:
            return USABLE, f"{said}, but {warned[-1].text}", findings
        return GOOD, said, findings


def solve_scene(
    recording: Recording,
    form: PoseFormat | None,
    camera: LensModel | None,
    working_m: float,
    tolerance_m: float,
) -> SceneResult:
    """The whole way from depth images and poses; raises CalibrationError where there is no result.

    form: of the poses, if the data do not say. camera: intrinsics of the depth images, if the data have none.
    """
    form, camera = form or recording.format, camera or recording.camera
    if form is None:
        raise CalibrationError(
            f"{recording.pose_files} does not say how its poses are written, and without a target nothing "
            "decides it; give --pose-format"
        )
    if camera is None:
        raise CalibrationError("without a target the intrinsics are needed; give --camera FILE")
    if recording.eye_in_hand is False:
        raise CalibrationError("without a target the camera must be in the hand")
    recording.format = form
    clouds, rows = clouds_of(recording, camera)
    if len(clouds) < FEWEST:
        raise CalibrationError(
            f"{len(clouds)} of {len(recording.entries)} views have depth; without a target {FEWEST} are "
            "needed, 15 are good"
        )
    T_base_hand = recording.read_poses(form)[rows]
    planes = planes_of(clouds, np.random.default_rng(0))
    clouds = [flattened(c, p) for c, p in zip(clouds, planes, strict=True)]
    start = start_from_planes(planes, T_base_hand)
    fit = fit_scene(clouds, T_base_hand, camera, start)
    halves = []
    for k in (0, 1):
        halves.append(
            fit_scene(
                clouds[k::2],
                T_base_hand[k::2],
                camera,
                fit.T_hand_camera,
                (fit.scale, fit.scale_sd),
            )
        )
    apart = to_vector(inverse(halves[0].T_hand_camera) @ halves[1].T_hand_camera)
    both = halves[0].cov + halves[1].cov
    z = float(np.sqrt(apart @ np.linalg.solve(both, apart) / 6))
    off = to_vector(inverse(start) @ fit.T_hand_camera)
    return SceneResult(
        recording,
        camera,
        fit,
        T_base_hand,
        table_frame(planes, T_base_hand, fit.T_hand_camera),
        working_m,
        tolerance_m,
        np.concatenate([np.degrees(off[:3]), off[3:] * 1e3]),
        z,
    )


def summary(result: SceneResult) -> dict[str, Any]:
    """Everything as plain numbers: for handeye.json and for the cell file."""
    verdict, reason, findings = result.judge()
    fit, X, camera = result.fit, result.fit.T_hand_camera, result.camera
    half = fit.factor * np.sqrt(np.diag(fit.hand_cov))
    return {
        "verdict": verdict,
        "reason": reason,
        "findings": [vars(f) for f in findings],
        "transform": "T_hand_camera",
        "eye_in_hand": True,
        "poses_of": result.recording.poses_of,
        "translation_m": X[:3, 3].tolist(),
        "quaternion_xyzw": Rotation.from_matrix(X[:3, :3]).as_quat(canonical=True).tolist(),
        "matrix": X.tolist(),
        "covariance": fit.hand_cov.tolist(),
        "interval95_rotation_deg": np.degrees(half[:3]).tolist(),
        "interval95_translation_mm": (half[3:] * 1e3).tolist(),
        "working_distance_m": result.working_m,
        "point_interval95_mm": result.point_half_mm.tolist(),
        "T_fixed_target": result.T_base_table.tolist(),
        "depth_scale": fit.scale,
        "depth_scale_sd": fit.scale_sd,
        "noise": {"robot_mm": fit.robot_m * 1e3, "robot_deg": float(np.degrees(fit.robot_rad))},
        "views": fit.views,
        "pairs_of_views": fit.pairs,
        "from_table_alone": result.start_apart.tolist(),
        "halves_apart_sd": result.halves_z,
        "time_offset_ms": None,
        "camera": {
            "width": camera.width,
            "height": camera.height,
            **dict(zip(("fx", "fy", "cx", "cy"), camera.vector[:4].tolist(), strict=True)),
            "dist": list(camera.dist),
        },
        "hand_poses": [pose_row(T) for T in result.T_base_hand],
        "target": NO_TARGET,
        "data": str(result.recording.source),
        "data_sha256": result.recording.digest(),
    }
