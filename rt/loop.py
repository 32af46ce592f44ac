"""What every phase of a run is made of: wait for the slot, sense, send, remember.

Algorithm 1 itself is rt.servo.cycle, the last centimetres are rt.grasp.approach; both are sequences of

    tick(loop); s = sense(loop, phase); ...; send(loop, s, command); remember(loop, s, ...)

with the guard between each two.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rt import controller
from rt.camera import CameraError, Frame, StaleFrameError
from rt.cell.cell import Cell
from rt.cell.options import ServoOptions
from rt.controller import CONTROLLERS
from rt.distance import Contract
from rt.guard.force import contact_force, wrench_at_rest
from rt.guard.rows import ROWS, CycleState, Guard, Hold, Limits
from rt.pose import from_top_down, top_down
from rt.record.report import ScoredView
from rt.record.schema import best_candidates
from rt.robot import PoseHistory, RobotError
from rt.robot.kinematics import ArmModel
from rt.tools.clock import Clock, Stopwatch
from rt.view import Reprojector, close_gaps

STAGES = ("world", "camera", "view", "distance", "control", "command", "whole")
"""world: a simulated world's own time, no part of the whole. distance: candidates and their distances."""

PATIENCE_S = 3.0
"""How long the arm may take to stand still."""
_STILL_M, _STILL_M_S, _STILL_RAD_S = 0.001, 0.001, 0.01
_TRACE_LENGTH = 20_000
_LATE_VIEWS, _EARLY_VIEWS, _EARLY_EVERY_M = 8, 12, 0.01
_FORGOTTEN_PERIODS, _FORGOTTEN_S = 5.5, 0.18
"""Without a trusted view for longer than both, what a controller remembers may have changed."""
_MOVED_M = 0.002
"""Pictures from places farther apart than this differ."""
_ROW_NUMBER = {row.name: i for i, row in enumerate(ROWS)}


class ContractedDistance(controller.DistanceFunction, Protocol):
    """d(I, a), with what it was made for."""

    @property
    def contract(self) -> Contract: ...


class RecordSink(Protocol):
    """What a flight recorder offers the loop (rt.record.Recorder)."""

    ring: Any

    def put(self, **fields: Any) -> None:
        """One cycle; never waits."""


@dataclass(frozen=True)
class SpeedBound:
    """The fastest that the loop itself asks for, so that the guard has nothing to clamp."""

    speed_m_s: float = math.inf
    turn_rad_s: float = math.inf

    def bound(self, move: NDArray[np.float64], period_s: float) -> NDArray[np.float64]:
        """(3,) of dx, dy [m], dyaw [rad], shortened."""
        far, turn = float(np.hypot(move[0], move[1])), abs(float(move[2]))
        slower = min(1.0, self.speed_m_s * period_s / max(far, 1e-12))
        gentler = min(1.0, self.turn_rad_s * period_s / max(turn, 1e-12))
        return np.asarray(move * np.array([slower, slower, gentler]))


@dataclass(frozen=True)
class PosedFrame:
    """A depth image that the guard let pass, and where it was taken from."""

    depth: NDArray[np.float32]
    T_base_camera: NDArray[np.float64]
    hand_m: float
    """Height of the hand."""


