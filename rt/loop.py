"""The pieces of one period of a run: wait for the slot, sense, send, record.

Algorithm 1 itself is rt.cycle.cycle, the last centimetres are rt.grasp.approach; both are sequences of

    tick(loop); s = sense(loop, phase); ...; send(loop, s, command); record_cycle(loop, s, ...)

with the guard between each two. Without a new command there are four ways to go on:

name      sent to the arm    the arm                   next command starts from    used for
--------  -----------------  ------------------------  --------------------------  ------------------------
hold      the last target    goes on to it and stands  that target                 one held cycle, a pause
brake     Robot.stop         slows down where it is    that target, as from rest   a second held cycle
freeze    the measured pose  goes back to it, stands   the measured pose           contact
stop_arm  Robot.stop         slows down where it is    nothing: the run is over    a Stop, a fault, a signal

After `brake` the last target may be centimetres ahead of the arm.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rt import controller
from rt.camera import CameraError, Frame, StaleFrameError
from rt.camera.frames import KeptFrames, PosedFrame, RepeatedViews
from rt.camera.own_hand import OwnHand
from rt.cell.cell import Cell
from rt.cell.options import ServoOptions
from rt.cell.setup import RunSetup
from rt.controller import TargetPoint, open_controller
from rt.controller.target import FollowedTarget
from rt.distance.contract import Contract
from rt.grasp.memory import HeightMemory, needed_height_m
from rt.grasp.target import WantedObject, off_target
from rt.guard.camera_watch import CameraWatch
from rt.guard.force import contact_force, wrench_at_rest
from rt.guard.rows import CycleState, Guard, Hold, Limits
from rt.guard.settings import SettingsWatch
from rt.outcome import ScoredView
from rt.robot import PoseHistory, RobotError, RobotState
from rt.robot.kinematics import ArmModel
from rt.robot.target import ArmTarget, xyz_yaw
from rt.tools.clock import Clock, Stopwatch
from rt.view import Reprojector, close_gaps

STAGES = ("world", "camera", "view", "distance", "control", "command", "whole")
"""world: a simulated world's own time, no part of the whole. distance: candidates and their distances."""

PATIENCE_S = 3.0
"""Longest time that the arm may take to come to rest."""
_STILL_M, _STILL_M_S, _STILL_RAD_S = 0.001, 0.001, 0.01
_OVER_M, _OVER_RAD = 0.001, math.radians(1)
"""A hand whose next move is smaller is over its goal."""
TRACE_LENGTH = 20_000
_FORGOTTEN_PERIODS, _FORGOTTEN_S = 5.5, 0.18
"""Without a trusted view for longer than both, the controller forgets what it remembers."""
_TIMES_LONGER, _LONGER_S = 8.0, 10.0
"""A phase ends after so many times what it should take (slow motion of the page takes four times as long,
holds at most double that), and so many seconds more."""


class ContractedDistance(controller.DistanceFunction, Protocol):
    """d(I, a), and the contract of its model."""

    @property
    def contract(self) -> Contract: ...


