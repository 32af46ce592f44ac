"""The lens: estimated from the target's images, and given intrinsics checked against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from calib.errors import CalibrationError
from calib.solve.model import LensModel
from rt.pose import Array


@dataclass(frozen=True)
class Lens:
    """Intrinsics that images alone give."""

    camera: LensModel
    free: tuple[int, ...]
    """Indices into Camera.vector that were estimated."""
    rms_px: float


def estimate(
    points_m: list[Array],
    pixels: list[Array],
    size: tuple[int, int],
    guess: LensModel | None = None,
) -> Lens:
    """Calibrate from at least three views; estimates only what the views can tell.

    Few views or nearly parallel ones leave the principal point and the tangential terms where they
    are; the highest radial term is freed only for many points. Raises CalibrationError.
    """
    if len(points_m) < 3:
        raise CalibrationError(
            f"{len(points_m)} views cannot give the intrinsics; take 10 or more, tilted, or give them"
        )
    objects = [np.ascontiguousarray(p, dtype=np.float32) for p in points_m]
    images = [np.ascontiguousarray(p[:, None], dtype=np.float32) for p in pixels]
    flags, K = 0, None
    if guess is not None:
        K, flags = guess.K, cv2.CALIB_USE_INTRINSIC_GUESS
    few = len(objects) < 6
    free = [0, 1, 4, 5]
    if few:
        flags |= cv2.CALIB_FIX_PRINCIPAL_POINT | cv2.CALIB_ZERO_TANGENT_DIST | cv2.CALIB_FIX_K2
        free = [0, 1, 4]
        if K is None:
            K = np.array(
                [[size[0], 0, size[0] / 2 - 0.5], [0, size[0], size[1] / 2 - 0.5], [0, 0, 1]]
            )
            flags |= cv2.CALIB_USE_INTRINSIC_GUESS
    else:
        free += [2, 3, 6, 7]
    if len(objects) < 8 or sum(map(len, pixels)) < 400 or _reach(pixels, size) < 0.75:
        flags |= cv2.CALIB_FIX_K3
    else:
        free += [8]
    try:
        rms, K, dist, rvecs, _ = cv2.calibrateCamera(
            objects, images, size, K, np.zeros(5) if K is not None else None, flags=flags
        )
    except cv2.error as error:
        raise CalibrationError(f"the intrinsics cannot be estimated: {error.err}") from error
    normals = np.array([cv2.Rodrigues(r)[0] for r in rvecs])
    i, j = np.triu_indices(len(normals), 1)
    axis_angle = np.degrees(
        np.arccos(np.clip(np.sum(normals[i, :, 2] * normals[j, :, 2], axis=1), -1, 1))
    )
    if np.max(axis_angle) < 8:
        raise CalibrationError(
            f"all images show the target at the same tilt (within {np.max(axis_angle):.1f} deg), from "
            "which no focal length follows; tilt the camera, or give the intrinsics"
        )
    camera = LensModel(
        *size, K[0, 0], K[1, 1], K[0, 2], K[1, 2], tuple(float(x) for x in dist.ravel()[:5])
    )
    return Lens(camera, tuple(sorted(free)), float(rms))


def _reach(pixels: list[Array], size: tuple[int, int]) -> float:
    """Distance of the outermost points from the image centre, as a part of the half diagonal."""
    half = np.array(size) / 2
    return float(
        np.quantile(np.linalg.norm(np.concatenate(pixels) - half, axis=1), 0.99)
        / np.linalg.norm(half)
    )


def camera_from_dict(values: dict[str, Any]) -> LensModel:
    """A camera from the table of a cell file."""
    try:
        return LensModel(
            int(values["width"]),
            int(values["height"]),
            float(values["fx"]),
            float(values["fy"]),
            float(values["cx"]),
            float(values["cy"]),
            tuple(float(x) for x in values["dist"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"the camera of the cell file is damaged: {error!r}") from error
