"""Plausible ranges of a cell's values: one value out of its range is refused, with the likely unit.

A range says what a cell of this kind can mean, not what is wise: its ends are several times away from
anything usual, and are there to catch millimetres for metres, radians for degrees and the like.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.cell.transform import CellError
from rt.guard.limits import Limits
from rt.hand import Hand
from rt.pose import inverse
from rt.view import END_HEIGHT_M, START_HEIGHT_M

Transform = NDArray[np.float64]
Range = tuple[float, float, str]
"""Least, greatest, unit."""

_SLOW_TURN_DEG_S = 4.0
"""Slower turns are half turns in radians."""
RANGES: dict[str, Range] = {
    "robot.max_speed_m_s": (0.005, 1.0, "m/s"),
    "robot.max_acceleration_m_s2": (0.05, 10.0, "m/s^2"),
    "robot.max_turn_deg_s": (_SLOW_TURN_DEG_S, 360.0, "deg/s"),
    "robot.max_silence_s": (0.01, 1.0, "s"),
    "robot.watchdog_hz": (1.0, 100.0, "Hz"),
    "camera.width": (64, 4096, "px"),
    "camera.height": (64, 4096, "px"),
    "camera.rate_hz": (1.0, 300.0, "Hz"),
    "gripper.port": (1, 65535, ""),
    "gripper.force_N": (1.0, 1000.0, "N"),
    "gripper.speed_m_s": (0.001, 1.0, "m/s"),
    "gripper.timeout_s": (0.01, 10.0, "s"),
    "workspace.table_height_m": (-2.0, 2.0, "m"),
    "grasp.speed_m_s": (0.002, 0.25, "m/s"),
    "grasp.contact_N": (1.0, 200.0, "N"),
    "grasp.contact_tolerance_m": (0.0005, 0.05, "m"),
    "grasp.finger_clearance_m": (0.0, 0.05, "m"),
    "grasp.table_gap_m": (0.0005, 0.05, "m"),
    "grasp.min_seen": (0.01, 1.0, "of the ground"),
    "grasp.min_probability": (0.0, 0.99, "of a grasp"),
    "grasp.min_width_m": (0.0, 0.1, "m"),
    "grasp.close_timeout_s": (0.2, 30.0, "s"),
    "grasp.lift_m": (0.005, 0.6, "m"),
    "grasp.lift_speed_m_s": (0.002, 0.5, "m/s"),
    "grasp.hold_s": (0.0, 30.0, "s"),
    "place.pose[:3]": (-3.0, 3.0, "m"),
    "place.home": (-3.0, 3.0, "m"),
    "place.look_m": (0.01, 2.0, "m"),
    "place.area_m": (0.0, 2.0, "m"),
    "place.rows": (1, 50, ""),
    "place.columns": (1, 50, ""),
    "place.carry_m": (0.02, 1.5, "m"),
    "place.speed_m_s": (0.005, 1.0, "m/s"),
    "place.acceleration_m_s2": (0.05, 10.0, "m/s^2"),
    "place.turn_deg_s": (_SLOW_TURN_DEG_S, 360.0, "deg/s"),
    "place.contact_N": (1.0, 250.0, "N"),
    "limits.max_frame_age_s": (0.01, 2.0, "s"),
    "limits.max_exposure_gap_s": (0.001, 1.0, "s"),
    "limits.max_same_views": (0, 100, "frames"),
    "limits.max_state_age_s": (0.01, 1.0, "s"),
    "limits.max_target_age_s": (0.01, 2.0, "s"),
    "limits.min_view_filled": (0.0, 1.0, "of the view"),
    "limits.max_camera_tilt_deg": (0.05, 45.0, "deg"),
    "limits.max_camera_height_m": (0.0002, 0.1, "m"),
    "limits.max_camera_shift_m": (0.0001, 0.1, "m"),
    "limits.min_spread_m": (0.0, 0.1, "m"),
    "limits.max_distance_m": (0.1, 10.0, "m"),
    "limits.max_speed_m_s": (0.005, 1.5, "m/s"),
    "limits.max_acceleration_m_s2": (0.05, 100.0, "m/s^2"),
    "limits.max_turn_deg_s": (_SLOW_TURN_DEG_S, 720.0, "deg/s"),
    "limits.max_step_m": (0.001, 0.5, "m"),
    "limits.max_step_deg": (0.5, 360.0, "deg"),
    "limits.workspace_min_m": (-3.0, 3.0, "m"),
    "limits.workspace_max_m": (-3.0, 3.0, "m"),
    "limits.min_height_m": (0.0, 1.0, "m"),
    "limits.min_grasp_height_m": (0.0, 0.1, "m"),
    "limits.path_clearance_m": (0.0, 0.1, "m"),
    "limits.max_height_m": (0.05, 2.0, "m"),
    "limits.margin_m": (0.0, 0.2, "m"),
    "limits.max_tilt_deg": (0.5, 45.0, "deg"),
    "limits.max_following_error_m": (0.002, 0.5, "m"),
    "limits.max_force_N": (2.0, 500.0, "N"),
    "limits.max_torque_Nm": (0.2, 100.0, "N m"),
    "limits.joint_min_deg": (-363.0, 363.0, "deg"),
    "limits.joint_max_deg": (-363.0, 363.0, "deg"),
    "limits.joint_margin_deg": (0.0, 60.0, "deg"),
    "limits.max_joint_speed": (0.05, 1.0, "of its most"),
    "limits.min_singular_deg": (0.0, 45.0, "deg"),
    "limits.max_missed_in_a_row": (0, 1_000_000, ""),
    "limits.max_held_s": (0.1, 30.0, "s"),
    "limits.max_clamped_s": (0.1, 30.0, "s"),
    "limits.max_paused_s": (1.0, 3600.0, "s"),
}
"""By `section.key`; a list's range holds for each of its numbers."""
TRANSFORMS: dict[str, Range] = {
    "robot.T_flange_hand": (0.01, 0.6, "m"),
    "camera.T_hand_camera": (0.02, 0.6, "m"),
    "workspace.T_robot_table": (0.0, 3.0, "m"),
}
"""Range of a transform's length."""
LEAST_SIDE_M = 0.02
"""Of the workspace."""
_AWAY_DEG = 60.0
"""Farthest that the middle of the view at the end height may lie off the camera's axis."""
_HANGS_M = 0.4
"""Least height above the table of an arm's base that hangs upside down."""


