"""The state of a job as a file: written after each pick, so that `rt.clear --resume` knows what was done."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.job.look import APART_M
from rt.tools.files import read_bounded, write_json

FORMAT = "grasp-servo-clear/1"
MOST_STATE_BYTES = 50_000_000
"""Of a state file: some ten thousand attempts."""
PLACED, MISSED, DROPPED, SKIPPED = "placed", "missed", "dropped", "skipped"


class StateError(ValueError):
    """A state file that is missing or not one of rt.clear's."""


@dataclass
class Attempt:
    """One attempt to pick."""

    number: int
    aim_x_m: float = 0.0
    """The place chosen in the look, in the table's frame."""
    aim_y_m: float = 0.0
    probability: float = 0.0
    """Of a grasp there, in the look."""
    x_m: float = 0.0
    """The place that the hand came to."""
    y_m: float = 0.0
    yaw_rad: float = 0.0
    outcome: str = ""
    """placed, missed (nothing was held), dropped (held, and lost), skipped; empty: not over."""
    reason: str = ""
    phase: str = ""
    """The last one."""
    held: bool = False
    """True if the gripper felt an object, and the picture did not contradict."""
    seen_left: bool | None = None
    """True if the object was seen to have left its place; None: it could not be seen."""
    width_m: float | None = None
    """Between the pads once closed."""
    seconds: float = 0.0
    """From the end of the attempt before, looks included, on the robot's clock."""

    def aim(self, hand: Sequence[float] | NDArray[np.float64], probability: float) -> None:
        """Set the place chosen in the look: (4,) of x, y, z [m], yaw [rad]."""
        self.aim_x_m, self.aim_y_m = self.x_m, self.y_m = float(hand[0]), float(hand[1])
        self.yaw_rad, self.probability = float(hand[3]), probability

    def near(self, xy: Sequence[float] | NDArray[np.float64]) -> bool:
        """True if it aimed at the same spot, or came there."""
        places = ((self.aim_x_m, self.aim_y_m), (self.x_m, self.y_m))
        return any(math.dist(p, xy[:2]) < APART_M for p in places)


@dataclass
class JobState:
    """All that a job must know to go on."""

    cell: str
    attempts: list[Attempt] = field(default_factory=list)
    carrying: bool = False
    """True while the fingers may hold something: from before they close until they were opened."""
    seconds: float = 0.0
    """Of the robot's clock, over all runs of this job."""
    runs: int = 0
    ended: str = ""
    """The reason of the end; empty: the run was cut off, or is under way."""

    def count(self, outcome: str) -> int:
        return sum(a.outcome == outcome for a in self.attempts)

    @property
    def placed(self) -> int:
        return self.count(PLACED)

    @property
    def told(self) -> str:
        """Counts and the end of the run before, in one line."""
        end = f"it ended: {self.ended}" if self.ended else "it was cut off"
        holds = "; the fingers held something then" if self.carrying else ""
        return f"{len(self.attempts)} tried, {self.placed} placed; {end}{holds}"

    def tries_at(self, xy: Sequence[float] | NDArray[np.float64]) -> int:
        """Attempts in vain within APART_M of a place."""
        return sum(a.outcome not in ("", PLACED) and a.near(xy) for a in self.attempts)

    def write(self, path: Path) -> None:
        """Replace the file as a whole. A full disk is said once and ends nothing."""
        try:
            write_json(path, {"format": FORMAT, **asdict(self)})
        except OSError as error:
            if not getattr(self, "_said", False):
                self._said = True
                print(f"rt.clear: the job's state cannot be written: {error}", file=sys.stderr)


def read_state(path: Path) -> JobState:
    """A state file, or the one in a folder. Raises StateError."""
    path = path / "state.json" if path.is_dir() else path
    try:
        content: dict[str, Any] = json.loads(read_bounded(path, MOST_STATE_BYTES))
        if (found := content.pop("format", None)) != FORMAT:
            raise ValueError(f"format {found!r}, not {FORMAT!r}")
        names = {f.name for f in fields(Attempt)}
        attempts = [
            Attempt(**{k: v for k, v in a.items() if k in names}) for a in content.pop("attempts")
        ]
        return JobState(attempts=attempts, **content)
    except OSError as error:
        raise StateError(f"no job to resume: {error}; give the --out folder of the job") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(
            f"{path} is no whole state of rt.clear ({error}); begin without --resume"
        ) from error
