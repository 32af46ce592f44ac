"""The motions of a job beside the approach: travel, views from rest, opening the fingers, retreat.

`JobMoves` is a Servo with what a job needs before its first step: the checks of all its ways, the settled
content of the fingers, the state file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rt.camera import Frame
from rt.cell.cell import Cell
from rt.cell.place import PlacePart
from rt.cell.setup import RecordSink, RunSetup
from rt.cell.transform import CellError
from rt.cycle import Step, step_of
from rt.grasp import approach
from rt.guard.rows import CycleState, Hold, Stop
from rt.job.control import Control
from rt.job.holding import Held, settle_holding
from rt.job.look import (
    GraspTarget,
    TableLook,
    TakenPlace,
    turned,
)
from rt.job.options import ClearOptions
from rt.job.path import Array, PathError, PathLimits, Reachable, planned
from rt.job.path import Path as HandPath
from rt.job.state import MISSED, Attempt, JobState
from rt.job.travel import Watch, follow
from rt.loop import (
    PATIENCE_S,
    ContractedDistance,
    hold,
    newest_frame,
    sense,
    tick,
)
from rt.record.cycle import record_cycle
from rt.robot.target import xyz_yaw
from rt.servo import Servo
from rt.view import close_gaps

_PASSING_M, _FRESH_NS = 0.05, 100_000_000
"""A view is taken in passing this near to a place, with a frame no older than this."""
_PASSING = 0.6
"""Part of the speed at which places are passed."""
_TURN_S = 0.25
"""Time in which the full speed of a turn is reached."""


class GiveUp(Exception):
    """This attempt is over, and nothing is wrong with the cell; the text is the reason."""


class Gone(GiveUp):
    """Not tried at all: the place does not look like a grasp from above."""


class Skipped(GiveUp):
    """Given up at the user's request."""


class Slipped(GiveUp):
    """The fingers have lost what they held."""


