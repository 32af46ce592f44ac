"""T_hand_camera from a scene that stands still: depth views of it must coincide in the robot's frame.

Every view is compared with every other, point to plane. Each robot pose is taken as wrong by a small motion
of its own (Gaussian, its size estimated by restricted maximum likelihood), which is what makes the intervals
honest: thousands of points of one view share one error of the arm and of the depth camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import minimize
from scipy.stats import t as student

from calib.errors import CalibrationError
from calib.scene.clouds import BlockCloud
from calib.solve.model import LensModel, project
from calib.solve.noise import PRIOR_LOG_STD, PRIOR_M, PRIOR_RAD
from calib.solve.se3 import from_vector, inverse, skew
from rt.pose import Array

SCALE_SD = 0.005
"""Prior standard deviation of a depth camera's scale: factory calibrations are good to half a percent."""
GATES_M = (0.04, 0.03, 0.02, 0.015, 0.01, 0.008, 0.008, 0.008)
"""Farthest partner of a point in each iteration."""
STRIDE = 3
"""Every so many blocks, both ways, a point of the table is compared; of all else each."""
WIDER = 1.35
"""Noise in the normals of small things feigns information: without this factor the intervals at 300 mm held
the truth in 87.5 % of 24 scenes of a simulated D405 (`calib.study --scenes 24`)."""
LEAST_PARTNERS = 80
"""Views with fewer points in common are not compared."""


@dataclass(frozen=True)
class SceneFit:
    """The transform that keeps the scene still."""

    T_hand_camera: Array
    """(4, 4)."""
    cov: Array
    """(6, 6) of it: rotation [rad], translation [m], along the camera's axes."""
    scale: float
    """Of the depth: true over measured."""
    scale_sd: float
    robot_m: float
    """Error of a view's pose, standard deviation per axis, as the views show it."""
    robot_rad: float
    point_m: float
    """Noise of a block's depth along the normal, standard deviation."""
    pairs: int
    """Pairs of views with enough in common."""
    views: int
    view_error: Array
    """(N, 6) rotation [rad], translation [m] of each hand pose that the others ask for."""

    @property
    def interval_dof(self) -> float:
        """Degrees of freedom of the noise, as in `calib.solve.refine.Fit`."""
        return max((6 * self.views - 12) / 2, 2.0)

    @property
    def factor(self) -> float:
        """From a standard deviation to a 95 % interval: Student's factor, and WIDER."""
        return WIDER * float(student.ppf(0.975, self.interval_dof))

    def point_cov(self, distance_m: float) -> Array:
        """(3, 3) [m^2] of the point on the optical axis, along the camera's axes."""
        J = np.concatenate([-skew([0, 0, distance_m]), np.eye(3)], axis=1)
        return np.asarray(J @ self.cov @ J.T)

    @property
    def hand_cov(self) -> Array:
        """(6, 6) as `cov`, along the hand's axes."""
        R = np.kron(np.eye(2), self.T_hand_camera[:3, :3])
        return np.asarray(R @ self.cov @ R.T)


@dataclass
class _Normal:
    """Normal equations of all comparisons: unknowns are the camera (6), depth's scale, each view (6)."""

    H: Array
    b: Array
    squares: float
    """Sum of weighted squares."""
    weight: float
    pairs: int


