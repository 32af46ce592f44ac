"""rt.robot: where the hand was when a frame was exposed; cells by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.cell.open import open_cell
from rt.pose import from_top_down, top_down
from rt.robot import PoseHistory, RobotError, RobotState
from rt.robot.target import ArmTarget
from rt.tools.resolve import ResolveError

MS = 1_000_000


def state(t_ms: int, x: float = 0.0, yaw: float = 0.0) -> RobotState:
    return RobotState(t_ms * MS, top_down(x, 0.0, 0.3, yaw), np.zeros(6))


@given(st.floats(0, 100))
def test_steady_motion_is_interpolated_exactly(t_ms: float) -> None:
    history = PoseHistory()
    for k in range(0, 101, 20):
        history.append(state(k, x=0.001 * k, yaw=0.01 * k))
    x, _, _, yaw = from_top_down(history.at(round(t_ms * MS)))
    assert x == pytest.approx(0.001 * t_ms, abs=1e-8)
    assert yaw == pytest.approx(0.01 * t_ms, abs=1e-7)
    assert history.gap_s(round(t_ms * MS)) == 0


def test_outside_the_history_the_nearest_pose_is_given_and_the_gap_told() -> None:
    history = PoseHistory(length=3)
    for k in range(5):
        history.append(state(10 * k, x=k))
    assert from_top_down(history.at(0))[0] == 2  # 0 and 10 ms are forgotten
    assert history.gap_s(0) == pytest.approx(0.020)
    assert from_top_down(history.at(50 * MS))[0] == 4
    assert history.gap_s(50 * MS) == pytest.approx(0.010)


def test_the_same_packet_twice_is_kept_once() -> None:
    history = PoseHistory(length=2)
    history.append(state(0, x=1))
    for _ in range(5):
        history.append(state(10, x=2))
    assert from_top_down(history.at(0))[0] == 1


def test_an_empty_history_knows_nothing() -> None:
    history = PoseHistory()
    assert history.gap_s(0) == float("inf")
    with pytest.raises(RobotError, match="no robot state"):
        history.at(0)


def test_an_unknown_robot_lists_the_known_ones() -> None:
    with pytest.raises(ResolveError, match=r"'kuka'.*twin"):
        open_cell("kuka")


def test_rt_runs_without_the_simulation() -> None:
    """Importing the command loads no module of sim, train, calib or bench."""
    code = (
        "import sys, rt.servo; "
        "print([m for m in sys.modules if m.split('.')[0] in ('sim', 'train', 'calib', 'bench')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


def test_a_frozen_target_keeps_the_turn_of_its_yaw() -> None:
    """A hand at 3.2 rad is measured as -3.08: a way on from there must not turn all around."""

    class Stands:
        T_base_hand = top_down(0.1, 0.2, 0.3, 3.2)

        def state(self) -> Any:
            return self

        def move(self, T_base_hand: Any) -> None: ...
        def now_ns(self) -> int:
            return 0

    robot: Any = Stands()
    target = ArmTarget(robot)
    target.send(np.array([0.1, 0.2, 0.3, 3.2]))
    target.freeze(robot.T_base_hand, 0.0)
    assert np.allclose(target.commanded, [0.1, 0.2, 0.3, 3.2])
