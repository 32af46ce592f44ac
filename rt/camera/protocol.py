"""Depth cameras: one small protocol and the frame that it hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rt.camera.intrinsics import Intrinsics


@dataclass(frozen=True)
class Frame:
    """One depth image."""

    stamp_ns: int
    """Middle of the exposure, on the robot's clock (`Robot.now_ns`)."""
    number: int
    """Counts the camera's frames; the same number is the same frame."""
    depth: NDArray[np.float32]
    """(H, W) float32, metres along the optical axis; 0 = no return."""
    intrinsics: Intrinsics
    colour: NDArray[np.uint8] | None = None
    """(H, W, 3) RGB in the pixels of `depth`, for a function that chooses the object; None: there is none."""


class Camera(Protocol):
    """A depth camera on the hand."""

    @property
    def T_hand_camera(self) -> NDArray[np.float64]:
        """Camera's pose, (4, 4): maps points in `camera` (x right, y down, z forward) to `hand`."""

    @property
    def intrinsics(self) -> Intrinsics:
        """Of every frame that it will hand out."""

    def read_latest(self, max_age_s: float) -> Frame:
        """The newest frame, at once. Raises StaleFrameError if it is older than `max_age_s`, and
        CameraError if the camera is lost."""