def fit_scene(
    clouds: Sequence[BlockCloud],
    T_base_hand: Array,
    camera: LensModel,
    T_hand_camera: Array,
    depth_scale: tuple[float, float] = (1.0, SCALE_SD),
    gates_m: Sequence[float] = GATES_M,
) -> SceneFit:
    """Refine T_hand_camera (4, 4) on N clouds from hand poses (N, 4, 4).

    depth_scale: of the depth camera, true over measured, as known before, and its standard deviation.
    Raises CalibrationError if fewer than 3 views, or hardly any surface in common.
    """
    n = len(clouds)
    if n < 3:
        raise CalibrationError(f"{n} views with depth; at least 3 are needed, 5 are good")
    X, scale, e = T_hand_camera.copy(), depth_scale[0], np.zeros((n, 6))
    noise, sigma = (PRIOR_M, PRIOR_RAD), 2e-3
    reduced = [_Source(c) for c in clouds]
    for k, gate in enumerate(gates_m):
        A = T_base_hand @ from_vector(e)
        eq = _compare(reduced, A, camera, X, scale, max(gate, 5 * sigma), sigma)
        sigma = float(np.clip(np.sqrt(eq.squares / max(eq.weight, 1) / 2), 2e-5, 1e-2))
        if k >= len(gates_m) - 3:
            noise = _noise(eq, e, scale, sigma, noise, depth_scale)
        C, y = _system(eq, e, scale, sigma, noise, depth_scale)
        step = np.linalg.solve(C, y)
        X = X @ from_vector(step[:6])
        scale *= 1 + step[6]
        e += step[7:].reshape(n, 6)
        if not np.all(np.isfinite(X)) or np.linalg.norm(X[:3, 3]) > 5:
            raise CalibrationError(
                "the views do not fit together; check that nothing moved, and poses and depth"
            )
    A = T_base_hand @ from_vector(e)
    eq = _compare(reduced, A, camera, X, scale, max(gates_m[-1], 5 * sigma), sigma)
    C, _ = _system(eq, e, scale, sigma, noise, depth_scale)
    d = np.sqrt(np.diag(C))
    cov = np.linalg.inv(C / np.outer(d, d)) / np.outer(d, d)
    return SceneFit(
        X, cov[:6, :6], scale, float(np.sqrt(cov[6, 6])), noise[0], noise[1], sigma, eq.pairs, n, e
    )


class _Source:
    """A cloud's points to compare, and its grid to compare with."""

    def __init__(self, one: BlockCloud) -> None:
        pick = np.zeros_like(one.smooth)
        pick[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] = True
        pick = one.smooth & (pick | ~one.table)
        self.points, self.normals = one.points_m[pick], one.normals[pick]
        self.weights = np.where(one.table[pick], float(STRIDE**2), 1.0)
        self.grid, self.grid_normals, self.step = one.points_m, one.normals, one.step


def _compare(
    views: list[_Source],
    T_base_hand: Array,
    camera: LensModel,
    X: Array,
    scale: float,
    gate_m: float,
    sigma_m: float,
) -> _Normal:
    """Normal equations over all pairs, at weight 1 / N, since a surface is compared about N times.

    The residual is measured over the scale: else a smaller scene would fit better by its smaller noise.
    """
    n = len(views)
    T = T_base_hand @ X
    size = 7 + 6 * n
    eq = _Normal(np.zeros((size, size)), np.zeros(size), 0.0, 0.0, 0)
    from_camera = inverse(T)
    for k, (i, j) in enumerate(combinations(range(n), 2)):
        if k % 2:
            i, j = j, i
        a, b = views[i], views[j]
        M = from_camera[j] @ T[i]
        p = scale * a.points
        in_j = p @ M[:3, :3].T + M[:3, 3]
        front = in_j[:, 2] > 0.03
        uv = np.full((len(p), 2), -1.0)
        if front.any():
            uv[front] = project(camera, in_j[front])[0]
        cell = np.floor((uv + 0.5) / b.step).astype(int)
        h, w = b.grid.shape[:2]
        inside = front & (cell >= 0).all(axis=1) & (cell[:, 0] < w) & (cell[:, 1] < h)
        index = np.flatnonzero(inside)
        row, column = cell[index, 1], cell[index, 0]
        q, normal = scale * b.grid[row, column], b.grid_normals[row, column]
        turned = a.normals[index] @ M[:3, :3].T
        r = np.sum(normal * (in_j[index] - q), axis=1)
        ok = np.isfinite(r) & (np.abs(r) < gate_m) & (np.sum(normal * turned, axis=1) > 0.85)
        ok &= np.linalg.norm(in_j[index] - q, axis=1) < gate_m + 0.03
        if ok.sum() < LEAST_PARTNERS:
            continue
        index, q, normal, r = index[ok], q[ok], normal[ok], r[ok]
        # Tukey's weights: what does not stand still, or is hidden in one of the views, falls out
        width = 4.685 * max(1.4826 * float(np.median(np.abs(r))), sigma_m)
        weight = a.weights[index] * np.maximum(1 - (r / width) ** 2, 0) ** 2
        J = _derivatives(p[index], in_j[index], normal, M, X)
        where = np.r_[0:7, 7 + 6 * i : 13 + 6 * i, 7 + 6 * j : 13 + 6 * j]
        JtW = J.T * weight / n
        eq.H[np.ix_(where, where)] += JtW @ J
        eq.b[where] -= JtW @ r
        eq.squares += float(np.sum(weight * r**2))
        eq.weight += float(np.sum(weight))
        eq.pairs += 1
    if eq.pairs < n:
        raise CalibrationError(
            f"only {eq.pairs} pairs of {n} views have surfaces in common; look at one place from all poses"
        )
    return eq


