"""The whole command on the emulated cell: the real UR client, the real RealSense pipeline, the real gripper
driver, processes of their own; nothing is simulated but matter. Limits of time are wide, since the
machine that tests may be busy: none of them is what is tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from needs import needed, needed_realsense

needed("ur", "rtde_control")
needed_realsense()

from sim.hardware.ur.process import Emulator, start_emulator

ADDRESS, PORT = "127.0.0.24", 31024
CELL = f"""
[robot]
kind = "ur"
host = "{ADDRESS}"
max_silence_s = 1.0
watchdog_hz = 1.0
T_flange_hand = {{ xyz_m = [0.0, 0.0, 0.163], rpy_deg = [0.0, 0.0, 0.0] }}
[camera]
kind = "realsense"
width = 240
height = 136
rate_hz = 30
T_hand_camera = {{ xyz_m = [0.0, -0.07, -0.10], rpy_deg = [-12.34, 0.0, 0.0] }}
[gripper]
kind = "robotiq"
speed_m_s = 0.15
timeout_s = 3.0
[workspace]
table_height_m = 0.0
[limits]
workspace_min_m = [-0.9, -0.5]
workspace_max_m = [-0.1, 0.5]
max_state_age_s = 1.0
max_target_age_s = 1.0
max_frame_age_s = 1.0
max_held_s = 20.0
max_missed_in_a_row = 300
"""


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A controller with a gripper: an e-Series, or the model that a test names."""
    options = ["--model", getattr(request, "param", "e")]
    options += ["--gripper", "--tcp", *["0", "0", "0.163", "0", "0", "0"]]
    options += ["--start", *["-0.45", "-0.13", "0.31", "3.14159265", "0", "0"]]
    with start_emulator(ADDRESS, *options, control_port=PORT) as running:
        yield running


def servo(folder: Path, *more: str, limits: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "cell.toml").write_text(CELL + limits)
    options = f"host={ADDRESS}&control_port={PORT}&size=240x136&rate_hz=30&scene=7"
    device = f"sim.hardware.realsense:emulated?{options}"
    return subprocess.run(
        [
            *(sys.executable, "-m", "rt.servo", "--cell", str(folder / "cell.toml")),
            *("--robot", "ur", "--camera", "realsense", "--gripper", "robotiq"),
            *("--camera-device", device, "--patience", "90", "--rate", "15"),
            *("--controller", "ensemble", "--candidates", "128", "--iterations", "40"),
            *("--out", str(folder), *more),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_the_emulated_cell_grasps(emulator: Emulator, tmp_path: Path) -> None:
    emulator.tell("gripper object=0.045")
    done = servo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rt.servo: grasped" in done.stdout
    report = json.loads((tmp_path / "servo.json").read_text())
    grasp = report["grasp"]
    assert report["outcome"] == "grasped" and grasp["phase"] == "done"
    assert grasp["width_m"] == pytest.approx(0.045, abs=0.001)
    assert grasp["lifted_m"] == pytest.approx(0.10, abs=0.003)
    assert report["cell"]["camera"]["stamps"] == "global_time"
    # What the emulated arm did is what the report says.
    _, T_base_hand = emulator.pose()
    assert T_base_hand[2, 3] == pytest.approx(grasp["closed_at_m"] + grasp["lifted_m"], abs=0.003)
    path = emulator.motion(600.0)
    assert path[:, 3].min() == pytest.approx(grasp["height"]["height_m"], abs=0.003)
    emulator.wait_still()
    assert np.abs(path[:, 7:10]).max() < 0.30

    from rt.record.recorder import read_record

    flight = read_record(tmp_path / "flight.mcap")
    assert flight.whole and report["record"]["error"] == ""
    phases = [p.decode() for p in dict.fromkeys(flight.cycles["phase"].tolist())]
    assert phases == ["start", "approach", "look", "descend", "close", "lift", "end"]


@pytest.mark.parametrize("emulator", ["cb3"], indirect=True)
def test_a_gripper_that_falls_silent_ends_the_run_by_name(
    emulator: Emulator, tmp_path: Path
) -> None:
    emulator.tell("gripper silent_on_close")
    done = servo(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "stopped: the gripper is silent" in done.stderr and "(during: close)" in done.stderr
    assert "Traceback" not in done.stderr
    emulator.wait_still()


@pytest.mark.parametrize("what", ["joint_limit: wrist 1", "singularity: elbow"])
def test_a_way_that_the_joints_cannot_follow_is_refused_before_anything_moves(
    emulator: Emulator, tmp_path: Path, what: str
) -> None:
    """A hose that lets wrist 1 go 5 degrees farther than it is; a place at the end of the arm's reach."""
    limits = ""
    if what.startswith("joint_limit"):
        wrist_1_deg = np.degrees(emulator.tell("state")["q"][3])
        limits = f"joint_max_deg = [360, 360, 360, {wrist_1_deg + 5:.1f}, 360, 360]\n"
    else:
        emulator.tell("place -0.806 -0.13 0.31 3.14159265 0 0")
    done = servo(tmp_path, limits=limits)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"reach: 1 trouble ahead, must be at most 0 ({what}" in done.stderr, done.stderr
    assert emulator.moved_until_s(0.0) == 0.0
    assert "Traceback" not in done.stderr
