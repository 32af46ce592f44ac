"""Everything that may limit, hold or stop the arm, as one table: ROWS. Its limits: Limits.

The cycle tells the guard what it knows (`Situation`) as it comes to know it: `input` (the clock, the
robot's state), `frame` (its age), `view`, `answer` (the network's distances) and `command` (a hand
pose about to be sent). A row whose
quantity is beyond its limit is recorded under its name and then clamps the command, holds the arm
for this cycle (raises Hold), or ends the run (raises Stop).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hand = NDArray[np.float64]
"""(4,) of x, y, z [m], yaw [rad] in base."""


@dataclass(frozen=True)
class Limits:
    """What the guard holds the arm to."""

    max_frame_age_s: float = 0.15
    """Oldest frame to act on, from the middle of its exposure [s]."""
    max_exposure_gap_s: float = 0.02
    """How far a frame's exposure may lie outside the known poses of the hand [s]."""
    max_state_age_s: float = 0.10
    """Oldest robot state to act on [s]."""
    min_view_filled: float = 0.5
    """Least fraction of the view's pixels with a return."""
    min_spread_m: float = 0.002
    """Least difference between the best and the worst candidate's distance [m]."""
    max_speed_m_s: float = 0.5
    """Fastest commanded motion [m/s]: a cycle's step is shortened to it."""
    max_turn_deg_s: float = 180.0
    """Fastest commanded turn [deg/s]: a UR wrist's own limit."""
    workspace_min_m: tuple[float, float] = (-0.5, -0.5)
    """Least x, y of the hand in base [m]."""
    workspace_max_m: tuple[float, float] = (0.5, 0.5)
    """Greatest x, y of the hand in base [m]."""
    min_height_m: float = 0.10
    """Least z of the hand in base [m] during the approach."""
    margin_m: float = 0.02
    """How far outside workspace and height the arm may be found before it is stopped [m]."""
    max_following_error_m: float = 0.10
    """Farthest that the arm may be from where it is commanded [m]."""
    max_missed_in_a_row: int = 10
    """Deadlines."""
    max_held_in_a_row: int = 60
    """Cycles."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not np.isfinite(value).all():
                raise ValueError(f"limit {name} = {value} must be finite")
            if not name.startswith("workspace") and value < 0:
                raise ValueError(f"limit {name} = {value} must not be negative")


class Action(StrEnum):
    CLAMP = "clamp"
    HOLD = "hold"
    STOP = "stop"


class Hold(Exception):
    """The arm keeps its target for this cycle."""


class Stop(Exception):
    """The arm stops, and the run ends."""


@dataclass
class Situation:
    """What the cycle knows so far, and what follows from it."""

    limits: Limits
    period_s: float
    hand: Hand
    """Measured."""
    commanded: Hand
    """Sent in the last cycle."""
    missed_in_a_row: int = 0
    held_in_a_row: int = 0
    state_age_s: float = 0.0
    frame_age_s: float = 0.0
    exposure_gap_s: float = 0.0
    view_filled: float = 0.0
    distances: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    command: Hand = field(default_factory=lambda: np.zeros(4))
    """About to be sent."""

    @property
    def outside_m(self) -> float:
        return _outside_m(self.hand, self.limits)

    @property
    def below_floor_m(self) -> float:
        return self.limits.min_height_m - float(self.hand[2])

    @property
    def following_error_m(self) -> float:
        return float(np.linalg.norm(self.hand[:3] - self.commanded[:3]))

    @property
    def not_finite(self) -> int:
        return int((~np.isfinite(self.distances)).sum())

    @property
    def spread_m(self) -> float:
        return float(np.ptp(self.distances))

    @property
    def command_not_finite(self) -> int:
        return int((~np.isfinite(self.command)).sum())

    @property
    def command_speed_m_s(self) -> float:
        return float(np.linalg.norm(self.command[:3] - self.commanded[:3])) / self.period_s

    @property
    def command_turn_deg_s(self) -> float:
        return math.degrees(abs(self.command[3] - self.commanded[3])) / self.period_s

    @property
    def command_outside_m(self) -> float:
        return _outside_m(self.command, self.limits)

    @property
    def command_below_floor_m(self) -> float:
        return self.limits.min_height_m - float(self.command[2])


def _outside_m(hand: Hand, limits: Limits) -> float:
    inside = np.clip(hand[:2], limits.workspace_min_m, limits.workspace_max_m)
    return float(np.linalg.norm(hand[:2] - inside))


def _shorten(s: Situation) -> Hand:
    part = s.limits.max_speed_m_s / s.command_speed_m_s
    return np.append(s.commanded[:3] + part * (s.command[:3] - s.commanded[:3]), s.command[3])


def _slow_turn(s: Situation) -> Hand:
    part = s.limits.max_turn_deg_s / s.command_turn_deg_s
    return np.append(s.command[:3], s.commanded[3] + part * (s.command[3] - s.commanded[3]))


def _into_workspace(s: Situation) -> Hand:
    inside = np.clip(s.command[:2], s.limits.workspace_min_m, s.limits.workspace_max_m)
    return np.append(inside, s.command[2:])


def _up_to_floor(s: Situation) -> Hand:
    return np.array([*s.command[:2], s.limits.min_height_m, s.command[3]])


@dataclass(frozen=True)
class Row:
    """One reason to interfere. The quantity must be at most, or at least, its limit."""

    when: str
    name: str
    """In the record."""
    action: Action
    quantity: str
    """A field or property of Situation."""
    at: str
    """`most` or `least`."""
    limit: str | int
    """A field of Limits, or a constant."""
    unit: str
    remedy: str | Callable[[Situation], Hand]
    """What the user can do, or what the clamp makes of the command."""


_CLAMP, _HOLD, _STOP = Action.CLAMP, Action.HOLD, Action.STOP

# fmt: off
# ruff: noqa: E501  (a table has the width of its columns)
ROWS: tuple[Row, ...] = (
    # when       name                action  quantity                 at most/least its limit            unit         remedy
    Row("input", "missed_deadlines", _STOP, "missed_in_a_row", "most", "max_missed_in_a_row", "in a row", "lower --rate or --candidates"),
    Row("input", "held_too_long", _STOP, "held_in_a_row", "most", "max_held_in_a_row", "cycles in a row", "see the holds before it"),
    Row("input", "state_age", _STOP, "state_age_s", "most", "max_state_age_s", "s", "check the connection to the robot"),
    Row("input", "outside_workspace", _STOP, "outside_m", "most", "margin_m", "m", "bring the arm into the workspace, or widen it"),
    Row("input", "below_floor", _STOP, "below_floor_m", "most", "margin_m", "m", "raise the arm, or lower min_height_m"),
    Row("input", "following_error", _STOP, "following_error_m", "most", "max_following_error_m", "m", "the arm does not follow: check its state"),
    Row("frame", "frame_age", _HOLD, "frame_age_s", "most", "max_frame_age_s", "s", "check the camera's cable and frame rate"),
    Row("frame", "exposure_gap", _HOLD, "exposure_gap_s", "most", "max_exposure_gap_s", "s", "the hand's pose at the exposure is not known: check both clocks"),
    Row("view", "view_filled", _HOLD, "view_filled", "least", "min_view_filled", "of the view", "check the mount and the camera's nearest depth"),
    Row("answer", "not_finite", _STOP, "not_finite", "most", 0, "distances", "the model or its input is broken"),
    Row("answer", "flat_distances", _HOLD, "spread_m", "least", "min_spread_m", "m", "the network sees no grasp: look at the view"),
    Row("command", "bad_command", _STOP, "command_not_finite", "most", 0, "numbers", "report this: the controller is broken"),
    Row("command", "speed", _CLAMP, "command_speed_m_s", "most", "max_speed_m_s", "m/s", _shorten),
    Row("command", "turn", _CLAMP, "command_turn_deg_s", "most", "max_turn_deg_s", "deg/s", _slow_turn),
    Row("command", "workspace", _CLAMP, "command_outside_m", "most", 0, "m", _into_workspace),
    Row("command", "floor", _CLAMP, "command_below_floor_m", "most", 0, "m", _up_to_floor),
)
# fmt: on

_TOLERANCE = 1e-9
"""Relative; a command clamped to a limit is at the limit, up to rounding."""


class Guard:
    """Applies ROWS, and remembers what they did: `counts` by name, and the last `events`."""

    def __init__(self, limits: Limits | None = None, remembered: int = 1000) -> None:
        self.limits = limits or Limits()
        self.counts: Counter[str] = Counter()
        self.events: deque[dict[str, Any]] = deque(maxlen=remembered)

    def check(self, when: str, cycle: int, situation: Situation) -> None:
        """Apply the rows of one moment, in order. Changes situation.command; raises Hold or Stop."""
        for row in ROWS:
            if row.when != when:
                continue
            value = float(getattr(situation, row.quantity))
            limit = float(
                getattr(self.limits, row.limit) if isinstance(row.limit, str) else row.limit
            )
            slack = _TOLERANCE * max(limit, 1.0)
            # Written so that NaN is beyond every limit.
            if value <= limit + slack if row.at == "most" else value >= limit - slack:
                continue
            self.counts[row.name] += 1
            event = {"cycle": cycle, "name": row.name, "action": row.action.value}
            self.events.append({**event, "value": value, "limit": limit, "unit": row.unit})
            if callable(row.remedy):
                situation.command = row.remedy(situation)
                continue
            message = (
                f"{row.name}: {value:.4g} {row.unit}, must be at {row.at} {limit:g}; {row.remedy}"
            )
            raise (Hold if row.action is Action.HOLD else Stop)(message)