class Loop:
    """The memory of one run: its devices, its network, and what one cycle leaves for the next."""

    def __init__(
        self,
        config: ServoOptions,
        cell: Cell,
        distance: ContractedDistance,
        n: int,
        setup: RunSetup | None = None,
        signals: list[int] | None = None,
    ) -> None:
        setup = setup or RunSetup()
        self.config, self.cell, self.distance, self.n = config, cell, distance, n
        self.robot, self.camera = cell.robot, cell.camera
        # Frames `hand` and `view` coincide (rt.pose).
        self.reproject = Reprojector(cell.camera.intrinsics, cell.camera.T_hand_camera)
        self.limits: Limits = setup.limits or config.limits or Limits()
        self.pace, self.record, self.tips = setup.pace, setup.record, setup.tips
        self.guard = Guard(self.limits, simulated=cell.simulated)
        self.history = PoseHistory()
        self.settings = SettingsWatch()
        self.camera_watch: CameraWatch | None = None
        if self.guard.watches_camera:
            self.camera_watch = CameraWatch(cell.camera.intrinsics, cell.camera.T_hand_camera)
        self.signals = [] if signals is None else signals
        self.rng, self.noise_rng = np.random.default_rng([config.seed, config.scene]).spawn(2)
        # With speed_scale s the ratio becomes 1 - (1 - ratio)**s: 1/s as many cycles cover the same way.
        scale = config.speed_scale
        ratio = config.ratio if scale == 1 else 1 - (1 - config.ratio) ** scale
        self.controller = open_controller(config.controller, ratio, n, self.rng)
        self.wanted = WantedObject(config.target, config.target_box, cell.camera.intrinsics)
        self.target = ArmTarget(self.robot)
        self.hand = self.target.commanded
        """(4,) measured, in this cycle."""
        self.wrench_zero = wrench_at_rest(cell.robot)
        self.arm: ArmModel | None = getattr(cell.robot, "arm_model", None)
        self.end_m, self.descent_m = distance.contract.end_height_m, 0.0
        self.frames, self.repeated, self.heights = KeptFrames(), RepeatedViews(), HeightMemory()
        self.drift_m_s = np.zeros(2)
        """(2,) velocity, along x and y of base, with which the hand goes on during a grasp."""
        self.probability: float | None = None
        """Of a grasp at the goal of the last cycle; None from a network without one."""
        self.phase, self.number = "start", 0
        self.done = self.held = self.held_in_a_row = self.paused = 0
        self._left_s, self._pausing = math.inf, False
        self.trace: deque[dict[str, Any]] = deque(maxlen=TRACE_LENGTH)
        self.first: ScoredView | None = None
        self.last: ScoredView | None = None
        self._trusted_ns: int | None = None
        self.requests: dict[str, int] = {}
        """Requests from the keyboard, by word, beside those of the live page."""
        self.listen: Callable[[], object] = lambda: None
        """Called at the begin of every period: reads the keyboard."""
        self.tally: dict[str, int] = {}
        """Counts of a job, for its record: tried, placed."""
        self.fresh_clock()

    @property
    def commanded(self) -> NDArray[np.float64]:
        """(4,) of x, y, z [m], yaw [rad] in base: the arm's target."""
        return self.target.commanded

    @property
    def wanted_now(self) -> TargetPoint | None:
        """The wanted object, where the controller has followed it to; None: any object."""
        followed = getattr(self.controller, "target", None)
        wanted = self.wanted.now
        return followed.of(wanted) if isinstance(followed, FollowedTarget) else wanted

    def off_target(self) -> str:
        """Why a grasp where the arm stands would be none of the wanted object; empty: nothing against it."""
        target = self.wanted_now
        if target is None or self.last is None:
            return ""
        followed = getattr(self.controller, "target", None)
        cells = followed.cells if isinstance(followed, FollowedTarget) else None
        return off_target(target, cells, self.commanded, float(self.last.distances[0]))

    @property
    def period_s(self) -> float:
        return 1 / self.config.rate

    @property
    def arrived(self) -> bool:
        return bool(self.commanded[2] <= self.end_m + 1e-9)

    def needed_m(self, hand: NDArray[np.float64]) -> float:
        """Least fingertip height [m] at which a hand (4,) is inside nothing that the views have shown."""
        return needed_height_m(self.heights, hand, self.distance.contract.hand)

    def end_above(self, s: CycleState, move: NDArray[np.float64]) -> None:
        """Let the approach end where it is, if the hand is over its goal and only a tall thing below it keeps
        it from going deeper. move: (3,) of dx, dy [m], dyaw [rad] that was wanted in this cycle."""
        over = np.hypot(move[0], move[1]) < _OVER_M and abs(move[2]) < _OVER_RAD
        if over and s.lack_m(s.commanded) > -_OVER_M and s.commanded[2] > self.end_m:
            self.end_m = float(s.commanded[2])

    def fresh_clock(self) -> None:
        """A clock and a stopwatch for what follows: rate and times of one part of the run."""
        self.clock = Clock(self.config.rate, paced=not self.config.fast)
        self.watch = Stopwatch(STAGES)

    def enter(self, phase: str) -> None:
        """Name what the loop does now, for records and messages."""
        self.phase = phase

    def forget(self) -> None:
        """Drop what one approach has seen, before another begins."""
        self.controller.forget()
        self.frames, self.repeated, self.heights = KeptFrames(), RepeatedViews(), HeightMemory()
        if self.camera_watch is not None:  # what was picked has changed the scene
            self.camera_watch = CameraWatch(
                self.camera.intrinsics, self.camera.T_hand_camera, self.camera_watch.own_hand
            )
        self.end_m = self.distance.contract.end_height_m
        self.held_in_a_row, self._trusted_ns, self.probability = 0, None, None

    def watch_open_hand(self) -> None:
        """The fingers are open now: what the camera sees of them tells where it is. Takes up to a second."""
        if self.camera_watch is not None:
            hand = self.distance.contract.hand
            self.camera_watch.own_hand = OwnHand(
                self.camera.intrinsics, self.camera.T_hand_camera, hand
            )

    def plan_descent(self) -> None:
        """Constant steps from the commanded height to the end height."""
        steps = self.config.iterations / self.config.speed_scale
        way_m = max(float(self.commanded[2]) - self.end_m, 0.0)
        self.descent_m = way_m / steps
        self.allow(max(steps * self.period_s, way_m / max(self.limits.max_speed_m_s, 1e-6)))

    def allow(self, expected_s: float) -> None:
        """Bound what follows to several times what it should take, pauses not counted; inf: no bound."""
        self._left_s = _TIMES_LONGER * expected_s + _LONGER_S

    def spend(self) -> tuple[float, float]:
        """One period passes: seconds of the pause that goes on, and seconds beyond what was allowed."""
        self.paused = self.paused if self._pausing else 0
        self._pausing = False
        self._left_s -= self.period_s
        return self.paused * self.period_s, max(-self._left_s, 0.0)

    def count_pause(self) -> None:
        """The period of the last `spend` was one of a pause."""
        self.paused, self._pausing = self.paused + 1, True
        self._left_s += self.period_s

    def count(self, held: bool) -> None:
        """One more cycle, done or held."""
        self.done, self.held = self.done + (not held), self.held + held
        self.held_in_a_row = self.held_in_a_row + 1 if held else 0

    def refresh(self, stamp_ns: int) -> None:
        """Before a view exposed at stamp_ns is scored: the controller forgets its goals if the last trusted
        view is too old (a hold, a pause, or a delay)."""
        long_s = max(_FORGOTTEN_PERIODS * self.period_s, _FORGOTTEN_S)
        if self._trusted_ns is not None and (stamp_ns - self._trusted_ns) * 1e-9 > long_s:
            self.controller.forget()

    def look_around(self, view: NDArray[np.float32], s: CycleState, frame: Frame) -> None:
        """Remember the heights of a view that passed the guard, and tell the controller its surroundings.
        Raises TargetError."""
        stamp_ns = frame.stamp_ns
        T_base_hand = self.history.at(stamp_ns)
        self.heights.see(view, xyz_yaw(T_base_hand))
        self.wanted.hear(self.record)
        self.wanted.see(frame, T_base_hand @ self.camera.T_hand_camera)
        if hasattr(self.controller, "around"):
            self.controller.around = controller.Surroundings(
                exposed_s=stamp_ns * 1e-9,
                period_s=self.period_s,
                ahead_s=max(s.frame_age_s, 0.0) + float(getattr(self.robot, "lag_s", 0.0)),
                heights=self.heights,
                hand=self.distance.contract.hand,
                target=self.wanted.now,
            )

    def score(self, scored: ScoredView) -> None:
        """The newest view with its distances."""
        self.last, self.first = scored, self.first or scored

    def trust(self, stamp_ns: int) -> None:
        """The guard let pass the distances of the view exposed then."""
        self._trusted_ns = stamp_ns

    def keep(self, frame: Frame, T_base_hand: NDArray[np.float64]) -> None:
        """A frame that passed the guard, for the grasp's depth."""
        T_base_camera = T_base_hand @ self.camera.T_hand_camera
        kept = PosedFrame(frame.depth, T_base_camera, float(T_base_hand[2, 3]), frame.stamp_ns)
        self.frames.keep(kept)


