"""Robot poses as other programs write them, turned into T_base_hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.spatial.transform import Rotation

from calib.errors import CalibrationError
from calib.solve.se3 import inverse, transform
from rt.pose import Array

UNITS_M = {"m": 1.0, "mm": 1e-3, "cm": 1e-2, "in": 0.0254}

GRAMMAR = (
    "matrix, quat_xyzw, quat_wxyz, rotvec or euler_ABC (upper case: about the moving axes, in this order; "
    "lower case: about the fixed axes), then :deg if angles are degrees, :mm, :cm or :in if positions "
    "are, :rotation-first if the rotation stands before the position, and :inverse if the poses are "
    "T_hand_base; for instance euler_xyz:deg:mm. kuka, fanuc, abb, staubli, ur and franka name the "
    "formats of these makers"
)


MAKERS = {
    "kuka": "euler_ZYX:deg:mm",
    "fanuc": "euler_xyz:deg:mm",
    "staubli": "euler_XYZ:deg:mm",
    "abb": "quat_wxyz:mm",
    "ur": "rotvec",
    "franka": "matrix",
}
"""Pose formats of robot makers: KUKA A B C, FANUC W P R, Staubli rx ry rz, ABB robtarget, UR p[...]."""


class PoseError(CalibrationError):
    """A row that is no pose; `row` counts from 0, `what` says what is wrong with it."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(f"pose {row}: {what}")
        self.row, self.what = row, what


_PROPER = ["".join(p) for p in permutations("XYZ")] + [
    a + b + a for a in "XYZ" for b in "XYZ" if a != b
]


@dataclass(frozen=True)
class PoseFormat:
    """Layout of a pose in a row of numbers: position first, rotation after it (or a matrix)."""

    rotation: str = "matrix"
    degrees: bool = False
    unit: str = "m"
    inverted: bool = False
    rotation_first: bool = False
    """True if the numbers of the rotation stand before those of the position; not for a matrix."""

    def __post_init__(self) -> None:
        known = ("matrix", "quat_xyzw", "quat_wxyz", "rotvec")
        euler = re.fullmatch(r"euler_([xyz]{3}|[XYZ]{3})", self.rotation)
        if self.rotation not in known and (
            not euler or any(a == b for a, b in zip(euler[1], euler[1][1:], strict=False))
        ):
            raise CalibrationError(f"pose format {self.rotation!r} is not known; write {GRAMMAR}")
        if self.unit not in UNITS_M:
            raise CalibrationError(f"unit {self.unit!r} is not one of {', '.join(UNITS_M)}")

    def __str__(self) -> str:
        parts = [self.rotation]
        parts += ["deg"] if self.degrees else []
        parts += [self.unit] if self.unit != "m" else []
        parts += ["rotation-first"] if self.rotation_first else []
        return ":".join(parts + (["inverse"] if self.inverted else []))

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return {"matrix": 16, "quat_xyzw": 7, "quat_wxyz": 7}.get(self.rotation, 6)

    def read(self, rows: Array) -> Array:
        """T_base_hand (N, 4, 4) of rows (N, width); raises CalibrationError where a row is no pose."""
        rows = np.asarray(rows, dtype=np.float64)
        if rows.shape[1] != self.width:
            raise CalibrationError(
                f"a pose as {self} has {self.width} numbers, not {rows.shape[1]}; write {GRAMMAR}"
            )
        if self.rotation_first and self.rotation != "matrix":
            rows = np.concatenate([rows[:, -3:], rows[:, :-3]], axis=1)
        if self.rotation == "matrix":
            M = rows.reshape(-1, 4, 4)
            R, t = orthonormal(M[:, :3, :3]), M[:, :3, 3]
        elif self.rotation.startswith("quat"):
            t, q = rows[:, :3], rows[:, 3:]
            norm = np.linalg.norm(q, axis=1)
            if np.any(np.abs(norm - 1) > 0.02):
                k = int(np.argmax(np.abs(norm - 1)))
                raise PoseError(k, f"a quaternion of length {norm[k]:.3f}, not 1")
            q = q if self.rotation == "quat_xyzw" else q[:, [1, 2, 3, 0]]
            R = Rotation.from_quat(q).as_matrix()
        elif self.rotation == "rotvec":
            t, v = rows[:, :3], rows[:, 3:]
            v = np.radians(v) if self.degrees else v
            R = Rotation.from_rotvec(v).as_matrix()
        else:
            t = rows[:, :3]
            order = self.rotation.removeprefix("euler_")
            R = Rotation.from_euler(order, rows[:, 3:], degrees=self.degrees).as_matrix()
        T = transform(R, t * UNITS_M[self.unit])
        return inverse(T) if self.inverted else T


