"""A depth camera of another make, as rt.camera.Camera: its driver grabs images in millimetres."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError, Frame, Intrinsics, StaleFrameError

Grab = Callable[[], tuple[int, int, NDArray[np.uint16]] | None]
"""The driver: number, middle of the exposure [ns, on the robot's clock] and depth (H, W) [mm, 0 = no
return] of the newest frame, at once; None before the first."""


class OwnCamera:
    """`Camera` over a driver that grabs."""

    def __init__(
        self,
        grab: Grab,
        intrinsics: Intrinsics,
        T_hand_camera: NDArray[np.float64],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._grab, self._clock = grab, clock
        self.intrinsics, self.T_hand_camera = intrinsics, T_hand_camera

    def read_latest(self, max_age_s: float) -> Frame:
        newest = self._grab()
        if newest is None:
            raise StaleFrameError(np.inf, max_age_s)
        number, stamp_ns, depth_mm = newest
        age_s = (self._clock() - stamp_ns) * 1e-9
        if age_s > max_age_s:
            raise StaleFrameError(age_s, max_age_s)
        size = self.intrinsics.height_px, self.intrinsics.width_px
        if depth_mm.shape != size:
            raise CameraError(f"the camera sends {depth_mm.shape}, its intrinsics are for {size}")
        return Frame(stamp_ns, number, depth_mm * np.float32(1e-3), self.intrinsics)
