"""Choice of viewpoints: information of each pose, weak directions, and the pose to add next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib.solve.model import Free, LensModel, Problem, Unknowns, Views, project
from calib.solve.noise import Noise, information, reduce
from calib.solve.refine import Fit
from calib.solve.se3 import inverse, skew, transform
from rt.pose import Array

PARAMETERS = ("rx", "ry", "rz", "tx", "ty", "tz")


@dataclass(frozen=True)
class Viewpoint:
    """Place of the camera relative to the target's middle."""

    azimuth_deg: float
    """Direction of the tilt, about the target's normal; 0 is along its x."""
    tilt_deg: float
    """Angle between the viewing direction and the target's normal."""
    roll_deg: float
    """Turn of the camera about its own axis; 0 has image x along target x at zero tilt."""
    distance_m: float
    aim_m: tuple[float, float] = (0.0, 0.0)
    """Point in which the optical axis meets the target, from its middle."""

    def __str__(self) -> str:
        return (
            f"{self.distance_m * 1e3:.0f} mm away, tilted {self.tilt_deg:.0f} deg towards azimuth "
            f"{self.azimuth_deg:.0f} deg, rolled {self.roll_deg:.0f} deg"
        )

    def pose(self, middle: Array) -> Array:
        """T_target_camera (4, 4); middle: the target's middle (3,) in its own frame."""
        a, t, r = np.radians([self.azimuth_deg, self.tilt_deg, self.roll_deg])
        # z into the paper: a camera straight above looks along +z from z = -distance
        out = np.array([np.sin(t) * np.cos(a), np.sin(t) * np.sin(a), -np.cos(t)])
        z = -out
        x = np.array([1.0, 0, 0]) - z[0] * z
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z], axis=1)
        c, s = np.cos(r), np.sin(r)
        R = R @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        aim = middle + np.array([*self.aim_m, 0.0])
        return transform(R, aim + self.distance_m * out)


def random_viewpoints(
    rng: np.random.Generator,
    count: int,
    distance_m: tuple[float, float],
    tilt_deg: tuple[float, float] = (5.0, 45.0),
    roll_deg: float = 90.0,
    aim_m: float = 0.03,
) -> list[Viewpoint]:
    """Viewpoints spread at random within limits; roll within +-roll_deg."""
    return [
        Viewpoint(
            float(rng.uniform(-180, 180)),
            float(rng.uniform(*tilt_deg)),
            float(rng.uniform(-roll_deg, roll_deg)),
            float(rng.uniform(*distance_m)),
            (float(rng.uniform(-aim_m, aim_m)), float(rng.uniform(-aim_m, aim_m))),
        )
        for _ in range(count)
    ]


def middle_of(points: Array) -> Array:
    return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)