def tick(loop: Loop) -> None:
    """Wait for the next slot; a simulated world advances by one period."""
    loop.clock.wait()
    loop.listen()
    loop.watch.start()
    loop.cell.advance(loop.clock.period_ns)
    loop.watch.lap("world")
    loop.watch.start()


def sense(
    loop: Loop, phase: str, floor_m: float | None = None, but: Collection[str] = ()
) -> CycleState:
    """The newest state of the arm, judged by the guard, but for rows of these names. Raises Stop or
    RobotError."""
    loop.enter(phase)
    loop.number += 1
    state = loop.robot.state()
    loop.history.append(state)
    loop.hand = xyz_yaw(state.T_base_hand)
    s = CycleState(loop.limits, loop.period_s, loop.hand, loop.commanded)
    s.state, s.before, s.floor_m, s.arm = state, loop.target.before, floor_m, loop.arm
    s.settings = loop.settings.before(state.settings)
    # In the last centimetres the fingers go beside the object, by a height of their own (rt.grasp.height).
    s.needed_m = loop.needed_m if phase == "approach" else None
    s.missed_in_a_row, s.held_s = loop.clock.missed_in_a_row, loop.held_in_a_row * s.period_s
    s.paused_s, s.over_time_s = loop.spend()
    now_ns = loop.robot.now_ns()
    s.state_age_s = (now_ns - state.stamp_ns) * 1e-9
    if loop.target.sent_ns is not None:
        s.target_late_s = (now_ns - loop.target.sent_ns) * 1e-9 - s.period_s
    s.tilt_deg = math.degrees(math.acos(min(max(-float(state.T_base_hand[2, 2]), -1.0), 1.0)))
    s.force_N, s.torque_Nm = contact_force(state, loop.wrench_zero)
    s.operator_stop = len(loop.signals) + operator_request(loop, "stop")
    loop.guard.check("input", loop.number, s, but)
    return s


