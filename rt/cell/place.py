"""[place] of a cell: the place above a bin to put things down, and the table to clear (rt.clear)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.cell.plausible import check_ranges, check_value
from rt.cell.transform import check_degrees
from rt.guard.limits import Limits, outside

REACH_M = 0.14
"""One look finds grasps this far to either side of the hand: the training views lie within 0.12 m of an
object's centre, and grasps lie around it."""


@dataclass(frozen=True)
class PlacePart:
    """[place]; rt.cell.plausible has the ranges of its values. Raises CellError."""

    pose: tuple[float, float, float, float]
    """x, y, z [m], yaw [deg] of the fingertips where they open."""
    home: tuple[float, float, float]
    """x, y, z [m] of the fingertips above the middle of what is to be cleared, from where it is looked at."""
    look_m: tuple[float, float] = (0.3, 0.3)
    """Size in x, y of what is to be cleared, around `home`."""
    area_m: tuple[float, float] = (0.0, 0.0)
    """Size in x, y of the area around `pose` that is filled in a pattern; 0: always the pose itself."""
    rows: int = 1
    """Places of the pattern along y."""
    columns: int = 1
    """Places of the pattern along x."""
    carry_m: float = 0.30
    """Least height of the fingertips on the way."""
    speed_m_s: float = 0.25
    """Of the moves between table and place."""
    acceleration_m_s2: float = 1.0
    turn_deg_s: float = 90.0
    contact_N: float = 30.0
    """Force, beyond the weight of what is carried, at which the hand stops, backs off and puts it back."""

    def __post_init__(self) -> None:
        check_ranges("place", vars(self))
        check_value("place.pose[:3]", self.pose[:3])
        check_degrees(np.array(self.pose[3:]), "place.pose[3]")

    def slots(self) -> list[NDArray[np.float64]]:
        """Hands (4,) of x, y, z [m], yaw [rad], in the order of filling: along x, row by row."""
        x, y, z, yaw_deg = self.pose
        xs = _spread(x, self.area_m[0], self.columns)
        ys = _spread(y, self.area_m[1], self.rows)
        return [np.array([a, b, z, math.radians(yaw_deg)]) for b in ys for a in xs]

    def looks(self) -> list[NDArray[np.float64]]:
        """Hands' x, y, z (3,) [m] from which looks cover all that is to be cleared, in a path without long
        ways."""
        columns, rows = (max(math.ceil(size / (2 * REACH_M)), 1) for size in self.look_m)
        xs = _spread(self.home[0], self.look_m[0], columns)
        ys = _spread(self.home[1], self.look_m[1], rows)
        there_and_back = (ys, ys[::-1])
        return [
            np.array([x, y, self.home[2]]) for k, x in enumerate(xs) for y in there_and_back[k % 2]
        ]

    def trouble(self, limits: Limits) -> str:
        """Reason why the limits keep the hand from a place, or an empty text."""
        named = [("home", [np.array(self.home)]), ("look_m", self.looks()), ("pose", self.slots())]
        for key, hands in named:
            for hand in hands:
                for name, z in ((key, hand[2]), ("carry_m", max(hand[2], self.carry_m))):
                    if why := outside(np.array([*hand[:2], z]), limits):
                        return f"place.{name}: {why}"
        return ""


def _spread(middle: float, size: float, count: int) -> NDArray[np.float64]:
    """Middles (count,) of equal parts of a length."""
    return np.asarray(middle + size * ((np.arange(count) + 0.5) / count - 0.5))