def check_value(key: str, value: Any) -> None:
    """Refuse a number, or a list of them, out of the range of its key. Raises CellError."""
    if key not in RANGES:
        return
    low, high, unit = RANGES[key]
    for number in value if isinstance(value, Iterable) else (value,):
        if not low <= number <= high:
            told = f" {unit}" if unit else ""
            raise CellError(
                f"{key} = {value if isinstance(value, tuple) else f'{number:g}'}{told} must be from {low:g} "
                f"to {high:g}{told}{_likely(float(number), low, high, unit)}"
            )


def check_ranges(section: str, values: dict[str, Any]) -> None:
    """check_value of each value of a section. Raises CellError."""
    for key, value in values.items():
        check_value(f"{section}.{key}", value)


def check_length(key: str, T: Transform) -> None:
    """Refuse a transform (4, 4) whose translation is too short or too long. Raises CellError."""
    low, high, unit = TRANSFORMS[key]
    length = float(np.linalg.norm(T[:3, 3]))
    if not low <= length <= high:
        raise CellError(
            f"{key}: its translation {T[:3, 3].round(4).tolist()} m is {length:g} m long, must be from "
            f"{low:g} to {high:g} m{_likely(length, low, high, unit)}"
        )


def _likely(value: float, low: float, high: float, unit: str) -> str:
    """The unit that the value was probably meant in."""
    if unit.startswith("m") and low <= value / 1e3 <= high:
        return f"; is {value:g} meant in mm? That would be {value / 1e3:g} {unit}"
    if unit.startswith("deg") and value != 0 and low <= math.degrees(value) <= high:
        return f"; is {value:g} meant in radians? That would be {math.degrees(value):.4g} {unit}"
    if unit == "s" and low <= value / 1e3 <= high:
        return f"; is {value:g} meant in ms? That would be {value / 1e3:g} s"
    if unit.startswith("of ") and low <= value / 100 <= high:
        return f"; is {value:g} meant in percent? That would be {value / 100:g}"
    return ""


