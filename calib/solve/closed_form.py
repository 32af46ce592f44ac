"""Target poses from images, and OpenCV's seven closed-form hand-eye methods on them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from calib.errors import CalibrationError
from calib.solve.model import LensModel, Unknowns, Views, project
from calib.solve.se3 import angle_deg, inverse, mean_transform, transform
from rt.pose import Array

HAND_EYE = {
    "Tsai": cv2.CALIB_HAND_EYE_TSAI,
    "Park": cv2.CALIB_HAND_EYE_PARK,
    "Horaud": cv2.CALIB_HAND_EYE_HORAUD,
    "Andreff": cv2.CALIB_HAND_EYE_ANDREFF,
    "Daniilidis": cv2.CALIB_HAND_EYE_DANIILIDIS,
}
ROBOT_WORLD = {
    "Shah": cv2.CALIB_ROBOT_WORLD_HAND_EYE_SHAH,
    "Li": cv2.CALIB_ROBOT_WORLD_HAND_EYE_LI,
}
METHODS = (*HAND_EYE, *ROBOT_WORLD)
"""Of cv2.calibrateHandEye and cv2.calibrateRobotWorldHandEye."""

MOST_FOLDS = 20
"""More views than this are held out in groups."""


@dataclass(frozen=True)
class TargetPose:
    """The target as one image alone shows it."""

    T_camera_target: Array
    rms_px: float
    ambiguity: float
    """Residual of the second planar solution over the first; near 1 the tilt is a guess."""


def target_pose(camera: LensModel, points_m: Array, pixels: Array) -> TargetPose:
    """Pose of a target from its points (m, 3) and pixels (m, 2), m >= 4; raises CalibrationError."""
    planar = np.ptp(points_m[:, 2]) < 1e-9
    ok, rvecs, tvecs, _ = cv2.solvePnPGeneric(
        points_m,
        np.ascontiguousarray(pixels),
        camera.K,
        np.array(camera.dist),
        flags=cv2.SOLVEPNP_IPPE if planar else cv2.SOLVEPNP_SQPNP,
    )
    solutions = []
    for rvec, tvec in zip(rvecs, tvecs, strict=True) if ok else ():
        rvec, tvec = cv2.solvePnPRefineLM(
            points_m, np.ascontiguousarray(pixels), camera.K, np.array(camera.dist), rvec, tvec
        )
        T = transform(cv2.Rodrigues(rvec)[0], tvec[:, 0])
        in_camera = points_m @ T[:3, :3].T + T[:3, 3]
        if not np.all(np.isfinite(T)) or np.median(in_camera[:, 2]) <= 0:
            continue
        residual = project(camera, in_camera)[0] - pixels
        solutions.append((float(np.sqrt(np.mean(np.sum(residual**2, axis=1)))), T))
    if not solutions:
        raise CalibrationError(f"no pose fits the {len(pixels)} detected points")
    solutions.sort(key=lambda s: s[0])
    second = solutions[1][0] if len(solutions) > 1 else np.inf
    rms, T = solutions[0]
    return TargetPose(T, rms, second / max(rms, 1e-6))


def target_poses(views: Views) -> Array:
    """T_camera_target (N, 4, 4) of every view on its own."""
    poses = []
    for name, points, pixels in zip(views.names, views.points_m, views.pixels, strict=True):
        try:
            poses.append(target_pose(views.camera, points, pixels).T_camera_target)
        except CalibrationError as error:
            raise CalibrationError(f"{name}: {error}") from error
    return np.array(poses)


def closed_form(T_fixed_mount: Array, T_camera_target: Array, method: str = "Park") -> Array | None:
    """T_mount_camera (4, 4) by one of METHODS, or None where it fails."""
    A, C = T_fixed_mount, T_camera_target
    try:
        if method in HAND_EYE:
            R, t = cv2.calibrateHandEye(
                A[:, :3, :3], A[:, :3, 3], C[:, :3, :3], C[:, :3, 3], method=HAND_EYE[method]
            )
            T = transform(R, t[:, 0])
        else:
            B = inverse(A)
            R, t = cv2.calibrateRobotWorldHandEye(
                C[:, :3, :3], C[:, :3, 3], B[:, :3, :3], B[:, :3, 3], method=ROBOT_WORLD[method]
            )[2:]
            T = np.linalg.inv(transform(R, t.ravel()))
    except (cv2.error, np.linalg.LinAlgError):
        return None
    if not np.all(np.isfinite(T)):
        return None
    U, _, Vt = np.linalg.svd(T[:3, :3])
    T[:3, :3] = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
    return T


def held_out(
    T_fixed_mount: Array, T_camera_target: Array, middle_m: Array
) -> dict[str, tuple[float, float]]:
    """Error of every closed form at views that it was not given: root mean square [m] and [deg].

    T_fixed_mount, T_camera_target: (N, 4, 4); middle_m: (3,) the point of the target that is compared.
    Methods that fail are left out; empty for fewer than four views.
    """
    A, C, n = T_fixed_mount, T_camera_target, len(T_fixed_mount)
    fold = np.arange(n) % min(n, MOST_FOLDS)
    result: dict[str, tuple[float, float]] = {}
    for method in METHODS if n >= 4 else ():
        off, turn = np.full(n, np.nan), np.full(n, np.nan)
        for k in range(fold.max() + 1):
            rest, out = fold != k, fold == k
            X = closed_form(A[rest], C[rest], method)
            if X is None:
                break
            expected, found = mean_transform(A[rest] @ X @ C[rest]), A[out] @ X @ C[out]
            at = (found - expected)[:, :3] @ np.append(middle_m, 1)
            off[out] = np.linalg.norm(at, axis=1)
            turn[out] = angle_deg(np.swapaxes(found[:, :3, :3], 1, 2) @ expected[:3, :3])
        if np.all(np.isfinite(off)):
            result[method] = float(np.sqrt(np.mean(off**2))), float(np.sqrt(np.mean(turn**2)))
    return result


def with_target(
    X: Array, T_fixed_mount: Array, T_camera_target: Array, camera: LensModel
) -> Unknowns:
    """A state whose target is the mean of where the views put it."""
    return Unknowns(X, mean_transform(T_fixed_mount @ X @ T_camera_target), camera)


def target_errors(views: Views, state: Unknowns, seen: Array) -> tuple[Array, Array]:
    """Difference between the target's pose by one view and by the state: [m] and [deg], (N,) each.

    seen: T_camera_target (N, 4, 4) of each view at the state's scale. The distance is that of the
    target's middle.
    """
    middle = np.mean(np.concatenate(views.points_m), axis=0) * state.scale
    found = views.fixed_mount(state.dt_s) @ state.T_mount_camera @ seen
    at = found[:, :3, :3] @ middle + found[:, :3, 3]
    expected = state.T_fixed_target[:3, :3] @ middle + state.T_fixed_target[:3, 3]
    turn = angle_deg(np.swapaxes(found[:, :3, :3], 1, 2) @ state.T_fixed_target[:3, :3])
    return np.linalg.norm(at - expected, axis=1), turn


def rotation_spread(T_fixed_mount: Array) -> tuple[float, float]:
    """(largest relative rotation [deg], its second spread [deg]).

    The second is the root mean square of the relative rotation vectors along their second principal
    direction: near zero the axes are parallel, and a translation along them cannot be known.
    """
    from scipy.spatial.transform import Rotation

    R = T_fixed_mount[:, :3, :3]
    n = len(R)
    i, j = np.triu_indices(n, 1)
    relative = np.swapaxes(R[i], 1, 2) @ R[j]
    vectors = np.degrees(Rotation.from_matrix(relative).as_rotvec())
    singular = np.linalg.svd(vectors, compute_uv=False) / np.sqrt(len(vectors))
    return float(np.max(np.linalg.norm(vectors, axis=1))), float(
        singular[1] if len(singular) > 1 else 0.0
    )


def relative(T: Array) -> Array:
    """inv(T_0) T_i for i > 0."""
    return np.asarray(inverse(T[:1]) @ T[1:])
