"""The loop: `python -m rt.servo` finds a grasp in closed loop (Algorithm 1 of Viereck et al. 2017).

`cycle` is the algorithm, `run` the frame around it: wait for the first frame, bring the hand to the
start height, one cycle a period down to the end height, stand still, look once more; then, where there
is a gripper, the last centimetres (rt.grasp.approach); report.
"""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace

import numpy as np

from rt import controller
from rt.camera import CameraError
from rt.cell.cell import Cell
from rt.cell.file import Grasping
from rt.cell.open import Devices, open_devices, settle
from rt.cell.options import ServoOptions, parse
from rt.cell.transform import CellError
from rt.distance import Distance, DistanceError, candidates_for, open_model
from rt.distance.budget import MIN_CANDIDATES
from rt.grasp import approach
from rt.gripper import GripperError
from rt.guard.preflight import check_model, check_reach
from rt.guard.rows import CycleState, Hold, Limits, Stop
from rt.hand import HandError
from rt.loop import (
    GRASPING,
    PATIENCE_S,
    STAGES,
    ContractedDistance,
    Loop,
    SpeedBound,
    brake,
    dwell,
    hold,
    look_once_more,
    newest_frame,
    operator_request,
    record_cycle,
    send,
    sense,
    stop_arm,
    tick,
    wait_for_first_frame,
    xyz_yaw,
)
from rt.page.flight import LivePage, start_record
from rt.page.server import PageError
from rt.record.recorder import Recorder, RecordError
from rt.record.report import Report, ScoredView, Status, write
from rt.record.ring import RingError
from rt.robot import RobotError
from rt.tools.clock import Clock, ClockError, real_time
from rt.tools.files import output_folder
from rt.tools.process import signals_caught
from rt.view import START_HEIGHT_M, VIEW, ViewError, close_gaps

__all__ = ["STAGES", "Loop", "RunSetup", "ServoOptions", "cycle", "main", "run"]

MOST_CANDIDATES = 1024
"""More than these gain little: they lie closer than the network can tell apart."""
UNPACED_CANDIDATES = 256

_SLOW = 0.25
"""Part of each step that is gone while the page asks for slow motion."""

FAULTS = (RobotError, CameraError, GripperError, DistanceError, ViewError, ClockError)
"""What devices and network may raise while the arm moves: each stops it."""


@dataclass(frozen=True)
class RunSetup:
    """What a run is held to beside its ServoOptions."""

    limits: Limits | None = None
    """Default: the config's."""
    pace: SpeedBound = field(default_factory=SpeedBound)
    grasping: Grasping = field(default_factory=Grasping)
    to_start: bool = False
    """Whether the hand is first brought straight to the start height."""
    record: Recorder | None = None


def cycle(loop: Loop) -> None:
    """One period of Algorithm 1, from a depth image to a streamed command.

    Raises Hold (nothing is sent: the arm holds its target) or Stop, as the guard decides.
    """
    config, guard, watch = loop.config, loop.guard, loop.watch
    frame = view = decision = s = None
    try:
        # Where is the hand, and what did the camera see from where?
        s = sense(loop, "approach")
        frame = newest_frame(loop, s)
        guard.check("frame", loop.number, s)
        assert frame is not None  # or the guard would have held
        T_base_hand = loop.history.at(frame.stamp_ns)
        watch.lap("camera")

        # I: the depth image, in the view that the network knows.
        view = loop.reproject(frame.depth)
        s.view_filled = float(np.count_nonzero(view)) / view.size
        s.same_views = loop.same_views(frame, view, xyz_yaw(T_base_hand))
        guard.check("view", loop.number, s)
        loop.keep(frame, T_base_hand)
        view = close_gaps(view)
        watch.lap("view")

        # d(I, a) for candidates a around the hand, the best of them, and part of the way there from
        # where the arm is told to be. The goal is a place in base, so it does not matter that the arm
        # has moved on since the exposure.
        loop.refresh(frame.stamp_ns)
        decision = loop.controller(loop.distance, view, xyz_yaw(T_base_hand), loop.commanded)
        s.distances = decision.distances
        loop.last = ScoredView(view, decision.actions, decision.distances)
        loop.first = loop.first or loop.last
        guard.check("answer", loop.number, s)
        loop.trusted_ns = frame.stamp_ns
        watch.lap("distance")

        # What the arm makes of the move, and one step down.
        slow = _SLOW if operator_request(loop, "slow") else 1.0
        move = loop.pace.bound(decision.move * slow, s.period_s)
        if config.noise:
            move = controller.disturb(loop.noise_rng, move, config.noise)
        command = loop.commanded + np.array([move[0], move[1], 0, move[2]])
        command[2] = controller.descend(loop.commanded[2], loop.descent_m * slow, loop.end_m)
        send(loop, s, command)
        watch.whole("whole")
        trace(loop, s, frame.number, decision)
    finally:
        record_cycle(loop, s, frame, view, decision)


