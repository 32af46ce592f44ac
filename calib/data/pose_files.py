"""Robot poses in JSON, YAML, CSV and plain text, as many programs write them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from calib.data.intrinsic_files import load_yaml
from calib.data.poses import PoseFormat
from calib.data.robot_text import (
    PoseRows,
    Row,
    array_rows,
    from_numbers,
    npz_rows,
    program_rows,
    visp_pose,
)
from calib.errors import CalibrationError
from calib.solve.se3 import transform
from rt.pose import Array
from rt.tools.files import read_bounded

MOST_BYTES = 50_000_000
"""Longest file of poses: some hundred thousand."""


def load_any(path: Path) -> Any:
    """The contents of a JSON, YAML or table file."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return PoseRows(array_rows(np.load(path).astype(np.float64)) or [])
        if suffix == ".npz":
            with np.load(path) as arrays:
                return PoseRows(npz_rows(dict(arrays)) or [])
        text = read_bounded(path, MOST_BYTES, "replace")
        if suffix == ".json":
            return json.loads(text)
        if suffix in (".yaml", ".yml", ".samples"):
            return load_yaml(text)
    except (ValueError, OSError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from error
    if suffix == ".xml":
        one = visp_pose(text)
        return PoseRows([one] if one else [])
    return program_rows(text) or _table(_decimal_points(text))


def _decimal_points(text: str) -> str:
    """Decimal commas made points, where a line is full numbers only with them."""
    for line in text.splitlines():
        cells = re.split(r"[;\t ]+", line.strip())
        numbers = [c for c in cells if re.fullmatch(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?", c)]
        if len(numbers) >= 3 and not any("." in c for c in cells[1:]):
            return re.sub(r"(?<=\d),(?=\d)", ".", text)
    return text


def _table(text: str) -> list[list[str]]:
    lines = [s for s in text.splitlines() if s.strip() and not s.lstrip().startswith(("#", "%"))]
    if not lines:
        return []
    sample = "\n".join(lines[:5])
    delimiter = next((d for d in (";", ",", "\t") if d in sample), None)
    if delimiter is None:
        return [s.split() for s in lines]
    rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
    return [[c.strip() for c in row] for row in rows]


def pose_rows(file: Path, data: Any, single: bool = False) -> list[Row]:
    """Poses of a loaded file; raises CalibrationError, naming the file, if there are none."""
    if isinstance(data, PoseRows):
        if not data:
            raise CalibrationError(f"{file.name}: no poses in it that can be read")
        return list(data[-1:]) if single else list(data)
    if isinstance(data, list) and data and isinstance(data[0], list) and _is_text_table(data):
        return _table_rows(file, data, single)
    if isinstance(data, dict):
        for key in ("poses", "samples", "data", "frames", "robot_poses", "transforms"):
            if isinstance(data.get(key), list | dict) and (key != "data" or "rows" not in data):
                return pose_rows(file, data[key])
        if (one := one_pose(data)) is not None:
            return [(None, *one)]
        rows: list[Row] = [(str(k), *p) for k, v in data.items() if (p := one_pose(v)) is not None]
    elif (one := one_pose(data)) is not None and single:
        return [(None, *one)]
    else:
        items = data if isinstance(data, list) else []
        if items and all(isinstance(v, dict) and isinstance(v.get("pose"), str) for v in items):
            return _listed_files(file, items)
        rows = [(_name_of(v), *p) for v in items if (p := one_pose(v)) is not None]
    if not rows:
        raise CalibrationError(f"{file.name}: no poses in it that can be read")
    return rows


def _listed_files(file: Path, items: list[dict[str, Any]]) -> list[Row]:
    """A list of images with the pose file of each, relative to the list (cal_data.yaml)."""
    rows: list[Row] = []
    for item in items:
        path = file.parent / item["pose"]
        if not path.is_file():
            raise CalibrationError(f"{file.name} names the pose file {path}, which is not there")
        found = pose_rows(path, load_any(path), single=True)
        rows += [(_name_of(item), *row[1:]) for row in found[:1]]
    return rows


def _is_text_table(data: list[Any]) -> bool:
    return all(isinstance(c, str) for c in data[0])


def _name_of(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    for key in (
        "name",
        "image",
        "image_path",
        "file",
        "filename",
        "file_path",
        "img",
        "id",
        "index",
    ):
        if isinstance(item.get(key), str | int):
            return str(item[key])
    return None


def one_pose(item: Any) -> tuple[list[float], PoseFormat | None] | None:
    """One pose of JSON or YAML: a matrix, or a position with a rotation; None if it is none."""
    if isinstance(item, dict):
        if {"rows", "data"} <= item.keys():  # OpenCV and ViSP matrices
            numbers = _flat(item["data"])
            if numbers is not None and len(numbers) == 6:
                return numbers, PoseFormat("rotvec")
            return _from_numbers(numbers)
        return _from_dict(item)
    return _from_numbers(_flat(item))


def _from_dict(item: dict[str, Any]) -> tuple[list[float], PoseFormat | None] | None:
    low = {re.sub(r"[^a-z]", "", str(k).lower()): v for k, v in item.items()}
    position = next(
        (
            low[k]
            for k in ("position", "translation", "t", "xyz", "trans", "tvec", "pos")
            if k in low
        ),
        {k: low[k] for k in "xyz"} if set("xyz") <= low.keys() else None,
    )
    t = _named(position, "xyz")
    for key, form in (
        ("rotvec", "rotvec"), ("rotationvector", "rotvec"), ("rvec", "rotvec"), ("axisangle", "rotvec"),
        ("quaternion", "quat"), ("orientation", "quat"), ("quat", "quat"), ("q", "quat"),
        ("rotation", "quat"), ("r", ""), ("rot", ""), ("rpy", "euler_xyz"), ("euler", "euler"),
    ):  # fmt: skip
        if t is None or key not in low:
            continue
        value = low[key]
        if isinstance(value, dict) and set("xyzw") <= value.keys():
            return [*t, *(float(value[k]) for k in "xyzw")], PoseFormat("quat_xyzw")
        numbers = _flat(value)
        if numbers is None:
            continue
        if len(numbers) == 9:
            return _matrix(np.array(numbers).reshape(3, 3), np.array(t))
        if len(numbers) == 4:
            return [*t, *numbers], None  # the order is not stated
        if len(numbers) == 3:
            known = form in ("rotvec", "euler_xyz")
            degrees = bool(np.max(np.abs(numbers)) > 2 * np.pi + 0.1)
            return [*t, *numbers], PoseFormat(form, degrees) if known and not degrees else None
    if t is not None and {"qx", "qy", "qz", "qw"} <= low.keys():
        return [*t, *(float(low[k]) for k in ("qx", "qy", "qz", "qw"))], PoseFormat("quat_xyzw")
    if t is not None and {"roll", "pitch", "yaw"} <= low.keys():
        return [*t, *(float(low[k]) for k in ("roll", "pitch", "yaw"))], None
    if t is not None and {"rx", "ry", "rz"} <= low.keys():
        return [*t, *(float(low[k]) for k in ("rx", "ry", "rz"))], None
    for key in (
        "tbasehand", "basehand", "matrix", "transform", "transformmatrix", "pose", "tcp", "tcppose",
        "robotpose", "t", "effectorwrtworld", "gripperbase", "gripper2base", "robot", "hand",
    ):  # fmt: skip
        if key in low and (one := one_pose(low[key])) is not None:
            return one
    return None


def _named(value: Any, keys: str) -> list[float] | None:
    if isinstance(value, dict):
        return [float(value[k]) for k in keys] if set(keys) <= value.keys() else None
    numbers = _flat(value)
    return numbers if numbers is not None and len(numbers) == len(keys) else None


def _flat(value: Any) -> list[float] | None:
    """Nested lists of numbers as one; None if anything else is in it."""
    if isinstance(value, dict) and "data" in value:
        return _flat(value["data"])
    try:
        return [float(x) for x in np.asarray(value, dtype=np.float64).ravel()]
    except (ValueError, TypeError):
        return None


def _matrix(R: Array, t: Array) -> tuple[list[float], PoseFormat]:
    return [float(x) for x in transform(R, t).ravel()], PoseFormat("matrix")


def _from_numbers(numbers: list[float] | None) -> tuple[list[float], PoseFormat | None] | None:
    return None if numbers is None else from_numbers(numbers)


_COLUMNS = {
    **{k: k for k in ("qx", "qy", "qz", "qw", "rx", "ry", "rz", "roll", "pitch", "yaw")},
    **{f"{p}{a}": a for a in "xyz" for p in ("", "t", "p", "pos", "position", "translation", "trans")},
    **{f"{p}{a}": f"q{a}" for a in "xyzw" for p in ("quat", "quaternion", "orientation")},
    **{f"{p}{a}": f"r{a}" for a in "xyz" for p in ("rotvec", "rvec", "rotationvector", "theta", "tu")},
    **dict.fromkeys(("name", "image", "file", "filename", "imagename", "img", "frame", "id"), "name"),
    **dict.fromkeys(("index", "no", "imagepath"), "name"),
    "w": "qw",
}  # fmt: skip


def _table_rows(file: Path, table: list[list[str]], single: bool) -> list[Row]:
    """Rows of a CSV or text file, with or without a header line."""
    numeric = [_is_number(c) for c in table[0]]
    # a header has words where the line below it has numbers
    if (
        len(table) > 1
        and len(numeric) > 2
        and not any(numeric[1:])
        and any(map(_is_number, table[1][1:]))
    ):
        return _headed_rows(file, table[0], table[1:])
    flat = [[c for c in row if c] for row in table]
    flat = [row for row in flat if row]
    if len(flat) > 1 and len(flat[0]) == 1 and flat[0][0].isdigit() and len(flat[1]) > 1:
        flat = flat[1:]  # the number of poses
    blocks = _matrix_blocks(flat)
    if blocks is not None:
        return blocks
    if single:
        numbers = [float(c) for row in flat for c in row if _is_number(c)]
        one = _from_numbers(numbers)
        return [] if one is None else [(None, *one)]
    rows: list[Row] = []
    for k, row in enumerate(flat):
        stamped = len(row) == 8 and all(map(_is_number, row))
        bare = len(row) in (6, 7, 12, 16) and all(map(_is_number, row))
        name = f"{STAMP}{row[0]}" if stamped else None if bare else row[0]
        try:
            one = _from_numbers([float(c) for c in (row if name is None else row[1:])])
        except ValueError:
            one = None
        if one is None:
            raise CalibrationError(
                f"{file.name}, line {k + 1}: {len(row)} fields are no pose "
                "(6, 7, 12 or 16 numbers, with a name before them or without)"
            )
        if stamped:
            one = one[0], PoseFormat("quat_xyzw")
        rows.append((name, *one))
    return rows


STAMP = "time "
"""Begins the name of a row that has a time instead: TUM's lines `t x y z qx qy qz qw`."""


def _matrix_blocks(rows: list[list[str]]) -> list[Row] | None:
    """4x4 or 3x4 matrices one below the other, with a line of one word before each or without."""
    names = [row[0] for row in rows if len(row) == 1]
    lines = [row for row in rows if len(row) != 1]
    if not lines or not all(len(r) == 4 and all(map(_is_number, r)) for r in lines):
        return None
    numbers = np.array(lines, dtype=np.float64)
    height = 4 if len(lines) % 4 == 0 and np.allclose(numbers[3::4, :3], 0) else 3
    if len(lines) % height:
        height = 4
    if len(lines) % height:
        return None
    found = array_rows(numbers.reshape(-1, height, 4)) or []
    if len(names) == len(found) and not all(map(_is_number, names)):
        return [(name, *row[1:]) for name, row in zip(names, found, strict=True)]
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _headed_rows(file: Path, header: list[str], lines: list[list[str]]) -> list[Row]:
    unit_at_end = re.compile(r"[_\[(\s]+(mm|cm|deg|rad|m)[\])]*$")
    low = [h.strip().lower() for h in header]
    names = [re.sub(r"[^a-z0-9]", "", unit_at_end.sub("", h)) for h in low]
    units = [m[1] if (m := unit_at_end.search(h)) else "" for h in low]
    column = {_COLUMNS[n]: k for k, n in reversed(list(enumerate(names))) if n in _COLUMNS}
    matrix = [k for k, n in enumerate(names) if re.fullmatch(r"[a-z]*\d\d", n)]
    rotation = next(
        (
            group
            for group in (("qx", "qy", "qz", "qw"), ("rx", "ry", "rz"), ("roll", "pitch", "yaw"))
            if all(c in column for c in group)
        ),
        None,
    )
    name_at = column.get("name")
    if len(matrix) in (12, 16):
        take, format_ = matrix, None
    elif rotation and all(a in column for a in "xyz"):
        take = [column[c] for c in ("x", "y", "z", *rotation)]
        unit = units[column["x"]] or None
        if rotation[0] == "qx":
            format_ = PoseFormat("quat_xyzw", unit=unit) if unit else None
            format_ = format_ or PoseFormat("quat_xyzw")
        else:
            # three angles are ambiguous unless the header says vector; their unit may be stated
            vector = any(
                w in names[column[rotation[0]]] for w in ("rotvec", "rvec", "rotationvector")
            )
            angle = units[column[rotation[0]]]
            format_ = PoseFormat("rotvec", angle == "deg", unit or "m") if vector else None
    else:
        raise CalibrationError(
            f"{file.name}: columns {', '.join(header)} hold no pose; name them x, y, z and "
            "qx, qy, qz, qw, or rx, ry, rz, or roll, pitch, yaw, or m00 ... m33"
        )
    rows: list[Row] = []
    for k, line in enumerate(lines):
        try:
            numbers = [float(line[c]) for c in take]
        except (ValueError, IndexError):
            raise CalibrationError(
                f"{file.name}, line {k + 2}: not all of {header} are numbers"
            ) from None
        name = line[name_at] if name_at is not None else None
        one = _from_numbers(numbers) if len(take) in (12, 16) else (numbers, format_)
        assert one is not None
        rows.append((name, *one))
    return rows
