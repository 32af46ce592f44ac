"""The job: single approaches of rt.servo one after another, with looks before and travel after each.

`Job` is a Servo: the same devices, guard, watchdog, recorder and page, entered once for the whole job. Each
attempt is one approach and its last centimetres; the arm stops, and the job ends, for the same reasons as a
run of rt.servo, but for a contact while something is gripped (rt.job.recovery). An attempt that fails
otherwise (nothing seen, missed, collided, slipped) is written down and the job goes on elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from rt.cycle import Step, step_of
from rt.guard.rows import Stop
from rt.job.holding import Held
from rt.job.look import (
    APART_M,
    GraspTarget,
    TableLook,
    TakenPlace,
    ground_between,
    merged,
    probabilities,
    turned,
)
from rt.job.moves import GiveUp, Gone, Skipped
from rt.job.path import Array, PathError
from rt.job.recovery import JobRecovery
from rt.job.state import DROPPED, MISSED, PLACED, SKIPPED, Attempt
from rt.loop import (
    hold,
    newest_frame,
    sense,
    tick,
)
from rt.outcome import Outcome
from rt.record.cycle import record_cycle
from rt.servo import FAULTS, settled
from rt.view import START_HEIGHT_M

_NOT_SEEN_S = 0.5
"""An approach whose view shows no grasp for so long is given up, before the guard ends the run for it."""
_DECLINED = 0.5
"""Part of the option `probability` that the place where the hand came to rest must have."""
_AS_GOOD = 0.95
"""Part of the best probability with which a place below the hand is taken instead."""
_OPENED_M = 0.02
"""The fingers have let go once they are this much farther apart."""
_TRACK_CYCLES, _TRACK_LENGTH = 6, 50_000
_GRIPS = ("close", "lift")
"""Phases in which a contact ends the attempt, and not the job."""
VAIN = 12
"""So many attempts in a row in vain end the job."""


class Job(JobRecovery):
    """The whole job in an open cell: `for step in job` is one period, like Servo's.

    with open_cell("table") as cell, Job(cell, open_model(), ClearOptions(fast=True)) as job:
        for step in job:
            print(step.phase, job.state.placed)
    """

    def __enter__(self) -> Job:
        super().__enter__()
        return self

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
                tried = len(self.state.attempts)
                loop.tally = {"tried": tried, "placed": self.state.placed}
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
            if sum(target.near(other.hand) for other in self.gone) >= self.job.tries:
                continue  # seen from afar only: no grasp from above
            if self.state.tries_at(target.hand) < self.job.tries:
                return target
            self.left.append(target)
        return None

    def _between(self) -> Iterator[Step]:
        """Hold while a pause is asked for, or after one pick in single steps."""
        while self.control.waits():
            yield self._hold("paused")

    # Looking.

    def _look_around(self) -> Iterator[Step]:
        """Look at all that is to be cleared; then `targets`. Begins with the nearest place to look from."""
        loop = self.loop
        places = self.place.looks()
        first_m, last_m = (math.dist(places[k][:2], loop.commanded[:2]) for k in (0, -1))
        if last_m < first_m:
            places.reverse()
        hands = [np.array([*place, self.home_yaw]) for place in places]
        views: dict[int, TableLook] = {}
        try:
            yield from self._go(hands[-1], "look around", settle=False, views=views, places=hands)
            for k in range(len(hands)):
                if k not in views:  # not seen in passing
                    yield from self._go(hands[k], "look around")
                    one: list[TableLook] = []
                    yield from self._view(one)
                    views[k] = one[0]
        except PathError as error:
            raise Stop(f"to a place to look from: {error}") from error
        found: list[GraspTarget] = []
        for view in views.values():
            while not view.weighed:
                view.weigh(self.distance)
                yield self._hold("look around")
            found += view.targets(self.job.probability, self.place)
        self.looks += 1
        self.left = []
        self.targets = merged(found)
        self._tell(f"{len(self.targets)} places to grasp")

    # One attempt.

    def _attempt(self, target: GraspTarget) -> Iterator[Step]:
        attempt = Attempt(len(self.state.attempts) + 1)
        attempt.aim(target.hand, target.probability)
        self.state.attempts.append(attempt)
        self.control.begin_pick()
        try:
            yield from self._pick(target, attempt)
        except Gone:
            self.state.attempts.pop()
            self.gone.append(target)
            return
        except Skipped as skipped:
            attempt.outcome, attempt.reason = SKIPPED, str(skipped)
        except PathError as error:
            attempt.outcome, attempt.reason = SKIPPED, f"out of reach: {error}"
        except GiveUp as missed:
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
        over = self._start_over(target)
        seen: dict[int, TableLook] = {}
        yield from self._go(over, "travel", settle=False, skippable=True, views=seen, places=[over])
        found: list[GraspTarget] = []
        yield from self._look_here(target, seen.get(0), found)
        if found[0] is not target:
            target = found[0]
            attempt.aim(target.hand, target.probability)
            if not target.at_hand(loop.commanded):
                yield from self._go(
                    self._start_over(target), "travel", settle=False, skippable=True
                )
        self._taken = self._unsure = None  # from here on others may be pushed there
        yield from self._down()
        attempt.x_m, attempt.y_m, _, attempt.yaw_rad = (float(v) for v in loop.commanded)
        try:
            for step in self._finish():
                if loop.phase in ("look", "descend"):
                    self._maybe_skip()
                yield step
        except Stop as stop:
            if loop.phase not in _GRIPS or not self._felt_contact():
                raise
            attempt.held = loop.phase == "lift"
            attempt.outcome = DROPPED if attempt.held else MISSED
            attempt.phase = loop.phase
            attempt.reason = f"met something (during: {loop.phase}): {str(stop).split(';')[0]}"
            yield from self._let_go(stop)
            return
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

    def _look_here(
        self, target: GraspTarget, look: TableLook | None, into: list[GraspTarget]
    ) -> Iterator[Step]:
        """Look from above a target, if that was not done in passing: all targets in this view are found anew.
        Appends the one to go for: the nearest to the target within its spot, else the best in this view.
        Raises Gone if there is none."""
        if look is None:
            view: list[TableLook] = []
            yield from self._view(view)
            look = view[0]
        while not look.weighed:
            look.weigh(self.distance)
            yield self._hold("look around")
        fresh = look.targets(self.job.probability, self.place)
        kept = [t for t in self.targets if not look.covers(t.hand)]
        self.targets = merged([*kept, *fresh])
        fresh = [t for t in fresh if self.state.tries_at(t.hand) < self.job.tries]
        if not fresh:
            raise Gone("no grasp is seen there any more")
        best = next((t for t in fresh if t.near(target.hand)), fresh[0])
        here = look.at_hand(self.loop.commanded, _AS_GOOD * best.probability)
        if here is not None and self.state.tries_at(here.hand) >= self.job.tries:
            here = None
        into.append(here or best)

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
                raise GiveUp("no grasp is seen there any more")
            if (np.abs(loop.commanded[:2] - middle) > half + APART_M).any():
                raise GiveUp("it led out of what is to be cleared")

    def _look_at_rest(self) -> None:
        """Like Servo's; an unlikely grasp is declined."""
        super()._look_at_rest()
        loop = self.loop
        assert loop.last is not None and self.cell.gripper is not None
        here = np.zeros((1, 3), np.float32)
        chance = float(probabilities(self.distance, loop.last.view, here)[1][0])
        if chance < _DECLINED * self.job.probability:
            raise GiveUp(f"declined: probability {chance:.2f} where the hand came to rest")
        if self.cell.gripper.state().moving:
            raise GiveUp("the fingers were not open yet")
        x, y, _, yaw = (float(v) for v in loop.commanded)
        before_m = ground_between(
            loop.frames.late(loop.end_m),
            loop.camera.intrinsics.rays(),
            loop.commanded,
            self.distance.contract.hand,
        )
        self._taken = None if before_m is None else TakenPlace((x, y, yaw), before_m)

    def _verify(self, attempt: Attempt) -> Iterator[Step]:
        """Look at the place from above: the object must have left it. Raises GiveUp if it has not."""
        loop = self.loop
        if self._taken is None:
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
            attempt.seen_left = self._taken.left(
                frame, T_base_camera, float(loop.hand[2]), self.distance.contract.hand
            )
            if attempt.seen_left is not None:
                break
        if attempt.seen_left is False:
            attempt.held = False
            raise GiveUp(
                "the gripper feels something, but the object is seen to lie where it was; the fingers "
                "are opened"
            )

    # What follows a grasp.

    def _carried(self, attempt: Attempt) -> Iterator[Step]:
        """To the next place of the pattern, and open there. Slips and contacts end in DROPPED."""
        gripper = self.cell.gripper
        assert gripper is not None
        held_m = gripper.state().width_m
        taken_m = None if self.grasp is None else self.grasp.closed_at_m
        yield from self._carry(attempt, self._slot(), taken_m)
        if attempt.outcome:
            return
        yield from self._open(held_m + _OPENED_M)
        attempt.outcome = PLACED
        self._unsure = attempt if attempt.seen_left is None else None