def parse_format(text: str) -> PoseFormat:
    """A format from its description (see GRAMMAR)."""
    first, *more = text.strip().split(":")
    rotation, *flags = [*MAKERS.get(first, first).split(":"), *more]
    known = {"deg", "rad", "inverse", "rotation-first", *UNITS_M}
    if unknown := [f for f in flags if f not in known]:
        raise CalibrationError(
            f"pose format {text!r}: {unknown[0]!r} is not known; write {GRAMMAR}"
        )
    units = [f for f in flags if f in UNITS_M]
    return PoseFormat(
        rotation,
        "deg" in flags and "rad" not in flags,
        units[-1] if units else "m",
        "inverse" in flags,
        "rotation-first" in flags,
    )


def orthonormal(R: Array) -> Array:
    """Rounded rotation matrices made exact; raises CalibrationError for what is no rotation."""
    R = np.asarray(R, dtype=np.float64)
    off = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max(axis=(-2, -1))
    if np.any(off > 0.02):
        k = int(np.argmax(off))
        raise PoseError(
            k,
            f"its 3x3 part is no rotation (R R^T differs from 1 by {off[k]:.3g}); check the order of "
            "the numbers (row by row)",
        )
    if np.any(np.linalg.det(R) < 0):
        k = int(np.argmin(np.linalg.det(R)))
        raise PoseError(
            k,
            "its 3x3 part mirrors (determinant -1); one axis is flipped: use a right-handed frame",
        )
    U, _, Vt = np.linalg.svd(R)
    return np.asarray(U @ Vt)


def possible_formats(rows: Array) -> list[PoseFormat]:
    """Every format that rows of this width and these values may be in, likeliest first."""
    rows = np.asarray(rows, dtype=np.float64)
    if rows.shape[1] == 16:
        return [
            PoseFormat("matrix", unit=u) for u in likely_units(rows.reshape(-1, 4, 4)[:, :3, 3])
        ]
    formats: list[PoseFormat] = []
    for first in (False, True):
        t, r = (rows[:, -3:], rows[:, :-3]) if first else (rows[:, :3], rows[:, 3:])
        if rows.shape[1] == 7:
            if np.all(np.abs(np.linalg.norm(r, axis=1) - 1) < 0.02):
                pairs = [(q, u) for u in likely_units(t) for q in ("quat_xyzw", "quat_wxyz")]
                formats += [PoseFormat(q, unit=u, rotation_first=first) for q, u in pairs]
            continue
        if first and formats and np.median(np.linalg.norm(t, axis=1)) > 5e3:
            continue
        formats += _three_angles(r, likely_units(t), first)
    return formats


def _three_angles(angles: Array, units: list[str], first: bool) -> list[PoseFormat]:
    """Formats of three numbers of rotation (N, 3): rotation vectors and all Euler orders."""
    largest, length = np.max(np.abs(angles)), np.max(np.linalg.norm(angles, axis=1))
    if largest > 360.5:
        return []
    names = ["rotvec", "euler_xyz", "euler_XYZ", "euler_zyx", "euler_ZYX"]
    names += [f"euler_{p}" for p in _PROPER if f"euler_{p}" not in names]
    names += [f"euler_{p.lower()}" for p in _PROPER if f"euler_{p.lower()}" not in names]
    formats = []
    for degrees in (True,) if largest > 2 * np.pi + 0.1 else (False, True):
        for name in names:
            if name == "rotvec" and length > (362 if degrees else 2 * np.pi + 0.1):
                continue
            formats += [PoseFormat(name, degrees, u, rotation_first=first) for u in units]
    return formats


def likely_units(t: Array) -> list[str]:
    """Units in which positions (N, 3) are those of an arm's hand: within some metres of its base."""
    reach = float(np.median(np.linalg.norm(t, axis=1)))
    fits = [u for u, m in UNITS_M.items() if 0.02 < reach * m < 5 and u in ("m", "mm", "cm")]
    # centimetres fit almost any number that metres or millimetres fit: only where neither is likely
    likely = [u for u in fits if u != "cm" or 5 < reach < 200]
    return likely or ["m"]
