"""A first T_hand_camera from the table alone: its plane in each depth view, and the robot's poses.

The table's normal seen from poses tilted about two axes gives the rotation, the heights give the translation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from calib.errors import CalibrationError
from calib.scene.clouds import TablePlane
from calib.solve.se3 import transform
from rt.pose import Array

LEAST_TILT_DEG = 4.0
"""Second spread of the table's normals in the hand: below it one axis of rotation is missing."""


def start_from_planes(planes: Sequence[TablePlane], T_base_hand: Array) -> Array:
    """T_hand_camera (4, 4) by least squares on N planes and hand poses (N, 4, 4).

    Raises CalibrationError if the views are not tilted about two axes.
    """
    seen = np.array([p.normal for p in planes])
    A = T_base_hand[:, :3, :3]
    if len(planes) < 4:
        raise CalibrationError(
            f"{len(planes)} views show a table; at least 4 are needed, 15 are good"
        )
    spread = np.degrees(np.linalg.svd(seen - seen.mean(axis=0), compute_uv=False)) / np.sqrt(
        len(seen)
    )
    if spread[1] < LEAST_TILT_DEG:
        raise CalibrationError(
            f"the table is seen at tilts that spread by {spread[0]:.1f} and {spread[1]:.1f} deg; tilt the "
            f"camera by 20 deg about two axes (the smaller must be above {LEAST_TILT_DEG:g})"
        )
    best: tuple[float, Array, Array] | None = None
    for up in _directions():
        for _ in range(60):
            in_hand = np.einsum("nji,j->ni", A, up)
            R, _ = Rotation.align_vectors(in_hand, seen)
            turned = np.einsum("nij,nj->ni", A, R.apply(seen))
            mean = turned.mean(axis=0)
            before, up = up, mean / np.linalg.norm(mean)
            if np.linalg.norm(up - before) < 1e-10:
                break
        cost = float(np.mean(np.sum((turned - up) ** 2, axis=1)))
        if best is None or cost < best[0]:
            best = cost, R.as_matrix(), up
    assert best is not None
    cost, R_hand_camera, up = best
    if np.degrees(np.sqrt(cost)) > 5:
        raise CalibrationError(
            f"the table's tilts do not follow the robot's ({np.degrees(np.sqrt(cost)):.1f} deg rms): the "
            "poses are not T_base_hand, belong to other images, or the camera is not in the hand"
        )
    # up . (A (R p + t) + a) = height for p in the plane: linear in t and height
    lever = np.einsum("nji,j->ni", A, up)
    rows = np.c_[lever, -np.ones(len(planes))]
    off = np.array([p.offset_m for p in planes])
    right = -off - T_base_hand[:, :3, 3] @ up
    t = np.linalg.lstsq(rows, right, rcond=None)[0][:3]
    return np.asarray(transform(R_hand_camera, t))


def _directions() -> Array:
    """(n, 3) spread over the sphere, the base's z first: a table is usually level."""
    k = np.arange(24) + 0.5
    z = 1 - 2 * k / 24
    a = np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    return np.asarray(np.r_[[[0.0, 0.0, 1.0]], np.c_[r * np.cos(a), r * np.sin(a), z]])


def table_frame(planes: Sequence[TablePlane], T_base_hand: Array, T_hand_camera: Array) -> Array:
    """T_base_table (4, 4): z up out of the table, the origin below the middle of the views."""
    T = T_base_hand @ T_hand_camera
    normals = np.einsum("nij,nj->ni", T[:, :3, :3], [p.normal for p in planes])
    z = normals.mean(axis=0) / np.linalg.norm(normals.mean(axis=0))
    feet = [t[:3, 3] + t[:3, :3] @ (p.normal * p.offset_m) for t, p in zip(T, planes, strict=True)]
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.asarray(transform(np.stack([x, np.cross(z, x), z], axis=1), np.mean(feet, axis=0)))
