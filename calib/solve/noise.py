"""Noise of pixels and robot: variance components by restricted maximum likelihood.

A robot's pose is wrong by as much as the camera's corners, and wrong for all corners of an image at
once. Residuals are therefore correlated within a view: covariance sigma_px^2 I + D S D^T, with D the
derivative by a motion of the hand and S the robot's covariance. Counting the corners as independent
would claim intervals several times too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from calib.solve.model import Linearised
from rt.pose import Array

PRIOR_M, PRIOR_RAD, PRIOR_LOG_STD = 3e-4, np.radians(0.03), 1.5
"""A weak log-normal prior on the robot's noise: an industrial arm, within a factor of twenty or so.
It matters only when a handful of views leave the likelihood flat."""

PRIOR_PX = 0.3
"""The same for the corners behind given target poses, of which no image tells the noise [px]."""

FLOOR_PX = 0.01


@dataclass(frozen=True)
class Noise:
    """Standard deviations per axis."""

    pixel_px: float = 0.3
    robot_m: float = 1e-3
    robot_rad: float = float(np.radians(0.1))

    @property
    def robot_variance(self) -> Array:
        """(6,): rotation, then translation."""
        return np.repeat([self.robot_rad**2, self.robot_m**2], 3)


@dataclass(frozen=True)
class PoseLevel:
    """Every view reduced to the motion of the hand that would explain its residual."""

    error: Array
    """(N, 6) rotation [rad], translation [m] in the hand's frame; changes by -gain @ dtheta."""
    gain: Array
    """(N, 6, q) for the q unknowns that move the target as a body."""
    pixel_cov: Array
    """(N, 6, 6): covariance of `error` per squared pixel of corner noise."""
    rest_px: Array
    """(2M,): what no motion of the hand explains: corner noise, lens, board."""
    rest_sq: Array
    """(N,) sum of squares of `rest_px` in each view."""
    rest_dof: NDArray[np.intp]
    """(N,) its degrees of freedom."""


def reduce(lin: Linearised, unknowns: int) -> PoseLevel:
    """Split residuals (and derivatives by the first `unknowns`) into hand motion and rest."""
    n = len(lin.start) - 1
    error, gain, cov = np.empty((n, 6)), np.empty((n, 6, unknowns)), np.empty((n, 6, 6))
    rest, rest_sq = np.empty_like(lin.residual_px), np.empty(n)
    for i, (a, b) in enumerate(zip(lin.start[:-1], lin.start[1:], strict=True)):
        D, r = lin.D[a:b], lin.residual_px[a:b]
        # a pose that puts the target absurdly far away leaves next to nothing to invert
        size = np.linalg.norm(D, axis=0) + 1e-12
        cov[i] = np.linalg.inv(D.T @ D / np.outer(size, size) + 1e-13 * np.eye(6))
        cov[i] /= np.outer(size, size)
        fit = cov[i] @ D.T
        error[i] = -fit @ r
        gain[i] = fit @ lin.J[a:b, :unknowns]
        rest[a:b] = r + D @ error[i]
        rest_sq[i] = rest[a:b] @ rest[a:b]
    return PoseLevel(error, gain, cov, rest, rest_sq, np.maximum(np.diff(lin.start) - 6, 0))


def covariance(level: PoseLevel, noise: Noise) -> Array:
    """(N, 6, 6) covariance of PoseLevel.error."""
    return np.asarray(noise.pixel_px**2 * level.pixel_cov + np.diag(noise.robot_variance))


def information(level: PoseLevel, noise: Noise) -> Array:
    """(N, q, q): what each view tells about the unknowns."""
    GtW = np.swapaxes(level.gain, 1, 2) @ np.linalg.inv(covariance(level, noise))
    return np.asarray(GtW @ level.gain)


def negative_log_likelihood(level: PoseLevel, noise: Noise) -> float:
    """Of the hand motions in `level`, restricted: what the unknowns can explain does not count."""
    V = covariance(level, noise)
    W = np.linalg.inv(V)
    GtW = np.swapaxes(level.gain, 1, 2) @ W
    H = np.sum(GtW @ level.gain, axis=0)
    y = np.sum(GtW @ level.error[..., None], axis=0)[:, 0]
    sq = np.einsum("ni,nij,nj->", level.error, W, level.error) - y @ np.linalg.pinv(H) @ y
    # log det by scale-free diagonals: H mixes metres and radians
    d = np.sqrt(np.abs(np.diag(H))) + 1e-300
    log_det = np.linalg.slogdet(H / np.outer(d, d))[1] + 2 * np.sum(np.log(d))
    return float(np.sum(np.linalg.slogdet(V)[1]) + log_det + sq) / 2


def estimate_noise(
    level: PoseLevel,
    unknowns: int,
    other_unknowns: int,
    guess: Noise,
    pixels_are_real: bool = True,
) -> Noise:
    """Pixel noise from the rest, robot noise from the motions by restricted maximum likelihood.

    unknowns: columns of `level.gain`; other_unknowns: those that act on the rest (the intrinsics).
    If the pixels stand for given target poses, the rest is empty, and the noise of the corners behind
    these poses is estimated from the motions too.
    """
    dof = max(int(np.sum(level.rest_dof)) - other_unknowns, 1)
    pixel = max(float(np.sqrt(np.sum(level.rest_sq) / dof)), FLOOR_PX)
    start = [np.log(guess.robot_m / PRIOR_M), np.log(guess.robot_rad / PRIOR_RAD)]
    if not pixels_are_real:
        start.append(np.log(guess.pixel_px / PRIOR_PX))

    def noise_at(log_sd: Array) -> Noise:
        px = pixel if pixels_are_real else PRIOR_PX * np.exp(log_sd[2])
        return Noise(
            float(px), float(PRIOR_M * np.exp(log_sd[0])), float(PRIOR_RAD * np.exp(log_sd[1]))
        )

    def cost(log_sd: Array) -> float:
        prior = np.sum((log_sd / PRIOR_LOG_STD) ** 2) / 2
        return negative_log_likelihood(level, noise_at(log_sd)) + float(prior)

    best = minimize(
        cost,
        start,
        method="Nelder-Mead",
        options={"xatol": 0.02, "fatol": 0.01, "maxfev": 60 * len(start)},
    ).x
    return noise_at(best)
