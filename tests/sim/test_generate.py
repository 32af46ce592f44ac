"""The generator as its user runs it: same bytes however it is run, killed and resumed."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from rt.hand import load_hand
from rt.pose import top_down
from rt.view import VIEW
from sim.dataset import store
from sim.dataset.options import GenerateOptions, parameters
from sim.scene.grasps import numbered_scene
from sim.scene.objects import catalogue_set
from sim.scene.raster import RasterRenderer
from sim.scene.rig import RigView, random_rig
from sim.scene.scene import CIRCLE_M, camera_poses
from sim.scene.sensor import USUAL

SMALL = ["--scenes", "6", "--test-scenes", "2", "--views", "5", "--scenes-per-shard", "2"]
SMALL += ["--grasp-samples", "200", "--seed", "5"]


def command(out, *options):
    return [sys.executable, "-m", "sim.generate", "--out", str(out), *SMALL, *options]


def run(out, *options):
    return subprocess.run(command(out, *options), capture_output=True, text=True, timeout=300)


def digest(folder):
    """Every file's path and content, temporary ones included."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("generate") / "set"
    done = run(out, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "40 images" in done.stdout
    return out


def test_the_set_is_what_its_parts_make(unbroken):
    """Image for image: the reader gives what scene, cameras and renderer give."""
    split = store.open_split(unbroken, "train")
    assert len(split) == 30 and len(split.objects) == 6
    scene, grasps, rng = numbered_scene(catalogue_set("train"), 5, "train", 4, samples=200)
    np.testing.assert_array_equal(split.scene_grasps(4), grasps.poses)
    assert split.objects[4] == [p.name for p in scene.placed]
    cameras = camera_poses(scene, 5, rng)
    rig, renderer = random_rig(USUAL, load_hand(), rng), RasterRenderer(scene)
    assert split.sensors[4] == (rig.sensor.name if rig else "ideal")
    for image, camera in zip(range(20, 25), cameras, strict=True):
        np.testing.assert_array_equal(split.camera[image], camera)
        if rig:
            depth = RigView(renderer, rig, load_hand())(camera, rng)
        else:
            depth = renderer.depth(top_down(*camera), VIEW.rays())
        np.testing.assert_allclose(split.depth_m(np.array([image]))[0], depth, atol=0.51e-4)


def test_splits_hold_their_own_objects(unbroken):
    for name in ("train", "test"):
        known = set(catalogue_set(name).names)
        used = {o for scene in store.open_split(unbroken, name).objects for o in scene}
        assert used <= known


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_killed_and_run_again_gives_the_same_bytes(unbroken, tmp_path, shards):
    """SIGKILL while it starts, or as soon as so many shards are there; then the same command again, with
    one worker: `unbroken` is of two."""
    out = tmp_path / "set"
    process = subprocess.Popen(
        command(out, "--workers", "1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("t*-0*"))) < shards and time.monotonic() < deadline:
        time.sleep(0.01)
    if shards == 0:
        time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list(out.glob("t*-0*")))
    assert shards <= there < 4
    again = run(out, "--workers", "1")
    assert again.returncode == 0, again.stderr
    assert digest(out) == digest(unbroken)


def test_a_finished_set_is_left_as_it_is(unbroken):
    before = {p: p.stat().st_mtime_ns for p in unbroken.rglob("*")}
    assert run(unbroken).returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in unbroken.rglob("*")}


def test_other_parameters_and_foreign_folders_are_refused(unbroken, tmp_path):
    other = run(unbroken, "--seed", "6")
    assert other.returncode == 2 and "seed: there 5, asked 6" in other.stderr
    (tmp_path / "notes.txt").write_text("mine")
    foreign = run(tmp_path)
    assert foreign.returncode == 2 and "not a dataset" in foreign.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scenes", "0"], "--scenes 0 must be at least 1"),
        (["--views", "-3"], "--views -3 must be at least 1"),
        (["--friction", "0"], "--friction 0.0 must be above 0"),
        (["--hand", "nope"], "no hand 'nope'"),
        (["--only-meshes"], "needs --meshes"),
        (["--meshes", "/nonexistent"], "/nonexistent"),
        (["--bins", "0.6", "--tight", "0.5"], "together at most 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, options, message):
    out = tmp_path / "set"
    done = run(out, *options)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


def test_a_second_writer_is_refused(unbroken):
    import fcntl

    handle = os.open(unbroken, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = run(unbroken)
        assert done.returncode == 2 and "another sim.generate" in done.stderr
    finally:
        os.close(handle)


def test_the_manifest_names_every_parameter(unbroken):
    params = json.loads((unbroken / "manifest.json").read_text())["params"]
    assert params["hand"]["opening_m"] == 0.085 and params["view"]["fov_deg"] == 70.0
    assert params["seed"] == 5 and params["grasp_samples"] == 200 and params["friction"] == 0.5


def test_scenes_are_loose_tight_or_bins_of_one_catalogue_each(tmp_path):
    plain = GenerateOptions(out=tmp_path, seed=5, grasp_samples=200)
    assert not {"bins", "tight"} & parameters(plain).keys()
    mixed = replace(plain, bins=0.4, tight=0.3, catalogue="both")
    assert parameters(mixed)["bins"] == 0.4 and parameters(mixed)["tight"] == 0.3
    scenes = [mixed.scene("train", k)[0] for k in range(12)]
    wide = [{thing.name.startswith("wide_") for thing in scene.placed} for scene in scenes]
    assert wide == [{False}, {True}] * 6
    walled = [scene for scene in scenes if scene.bin is not None]
    reach = [
        max(np.linalg.norm(thing.T_world_object[:2, 3]) for thing in scene.placed)
        for scene in scenes
    ]
    assert 1 <= len(walled) <= 8 and max(len(scene.placed) for scene in scenes) > 5
    assert sum(len(s.placed) > 5 and r <= CIRCLE_M for s, r in zip(scenes, reach, strict=True)) >= 1


@pytest.mark.skipif(
    importlib.util.find_spec("openravepy") is not None,
    reason="openravepy is here: run where it is not",
)
def test_a_renderer_that_is_missing_is_said_before_anything_is_written(tmp_path):
    done = run(tmp_path / "set", "--renderer", "openrave")
    assert done.returncode == 2 and "openravepy is not usable here" in done.stderr
    assert not (tmp_path / "set").exists()
