"""Convergence of labels with the number of grasps."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bench.labels import first_of_each, nearest_m
from sim.scene.grasps import Grasps


def test_the_first_of_each_object_are_taken_in_order():
    grasps = Grasps(np.zeros((6, 5), np.float32), np.array([1, 0, 1, 1, 0, 2], np.int16))
    assert first_of_each(grasps, 2).tolist() == [0, 1, 2, 4, 5]
    assert first_of_each(grasps, 9).tolist() == list(range(6))


def test_the_nearest_grasp_counts_a_degree_as_a_millimetre():
    grasps = np.array([[0.1, 0, 0, 0, 0.03], [0, 0, 0, np.radians(20), 0.03]], np.float32)
    poses = np.array([[0.09, 0, 0], [0, 0, 0]])
    assert nearest_m(poses, grasps) == pytest.approx([0.01, 0.02], abs=1e-6)
    assert np.isinf(nearest_m(poses, grasps[:0])).all()


def test_the_command_shows_labels_converging(tmp_path):
    command = [sys.executable, "-m", "sim.convergence", "--scenes", "2", "--dense", "4000"]
    command += ["--poses", "50", "--workers", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "convergence.json").read_text())
    rows = list(found["by_grasps_per_object"].values())
    means = [r["mean_mm"] for r in rows]
    assert means == sorted(means, reverse=True)  # more grasps are never further away
    assert rows[-1]["off_mean_mm"] < rows[0]["off_mean_mm"]
    share = list(found["covered_by_points_tried"].values())
    assert share == sorted(share) and 0 < share[-1] <= 1
    assert (tmp_path / "convergence.png").stat().st_size > 5000
    wrong = subprocess.run([*command, "--scenes", "0"], capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
