"""The last centimetres: find the depth, come straight down, close, lift, and check that the object is held.

On a conveyor the hand goes on with the object, at the velocity that the controller believed at the end of
the approach.

Every phase streams targets at the loop's rate, with the guard active, and ends with a reason; each is a
generator that yields the CycleState of every cycle. Contact on the way down stops the arm at once: just
above the depth aimed at contact ends the descent, higher up it is a collision and the arm stays there.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera.frames import PosedFrame
from rt.cell.file import Grasping
from rt.controller.motion import scene_velocity_m_s
from rt.grasp.height import Grid, HeightError, grasp_height, height_map
from rt.gripper import GripperError
from rt.gripper.held import HeldObject
from rt.guard.force import ZERO_SAMPLES, contact_force
from rt.guard.rows import CycleState, Stop
from rt.loop import Loop, freeze, hold, operator_request, send, sense, stop_arm, tick
from rt.outcome import GraspResult, Outcome
from rt.record.cycle import record_cycle

_ARRIVED_M = 0.001
_ABOVE_ALL_M, _SEEN_ALL = 0.01, 0.9
"""Above all that was seen by so much, and with so much of the ground seen, the hand comes down as fast as it
lifts."""
_RAMP_M_S2 = 1.5
"""Change of speed on the way down: the hand's own weight must not feel like a contact."""
_SETTLE_S = 2.0
"""Longest time that the arm may take to follow the last of a straight line."""

Cycles = Iterator[CycleState]
"""The cycles of a phase."""


@dataclass
class _Abort(Exception):
    """A phase that cannot go on, though nothing is wrong with the cell."""

    why: str
    notes: dict[str, Any] = field(default_factory=dict)


