"""Robot poses in the notations of robot programs: UR, KUKA, FANUC, ABB, tf2_echo, Python and NumPy."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np

from calib.data.poses import PoseFormat
from rt.pose import Array

Row = tuple[str | None, list[float], PoseFormat | None]
"""(image name if given, numbers, format if the file tells it)"""

_N = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"


class PoseRows(list[Row]):
    """Poses that a file's notation gave at once."""


def program_rows(text: str) -> PoseRows | None:
    """Poses in the text of a robot program or tool; None if it is in none of the notations."""
    for reader in (_tf_echo, _ur, _kuka, _fanuc, _abb, _brackets):
        rows = reader(text)
        if rows:
            return PoseRows(rows)
    return None


def _found(pattern: str, text: str, form: PoseFormat | None) -> list[Row]:
    return [
        (None, [float(x) for x in groups], form)
        for groups in re.findall(pattern, text, re.S | re.IGNORECASE)
    ]


def _tf_echo(text: str) -> list[Row]:
    """`rosrun tf tf_echo` and `ros2 run tf2_ros tf2_echo`; equal poses in a row count once."""
    three, four = r"\[\s*" + r"\s*,\s*".join([_N] * 3), r"\[\s*" + r"\s*,\s*".join([_N] * 4)
    pattern = rf"Translation:\s*{three}\s*\].*?Quaternion\s*(?:\(xyzw\))?\s*{four}\s*\]"
    rows = _found(pattern, text, PoseFormat("quat_xyzw"))
    return [r for k, r in enumerate(rows) if k == 0 or r[1] != rows[k - 1][1]]


def _ur(text: str) -> list[Row]:
    """`p[x, y, z, rx, ry, rz]`, metres and a rotation vector, as UR's programs write it."""
    return _found(r"\bp\s*\[\s*" + r"\s*,\s*".join([_N] * 6) + r"\s*\]", text, PoseFormat("rotvec"))


def _named(names: str, unit: str = "") -> str:
    """A pattern of `X 1.5, Y = 2 mm, ...` in this order."""
    gap = rf"\s*{unit}\s*[,;]?\s*"
    return r"\b" + gap.join(rf"{n}\s*[:=]?\s*{_N}" for n in names)


def _kuka(text: str) -> list[Row]:
    return _found(_named("XYZABC"), text, PoseFormat("euler_ZYX", True, "mm"))


def _fanuc(text: str) -> list[Row]:
    return _found(_named("XYZWPR", "(?:mm|deg)?"), text, PoseFormat("euler_xyz", True, "mm"))


def _abb(text: str) -> list[Row]:
    """`[[x,y,z],[q1,q2,q3,q4],[...],[9E+09,...]]`, the robtarget of RAPID: mm and w first."""
    three, four = r"\[\s*" + r"\s*,\s*".join([_N] * 3), r"\[\s*" + r"\s*,\s*".join([_N] * 4)
    sure = re.search(r"robtarget|9[Ee]\+?0?9", text) is not None
    form = PoseFormat("quat_wxyz", unit="mm") if sure else None
    return _found(rf"\[\s*{three}\s*\]\s*,\s*{four}\s*\]", text, form)


def _brackets(text: str) -> list[Row]:
    """Lists of Python and arrays as NumPy prints them, one or several in a text."""
    if "[" not in text:
        return []
    rows: list[Row] = []
    for span in _spans(re.sub(r"dtype\s*=\s*[\w.']+", "", text)):
        listed = re.sub(r"[()]|\b(?:np\.|numpy\.)?array\b", " ", span)
        # NumPy prints no commas
        listed = re.sub(r"(?<=[\d.\]])\s+(?=[-+\d.\[])", ", ", listed)
        try:
            rows += array_rows(np.array(ast.literal_eval(listed.strip()), dtype=np.float64)) or []
        except (ValueError, SyntaxError, TypeError):
            return []
    return rows


