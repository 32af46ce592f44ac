"""Everything that may limit, hold or stop the arm, as one table: ROWS. Its limits: rt.guard.limits.

The loop tells the guard what it knows (`CycleState`) as it comes to know it: `start` (before anything
moves), `input` (the clock, the robot's state), `frame` (its age), `view`, `answer` (the network's
distances) and `command` (a hand pose about to be sent). A row whose quantity is beyond its limit is
recorded under its name and then clamps the command, holds the arm for this cycle (raises Hold), ends
the run (raises Stop), or, if the cell says so, only warns. Heights are above the table, `base` is the table's frame (rt.cell).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.guard import clamps
from rt.guard.camera_watch import CameraPlace
from rt.guard.limits import Limits, joint_rooms_deg, outside_m
from rt.guard.settings import changes
from rt.robot import RobotState
from rt.robot.kinematics import JOINTS, ArmModel, singularity

__all__ = ["ROWS", "Action", "CycleState", "Guard", "GuardRow", "Hold", "Limits", "Stop"]

Hand = NDArray[np.float64]
"""(4,) of x, y, z [m], yaw [rad] in base."""


class Action(StrEnum):
    WARN = "warn"
    CLAMP = "clamp"
    HOLD = "hold"
    STOP = "stop"


class Hold(Exception):
    """The arm keeps its target for this cycle."""


class Stop(Exception):
    """The arm stops, and the run ends."""


@dataclass
class CycleState:
    """Data of the cycle so far, and the quantities derived from them."""

    limits: Limits
    period_s: float
    hand: Hand
    """Measured."""
    commanded: Hand
    """Sent in the last cycle."""
    needed_m: Callable[[Hand], float] | None = None
    """Least height of the fingertips at which an open hand (4,) is inside nothing that the views have shown
    (rt.grasp.memory); None: not known."""
    before: Hand | None = None
    """Sent in the cycle before that; None: the arm stood still."""
    state: RobotState | None = None
    """All that the arm says of itself."""
    arm: ArmModel | None = None
    """None: not known; joints are then judged by what holds for every model."""
    floor_m: float | None = None
    """Least height in this phase; None: limits.min_height_m."""
    operator_stop: int = 0
    """Asked for by a signal or the live page."""
    out_of_reach: int = 0
    """1 if the joints cannot follow the way that lies ahead (rt.guard.reach); said in `details`."""
    wrong_model: int = 0
    """Values in which the model and the cell differ; said in `details`."""
    tilt_deg: float = 0.0
    force_N: float = 0.0
    torque_Nm: float = 0.0
    missed_in_a_row: int = 0
    held_s: float = 0.0
    paused_s: float = 0.0
    """At the live page's request."""
    over_time_s: float = 0.0
    """Beyond the time that the phase may take (rt.loop.Loop.allow)."""
    state_age_s: float = 0.0
    target_late_s: float = 0.0
    """Since the last target was sent, less one period."""
    frame_age_s: float = 0.0
    exposure_gap_s: float = 0.0
    other_intrinsics: int = 0
    """1 if the frame's are not those that the view was made for."""
    view_filled: float = 0.0
    same_views: int = 0
    """Frames in a row that show what the one before did, from elsewhere."""
    place: CameraPlace = field(default_factory=CameraPlace)
    """The camera's displacement, as its images tell it; said in `details`."""
    distances: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    thought_s: float = 0.0
    """From the state that the command follows from to now, when it is about to be sent."""
    command: Hand = field(default_factory=lambda: np.zeros(4))
    """About to be sent."""
    settings: NDArray[np.float64] | None = None
    """Of the controller (RobotState.settings), as told last (rt.guard.settings)."""
    details: dict[str, str] = field(default_factory=dict)
    """More to say about a row, by its name."""

    @property
    def floor(self) -> float:
        return self.limits.min_height_m if self.floor_m is None else self.floor_m

    @property
    def outside_m(self) -> float:
        return outside_m(self.hand, self.limits)

    @property
    def below_floor_m(self) -> float:
        """Beyond the margin; the table has none."""
        floor = max(self.floor - self.limits.margin_m, 0.0)
        return floor - float(self.hand[2])

    @property
    def above_ceiling_m(self) -> float:
        return float(self.hand[2]) - self.limits.max_height_m

    @property
    def joint_room_deg(self) -> float:
        """Of the joint that has least to its limit; endless for an arm that tells no joints."""
        return float(self._rooms().min()) if self._q is not None else math.inf

    @property
    def joint_speed(self) -> float:
        """Of the fastest joint, as a part of the fastest it can."""
        qd = None if self.state is None else self.state.qd
        return float(self._speeds().max()) if qd is not None and len(qd) == 6 else 0.0

    @property
    def singular_deg(self) -> float:
        return singularity(self.arm, self._q)[0] if self._q is not None else 90.0

    @property
    def changed_settings(self) -> int:
        """Settings of the controller that somebody changed since they were told last."""
        return len(changes(self.settings, self.state.settings)) if self.state else 0

    def detail(self, name: str) -> str:
        """Additional text for a row's message, by the row's name."""
        if name == "controller_changed" and self.state is not None:
            return ", ".join(changes(self.settings, self.state.settings))
        if name == "camera_moved":
            return self.place.words
        if name in self.details or self._q is None:
            return self.details.get(name, "")
        if name == "singularity":
            return singularity(self.arm, self._q)[1]
        if name == "joint_limit":
            k = int(self._rooms().argmin())
            return f"{JOINTS[k]} at {math.degrees(self._q[k]):.0f} deg"
        if name == "joint_speed":
            return JOINTS[int(self._speeds().argmax())]
        return ""

    @property
    def _q(self) -> NDArray[np.float64] | None:
        """Joints of an arm of six."""
        q = None if self.state is None else self.state.q
        return q if q is not None and len(q) == 6 else None

    def _rooms(self) -> NDArray[np.float64]:
        return joint_rooms_deg(self._q, self.limits)

    def _speeds(self) -> NDArray[np.float64]:
        assert self.state is not None and self.state.qd is not None
        fastest = self.arm.max_speed_deg_s if self.arm else _USUAL_DEG_S
        return np.asarray(np.abs(np.degrees(self.state.qd)) / fastest)

    @property
    def camera_moved(self) -> float:
        """Largest part that tilt, height and shift have of their limits."""
        return self.place.part_of(self.limits)

    @property
    def following_error_m(self) -> float:
        return float(np.linalg.norm(self.hand[:3] - self.commanded[:3]))

    @property
    def not_finite(self) -> int:
        return int((~np.isfinite(self.distances)).sum())

    @property
    def farthest_m(self) -> float:
        """Largest magnitude of the distances [m]. Negative ones are impossible; small ones are tolerated, so their
        magnitude is weighted by 10."""
        return float(max(self.distances.max(), -10 * self.distances.min()))

    @property
    def spread_m(self) -> float:
        return float(np.ptp(self.distances))

    @property
    def command_not_finite(self) -> int:
        return int((~np.isfinite(self.command)).sum())

    @property
    def command_step_m(self) -> float:
        return float(np.linalg.norm(self.command[:3] - self.commanded[:3]))

    @property
    def command_step_deg(self) -> float:
        return math.degrees(abs(self.command[3] - self.commanded[3]))

    @property
    def command_acceleration_m_s2(self) -> float:
        change = self.command[:3] - self.commanded[:3] - self.last_step
        return float(np.linalg.norm(change)) / self.period_s**2

    @property
    def last_step(self) -> NDArray[np.float64]:
        """(3,) m: what the last cycle commanded."""
        if self.before is None:
            return np.zeros(3)
        return np.asarray(self.commanded[:3] - self.before[:3])

    @property
    def command_speed_m_s(self) -> float:
        return self.command_step_m / self.period_s

    @property
    def command_turn_deg_s(self) -> float:
        return self.command_step_deg / self.period_s

    @property
    def command_outside_m(self) -> float:
        return outside_m(self.command, self.limits)

    @property
    def command_in_scene_m(self) -> float:
        """Height that the command lacks to be clear of all that was seen."""
        return self.lack_m(self.command)

    def lack_m(self, hand: Hand) -> float:
        """Height that a hand (4,) lacks to be clear of all that was seen; below 0 if it is clear."""
        if self.needed_m is None:
            return -math.inf
        return self.needed_m(hand) + self.limits.path_clearance_m - float(hand[2])

    @property
    def command_below_floor_m(self) -> float:
        return self.floor - float(self.command[2])

    @property
    def command_above_ceiling_m(self) -> float:
        return float(self.command[2]) - self.limits.max_height_m


