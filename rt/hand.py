"""The parallel gripper as data: one TOML file in rt/hands/, used by labels, loop and physics alike."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from rt.tools.files import parsed_file

_FOLDER = Path(__file__).parent / "hands"
TRAVEL = "tip_travel_m"
"""Key of the hand file for TipTravel."""
MOST_TRAVEL_M = 0.05
_LENGTH_M, _FORCE_N = (0.0005, 0.5), (1.0, 5000.0)
"""Plausible ranges: lengths of a hand for a wrist [m], grip force [N]."""


class HandError(ValueError):
    """A hand file that is missing, incomplete or impossible."""


@dataclass(frozen=True)
class Hand:
    """A parallel-jaw hand, fully open. Metres.

    Frame `hand`: origin between the fully open fingertips, x along the closing axis, z along the approach.
    Fingers that move along z as they close are described by TipTravel.
    Each finger is a box `finger_thickness_m` (x) by `finger_width_m` (y) by `finger_length_m` (z),
    the palm a box that begins `finger_length_m` behind the fingertips.
    """

    name: str
    opening_m: float
    finger_thickness_m: float
    finger_width_m: float
    finger_length_m: float
    pad_height_m: float
    palm_length_m: float
    palm_width_m: float
    max_force_N: float


@dataclass(frozen=True)
class TipTravel:
    """Travel of the fingertips along z of the hand while the fingers close.

    The arm, the tool centre point and the table's height go by the fully open tips, where the travel is 0.
    Labels and the physics of training go by the tips that hold the object: a hand that shall hold there
    stands `travel(width)` higher.
    """

    openings_m: tuple[float, ...] = (0.0,)
    """Between the pads, rising."""
    travel_m: tuple[float, ...] = (0.0,)
    """Of the tips at each opening, beyond the fully open tips; 0 at the last."""

    @property
    def moves(self) -> bool:
        return any(self.travel_m)

    def __call__(self, opening_m: float) -> float:
        """Travel [m] at an opening [m], linear between the known ones."""
        return float(np.interp(opening_m, self.openings_m, self.travel_m))


def load_tip_travel(name_or_path: str | Path = "robotiq_2f85") -> TipTravel:
    """The travel of a hand's tips, of the same file as load_hand reads; none where the file tells none.

    Raises HandError for openings that do not rise from 0 to the hand's, or a travel that is negative, above
    50 mm, or not 0 at the full opening.
    """
    path, values = _read(name_or_path)
    if TRAVEL not in values:
        return TipTravel()
    rows, opening_m = values[TRAVEL], values.get("opening_m")
    try:
        openings, travel = zip(*((float(o), float(z)) for o, z in rows), strict=True)
    except (TypeError, ValueError) as error:
        raise HandError(f"{path}: {TRAVEL} must be a list of [opening, travel] pairs") from error
    if list(openings) != sorted(set(openings)) or openings[0] != 0 or openings[-1] != opening_m:
        raise HandError(
            f"{path}: the openings of {TRAVEL}, {list(openings)} m, must rise from 0 to opening_m = "
            f"{opening_m}"
        )
    if travel[-1] != 0 or not all(0 <= z <= MOST_TRAVEL_M for z in travel):
        raise HandError(
            f"{path}: the travels of {TRAVEL}, {list(travel)} m, must be from 0 to {MOST_TRAVEL_M:g} m, "
            "and 0 at the full opening"
        )
    return TipTravel(openings, travel)


def load_hand(name_or_path: str | Path = "robotiq_2f85") -> Hand:
    """Read a hand by name (a file of rt/hands/) or from a TOML file of the user's own.

    Raises HandError, naming the file and the field, if anything is missing, unknown or implausible.
    """
    path, values = _read(name_or_path)
    values.pop(TRAVEL, None)
    names = [field.name for field in fields(Hand)]
    if missing := [n for n in names if n not in values]:
        raise HandError(f"{path}: missing {', '.join(missing)}")
    if unknown := [n for n in values if n not in names]:
        raise HandError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(names)}")
    for name in names[1:]:
        number = values[name]
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise HandError(f"{path}: {name} = {number!r} must be a number")
        low, high = _FORCE_N if name == "max_force_N" else _LENGTH_M
        if not low <= number <= high:
            mm = name.endswith("_m") and low <= number / 1e3 <= high
            raise HandError(
                f"{path}: {name} = {number:g} must be from {low:g} to {high:g}"
                + (f"; is it meant in mm? That would be {number / 1e3:g} m" if mm else "")
            )
        values[name] = float(number)
    hand = Hand(**values)
    if hand.pad_height_m > hand.finger_length_m:
        raise HandError(
            f"{path}: pad_height_m = {hand.pad_height_m:g} m must be at most finger_length_m = "
            f"{hand.finger_length_m:g} m, which it is part of"
        )
    return hand


def _read(name_or_path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The file and its values. Raises HandError."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = _FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.toml")))
        raise HandError(f"no hand {str(name_or_path)!r}: give a .toml file or one of: {known}")
    try:
        return path, parsed_file(tomllib.loads, path)
    except ValueError as error:
        raise HandError(f"{path} is not a TOML file: {error}") from error
