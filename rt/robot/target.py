"""The hand pose that the arm is told to be at, and the only methods that change it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rt.pose import from_top_down, top_down
from rt.robot.protocol import Robot


class ArmTarget:
    """The hand pose that the arm is told to be at. Only `send` and `freeze` change `commanded`."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._commanded = _locked(xyz_yaw(robot.state().T_base_hand))
        self.before: NDArray[np.float64] | None = None
        """(4,) the target before this one; None: the arm starts from rest."""
        self.sent_ns: int | None = None
        """Time of the last target on the robot's clock; None: the arm has been stopped."""

    @property
    def commanded(self) -> NDArray[np.float64]:
        """(4,) of x, y, z [m], yaw [rad] in base, read-only."""
        return self._commanded

    def send(self, command: NDArray[np.float64]) -> None:
        """A new target (4,). Raises RobotError; the old target is then kept."""
        self._robot.move(top_down(*command))
        self.before, self._commanded = self._commanded, _locked(command)
        self.sent_ns = self._robot.now_ns()

    def hold(self) -> None:
        """The same target again, so that it stays younger than the arm's watchdog allows."""
        self._robot.move(top_down(*self._commanded))
        self.before = self._commanded
        self.sent_ns = self._robot.now_ns()

    def freeze(self, T_base_hand: NDArray[np.float64], floor_m: float) -> None:
        """The measured pose (4, 4), no lower than floor_m, becomes the target."""
        hand = xyz_yaw(T_base_hand)
        hand[2] = max(hand[2], floor_m)
        # Of its equal yaws that nearest to the target so far: a way from there must not turn all around.
        turn = math.remainder(float(hand[3] - self._commanded[3]), 2 * math.pi)
        hand[3] = self._commanded[3] + turn
        self._commanded = _locked(hand)
        self.hold()

    def brake(self) -> None:
        """Robot.stop; the target stays, to go on from."""
        self._robot.stop()
        self.sent_ns = self.before = None


def _locked(hand: NDArray[np.float64]) -> NDArray[np.float64]:
    hand = hand.copy()
    hand.setflags(write=False)
    return hand


def xyz_yaw(T_base_hand: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) of x, y, z [m], yaw [rad] of a hand that looks straight down."""
    return np.array(from_top_down(T_base_hand))
