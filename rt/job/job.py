"""The job: single approaches of rt.servo one after another, with looks before and travel after each.

`Job` is a Servo: the same devices, guard, watchdog, recorder and page, entered once for the whole job. Each
attempt is one approach and its last centimetres; the arm stops, and the job ends, for the same reasons as a
run of rt.servo. An attempt that fails otherwise (nothing seen, missed, collided, slipped) is written down and
the job goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from rt.camera.frames import PosedFrame
from rt.cell.cell import Cell
from rt.cell.file import PlacePart
from rt.cell.setup import RecordSink, RunSetup
from rt.cell.transform import CellError
from rt.cycle import Step, step_of
from rt.grasp import approach
from rt.guard.rows import CycleState, Hold, Stop
from rt.job.control import Control
from rt.job.holding import Held, settle_holding
from rt.job.look import (
    APART_M,
    GraspTarget,
    Look,
    ground_between,
    has_left,
    look_places,
    merged,
    probabilities,
    turned,
)
from rt.job.options import ClearOptions
from rt.job.path import Array, PathError, PathLimits, Reachable, planned
from rt.job.path import Path as HandPath
from rt.job.place import slots
from rt.job.state import DROPPED, MISSED, PLACED, SKIPPED, Attempt, JobState
from rt.job.travel import follow
from rt.loop import (
    PATIENCE_S,
    ContractedDistance,
    hold,
    newest_frame,
    record_cycle,
    sense,
    tick,
)
from rt.outcome import Outcome
from rt.robot.target import xyz_yaw
from rt.servo import FAULTS, Servo, settled
from rt.view import START_HEIGHT_M, close_gaps

_NOT_SEEN_S = 0.5
"""An approach whose view shows no grasp for so long is given up, before the guard ends the run for it."""
_DECLINED = 0.5
"""Part of the option `probability` that the place where the hand came to rest must have."""
_OPENED_M = 0.02
"""The fingers have let go once they are this much farther apart."""
_TRACK_CYCLES, _TRACK_LENGTH = 6, 50_000
VAIN = 12
"""So many attempts in a row in vain end the job."""
_TURN_S = 0.25
"""Time in which the full speed of a turn is reached."""


class _GiveUp(Exception):
    """This attempt is over, and nothing is wrong with the cell; the text is the reason."""


class _Gone(_GiveUp):
    """Not tried at all: the place does not look like a grasp from above."""


class _Skipped(_GiveUp):
    """Given up at the user's request."""


class _Slipped(_GiveUp):
    """The fingers have lost what they held."""


