"""The canonical camera: the 64x64 depth view, fixed to the hand, that the network is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class View:
    """A square pinhole depth camera whose frame is the hand's: x right, y down, z along the approach.

    A pixel (u, v) looks along ((u + 0.5 - size/2) / f, (v + 0.5 - size/2) / f, 1). A depth is metres
    along z; one outside [near_m, far_m], or none at all, is 0.
    """

    size_px: int = 64
    fov_deg: float = 70.0
    near_m: float = 0.01
    far_m: float = 0.60

    @property
    def focal_px(self) -> float:
        return self.size_px / 2 / float(np.tan(np.radians(self.fov_deg) / 2))

    def rays(self) -> NDArray[np.float32]:
        """Direction of every pixel, (size, size, 3) float32, z = 1 (so range along it is depth)."""
        c = ((np.arange(self.size_px) + 0.5 - self.size_px / 2) / self.focal_px).astype(np.float32)
        x, y = np.meshgrid(c, c)
        return np.stack([x, y, np.ones_like(x)], axis=-1)


VIEW = View()
"""The view of every network in this project, unless its metadata says otherwise."""

START_HEIGHT_M, END_HEIGHT_M = 0.30, 0.15
"""The hand's travel above the table (Viereck et al. 2017, Section IV)."""
