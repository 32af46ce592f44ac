"""Causes for which images and robot poses do not fit together.

The rotation between two robot poses and the rotation that the camera saw between the same two have
the same angle, whatever the hand-eye transform: that alone tells most readings of the poses apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from calib.data.poses import PoseFormat, possible_formats
from calib.solve.model import LensModel
from calib.solve.outliers import FEW, STILL_ENOUGH_M, consensus, whole
from calib.solve.se3 import angle_deg, inverse
from rt.pose import Array


@dataclass(frozen=True)
class Reading:
    """One way to read the robot poses, and how well the images agree."""

    label: str
    remedy: str
    T_fixed_mount: Array
    """(N, 4, 4) of the views with a target."""
    mismatch_deg: float
    """Median difference of rotation angles, robot against camera."""
    scale_m: float = np.inf
    """Motion of the target from view to view under this reading, all pairs in; see `rank`."""
    key: tuple[PoseFormat, bool] | None = None
    """Format, and True for a camera in the hand."""

    def __str__(self) -> str:
        size = f"{self.scale_m * 1e3:.1f} mm" if self.scale_m < 10 else "no fit"
        return f"{self.label}: {size}"


@dataclass(frozen=True)
class TargetViews:
    """The target as the camera alone shows it."""

    index: NDArray[np.intp]
    """(n,) which of all pairs show the target."""
    T_camera_target: Array
    """(n, 4, 4)."""
    symmetries: list[Array]
    corners: Array
    """(4, 3) of the target."""
    camera: LensModel

    def mismatch_deg(self, T_fixed_mount: Array) -> float:
        """Median over pairs of | robot's rotation angle - camera's |, symmetric targets at their best."""
        i, j = np.triu_indices(len(T_fixed_mount), 1)
        if len(i) > 1000:
            pick = np.random.default_rng(0).choice(len(i), 1000, replace=False)
            i, j = i[pick], j[pick]
        A, C = T_fixed_mount[:, :3, :3], self.T_camera_target[:, :3, :3]
        robot = angle_deg(np.swapaxes(A[i], 1, 2) @ A[j])
        options = [
            np.abs(angle_deg(C[i] @ S[:3, :3] @ np.swapaxes(C[j], 1, 2)) - robot)
            for S in self.symmetries
        ]
        return float(np.median(np.min(options, axis=0)))

    def resolved(self, T_fixed_mount: Array) -> Array:
        """T_camera_target (n, 4, 4) with a symmetric target lying the same way round in all views."""
        choice = resolve_symmetry(T_fixed_mount, self.T_camera_target, self.symmetries)
        return np.asarray(self.T_camera_target @ np.array(self.symmetries)[choice])


def rank(readings: list[Reading], seen: TargetViews, rng: np.random.Generator) -> list[Reading]:
    """Readings with the motion of the target that each leaves, best first.

    All pairs are taken together. If many pairs fit no reading, a few of them may be wrong: the best by
    angle are then compared by what most pairs agree on. Readings whose rotation angles differ from the
    camera's clearly more than the best one's are left out.
    """
    least = min(r.mismatch_deg for r in readings)
    near = [r for r in readings if r.mismatch_deg <= max(2.5 * least, least + 0.5)]
    near.sort(key=lambda r: r.mismatch_deg)
    views = [(r, seen.resolved(r.T_fixed_mount)) for r in near]
    ranked = []
    for r, C in views:
        found = whole(r.T_fixed_mount, C, seen.corners)
        ranked.append(replace(r, scale_m=found.rms_m if found else np.inf))
    if len(seen.index) >= FEW and min(r.scale_m for r in ranked) > STILL_ENOUGH_M:
        for k, (r, C) in enumerate(views[:30]):
            most = consensus(r.T_fixed_mount, C, seen.corners, seen.camera, rng, draws=60)
            if most is not None and most.scale_m < ranked[k].scale_m:
                ranked[k] = replace(r, scale_m=most.scale_m)
    return sorted(ranked, key=lambda r: r.scale_m)


def format_readings(rows: Array, seen: TargetViews, eye_in_hand: bool | None) -> list[Reading]:
    """Every format that rows (N, k) may be in, for the camera in the hand, fixed, or either."""
    readings: list[Reading] = []
    done: list[Array] = []
    for form in possible_formats(rows):
        try:
            T = form.read(rows)[seen.index]
        except ValueError:
            continue
        if any(np.allclose(T, other, atol=1e-9) for other in done):
            continue
        done.append(T)
        for in_hand in (True, False) if eye_in_hand is None else (eye_in_hand,):
            A = T if in_hand else inverse(T)
            where = "camera in the hand" if in_hand else "fixed camera"
            readings.append(
                Reading(
                    f"{form}, {where}",
                    f"--pose-format {form} --camera-is {'hand' if in_hand else 'fixed'}",
                    A,
                    seen.mismatch_deg(A),
                    key=(form, in_hand),
                )
            )
    return readings


def misreadings(
    T_base_hand: Array,
    rows: Array,
    form: PoseFormat | None,
    seen: TargetViews,
    eye_in_hand: bool,
) -> list[Reading]:
    """Mistakes that affect all poses at once, undone. T_base_hand (N, 4, 4) of all images."""
    n = len(T_base_hand)

    def scaled(k: float) -> Array:
        T = T_base_hand.copy()
        T[:, :3, 3] *= k
        return T

    options: list[tuple[str, str, Array]] = [
        (
            "the poses are inverted (T_hand_base instead of T_base_hand), or the camera is "
            + ("fixed and the target in the hand" if eye_in_hand else "in the hand"),
            f"add :inverse to --pose-format, or give --camera-is {'fixed' if eye_in_hand else 'hand'}",
            inverse(T_base_hand),
        ),
        ("positions are in millimetres", "add :mm to --pose-format", scaled(1e-3)),
        ("positions were divided by 1000 once too often", "give them in metres", scaled(1e3)),
        ("positions are in centimetres", "add :cm to --pose-format", scaled(1e-2)),
        ("positions are in inches", "add :in to --pose-format", scaled(0.0254)),
        (
            "rotations are transposed while positions are not",
            "write the matrix row by row as T_base_hand",
            _transposed(T_base_hand),
        ),
        ("the poses are in reverse order", "reverse their order", T_base_hand[::-1]),
    ]
    for first in (0, 1):
        text = sorted(range(n), key=lambda k: str(k + first))
        ranks = np.empty(n, dtype=int)
        ranks[text] = np.arange(n)
        for what, order in (("image numbers", ranks), ("poses", np.array(text))):
            if not np.array_equal(order, np.arange(n)):
                options.append(
                    (
                        f"{what} were sorted as text (1, 10, 2, ...)",
                        "number files with leading zeros, or add a column `name`",
                        T_base_hand[order],
                    )
                )
    for shift in (1, -1, 2, -2):
        options.append(
            (
                f"every image is paired with the pose {abs(shift)} "
                + ("after" if shift > 0 else "before")
                + " its own",
                "drop the extra image or pose, or add a column `name`",
                np.roll(T_base_hand, shift, axis=0),
            )
        )
    readings = [
        Reading(label, remedy, A, seen.mismatch_deg(A))
        for label, remedy, T in options
        for A in [(T if eye_in_hand else inverse(T))[seen.index]]
    ]
    if form is not None:
        for other in format_readings(rows, seen, eye_in_hand):
            if other.key is not None and other.key != (form, eye_in_hand):
                readings.append(
                    Reading(
                        f"the poses were read as {form} but fit as {other.key[0]}",
                        other.remedy,
                        other.T_fixed_mount,
                        other.mismatch_deg,
                        key=other.key,
                    )
                )
        readings += _radians_for_degrees(rows, form, seen, eye_in_hand)
    return readings


def _transposed(T: Array) -> Array:
    T = T.copy()
    T[:, :3, :3] = np.swapaxes(T[:, :3, :3], 1, 2)
    return T


def other_size(seen: TargetViews, T_fixed_mount: Array) -> tuple[float, float]:
    """(true size of the target over the stated one, motion of the target [m] at that size)."""

    def motion(log_size: float) -> float:
        C = seen.resolved(T_fixed_mount).copy()
        C[:, :3, 3] *= np.exp(log_size)
        found = whole(T_fixed_mount, C, seen.corners)
        return found.rms_m if found else 10.0

    coarse = np.log([0.1, 0.2, 0.4, 0.5, 0.7, 0.85, 0.93, 1.07, 1.15, 1.4, 2.0, 2.5, 5.0, 10.0])
    at = float(coarse[int(np.argmin([motion(k) for k in coarse]))])
    best = minimize_scalar(motion, bounds=(at - 0.25, at + 0.25), method="bounded")
    return float(np.exp(best.x)), float(best.fun)


def _radians_for_degrees(
    rows: Array,
    form: PoseFormat,
    seen: TargetViews,
    eye_in_hand: bool,
) -> list[Reading]:
    if form.width != 6:
        return []
    other = replace(form, degrees=not form.degrees)
    T = other.read(rows)[seen.index]
    A = T if eye_in_hand else inverse(T)
    was, is_ = ("degrees", "radians") if form.degrees else ("radians", "degrees")
    return [
        Reading(
            f"angles are in {is_} but were read as {was}",
            f"--pose-format {other}",
            A,
            seen.mismatch_deg(A),
        )
    ]


def resolve_symmetry(
    T_fixed_mount: Array, T_camera_target: Array, symmetries: list[Array]
) -> NDArray[np.intp]:
    """Orientation of a symmetric target in each view: (N,) indices into symmetries.

    Chosen such that the camera's rotations have the robot's angles; the first of several equals.
    """
    n = len(T_fixed_mount)
    choice = np.zeros(n, dtype=np.intp)
    if len(symmetries) < 2:
        return choice
    A = T_fixed_mount[:, :3, :3]
    options = np.stack([(T_camera_target @ S)[:, :3, :3] for S in symmetries], axis=1)
    robot = angle_deg(np.einsum("iab,jac->ijbc", A, A))
    # cost[i, k, j, l]: views i, j lying as k, l
    turns = angle_deg(np.einsum("ikab,jlcb->ikjlac", options, options))
    cost = np.minimum(np.abs(turns - robot[:, None, :, None]), 5.0)
    best: tuple[float, NDArray[np.intp]] | None = None
    for root in range(min(n, 6)):
        trial = np.argmin(cost[:, :, root, 0], axis=1)
        trial[root] = 0
        for _ in range(5):
            total = cost[:, :, np.arange(n), trial].sum(axis=2)
            updated = np.argmin(total, axis=1)
            if np.array_equal(updated, trial):
                break
            trial = updated
        score = float(cost[:, :, np.arange(n), trial].sum(axis=2)[np.arange(n), trial].sum())
        if best is None or score < best[0] - 1e-6:
            best = score, trial
    assert best is not None
    return best[1]
