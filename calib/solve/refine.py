"""Joint refinement: all corners of all views, weighted by the noise of camera and robot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from calib.solve.model import Free, Linearised, Problem, Unknowns, Views, moved
from calib.solve.noise import Noise, PoseLevel, estimate_noise, information, reduce
from calib.solve.se3 import skew
from rt.pose import Array

HUBER = 3.0
"""Residuals beyond this many standard deviations count linearly."""


@dataclass(frozen=True)
class Fit:
    """A refined state with what is known about its error."""

    state: Unknowns
    noise: Noise
    free: Free
    views: Views
    cov: Array
    """(p, p) covariance of the increment of `moved`."""
    level: PoseLevel
    dof: int
    """Degrees of freedom of the residuals."""

    @property
    def interval_dof(self) -> float:
        """Degrees of freedom of the noise estimate: rotation and translation share those of the rest."""
        return max(self.dof / 3, 2.0)

    @property
    def hand_eye_cov(self) -> Array:
        """(6, 6) of T_mount_camera: rotation [rad] then translation [m], both along the mount's axes."""
        R = np.kron(np.eye(2), self.state.T_mount_camera[:3, :3])
        return np.asarray(R @ self.cov[:6, :6] @ R.T)

    @property
    def scale_sd(self) -> float:
        return float(np.sqrt(self.cov[12, 12])) * self.state.scale if self.free.scale else 0.0

    @property
    def dt_sd_s(self) -> float:
        k = 12 + int(self.free.scale)
        return float(np.sqrt(self.cov[k, k])) if self.free.dt else 0.0

    def point_cov(self, p_camera: Array) -> Array:
        """(3, 3) covariance [m^2] of a point of the camera's frame, seen in the mount's frame."""
        arm = self.state.T_mount_camera[:3, :3] @ np.asarray(p_camera)
        J = np.concatenate([-skew(arm), np.eye(3)], axis=1)
        return np.asarray(J @ self.hand_eye_cov @ J.T)


class _Whitener:
    """Turns residuals into independent ones of unit variance, in the same number and six more a view.

    Along the six directions in which the robot moves a view (U), the noise is that of robot and
    camera together; across them it is the camera's alone.
    """

    def __init__(self, lin: Linearised, noise: Noise) -> None:
        self.spans = [slice(a, b) for a, b in zip(lin.start[:-1], lin.start[1:], strict=True)]
        self.pixel = noise.pixel_px
        self.U, self.weight = [], []
        for span in self.spans:
            U, s, _ = np.linalg.svd(
                lin.D[span] * np.sqrt(noise.robot_variance), full_matrices=False
            )
            self.U.append(U)
            self.weight.append(1 / np.sqrt(noise.pixel_px**2 + s**2))

    def __call__(self, x: Array) -> Array:
        along, across = [], np.empty_like(x)
        for span, U, w in zip(self.spans, self.U, self.weight, strict=True):
            a = U.T @ x[span]
            along.append((a.T * w).T)
            across[span] = x[span] - U @ a
        return np.concatenate([*along, across / self.pixel])


def minimise(problem: Problem, state: Unknowns, noise: Noise) -> tuple[Unknowns, Linearised, Array]:
    """The best state at fixed noise: (state, its linearisation, covariance)."""
    whiten = _Whitener(problem.linearise(state), noise)
    free = problem.free
    result = least_squares(
        lambda theta: whiten(problem.residual(moved(state, theta, free))),
        np.zeros(free.size),
        jac=lambda theta: whiten(problem.linearise(moved(state, theta, free), theta).J),
        loss="huber",
        f_scale=HUBER,
        x_scale="jac",
        ftol=1e-7,
        xtol=1e-9,
        gtol=1e-9,
        max_nfev=30,
    )
    best = moved(state, result.x, free)
    lin = problem.linearise(best)
    J = whiten(lin.J)
    d = np.linalg.norm(J, axis=0) + 1e-300
    return best, lin, np.linalg.pinv((J / d).T @ (J / d), hermitian=True) / np.outer(d, d)


def refine(
    views: Views, state: Unknowns, free: Free | None = None, noise: Noise | None = None
) -> Fit:
    """Estimate the state and the noise in turns until neither changes."""
    free, noise = free or Free(), noise or Noise()
    problem = Problem(views, free)
    body = 12 + free.extras
    for _ in range(6):
        state, lin, _ = minimise(problem, state, noise)
        level = reduce(lin, body)
        before, noise = (
            noise,
            estimate_noise(level, body, len(free.intrinsics), noise, views.pixels_are_real),
        )
        change = np.log([noise.pixel_px, noise.robot_m, noise.robot_rad]) - np.log(
            [before.pixel_px, before.robot_m, before.robot_rad]
        )
        if np.max(np.abs(change)) < 0.05:
            break
    state, lin, cov = minimise(problem, state, noise)
    return Fit(state, noise, free, views, cov, reduce(lin, body), max(6 * len(views) - body, 1))


def left_out(fit: Fit) -> tuple[list[Unknowns], Array, Array]:
    """Prediction of each view by the others.

    Returns the states without view i, the hand error (N, 6) of view i under that state, and the
    covariance (N, 6, 6) of that error, which includes the state's own uncertainty.
    """
    info = information(fit.level, fit.noise)
    total = info.sum(axis=0)
    V = fit.noise.pixel_px**2 * fit.level.pixel_cov + np.diag(fit.noise.robot_variance)
    states, errors, covs = [], np.empty_like(fit.level.error), np.empty_like(V)
    for i, (G, e) in enumerate(zip(fit.level.gain, fit.level.error, strict=True)):
        C = np.linalg.pinv(total - info[i], hermitian=True, rcond=1e-14)
        step = -C @ G.T @ np.linalg.solve(V[i], e)
        theta = np.zeros(fit.free.size)
        theta[: len(step)] = step
        states.append(moved(fit.state, theta, fit.free))
        errors[i] = e - G @ step
        covs[i] = V[i] + G @ C @ G.T
    return states, errors, covs
