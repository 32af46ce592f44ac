"""Pairing of images and robot poses: the reading of the poses, and checks that both belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calib.data.poses import PoseFormat
from calib.data.recording import Recording
from calib.errors import CalibrationError, Finding
from calib.solve.closed_form import rotation_spread
from calib.solve.diagnose import (
    SEEN_ENOUGH_M,
    Reading,
    TargetViews,
    format_readings,
    misreadings,
    rank,
    resolve_symmetry,
)
from calib.solve.model import Views
from calib.solve.outliers import Consensus, consensus
from calib.solve.se3 import inverse
from rt.pose import Array


def choose_reading(
    recording: Recording,
    stated: PoseFormat | None,
    eye_in_hand: bool | None,
    seen: TargetViews,
    rng: np.random.Generator,
) -> tuple[Array, PoseFormat, bool]:
    """(T_base_hand (N, 4, 4), its format, camera in the hand): as stated, else whichever fits."""
    form = stated or recording.format
    in_hand = eye_in_hand if eye_in_hand is not None else recording.eye_in_hand
    if form is not None and in_hand is not None:
        return recording.read_poses(form), form, in_hand
    if form is None:
        readings = format_readings(recording.rows, seen, in_hand)
    else:
        T = recording.read_poses(form)
        readings = []
        for one in (True, False) if in_hand is None else (in_hand,):
            A = (T if one else inverse(T))[seen.index]
            readings.append(
                Reading(
                    "camera in the hand" if one else "fixed camera",
                    f"--camera-is {'in-hand' if one else 'fixed'}",
                    A,
                    seen.mismatch_deg(A),
                    key=(form, one),
                )
            )
    if not readings:
        form = PoseFormat("matrix" if recording.rows.shape[1] == 16 else "quat_xyzw")
        recording.read_poses(form)  # says what is wrong with the numbers
        raise CalibrationError(f"{recording.pose_files}: the poses fit no known format")
    ranked = rank(readings, seen, rng)
    best = ranked[0]
    assert isinstance(best.key, tuple)
    chosen, one = best.key
    rival = ranked[1] if len(ranked) > 1 else None
    said = "; ".join(f"{r.label}: {r.scale_m * 1e3:.1f} mm" for r in ranked[:3])
    if rival is not None and best.scale_m > 0.5 * rival.scale_m:
        recording.findings.append(
            Finding(
                "warning",
                f"{recording.pose_files} does not state how its poses are written, and the images do "
                f"not decide it clearly ({said})",
                "state it with --pose-format and --camera-is",
            )
        )
    else:
        recording.findings.append(
            Finding(
                "note",
                f"{recording.pose_files} does not say how its poses are written; read as {best.label}, "
                f"which fits best ({said})",
            )
        )
    return recording.read_poses(chosen), chosen, one


def turn_points(
    points: list[Array], seen: TargetViews, T_base_hand: Array, eye_in_hand: bool
) -> list[Array]:
    """Points of a symmetric target renumbered such that it lies the same way round in all views."""
    A = T_base_hand if eye_in_hand else inverse(T_base_hand)
    choice = resolve_symmetry(A, seen.T_camera_target, seen.symmetries)
    turned: list[Array] = []
    for p, k in zip(points, choice, strict=True):
        S = inverse(seen.symmetries[k])
        turned.append(p @ S[:3, :3].T + S[:3, 3])
    return turned


def check_motion(views: Views) -> None:
    largest, second = rotation_spread(views.fixed_mount())
    where = f"{len(views)} poses ({views.names[0]} ... {views.names[-1]})"
    if largest < 3:
        raise CalibrationError(
            f"the {where} differ by {largest:.1f} deg of rotation at most: nearly pure translation, "
            "from which no hand-eye transform follows; turn the hand by 20 deg and more between poses"
        )
    if second < 1.0:
        raise CalibrationError(
            f"the {where} turn about parallel axes only ({second:.2f} deg about any other): the "
            "translation along that axis cannot be known; tilt the hand about a second axis too"
        )
    if np.median(np.linalg.norm(views.T_base_hand[:, :3, 3], axis=1)) > 20:
        raise CalibrationError(
            "the hand is "
            f"{np.median(np.linalg.norm(views.T_base_hand[:, :3, 3], axis=1)):.0f} m from its base: "
            "positions are in millimetres; add :mm to --pose-format"
        )


def check_pairing(
    recording: Recording,
    seen: TargetViews,
    T_base_hand: Array,
    form: PoseFormat,
    eye_in_hand: bool,
    start: Consensus | None,
    timed: bool,
    rng: np.random.Generator,
) -> bool:
    """False if images and poses disagree grossly; the likely cause is added to the findings."""
    spread = start.scale_m if start else np.inf
    limit = SEEN_ENOUGH_M * (3 if timed else 1)
    A = (T_base_hand if eye_in_hand else inverse(T_base_hand))[seen.index]
    if spread < limit:
        return True
    recording.findings.append(
        Finding(
            "error",
            f"images and robot poses do not belong together: the target moves by "
            f"{spread * 1e3:.0f} mm from view to view (typical), rotations differ by "
            f"{seen.mismatch_deg(A):.1f} deg",
        )
    )
    readings = misreadings(T_base_hand, recording.rows, form, seen, eye_in_hand)
    ranked = rank(readings, seen, rng) if readings else []
    if ranked and ranked[0].scale_m < 0.4 * spread:
        best = ranked[0]
        recording.findings.append(
            Finding(
                "error",
                f"most likely {best.label}: then the target stays within {best.scale_m * 1e3:.1f} mm",
                best.remedy,
            )
        )
    elif (mirrored := _mirrored(seen, A, rng)) < 0.4 * spread:
        recording.findings.append(
            Finding(
                "error",
                f"most likely the images are mirrored: unmirrored, the target stays within "
                f"{mirrored * 1e3:.1f} mm",
                "switch off the camera's mirror mode",
            )
        )
    else:
        recording.findings.append(
            Finding(
                "error",
                "no common mistake explains it",
                "check that images and poses are in the same order, that the target did not move, and "
                "that the poses are of the hand that carries the camera",
            )
        )
    return False


def _mirrored(seen: TargetViews, T_fixed_mount: Array, rng: np.random.Generator) -> float:
    """Spread [m] of the target if every image was mirrored left to right, for a symmetric board."""
    F = np.diag([-1.0, 1, 1, 1])
    # mirroring the image mirrors the world in x; mirroring the board's own x makes it rigid again
    lo, hi = seen.corners.min(axis=0), seen.corners.max(axis=0)
    G = F.copy()
    G[0, 3] = lo[0] + hi[0]
    unmirrored = replace(seen, T_camera_target=F @ seen.T_camera_target @ G)
    C = unmirrored.resolved(T_fixed_mount)
    found = consensus(T_fixed_mount, C, seen.corners, seen.camera, rng, draws=60)
    return found.scale_m if found else np.inf