def seen_fraction(camera: LensModel, points: Array, T_camera_target: Array) -> float:
    """Part of the target's points that lie in the image, 3 % of its size from the edge."""
    p = points @ T_camera_target[:3, :3].T + T_camera_target[:3, 3]
    if np.any(p[:, 2] <= 0.02):
        return 0.0
    uv, _ = project(camera, p)
    size = np.array([camera.width, camera.height])
    # a strong lens folds far-away points back into the image: ask of the undistorted ones too
    plain = p[:, :2] / p[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    inside = np.all((uv > 0.03 * size) & (uv < 0.97 * size), axis=1)
    inside &= np.all((plain > -0.3 * size) & (plain < 1.3 * size), axis=1)
    return float(np.mean(inside))


def hand_pose(state: Unknowns, T_target_camera: Array, eye_in_hand: bool) -> Array:
    """T_base_hand (4, 4) that brings the camera to that place relative to the target."""
    A = state.T_fixed_target @ T_target_camera @ inverse(state.T_mount_camera)
    return A if eye_in_hand else inverse(A)


def pose_information(
    state: Unknowns, noise: Noise, T_base_hand: Array, points: Array, eye_in_hand: bool
) -> Array:
    """(n, 12, 12): what a view of `points` (m, 3) from each hand pose (n, 4, 4) would tell."""
    n = len(T_base_hand)
    blank = np.zeros((len(points), 2))
    views = Views(
        tuple(map(str, range(n))),
        np.asarray(T_base_hand),
        (points,) * n,
        (blank,) * n,
        state.camera,
        eye_in_hand,
    )
    return information(reduce(Problem(views, Free()).linearise(state), 12), noise)


def working_matrix(T_mount_camera: Array, distance_m: float) -> Array:
    """(6, 6) M with trace(M cov) = mean squared error [m^2] of points at a working distance.

    cov as in Fit.cov: along the camera's axes. The points are a square of a quarter of the distance.
    """
    M = np.zeros((6, 6))
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        p = distance_m * np.array([x / 8, y / 8, 1.0])
        J = np.concatenate([-skew(p), np.eye(3)], axis=1)
        M += J.T @ J / 4
    return M


def invert(H: Array) -> Array:
    """Inverses of information matrices (..., q, q) whose units differ; singular ones become huge."""
    d = np.sqrt(np.einsum("...ii->...i", H)) + 1e-12
    scaled = H / (d[..., :, None] * d[..., None, :])
    eye = 1e-12 * np.eye(H.shape[-1])
    return np.asarray(np.linalg.inv(scaled + eye) / (d[..., :, None] * d[..., None, :]))


def greedy(info: Array, M: Array, count: int, start: Array | None = None) -> list[int]:
    """Indices of `count` poses of info (n, 12, 12), each the best addition to those before."""
    H = np.zeros((12, 12)) if start is None else start.copy()
    # a little knowledge of everything, so that the first choices are comparable
    H = H + np.diag(np.repeat([1 / 0.5**2, 1 / 0.5**2], [6, 6]))
    chosen: list[int] = []
    left = np.ones(len(info), dtype=bool)
    for _ in range(min(count, len(info))):
        C = invert(H + info)[:, :6, :6]
        cost = np.where(left, np.einsum("nij,ji->n", C, M), np.inf)
        best = int(np.argmin(cost))
        chosen.append(best)
        left[best] = False
        H = H + info[best]
    return chosen


@dataclass(frozen=True)
class Advice:
    """Quality of the motions for the transform, and the pose that would help most."""

    score: Array
    """(6,) of PARAMETERS along the camera's axes: the standard deviation that as many well-chosen poses
    would give over the one there is; 1 is as good as can be."""
    overall: float
    """The same for points at the working distance."""
    next_viewpoint: Viewpoint | None
    next_T_base_hand: Array | None
    gain: float
    """Root mean square error at the working distance with the next pose, over that without it."""


def advise(
    fit: Fit, points: Array, working_m: float, rng: np.random.Generator, candidates: int = 150
) -> Advice:
    """Compare with a greedy design of as many poses; propose the next. points: all of the target's."""
    middle = middle_of(points) * fit.state.scale
    info_now = information(fit.level, fit.noise)[:, :12, :12]
    H = info_now.sum(axis=0)
    M = working_matrix(fit.state.T_mount_camera, working_m)
    distances = _distances(fit.views, fit.state)
    kept = [
        v
        for v in random_viewpoints(rng, candidates, (0.8 * distances[0], 1.15 * distances[1]))
        if seen_fraction(fit.state.camera, points, inverse(v.pose(middle))) > 0.8
    ]
    now = invert(H)[:6, :6]
    if not kept:
        return Advice(np.full(6, np.nan), float("nan"), None, None, 1.0)
    poses = np.array([hand_pose(fit.state, v.pose(middle), fit.views.eye_in_hand) for v in kept])
    info = pose_information(fit.state, fit.noise, poses, points, fit.views.eye_in_hand)
    best = greedy(info, M, 1, H)[0]
    after = invert(H + info[best])[:6, :6]
    chosen = greedy(info, M, len(fit.views))
    ideal = invert(info[chosen].sum(axis=0))[:6, :6]
    rms_now, rms_ideal = np.sqrt(np.trace(M @ now)), np.sqrt(np.trace(M @ ideal))
    return Advice(
        np.minimum(np.sqrt(np.diag(ideal) / np.diag(now)), 1.0),
        float(min(rms_ideal / rms_now, 1.0)),
        kept[best],
        poses[best],
        float(np.sqrt(np.trace(M @ after)) / rms_now),
    )


def _distances(views: Views, state: Unknowns) -> tuple[float, float]:
    from calib.solve.model import target_in_camera

    z = np.linalg.norm(target_in_camera(views, state)[:, :3, 3], axis=1)
    return float(np.min(z)), float(np.max(z))
