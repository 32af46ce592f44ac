"""bench.tracking: what it computes of a motion that is known, and the command from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rtde_control", reason="no extra ur: pip install -e '.[ur]'")
pytest.importorskip("ruckig", reason="no extra ur: pip install -e '.[ur]'")

from bench.tracking import Record, due_times, figures, path
from rt.robot.rotation_vector import pose_vector


def test_a_delayed_copy_of_the_targets_has_that_lag_and_no_other_error() -> None:
    t = np.arange(0, 8, 0.002)
    places = np.array([pose_vector(path(s)) for s in t])
    delay_s, offset_ns, start_ns = 0.040, 7_000_000_000, 9_000_000_000
    rows = np.zeros((len(t), 13))
    rows[:, 0] = t + (start_ns - offset_ns) * 1e-9 + delay_s
    rows[:, 1:7] = places
    rows[:, 7:10] = np.gradient(places[:, :3], 0.002, axis=0)
    times = np.arange(start_ns, start_ns + 8 * 10**9, 33_333_333)
    targets = np.array([pose_vector(path((n - start_ns) * 1e-9)) for n in times])
    found = figures(Record(times, targets, times[:0], targets[:0]), rows, offset_ns)
    assert found["lag_ms"] == pytest.approx(40, abs=1.5)
    assert found["shape_error_mm"] < 0.05 < found["error_mm"]
    # x = 0.025 (1 - cos(w t)) and the like: accelerations of w^2 times the amplitudes
    assert found["acceleration_peak_m_s2"] == pytest.approx(0.16, abs=0.05)
    assert found["jerk_peak_m_s3"] < 2
    assert found["set_point_lag_ms"] is None


def test_targets_come_late_and_stall_as_told() -> None:
    due = due_times(30.0, 12.0, seed=3)
    assert (np.diff(due) > 0).all()
    assert (due == due_times(30.0, 12.0, seed=3)).all()
    gaps = np.diff(due)
    assert (gaps > 0.1).sum() == 2 and gaps.max() < 0.16  # the third stall is at the end


def test_the_command_measures_every_sender(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.tracking", "--seconds", "3", "--load", "0"]
    command += ["--model", "cb3", "--address", "127.0.0.62", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "tracking.json").read_text())["rows"]
    assert [r["method"] for r in rows] == ["servoL", "servoL, ahead", "speedL", "driver"]
    assert (tmp_path / "tracking.png").stat().st_size > 5000
    plain, ahead = rows[0], rows[1]
    assert ahead["set_point_error_mm"] < plain["set_point_error_mm"]


def test_nonsense_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.tracking", "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode in (1, 2) and "seconds = 0" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