def _derivatives(p: Array, in_j: Array, normal: Array, M: Array, X: Array) -> Array:
    """(m, 19) of the residual by camera (6), scale (1), hand i (6), hand j (6)."""
    R = M[:3, :3]
    n_i = normal @ R  # the normal in camera i
    m = len(p)
    J = np.empty((m, 19))
    # moving the camera moves both points in their own camera frames
    J[:, 0:3] = _cross(p, n_i) - _cross(in_j, normal)
    J[:, 3:6] = n_i - normal
    J[:, 6] = -normal @ M[:3, 3]
    Rx, t = X[:3, :3], X[:3, 3]
    for at, point, direction, sign in ((7, p, n_i, 1.0), (13, in_j, normal, -1.0)):
        in_hand, along = point @ Rx.T + t, direction @ Rx.T
        J[:, at : at + 3] = sign * _cross(in_hand, along)
        J[:, at + 3 : at + 6] = sign * along
    return J


def _cross(a: Array, b: Array) -> Array:
    """np.cross of (m, 3), several times faster."""
    x, y, z = a.T
    u, v, w = b.T
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=1)


def _system(
    eq: _Normal,
    e: Array,
    scale: float,
    sigma: float,
    noise: tuple[float, float],
    known: tuple[float, float],
) -> tuple[Array, Array]:
    """Normal matrix and right side with the priors of scale and poses."""
    C, y = eq.H / sigma**2, eq.b / sigma**2
    prior = np.zeros(len(y))
    prior[6] = 1 / known[1] ** 2
    prior[7:] = np.tile(np.repeat([1 / noise[1] ** 2, 1 / noise[0] ** 2], 3), len(e))
    now = np.concatenate([np.zeros(6), [scale - known[0]], e.ravel()])
    # a little stiffness, so that a direction that nothing tells of stays where it is
    stiff = np.zeros(len(y))
    stiff[:6] = np.repeat([1 / 0.5**2, 1 / 0.3**2], 3)
    return C + np.diag(prior + stiff), y - prior * now


def _noise(
    eq: _Normal,
    e: Array,
    scale: float,
    sigma: float,
    guess: tuple[float, float],
    known: tuple[float, float],
) -> tuple[float, float]:
    """Standard deviations (translation [m], rotation [rad]) of a pose's error, by restricted likelihood."""
    # linearised at e = 0: the right side as if no pose had been corrected yet
    n = len(e)
    theta = np.concatenate([np.zeros(6), [scale - known[0]], e.ravel()])
    b0 = (eq.b + eq.H @ theta) / sigma**2
    H = eq.H / sigma**2

    def cost(log_sd: Array) -> float:
        sd = np.array([PRIOR_M, PRIOR_RAD]) * np.exp(log_sd)
        prior = np.zeros(len(b0))
        prior[:6] = np.repeat([1 / 0.5**2, 1 / 0.3**2], 3)
        prior[6] = 1 / known[1] ** 2
        prior[7:] = np.tile(np.repeat([1 / sd[1] ** 2, 1 / sd[0] ** 2], 3), n)
        C = H + np.diag(prior)
        d = np.sqrt(np.diag(C))
        log_det = np.linalg.slogdet(C / np.outer(d, d))[1] + 2 * float(np.sum(np.log(d)))
        log_det += 6 * n * float(np.log(sd[0]) + np.log(sd[1]))
        explained = float(b0 @ np.linalg.solve(C, b0))
        return float(log_det - explained + np.sum((log_sd / PRIOR_LOG_STD) ** 2)) / 2

    start = np.log(np.array(guess) / [PRIOR_M, PRIOR_RAD])
    simplex = start + np.array([[0.0, 0.0], [0.7, 0.0], [0.0, 0.7]])
    options = {"xatol": 0.02, "fatol": 0.01, "maxfev": 120, "initial_simplex": simplex}
    best = minimize(cost, start, method="Nelder-Mead", options=options)
    sd = np.array([PRIOR_M, PRIOR_RAD]) * np.exp(best.x)
    return float(sd[0]), float(sd[1])
