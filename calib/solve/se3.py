"""Rigid motions as twists (rotation [rad], translation [m]); batched over leading axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from rt.pose import Array


def skew(v: ArrayLike) -> Array:
    """The matrices (..., 3, 3) with skew(a) @ b = a x b."""
    x, y, z = np.moveaxis(np.asarray(v, dtype=np.float64), -1, 0)
    o = np.zeros_like(x)
    return np.stack([o, -z, y, z, o, -x, -y, x, o], axis=-1).reshape(*x.shape, 3, 3)


def transform(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """T (..., 4, 4) of rotation matrices (..., 3, 3) and translations (..., 3)."""
    R, t = np.asarray(rotation, dtype=np.float64), np.asarray(translation, dtype=np.float64)
    T = np.zeros((*np.broadcast_shapes(R.shape[:-2], t.shape[:-1]), 4, 4))
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = R, t, 1.0
    return T


def from_vector(twist: ArrayLike) -> Array:
    """T (..., 4, 4) with rotation exp(twist[:3]) and translation twist[3:] (not the screw motion)."""
    twist = np.asarray(twist, dtype=np.float64)
    R = Rotation.from_rotvec(twist[..., :3].reshape(-1, 3)).as_matrix()
    return transform(R.reshape(*twist.shape[:-1], 3, 3), twist[..., 3:])


def to_vector(T: ArrayLike) -> Array:
    """The inverse of `from_vector`: (..., 6) of rotation vector [rad] and translation [m]."""
    T = np.asarray(T, dtype=np.float64)
    w = Rotation.from_matrix(T[..., :3, :3].reshape(-1, 3, 3)).as_rotvec()
    return np.concatenate([w.reshape(*T.shape[:-2], 3), T[..., :3, 3]], axis=-1)


def inverse(T: ArrayLike) -> Array:
    """Inverse of rigid transforms (..., 4, 4)."""
    T = np.asarray(T, dtype=np.float64)
    Rt = np.swapaxes(T[..., :3, :3], -1, -2)
    return transform(Rt, -(Rt @ T[..., :3, 3:])[..., 0])


def adjoint(T: ArrayLike) -> Array:
    """(..., 6, 6) with T exp(xi) T^-1 = exp(adjoint(T) @ xi), twists ordered (rotation, translation)."""
    T = np.asarray(T, dtype=np.float64)
    R = T[..., :3, :3]
    result = np.zeros((*T.shape[:-2], 6, 6))
    result[..., :3, :3] = result[..., 3:, 3:] = R
    result[..., 3:, :3] = skew(T[..., :3, 3]) @ R
    return result


def right_jacobian(w: ArrayLike) -> Array:
    """(3, 3) with exp(w + dw) = exp(w) exp(right_jacobian(w) @ dw) to first order."""
    w = np.asarray(w, dtype=np.float64)
    angle, S = float(np.linalg.norm(w)), skew(w)
    if angle < 1e-6:
        return np.asarray(np.eye(3) - S / 2)
    a = (1 - np.cos(angle)) / angle**2
    b = (angle - np.sin(angle)) / angle**3
    return np.asarray(np.eye(3) - a * S + b * S @ S)


def angle_deg(T: ArrayLike) -> Array:
    """Rotation angle of T (..., 4, 4) or (..., 3, 3) in degrees, accurate for small angles too."""
    R = np.asarray(T, dtype=np.float64)[..., :3, :3]
    s = np.linalg.norm(R - np.swapaxes(R, -1, -2), axis=(-2, -1)) / np.sqrt(8)
    c = (np.trace(R, axis1=-2, axis2=-1) - 1) / 2
    return np.asarray(np.degrees(np.arctan2(s, c)))


def mean_transform(T: ArrayLike) -> Array:
    """Chordal mean of transforms (N, 4, 4)."""
    T = np.asarray(T, dtype=np.float64)
    return transform(
        Rotation.from_matrix(T[:, :3, :3]).mean().as_matrix(), np.mean(T[:, :3, 3], axis=0)
    )