class DepthMaps:
    """Height maps around where the hand is told to be, of the frames kept on the way there, each once."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self._drift_m_s = loop, loop.drift_m_s.copy()
        self._since_ns = loop.robot.now_ns()
        # Over an object that moves the command is ahead of the hand, by what the arm lags.
        self.where = loop.hand.copy() if self._drift_m_s.any() else loop.commanded
        self._rays = loop.camera.intrinsics.rays()
        hand = loop.distance.contract.hand
        self.grid = Grid.around(hand, float(self.where[2]) / loop.camera.intrinsics.fx_px)
        self._maps: dict[int, tuple[PosedFrame, NDArray[np.float32]]] = {}

    def has(self, frame: PosedFrame) -> bool:
        return id(frame) in self._maps

    def of(self, frame: PosedFrame) -> NDArray[np.float32]:
        """(ny, nx) m above the table (rt.grasp.height)."""
        if not self.has(frame):
            # As if the object had been where it is at since_ns.
            T_base_camera = frame.T_base_camera.copy()
            T_base_camera[:2, 3] += self._drift_m_s * (self._since_ns - frame.stamp_ns) * 1e-9
            made = height_map(frame.depth, self._rays, T_base_camera, self.where, self.grid)
            self._maps[id(frame)] = frame, made
        return self._maps[id(frame)][1]

    def ahead(self) -> None:
        """Make the next one, while the arm comes to rest."""
        end_m = self._loop.end_m
        kept = (*self._loop.frames.early(end_m), *self._loop.frames.late(end_m))
        for frame in kept:
            if not self.has(frame):
                self.of(frame)
                return


def grasp(
    loop: Loop, options: Grasping, tell: Callable[[str], None], maps: DepthMaps | None = None
) -> Generator[CycleState, None, GraspResult]:
    """From standing at the end height to an object held up, or the reason why not; yields every cycle and
    returns the result. tell: called with one line at each new phase. maps: those made so far.

    Raises Stop and the devices' errors like the cycles before; the arm is then stopped by the caller.
    """
    loop.drift_m_s = scene_velocity_m_s(loop.controller)
    try:
        if maps is None or loop.drift_m_s.any():
            maps = DepthMaps(loop)
        return (yield from _grasp(loop, options, tell, maps))
    finally:
        loop.drift_m_s = np.zeros(2)


def _grasp(
    loop: Loop, options: Grasping, tell: Callable[[str], None], maps: DepthMaps
) -> Generator[CycleState, None, GraspResult]:
    """The phases of `grasp`."""
    notes: dict[str, Any] = {"drift_m_s": float(np.linalg.norm(loop.drift_m_s))}
    above_m = float(loop.commanded[2])
    loop.enter("look")
    if loop.probability is not None and loop.probability < options.min_probability:
        reason = (
            f"the probability of a grasp here is {loop.probability:.2f}, must be at least "
            f"{options.min_probability:g}; begin nearer to an object that fits the hand"
        )
        return GraspResult(Outcome.NO_GRASP, "look", reason, **notes)
    if reason := loop.off_target():
        return GraspResult(Outcome.NO_GRASP, "look", f"{reason}; nothing was touched", **notes)
    try:
        wrenches: list[NDArray[np.float64]] = []
        yield from _depth(loop, options, notes, wrenches, maps)
        loop.enter("descend")
        tell(f"down to {notes['height'].height_m * 1e3:.0f} mm")
        zero = np.mean(wrenches[-ZERO_SAMPLES:], axis=0) if wrenches else None
        yield from _descend(loop, options, notes, zero)
        loop.enter("close")
        tell("closing")
        yield from _close(loop, options, notes)
        loop.enter("lift")
        tell(f"lifting, {notes['width_m'] * 1e3:.0f} mm between the pads")
        yield from _lift(loop, options, notes)
    except HeightError as error:
        return GraspResult(Outcome.NO_GRASP, "look", str(error), **notes)
    except _Abort as abort:
        phase = loop.phase
        if phase == "close":  # nothing is held: open, and back up
            yield from _retreat(loop, options, above_m)
        return GraspResult(Outcome.NO_GRASP, phase, abort.why, **notes)
    return GraspResult(Outcome.GRASPED, "done", **notes)


def open_first(loop: Loop) -> None:
    """Open the gripper before anything moves. Raises GripperError."""
    gripper = loop.cell.gripper
    assert gripper is not None
    gripper.open()
    end = time.monotonic() + 10.0
    while gripper.state().moving:
        tick(loop)
        if time.monotonic() > end:
            raise GripperError("the gripper did not open within 10 s; check it")
    loop.watch_open_hand()
    loop.fresh_clock()


def _depth(
    loop: Loop,
    options: Grasping,
    notes: dict[str, Any],
    wrenches: list[NDArray[np.float64]],
    maps: DepthMaps,
) -> Cycles:
    """Height maps of the kept frames, one a cycle, while the hand stays over the object; then
    notes["height"]. Appends the wrenches measured meanwhile, at least ZERO_SAMPLES if the arm has a force
    sensor. Raises HeightError."""

    def feel(s: CycleState) -> None:
        if s.state is not None and s.state.wrench is not None:
            wrenches.append(s.state.wrench)

    hand, where = loop.distance.contract.hand, maps.where
    late, early = loop.frames.late(loop.end_m), loop.frames.early(loop.end_m)
    for cycles in itertools.count():
        missing = next((f for f in (*late, *early) if not maps.has(f)), None)
        if missing is None and cycles >= ZERO_SAMPLES:
            break
        tick(loop)
        s = sense(loop, "look")
        _go_on(loop, s)
        feel(s)
        if missing is not None:
            maps.of(missing)
        record_cycle(loop, s)
        yield s
    found = grasp_height(
        [maps.of(f) for f in late],
        [maps.of(f) for f in early],
        maps.grid,
        hand,
        clearance_m=options.finger_clearance_m,
        table_gap_m=options.table_gap_m,
        min_seen=options.min_seen,
        tips=loop.tips,
    )
    if found.height_m > where[2]:
        raise HeightError(
            f"the object reaches up to the hand ({found.limited_by} ask for "
            f"{found.height_m * 1e3:.0f} mm above the table, the hand is at {where[2] * 1e3:.0f} mm)"
        )
    notes["height"] = found


def _descend(
    loop: Loop, options: Grasping, notes: dict[str, Any], zero: NDArray[np.float64] | None
) -> Cycles:
    """Straight down until contact. zero: (6,) mean wrench at rest, so that the sensor's noise does not shift
    the threshold."""
    found = notes["height"]
    goal_m = found.height_m
    slow_m = math.inf if found.seen < _SEEN_ALL else found.top_m + _ABOVE_ALL_M
    notes["contact_N"] = None if zero is None else 0.0
    fast = max(options.lift_speed_m_s, options.speed_m_s)
    now = 0.0

    def speed_m_s() -> float:
        nonlocal now
        above_m = max(float(loop.commanded[2]) - now * loop.period_s - slow_m, 0.0)
        soon = math.sqrt(options.speed_m_s**2 + 2 * _RAMP_M_S2 * above_m)
        now = min(max(now, options.speed_m_s / 4) + _RAMP_M_S2 * loop.period_s, soon, fast)
        return now

    for s in straight(loop, "descend", goal_m, speed_m_s):
        if zero is not None and s.state is not None:
            force_N, _ = contact_force(s.state, zero)
            notes["contact_N"] = max(notes["contact_N"], force_N)
            if force_N > options.contact_N:
                notes["touched"] = True
                freeze(loop, s)
                above_m = float(s.hand[2]) - goal_m
                if above_m <= options.contact_tolerance_m:
                    return
                stop_arm(loop)
                raise _Abort(
                    f"collided: {force_N:.0f} N {above_m * 1e3:.0f} mm above the grasp; the arm stays "
                    "where it is, move it by the pendant"
                )
        yield s


def _close(loop: Loop, options: Grasping, notes: dict[str, Any]) -> Cycles:
    gripper, true = loop.cell.gripper, loop.cell.true_distance_m
    assert gripper is not None
    notes["true_m"] = true() if true else None
    gripper.close()

    def least_m() -> float:
        """Height at which the tips, as far as they have closed, clear the table: on an object they do anyway;
        those that close on nothing would meet it."""
        return options.table_gap_m + loop.tips(gripper.state().width_m)

    rise = (least_m, options.lift_speed_m_s) if loop.tips.moves else None
    for s in stay(loop, "close", options.close_timeout_s, rise):
        notes["closed_at_m"] = float(s.hand[2])
        state = gripper.state()
        if not state.moving:
            break
        yield s
    else:
        raise _Abort(f"the fingers still move after {options.close_timeout_s:g} s")
    notes["width_m"] = state.width_m
    if not state.holding or state.width_m < options.min_width_m:
        raise _Abort(f"missed: the fingers closed on nothing ({state.width_m * 1e3:.1f} mm)")


def _lift(loop: Loop, options: Grasping, notes: dict[str, Any]) -> Cycles:
    gripper = loop.cell.gripper
    assert gripper is not None
    begin_m = float(loop.commanded[2])
    goal_m = min(begin_m + options.lift_m, loop.limits.max_height_m)
    held = HeldObject(gripper)

    def check(s: CycleState) -> None:
        notes["lifted_m"] = float(s.hand[2]) - begin_m
        lost = held.lost(loop.robot.now_ns())
        notes["width_m"] = held.width_m
        if lost:
            raise _Abort(f"slipped: lost {notes['lifted_m'] * 1e3:.0f} mm above where it was taken")

    for s in straight(loop, "lift", goal_m, options.lift_speed_m_s):
        check(s)
        yield s
    loop.drift_m_s = np.zeros(2)
    for s in stay(loop, "lift", options.hold_s):
        check(s)
        yield s


def _retreat(loop: Loop, options: Grasping, height_m: float) -> Cycles:
    gripper = loop.cell.gripper
    assert gripper is not None
    gripper.open()
    for s in stay(loop, "retreat", options.close_timeout_s):
        if not gripper.state().moving:
            break
        yield s
    yield from straight(loop, "retreat", height_m, options.lift_speed_m_s)


def _go_on(loop: Loop, s: CycleState, up_m: float = 0.0) -> None:
    """One period's part of a motion: with the drift, and so far up. Holds if there is none."""
    x_m, y_m = loop.drift_m_s * s.period_s
    if x_m == y_m == up_m == 0:
        hold(loop)
    else:
        send(loop, s, loop.commanded + np.array([x_m, y_m, up_m, 0.0]))


