"""Good, usable or do not use: one line, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import t as student

from calib.data.recording import pose_row
from calib.errors import Finding, Level, listed
from calib.solve.motions import PARAMETERS
from calib.solve.se3 import angle_deg
from calib.solve.solver import HandEyeResult
from rt.pose import Array

GOOD, USABLE, NO = "good", "usable", "do not use"


@dataclass(frozen=True)
class Claim:
    """Intervals claimed for the transform, at 95 %."""

    half_width: Array
    """(6,): rotation [deg] then translation [mm] of T_mount_camera, along the mount's axes."""
    point_half_width_mm: Array
    """(3,) of the point at the working distance, along the mount's axes."""
    point_radius_mm: float
    """A ball around that point which holds the truth with 95 %."""


def claim(result: HandEyeResult) -> Claim:
    """95 % intervals, with Student's factor for the views that the noise was estimated from."""
    fit = result.fit
    factor = float(student.ppf(0.975, fit.interval_dof))
    unit = np.repeat([180 / np.pi, 1e3], 3)
    cov = result.point_cov(np.array([0, 0, result.settings.working_m])) * 1e6
    draws = np.random.default_rng(0).standard_t(fit.interval_dof, (4000, 3)) @ _root(cov).T
    return Claim(
        factor * np.sqrt(np.diag(result.hand_eye_cov)) * unit,
        factor * np.sqrt(np.diag(cov)),
        float(np.quantile(np.linalg.norm(draws, axis=1), 0.95)),
    )


def _root(cov: Array) -> Array:
    w, V = np.linalg.eigh(cov)
    return np.asarray(V * np.sqrt(np.maximum(w, 0)))


def disagreement(result: HandEyeResult) -> dict[str, tuple[float, float]]:
    """Of every closed form: distance [mm] at the working point and angle [deg] from the joint result."""
    p = np.array([0, 0, result.settings.working_m, 1])
    X = result.T_mount_camera
    return {
        m: (
            float(np.linalg.norm((T @ p - X @ p)[:3]) * 1e3),
            float(angle_deg(X[:3, :3].T @ T[:3, :3])),
        )
        for m, T in result.methods.items()
    }


