"""Pairing of images and robot poses: the reading of the poses, and checks that both belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calib.data.poses import PoseFormat
from calib.data.recording import Recording
from calib.errors import CalibrationError, Finding
from calib.solve.closed_form import rotation_spread
from calib.solve.diagnose import (
    Reading,
    TargetViews,
    format_readings,
    misreadings,
    other_size,
    rank,
    resolve_symmetry,
)
from calib.solve.model import Views
from calib.solve.outliers import STILL_ENOUGH_M, Consensus, consensus, decisive
from calib.solve.se3 import inverse
from rt.pose import Array


def choose_reading(
    recording: Recording,
    stated: PoseFormat | None,
    eye_in_hand: bool | None,
    either_mount: bool,
    seen: TargetViews,
    rng: np.random.Generator,
) -> tuple[Array, PoseFormat, bool]:
    """(T_base_hand (N, 4, 4), its format, camera in the hand): as stated, else as the images decide.

    All readings are compared with all pairs in. A format that the images do not decide is asked for
    (CalibrationError with the three best). A mount that nobody states is the hand, unless
    `either_mount` leaves it to the images.
    """
    form = stated or recording.format
    in_hand = eye_in_hand if eye_in_hand is not None else recording.eye_in_hand
    if recording.rows_are_fixed_mount and form is not None:
        return _samples(recording, form, in_hand)
    if form is not None and in_hand is not None:
        _name_dual(recording, form, in_hand)
        return recording.read_poses(form), form, in_hand
    readings = _readings(recording, form, seen)
    if not readings:
        form = PoseFormat("matrix" if recording.rows.shape[1] == 16 else "quat_xyzw")
        recording.read_poses(form)  # names what is wrong with the numbers
        raise CalibrationError(f"{recording.pose_files}: the poses fit no known format")
    ranked = rank(readings, seen, rng)
    mounts = (in_hand,) if in_hand is not None else (True, False) if either_mount else (True,)
    ours = [r for r in ranked if r.key is not None and r.key[1] in mounts]
    others = [r for r in ranked if r not in ours]
    n, best_three = len(seen.index), "; ".join(map(str, ranked[:3]))
    if not ours:
        ours = [r for r in readings if r.key is not None and r.key[1] in mounts]
    best = ours[0]
    assert best.key is not None
    fits = best.scale_m < STILL_ENOUGH_M
    other_fits = bool(others) and others[0].scale_m < STILL_ENOUGH_M
    assumed = in_hand is None and not either_mount
    if assumed and other_fits and decisive(others[0].scale_m, best.scale_m, n):
        raise CalibrationError(
            f"the {n} pairs fit a fixed camera and not one in the hand ({best_three}); give "
            "--camera-is fixed if it is, else the poses are T_hand_base: add :inverse to --pose-format"
        )
    rivals = [r for r in ours[1:] if fits and not decisive(best.scale_m, r.scale_m, n)]
    if rivals:
        mount_too = any(r.key is not None and r.key[1] != best.key[1] for r in rivals)
        format_too = any(r.key is not None and r.key[0] != best.key[0] for r in rivals)
        option = " and ".join(
            o for o, asked in (("--pose-format", format_too), ("--camera-is", mount_too)) if asked
        )
        raise CalibrationError(
            f"{recording.pose_files} does not say how its poses are written, and {n} pairs do not "
            f"decide it: {best_three}; state it with {option}, or take more poses, more varied"
        )
    unsaid = (
        ""
        if form is not None
        else f"{recording.pose_files} does not say how its poses are written; "
    )
    where = "by default (--camera-is)" if assumed else "which fits best"
    recording.findings.append(
        Finding("note", f"{unsaid}read as {best.label}, {where}: {best_three}")
    )
    if assumed and fits and others and not decisive(best.scale_m, others[0].scale_m, n):
        recording.findings.append(
            Finding(
                "warning",
                f"the {n} pairs would fit a fixed camera too ({others[0]}; {best}): the camera is taken "
                "to be in the hand because nothing says otherwise",
                "state --camera-is, or take more poses",
            )
        )
    _name_dual(recording, *best.key)
    return recording.read_poses(best.key[0]), *best.key


def _readings(recording: Recording, form: PoseFormat | None, seen: TargetViews) -> list[Reading]:
    """The candidates: every format if none is known, for both mounts."""
    if form is None:
        return format_readings(recording.rows, seen, None)
    T = recording.read_poses(form)
    readings = []
    for one in (True, False):
        A = (T if one else inverse(T))[seen.index]
        where = "camera in the hand" if one else "fixed camera"
        remedy = f"--camera-is {'hand' if one else 'fixed'}"
        readings.append(
            Reading(f"{form}, {where}", remedy, A, seen.mismatch_deg(A), key=(form, one))
        )
    return readings


def _samples(
    recording: Recording, form: PoseFormat, in_hand: bool | None
) -> tuple[Array, PoseFormat, bool]:
    """Samples whose robot poses are T_fixed_mount whatever the mount, as easy_handeye stores them."""
    if in_hand is None:
        recording.findings.append(
            Finding(
                "note",
                f"{recording.pose_files} does not say where the camera is, and its samples look alike for "
                "both mounts: taken to be in the hand. With a fixed camera the same matrix is T_base_camera",
                "give --camera-is fixed if the camera does not move",
            )
        )
        in_hand = True
    if not in_hand:
        form = replace(form, inverted=not form.inverted)
    return recording.read_poses(form), form, in_hand


def _name_dual(recording: Recording, form: PoseFormat, in_hand: bool) -> None:
    """Add the reading that no data can tell from this one; our own datasets are certain."""
    if recording.certain:
        return
    dual = replace(form, inverted=not form.inverted)
    recording.findings.append(
        Finding(
            "note",
            f"read as {'T_hand_base' if form.inverted else 'T_base_hand'} with a "
            f"{'camera in the hand' if in_hand else 'fixed camera'}; the dual reading, "
            f"{'T_base_hand' if form.inverted else 'T_hand_base'} with a "
            f"{'fixed camera' if in_hand else 'camera in the hand'}, fits any data equally",
            f"if that is true, give --pose-format {dual} --camera-is {'fixed' if in_hand else 'hand'}",
        )
    )


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
    limit = STILL_ENOUGH_M * (3 if timed else 1)
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
    size, at_size = other_size(seen, A)
    if ranked and ranked[0].scale_m < min(limit, 0.4 * spread, 3 * at_size):
        best = ranked[0]
        recording.findings.append(
            Finding(
                "error",
                f"most likely {best.label}: then the target stays within {best.scale_m * 1e3:.1f} mm",
                best.remedy,
            )
        )
    elif at_size < min(limit, 0.4 * spread):
        recording.findings.append(
            Finding(
                "error",
                f"most likely the target is {size:.3f} times as large as stated: then it stays within "
                f"{at_size * 1e3:.1f} mm",
                "measure a field of the printed target and state it in --target; if the size is right, "
                "the positions of the robot are in another unit",
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
                "no common mistake explains it"
                + (
                    f"; nearest: {ranked[0].label}, {ranked[0].scale_m * 1e3:.0f} mm"
                    if ranked
                    else ""
                ),
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