def _spans(text: str) -> list[str]:
    """The outermost [...] of a text."""
    spans, depth, start = [], 0, 0
    for k, c in enumerate(text):
        if c == "[":
            start = k if depth == 0 else start
            depth += 1
        elif c == "]" and depth:
            depth -= 1
            if depth == 0:
                spans.append(text[start : k + 1])
    return spans


def array_rows(poses: Array) -> list[Row] | None:
    """Rows of an array of poses: (N, 4, 4), (N, 3, 4), (N, 6 | 7 | 12 | 16), or a single pose."""
    if poses.ndim == 3 and poses.shape[1:] in ((4, 4), (3, 4)):
        flat = poses.reshape(len(poses), -1)
    elif poses.ndim == 2 and poses.shape[1] == 4 and len(poses) % 4 == 0:
        flat = poses.reshape(-1, 16)
    elif poses.ndim == 2 and poses.shape == (3, 4):
        flat = poses.reshape(1, 12)
    elif poses.ndim in (1, 2) and poses.shape[-1] in (6, 7, 12, 16):
        flat = poses.reshape(-1, poses.shape[-1])
    else:
        return None
    rows = [from_numbers(list(map(float, row))) for row in flat]
    return [(None, *row) for row in rows if row is not None]


def npz_rows(arrays: dict[str, Any]) -> list[Row] | None:
    """Rows of a .npz: an array of poses, or rotations (N, 3, 3) and positions (N, 3)."""
    names = sorted(
        arrays, key=lambda k: not re.search(r"grip|hand|base|tcp|flange|robot", k.lower())
    )
    for name in names:
        a = np.asarray(arrays[name])
        if a.dtype.kind in "fiu" and (rows := array_rows(a.astype(np.float64))):
            return rows
    turns = [n for n in names if np.shape(arrays[n])[1:] == (3, 3)]
    places = [n for n in names if np.shape(arrays[n])[1:] in ((3,), (3, 1))]
    if not turns or not places or len(arrays[turns[0]]) != len(arrays[places[0]]):
        return None
    R, t = np.asarray(arrays[turns[0]]), np.asarray(arrays[places[0]]).reshape(-1, 3, 1)
    return array_rows(np.concatenate([R, t], axis=2).astype(np.float64))


def from_numbers(numbers: list[float]) -> tuple[list[float], PoseFormat | None] | None:
    """(row, format if certain) of one pose: 6, 7, 12 or 16 numbers; a matrix row by row or not."""
    if len(numbers) in (12, 16):
        return [float(x) for x in _as_matrix(np.array(numbers)).ravel()], PoseFormat("matrix")
    return (numbers, None) if len(numbers) in (6, 7) else None


def _as_matrix(v: Array) -> Array:
    """(4, 4) of 12 or 16 numbers: by rows, by columns (Franka's O_T_EE), or rotation and position apart."""
    last = np.array([0.0, 0, 0, 1])
    M: Array = np.eye(4)
    if len(v) == 16:
        M = np.array(v.reshape(4, 4), dtype=np.float64)
        by_columns = not np.allclose(M[3], last) and np.allclose(M[:, 3], last)
        return M.T if by_columns else M
    rows = v.reshape(3, 4)
    # a rotation by columns looks the same: if that is meant, the images say "transposed"
    apart = np.c_[v[:9].reshape(3, 3), v[9:]]
    first = np.c_[v[3:].reshape(3, 3), v[:3]]
    for top in (rows, apart, first):
        R = top[:, :3]
        if np.allclose(R @ R.T, np.eye(3), atol=0.02) and np.linalg.det(R) > 0:
            M[:3] = top
            return M
    M[:3] = rows
    return M


def visp_pose(text: str) -> Row | None:
    """ViSP's XML of a homogeneous matrix: position [m] and rotation vector [rad]."""
    tags = ("tx", "ty", "tz", "theta_ux", "theta_uy", "theta_uz")
    found = [re.search(rf"<{t}>\s*{_N}\s*</{t}>", text) for t in tags]
    if any(m is None for m in found):
        return None
    return None, [float(m[1]) for m in found if m is not None], PoseFormat("rotvec")
