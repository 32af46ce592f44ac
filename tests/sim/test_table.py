"""sim.physics.table and sim.table: objects are pushed, gripped, carried, dropped, binned and seen there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from needs import needed

needed("physics", "mujoco")

import trimesh

from rt.cell.cell import Cell
from rt.pose import top_down
from sim import table
from sim.physics.table import DropBin
from sim.scene.objects import make_object
from sim.scene.scene import assemble

PERIOD_NS = 33_333_333


def one_box(x: float = 0.0, y: float = 0.0) -> Cell:
    mesh = trimesh.creation.box((0.05, 0.09, 0.04))
    T = np.eye(4)
    T[:3, 3] = x, y, 0.02
    return table.build(assemble([(make_object("box", "box", mesh.vertices, mesh.faces), T)]))


def world_of(cell: Cell) -> Any:
    robot: Any = cell.robot
    return robot.world


def go(cell: Cell, x: float, y: float, z: float, seconds: float, yaw: float = 0.0) -> None:
    cell.robot.move(top_down(x, y, z, yaw))
    for _ in range(round(seconds * 30)):
        cell.advance(PERIOD_NS)


def grip(cell: Cell) -> None:
    assert cell.gripper is not None
    cell.gripper.close()
    for _ in range(60):
        cell.advance(PERIOD_NS)
        if not cell.gripper.state().moving:
            return
    raise AssertionError("the fingers never stopped")


def test_nothing_is_computed_while_nothing_can_change() -> None:
    cell = one_box()
    go(cell, 0.1, 0.1, 0.25, 1.0)
    assert world_of(cell).steps == 0


def test_pick_carry_and_drop_into_the_bin() -> None:
    cell = one_box()
    world, gripper = world_of(cell), cell.gripper
    assert gripper is not None and gripper.state().width_m == pytest.approx(0.085, abs=1e-3)
    go(cell, 0, 0, 0.01, 2.0)
    grip(cell)
    state = gripper.state()
    assert state.holding and state.width_m == pytest.approx(0.05, abs=2e-3)
    go(cell, 0, 0, 0.25, 2.0)
    assert gripper.state().holding and world.place(0)[2] > 0.2
    mass_N = 9.81 * float(world.model.body_mass[world._bodies[0]])
    wrench = cell.robot.state().wrench
    assert wrench is not None and wrench[2] == pytest.approx(-mass_N, rel=0.1)
    go(cell, 0.0, 0.4, 0.25, 2.0)
    assert gripper.state().holding and world.binned == []
    gripper.open()
    go(cell, 0.0, 0.4, 0.25, 1.5)
    state = gripper.state()
    assert world.binned == [0] and not state.holding and not state.moving
    assert world.present() == [] and len(world.scene().placed) == 0


def test_closing_on_nothing_and_losing_an_object() -> None:
    cell = one_box()
    world, gripper = world_of(cell), cell.gripper
    assert gripper is not None
    go(cell, 0.2, 0.2, 0.02, 2.0)
    grip(cell)
    assert not gripper.state().holding and gripper.state().width_m < 0.002
    gripper.open()
    go(cell, 0.2, 0.2, 0.2, 1.0)
    go(cell, 0, 0, 0.2, 1.0)
    go(cell, 0, 0, 0.01, 1.5)
    grip(cell)
    go(cell, 0, 0, 0.2, 1.5)
    assert gripper.state().holding
    world.data.xfrc_applied[world.model.body("object0").id][2] = -60.0
    lost_after = 0
    while gripper.state().holding and lost_after < 60:
        cell.advance(PERIOD_NS)
        lost_after += 1
    assert lost_after / 30 < 0.5 and world.place(0)[2] < 0.2


def test_a_pushed_object_is_seen_where_it_lies() -> None:
    cell = one_box()
    world = world_of(cell)
    go(cell, -0.15, 0.0, 0.25, 0.6)
    before = cell.camera.read_latest(1.0).depth.copy()
    go(cell, -0.15, 0.0, 0.01, 1.5)
    assert world.place(0)[0] == pytest.approx(0.0, abs=1e-3)
    go(cell, -0.03, 0.0, 0.01, 2.0)  # a finger's outside against its side
    pushed = world.place(0)[0]
    assert pushed > 0.03
    force = cell.robot.state().wrench
    assert force is not None and np.linalg.norm(force[:3]) > 0
    go(cell, -0.03, 0.0, 0.25, 2.0)
    go(cell, -0.15, 0.0, 0.25, 2.0)
    after = cell.camera.read_latest(1.0).depth
    assert np.abs(after - before).max() > 0.01
    steps = world.steps
    go(cell, -0.15, 0.0, 0.25, 1.0)
    assert world.steps == steps  # at rest again


def test_the_table_stops_the_hand() -> None:
    cell = one_box(0.2, 0.2)
    go(cell, -0.1, -0.1, 0.05, 1.5)
    cell.robot.move(top_down(-0.1, -0.1, -0.001, 0.0))
    most = 0.0
    for _ in range(60):
        cell.advance(PERIOD_NS)
        wrench = cell.robot.state().wrench
        assert wrench is not None
        most = max(most, float(wrench[2]))
    assert most > 30.0  # N, upward


def test_the_bin_takes_what_is_inside_below_its_rim() -> None:
    bin_ = DropBin(0.0, 0.4, rim_m=0.1)
    assert bin_.holds(np.array([0.05, 0.35, 0.05])) and not bin_.holds(np.array([0.05, 0.35, 0.15]))
    assert not bin_.holds(np.array([0.05, 0.20, 0.05])) and len(bin_.walls()) == 4


def test_tables_repeat_themselves_and_the_bin_stands_beside_them() -> None:
    a, b = table.table_scene(0, 3, 4), table.table_scene(0, 3, 4)
    assert np.array_equal(a.vertices, b.vertices) and len(a.placed) == 4
    assert not np.array_equal(a.vertices[:10], table.table_scene(0, 4, 4).vertices[:10])
    place = table.around(a)
    for thing in a.placed:
        x, y = thing.T_world_object[:2, 3]
        assert abs(x) <= place.look_m[0] / 2 and abs(y) <= place.look_m[1] / 2
    assert place.pose[1] - DropBin(0, 0).size_y_m / 2 > place.look_m[1] / 2
