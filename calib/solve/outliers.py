"""Image-pose pairs that do not belong: a consensus of small subsets, then studentised residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import f as f_distribution

from calib.solve.closed_form import closed_form, with_target
from calib.solve.model import Free, LensModel, Problem, Unknowns, Views, target_in_camera
from calib.solve.noise import covariance, information, reduce
from calib.solve.refine import Fit, left_out, refine
from calib.solve.se3 import angle_deg, from_vector
from rt.pose import Array

FALSE_ALARM = 0.01
"""Probability that a clean set has any pair blamed (shared among its views)."""

FEW = 8
"""Below this number of pairs, subsets of three agree by chance: all pairs are taken together."""

STILL_ENOUGH_M = 0.01
"""Poses that keep the target in one place within this are read rightly, whatever their noise."""


@dataclass(frozen=True)
class Consensus:
    """The hand-eye transform that most views agree on."""

    state: Unknowns
    spread_m: Array
    """(N,) how far each view puts the target from where the middle view puts it (rms of corners)."""
    scale_m: float
    """Robust standard deviation of `spread_m`; of few pairs, the root mean square over all of them."""
    few_kept: NDArray[np.bool_] | None = None
    """(N,) the views that the transform comes from, if there are fewer than FEW."""

    @property
    def agreeing(self) -> NDArray[np.bool_]:
        """Views within six robust standard deviations, at least one millimetre."""
        if self.few_kept is not None:
            return self.few_kept
        return np.asarray(self.spread_m <= max(6 * self.scale_m, 1e-3))


@dataclass(frozen=True)
class Whole:
    """The transform that keeps the target stillest over all pairs at once."""

    T_mount_camera: Array
    rms_m: float
    """Root mean square motion of the target's corners, corrected for the unknowns that were fitted."""
    spread_m: Array
    """(N,) rms distance of the corners in each view from their mean over all views."""


def whole(T_fixed_mount: Array, T_camera_target: Array, target_corners: Array) -> Whole | None:
    """Least squares over all pairs, from the closed forms; None if no closed form gives a start.

    target_corners: (k, 3). No pair is left out, so that one reading of the poses can be compared with
    another by the same data.
    """
    A, C, n = T_fixed_mount, T_camera_target, len(T_fixed_mount)
    seen = np.einsum("nij,jk->nik", C, np.c_[target_corners, np.ones(len(target_corners))].T)

    def spread(X: Array) -> Array:
        p = np.einsum("nij,njk->nik", A @ X, seen)[:, :3]
        return np.asarray(p - p.mean(axis=0))

    starts = [closed_form(A, C, m) for m in ("Park", "Daniilidis", "Tsai")]
    usable = [X for X in starts if X is not None and np.linalg.norm(X[:3, 3]) < 100]
    if not usable:
        return None
    X = min(usable, key=lambda X: float(np.sum(spread(X) ** 2)))
    fit = least_squares(
        lambda v: spread(X @ from_vector(v)).ravel(),
        np.zeros(6),
        x_scale=np.repeat([0.1, 0.05], 3),
        max_nfev=15,
    )
    X = X @ from_vector(fit.x)
    off = np.sum(spread(X) ** 2, axis=1)
    unbiased = np.sqrt(6 * n / max(6 * n - 12, 1))
    return Whole(X, float(np.sqrt(np.mean(off)) * unbiased), np.sqrt(np.mean(off, axis=1)))


def decisive(better_m: float, worse_m: float, pairs: int) -> bool:
    """True if two residuals over the same pairs differ by more than chance (F test at 0.1 %).

    better_m, worse_m: `Whole.rms_m` of two readings; residuals below 0.1 mm count as 0.1 mm.
    """
    dof = max(6 * pairs - 12, 1)
    ratio = (worse_m / max(better_m, 1e-4)) ** 2
    return bool(ratio > max(float(f_distribution.isf(1e-3, dof, dof)), 4.0))