def straight(
    loop: Loop,
    phase: str,
    height_m: float,
    speed_m_s: float | Callable[[], float],
    but: Collection[str] = (),
) -> Cycles:
    """Stream targets up or down to a height, with the loop's drift, at a speed that may depend on where the
    hand is, one a cycle; the driver smooths both ends. Holds while the page asks for a pause. Ends when the
    arm is there. but: rows of the guard that do not count, asked in every cycle. Raises Stop if the arm never
    gets there, and the robot's errors.
    """
    speed = speed_m_s if callable(speed_m_s) else lambda: speed_m_s
    settle = max(int(_SETTLE_S * loop.config.rate), 10)
    loop.allow(abs(height_m - float(loop.commanded[2])) / speed() + _SETTLE_S)
    while True:
        tick(loop)
        s = sense(loop, phase, loop.limits.min_grasp_height_m, but)
        if operator_request(loop, "pause"):
            loop.count_pause()
            hold(loop)
            record_cycle(loop, s)
            yield s
            continue
        way = height_m - float(loop.commanded[2])
        most = speed() * s.period_s
        step = float(np.clip(way, -most, most))
        x_m, y_m = loop.drift_m_s * s.period_s
        send(loop, s, loop.commanded + np.array([x_m, y_m, step, 0.0]))
        record_cycle(loop, s)
        yield s
        if abs(way) < 1e-9:
            if abs(float(s.hand[2]) - float(loop.commanded[2])) < _ARRIVED_M:
                return
            settle -= 1
            if settle < 0:
                raise Stop(
                    f"{phase}: the arm stays {(s.hand[2] - loop.commanded[2]) * 1e3:.1f} mm from where it "
                    "is told to be; something holds it"
                )


def stay(
    loop: Loop,
    phase: str,
    seconds: float,
    rise: tuple[Callable[[], float], float] | None = None,
) -> Cycles:
    """Hold the target, or go on with the loop's drift, for some time. rise: a height [m] that the hand must
    not be below, and the speed [m/s] at which it rises to it."""
    for _ in range(max(int(seconds * loop.config.rate), 1)):
        tick(loop)
        s = sense(loop, phase, loop.limits.min_grasp_height_m)
        up_m = 0.0 if rise is None else rise[0]() - float(loop.commanded[2])
        step = min(up_m, rise[1] * s.period_s) if rise is not None and up_m > 0 else 0.0
        _go_on(loop, s, step)
        record_cycle(loop, s)
        yield s
