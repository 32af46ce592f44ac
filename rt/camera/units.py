"""Units of depths and mounts: metres everywhere, and the likely unit of numbers that cannot be metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001, "0.1mm": 0.0001}
"""Units of depth by name; 0.1mm is a D405's."""
FARTHEST_M, NEAREST_M = 10.0, 0.01
"""A depth image whose middle depth lies beyond these is in another unit."""
_DIVIDED_M = 0.002
"""A middle depth below it is metres divided by 1000 once too often, of a camera that looks 2 m at most."""
MOUNT_M = 2.0
"""A camera farther than this from the hand that carries it is given in another unit."""


def other_unit(depth_m: NDArray[np.floating]) -> str:
    """The likely unit of a depth image (H, W) that is said to be in metres and is not, with the remedy.

    Empty if its middle depth is plausible, if it has no return at all, or if no unit fits.
    """
    middle = _middle(depth_m)
    if NEAREST_M <= middle <= FARTHEST_M:
        return ""
    text = f"the middle depth is {middle:.4g} m, must be from {NEAREST_M:g} to {FARTHEST_M:g} m: "
    if 5e-5 <= middle < _DIVIDED_M:
        return text + "the depths seem to be divided by 1000 once too often"
    for name, divisor, words in (
        ("cm", 100, "centimetres"),
        ("mm", 1000, "millimetres"),
        ("0.1mm", 10000, "tenths of a millimetre (a D405's unit)"),
        ("um", 1_000_000, "micrometres"),
    ):
        if 0.05 <= middle / divisor <= 2.0:
            say = f" (--unit {name})" if name in UNITS_M else ""
            return text + f"the depths seem to be {words}; divide them by {divisor}{say}"
    return ""


def wrong_unit(depth_m: NDArray[np.floating]) -> str:
    """Reason to refuse a depth image (H, W) said to be in metres; empty if there is none."""
    if told := other_unit(depth_m):
        return told
    middle = _middle(depth_m)
    if NEAREST_M <= middle <= FARTHEST_M:
        return ""
    return (
        f"the middle depth is {middle:.4g} m, must be from {NEAREST_M:g} to {FARTHEST_M:g} m: no unit fits a "
        "camera at a hand; give metres"
    )


def _middle(depth_m: NDArray[np.floating]) -> float:
    """Median of the returns; NEAREST_M if there is none."""
    seen = depth_m[(depth_m > 0) & np.isfinite(depth_m)]
    return float(np.median(seen)) if seen.size else NEAREST_M


def wrong_mount(T_hand_camera: ArrayLike) -> str:
    """Reason to refuse a camera's pose (4, 4) on the hand, with the likely unit; empty if it is plausible."""
    away = float(np.linalg.norm(np.asarray(T_hand_camera, np.float64)[:3, 3]))
    if away <= MOUNT_M:
        return ""
    text = f"the camera would be {away:.4g} m from the hand, the limit is {MOUNT_M:g} m"
    if 0.005 <= away / 1000 <= MOUNT_M:
        return text + "; the translation seems to be in millimetres: divide it by 1000"
    return text + "; give the translation in metres"
