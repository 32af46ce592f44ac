"""The hand-eye section of a robot cell's TOML file; all else in the file stays as it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit
from tomlkit.exceptions import TOMLKitError

from calib.data.poses import PoseFormat
from calib.errors import CalibrationError
from rt.pose import Array
from rt.tools.files import read_bounded, write_text

SECTION = "handeye"


def write_handeye(path: Path, summary: dict[str, Any]) -> None:
    """Put the result into `[handeye]` of a cell file, which need not exist yet.

    Written beside and renamed; comments and other sections are kept. Raises CalibrationError if the
    file is not TOML.
    """
    document = _load(path) if path.exists() else tomlkit.document()
    table = tomlkit.table()
    name = summary["transform"]
    table.add(
        tomlkit.comment(f"{name} maps points of the camera's optical frame to the {name[2:6]}")
    )
    table["transform"] = name
    if summary.get("poses_of", "hand") != "hand":
        table.add(
            tomlkit.comment("the robot's poses were those of this frame, which stands for the hand")
        )
        table["poses_of"] = summary["poses_of"]
    table["translation_m"] = _row(summary["translation_m"])
    table["quaternion_xyzw"] = _row(summary["quaternion_xyzw"])
    table.add(tomlkit.comment(f"rotation [rad], translation [m], along the {name[2:6]}'s axes"))
    rows = tomlkit.array().multiline(True)
    for row in summary["covariance"]:
        rows.append(_row(row))
    table["covariance"] = rows
    table["interval95_rotation_deg"] = _row(summary["interval95_rotation_deg"], 6)
    table["interval95_translation_mm"] = _row(summary["interval95_translation_mm"], 6)
    table["verdict"] = summary["verdict"]
    table["reason"] = summary["reason"]
    table["date"] = datetime.now(UTC).replace(microsecond=0)
    table["data"] = summary["data"]
    table["data_sha256"] = summary["data_sha256"]
    fixed = np.array(summary["T_fixed_target"])
    table["target"] = summary["target"]
    table["target_matrix"] = _matrix(fixed)
    table.add(tomlkit.comment("hand poses that it comes from: x y z [m], qx qy qz qw"))
    table["hand_poses"] = _matrix(np.array(summary["hand_poses"]))
    camera = tomlkit.inline_table()
    for key in ("width", "height", "fx", "fy", "cx", "cy"):
        camera[key] = summary["camera"][key]
    camera["dist"] = _row(summary["camera"]["dist"])
    table["camera"] = camera
    if summary.get("depth_scale") is not None:
        table.add(tomlkit.comment("depth camera: true over measured"))
        table["depth_scale"] = round(float(summary["depth_scale"]), 5)
    if summary["time_offset_ms"] is not None:
        table["time_offset_ms"] = round(float(summary["time_offset_ms"]), 4)
    document[SECTION] = table
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, tomlkit.dumps(document))


def read_handeye(path: Path) -> dict[str, Any]:
    """The hand-eye section: `T_mount_camera` (4, 4), `covariance` (6, 6), and the rest as written."""
    if not path.is_file():
        raise CalibrationError(f"{path} does not exist; `solve` writes it")
    section = _load(path).unwrap().get(SECTION)
    if section is None:
        raise CalibrationError(f"{path} has no [{SECTION}] section; `solve` writes it")
    try:
        row = [*section["translation_m"], *section["quaternion_xyzw"]]
        section["T_mount_camera"] = PoseFormat("quat_xyzw").read(np.array([row]))[0]
        section["covariance"] = np.array(section["covariance"], dtype=np.float64).reshape(6, 6)
        section["T_fixed_target"] = np.array(section["target_matrix"], dtype=np.float64)
        rows = np.array(section.get("hand_poses", []), dtype=np.float64).reshape(-1, 7)
        section["hand_poses"] = (
            PoseFormat("quat_xyzw").read(rows) if len(rows) else np.zeros((0, 4, 4))
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CalibrationError(f"{path}: [{SECTION}] is damaged: {error!r}; solve again") from error
    return dict(section)


def _load(path: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(read_bounded(path))
    except (TOMLKitError, ValueError) as error:
        raise CalibrationError(
            f"{path} is not a TOML file ({error}); nothing was written"
        ) from error


def _row(values: Array | list[float], digits: int = 10) -> tomlkit.items.Array:
    row = tomlkit.array()
    for v in values:
        row.append(float(f"{float(v):.{digits}g}"))
    return row


def _matrix(T: Array) -> tomlkit.items.Array:
    rows = tomlkit.array().multiline(True)
    for row in T:
        rows.append(_row(row))
    return rows