def judge_result(result: HandEyeResult) -> tuple[str, str, list[Finding]]:
    """(verdict, its reason, all findings)."""
    findings = list(result.findings)
    if not result.belongs:
        reason = [f for f in findings if f.level == "error"][-1]
        return NO, reason.text, findings
    tolerance = result.settings.tolerance_m * 1e3
    c, kept = claim(result), result.keep
    held_out = float(np.sqrt(np.mean(result.left_out_m[kept] ** 2)) * 1e3)
    findings += _scale_findings(result, tolerance)
    if (~kept).any():
        share = float(np.mean(~kept))
        for i in np.flatnonzero(~kept).tolist():
            findings.append(
                Finding(
                    "warning" if share <= 0.2 else "error",
                    f"{result.views.names[i]} does not belong and is left out "
                    f"({result.studentised_text(i)}): {result.reasons[i]}",
                )
            )
        if share > 0.2:
            findings.append(
                Finding(
                    "error",
                    f"{int(np.sum(~kept))} of {len(kept)} pairs do not belong",
                    "find out why before using any of it",
                )
            )
    if result.fit.free.dt:
        dt, sd = result.fit.state.dt_s * 1e3, result.fit.dt_sd_s * 1e3
        large = abs(dt) > max(3 * sd, 2.0)
        findings.append(
            Finding(
                "warning" if large else "note",
                f"the camera's stamps are {abs(dt):.1f} ± {2 * sd:.1f} ms "
                f"{'early' if dt > 0 else 'late'} against the robot's; the result accounts for it",
                f"add {dt:.1f} ms to the camera's stamps" if large else "",
            )
        )
    pixel = result.fit.noise.pixel_px
    if result.views.pixels_are_real and pixel > 0.7:
        findings.append(
            Finding(
                "warning",
                f"corners lie {pixel:.2f} px from where a rigid flat target would have them",
                "check the kind and flatness of the target, the focus and the lens model",
            )
        )
    n = int(np.sum(kept))
    if n < 8:
        findings.append(
            Finding("warning", f"only {n} poses", "15 well-spread ones make the figures reliable")
        )
    a = result.advice
    if np.isfinite(a.overall) and a.overall < 0.5:
        weak = ", ".join(p for p, s in zip(PARAMETERS, a.score, strict=True) if s < 0.5)
        findings.append(
            Finding(
                "warning" if a.overall < 0.35 else "note",
                f"the motions determine the transform {a.overall:.0%} as well as {n} well-chosen poses "
                f"would (weak along the camera's axes: {weak or 'none'})",
                f"add the pose {a.next_viewpoint}" if a.next_viewpoint else "",
            )
        )
    spread = sorted(v[0] for v in disagreement(result).values())
    if spread and spread[len(spread) // 2] > max(5 * tolerance, 5 * c.point_radius_mm):
        findings.append(
            Finding(
                "warning",
                f"closed-form methods differ from the joint result by {spread[len(spread) // 2]:.1f} mm "
                "in median: something systematic is in the data",
            )
        )
    findings += _closed_forms_hold_out_better(result, held_out)
    if any(f.level == "error" for f in findings):
        reason = next(f for f in reversed(_by_weight(findings)) if f.level == "error")
        return NO, reason.text, findings
    radius, far = c.point_radius_mm, 3 * tolerance
    figures = f"held-out poses agree to {held_out:.2f} mm rms"
    if not result.intervals_hold:
        return (
            USABLE if held_out <= 5 * tolerance else NO,
            f"{figures}, but {n} poses cannot tell how far the result is from the truth: no interval is "
            "given; take 8 poses or more, 15 are good",
            findings,
        )
    figures = (
        f"a point at {result.settings.working_m * 1e3:.0f} mm is known to {radius:.2f} mm (95 %), "
        + figures
    )
    if radius > far or held_out > 5 * tolerance:
        return NO, f"{figures}; the tolerance is {tolerance:g} mm", findings
    warned = [f for f in _by_weight(findings) if f.level == "warning"]
    if radius > tolerance or held_out > 2 * tolerance:
        return USABLE, f"{figures}, beyond the {tolerance:g} mm wished for", findings
    if warned:
        return USABLE, f"{figures}, but {warned[-1].text}", findings
    return GOOD, figures, findings


def _closed_forms_hold_out_better(result: HandEyeResult, joint_mm: float) -> list[Finding]:
    """A warning if a closed form predicts the poses held out clearly better than the joint result."""
    if not result.methods_held_out:
        return []
    method = min(result.methods_held_out, key=lambda m: result.methods_held_out[m][0])
    best_mm = result.methods_held_out[method][0] * 1e3
    if joint_mm < 1.2 * best_mm + 0.05:
        return []
    return [
        Finding(
            "warning",
            f"the closed form of {method} predicts poses held out to {best_mm:.2f} mm, the joint result to "
            f"{joint_mm:.2f} mm: the errors are not those of camera and arm",
            "check the intrinsics (--intrinsics estimate or given), and that target and camera did not move",
        )
    ]


def _by_weight(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: ("note", "warning", "error").index(f.level))


FOCAL_SD = 0.003
"""Relative error of a focal length that no residual shows; the size by the robot's motion has it too."""


def scale_sd(result: HandEyeResult) -> float:
    """Standard deviation of the size by the robot's motion, over the stated one."""
    return float(np.hypot(result.scale_sd, 0.0 if result.fit.free.scale else FOCAL_SD))


def _scale_findings(result: HandEyeResult, tolerance_mm: float) -> list[Finding]:
    """A wrong board size hides from residuals; a freed size and the depth image show it."""
    size, off, sd = result.target.size_m * 1e3, result.scale - 1, scale_sd(result)
    ratio, shift = result.depth_ratio, result.scale_shift_m * 1e3
    samples = not result.views.pixels_are_real
    if result.fit.free.scale:
        text = (
            f"the target's size is estimated: {size * result.scale:.3f} ± {2 * sd * size:.3f} mm where "
            f"{size:g} mm was stated"
        )
        if samples:
            text = (
                f"the scale of the target poses is estimated: x {result.scale:.4f} ± {2 * sd:.4f}"
            )
        return [Finding("note", text)]
    depth_says = ""
    if ratio is not None and abs(ratio - 1) > 0.01:
        depth_says = f"; the depth images say {size * ratio:.2f} mm"
    if abs(off) > max(3 * sd, 0.002) and shift > 0.5 * tolerance_mm:
        text = (
            f"the target's fields measure {size * result.scale:.2f} ± {2 * sd * size:.2f} mm by the "
            f"robot's motion, not the stated {size:g} mm{depth_says}"
        )
        remedy = (
            "measure the printed target with a calliper and state its true size, or give --free-scale; "
            "if the size is right, the focal length or the robot's units are not"
        )
        if samples:
            text = (
                f"the robot moved {100 * off:+.1f} ± {200 * sd:.1f} % of what the target poses say"
            )
            remedy = (
                "the size of the tag was given wrongly to the program that measured them, or the robot's "
                "unit is wrong; --free-scale estimates it"
            )
        level: Level = "error" if abs(off) > 0.01 and shift > 2 * tolerance_mm else "warning"
        text += f": the result is off by about {shift:.1f} mm at the working distance"
        return [Finding(level, text, remedy)]
    if ratio is not None and depth_says:
        level = "error" if abs(ratio - 1) > 0.03 and sd > abs(off) else "warning"
        text = f"depth at the target is {100 * (ratio - 1):+.1f} % of what its stated size implies"
        remedy = "measure the printed target; if its size is right, the depth camera is off"
        return [Finding(level, text + depth_says, remedy)]
    return []


def summary(result: HandEyeResult) -> dict[str, Any]:
    """Everything as plain numbers, for the JSON and the tables."""
    verdict, reason, findings = judge_result(result)
    fit, c = result.fit, claim(result)
    X = result.T_mount_camera
    kept = result.keep
    hand = result.views.eye_in_hand
    camera = fit.state.camera
    turn = Rotation.from_matrix(X[:3, :3])
    return {
        "verdict": verdict,
        "reason": reason,
        "findings": [
            {"level": f.level, "text": f.text, "remedy": f.remedy}
            for f in _by_weight(findings)[::-1]
        ],
        "transform": "T_hand_camera" if hand else "T_base_camera",
        "eye_in_hand": hand,
        "poses_of": result.recording.poses_of,
        "reading": result.reading,
        "intervals_hold": result.intervals_hold,
        "translation_m": X[:3, 3].tolist(),
        "quaternion_xyzw": turn.as_quat(canonical=True).tolist(),
        "rotvec_deg": np.degrees(turn.as_rotvec()).tolist(),
        "matrix": X.tolist(),
        "covariance": result.hand_eye_cov.tolist(),
        "interval95_rotation_deg": c.half_width[:3].tolist(),
        "interval95_translation_mm": c.half_width[3:].tolist(),
        "working_distance_m": result.settings.working_m,
        "point_interval95_mm": c.point_half_width_mm.tolist(),
        "point_radius95_mm": c.point_radius_mm,
        "T_fixed_target": fit.state.T_fixed_target.tolist(),
        "noise": {
            "pixel_px": fit.noise.pixel_px if result.views.pixels_are_real else None,
            "robot_mm": fit.noise.robot_m * 1e3,
            "robot_deg": float(np.degrees(fit.noise.robot_rad)),
        },
        "residual_rms": _rms(
            result.error_m[kept] * 1e3, result.error_deg[kept], result.error_px[kept]
        ),
        "held_out_rms": _rms(
            result.left_out_m[kept] * 1e3, result.left_out_deg[kept], result.left_out_px[kept]
        ),
        "methods": {
            m: {
                "point_mm": d,
                "angle_deg": a,
                "held_out_mm": held[0] * 1e3,
                "held_out_deg": held[1],
                "matrix": result.methods[m].tolist(),
            }
            for m, (d, a) in disagreement(result).items()
            for held in [result.methods_held_out.get(m, (np.nan, np.nan))]
        },
        "scale": {"value": result.scale, "sd": scale_sd(result), "used": fit.state.scale},
        "depth_ratio": result.depth_ratio,
        "depth_scale": 1 / result.depth_ratio if result.depth_ratio else None,
        "time_offset_ms": fit.state.dt_s * 1e3 if fit.free.dt else None,
        "time_offset_sd_ms": fit.dt_sd_s * 1e3 if fit.free.dt else None,
        "camera": {
            "width": camera.width,
            "height": camera.height,
            **dict(zip(("fx", "fy", "cx", "cy"), camera.vector[:4].tolist(), strict=True)),
            "dist": list(camera.dist),
            "estimated": result.lens_refined,
        },
        "motion": {
            "score": dict(zip(PARAMETERS, result.advice.score.tolist(), strict=True)),
            "overall": result.advice.overall,
            "next_pose": str(result.advice.next_viewpoint or ""),
            "next_T_base_hand": None
            if result.advice.next_T_base_hand is None
            else result.advice.next_T_base_hand.tolist(),
            "next_pose_error_ratio": result.advice.gain,
        },
        "poses": [
            {
                "name": name,
                "kept": bool(kept[i]),
                "points": len(result.views.pixels[i]),
                "error_px": float(result.error_px[i]),
                "error_mm": float(result.error_m[i] * 1e3),
                "error_deg": float(result.error_deg[i]),
                "held_out_px": float(result.left_out_px[i]),
                "held_out_mm": float(result.left_out_m[i] * 1e3),
                "held_out_deg": float(result.left_out_deg[i]),
                "studentised": float(result.judged.studentised[i]),
                "p_value": float(result.judged.p_value[i]),
                "reason": result.reasons.get(i, ""),
            }
            for i, name in enumerate(result.views.names)
        ],
        "hand_poses": [pose_row(T) for T in result.views.T_base_hand[kept]],
        "target": result.target.spec,
        "data": str(result.recording.source),
        "data_sha256": result.recording.digest(),
        "outliers": listed([n for n, k in zip(result.views.names, kept, strict=True) if not k]),
    }


def _rms(*columns: Array) -> dict[str, float]:
    return {
        name: float(np.sqrt(np.mean(np.square(c))))
        for name, c in zip(("mm", "deg", "px"), columns, strict=True)
    }