class JobMoves(Servo):
    """A Servo that also travels, opens its fingers, takes single views, and keeps the state of a job."""

    def __init__(
        self,
        cell: Cell,
        distance: ContractedDistance,
        options: ClearOptions | None = None,
        *,
        candidates: int | None = None,
        setup: RunSetup | None = None,
        record: str | Path | RecordSink | None = None,
        state: JobState | None = None,
        save: Path | None = None,
    ) -> None:
        """state: of a job to go on with; None: a new one. save: its file, written after each pick; None:
        none. Raises CellError for a cell without [place], and Stop like Servo."""
        self.job = options or ClearOptions()
        setup = setup or cell.setup or RunSetup()
        if setup.place is None:
            raise CellError(
                "the cell has no section [place]: say where things are put down (docs/clear.md)"
            )
        self.place: PlacePart = setup.place
        super().__init__(
            cell,
            distance,
            self.job,
            candidates=candidates,
            setup=replace(setup, to_start=False),
            record=record,
        )
        self.state = state or JobState(cell.name)
        self.state.runs += 1
        self.state.ended = ""
        self.targets: list[GraspTarget] = []
        self.left: list[GraspTarget] = []
        """Places with a grasp in the last whole look that are no longer tried."""
        self.gone: list[GraspTarget] = []
        """Places that did not look like a grasp from above."""
        self.looks = 0
        """Looks over all that is to be cleared."""
        self.track: list[tuple[float, float]] = []
        """x, y [m] of the hand, a few times a second."""
        self._save_to = save
        self._taken: TakenPlace | None = None
        """The place below the hand before the fingers closed; None: its ground was not seen."""
        self._unsure: Attempt | None = None
        """The last one placed, if the object hid the place that it should have left."""
        self._held = Held.NOTHING
        self.path: HandPath | None = None
        """The last way."""

    # The start.

    def _ready(self) -> None:
        """Refuse a job whose ways the arm cannot follow; settle what the fingers hold. Raises Stop."""
        loop, scale = self.loop, self.job.speed_scale
        turn = float(np.radians(self.place.turn_deg_s)) * scale
        limits = loop.limits
        self.pace = PathLimits(
            min(self.place.speed_m_s * scale, 0.95 * limits.max_speed_m_s),
            self.place.acceleration_m_s2 * scale,
            min(turn, 0.95 * float(np.radians(limits.max_turn_deg_s))),
            turn / _TURN_S,
        )
        self.home_yaw = float(loop.commanded[3])
        self._began_ns = self._mark_ns = self.robot_ns()
        self.seconds_before = self.state.seconds
        self.control = Control(loop)
        home = np.array([*self.place.home, self.home_yaw])
        looks = [np.array([*look, self.home_yaw]) for look in self.place.looks()]
        try:
            slots, columns = self.place.slots(), self.place.columns
            self._planned([*looks, home, *(self._above(s) for s in slots), home])
            for k in {
                0,
                columns - 1,
                len(slots) - columns,
                len(slots) - 1,
            }:  # the pattern's corners
                self._planned([self._above(slots[k]), slots[k]])
        except PathError as error:
            raise Stop(f"the job's ways: {error}; nothing moved") from error
        self._held = settle_holding(loop, self.state, self.job.if_holding)
        if self._held is Held.NOTHING:
            approach.open_first(loop)
            self.state.carrying = False
        self._save()

    def robot_ns(self) -> int:
        return self.cell.robot.now_ns()

    def _hold(self, phase: str) -> Step:
        loop = self.loop
        tick(loop)
        s = sense(loop, phase)
        hold(loop)
        if phase == "paused":
            loop.count_pause()
        record_cycle(loop, s)
        return step_of(loop)

    def _seen(
        self, s: CycleState, since_ns: int
    ) -> tuple[Frame, NDArray[np.float32], TableLook] | None:
        """The newest frame, if it was exposed since then and the guard trusts it and its view."""
        loop = self.loop
        with suppress(Hold):
            frame = newest_frame(loop, s)
            loop.guard.check("frame", loop.number, s)
            if frame is not None and frame.stamp_ns >= since_ns:
                view = loop.reproject(frame.depth)
                s.view_filled = float(np.count_nonzero(view)) / view.size
                loop.guard.check("view", loop.number, s)
                seen_from = xyz_yaw(loop.history.at(frame.stamp_ns))
                closed = close_gaps(view)
                self._look_back(frame)
                return frame, closed, TableLook(closed, seen_from)
        return None

    def _look_back(self, frame: Frame) -> None:
        """With empty fingers again: has the last object left its place?"""
        attempt, loop = self._unsure, self.loop
        if attempt is None or self._taken is None:
            return
        T_base_hand = loop.history.at(frame.stamp_ns)
        attempt.seen_left = self._taken.left(
            frame,
            T_base_hand @ loop.camera.T_hand_camera,
            float(T_base_hand[2, 3]),
            self.distance.contract.hand,
        )
        if attempt.seen_left is False:
            attempt.outcome, attempt.held = MISSED, False
            attempt.reason = (
                "the gripper felt something; on the way back the object is seen to lie where it was"
            )
        if attempt.seen_left is not None:
            self._unsure = None
            self._save()

    def _view(self, into: list[TableLook]) -> Iterator[Step]:
        """One view that the guard trusts, exposed from now on. Raises Stop if none comes."""
        loop, since = self.loop, self.robot_ns()
        loop.allow(PATIENCE_S)
        for _ in range(max(int(PATIENCE_S * loop.config.rate), 10)):
            tick(loop)
            s = sense(loop, "look around")
            hold(loop)
            if (seen := self._seen(s, since)) is not None:
                record_cycle(loop, s, *seen[:2])
                yield step_of(loop)
                into.append(seen[2])
                return
            record_cycle(loop, s)
            yield step_of(loop)
        raise Stop(f"no view that can be trusted came within {PATIENCE_S:g} s; check the camera")

    # The fingers.

    def _open(self, wide_m: float) -> Iterator[Step]:
        """Open, and wait until the fingers are that far apart, or stand."""
        loop, gripper = self.loop, self.cell.gripper
        assert gripper is not None
        gripper.open()
        for _ in approach.stay(loop, "release", self.setup.grasping.close_timeout_s):
            yield step_of(loop)
            state = gripper.state()
            if not state.moving or (wide_m and state.width_m > wide_m):
                self.state.carrying = False
                return
        raise Stop(
            f"the fingers still move {self.setup.grasping.close_timeout_s:g} s after they were told to open"
        )

    def _clear_of_table(self) -> Iterator[Step]:
        """After an attempt in vain: fingers open, hand above everything."""
        loop, gripper = self.loop, self.cell.gripper
        assert gripper is not None
        if self.state.carrying or gripper.state().holding:
            yield from self._open(0.0)
        height_m = max(self.place.carry_m, float(loop.commanded[2]))
        speed_m_s = self.setup.grasping.lift_speed_m_s
        for _ in approach.straight(loop, "retreat", height_m, speed_m_s):
            yield step_of(loop)

    # Moves.

    def _slot(self) -> Array:
        places = self.place.slots()
        return turned(places[self.state.placed % len(places)], self.home_yaw)

    def _above(self, hand: Array) -> Array:
        return np.array([*hand[:2], max(float(hand[2]), self.place.carry_m), hand[3]])

    def _planned(self, goals: Sequence[Array], part: float = 1.0) -> HandPath:
        """From the arm's target up to the height of carrying, and through the goals, at a part of the speed.
        Raises PathError."""
        loop = self.loop
        here = np.array(loop.commanded)
        state = loop.robot.state()
        reachable = Reachable(
            loop.limits,
            loop.arm,
            state.q,
            state.T_base_hand,
            getattr(loop.robot, "T_robot_base", None),
        )
        pace = replace(self.pace, speed_m_s=part * self.pace.speed_m_s)
        return planned([here, self._above(here), *goals], pace, reachable)

    def _go(
        self,
        goal: Array,
        phase: str,
        *,
        watch: Watch | None = None,
        settle: bool = True,
        skippable: bool = False,
        views: dict[int, TableLook] | None = None,
        places: Sequence[Array] = (),
    ) -> Iterator[Step]:
        """Up, across at the height of carrying, over `places`, and down to the goal. Raises PathError before
        anything moves.

        views: by the index of a place, taken in passing, and weighed; the last place is the goal.
        """
        loop, above = self.loop, self._above(goal)
        ways = [*places[:-1], *([above, goal] if above[2] > goal[2] + 1e-6 else [goal])]
        path = self._planned(ways, _PASSING if len(places) > 1 else 1.0)
        self.path = path

        def glimpse(s: CycleState) -> tuple[Frame, NDArray[np.float32]] | None:
            assert views is not None
            if (open_ := next((v for v in views.values() if not v.weighed), None)) is not None:
                open_.weigh(self.distance)
                return None
            far = [float(np.linalg.norm(s.hand[:3] - p[:3])) for p in places]
            k = int(np.argmin(far))
            if k in views or far[k] > _PASSING_M:
                return None
            seen = self._seen(s, self.robot_ns() - _FRESH_NS)
            if seen is None:
                return None
            views[k] = seen[2]
            return seen[:2]

        taken = glimpse if views is not None else None
        for _ in follow(loop, path, phase, watch, settle=settle, glimpse=taken):
            yield step_of(loop)
            if skippable:
                self._maybe_skip()

    def _maybe_skip(self) -> None:
        if self.control.take("skip"):
            raise Skipped("skipped at the user's request")

    def _tell(self, line: str) -> None:
        if line == "closing":
            self.state.carrying = True
            self._save()
        super()._tell(line)

    def _save(self) -> None:
        self.state.seconds = self.seconds_before + (self.robot_ns() - self._began_ns) * 1e-9
        if self._save_to is not None:
            self.state.write(self._save_to)
