"""An arm of another make, as rt.robot.Robot: only what its vendor's library must offer is assumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rt.pose import inverse
from rt.robot import RobotError, RobotState


class Vendor(Protocol):
    """The vendor's library: poses of the flange in the base are x, y, z [m], rotation vector [rad]."""

    def read(self) -> tuple[int, NDArray[np.float64], NDArray[np.float64], bool]:
        """Stamp [ns, the clock's], pose (6,), velocity (6,) [m/s, rad/s] of the flange, running."""

    def servo(self, pose: NDArray[np.float64]) -> None:
        """Streams a target (6,) for the flange; must time out by itself when no other follows."""

    def halt(self) -> None:
        """Brakes at once."""


class OwnArm:
    """`Robot` over a Vendor. Streams targets; the vendor's controller interpolates between them."""

    def __init__(
        self,
        vendor: Vendor,
        T_flange_hand: NDArray[np.float64],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._vendor, self._clock = vendor, clock
        self._T_flange_hand, self._T_hand_flange = T_flange_hand, inverse(T_flange_hand)

    def __enter__(self) -> OwnArm:
        self.state()  # refuse to begin with an arm that is lost
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def now_ns(self) -> int:
        return self._clock()

    def state(self) -> RobotState:
        stamp_ns, pose, velocity, running = self._vendor.read()
        if not running:
            raise RobotError("the arm has stopped by itself; see its pendant, then start again")
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_rotvec(pose[3:]).as_matrix(), pose[:3]
        lever = T[:3, :3] @ self._T_flange_hand[:3, 3]  # from the flange to the hand, in base
        linear = velocity[:3] + np.cross(velocity[3:], lever)
        return RobotState(stamp_ns, T @ self._T_flange_hand, np.concatenate([linear, velocity[3:]]))

    def move(self, T_base_hand: NDArray[np.float64]) -> None:
        T = T_base_hand @ self._T_hand_flange
        turn = Rotation.from_matrix(T[:3, :3]).as_rotvec()
        self._vendor.servo(np.concatenate([T[:3, 3], turn]))

    def stop(self) -> None:
        self._vendor.halt()
