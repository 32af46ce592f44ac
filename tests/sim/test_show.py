"""The picture of a scene and its grasps."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import needed

from rt.hand import load_hand
from sim.show import hand_lines, main


def test_a_hand_is_drawn_open_along_its_closing_axis():
    hand = load_hand()
    lines = hand_lines(np.array([[0.1, 0.2, np.pi / 2]]), hand)
    assert lines.shape == (3, 2, 2)
    np.testing.assert_allclose(lines[0], [[0.1, 0.2 - 0.0425], [0.1, 0.2 + 0.0425]], atol=1e-9)


def test_one_command_draws_a_scene(tmp_path):
    out = tmp_path / "scene.png"
    done = subprocess.run(
        [sys.executable, "-m", "sim.show", "--scene", "2", "--split", "test", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "grasps on" in done.stdout
    assert out.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("kind", "objects"), [("tight", 10), ("bin", 10), ("pile", 15)])
def test_every_kind_of_scene_is_drawn(tmp_path: Path, kind: str, objects: int, capsys) -> None:
    if kind == "pile":
        needed("physics", "mujoco")
    out = tmp_path / "scene.png"
    wanted = ["--kind", kind, "--scene", "1", "--catalogue", "wide", "--grasps", "5"]
    assert main([*wanted, "--out", str(out)]) == 0
    found = int(capsys.readouterr().out.split(" objects")[0].split()[-1])
    assert found == objects or (kind == "pile" and 5 <= found < objects)


def test_a_hand_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    arguments = ["--hand", str(tmp_path / "none.toml"), "--out", str(tmp_path / "x.png")]
    done = subprocess.run(
        [sys.executable, "-m", "sim.show", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "no hand" in done.stderr and not (tmp_path / "x.png").exists()
