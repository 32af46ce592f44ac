"""Labels lifted from a set that was made."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from needs import needed
from sets import SMALL, small_set

from sim.dataset import store
from sim.dataset.label_check import lift_scene, sample, stored_grasps
from sim.dataset.store import DatasetError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_set(tmp_path_factory.mktemp("label_check") / "set")


def test_a_sample_is_as_large_as_asked_and_the_same_again(made):
    def objects(scenes):
        return sum(
            len(np.unique(np.load(path / "grasp_object.npy")))
            for path in (store.shard_path(made.out, split, k) for split, k in scenes)
        )

    some = sample(made.out, 3, 0)
    assert objects(some) >= 3 > objects(some[:-1]) and some == sample(made.out, 3, 0)
    everything = sample(made.out, 1000, 0)
    assert sorted(everything) == [("test", 0), *(("train", k) for k in range(4))]


def test_a_set_with_other_grasps_than_this_version_makes_is_refused(made):
    assert len(stored_grasps(made.out, "train", 2)) > 0
    with pytest.raises(DatasetError, match="other grasps"):
        lift_scene(replace(made, seed=8), ("train", 2))


def test_the_command_lifts_and_reports_by_category(made, tmp_path):
    needed("physics", "mujoco", "coacd")
    command = [sys.executable, "-m", "sim.generate", "--out", str(made.out), *SMALL]
    done = subprocess.run(
        [*command, "--physics-check", "1", "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "categories under 85%" in done.stdout
    (path,) = tmp_path.glob("runs/label_check/*/label_check.json")
    found = json.loads(path.read_text())["categories"]
    assert found["all"]["n"] >= 1
    assert path.with_suffix(".png").stat().st_size > 5000
