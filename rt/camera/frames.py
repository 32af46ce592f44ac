"""Frames: of a recording, those kept for the grasp's depth, and the count of views that repeat themselves."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.camera.protocol import Frame

_LATE_VIEWS, _EARLY_VIEWS, _EARLY_EVERY_M = 8, 12, 0.01
_LATE_FRAMES_M = 0.03
"""Frames taken at most this far above the end height count as the last ones."""
_MOVED_M = 0.002
"""Pictures from places farther apart than this differ."""


@dataclass(frozen=True)
class Recorded:
    """One frame as it lies in the recording."""

    stamp_ns: int
    """Middle of its exposure, on the recording's clock."""
    number: int
    pixels: NDArray[np.uint16] | NDArray[np.float32]
    unit_m: float
    """Of the pixels; 1 for float32."""

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) metres."""
        if self.pixels.dtype == np.float32:
            return np.asarray(self.pixels, dtype=np.float32)
        return np.multiply(self.pixels, np.float32(self.unit_m), dtype=np.float32)


@dataclass(frozen=True)
class PosedFrame:
    """A depth image that passed the guard, and the camera's pose at its exposure."""

    depth: NDArray[np.float32]
    T_base_camera: NDArray[np.float64]
    hand_m: float
    """Height of the hand."""
    stamp_ns: int = 0
    """Time of the exposure, on the robot's clock."""


class KeptFrames:
    """Posed frames for the grasp's depth: the last ones, and one every centimetre on the way down."""

    def __init__(self) -> None:
        self._late: deque[PosedFrame] = deque(maxlen=_LATE_VIEWS)
        self._early: deque[PosedFrame] = deque(maxlen=_EARLY_VIEWS)

    def keep(self, frame: PosedFrame) -> None:
        if not self._early or self._early[-1].hand_m - frame.hand_m > _EARLY_EVERY_M:
            self._early.append(frame)
        if not self._late or self._late[-1].depth is not frame.depth:
            self._late.append(frame)

    def late(self, end_m: float) -> list[PosedFrame]:
        """The last frames, from near the end height."""
        return [f for f in self._late if f.hand_m < end_m + _LATE_FRAMES_M]

    def early(self, end_m: float) -> list[PosedFrame]:
        """Frames from higher up."""
        return [f for f in self._early if f.hand_m >= end_m + _LATE_FRAMES_M]


class RepeatedViews:
    """Counts new frames in a row that show the same view although the hand has moved."""

    def __init__(self) -> None:
        self._number, self._view = -1, np.zeros(0, np.float32)
        self._seen_from, self._same = np.full(3, np.inf), 0

    def count(self, frame: Frame, view: NDArray[np.float32], hand: NDArray[np.float64]) -> int:
        """view: as reprojected from the frame; hand: (4,) at its exposure."""
        if frame.number != self._number:
            if float(np.linalg.norm(hand[:3] - self._seen_from)) > _MOVED_M:
                self._same = self._same + 1 if np.array_equal(view, self._view) else 0
                self._seen_from = hand[:3].copy()
            self._number, self._view = frame.number, view
        return self._same