class Loop:
    """What one run holds: devices, network, and the memory of a cycle."""

    def __init__(
        self,
        config: ServoOptions,
        cell: Cell,
        distance: ContractedDistance,
        n: int,
        *,
        limits: Limits | None = None,
        pace: SpeedBound | None = None,
        signals: list[int] | None = None,
        record: RecordSink | None = None,
    ) -> None:
        self.config, self.cell, self.distance, self.n = config, cell, distance, n
        self.robot, self.camera = cell.robot, cell.camera
        # Frames `hand` and `view` coincide (rt.pose).
        self.reproject = Reprojector(cell.camera.intrinsics, cell.camera.T_hand_camera)
        self.limits, self.pace = limits or config.limits, pace or SpeedBound()
        self.guard, self.history = Guard(self.limits), PoseHistory()
        self.signals = [] if signals is None else signals
        self.record = record
        self.rng, self.noise_rng = np.random.default_rng([config.seed, config.scene]).spawn(2)
        # Slower means: as much less of the way each cycle as takes so many more cycles.
        scale = config.speed_scale
        ratio = config.ratio if scale == 1 else 1 - (1 - config.ratio) ** scale
        self.controller = CONTROLLERS[config.controller](ratio, n, self.rng)
        self.phase = "start"
        state = self.robot.state()
        self.commanded = xyz_yaw(state.T_base_hand)
        self.before: NDArray[np.float64] | None = None
        self.sent_ns: int | None = None
        self.wrench_zero = wrench_at_rest(cell.robot)
        self.arm: ArmModel | None = getattr(cell.robot, "arm_model", None)
        self.end_m = distance.contract.end_height_m
        self.descent_m = 0.0
        self.done = self.held = self.held_in_a_row = self.number = 0
        self.trace: deque[dict[str, Any]] = deque(maxlen=_TRACE_LENGTH)
        self.first: ScoredView | None = None
        self.last: ScoredView | None = None
        self.late: deque[PosedFrame] = deque(maxlen=_LATE_VIEWS)
        self.early: deque[PosedFrame] = deque(maxlen=_EARLY_VIEWS)
        self.trusted_ns: int | None = None
        """Exposure of the last view whose distances the guard let pass."""
        self._frame, self._view = -1, np.zeros(0, np.float32)
        self._seen_from, self._same = np.full(3, np.inf), 0
        self.fresh_clock()

    def fresh_clock(self) -> None:
        """Rate and times are those of what comes now."""
        self.clock = Clock(self.config.rate, paced=not self.config.fast)
        self.watch = Stopwatch(STAGES)

    def plan_descent(self) -> None:
        """From the height where the hand is told to be now to the end height, in constant steps."""
        steps = self.config.iterations / self.config.speed_scale
        self.descent_m = max(float(self.commanded[2]) - self.end_m, 0.0) / steps

    @property
    def period_s(self) -> float:
        return 1 / self.config.rate

    @property
    def arrived(self) -> bool:
        return bool(self.commanded[2] <= self.end_m + 1e-9)

    def same_views(self, frame: Frame, view: NDArray[np.float32], hand: NDArray[np.float64]) -> int:
        """New frames in a row that show what the one before did, though the hand had moved."""
        if frame.number != self._frame:
            moved = float(np.linalg.norm(hand[:3] - self._seen_from)) > _MOVED_M
            if moved:
                self._same = self._same + 1 if np.array_equal(view, self._view) else 0
                self._seen_from = hand[:3].copy()
            self._frame, self._view = frame.number, view
        return self._same

    def refresh(self, stamp_ns: int) -> None:
        """A view of that time is about to be weighed: what the controller remembers is forgotten if the last
        that could be trusted is too old, after a hold, a pause, or whatever else took so long."""
        long_s = max(_FORGOTTEN_PERIODS * self.period_s, _FORGOTTEN_S)
        if self.trusted_ns is not None and (stamp_ns - self.trusted_ns) * 1e-9 > long_s:
            self.controller.forget()

    def keep(self, frame: Frame, T_base_hand: NDArray[np.float64]) -> None:
        """Keep a trustworthy frame for the grasp's depth: the last ones, and a few on the way down."""
        T = T_base_hand @ self.camera.T_hand_camera
        seen = PosedFrame(frame.depth, T, float(T_base_hand[2, 3]))
        if not self.early or self.early[-1].hand_m - seen.hand_m > _EARLY_EVERY_M:
            self.early.append(seen)
        if not self.late or self.late[-1].depth is not frame.depth:
            self.late.append(seen)


