"""The command that lifts true grasps, and what it counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from needs import needed
from solids import box

from sim.lifts import LiftRecord, lift_grasps, rates, wilson
from sim.scene.grasps import Grasps
from sim.scene.scene import assemble

ROOT = Path(__file__).parents[2]


def test_wilson_interval_of_known_shares():
    # Closed forms: z^2 / (n + z^2) at no success, symmetric about one half.
    assert wilson(0, 10) == pytest.approx((0.0, 1.96**2 / (10 + 1.96**2)), abs=1e-4)
    low, high = wilson(20, 40)
    assert low + high == pytest.approx(1.0) and 0.3 < low < 0.5
    assert wilson(0, 0) == (0.0, 1.0)


def test_rates_count_each_category_and_all():
    def record(category: str, reason: str) -> LiftRecord:
        held = reason == "held"
        return LiftRecord(0, category, category, (0.0,) * 5, held, reason, 0.15 * held, 0.1)

    found = rates([record("can", "held"), record("can", "slipped"), record("mug", "held")])
    assert list(found) == ["can", "mug", "all"]
    assert (found["can"]["n"], found["can"]["held"], found["can"]["rate"]) == (2, 1, 0.5)
    assert found["can"]["failed"] == {"slipped": 1} and found["mug"]["failed"] == {}
    assert found["all"]["n"] == 3 and found["all"]["ci95"] == wilson(2, 3)
    assert rates([])["all"]["rate"] is None


def test_a_grasp_holds_only_if_it_lifts_its_own_object(tmp_path, monkeypatch):
    needed("physics", "mujoco", "coacd")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    aside = np.eye(4)
    aside[0, 3] = 0.15
    scene = assemble([(box((0.04, 0.05, 0.05)), np.eye(4)), (box((0.03, 0.04, 0.05)), aside)])
    poses = np.array([[0, 0, 0.02, 0, 0.04], [0.15, 0, 0.02, 0, 0.03], [0, 0, 0.02, 0, 0.04]])
    grasps = Grasps(poses.astype(np.float32), np.array([0, 1, 1], np.int16))
    records = lift_grasps(scene, grasps, np.random.default_rng(0), 5)
    assert sorted(r.reason for r in records) == ["another object", "held", "held"]
    assert sum(r.success for r in records) == 2
    at_height = lift_grasps(scene, grasps[:2], np.random.default_rng(0), 1, at_approach_height=True)
    assert all(r.success for r in at_height) and at_height[0].pose[2] == pytest.approx(
        0.003, abs=0.0011
    )


def test_the_command_writes_what_it_prints(tmp_path):
    needed("physics", "mujoco", "coacd")
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    trimesh.creation.box((0.04, 0.06, 0.05)).export(meshes / "block.stl")
    trimesh.creation.box((0.03, 0.10, 0.03)).export(meshes / "bar.stl")
    command = [sys.executable, "-m", "sim.lifts", "--scenes", "2", "--grasps", "2"]
    command += ["--meshes", str(meshes), "--only-meshes", "--workers", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "lifts.png").stat().st_size > 5000
    found = json.loads((tmp_path / "out" / "lifts.json").read_text())
    everything = found["categories"]["all"]
    assert everything["n"] == len(found["lifts"]) >= 4
    assert everything["held"] == sum(r["success"] for r in found["lifts"])
    assert f"{everything['rate']:.1%}" in done.stdout
    wrong = subprocess.run([*command, "--force", "999"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "235 N" in wrong.stderr and "Traceback" not in wrong.stderr