def trace(loop: Loop, s: CycleState, frame: int, decision: controller.Decision) -> None:
    """One entry of servo.json. Nothing in it comes from the wall clock, so a seed repeats it."""
    true = loop.cell.true_distance_m
    loop.trace.append(
        {
            "cycle": loop.done + loop.held,
            "time_s": loop.robot.now_ns() * 1e-9,
            "frame": frame,
            "frame_age_s": s.frame_age_s,
            "hand": s.hand.tolist(),
            "goal": decision.goal.tolist(),
            "command": s.command.tolist(),
            "action": decision.actions[decision.best].tolist(),
            "predicted_m": float(s.distances[0]),
            "predicted_best_m": float(s.distances[decision.best]),
            "true_m": true() if true else None,
        }
    )


def cycle_or_hold(loop: Loop) -> str:
    """One cycle; where the guard holds it, the last target again, and the reason is returned. One hold
    alone does not jerk the arm; from the second in a row on it brakes."""
    try:
        cycle(loop)
    except Hold as held:
        (brake if loop.held_in_a_row else hold)(loop)
        loop.held, loop.held_in_a_row = loop.held + 1, loop.held_in_a_row + 1
        return str(held)
    loop.done, loop.held_in_a_row = loop.done + 1, 0
    return ""


def pause(loop: Loop) -> None:
    """A cycle in which the arm holds its target because the page asks for it."""
    s = sense(loop, "paused")
    hold(loop)
    record_cycle(loop, s)


def servo(loop: Loop, status: Status) -> None:
    """Cycles until the end height. Raises Stop, or a device's error, with the last reason to hold."""
    why = ""
    while not loop.arrived:
        try:
            tick(loop)
            if operator_request(loop, "pause"):
                pause(loop)
                continue
            held = cycle_or_hold(loop)
        except Stop as stop:
            raise Stop(f"{stop} ({why})" if loop.held_in_a_row else str(stop)) from stop
        if held:
            status.note = why = f"holding: {held}"
        else:
            status.show(loop.done, loop.config.iterations, loop.trace[-1], loop.clock)


def arrive(loop: Loop, setup: RunSetup, status: Status) -> None:
    """From wherever the hand is to standing still at the end height, having looked once more."""
    if setup.to_start:
        status.note = "to the start height"
        approach.to_height(loop, "start", START_HEIGHT_M, setup.grasping.lift_speed_m_s)
        loop.fresh_clock()
    loop.plan_descent()
    servo(loop, status)


def run(
    config: ServoOptions,
    cell: Cell,
    distance: ContractedDistance,
    candidates: int,
    setup: RunSetup | None = None,
) -> Report:
    """One approach, in an open cell. Raises Stop and the devices' errors only before anything moves."""
    setup = setup or RunSetup()
    with ExitStack() as stack:
        signals = stack.enter_context(signals_caught())
        stack.enter_context(cell.robot)
        for device in (cell.camera, cell.gripper):
            if isinstance(device, AbstractContextManager):
                stack.enter_context(device)
        status = stack.enter_context(Status())
        options = {"limits": setup.limits, "pace": setup.pace, "record": setup.record}
        loop = Loop(config, cell, distance, candidates, signals=signals, **options)  # type: ignore[arg-type]
        grasps = wants_grasp(config, cell)
        check_reach(loop, setup.to_start, grasps)
        if grasps:
            approach.open_first(loop)
        wait_for_first_frame(loop)
        true = cell.true_distance_m
        start_m = true() if true else None
        loop.fresh_clock()
        # The clock and the watch of the cycles are the report's; what follows them has its own.
        outcome, grasp, standing = "arrived", None, False
        # Whatever else is raised: the arm first, then camera and gripper, which take their time to close.
        emergency = stack.enter_context(ExitStack())
        emergency.callback(stop_arm, loop)
        with real_time("off" if config.fast else config.realtime, config.cpu) as refused:
            try:
                arrive(loop, setup, status)
            except (Stop, *FAULTS) as error:
                outcome = stopped(loop, error)
            clock, watch = loop.clock, loop.watch
            loop.fresh_clock()
            try:
                standing = dwell(loop, loop.commanded if outcome == "arrived" else None)
                if outcome == "arrived":
                    look_at_rest(loop, standing, grasps)
                end_m = true() if true else None
                if outcome == "arrived" and grasps:
                    grasp = approach.grasp(loop, setup.grasping, status)
                    outcome = grasp.outcome
            except (Stop, *FAULTS) as error:
                end_m = true() if true else None
                outcome = outcome if outcome != "arrived" else stopped(loop, error)
                standing = settled(loop)
        emergency.pop_all()
        if loop.record is not None:
            loop.phase = "end"
            record_cycle(loop, None)
        return Report(
            config=config,
            outcome=outcome,
            exit_code=exit_code(outcome, signals),
            cell=cell,
            contract=distance.contract,
            backend=getattr(distance, "backend", type(distance).__name__),
            candidates=candidates,
            cycles=loop.done,
            held=loop.held,
            clock=clock,
            watch=watch,
            guard=loop.guard,
            refused=refused,
            trace=list(loop.trace),
            true_start_m=start_m,
            true_end_m=end_m,
            standing=standing,
            first=loop.first,
            last=loop.last,
            grasp=grasp,
        )