_USUAL_DEG_S = 180.0
"""Of a joint of an arm that is not known."""


@dataclass(frozen=True)
class GuardRow:
    """One reason to interfere. The quantity must be at most, or at least, its limit."""

    when: str
    name: str
    """In the record."""
    action: Action
    quantity: str
    """A field or property of CycleState."""
    at: str
    """`most` or `least`."""
    limit: str | int
    """A field of Limits, or a constant."""
    unit: str
    remedy: str | Callable[[CycleState], Hand]
    """Remedy for the user, or the clamp's function of the command."""


_CLAMP, _HOLD, _STOP, _WARN = Action.CLAMP, Action.HOLD, Action.STOP, Action.WARN

# fmt: off
# ruff: noqa: E501  (a table has the width of its columns)
ROWS: tuple[GuardRow, ...] = (
    # when       name                action  quantity                 at most/least its limit            unit         remedy
    GuardRow("start", "wrong_model", _STOP, "wrong_model", "most", 0, "refusal", "nothing was opened"),
    GuardRow("start", "reach", _STOP, "out_of_reach", "most", 0, "trouble ahead", "nothing moved: begin elsewhere, or move table, workspace or limits"),
    GuardRow("input", "operator_stop", _STOP, "operator_stop", "most", 0, "requests", "start again when it is safe"),
    GuardRow("input", "missed_deadlines", _STOP, "missed_in_a_row", "most", "max_missed_in_a_row", "in a row", "lower --rate or --candidates"),
    GuardRow("input", "held_too_long", _STOP, "held_s", "most", "max_held_s", "s", "see what held it"),
    GuardRow("input", "paused_too_long", _STOP, "paused_s", "most", "max_paused_s", "s", "nobody ended the pause: start again"),
    GuardRow("input", "phase_time", _STOP, "over_time_s", "most", 0, "s beyond its time", "the arm gets on too slowly: see what holds it, or raise the speed limits"),
    GuardRow("input", "state_age", _STOP, "state_age_s", "most", "max_state_age_s", "s", "check the connection to the robot"),
    GuardRow("input", "target_age", _STOP, "target_late_s", "most", "max_target_age_s", "s", "the loop stalled: lower --candidates, or see what else runs here"),
    GuardRow("input", "force", _STOP, "force_N", "most", "max_force_N", "N", "the hand met something: look, then move it by the pendant"),
    GuardRow("input", "torque", _STOP, "torque_Nm", "most", "max_torque_Nm", "N m", "the hand met something: look, then move it by the pendant"),
    GuardRow("input", "tilt", _STOP, "tilt_deg", "most", "max_tilt_deg", "deg", "turn the hand to look straight down; check T_flange_hand"),
    GuardRow("input", "outside_workspace", _STOP, "outside_m", "most", "margin_m", "m", "bring the arm into the workspace, or widen it"),
    GuardRow("input", "below_floor", _STOP, "below_floor_m", "most", 0, "m", "raise the arm, or lower min_height_m; check the table's height"),
    GuardRow("input", "above_ceiling", _STOP, "above_ceiling_m", "most", "margin_m", "m", "lower the arm, or raise max_height_m"),
    GuardRow("input", "following_error", _STOP, "following_error_m", "most", "max_following_error_m", "m", "the arm does not follow: check its state"),
    GuardRow("input", "joint_limit", _STOP, "joint_room_deg", "least", "joint_margin_deg", "deg", "turn the arm back by the pendant; begin in another posture"),
    GuardRow("input", "joint_speed", _STOP, "joint_speed", "most", "max_joint_speed", "of its most", "lower max_speed_m_s or max_turn_deg_s, or stay farther from the base"),
    GuardRow("input", "singularity", _STOP, "singular_deg", "least", "min_singular_deg", "deg", "narrow the workspace, or begin in another posture"),
    GuardRow("input", "controller_changed", _WARN, "changed_settings", "most", 0, "settings", "set it back: the arm lags under a low slider, and a wrong payload makes the measured forces wrong"),
    GuardRow("frame", "intrinsics", _STOP, "other_intrinsics", "most", 0, "differences", "the camera changed its mode: start again"),
    GuardRow("frame", "frame_age", _HOLD, "frame_age_s", "most", "max_frame_age_s", "s", "check the camera's cable and frame rate"),
    GuardRow("frame", "exposure_gap", _HOLD, "exposure_gap_s", "most", "max_exposure_gap_s", "s", "the hand's pose at the exposure is not known: check both clocks"),
    GuardRow("view", "view_filled", _HOLD, "view_filled", "least", "min_view_filled", "of the view", "check the mount and the camera's nearest depth"),
    GuardRow("view", "same_view", _HOLD, "same_views", "most", "max_same_views", "frames", "the camera repeats one picture: restart it"),
    GuardRow("view", "camera_moved", _HOLD, "camera_moved", "most", 1, "of its limit", "is the camera's holder loose, or the table's height wrong? Calibrate again (docs/handeye.md)"),
    GuardRow("answer", "not_finite", _STOP, "not_finite", "most", 0, "distances", "the model or its input is broken"),
    GuardRow("answer", "implausible", _STOP, "farthest_m", "most", "max_distance_m", "m", "no distance is like that: the model or its input is broken"),
    GuardRow("answer", "flat_distances", _HOLD, "spread_m", "least", "min_spread_m", "m", "the network sees no grasp: look at the view"),
    GuardRow("command", "late_command", _STOP, "thought_s", "most", "max_target_age_s", "s", "the cycle stalled: lower --candidates, or see what else runs here"),
    GuardRow("command", "bad_command", _STOP, "command_not_finite", "most", 0, "numbers", "report this: the controller is broken"),
    GuardRow("command", "step", _STOP, "command_step_m", "most", "max_step_m", "m", "report this: no controller asks for that"),
    GuardRow("command", "rotation", _STOP, "command_step_deg", "most", "max_step_deg", "deg", "report this: no controller asks for that"),
    GuardRow("command", "acceleration", _CLAMP, "command_acceleration_m_s2", "most", "max_acceleration_m_s2", "m/s^2", clamps.soften),
    GuardRow("command", "speed", _CLAMP, "command_speed_m_s", "most", "max_speed_m_s", "m/s", clamps.shorten),
    GuardRow("command", "turn", _CLAMP, "command_turn_deg_s", "most", "max_turn_deg_s", "deg/s", clamps.slow_turn),
    GuardRow("command", "workspace", _CLAMP, "command_outside_m", "most", 0, "m", clamps.into_workspace),
    GuardRow("command", "path", _CLAMP, "command_in_scene_m", "most", 0, "m", clamps.clear_of_the_scene),
    GuardRow("command", "floor", _CLAMP, "command_below_floor_m", "most", 0, "m", clamps.up_to_floor),
    GuardRow("command", "ceiling", _CLAMP, "command_above_ceiling_m", "most", 0, "m", clamps.down_to_ceiling),
)
# fmt: on

