"""rt.cell: a cell file is read strictly, and what is wrong with it is said."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.collect.cell import write_handeye
from rt.cell.file import EXAMPLE, CellError, load_cell, transform

TEXT = EXAMPLE.read_text()


def cell_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "cell.toml").write_text(text)
    return folder / "cell.toml"


def test_the_example_is_read(tmp_path: Path) -> None:
    cell = load_cell(cell_file(tmp_path))
    assert cell.robot.host == "192.168.1.10" and cell.gripper.force_N == 40.0
    np.testing.assert_allclose(cell.robot.T_flange_hand[:3, 3], [0, 0, 0.163])
    np.testing.assert_allclose(cell.robot.T_flange_hand[:3, 0], [0, 1, 0], atol=1e-12)
    assert cell.limits.workspace_min_m == (-0.8, -0.4) and cell.limits.max_speed_m_s == 0.5
    np.testing.assert_array_equal(cell.T_robot_table, np.eye(4))
    assert cell.model_path is None and cell.hand == "robotiq_2f85"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("force_N = 40.0", "force = 40.0", "gripper.force is not known; known are .*force_N"),
        ("force_N = 40.0", 'force_N = "40"', "gripper.force_N = '40' must be a finite number"),
        ("force_N = 40.0", "force_N = -1", "gripper.force_N = -1.0 must be above 0"),
        ("force_N = 40.0", "force_N = true", "force_N = True must be a finite number"),
        ("force_N = 40.0", "force_N = nan", "force_N = nan must be a finite number"),
        ('kind = "ur"', 'kind = "kuka"', "robot.kind = 'kuka' is not known; known are ur"),
        ('host = "192.168.1.10"', "", "robot.host is missing"),
        ('host = "192.168.1.10"', "host = 5", "robot.host = 5 must be text"),
        ("[grasp]", "[gasp]", r"section \[gasp\] is not known"),
        ("# width = 480", "width = 480.5", "camera.width = 480.5 must be a whole number"),
        ("[-0.8, -0.4]", "[-0.8]", "workspace_min_m = .* list of 2 finite numbers"),
        ("workspace_max_m =", "# ", "limits.workspace_max_m is missing"),
        ("-0.0705, -0.10]", "-0.0705, 0.06]", "handeye_of = 'flange'"),
        ("[-0.8, -0.4]", "[0.8, -0.4]", "not below workspace_max_m"),
        ("# max_speed_m_s = 0.5", "max_speed_m_s = -0.5", "max_speed_m_s = -0.5 must not be"),
        ("table_height_m = 0.0", "table_height = 0.0", "workspace.table_height is not known"),
        ("xyz_m = [0.0, 0.0, 0.163], ", "", "robot.T_flange_hand must have xyz_m"),
        ("0.163", "163.0", "T_flange_hand: .* beyond 10 m; give metres"),
        ("[robot]", "[robot", "not a TOML file"),
        ("T_hand_camera = {", "handeye = 'no.toml'\n# {", "camera.handeye = 'no.toml'"),
        ("T_hand_camera = {", "# {", "calib.handeye solve .* --cell cell.toml"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(CellError, match=message) as raised:
        load_cell(cell_file(tmp_path, (old, new)))
    assert str(raised.value).startswith(str(tmp_path))


def test_a_missing_file_says_where_to_begin(tmp_path: Path) -> None:
    with pytest.raises(CellError, match=r"cell.example.toml"):
        load_cell(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.diag([1.0, 1.0, -1.0, 1.0]).tolist(), "mirrored"),
        ((np.eye(4) * 1.1).tolist(), "not rigid"),
        (np.vstack([np.eye(4)[:3], [0, 0, 0.1, 1]]).tolist(), "last row"),
        (np.eye(3).tolist(), "4x4"),
        ("one", "4x4"),
        ({"xyz_m": [0, 0, 0], "quaternion_xyzw": [0, 0, 0, 2]}, "length 2"),
        ({"xyz_m": [0, 0, 0], "rpy_deg": [0, 0, 0], "rotation_vector_rad": [0, 0, 0]}, "one of"),
        ({"xyz_m": [0, 0, 0], "rpy": [0, 0, 0]}, "mount.rpy is not known"),
        ({"xyz_m": [0, 0, "a"], "rpy_deg": [0, 0, 0]}, "3 finite numbers"),
    ],
)
def test_what_is_no_transform_is_refused(value: object, message: str) -> None:
    with pytest.raises(CellError, match=message):
        transform(value, "mount")


@given(st.lists(st.floats(-179, 179), min_size=3, max_size=3))
def test_the_three_ways_to_write_a_rotation_agree(rpy: list[float]) -> None:
    """Against scipy's rotations."""
    from scipy.spatial.transform import Rotation

    R = Rotation.from_euler("xyz", rpy, degrees=True)  # lower case: about the fixed axes
    xyz = [0.1, -0.2, 0.3]
    ways = [
        {"xyz_m": xyz, "rpy_deg": rpy},
        {"xyz_m": xyz, "quaternion_xyzw": R.as_quat().tolist()},
        {"xyz_m": xyz, "rotation_vector_rad": R.as_rotvec().tolist()},
    ]
    for way in ways:
        made = transform(way, "mount")
        np.testing.assert_allclose(made[:3, :3], R.as_matrix(), atol=1e-9)
        np.testing.assert_allclose(transform(made.round(5).tolist(), "mount"), made, atol=2e-5)