def check_limits(limits: Limits, end_m: float = END_HEIGHT_M) -> None:
    """Refuse limits under which no run can end: the hand goes by START_HEIGHT_M down to end_m. Raises
    CellError."""
    check_ranges("limits", {name: getattr(limits, name) for name in limits.__dataclass_fields__})
    for low, high, axis in zip(limits.workspace_min_m, limits.workspace_max_m, "xy", strict=True):
        if not low < high:
            raise CellError(
                f"limits.workspace_min_m {low} is not below workspace_max_m {high} ({axis}); swap them"
            )
        if high - low < LEAST_SIDE_M:
            raise CellError(
                f"the workspace is {high - low:g} m wide in {axis}, must be at least {LEAST_SIDE_M:g} m"
            )
    if limits.min_height_m > end_m:
        raise CellError(
            f"limits.min_height_m = {limits.min_height_m:g} m must be at most {end_m:g} m, the height at "
            "which the approach ends: the hand would never arrive"
        )
    if limits.max_height_m < START_HEIGHT_M:
        raise CellError(
            f"limits.max_height_m = {limits.max_height_m:g} m must be at least {START_HEIGHT_M:g} m, the "
            "height at which the approach begins: the hand would never arrive there"
        )
    if limits.min_grasp_height_m > limits.min_height_m:
        raise CellError(
            f"limits.min_grasp_height_m = {limits.min_grasp_height_m:g} m must be at most min_height_m = "
            f"{limits.min_height_m:g} m"
        )


def check_force(gripper: str, force_N: float, hand: Hand) -> None:
    """Refuse a grip force that the hand does not have. Raises CellError."""
    if gripper != "none" and force_N > hand.max_force_N:
        raise CellError(
            f"gripper.force_N = {force_N:g} N must be at most {hand.max_force_N:g} N, what the hand "
            f"{hand.name!r} gives"
        )


def check_camera(T_hand_camera: Transform) -> None:
    """Refuse a camera that cannot see the middle of the view at the end height. Raises CellError."""
    middle = inverse(T_hand_camera) @ np.array([0.0, 0.0, END_HEIGHT_M, 1.0])
    off_deg = math.degrees(math.atan2(float(np.linalg.norm(middle[:2])), float(middle[2])))
    if off_deg > _AWAY_DEG:
        raise CellError(
            f"camera.T_hand_camera: the camera looks away: the place {END_HEIGHT_M:g} m in front of the "
            f"fingertips lies {off_deg:.0f} deg off its axis, at most {_AWAY_DEG:g} deg are possible; z of "
            "the camera's frame is its optical axis, x right and y down in the image"
        )


def check_table(T_robot_table: Transform) -> None:
    """Refuse a table that is upside down, unless the arm's base is well above it. Raises CellError."""
    base_m = float(inverse(T_robot_table)[2, 3])
    if T_robot_table[2, 2] < -0.5 and base_m < _HANGS_M:
        raise CellError(
            "workspace.T_robot_table: the table is upside down: its z points "
            f"{math.degrees(math.acos(max(float(T_robot_table[2, 2]), -1.0))):.0f} deg away from the arm's, "
            f"and the arm's base is {base_m:.3f} m above it; z of the table points up, out of it"
        )
    if base_m < -1.0:
        raise CellError(
            f"workspace.T_robot_table: the arm's base would lie {-base_m:.2f} m below the table, at most 1 m "
            "is possible; the transform maps points of the table's frame to the robot's"
        )
