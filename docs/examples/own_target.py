"""A wanted object of one's own: the largest patch of one colour in the camera's picture.

python -m rt.servo --target own_target:red
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

LEAST_PX = 12
"""Smaller patches are reflections."""


def red(colour: NDArray[np.uint8] | None, depth: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Called in a process of its own, up to ten times a second.

    colour: (H, W, 3) RGB in the pixels of depth (H, W) [m], None from a camera without colour. Returns a mask
    (H, W), or a box (u0, v0, u1, v1) in pixels; None where the object is not seen.
    """
    if colour is None:
        raise ValueError("this camera gives no colour")
    r, g, b = np.moveaxis(colour.astype(int), -1, 0)
    patches, count = label((r > 1.8 * np.maximum(g, b)) & (r > 80))
    if not count:
        return None
    sizes = np.bincount(patches.ravel())[1:]
    if sizes.max() < LEAST_PX:
        return None
    return np.asarray(patches == 1 + sizes.argmax())
