"""The parallel gripper as data: one TOML file in rt/hands/, used by labels, loop and physics alike."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

_FOLDER = Path(__file__).parent / "hands"


class HandError(ValueError):
    """A hand file that is missing, incomplete or impossible."""


@dataclass(frozen=True)
class Hand:
    """A parallel-jaw hand, fully open. Metres.

    Frame `hand`: origin between the fingertips, x along the closing axis, z along the approach.
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


def load_hand(name_or_path: str | Path = "robotiq_2f85") -> Hand:
    """Read a hand by name (a file of rt/hands/) or from a TOML file of the user's own.

    Raises HandError, naming the file and the field, if anything is missing, unknown or not positive.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = _FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.toml")))
        raise HandError(f"no hand {str(name_or_path)!r}: give a .toml file or one of: {known}")
    with path.open("rb") as file:
        values = tomllib.load(file)
    names = [field.name for field in fields(Hand)]
    if missing := [n for n in names if n not in values]:
        raise HandError(f"{path}: missing {', '.join(missing)}")
    if unknown := [n for n in values if n not in names]:
        raise HandError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(names)}")
    for name in names[1:]:
        number = values[name]
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            raise HandError(f"{path}: {name} = {number!r} must be a number above 0")
        values[name] = float(number)
    return Hand(**values)
