"""UR's way of writing a pose, (6,) of x, y, z [m] and a rotation vector [rad], to a transform and back.

A tool that looks straight down is turned by half a turn, where a rotation vector jumps from one end
of its axis to the other: everything here goes through a quaternion, which is exact there.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def rotation_vector(R: ArrayLike) -> Array:
    """Axis times angle [rad], (3,), of a rotation (3, 3); angle in [0, pi]."""
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(R, dtype=np.float64).tolist()
    # Shepperd: begin with the greatest of 4w^2, 4x^2, 4y^2, 4z^2, so that nothing is divided by little.
    four = (1 + a + e + i, 1 + a - e - i, 1 - a + e - i, 1 - a - e + i)
    best = four.index(max(four))
    if best == 0:
        w, x, y, z = four[0], h - f, c - g, d - b
    elif best == 1:
        w, x, y, z = h - f, four[1], b + d, c + g
    elif best == 2:
        w, x, y, z = c - g, b + d, four[2], f + h
    else:
        w, x, y, z = d - b, c + g, f + h, four[3]
    if w < 0:
        w, x, y, z = -w, -x, -y, -z
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-12 * w:
        return np.array([2 * x / w, 2 * y / w, 2 * z / w])
    scale = 2 * math.atan2(length, w) / length
    return np.array([x * scale, y * scale, z * scale])


def rotation(vector: ArrayLike) -> Array:
    """Rotation (3, 3) about an axis by its length [rad]; any angle."""
    x, y, z = np.asarray(vector, dtype=np.float64).tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    half = angle / 2
    s = math.sin(half) / angle if angle > 1e-9 else 0.5
    w, x, y, z = math.cos(half), s * x, s * y, s * z
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def transform(pose: ArrayLike) -> Array:
    """T (4, 4) of a pose (6,)."""
    p = np.asarray(pose, dtype=np.float64)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation(p[3:]), p[:3]
    return T


def pose_vector(T: ArrayLike) -> Array:
    """Pose (6,) of a transform (4, 4)."""
    T = np.asarray(T, dtype=np.float64)
    return np.concatenate([T[:3, 3], rotation_vector(T[:3, :3])])


def difference(T_a_b: Array, T_a_c: Array) -> Array:
    """(6,) in a: the way [m] and the turn [rad] that lead from b to c."""
    return np.concatenate(
        [T_a_c[:3, 3] - T_a_b[:3, 3], rotation_vector(T_a_c[:3, :3] @ T_a_b[:3, :3].T)]
    )
