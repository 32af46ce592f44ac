"""rt.cell.plausible: a value that no cell can have is refused, with the likely unit."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.cell.file import EXAMPLE, load_cell
from rt.cell.open import settle
from rt.cell.options import ServoOptions
from rt.cell.plausible import RANGES, check_limits, check_value
from rt.cell.transform import CellError
from rt.guard.limits import Limits
from rt.view import END_HEIGHT_M, START_HEIGHT_M

TEXT = EXAMPLE.read_text()


def read(folder: Path, old: str, new: str) -> None:
    assert old in TEXT
    (folder / "cell.toml").write_text(TEXT.replace(old, new))
    settle(ServoOptions(cell=folder / "cell.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[-0.8, -0.4]", "[-800, -400]", r"workspace_min_m .* from -3 to 3 m; is -800 meant in mm\?"),
        ("# lift_m = 0.10", "lift_m = 100", r"lift_m = 100 m must be .*mm\? That would be 0.1 m"),
        ("# speed_m_s = 0.05", "speed_m_s = 5.0", "grasp.speed_m_s = 5 m/s must be from 0.002 to 0.25"),
        ("# contact_N = 15.0", "contact_N = 15000", "grasp.contact_N = 15000 N must be from 1 to 200"),
        ("# max_force_N = 50.0", "max_force_N = 0.5", "limits.max_force_N = 0.5 N must be from 2"),
        ("# max_frame_age_s = 0.15", "max_frame_age_s = 150", r"is 150 meant in ms\? .* 0.15 s"),
        ("# min_singular_deg = 10.0", "max_tilt_deg = 0.087", r"meant in radians\? .* 4.985 deg"),
        ("# watchdog_hz = 10.0 ", "watchdog_hz = 0.1 ", "robot.watchdog_hz = 0.1 Hz must be from 1"),
        ("# max_silence_s = 0.05 ", "max_silence_s = 5 ", "robot.max_silence_s = 5 s must be from"),
        ("# max_turn_deg_s = 90.0", "max_turn_deg_s = 900.0", "robot.max_turn_deg_s = 900 deg/s"),
        ("# port = 63352", "port = 70000", "gripper.port = 70000 must be from 1 to 65535"),
        ("force_N = 40.0", "force_N = 5.0", "gripper force_N = 5.0 must be from 20 to 235 N"),
        ("force_N = 40.0", "force_N = 240.0", "force_N = 240 N must be at most 235 N"),
        ("speed_m_s = 0.075 ", "speed_m_s = 0.5 ", "gripper speed_m_s = 0.5 must be from 0.02"),
        ('"192.168.1.10"', '""', "robot.host = '' must be the address"),
        ('"192.168.1.10"', '"192.168.1.10:30004"', "must be a name or an address alone"),
        ("0.163", "5.0", "T_flange_hand: .* 5 m long, must be from 0.01 to 0.6 m"),
        ("0.0, 0.0, 90.0", "0.0, 0.0, 1.5708", "quarter turns in radians; give degrees"),
        ("rpy_deg = [0.0, 0.0, 90.0]", "rotation_vector_rad = [0, 0, 90]", "meant in degrees"),
        ("[-12.42, 0.0, 0.0]", "[167.58, 0.0, 0.0]", "the camera looks away: .* off its axis"),
        ("table_height_m = 0.0", "table_height_m = 15", r"is 15 meant in mm\? That would be 0.015"),
        (
            "table_height_m = 0.0 ",
            "T_robot_table = { xyz_m = [0, 0, 0], rpy_deg = [180, 0, 0] } #",
            "the table is upside down",
        ),
        ("# min_height_m = 0.10", "min_height_m = 0.20", "the hand would never arrive"),
        ("# min_height_m = 0.10", "max_height_m = 0.25", "max_height_m = 0.25 m must be at least 0.3"),
        ("# max_turn_deg_s = 90.0", "max_turn_deg_s = 1.57", r"is 1.57 meant in radians\? .* 89.95 deg"),
        ("[-0.45, 0.30, 0.22, 0.0]", "[-450, 300, 220, 0]", r"place.pose\[:3\] = .* meant in mm\?"),
        ("0.30, 0.22, 0.0]", "0.30, 0.22, 1.5708]", r"place.pose\[3\] = .* give degrees: \[90.0\]"),
        ("[-0.45, -0.05, 0.30]", "[-450, -50, 300]", r"place.home = .* meant in mm\?"),
        ("# look_m = [0.3, 0.3]", "look_m = [300, 300]", r"place.look_m = .* meant in mm\?"),
        ("# area_m = [0.0, 0.0]", "area_m = [200, 0]", r"place.area_m = .* meant in mm\?"),
        ("# carry_m = 0.30", "carry_m = 300", r"carry_m = 300 m .* mm\? That would be 0.3 m"),
        ("# acceleration_m_s2 = 1.0", "acceleration_m_s2 = 1000", "place.acceleration_m_s2 = 1000"),
        ("# contact_N = 30.0", "contact_N = 0.03", "place.contact_N = 0.03 N must be from 1"),
        ("# rows = 1", "rows = 51", "place.rows = 51 must be from 1 to 50"),
        ("# max_speed_m_s = 0.5", "max_speed_m_s = 0", "limits.max_speed_m_s = 0 m/s must be from"),
    ],
)  # fmt: skip
def test_a_value_in_another_unit_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(CellError, match=message):
        read(tmp_path, old, new)


@pytest.mark.parametrize("row", ['[1, 0, 0, "0.1"]', "[true, 0, 0, 0.1]", "[1, 0, 0, nan]"])
def test_only_numbers_are_taken_in_a_matrix(tmp_path: Path, row: str) -> None:
    matrix = f"[{row}, [0, 1, 0, 0], [0, 0, 1, 0.1], [0, 0, 0, 1]]"
    with pytest.raises(CellError, match=r"T_flange_hand\[0\] = .* list of 4 finite numbers"):
        read(tmp_path, "{ xyz_m = [0.0, 0.0, 0.163], rpy_deg = [0.0, 0.0, 90.0] }", matrix)


def test_joint_limits_in_radians_are_told() -> None:
    with pytest.raises(ValueError, match=r"'base' no room: .* meant in radians\? Give degrees"):
        Limits(joint_min_deg=(-6.28,) * 6, joint_max_deg=(6.28,) * 6)


def test_a_hanging_arm_is_not_taken_for_a_table_that_is_upside_down(tmp_path: Path) -> None:
    hangs = "T_robot_table = { xyz_m = [0, 0, 0.9], rpy_deg = [180, 0, 0] } #"
    read(tmp_path, "table_height_m = 0.0 ", hangs)


def test_limits_given_on_the_command_line_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(CellError, match=r"max_speed_m_s = 0 m/s must be from 0\.005"):
        settle(ServoOptions(limits=Limits(max_speed_m_s=0.0)))
    (tmp_path / "cell.toml").write_text(TEXT)
    with pytest.raises(CellError, match="never arrive"):
        settle(ServoOptions(cell=tmp_path / "cell.toml", limits=Limits(min_height_m=0.2)))


def test_every_limit_has_a_range_with_its_default_inside() -> None:
    numbers = {f.name for f in fields(Limits) if f.type != "str"}
    assert {f"limits.{name}" for name in numbers} <= set(RANGES)
    assert numbers == set(Limits.__dataclass_fields__) - {"camera_moved"}  # the only word
    check_limits(Limits())


@given(st.sampled_from(sorted(RANGES)), st.floats(allow_nan=True, allow_infinity=True))
def test_exactly_the_range_is_accepted(key: str, value: float) -> None:
    low, high, _ = RANGES[key]
    if low <= value <= high:
        check_value(key, value)
    else:
        with pytest.raises(CellError, match="must be from"):
            check_value(key, value)


@given(st.floats(0.0, 1.0), st.floats(0.05, 2.0))
def test_limits_that_are_accepted_let_the_hand_arrive(floor_m: float, ceiling_m: float) -> None:
    limits = Limits(min_height_m=floor_m, max_height_m=ceiling_m)
    try:
        check_limits(limits)
    except CellError:
        assert floor_m > END_HEIGHT_M or ceiling_m < START_HEIGHT_M or floor_m < 0.002
    else:
        assert floor_m <= END_HEIGHT_M < START_HEIGHT_M <= ceiling_m


def test_the_shipped_example_is_plausible(tmp_path: Path) -> None:
    cell = load_cell(EXAMPLE)
    assert math.isclose(float(np.linalg.norm(cell.robot.T_flange_hand[:3, 3])), 0.163)