def xyz_yaw(T_base_hand: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) of x, y, z [m], yaw [rad] of a hand that looks straight down."""
    return np.array(from_top_down(T_base_hand))


def tick(loop: Loop) -> None:
    """To the next slot; a simulated world follows."""
    loop.clock.wait()
    loop.watch.start()
    loop.cell.advance(loop.clock.period_ns)
    loop.watch.lap("world")
    loop.watch.start()


def sense(loop: Loop, phase: str, floor_m: float | None = None) -> CycleState:
    """The newest state of the arm, judged by the guard. Raises Hold, Stop or RobotError."""
    loop.phase, loop.number = phase, loop.number + 1
    state = loop.robot.state()
    loop.history.append(state)
    s = CycleState(loop.limits, loop.period_s, xyz_yaw(state.T_base_hand), loop.commanded)
    s.state, s.before, s.floor_m, s.arm = state, loop.before, floor_m, loop.arm
    s.missed_in_a_row, s.held_s = loop.clock.missed_in_a_row, loop.held_in_a_row * s.period_s
    now_ns = loop.robot.now_ns()
    s.state_age_s = (now_ns - state.stamp_ns) * 1e-9
    if loop.sent_ns is not None:
        s.target_late_s = (now_ns - loop.sent_ns) * 1e-9 - s.period_s
    s.tilt_deg = math.degrees(math.acos(min(max(-float(state.T_base_hand[2, 2]), -1.0), 1.0)))
    s.force_N, s.torque_Nm = contact_force(state, loop.wrench_zero)
    s.operator_stop = len(loop.signals) + operator_request(loop, "stop")
    loop.guard.check("input", loop.number, s)
    return s


def operator_request(loop: Loop, word: str) -> int:
    """What the live page asks for: stop, pause or slow (rt.record.ring.CONTROL)."""
    return 0 if loop.record is None else int(loop.record.ring.asked(word))


def newest_frame(loop: Loop, s: CycleState) -> Frame | None:
    """The newest frame, and its age and exposure gap for the guard; None if it is too old."""
    try:
        frame = loop.camera.read_latest(loop.limits.max_frame_age_s)
    except StaleFrameError as error:
        s.frame_age_s = error.age_s
        return None
    s.frame_age_s = (loop.robot.now_ns() - frame.stamp_ns) * 1e-9
    s.exposure_gap_s = loop.history.gap_s(frame.stamp_ns)
    s.other_intrinsics = int(
        frame.intrinsics != loop.reproject.intrinsics
        or frame.depth.shape != (frame.intrinsics.height_px, frame.intrinsics.width_px)
    )
    return frame


def send(loop: Loop, s: CycleState, command: NDArray[np.float64]) -> None:
    """A target for the hand (4,), as the guard lets it through. Raises Stop or RobotError."""
    s.command = command
    if s.state is not None:
        s.thought_s = (loop.robot.now_ns() - s.state.stamp_ns) * 1e-9 - s.state_age_s
    loop.guard.check("command", loop.number, s)
    loop.watch.lap("control")
    loop.robot.move(top_down(*s.command))
    loop.watch.lap("command")
    loop.sent_ns = loop.robot.now_ns()
    loop.before, loop.commanded = loop.commanded, s.command


def hold(loop: Loop) -> None:
    """The last target again: the arm stands, and the target stays young."""
    loop.robot.move(top_down(*loop.commanded))
    loop.sent_ns = loop.robot.now_ns()
    loop.before = loop.commanded


def brake(loop: Loop) -> None:
    """To rest where the arm is: its last target may be centimetres ahead of it. When all is well again
    the next command goes on from that target."""
    loop.robot.stop()
    loop.sent_ns = loop.before = None


def record_cycle(
    loop: Loop,
    s: CycleState | None,
    frame: Frame | None = None,
    view: NDArray[np.float32] | None = None,
    decision: controller.Decision | None = None,
) -> None:
    """This cycle for the flight record, as far as it came. Costs some tens of microseconds."""
    if loop.record is None:
        return
    known: dict[str, Any] = {}
    if s is not None:
        known.update(hand=s.hand, command=loop.commanded, state_age_s=s.state_age_s)
        state = s.state
        if state is not None:
            known.update(T_base_hand=state.T_base_hand, twist=state.twist)
            known.update({k: v for k in ("q", "wrench") if (v := getattr(state, k)) is not None})
    if frame is not None and s is not None:
        known.update(frame_stamp_ns=frame.stamp_ns, frame_age_s=s.frame_age_s)
        if view is not None:
            known.update(frame=frame.number, view=view)
    if decision is not None:
        actions, distances = best_candidates(decision.actions, decision.distances)
        known.update(candidates=actions, distances=distances, weighed=len(decision.actions))
        known.update(symmetry=decision.symmetry)
        known.update(action=decision.actions[decision.best], goal=decision.goal)
        known.update(
            predicted_m=decision.distances[0], predicted_best_m=decision.distances[decision.best]
        )
    true = loop.cell.true_distance_m
    if true is not None:
        known["true_m"] = true()
    if loop.cell.gripper is not None and loop.phase in GRASPING:
        with suppress(Exception):  # whoever closes it hears of what is wrong
            grip = loop.cell.gripper.state()
            known["gripper_m"] = grip.width_m
            known["gripper"] = b"moving" if grip.moving else b"object" if grip.holding else b"idle"
    events = loop.guard.events
    if events and events[-1]["cycle"] == loop.number:
        event = events[-1]
        known.update(guard_name=event["name"].encode(), guard_action=event["action"].encode())
        known.update(guard_value=event["value"], guard_limit=event["limit"])
    counts = np.zeros(64, np.uint32)
    for name, count in loop.guard.counts.items():
        if name in _ROW_NUMBER:
            counts[_ROW_NUMBER[name]] = count
    stages = np.full(16, np.nan, np.float32)
    stages[: len(STAGES)] = loop.watch.take_ms()
    loop.record.put(
        cycle=loop.number,
        stamp_ns=loop.robot.now_ns(),
        phase=loop.phase.encode(),
        slack_s=loop.clock.slack_s,
        missed=loop.clock.missed,
        held=loop.held,
        guard_counts=counts,
        stage_ms=stages,
        **known,
    )


GRASPING = ("descend", "close", "lift", "retreat")
"""Phases of the last centimetres."""


def wait_for_first_frame(loop: Loop) -> None:
    """Until a frame comes that was exposed when the hand's pose was known. Raises CameraError."""
    for _ in range(max(int(loop.config.patience * loop.config.rate), 10)):
        loop.history.append(loop.robot.state())
        with suppress(StaleFrameError):
            frame = loop.camera.read_latest(loop.limits.max_frame_age_s)
            if loop.history.gap_s(frame.stamp_ns) == 0:
                if hasattr(loop.camera, "info"):  # some of it is known only now
                    loop.cell.info["camera"] = loop.camera.info
                return
        tick(loop)
    raise CameraError(f"no fresh frame within {loop.config.patience:g} s; check the camera's cable")


