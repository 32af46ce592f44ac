"""Robot arms: one small protocol and its data."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Transform = NDArray[np.float64]


class RobotError(RuntimeError):
    """An arm that is missing, lost, stopped, or that refuses what is asked of it."""

    name = "robot"
    """Kind of the fault, a word for the record: protective_stop, connection_lost, ..."""


@dataclass(frozen=True)
class RobotState:
    """Pose and motion of the hand, from one packet of the robot."""

    stamp_ns: int
    """When it was measured, on the robot's clock (`Robot.now_ns`)."""
    T_base_hand: Transform
    """(4, 4)"""
    twist: NDArray[np.float64]
    """(6,) in base: linear velocity of the hand's origin [m/s], angular velocity [rad/s]."""
    wrench: NDArray[np.float64] | None = None
    """(6,) on the tool in base [N, Nm], as the controller gives it; None without a sensor."""
    q: NDArray[np.float64] | None = None
    """(6,) joint positions [rad]."""
    qd: NDArray[np.float64] | None = None
    """(6,) joint speeds [rad/s]."""
    settings: NDArray[np.float64] | None = None
    """(3,) of the controller: speed slider and speed scaling (1: full speed), payload [kg]; NaN: not told."""


class Robot(AbstractContextManager["Robot"], Protocol):
    """An arm that follows a streamed target. Leaving the context stops it.

    One that is known to rt.robot.kinematics may also have `arm_model`, and `T_robot_base` (4, 4) if what it
    calls base is not the arm's own: its joints are then looked at before anything moves (rt.guard.reach).
    """

    def now_ns(self) -> int:
        """The clock that stamps this robot's and its camera's data: time.monotonic_ns on real
        devices, simulated time on the twin."""

    def state(self) -> RobotState:
        """The newest state, at once. Raises RobotError if the arm is lost or stopped by itself."""

    def move(self, T_base_hand: Transform) -> None:
        """Streams a target (4, 4) for the hand; the arm goes there smoothly and holds the last."""

    def stop(self) -> None:
        """Commands zero velocity now; the target is forgotten. May be called at any time, twice."""
