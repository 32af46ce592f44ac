"""Rigid transforms, planar actions (x, y, theta) and the grasp metric.

`T_a_b` maps points in frame b to frame a, shape (4, 4). World: z up, table plane z = 0. A hand that
looks straight down is given by (x, y, z, yaw): its closing axis x_hand is (cos yaw, sin yaw, 0), its
approach z_hand is (0, 0, -1), so y_hand = (sin yaw, -cos yaw, 0). Frames `hand` and `view` coincide.

An action (x, y, theta) displaces the hand in its own plane: it slides by (x, y) along x_hand and
y_hand and turns by theta about z_hand. Seen from above z_hand points away, so theta turns the yaw
the other way. Parallel jaws make theta equal modulo pi.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]

METRES_PER_DEGREE = 0.001
"""Weight of rotation in the grasp metric (Viereck et al. 2017, Section III-A)."""

METRES_PER_RADIAN = METRES_PER_DEGREE * 180.0 / np.pi


def wrap_theta(theta: ArrayLike) -> Array:
    """Angle of a closing axis, radians, wrapped to [-pi/2, pi/2)."""
    theta = np.asarray(theta)
    wrapped = np.mod(theta + np.pi / 2, np.pi) - np.pi / 2
    # np.mod may round up to pi itself for arguments just below zero.
    return np.where(wrapped >= np.pi / 2, -np.pi / 2, wrapped).astype(wrapped.dtype, copy=False)


def grasp_distance(a: ArrayLike, b: ArrayLike) -> Array:
    """Distance in metres between planar poses (..., 3) of x [m], y [m], theta [rad]; broadcasts.

    sqrt(dx^2 + dy^2 + (0.001 m/deg * dtheta)^2), dtheta wrapped to [-pi/2, pi/2).
    """
    d = np.asarray(a) - np.asarray(b)
    turn = METRES_PER_RADIAN * wrap_theta(d[..., 2])
    return np.asarray(np.sqrt(d[..., 0] ** 2 + d[..., 1] ** 2 + turn**2))


def top_down(x: float, y: float, z: float, yaw: float) -> NDArray[np.float64]:
    """T_world_hand (4, 4) of a hand at (x, y, z) [m] that looks straight down, closing along yaw [rad]."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, s, 0, x], [s, -c, 0, y], [0, 0, -1, z], [0, 0, 0, 1]], dtype=np.float64)


def from_top_down(T_world_hand: ArrayLike) -> tuple[float, float, float, float]:
    """(x, y, z, yaw) of a hand pose; the inverse of `top_down`, ignoring any tilt."""
    T = np.asarray(T_world_hand)
    return float(T[0, 3]), float(T[1, 3]), float(T[2, 3]), float(np.arctan2(T[1, 0], T[0, 0]))


def planar(action: ArrayLike) -> NDArray[np.float64]:
    """The action (x, y, theta) as a transform (4, 4) in the hand's frame: T_hand_moved."""
    x, y, theta = np.asarray(action, dtype=np.float64)
    c, s = np.cos(theta), np.sin(theta)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)


def inverse(T_a_b: ArrayLike) -> NDArray[np.float64]:
    """T_b_a of a rigid transform (4, 4)."""
    T = np.asarray(T_a_b)
    result = np.eye(4)
    result[:3, :3] = T[:3, :3].T
    result[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return result


def interpolate(T_a_b: ArrayLike, T_a_c: ArrayLike, part: float) -> NDArray[np.float64]:
    """The pose `part` (0..1) of the way from b to c, (4, 4): straight line, shortest even turn."""
    b, c = np.asarray(T_a_b, dtype=np.float64), np.asarray(T_a_c, dtype=np.float64)
    result = np.eye(4)
    result[:3, :3] = b[:3, :3] @ _turn(_rotation_vector(b[:3, :3].T @ c[:3, :3]) * part)
    result[:3, 3] = (1 - part) * b[:3, 3] + part * c[:3, 3]
    return result


def _rotation_vector(R: Array) -> Array:
    """Axis times angle [rad], (3,), of a rotation (3, 3) of less than half a turn."""
    sine_axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2
    sine = float(np.linalg.norm(sine_axis))
    angle = float(np.arctan2(sine, (np.trace(R) - 1) / 2))
    return sine_axis * (angle / sine if sine > 1e-12 else 1.0)


def _turn(vector: Array) -> Array:
    """Rotation (3, 3) about an axis by its length [rad] (Rodrigues)."""
    x, y, z = vector
    angle = float(np.linalg.norm(vector))
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # np.sinc(t) is sin(pi t) / (pi t): smooth at zero.
    a, b = np.sinc(angle / np.pi), np.sinc(angle / 2 / np.pi) ** 2 / 2
    return np.asarray(np.eye(3) + a * K + b * (K @ K))


def to_view(poses_world: ArrayLike, hand_world: ArrayLike) -> Array:
    """Planar poses in the view of a hand: (..., 3) of x, y, theta, the actions that reach them.

    poses_world: (..., 4) of x, y, z, yaw in the world; hand_world: (..., 4) likewise, the hand that
    looks. Broadcasts. The inverse of applying the action: top_down(hand) @ planar(action).
    """
    p, h = np.asarray(poses_world), np.asarray(hand_world)
    dx, dy = p[..., 0] - h[..., 0], p[..., 1] - h[..., 1]
    c, s = np.cos(h[..., 3]), np.sin(h[..., 3])
    return np.stack([dx * c + dy * s, dx * s - dy * c, wrap_theta(h[..., 3] - p[..., 3])], axis=-1)
