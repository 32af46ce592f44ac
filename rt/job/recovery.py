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
from rt.loop import PATIENCE_S, at_rest, freeze, sense, tick
from rt.record.cycle import record_cycle

BACK_M_S = 0.10
"""Speed of the way back."""
_FREE_M = 0.03
"""So far back the force must be gone."""
_GONE_S = 1.0
"""So long after the arm came to rest the force is waited for to go."""
_RISE_N = 10.0
"""A force that rises by more on the way back ends the job."""
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


class Easing:
    """Moving away from what still presses on a hand that stands: called once a cycle. For the first _FREE_M
    the guard's rows of force do not count (`but`), as long as the force does not rise; then they do again."""

    def __init__(self, job: JobMoves) -> None:
        loop = job.loop
        self._begin = np.array(loop.commanded[:3])
        self._at_most_N = contact_force(loop.robot.state(), loop.wrench_zero)[0] + _RISE_N
        self.but: set[str] = set(_CONTACT)

    def __call__(self, s: CycleState) -> None:
        if np.linalg.norm(s.hand[:3] - self._begin) > _FREE_M:
            self.but.clear()
        elif s.force_N > self._at_most_N:
            raise Stop(
                f"contact: the force rises on the way back, {s.force_N:.0f} N, must be at most "
                f"{self._at_most_N:.0f}; look, then move the hand by the pendant"
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
        """After a contact while the fingers closed or lifted: open them where they are, and rise a little.
        Raises Stop if the force stays."""
        loop, gripper = self.loop, self.cell.gripper
        assert gripper is not None
        loop.target.brake()
        gripper.open()
        yield from self._stand(stop, 0.5)
        easing, up_m = Easing(self), float(loop.commanded[2]) + 1.2 * _FREE_M
        for s in approach.straight(loop, "retreat", up_m, BACK_M_S, easing.but):
            easing(s)
            yield step_of(loop)
        yield from self._open(0.0)

    def _stand(self, why: Exception, part: float = 1.0) -> Iterator[Step]:
        """Stop the arm where it is, give the force time to fall below a part of the guard's limits, and make
        that place its target. Raises Stop if the arm does not come to rest, or if the user asks for it."""
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
            left_s -= s.period_s
            if rested and (gone or left_s < 0):
                break
            if left_s < 0:
                raise Stop(f"{why}; the arm did not come to rest") from why
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
        back, easing = Retrace(path, np.array(loop.commanded), BACK_M_S), Easing(self)

        def free(s: CycleState) -> None:
            easing(s)
            try:
                watch(s)
            except Bumped as still:
                if not easing.but:
                    raise Stop(
                        f"contact: on the way back {still}, at most {self.place.contact_N:g} N; look, then "
                        "move the hand by the pendant"
                    ) from still

        try:
            for _ in follow(loop, back, "back off", free, but=easing.but):
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
