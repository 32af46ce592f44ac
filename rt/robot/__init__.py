"""Robot arms: one small protocol, its data, and how a cell (arm and camera) is opened by name.

A device is a module of this folder, or the simulated twin; it offers `open_cell`.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rt.camera import Camera
from rt.gripper import Gripper
from rt.pose import interpolate

Transform = NDArray[np.float64]


class RobotError(RuntimeError):
    """An arm that is missing, lost, stopped, or that refuses what is asked of it."""

    name = "robot"
    """What went wrong, in a word for the record: protective_stop, connection_lost, ..."""


@dataclass(frozen=True)
class RobotState:
    """Where the hand is and how it moves, from one packet of the robot."""

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


class Robot(AbstractContextManager["Robot"], Protocol):
    """An arm that follows a streamed target. Leaving the context stops it.

    One that is known to rt.robot.kinematics may also have `arm_model`, and `T_robot_base` (4, 4) if what it
    calls base is not the arm's own: its joints are then looked at before anything moves (rt.reach).
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


@dataclass
class Cell:
    """An arm, a camera and perhaps a gripper that share a clock, and what only a simulated world offers."""

    robot: Robot
    camera: Camera
    name: str
    info: dict[str, Any] = field(default_factory=dict)
    """What the record should say about it: scene, objects, mount, ..."""
    advance: Callable[[int], None] = lambda period_ns: None
    """Lets a simulated world pass `period_ns`; a real one passes by itself."""
    true_distance_m: Callable[[], float] | None = None
    """Distance from the hand now to the nearest true grasp, where that is known."""
    gripper: Gripper | None = None


CELLS = {"twin": "sim.twin"}
"""Modules that offer `open_cell(**options) -> Cell`, by the name the user gives. They are imported
only when asked for: rt needs neither the simulation nor any driver that is not used."""


def open_cell(name: str, **options: Any) -> Cell:
    """Open an arm and its camera by name; raises RobotError for one that is not known."""
    if name not in CELLS:
        raise RobotError(f"no robot {name!r}; known are: {', '.join(sorted(CELLS))}")
    return cast(Cell, importlib.import_module(CELLS[name]).open_cell(**options))


class PoseHistory:
    """The last poses of the hand, to find where it was when a frame was exposed."""

    def __init__(self, length: int = 256) -> None:
        self._states: deque[RobotState] = deque(maxlen=length)

    def append(self, state: RobotState) -> None:
        """Keep a state; one that is not newer than the last is the same packet, and is ignored."""
        if not self._states or state.stamp_ns > self._states[-1].stamp_ns:
            self._states.append(state)

    def gap_s(self, stamp_ns: int) -> float:
        """How far a time lies outside the history, seconds: 0 if poses on both sides are known."""
        if not self._states:
            return float("inf")
        first, last = self._states[0].stamp_ns, self._states[-1].stamp_ns
        return max(first - stamp_ns, stamp_ns - last, 0) * 1e-9

    def at(self, stamp_ns: int) -> Transform:
        """T_base_hand (4, 4) at that time: interpolated, or the nearest end of the history."""
        if not self._states:
            raise RobotError("no robot state has arrived yet")
        after = self._states[-1]
        if stamp_ns >= after.stamp_ns:
            return after.T_base_hand
        for before in reversed(self._states):
            if before.stamp_ns <= stamp_ns:
                part = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
                return interpolate(before.T_base_hand, after.T_base_hand, part)
            after = before
        return after.T_base_hand