_PLACES = {
    "workspace": "widen the workspace, or put the objects farther inside it",
    "path": "something stands in the hand's way: take it out, or begin higher",
    "floor": "lower min_height_m, or check the table's height",
    "ceiling": "raise max_height_m, or begin lower",
}
"""Rows that clamp to a place, and the remedy if they do so for too long."""
_SLOW = "nothing moves: raise the limit"
_NO_MOTION_M, _NO_MOTION_RAD = 1e-5, 1e-4
"""Steps of one period below which the hand stands."""
_TOLERANCE = 1e-9
"""Relative; a command clamped to a limit is at the limit, up to rounding."""


class Guard:
    """Applies ROWS, and remembers what they did: `counts` by name, and the last `events`."""

    def __init__(
        self, limits: Limits | None = None, remembered: int = 1000, *, simulated: bool = False
    ) -> None:
        """simulated: the row `camera_moved` then warns, unless the limits say another action."""
        self.limits = limits or Limits()
        moved = self.limits.camera_moved
        usual = Action.WARN if simulated else Action.HOLD
        self.watches_camera = moved != "off"
        self.actions = {"camera_moved": usual if moved in ("auto", "off") else Action(moved)}
        """Actions other than the table's, by row."""
        self.warned: set[str] = set()
        """Rows that warn and are beyond their limits now: each is recorded once."""
        self.counts: Counter[str] = Counter()
        self.events: deque[dict[str, Any]] = deque(maxlen=remembered)
        self._clamped_s: dict[str, float] = {}
        """Time in a row that a clamp has lasted, by its name."""

    def check(
        self, when: str, cycle: int, situation: CycleState, but: Collection[str] = ()
    ) -> None:
        """Apply the rows of one moment, in order, but for those of these names. Changes situation.command;
        raises Hold or Stop."""
        clamped: dict[str, str] = {}
        for row in ROWS:
            if row.when != when or row.name in but:
                continue
            value = float(getattr(situation, row.quantity))
            limit = float(
                getattr(self.limits, row.limit) if isinstance(row.limit, str) else row.limit
            )
            slack = _TOLERANCE * max(limit, 1.0)
            # Written so that NaN is beyond every limit.
            if value <= limit + slack if row.at == "most" else value >= limit - slack:
                self.warned.discard(row.name)
                continue
            action = self.actions.get(row.name, row.action)
            if action is Action.WARN:
                self._warn(row, cycle, value, limit, situation)
                continue
            self.record(row.name, action.value, cycle, value, limit, row.unit)
            if callable(row.remedy):
                situation.command = row.remedy(situation)
                clamped[row.name] = f"{value:.4g} {row.unit}, must be at {row.at} {limit:g}"
                continue
            message = _message(row, value, limit, situation)
            raise (Hold if action is Action.HOLD else Stop)(message)
        if when == "command":
            self._stop_lasting(cycle, situation, clamped)

    def _stop_lasting(self, cycle: int, s: CycleState, clamped: dict[str, str]) -> None:
        """End a run whose commands are clamped for too long: to a place, or to no motion. A clamp of the
        speed alone goes on, since the hand does. clamped: texts by row. Raises Stop."""
        move = s.command - s.commanded
        stands = bool(np.linalg.norm(move[:3]) < _NO_MOTION_M and abs(move[3]) < _NO_MOTION_RAD)
        self._clamped_s = {
            name: self._clamped_s.get(name, 0.0) + s.period_s
            for name in clamped
            if stands or name in _PLACES
        }
        for name, lasted_s in self._clamped_s.items():
            if lasted_s > self.limits.max_clamped_s:
                self.record(name, _STOP.value, cycle, lasted_s, self.limits.max_clamped_s, "s")
                raise Stop(
                    f"{name}: commands clamped for {lasted_s:.2g} s, must be at most "
                    f"{self.limits.max_clamped_s:g} s (the last: {clamped[name]}); {_PLACES.get(name, _SLOW)}"
                )

    def _warn(
        self, row: GuardRow, cycle: int, value: float, limit: float, situation: CycleState
    ) -> None:
        if row.name not in self.warned:
            self.warned.add(row.name)
            self.record(row.name, Action.WARN.value, cycle, value, limit, row.unit)
            self.events[-1]["said"] = _message(row, value, limit, situation)

    def record(
        self,
        name: str,
        action: str,
        cycle: int,
        value: float = math.nan,
        limit: float = math.nan,
        unit: str = "",
    ) -> None:
        """Remember an event: a row's, or a device's that stopped the arm by itself."""
        self.counts[name] += 1
        event = {"cycle": cycle, "name": name, "action": action}
        self.events.append({**event, "value": value, "limit": limit, "unit": unit})


def _message(row: GuardRow, value: float, limit: float, situation: CycleState) -> str:
    """Row, value, limit, what is known, and the remedy."""
    message = f"{row.name}: {value:.4g} {row.unit}, must be at {row.at} {limit:g}"
    if more := situation.detail(row.name):
        message += f" ({more})"
    return f"{message}; {row.remedy}"
