"""A rigid transform as people write it in a cell file: a matrix, or a position and one of three rotations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Transform = NDArray[np.float64]

_RIGID_TOLERANCE = 1e-3
"""Greatest error of a matrix typed with four decimals; the matrix is made exactly rigid."""


class CellError(ValueError):
    """A cell file that is missing, incomplete, or wrong; the message names key, value and remedy."""


def transform(value: Any, key: str) -> Transform:
    """A rigid transform (4, 4), of a 4x4 matrix by rows or a table {xyz_m, and one of rpy_deg,
    quaternion_xyzw, rotation_vector_rad}.

    rpy_deg turns about the fixed axes x, then y, then z (Rz Ry Rx); rotation_vector_rad is what a UR's
    pendant shows. Raises CellError.
    """
    if isinstance(value, dict):
        return _from_parts(value, key)
    if not isinstance(value, list) or len(value) != 4:
        raise CellError(
            f"{key} = {value!r} must be a 4x4 matrix by rows, or {{xyz_m = [...], rpy_deg = [...]}}"
        )
    return _rigid(np.array([numbers(row, 4, f"{key}[{k}]") for k, row in enumerate(value)]), key)


def _rigid(M: Transform, key: str) -> Transform:
    R = M[:3, :3]
    off = float(np.abs(R.T @ R - np.eye(3)).max()) if np.isfinite(M).all() else math.inf
    if not off < _RIGID_TOLERANCE:
        raise CellError(
            f"{key} = {M.tolist()} is not rigid: its rotation's columns are off by {off:.2g} from "
            f"orthonormal, the limit is {_RIGID_TOLERANCE:g}; give it with more digits, in metres"
        )
    if np.linalg.det(R) < 0:
        raise CellError(f"{key} = {M.tolist()} is mirrored: swap no axes, or one more")
    if not np.array_equal(M[3], [0, 0, 0, 1]):
        raise CellError(f"{key}: its last row {M[3].tolist()} must be 0 0 0 1 (give rows)")
    if np.abs(M[:3, 3]).max() > 10:
        raise CellError(f"{key}: {M[:3, 3].tolist()} reaches beyond 10 m; give metres")
    U, _, Vt = np.linalg.svd(R)
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = U @ Vt, M[:3, 3]
    return result


def _from_parts(value: dict[str, Any], key: str) -> Transform:
    turns = {"rpy_deg": 3, "quaternion_xyzw": 4, "rotation_vector_rad": 3}
    for part in value:
        if part not in ("xyz_m", *turns):
            raise CellError(f"{key}.{part} is not known; known are xyz_m, {', '.join(turns)}")
    given = [name for name in turns if name in value]
    if "xyz_m" not in value or len(given) != 1:
        raise CellError(f"{key} must have xyz_m and one of {', '.join(turns)}, not {sorted(value)}")
    name = given[0]
    turn = numbers(value[name], turns[name], f"{key}.{name}")
    M = np.eye(4)
    M[:3, 3] = numbers(value["xyz_m"], 3, f"{key}.xyz_m")
    if name == "quaternion_xyzw":
        length = float(np.linalg.norm(turn))
        if abs(length - 1) > _RIGID_TOLERANCE:
            raise CellError(
                f"{key}.{name} = {value[name]} has length {length:.4g}, must be 1; order x, y, z, w"
            )
        x, y, z, w = turn / length
        M[:3, :3] = np.eye(3) + 2 * np.array(
            [
                [-y * y - z * z, x * y - z * w, x * z + y * w],
                [x * y + z * w, -x * x - z * z, y * z - x * w],
                [x * z - y * w, y * z + x * w, -x * x - y * y],
            ]
        )
    elif name == "rpy_deg":
        small = " (or quaternion_xyzw, if such small angles are meant)"
        check_degrees(turn, f"{key}.{name}", small)
        for axis, angle in enumerate(np.radians(turn)):
            M[:3, :3] = _about(np.eye(3)[axis], float(angle)) @ M[:3, :3]
    else:
        angle = float(np.linalg.norm(turn))
        if angle > 2 * math.pi + 1e-6:
            raise CellError(
                f"{key}.{name} = {value[name]} is {angle:g} rad long, at most {2 * math.pi:.4g} are one "
                "turn; is it meant in degrees? Multiply by pi / 180"
            )
        M[:3, :3] = _about(turn / angle if angle > 0 else np.eye(3)[2], angle)
    return _rigid(M, key)


def check_degrees(turn: NDArray[np.float64], key: str, else_: str = "") -> None:
    """Refuse angles that are quarter turns in radians, and more than two turns. Raises CellError."""
    quarters = turn / (math.pi / 2)
    near = (np.abs(quarters - np.round(quarters)) < 2e-3) & (np.round(quarters) != 0)
    rest = np.abs(turn[~near]) < 1e-3
    if near.any() and rest.all():
        raise CellError(
            f"{key} = {turn.tolist()} are quarter turns in radians; give degrees: "
            f"{np.degrees(turn).round(1).tolist()}{else_}"
        )
    if np.abs(turn).max() > 720:
        raise CellError(f"{key} = {turn.tolist()} deg must be within two turns (720 deg)")


def _about(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rotation (3, 3) about a unit axis (Rodrigues)."""
    x, y, z = axis
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + math.sin(angle) * K + (1 - math.cos(angle)) * (K @ K))


def numbers(value: Any, count: int, key: str) -> NDArray[np.float64]:
    good = isinstance(value, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value
    )
    if not good or len(value) != count:
        raise CellError(f"{key} = {value!r} must be a list of {count} finite numbers")
    return np.array(value, dtype=np.float64)
