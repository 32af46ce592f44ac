"""The last centimetres: find the depth, come straight down, close, lift, and see whether it holds.

Every phase streams targets at the loop's rate, with the guard active, and ends with a reason. Where
the arm meets something on the way down it stops at once: close above the depth aimed at that is the
end of the descent, higher up it is a collision and the arm stays where it is, for people to look.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.cell.file import Grasping
from rt.grasp.height import GraspHeight, Grid, HeightError, grasp_height, height_map
from rt.gripper import GripperError
from rt.guard.force import ZERO_SAMPLES, contact_force
from rt.guard.rows import CycleState, Stop
from rt.loop import Loop, hold, operator_request, record_cycle, send, sense, stop_arm, tick, xyz_yaw
from rt.record.report import Status

_ARRIVED_M = 0.001
_SETTLE_S = 2.0
"""How long the arm may take to follow the last of a straight line."""
_LATE_FRAMES_M = 0.03
"""Frames from so little above the end height count as the last ones."""


@dataclass(frozen=True)
class GraspResult:
    """How the last centimetres ended."""

    outcome: str
    """`grasped`, or `no grasp: why`."""
    phase: str
    """The last one: look, descend, close, lift, done."""
    height: GraspHeight | None = None
    contact_N: float | None = None
    """Greatest force on the way down, beyond what was felt before; None where nothing is felt."""
    touched: bool = False
    """Whether the descent ended by contact."""
    closed_at_m: float | None = None
    """Height of the fingertips when they closed."""
    width_m: float | None = None
    """Between the pads once closed."""
    lifted_m: float = 0.0
    true_m: float | None = None
    """True distance when the fingers closed, where that is known."""


@dataclass
class _Abort(Exception):
    """A phase that cannot go on, though nothing is wrong with the cell."""

    why: str
    notes: dict[str, Any] = field(default_factory=dict)


def grasp(loop: Loop, options: Grasping, status: Status) -> GraspResult:
    """From standing at the end height to an object held up, or the reason why not.

    Raises Stop and the devices' errors like the cycles before; the arm is where it was then.
    """
    notes: dict[str, Any] = {}
    above = loop.commanded.copy()
    phase = "look"
    try:
        wrenches: list[NDArray[np.float64]] = []
        notes["height"] = _depth(loop, options, wrenches)
        phase = loop.phase = "descend"
        status.note = f"down to {notes['height'].height_m * 1e3:.0f} mm"
        zero = np.mean(wrenches[-ZERO_SAMPLES:], axis=0) if wrenches else None
        _descend(loop, options, notes, zero)
        phase = loop.phase = "close"
        status.note = "closing"
        _close(loop, options, notes)
        phase = loop.phase = "lift"
        status.note = f"lifting, {notes['width_m'] * 1e3:.0f} mm between the pads"
        _lift(loop, options, notes)
    except HeightError as error:
        return GraspResult(f"no grasp: {error}", phase, **notes)
    except _Abort as abort:
        if phase == "close":  # nothing is held: let go, and back the way it came
            _retreat(loop, options, float(above[2]))
        return GraspResult(f"no grasp: {abort.why}", phase, **notes)
    return GraspResult("grasped", "done", **notes)


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
    loop.fresh_clock()


def _depth(loop: Loop, options: Grasping, wrenches: list[NDArray[np.float64]]) -> GraspHeight:
    """Height maps of the frames that were kept, one a cycle, while the arm stands; then the height. What
    the hand feels meanwhile is appended to `wrenches`, at least ZERO_SAMPLES times if it feels."""

    def feel(s: CycleState) -> None:
        if s.state is not None and s.state.wrench is not None:
            wrenches.append(s.state.wrench)

    hand, where = loop.distance.contract.hand, loop.commanded
    rays = loop.camera.intrinsics.rays()
    grid = Grid.around(hand, float(where[2]) / loop.camera.intrinsics.fx_px)
    near = [f for f in loop.late if f.hand_m < loop.end_m + _LATE_FRAMES_M]
    early = [f for f in loop.early if f.hand_m >= loop.end_m + _LATE_FRAMES_M]
    maps = []
    for seen in (*near, *early):
        tick(loop)
        s = sense(loop, "look")
        hold(loop)
        feel(s)
        maps.append(height_map(seen.depth, rays, seen.T_base_camera, where, grid))
        record_cycle(loop, s)
    if 0 < (missing := ZERO_SAMPLES - len(wrenches)) < ZERO_SAMPLES:
        for s in still(loop, "look", missing * loop.period_s):
            feel(s)
    found = grasp_height(
        maps[: len(near)],
        maps[len(near) :],
        grid,
        hand,
        clearance_m=options.finger_clearance_m,
        table_gap_m=options.table_gap_m,
        min_seen=options.min_seen,
    )
    if found.height_m > where[2]:
        raise HeightError(
            f"the object reaches up to the hand ({found.limited_by} ask for "
            f"{found.height_m * 1e3:.0f} mm above the table, the hand is at {where[2] * 1e3:.0f} mm)"
        )
    return found


def _descend(
    loop: Loop, options: Grasping, notes: dict[str, Any], zero: NDArray[np.float64] | None
) -> None:
    """Straight down until contact; zero: (6,) the wrench at rest, a mean, so that the sensor's noise
    does not shift the threshold."""
    goal_m = notes["height"].height_m
    notes["contact_N"] = None if zero is None else 0.0
    for s in straight(loop, "descend", goal_m, options.speed_m_s):
        if zero is None or s.state is None:
            continue
        force_N, _ = contact_force(s.state, zero)
        notes["contact_N"] = max(notes["contact_N"], force_N)
        if force_N > options.contact_N:
            notes["touched"] = True
            freeze(loop, s)
            above_m = float(s.hand[2]) - goal_m
            if above_m > options.contact_tolerance_m:
                stop_arm(loop)
                raise _Abort(
                    f"collided: {force_N:.0f} N {above_m * 1e3:.0f} mm above the grasp; the arm stays "
                    "where it is, move it by the pendant"
                )
            return


def _close(loop: Loop, options: Grasping, notes: dict[str, Any]) -> None:
    gripper, true = loop.cell.gripper, loop.cell.true_distance_m
    assert gripper is not None
    notes["true_m"] = true() if true else None
    gripper.close()
    for s in still(loop, "close", options.close_timeout_s):
        notes["closed_at_m"] = float(s.hand[2])
        state = gripper.state()
        if not state.moving:
            break
    else:
        raise _Abort(f"the fingers still move after {options.close_timeout_s:g} s")
    notes["width_m"] = state.width_m
    if not state.holding or state.width_m < options.min_width_m:
        raise _Abort(f"missed: the fingers closed on nothing ({state.width_m * 1e3:.1f} mm)")


def _lift(loop: Loop, options: Grasping, notes: dict[str, Any]) -> None:
    gripper = loop.cell.gripper
    assert gripper is not None
    begin_m = float(loop.commanded[2])
    goal_m = min(begin_m + options.lift_m, loop.limits.max_height_m)

    def check(s: CycleState) -> None:
        notes["lifted_m"] = float(s.hand[2]) - begin_m
        state = gripper.state()
        notes["width_m"] = state.width_m
        if not state.holding:
            raise _Abort(f"slipped: lost {notes['lifted_m'] * 1e3:.0f} mm above where it was taken")

    for s in straight(loop, "lift", goal_m, options.lift_speed_m_s):
        check(s)
    for s in still(loop, "lift", options.hold_s):
        check(s)


def _retreat(loop: Loop, options: Grasping, height_m: float) -> None:
    gripper = loop.cell.gripper
    assert gripper is not None
    gripper.open()
    for _ in still(loop, "retreat", options.close_timeout_s):
        if not gripper.state().moving:
            break
    for _ in straight(loop, "retreat", height_m, options.lift_speed_m_s):
        pass


def to_height(loop: Loop, phase: str, height_m: float, speed_m_s: float) -> None:
    """Straight up or down to a height. Raises Stop and the robot's errors."""
    for _ in straight(loop, phase, height_m, speed_m_s):
        pass


