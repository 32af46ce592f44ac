"""sim.hardware.presence: what lies between the fingers, is taken, put into the bin, or dropped elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from rt.pose import top_down
from sim.hardware.presence import Presence
from sim.scene.objects import make_object
from sim.scene.scene import Scene, assemble

BIN = np.array([0.0, 0.4])


def scene() -> Scene:
    mesh = trimesh.creation.box((0.04, 0.08, 0.05))
    thing = make_object("box", "box", mesh.vertices, mesh.faces)
    placed = []
    for x in (-0.1, 0.1):
        T = np.eye(4)
        T[:3, 3] = x, 0.0, 0.025
        placed.append((thing, T))
    return assemble(placed)


class Cell:
    """A gripper that closes and holds as the test says, and the lines that it was told."""

    def __init__(self, file: Path | None = None) -> None:
        self.values = {"OBJ": 3, "PRE": 0}
        self.told: list[str] = []
        self.presence = Presence(scene(), BIN, self.values.__getitem__, self.told.append, file)

    def at(self, x: float, y: float, z: float, holds: bool = False, yaw: float = 0.0) -> None:
        self.values.update(OBJ=2 if holds else 3, PRE=255 if holds else 0)
        self.presence.update(top_down(x, y, z, yaw))

    def height(self, x: float, y: float) -> float:
        """Of the drawn scene there."""
        down = np.array([[0, 0, -1]], np.float32)
        t = self.presence.renderer.range(np.array([[x, y, 1]], np.float32), down)
        return max(0.0, 1.0 - float(t[0]))


def test_the_width_between_the_fingers_is_told_to_the_gripper() -> None:
    cell = Cell()
    cell.at(-0.1, 0.0, 0.30)  # too high to look
    assert cell.told == []
    cell.at(-0.1, 0.0, 0.02)
    assert cell.told == ["gripper object=0.0400"]
    cell.at(-0.1, 0.0, 0.02, yaw=np.pi / 2)  # 80 mm along y
    assert cell.told[-1] == "gripper object=0.0800"
    cell.at(0.0, 0.2, 0.02)
    assert cell.told[-1] == "gripper"


def test_what_is_held_is_not_drawn_and_what_falls_into_the_bin_stays_away(tmp_path: Path) -> None:
    file = tmp_path / "gone.json"
    cell = Cell(file)
    assert cell.height(-0.1, 0.0) == pytest.approx(0.05, abs=1e-4)
    cell.at(-0.1, 0.0, 0.02)
    cell.at(-0.1, 0.0, 0.02, holds=True)
    assert cell.presence.held == 0 and cell.height(-0.1, 0.0) == 0.0
    assert cell.height(0.1, 0.0) == pytest.approx(0.05, abs=1e-4)
    assert Cell(file).presence.held == 0  # another process: the fingers still have it
    cell.at(0.0, 0.4, 0.2, holds=True)
    cell.at(0.0, 0.4, 0.2)
    assert cell.presence.gone == [0] and cell.presence.held is None and cell.told[-1] == "gripper"
    assert Cell(file).height(-0.1, 0.0) == 0.0  # another process, the same bin


def test_what_is_lost_elsewhere_lies_below_the_hand() -> None:
    cell = Cell()
    cell.at(-0.1, 0.0, 0.02)
    cell.at(-0.1, 0.0, 0.02, holds=True)
    cell.at(0.0, 0.15, 0.2, holds=True)
    cell.at(0.0, 0.15, 0.2)
    assert cell.presence.gone == [] and cell.height(-0.1, 0.0) == 0.0
    assert cell.height(0.0, 0.15) == pytest.approx(0.05, abs=1e-4)


def test_the_last_object_leaves_an_empty_table() -> None:
    cell = Cell()
    for x in (-0.1, 0.1):
        cell.at(x, 0.0, 0.02)
        cell.at(x, 0.0, 0.02, holds=True)
        cell.at(0.0, 0.4, 0.2, holds=True)
        cell.at(0.0, 0.4, 0.2)
    assert sorted(cell.presence.gone) == [0, 1]
    assert cell.height(0.1, 0.0) == cell.height(-0.1, 0.0) == 0.0
