"""The hand, or what it holds, meets something: the arm stops, backs off, puts the object back, and the job
goes on.

The guard stops the arm as ever. A force or torque felt while the fingers close, lift or carry then does not
end the job by itself: those are the parts of a pick in which contact is likely. Whatever the guard says on
the way back ends it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rt.cycle import Step, step_of
from rt.grasp import approach
from rt.gripper.held import HeldObject
from rt.guard.force import contact_force
from rt.guard.rows import CycleState, Stop
from rt.job.moves import GiveUp, JobMoves, Slipped
from rt.job.path import Array, PathError, Retrace
from rt.job.state import DROPPED, Attempt
from rt.job.travel import follow
from rt.loop import PATIENCE_S, at_rest, freeze, record_cycle, sense, tick

BACK_M_S = 0.10
"""Speed of the way back."""
_FREE_M = 0.03
"""So far back the force must be gone."""
_GONE_S = 1.0
"""So long after the arm came to rest the force must be gone."""
_CONTACT = ("force", "torque", "following_error")
"""Rows of the guard that a contact sets off; all others still count while the arm comes to rest."""
_ABOVE_M = 0.004
"""Put back from so far above where it was taken."""
_REST_CYCLES = 3
"""First cycles of a way, whose mean force is that of the object's weight."""


class Bumped(GiveUp):
    """The hand, or the object in it, met something."""


class HeldWatch:
    """Watches what the fingers hold on its way, once a cycle: raises Slipped or Bumped."""

    def __init__(self, job: JobMoves, doing: str) -> None:
        assert job.cell.gripper is not None
        self._job, self._doing = job, doing
        self._held = HeldObject(job.cell.gripper)
        self._felt: list[Array] = []
        self.rest: Array | None = None
        """(6,) wrench with the object in the air; None: not known."""

    def __call__(self, s: CycleState) -> None:
        x, y, z = s.hand[:3]
        if self._held.lost(self._job.robot_ns()):
            raise Slipped(f"slipped while {self._doing}, at ({x:.2f}, {y:.2f}) m")
        if s.state is None or s.state.wrench is None:
            return
        if self.rest is None:
            self._felt.append(s.state.wrench)
            if len(self._felt) == _REST_CYCLES:
                self.rest = np.asarray(np.mean(self._felt, axis=0))
            return
        force_N, _ = contact_force(s.state, self.rest)
        if force_N > self._job.place.contact_N:
            raise Bumped(
                f"met something while {self._doing}: {force_N:.0f} N at ({x:.2f}, {y:.2f}, {z:.2f}) m"
            )


class JobRecovery(JobMoves):
    """JobMoves with what follows a contact."""

    def _felt_contact(self) -> bool:
        """True if the guard's Stop in this cycle is for a force or torque: the arm itself is well."""
        events, loop = self.loop.guard.events, self.loop
        return bool(
            events
            and events[-1]["cycle"] == loop.number
            and events[-1]["name"] in ("force", "torque")
        )

    def _let_go(self, stop: Stop) -> Iterator[Step]:
        """After a contact while the fingers closed or lifted: open them where they are. Raises `stop` if the
        force stays."""
        gripper = self.cell.gripper
        assert gripper is not None
        self.loop.target.brake()
        gripper.open()
        yield from self._stand(stop, 0.5)
        yield from self._open(0.0)

    def _stand(self, why: Exception, part: float = 1.0) -> Iterator[Step]:
        """Stop the arm where it is, and make that its target. Raises Stop if it does not come to rest, if
        more than a part of the guard's force or torque stays, or if the user asks for it."""
        loop, limits = self.loop, self.loop.limits
        loop.target.brake()
        loop.allow(PATIENCE_S + _GONE_S)
        rested, left_s = False, PATIENCE_S
        while True:
            tick(loop)
            s = sense(loop, loop.phase, limits.min_grasp_height_m, _CONTACT)
            record_cycle(loop, s)
            yield step_of(loop)
            assert s.state is not None
            if not rested and at_rest(s.state):
                rested, left_s = True, _GONE_S
            gone = (
                s.force_N < part * limits.max_force_N and s.torque_Nm < part * limits.max_torque_Nm
            )
            if rested and gone:
                break
            left_s -= s.period_s
            if left_s < 0:
                still = "the force stays" if rested else "the arm did not come to rest"
                raise Stop(f"{why}; {still}") from why
        freeze(loop, s)

    def _put_back(
        self, attempt: Attempt, why: Bumped | Stop, watch: HeldWatch, taken_m: float | None
    ) -> Iterator[Step]:
        """Back along the way, slowly, and down to where the object was taken; the fingers open there.

        taken_m: height of that [m]; None: not known. Raises Stop if the force stays, or comes again.
        """
        loop, path = self.loop, self.path
        said = str(why).split(";")[0]
        self._tell(said)
        yield from self._stand(why)
        attempt.outcome, attempt.reason = DROPPED, said
        assert path is not None and self.cell.gripper is not None
        if not self.cell.gripper.state().holding:
            attempt.reason += "; lost there"
            return
        back = Retrace(path, np.array(loop.commanded), BACK_M_S)
        begin = np.array(loop.commanded[:3])

        def free(s: CycleState) -> None:
            try:
                watch(s)
            except Bumped as still:
                if np.linalg.norm(s.hand[:3] - begin) > _FREE_M:
                    raise Stop(
                        f"contact: on the way back {still}, at most {self.place.contact_N:g} N; look, then "
                        "move the hand by the pendant"
                    ) from still

        try:
            for _ in follow(loop, back, "back off", free):
                yield step_of(loop)
        except Slipped as slipped:
            attempt.reason += f"; {slipped}"
            return
        if taken_m is None:
            raise Stop(f"{said}; where it was taken is not known: look, then move the hand")
        yield from self._set_down(taken_m + _ABOVE_M)
        attempt.reason += "; put back where it was taken"

    def _set_down(self, height_m: float) -> Iterator[Step]:
        """Straight down to a height, or to a contact, and open."""
        loop, grasping = self.loop, self.setup.grasping
        zero: Array | None = None
        for s in approach.straight(loop, "set down", height_m, grasping.speed_m_s):
            yield step_of(loop)
            if s.state is None or s.state.wrench is None:
                continue
            zero = s.state.wrench if zero is None else zero
            if contact_force(s.state, zero)[0] > grasping.contact_N:
                yield from self._stand(Bumped("contact while setting down"))
                break
        yield from self._open(0.0)

    def _carry(self, attempt: Attempt, slot: Array, taken_m: float | None) -> Iterator[Step]:
        """To a place. Sets attempt.outcome if the object did not come there. Raises Stop."""
        watch = HeldWatch(self, "carried")
        try:
            yield from self._go(slot, "carry", watch=watch)
        except PathError as error:
            raise Stop(f"to the place, with something between the fingers: {error}") from error
        except Slipped as slipped:
            attempt.outcome, attempt.reason = DROPPED, str(slipped)
        except Bumped as bumped:
            yield from self._put_back(attempt, bumped, watch, taken_m)
        except Stop as stop:
            if not self._felt_contact():
                raise
            yield from self._put_back(attempt, stop, watch, taken_m)