def straight(loop: Loop, phase: str, height_m: float, speed_m_s: float) -> Iterator[CycleState]:
    """Stream targets straight up or down to a height, at a constant speed, one a cycle; the driver smooths
    both ends. Holds while the page asks for a pause. Ends when the arm is there; yields each cycle's
    situation. Raises Stop if it never gets there.
    """
    settle = max(int(_SETTLE_S * loop.config.rate), 10)
    while True:
        tick(loop)
        s = sense(loop, phase, loop.limits.min_grasp_height_m)
        if operator_request(loop, "pause"):
            hold(loop)
            record_cycle(loop, s)
            yield s
            continue
        way = height_m - float(loop.commanded[2])
        step = float(np.clip(way, -speed_m_s * s.period_s, speed_m_s * s.period_s))
        send(loop, s, loop.commanded + np.array([0.0, 0.0, step, 0.0]))
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


def still(loop: Loop, phase: str, seconds: float) -> Iterator[CycleState]:
    """Hold the target for some time; yields each cycle's situation."""
    for _ in range(max(int(seconds * loop.config.rate), 1)):
        tick(loop)
        s = sense(loop, phase, loop.limits.min_grasp_height_m)
        hold(loop)
        record_cycle(loop, s)
        yield s


def freeze(loop: Loop, s: CycleState) -> None:
    """Stay where the arm was measured to be: no further toward the old target."""
    assert s.state is not None
    loop.before = None
    loop.commanded = xyz_yaw(s.state.T_base_hand)
    loop.commanded[2] = max(loop.commanded[2], loop.limits.min_grasp_height_m)
    hold(loop)
