"""Convex parts when CoACD aborts its process, and from a script without a main guard."""

import subprocess
import sys

import numpy as np
import pytest
from needs import needed
from solids import box

from sim.physics import convex


@pytest.fixture
def cube():
    thing = box((0.04, 0.04, 0.04))
    return thing.vertices.astype(np.float64), thing.faces


def test_a_mesh_that_aborts_is_turned_and_its_parts_turned_back(cube, monkeypatch):
    def none_unless_turned(points, faces):
        return None if np.ptp(points[:, 0]) == pytest.approx(0.04, abs=1e-9) else [points]

    monkeypatch.setattr(convex, "_parts_of_process", none_unless_turned)
    (part,) = convex._decompose(*cube)
    np.testing.assert_allclose(part, cube[0], atol=1e-12)


def test_a_mesh_that_always_aborts_is_named(cube, monkeypatch):
    monkeypatch.setattr(convex, "_parts_of_process", lambda points, faces: None)
    monkeypatch.setattr(convex, "_TURNS", 2)
    with pytest.raises(convex.PhysicsError, match="12 faces, turned in 2 ways"):
        convex._decompose(*cube)


def test_a_process_that_aborts_gives_no_parts(cube, monkeypatch):
    broken = [sys.executable, "-c", "import os; os.abort()"]
    run = subprocess.run
    monkeypatch.setattr(convex.subprocess, "run", lambda words, **more: run(broken, **more))
    assert convex._parts_of_process(*cube) is None


def test_parts_that_another_process_is_writing_are_not_read(cube, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(convex, "_decompose", lambda points, faces: [points])
    convex.convex_parts(*cube)
    (kept,) = convex.cache_folder().glob("*/*.npz")
    kept.with_name(f".{kept.stem}.1.npz").write_bytes(b"half")  # sorts before it
    (part,) = convex.convex_parts(*cube)
    np.testing.assert_array_equal(part, cube[0])


def test_a_script_without_a_main_guard_gets_its_parts(tmp_path):
    needed("physics", "coacd")
    script = tmp_path / "script.py"
    script.write_text(
        "import trimesh\n"
        "from sim.physics.convex import convex_parts\n"
        "mesh = trimesh.creation.box((0.03, 0.04, 0.05))\n"
        "print(len(convex_parts(mesh.vertices, mesh.faces)))\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        env={**convex.os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == "1", done.stderr