def corners(views: Views) -> Array:
    """(4, 3): the corners of the box around all target points, in its plane."""
    points = np.concatenate(views.points_m)
    lo, hi = points.min(axis=0), points.max(axis=0)
    return np.array([[x, y, (lo[2] + hi[2]) / 2] for x in (lo[0], hi[0]) for y in (lo[1], hi[1])])


def consensus(
    T_fixed_mount: Array,
    T_camera_target: Array,
    target_corners: Array,
    camera: LensModel,
    rng: np.random.Generator,
    draws: int = 120,
) -> Consensus | None:
    """Least median of squares over subsets of three and more views; None if no subset can be solved.

    A candidate transform puts the target somewhere in the fixed frame in every view; the best has the
    smallest median distance to its medoid.
    """
    A, C = T_fixed_mount, T_camera_target
    n = len(A)
    if n < FEW:
        return _few(A, C, target_corners, camera)
    with_ones = np.c_[target_corners, np.ones(len(target_corners))].T
    seen = np.einsum("nij,jk->nik", C, with_ones)
    best: tuple[float, Array, Array] | None = None
    subsets = [np.arange(n)]
    subsets += [rng.choice(n, 3 if k % 3 else min(5, n), replace=False) for k in range(draws)]
    for subset in subsets:
        if len(subset) < n and _turn_deg(A[subset]) < 8:
            continue
        methods = ("Park", "Daniilidis", "Tsai") if len(subset) == n else ("Park",)
        for method in methods:
            X = closed_form(A[subset], C[subset], method)
            if X is None or np.linalg.norm(X[:3, 3]) > 100:
                continue
            p = np.einsum("nij,njk->nik", A @ X, seen)[:, :3].reshape(n, -1)
            sq = np.sum((p[:, None] - p[None]) ** 2, axis=-1) / len(target_corners)
            median = np.partition(sq, n // 2, axis=1)[:, n // 2]
            medoid = int(np.argmin(median))
            if best is None or median[medoid] < best[0]:
                best = float(median[medoid]), X, np.sqrt(sq[medoid])
    if best is None:
        return None
    # 1.4826 makes a median of one-dimensional deviations a standard deviation; three dimensions and
    # the few views that a subset leaves over make it slightly generous, which suits a first gate.
    scale = 1.4826 * (1 + 5 / max(n - 3, 1)) * np.sqrt(best[0])
    keep = best[2] <= max(6 * scale, 1e-3)
    return Consensus(with_target(best[1], A[keep], C[keep], camera), best[2], float(scale))


def _few(A: Array, C: Array, target_corners: Array, camera: LensModel) -> Consensus | None:
    """All pairs together; one of five or more is left out if only that makes the others agree."""
    n = len(A)
    found, keep = whole(A, C, target_corners), np.ones(n, dtype=bool)
    if n >= 5 and (found is None or found.rms_m > STILL_ENOUGH_M):
        without = [whole(np.delete(A, i, 0), np.delete(C, i, 0), target_corners) for i in range(n)]
        rms = [np.inf if w is None else w.rms_m for w in without]
        i = int(np.argmin(rms))
        best = without[i]
        if best is not None and best.rms_m < STILL_ENOUGH_M:
            all_in = np.inf if found is None else found.rms_m
            if decisive(best.rms_m, all_in, n - 1):
                found, keep[i] = best, False
    if found is None:
        return None
    X = found.T_mount_camera
    state = with_target(X, A[keep], C[keep], camera)
    at = np.c_[target_corners, np.ones(len(target_corners))].T
    off = (A @ X @ C @ at - state.T_fixed_target @ at)[:, :3]
    spread = np.sqrt(np.mean(np.sum(off**2, axis=1), axis=1))
    return Consensus(state, spread, found.rms_m, keep)


def _turn_deg(A: Array) -> float:
    """The least relative rotation among a few poses."""
    i, j = np.triu_indices(len(A), 1)
    return float(np.min(angle_deg(np.swapaxes(A[i, :3, :3], 1, 2) @ A[j, :3, :3])))


@dataclass(frozen=True)
class Judged:
    """A fit on the views that belong, and how surprising every view is to the others."""

    fit: Fit
    keep: NDArray[np.bool_]
    """(N,) of all views."""
    p_value: Array
    """(N,): probability of a residual as large, were the pair right, given the other views."""
    studentised: Array
    """(N,): residual over its standard deviation as the other views predict it (1 is ordinary)."""
    left_out: list[Unknowns]
    """(N,) states fitted without each view."""


def judge(
    views: Views,
    start: Consensus,
    free: Free,
    fit_free: Free | None = None,
    prune: bool = True,
) -> Judged:
    """Refine on the views that agree; drop the worst while a fit without it rejects it; admit again.

    A view is judged only by fits, and noise, that it had no part in, so it cannot hide itself. Without
    `prune` all views are kept: where nothing belongs together, there is no one to blame.
    """
    n = len(views)
    keep = start.agreeing.copy() if prune else np.ones(n, dtype=bool)
    level = FALSE_ALARM / n
    # three views leave nothing to judge a fourth by
    least = max(4, int(np.ceil(0.5 * n)))
    fit = refine(views.take(keep), start.state, free)
    for _ in range(n if prune else 0):
        p, *_ = _surprise(views, fit, keep)
        inside = np.flatnonzero(keep)
        worst = inside[np.argmin(p[inside])]
        # within the fit the worst view inflates the noise it is measured by: look closer early
        if len(inside) <= least or p[worst] > 0.2:
            break
        trial = keep.copy()
        trial[worst] = False
        without = refine(views.take(trial), fit.state, free, fit.noise)
        if _surprise(views, without, trial)[0][worst] > level:
            break
        keep, fit = trial, without
    for _ in range(3):
        p, *_ = _surprise(views, fit, keep)
        back = ~keep & (p > level)
        if not back.any():
            break
        keep = keep | back
        fit = refine(views.take(keep), fit.state, free, fit.noise)
    if fit_free is not None and fit_free != free:
        fit = refine(views.take(keep), fit.state, fit_free, fit.noise)
    p, z, states = _surprise(views, fit, keep)
    return Judged(fit, keep, p, z, states)


def _surprise(
    views: Views, fit: Fit, keep: NDArray[np.bool_]
) -> tuple[Array, Array, list[Unknowns]]:
    """(p values (N,), studentised residuals (N,), states without each view)."""
    n = len(views)
    states_in, errors_in, covs_in = left_out(fit)
    body = fit.level.gain.shape[2]
    error, cov, states = np.empty((n, 6)), np.empty((n, 6, 6)), [fit.state] * n
    for k, i in enumerate(np.flatnonzero(keep)):
        error[i], cov[i], states[i] = errors_in[k], covs_in[k], states_in[k]
    out = np.flatnonzero(~keep)
    if len(out):
        level = reduce(Problem(views.take(out), fit.free).linearise(fit.state), body)
        C = np.linalg.pinv(information(fit.level, fit.noise).sum(axis=0), hermitian=True)
        error[out] = level.error
        cov[out] = covariance(level, fit.noise) + level.gain @ C @ np.swapaxes(level.gain, 1, 2)
    d2 = np.einsum("ni,ni->n", error, np.linalg.solve(cov, error[..., None])[..., 0])
    behind = target_in_camera(views, fit.state)[:, 2, 3] <= 0
    d2[behind | ~np.isfinite(d2)] = 1e12
    p = f_distribution.sf(d2 / 6, 6, fit.interval_dof)
    return np.asarray(p), np.sqrt(d2 / 6), states


Candidate = tuple[str, Callable[[Array], Array]]
"""A mistake that may have happened to one robot pose, and the function that undoes it."""

UNDO: tuple[Candidate, ...] = (
    ("its transform is inverted", lambda T: np.linalg.inv(T)),
    ("its translation is in millimetres", lambda T: _scaled(T, 1e-3)),
    ("its translation is in metres where the others are in millimetres", lambda T: _scaled(T, 1e3)),
    ("its translation is in centimetres", lambda T: _scaled(T, 1e-2)),
    ("its translation is in inches", lambda T: _scaled(T, 0.0254)),
    ("its rotation is transposed", lambda T: _transposed(T)),
)


def _scaled(T: Array, k: float) -> Array:
    T = T.copy()
    T[:3, 3] *= k
    return T


def _transposed(T: Array) -> Array:
    T = T.copy()
    T[:3, :3] = T[:3, :3].T
    return T


def explain(views: Views, judged: Judged) -> dict[int, str]:
    """For every view left out, the likeliest reason in words."""
    fit, out = judged.fit, np.flatnonzero(~judged.keep).tolist()
    if not out:
        return {}
    kept = np.flatnonzero(judged.keep)
    gate = max(3 * float(np.median(judged.studentised[kept])), 4.0)
    reasons: dict[int, str] = {}
    corrections: dict[int, Array] = {}
    for i in out:
        view = views.take([i])
        for reason, undo in UNDO:
            if _fits(view.with_poses(undo(views.T_base_hand[i])[None]), fit, gate):
                reasons[i] = reason
                break
        else:
            others = [j for j in range(len(views)) if j != i]
            same = [
                j
                for j in others
                if np.allclose(views.T_base_hand[i], views.T_base_hand[j], atol=1e-6)
            ]
            if same:
                reasons[i] = (
                    f"it has the pose of {views.names[same[0]]} but another image: the pose was not "
                    "read anew, or belongs to the other image"
                )
                continue
            fitting = [
                j for j in others if _fits(view.with_poses(views.T_base_hand[[j]]), fit, gate)
            ]
            if fitting:
                reasons[i] = (
                    f"the image fits the pose of {views.names[fitting[0]]}: "
                    "images and poses are paired wrongly or swapped"
                )
                continue
            if not np.isfinite(judged.studentised[i]) or judged.studentised[i] > 1e5:
                reasons[i] = "its pose and its image have nothing in common"
                continue
            level = reduce(Problem(view, fit.free).linearise(fit.state), fit.level.gain.shape[2])
            e = level.error[0]
            corrections[i] = e
            reasons[i] = (
                f"its pose is off by {np.linalg.norm(e[3:]) * 1e3:.1f} mm and "
                f"{np.degrees(np.linalg.norm(e[:3])):.2f} deg"
            )
    sd = np.sqrt(fit.noise.robot_variance) * 6 + np.repeat([1e-3, 5e-4], 3)
    for i, e in corrections.items():
        alike = [j for j, other in corrections.items() if j != i and np.all(np.abs(e - other) < sd)]
        if alike:
            reasons[i] += " in the hand's frame, like " + ", ".join(views.names[j] for j in alike)
            reasons[i] += ": recorded with another tool centre point, or in another frame"
    return reasons


def _fits(view: Views, fit: Fit, gate: float) -> bool:
    """True if one view with a changed pose agrees with the fit."""
    if not np.all(np.isfinite(view.T_base_hand)):
        return False
    T_camera_target = target_in_camera(view, fit.state)[0]
    if T_camera_target[2, 3] <= 0.01 or np.linalg.norm(T_camera_target[:3, 3]) > 20:
        return False
    level = reduce(Problem(view, fit.free).linearise(fit.state), fit.level.gain.shape[2])
    C = np.linalg.pinv(information(fit.level, fit.noise).sum(axis=0), hermitian=True)
    cov = covariance(level, fit.noise) + level.gain @ C @ np.swapaxes(level.gain, 1, 2)
    e = level.error[0]
    return bool(np.sqrt(e @ np.linalg.solve(cov[0], e) / 6) < gate)