def look_at_rest(loop: Loop, standing: bool, grasps: bool) -> None:
    """The last look. Raises Stop if the arm does not stand, or if a grasp would follow it blindly."""
    if not standing:
        raise Stop("the arm did not come to rest at its target")
    if not look_once_more(loop) and grasps:
        raise Stop(
            f"no view that can be trusted came within {PATIENCE_S:g} s from where the arm stands; nothing "
            "is grasped blindly: check the camera"
        )


def wants_grasp(config: ServoOptions, cell: Cell) -> bool:
    """Whether the last centimetres follow. Raises GripperError if they are asked for without a gripper."""
    if config.grasp == "yes" and cell.gripper is None:
        raise GripperError("--grasp yes needs a gripper; name one in the cell file")
    return config.grasp == "yes" or (
        config.grasp == "auto" and cell.gripper is not None and cell.name != "twin"
    )


def stopped(loop: Loop, error: Exception) -> str:
    """Stop the arm, note a device's own fault as the guard notes its rows, and say why it ended."""
    stop_arm(loop)
    if not isinstance(error, Stop):
        name = getattr(error, "name", None) or type(error).__name__.removesuffix("Error").lower()
        loop.guard.record(name, "stop", loop.number)
    record_cycle(loop, None)
    if loop.signals:
        return f"interrupted by {signal.Signals(loop.signals[0]).name}"
    during = f" (during: {loop.phase})" if loop.phase in GRASPING else ""
    return f"stopped: {error}{during}"


def settled(loop: Loop) -> bool:
    """Whether the arm is seen to stand still after a stop."""
    with suppress(*FAULTS):
        return dwell(loop, None)
    return False


def exit_code(outcome: str, signals: list[int]) -> int:
    """0: the job was done; 3: arrived, but nothing was grasped; 130, 143: interrupted; 1: stopped."""
    if outcome in ("arrived", "grasped"):
        return 0
    if outcome.startswith("no grasp"):
        return 3
    return 128 + signals[0] if signals and outcome.startswith("interrupted") else 1


def candidate_count(config: ServoOptions, distance: Distance) -> int:
    """Candidates for each cycle. Where even the fewest do not fit, they are tried all the same: the
    guard ends a run that misses too many deadlines in a row."""
    if config.candidates != "auto":
        return config.candidates
    if config.fast:
        return UNPACED_CANDIDATES
    try:
        return candidates_for(1 / config.rate, distance, maximum=MOST_CANDIDATES)
    except DistanceError as error:
        print(f"rt.servo: {error}; trying {MIN_CANDIDATES} candidates", file=sys.stderr)
        return MIN_CANDIDATES


def main() -> int:
    try:
        config = parse("python -m rt.servo")
        Clock(config.rate)  # refuses an impossible rate before anything is opened
        devices = settle(config)
        distance = open_model(devices.model_path, config.backend)
        check_model(distance, devices)
        n = candidate_count(config, distance)
        # The first call of a network is the slowest; it shall not be a cycle's.
        blank = np.full((VIEW.size_px, VIEW.size_px), START_HEIGHT_M, np.float32)
        distance(blank, controller.candidates(np.random.default_rng(0), n))
        with ExitStack() as pages:
            view = LivePage(config, pages) if config.view else None
            report = run_with_devices(config, devices, distance, n, view)
            while view is not None and view.again(report):
                # Another scene, and whatever chance plays with it.
                config = replace(config, scene=config.scene + 1)
                report = run_with_devices(config, devices, distance, n, view)
    except KeyboardInterrupt:
        return 128 + int(signal.SIGINT)
    except (
        Stop,
        *FAULTS,
        HandError,
        CellError,
        RecordError,
        RingError,
        PageError,
        ValueError,
        OSError,
    ) as error:
        print(f"rt.servo: {error}", file=sys.stderr)
        return 1
    return int(report.exit_code)


def run_with_devices(
    config: ServoOptions, devices: Devices, distance: Distance, n: int, view: LivePage | None = None
) -> Report:
    """One run with its devices, its record and its report."""
    cell = open_devices(config, devices)
    with ExitStack() as stack:
        for device in (cell.robot, cell.camera):
            if isinstance(device, AbstractContextManager):
                stack.push(device)  # open already: closed however this ends
        folder = output_folder("servo", config.out)
        recorder = start_record(config, folder, cell, distance, n)
        if recorder is not None:
            stack.enter_context(recorder)
            if view is not None:
                view.show(recorder)
        setup = RunSetup(devices.limits, devices.pace, devices.grasping, devices.to_start, recorder)
        report = run(config, cell, distance, n, setup)
    if recorder is not None:
        report = replace(
            report, record=recorder.path, dropped=recorder.dropped, record_error=recorder.error
        )
    write(report, folder)
    return report


if __name__ == "__main__":
    sys.exit(main())
