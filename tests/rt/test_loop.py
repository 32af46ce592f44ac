"""rt.loop: the arm's target, and the difference between hold, brake, freeze and stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rt.camera.frames import KeptFrames, PosedFrame, RepeatedViews
from rt.pose import top_down
from rt.robot import RobotError, RobotState
from rt.robot.target import ArmTarget, xyz_yaw

START = np.array([0.1, -0.2, 0.3, 0.4])


class Arm:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.now = 0
        self.lost = False

    def now_ns(self) -> int:
        return self.now

    def state(self) -> RobotState:
        return RobotState(self.now, top_down(*START), np.zeros(6))

    def move(self, T_base_hand: np.ndarray) -> None:
        if self.lost:
            raise RobotError("no arm")
        self.told.append(xyz_yaw(T_base_hand))

    def stop(self) -> None:
        self.told.append("stop")


@pytest.fixture
def arm() -> Arm:
    return Arm()


def test_the_target_begins_where_the_arm_is_and_is_read_only(arm: Arm) -> None:
    target = ArmTarget(arm)  # type: ignore[arg-type]
    np.testing.assert_allclose(target.commanded, START)
    with pytest.raises(ValueError, match="read-only"):
        target.commanded[2] = 0.0
    with pytest.raises(AttributeError):
        target.commanded = START  # type: ignore[misc]
    command = START + 0.01
    target.send(command)
    command[:] = 0  # the caller's array is the caller's
    np.testing.assert_allclose(target.commanded, START + 0.01)


def test_hold_brake_and_freeze(arm: Arm) -> None:
    target = ArmTarget(arm)  # type: ignore[arg-type]
    ahead = START + np.array([0.02, 0, 0, 0])
    arm.now = 1
    target.send(ahead)
    np.testing.assert_allclose(target.before, START)
    arm.now = 2
    target.hold()
    np.testing.assert_allclose(arm.told[-1], ahead)
    np.testing.assert_allclose(target.before, ahead)  # as if the last step were none
    assert target.sent_ns == 2
    target.brake()
    assert arm.told[-1] == "stop" and target.sent_ns is None and target.before is None
    np.testing.assert_allclose(target.commanded, ahead)  # to go on from
    target.freeze(top_down(*START), floor_m=0.35)
    np.testing.assert_allclose(target.commanded, [*START[:2], 0.35, START[3]])
    np.testing.assert_allclose(arm.told[-1], target.commanded)


def test_a_target_that_the_arm_did_not_take_is_none(arm: Arm) -> None:
    target = ArmTarget(arm)  # type: ignore[arg-type]
    arm.lost = True
    with pytest.raises(RobotError):
        target.send(START + 0.01)
    np.testing.assert_allclose(target.commanded, START)
    assert target.sent_ns is None


def test_frames_are_kept_by_height() -> None:
    frames, depth = KeptFrames(), np.zeros((2, 2), np.float32)
    for height_m in np.arange(0.30, 0.149, -0.002):
        frames.keep(PosedFrame(depth.copy(), np.eye(4), float(height_m)))
    late, early = frames.late(0.15), frames.early(0.15)
    assert len(late) == 8 and all(f.hand_m < 0.18 for f in late)
    assert early and all(f.hand_m >= 0.18 for f in early)
    gaps = -np.diff([f.hand_m for f in early])
    assert (gaps > 0.0099).all()


def test_a_repeated_view_counts_only_if_the_hand_moved() -> None:
    class Frame:
        def __init__(self, number: int) -> None:
            self.number = number

    repeated, view = RepeatedViews(), np.ones((4, 4), np.float32)

    def count(number: int, x_m: float, picture: np.ndarray = view) -> int:
        return repeated.count(Frame(number), picture, np.array([x_m, 0, 0, 0]))  # type: ignore[arg-type]

    assert [count(1, 0.0), count(2, 0.0), count(3, 0.01), count(4, 0.02)] == [0, 0, 1, 2]
    assert count(4, 0.03) == 2  # the same frame again
    assert count(5, 0.03, 2 * view) == 0
