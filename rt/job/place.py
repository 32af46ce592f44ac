"""Places to put things down: the pose of [place], or the pattern that fills its area."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rt.cell.file import PlacePart


def slots(place: PlacePart) -> list[NDArray[np.float64]]:
    """Hands (4,) of x, y, z [m], yaw [rad], in the order in which they are filled: along x, row by row."""
    x, y, z, yaw_deg = place.pose
    xs = x + place.area_m[0] * ((np.arange(place.columns) + 0.5) / place.columns - 0.5)
    ys = y + place.area_m[1] * ((np.arange(place.rows) + 0.5) / place.rows - 0.5)
    return [np.array([a, b, z, math.radians(yaw_deg)]) for b in ys for a in xs]