def dwell(loop: Loop, where: NDArray[np.float64] | None) -> bool:
    """Let the arm come to rest, for a while at most; whether it did. At (4,) `where`, its target, under
    the guard; or anywhere (None), after a stop."""
    for _ in range(max(int(PATIENCE_S * loop.config.rate), 10)):
        tick(loop)
        away = 0.0
        if where is None:
            state = loop.robot.state()
            loop.history.append(state)
        else:
            s = sense(loop, loop.phase)
            assert s.state is not None
            state = s.state
            hold(loop)
            away = float(np.linalg.norm(s.hand[:3] - where[:3]))
        speed, turn = np.linalg.norm(state.twist[:3]), np.linalg.norm(state.twist[3:])
        if speed < _STILL_M_S and turn < _STILL_RAD_S and away < _STILL_M:
            return True
    return False


def look_once_more(loop: Loop) -> bool:
    """A view from where the arm stands now, for the report, and for the grasp's depth; whether one came
    that the guard lets pass. Raises Stop and the devices' errors."""
    since = loop.robot.now_ns()
    for _ in range(max(int(PATIENCE_S * loop.config.rate), 10)):
        tick(loop)
        s = sense(loop, loop.phase)
        hold(loop)
        with suppress(Hold):
            frame = newest_frame(loop, s)
            loop.guard.check("frame", loop.number, s)
            if frame is None or frame.stamp_ns < since:
                continue
            view = loop.reproject(frame.depth)
            s.view_filled = float(np.count_nonzero(view)) / view.size
            loop.guard.check("view", loop.number, s)
            view, actions = close_gaps(view), controller.candidates(loop.rng, loop.n)
            loop.last = ScoredView(view, actions, loop.distance(view, actions))
            loop.keep(frame, loop.history.at(frame.stamp_ns))
            return True
    return False


def stop_arm(loop: Loop) -> None:
    """Stop the arm; one that is lost cannot be told to (its own watchdog stops it)."""
    with suppress(RobotError):
        loop.robot.stop()
    loop.sent_ns = loop.before = None


def slower(limits: Limits, scale: float, speed_m_s: float, turn_deg_s: float) -> Limits:
    """The limits of a run at `scale` of an arm that goes no faster than this anyway."""
    return replace(
        limits,
        max_speed_m_s=min(limits.max_speed_m_s, speed_m_s) * scale,
        max_turn_deg_s=min(limits.max_turn_deg_s, turn_deg_s) * scale,
    )