def operator_request(loop: Loop, word: str) -> int:
    """The request of the live page or the keyboard: a word of rt.record.ring.CONTROL; 0 for none."""
    if loop.requests.get(word):
        return 1
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
    loop.target.send(s.command)
    loop.watch.lap("command")


def hold(loop: Loop) -> None:
    """Send the last target again (see the table above)."""
    loop.target.hold()


def brake(loop: Loop) -> None:
    """Slow the arm down where it is; the next command goes on from the last target."""
    loop.target.brake()


def freeze(loop: Loop, s: CycleState) -> None:
    """Make the measured pose the target: no further toward the old one."""
    assert s.state is not None
    loop.target.freeze(s.state.T_base_hand, loop.limits.min_grasp_height_m)


def wait_for_first_frame(loop: Loop) -> tuple[Frame, NDArray[np.float64]]:
    """Before the arm moves: a frame that was exposed while the hand's pose was known, and T_base_camera then.
    Raises CameraError."""
    for _ in range(max(int(loop.config.patience * loop.config.rate), 10)):
        loop.history.append(loop.robot.state())
        with suppress(StaleFrameError):
            frame = loop.camera.read_latest(loop.limits.max_frame_age_s)
            if loop.history.gap_s(frame.stamp_ns) == 0:
                if hasattr(loop.camera, "info"):  # some of it is known only now
                    loop.cell.info["camera"] = loop.camera.info
                return frame, loop.history.at(frame.stamp_ns) @ loop.camera.T_hand_camera
        tick(loop)
    raise CameraError(f"no fresh frame within {loop.config.patience:g} s; check the camera's cable")


def dwell(
    loop: Loop, target: NDArray[np.float64] | None, meanwhile: Callable[[], None] | None = None
) -> bool:
    """Wait until the arm is at rest, at most PATIENCE_S; True if it is. target: (4,), where it must come
    to rest, under the guard; None: anywhere, after a stop. meanwhile: called in every cycle."""
    for _ in range(max(int(PATIENCE_S * loop.config.rate), 10)):
        tick(loop)
        if meanwhile is not None:
            meanwhile()
        away = 0.0
        if target is None:
            state = loop.robot.state()
            loop.history.append(state)
        else:
            s = sense(loop, loop.phase)
            assert s.state is not None
            state = s.state
            hold(loop)
            away = float(np.linalg.norm(s.hand[:3] - target[:3]))
        if at_rest(state) and away < _STILL_M:
            return True
    return False


def at_rest(state: RobotState) -> bool:
    """True if the arm stands."""
    speed, turn = np.linalg.norm(state.twist[:3]), np.linalg.norm(state.twist[3:])
    return bool(speed < _STILL_M_S and turn < _STILL_RAD_S)


def look_once_more(loop: Loop) -> bool:
    """Score one more view from where the arm stands, for the report and for the grasp's depth; True if one
    passed the guard. Raises Stop and the devices' errors."""
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
            loop.score(ScoredView(view, actions, loop.distance(view, actions)))
            loop.keep(frame, loop.history.at(frame.stamp_ns))
            return True
    return False


def stop_arm(loop: Loop) -> None:
    """Stop the arm for good. A lost arm cannot be told to; its own watchdog stops it."""
    with suppress(RobotError):
        loop.target.brake()