class Job(Servo):
    """The whole job in an open cell: `for step in job` is one period, like Servo's.

    with open_cell("table") as cell, Job(cell, open_model(), ClearOptions(fast=True)) as job:
        for step in job:
            print(step.phase, job.state.placed)
    """

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
        self.looks = 0
        """Looks over all that is to be cleared."""
        self.track: list[tuple[float, float]] = []
        """x, y [m] of the hand, a few times a second."""
        self._save_to, self._before_m = save, None  # type: tuple[Path | None, float | None]
        self._held = Held.NOTHING

    def __enter__(self) -> Job:
        super().__enter__()
        return self

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
        looks = [np.array([*xy, *home[2:]]) for xy in look_places(self.place)]
        try:
            self._planned([*looks, home, *(self._above(s) for s in slots(self.place)), home])
        except PathError as error:
            raise Stop(f"the job's ways: {error}; nothing moved") from error
        self._held = settle_holding(loop, self.state, self.job.if_holding)
        if self._held is Held.NOTHING:
            approach.open_first(loop)
            self.state.carrying = False
        self._save()

    def robot_ns(self) -> int:
        return self.cell.robot.now_ns()

    # The steps.

    def __iter__(self) -> Iterator[Step]:
        """The steps of the job; a Job runs once."""
        if self._begun:
            raise RuntimeError(
                "this Job has run already; make another one, with its state, to go on"
            )
        self._begun = True
        loop = self.loop
        try:
            for step in self._work():
                self.control.poll()
                if loop.number % _TRACK_CYCLES == 0 and len(self.track) < _TRACK_LENGTH:
                    self.track.append((float(loop.hand[0]), float(loop.hand[1])))
                yield step
        except (Stop, *FAULTS) as error:
            self._stopped(error)
            self.standing = settled(loop)
        self.clock, self.watch = loop.clock, loop.watch
        self._over = True
        self.state.ended = self.outcome.text(self.reason) if self.outcome else ""
        self._save()

    def _work(self) -> Iterator[Step]:
        if self._held is Held.SOMETHING:
            attempt = Attempt(len(self.state.attempts) + 1)
            attempt.aim(self.loop.commanded, 1.0)
            attempt.reason, attempt.held = "held at the start", True
            self.state.attempts.append(attempt)
            yield from self._carried(attempt)
        while True:
            yield from self._between()
            if why := self._enough():
                self._end(Outcome.LEFT, why)
                break
            target = self._next()
            if target is None:
                yield from self._look_around()
                target = self._next()
            if target is None:
                self._conclude()
                break
            yield from self._attempt(target)
        home = np.array([*self.place.home, self.home_yaw])
        with suppress(PathError):
            yield from self._go(home, "home")
        self.standing = True

    def _enough(self) -> str:
        """Reason to stop although something may be left, or an empty text."""
        done = self.state.attempts
        if self.job.most and len(done) >= self.job.most:
            return f"{self.job.most} attempts, as --most says"
        if len(done) >= VAIN and not any(a.outcome == PLACED for a in done[-VAIN:]):
            return f"{VAIN} attempts in a row in vain"
        return ""

    def _conclude(self) -> None:
        if not self.left:
            self._end(Outcome.CLEARED, "")
            return
        where = ", ".join(f"({t.hand[0]:.2f}, {t.hand[1]:.2f}) m" for t in self.left[:5])
        self._end(
            Outcome.LEFT,
            f"what is left at {where} was tried {self.job.tries} times in vain",
        )

    def _next(self) -> GraspTarget | None:
        """The best place of the last look that may still be tried."""
        while self.targets:
            target = self.targets.pop(0)
            if self.state.tries_at(target.hand) < self.job.tries:
                return target
            self.left.append(target)
        return None

    def _between(self) -> Iterator[Step]:
        """Hold while a pause is asked for, or after one pick in single steps."""
        while self.control.waits():
            yield self._hold("paused")

    def _hold(self, phase: str) -> Step:
        loop = self.loop
        tick(loop)
        s = sense(loop, phase)
        hold(loop)
        record_cycle(loop, s)
        return step_of(loop)

    # Looking.

    def _look_around(self) -> Iterator[Step]:
        """Look at all that is to be cleared; then `targets`. Begins with the nearest place to look from."""
        loop = self.loop
        places = look_places(self.place)
        if np.linalg.norm(places[-1] - loop.commanded[:2]) < np.linalg.norm(
            places[0] - loop.commanded[:2]
        ):
            places.reverse()
        found: list[GraspTarget] = []
        for xy in places:
            try:
                yield from self._go(
                    np.array([*xy, self.place.home[2], self.home_yaw]), "look around"
                )
            except PathError as error:
                raise Stop(f"to a place to look from: {error}") from error
            view: list[Look] = []
            yield from self._view(view)
            while not view[0].weigh(self.distance):
                yield self._hold("look around")
            found += view[0].targets(self.job.probability, self.place)
        self.looks += 1
        self.left = []
        self.targets = merged(found)
        self._tell(f"{len(self.targets)} places to grasp")

    def _view(self, into: list[Look]) -> Iterator[Step]:
        """One view that the guard trusts, exposed from now on. Raises Stop if none comes."""
        loop, since = self.loop, self.robot_ns()
        for _ in range(max(int(PATIENCE_S * loop.config.rate), 10)):
            tick(loop)
            s = sense(loop, "look around")
            hold(loop)
            with suppress(Hold):
                frame = newest_frame(loop, s)
                loop.guard.check("frame", loop.number, s)
                if frame is not None and frame.stamp_ns >= since:
                    view = loop.reproject(frame.depth)
                    s.view_filled = float(np.count_nonzero(view)) / view.size
                    loop.guard.check("view", loop.number, s)
                    seen_from = xyz_yaw(loop.history.at(frame.stamp_ns))
                    record_cycle(loop, s, frame, close_gaps(view))
                    yield step_of(loop)
                    into.append(Look(close_gaps(view), seen_from))
                    return
            record_cycle(loop, s)
            yield step_of(loop)
        raise Stop(f"no view that can be trusted came within {PATIENCE_S:g} s; check the camera")

    # One attempt.

    def _attempt(self, target: GraspTarget) -> Iterator[Step]:
        attempt = Attempt(len(self.state.attempts) + 1)
        attempt.aim(target.hand, target.probability)
        self.state.attempts.append(attempt)
        self.control.begin_pick()
        try:
            yield from self._pick(target, attempt)
        except _Gone:
            self.state.attempts.pop()
            return
        except _Skipped as skipped:
            attempt.outcome, attempt.reason = SKIPPED, str(skipped)
        except PathError as error:
            attempt.outcome, attempt.reason = SKIPPED, f"out of reach: {error}"
        except _GiveUp as missed:
            attempt.outcome, attempt.reason = MISSED, str(missed)
        except (Stop, *FAULTS) as error:
            attempt.reason = str(error)
            raise
        finally:
            attempt.phase = attempt.phase or self.loop.phase
            attempt.seconds = (self.robot_ns() - self._mark_ns) * 1e-9
            self._save()
        if attempt.outcome != PLACED:
            yield from self._clear_of_table()
        attempt.seconds = (self.robot_ns() - self._mark_ns) * 1e-9
        self._mark_ns = self.robot_ns()
        # The neighbours may have been pushed: they are looked at again from above, but not this spot.
        self.targets = [t for t in self.targets if not t.near((attempt.x_m, attempt.y_m))]
        self._tell(f"pick {attempt.number}: {attempt.outcome} {attempt.reason}".rstrip())
        self.control.end_pick()
        self._save()

    def _pick(self, target: GraspTarget, attempt: Attempt) -> Iterator[Step]:
        loop = self.loop
        loop.forget()
        self.outcome, self.grasp = None, None
        yield from self._go(self._start_over(target), "travel", settle=False, skippable=True)
        found: list[GraspTarget] = []
        yield from self._look_here(target, found)
        if found[0] is not target:
            target = found[0]
            attempt.aim(target.hand, target.probability)
            yield from self._go(self._start_over(target), "travel", settle=False, skippable=True)
        yield from self._down()
        attempt.x_m, attempt.y_m, _, attempt.yaw_rad = (float(v) for v in loop.commanded)
        for step in self._finish():
            if loop.phase in ("look", "descend"):
                self._maybe_skip()
            yield step
        self.outcome, result = None, self.grasp
        assert result is not None
        attempt.phase, attempt.width_m = result.phase, result.width_m
        if result.outcome is not Outcome.GRASPED:
            attempt.held = result.phase == "lift"
            attempt.outcome = DROPPED if attempt.held else MISSED
            attempt.reason = result.reason
            return
        attempt.held = True
        yield from self._verify(attempt)
        yield from self._carried(attempt)

    def _start_over(self, target: GraspTarget) -> Array:
        """(4,) hand above a target, at the start height."""
        hand = np.array([*target.hand[:2], START_HEIGHT_M, target.hand[3]])
        return turned(hand, self.home_yaw)

    def _look_here(self, target: GraspTarget, into: list[GraspTarget]) -> Iterator[Step]:
        """Look from above a target: all targets in this view are found anew. Appends the one to go for: the
        nearest to the target within its spot, else the best in this view. Raises _Gone if there is none."""
        view: list[Look] = []
        yield from self._view(view)
        look = view[0]
        while not look.weigh(self.distance):
            yield self._hold("look around")
        fresh = look.targets(self.job.probability, self.place)
        kept = [t for t in self.targets if not look.covers(t.hand)]
        self.targets = merged([*kept, *fresh])
        fresh = [t for t in fresh if self.state.tries_at(t.hand) < self.job.tries]
        if not fresh:
            raise _Gone("no grasp is seen there any more")
        into.append(next((t for t in fresh if t.near(target.hand)), fresh[0]))

    def _down(self) -> Iterator[Step]:
        """The approach of rt.servo, given up where its view shows no grasp for a while, and where it leads
        out of what is to be cleared."""
        loop, unseen = self.loop, 0
        middle, half = np.array(self.place.home[:2]), np.array(self.place.look_m) / 2
        for step in self._approach():
            unseen = unseen + 1 if step.held.startswith("flat_distances") else 0
            yield step
            self._maybe_skip()
            if unseen * loop.period_s > _NOT_SEEN_S:
                raise _GiveUp("no grasp is seen there any more")
            if (np.abs(loop.commanded[:2] - middle) > half + APART_M).any():
                raise _GiveUp("it led out of what is to be cleared")

    def _look_at_rest(self) -> None:
        """Like Servo's; an unlikely grasp is declined."""
        super()._look_at_rest()
        loop = self.loop
        assert loop.last is not None and self.cell.gripper is not None
        here = np.zeros((1, 3), np.float32)
        chance = float(probabilities(self.distance, loop.last.view, here)[1][0])
        if chance < _DECLINED * self.job.probability:
            raise _GiveUp(f"declined: probability {chance:.2f} where the hand came to rest")
        if self.cell.gripper.state().moving:
            raise _GiveUp("the fingers were not open yet")
        self._before_m = ground_between(
            loop.frames.late(loop.end_m),
            loop.camera.intrinsics.rays(),
            loop.commanded,
            self.distance.contract.hand,
        )

    def _verify(self, attempt: Attempt) -> Iterator[Step]:
        """Look at the place from above: the object must have left it. Raises _GiveUp if it has not."""
        loop = self.loop
        if self._before_m is None:
            return
        for _ in range(3):
            tick(loop)
            s = sense(loop, "lift", loop.limits.min_grasp_height_m)
            hold(loop)
            record_cycle(loop, s)
            yield step_of(loop)
            frame = newest_frame(loop, s)
            if frame is None:
                continue
            T_base_camera = loop.history.at(frame.stamp_ns) @ loop.camera.T_hand_camera
            seen = PosedFrame(frame.depth, T_base_camera, float(loop.hand[2]))
            spot = np.array([attempt.x_m, attempt.y_m, self._before_m + 0.02, attempt.yaw_rad])
            after_m = ground_between(
                [seen], loop.camera.intrinsics.rays(), spot, self.distance.contract.hand
            )
            attempt.seen_left = has_left(self._before_m, after_m)
            if attempt.seen_left is not None:
                break
        if attempt.seen_left is False:
            attempt.held = False
            raise _GiveUp(
                "the gripper feels something, but the object is seen to lie where it was; the fingers "
                "are opened"
            )

    # What follows a grasp.

    def _carried(self, attempt: Attempt) -> Iterator[Step]:
        """To the next place of the pattern, and open there. A slip on the way ends in DROPPED."""
        gripper = self.cell.gripper
        assert gripper is not None
        slot = self._slot()
        held_m = gripper.state().width_m

        def watch(s: CycleState) -> None:
            if not gripper.state().holding:
                raise _Slipped(f"slipped while carried, at ({s.hand[0]:.2f}, {s.hand[1]:.2f}) m")

        try:
            yield from self._go(slot, "carry", watch=watch)
        except PathError as error:
            raise Stop(f"to the place, with something between the fingers: {error}") from error
        except _Slipped as slipped:
            attempt.outcome, attempt.reason = DROPPED, str(slipped)
            return
        yield from self._open(held_m + _OPENED_M)
        attempt.outcome = PLACED

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
        places = slots(self.place)
        return turned(places[self.state.placed % len(places)], self.home_yaw)

    def _above(self, hand: Array) -> Array:
        return np.array([*hand[:2], max(float(hand[2]), self.place.carry_m), hand[3]])

    def _planned(self, goals: Sequence[Array]) -> HandPath:
        """From the arm's target up to the height of carrying, and through the goals. Raises PathError."""
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
        return planned([here, self._above(here), *goals], self.pace, reachable)

    def _go(
        self,
        goal: Array,
        phase: str,
        *,
        watch: object = None,
        settle: bool = True,
        skippable: bool = False,
    ) -> Iterator[Step]:
        """Up, across at the height of carrying, and down to the goal. Raises PathError before anything
        moves."""
        above = self._above(goal)
        path = self._planned([above, goal] if above[2] > goal[2] + 1e-6 else [goal])
        for _ in follow(self.loop, path, phase, watch, settle=settle):  # type: ignore[arg-type]
            yield step_of(self.loop)
            if skippable:
                self._maybe_skip()

    def _maybe_skip(self) -> None:
        if self.control.take("skip"):
            raise _Skipped("skipped at the user's request")

    def _tell(self, line: str) -> None:
        if line == "closing":
            self.state.carrying = True
            self._save()
        super()._tell(line)

    def _save(self) -> None:
        self.state.seconds = self.seconds_before + (self.robot_ns() - self._began_ns) * 1e-9
        if self._save_to is not None:
            self.state.write(self._save_to)