def summary(**changes: object) -> dict[str, object]:
    """What calib.handeye hands to its writer."""
    return {
        "transform": "T_hand_camera",
        "translation_m": [0.01, -0.07, -0.1],
        "quaternion_xyzw": [0.1, 0.0, 0.0, np.sqrt(0.99)],
        "covariance": np.eye(6).tolist(),
        "interval95_rotation_deg": [0.1] * 3,
        "interval95_translation_mm": [0.1] * 3,
        "verdict": "good",
        "reason": "all is well",
        "data": "somewhere",
        "data_sha256": "0",
        "target": "charuco:7x5:30:22",
        "T_fixed_target": np.eye(4).tolist(),
        "hand_poses": [[0.4, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0]],
        "camera": {"width": 4, "height": 4, "fx": 1.0, "fy": 1.0, "cx": 1, "cy": 1, "dist": []},
        "time_offset_ms": None,
        **changes,
    }


def test_what_the_calibration_writes_is_read_from_here_or_there(tmp_path: Path) -> None:
    path = cell_file(tmp_path, ("T_hand_camera = {", "# {"))
    write_handeye(path, summary())
    camera = load_cell(path).camera
    np.testing.assert_allclose(camera.T_hand_camera[:3, 3], [0.01, -0.07, -0.1])
    assert "verdict good" in camera.calibration

    other = tmp_path / "other.toml"
    write_handeye(other, summary())
    path = cell_file(tmp_path, ("T_hand_camera = {", 'handeye = "other.toml"\n# {'))
    np.testing.assert_array_equal(load_cell(path).camera.T_hand_camera, camera.T_hand_camera)

    both = 'handeye = "other.toml"\nhandeye_of = "flange"\n# {'
    flange = load_cell(cell_file(tmp_path, ("T_hand_camera = {", both)))
    T_flange_camera = flange.robot.T_flange_hand @ flange.camera.T_hand_camera
    np.testing.assert_allclose(T_flange_camera, camera.T_hand_camera, atol=1e-12)

    write_handeye(other, summary(poses_of="flange"))
    said = load_cell(cell_file(tmp_path, ("T_hand_camera = {", 'handeye = "other.toml"\n# {')))
    np.testing.assert_allclose(said.camera.T_hand_camera, flange.camera.T_hand_camera, atol=1e-12)
    wrong = 'handeye = "other.toml"\nhandeye_of = "hand"\n# {'
    with pytest.raises(CellError, match="poses_of = 'flange'; remove"):
        load_cell(cell_file(tmp_path, ("T_hand_camera = {", wrong)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "do not use"}, "do not use.*calibrate again"),
        ({"transform": "T_base_camera"}, "must be in the hand"),
        ({"quaternion_xyzw": [1.0, 1.0, 0.0, 0.0]}, "length 1.414"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = cell_file(tmp_path, ("T_hand_camera = {", "# {"))
    write_handeye(path, summary(**changes))
    with pytest.raises(CellError, match=message):
        load_cell(path)


def test_two_hand_eye_transforms_are_one_too_many(tmp_path: Path) -> None:
    path = cell_file(tmp_path)
    write_handeye(path, summary())
    with pytest.raises(CellError, match="keep the one that holds"):
        load_cell(path)


def test_the_table_may_be_tilted(tmp_path: Path) -> None:
    turned = "T_robot_table = { xyz_m = [0, 0, 0.1], rpy_deg = [90, 0, 0] }"
    cell = load_cell(cell_file(tmp_path, ("table_height_m = 0.0 ", turned)))
    np.testing.assert_allclose(cell.T_robot_table[:3, 2], [0, -1, 0], atol=1e-12)
    cell = load_cell(cell_file(tmp_path, ("table_height_m = 0.0", "table_height_m = -0.2")))
    assert cell.T_robot_table[2, 3] == -0.2


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rt.cell", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_prints_what_it_read(tmp_path: Path) -> None:
    example = run("example")
    assert example.returncode == 0
    (tmp_path / "cell.toml").write_text(example.stdout)
    done = run("check", tmp_path / "cell.toml")
    assert done.returncode == 0, done.stderr
    assert re.search(r"T_flange_hand.*xyz 0.0 0.0 163.0 mm, rpy 0.00 0.00 90.00 deg", done.stdout)
    assert "max_frame_age_s" in done.stdout

    path = cell_file(tmp_path, ("robotiq_2f85", "claw"))
    wrong = run("check", path)
    assert wrong.returncode == 2 and "no hand 'claw'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
