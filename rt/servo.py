"""The loop: `python -m rt.servo` finds a grasp in closed loop (Algorithm 1 of Viereck et al. 2017).

`rt.cycle.cycle` is the algorithm. `Servo` is the frame around it: wait for the first frame, bring the hand
to the start height, one cycle a period down to the end height, come to rest, score one more view; then, with
a gripper, the last centimetres (rt.grasp.approach). `run` is a Servo from begin to end, with its report.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rt import controller
from rt.camera import CameraError
from rt.cell.cell import Cell
from rt.cell.open import Devices, open_devices, settle
from rt.cell.options import ServoOptions, parse
from rt.cell.setup import RecordSink, RunSetup
from rt.controller.motion import scene_velocity_m_s
from rt.cycle import Step, choose, cycle, cycle_or_hold, pause, step_of
from rt.distance import Distance, DistanceError, candidates_for, open_model
from rt.distance.budget import MIN_CANDIDATES
from rt.grasp import approach
from rt.grasp.target import CLICK
from rt.grasp.target_function import TargetError
from rt.gripper import GripperError
from rt.guard.preflight import check_model, check_reach
from rt.guard.rows import ROWS, Stop
from rt.loop import (
    PATIENCE_S,
    STAGES,
    ContractedDistance,
    Loop,
    dwell,
    look_once_more,
    operator_request,
    stop_arm,
    tick,
    wait_for_first_frame,
)
from rt.outcome import GraspResult, Outcome, Report
from rt.page import PageError
from rt.record.cycle import GRASPING, record_cycle
from rt.record.recorder import Recorder, RecordError, flight_header
from rt.record.ring import RingError
from rt.robot import RobotError
from rt.tools.clock import ClockError, real_time
from rt.tools.command import command
from rt.tools.files import output_folder
from rt.tools.process import signals_caught
from rt.view import START_HEIGHT_M, VIEW, ViewError

if TYPE_CHECKING:
    from rt.page.flight import LivePage

__all__ = ["STAGES", "RunSetup", "Servo", "ServoOptions", "Step", "cycle", "main", "run"]

MOST_CANDIDATES = 1024
"""More gain little: they lie closer together than the network can tell apart."""
UNPACED_CANDIDATES = 256

FAULTS = (RobotError, CameraError, GripperError, DistanceError, ViewError, ClockError, TargetError)
"""Errors of devices and network that stop the arm while it moves."""


class Servo(AbstractContextManager["Servo"]):
    """The closed loop in an open cell: paced, guarded, recorded. One step of the loop is one period.

        with open_cell("twin") as cell, Servo(cell, open_model()) as servo:
            for step in servo:
                print(step.phase, step.hand, step.held)
        print(servo.outcome, servo.reason)

    The steps end when the hand has arrived (and grasped, if a grasp is wanted), or when the guard, a device's
    fault or a signal has stopped the arm; `outcome` and `reason` say which. The body of the loop belongs to
    the period: if it takes too long, deadlines are missed and the guard stops the arm. Leaving the context
    before the end stops the arm.
    """

    def __init__(
        self,
        cell: Cell,
        distance: ContractedDistance,
        options: ServoOptions | None = None,
        *,
        candidates: int | None = None,
        setup: RunSetup | None = None,
        record: str | Path | RecordSink | None = None,
    ) -> None:
        """candidates: scored each cycle; None: as the options say. setup: limits, speeds and grasp settings;
        None: the cell's. record: a file for the flight record (MCAP), or a recorder that is open already.

        Raises Stop if the network was made for another hand or view than the cell's.
        """
        self.cell, self.distance, self.options = cell, distance, options or ServoOptions()
        if cell.devices is not None and isinstance(distance, Distance):
            check_model(distance, cell.devices)
        self.setup = setup or cell.setup or RunSetup()
        self.candidates = candidates or candidate_count(self.options, distance)
        self.outcome: Outcome | None = None
        """End of the run; None before it."""
        self.reason = ""
        self.grasp: GraspResult | None = None
        self.note = ""
        """One line on what the loop does now."""
        self.standing = False
        self.true_start_m: float | None = None
        self.true_end_m: float | None = None
        self._record, self._begun, self._over = record, False, False

    def __enter__(self) -> Servo:
        """Enter the devices and wait for the first frame; opens the gripper if a grasp is wanted. Raises Stop
        and the devices' errors, before the arm moves."""
        config, cell = self.options, self.cell
        with ExitStack() as stack:
            self._signals = stack.enter_context(signals_caught())
            for device in (cell.robot, cell.camera, cell.gripper):
                if isinstance(device, AbstractContextManager):
                    stack.enter_context(device)
            setup = replace(self.setup, record=self._recorder(stack))
            self.loop = loop = Loop(
                config, cell, self.distance, self.candidates, setup, self._signals
            )
            stack.callback(loop.wanted.close)
            self.grasps = wants_grasp(config, cell)
            try:
                self._ready()
                wait_for_first_frame(loop)
                look = partial(wait_for_first_frame, loop)
                loop.wanted.begin(look, config.patience, loop.limits)
            except (Stop, *FAULTS) as error:
                self._stopped(error)  # so that the record says why no cycle came
                raise
            self.true_start_m = self._true_m()
            loop.fresh_clock()
            self.clock, self.watch = loop.clock, loop.watch
            mode = "off" if config.fast else config.realtime
            self.refused = stack.enter_context(real_time(mode, config.cpu))
            self._stack = stack.pop_all()
        return self

    def _ready(self) -> None:
        """Refuse a way that the joints cannot follow, and open the gripper. Raises Stop and GripperError."""
        check_reach(self.loop, self.setup.to_start, self.grasps)
        if self.grasps:
            approach.open_first(self.loop)

    def __exit__(self, *error: Any) -> None:
        if not self._over:  # first of all: closing camera and gripper takes time
            stop_arm(self.loop)
            if self.outcome is None:
                self._end(Outcome.STOPPED, "left before its end")
        self.loop.enter("end")
        record_cycle(self.loop, None)
        self._stack.__exit__(*error)

    def __iter__(self) -> Iterator[Step]:
        """The steps of the run; a Servo runs once."""
        if self._begun:
            raise RuntimeError("this Servo has run already; make another one for another run")
        self._begun = True
        loop = self.loop
        try:
            yield from self._approach()
        except (Stop, *FAULTS) as error:
            self._stopped(error)
        # The clock and the watch of the approach are the report's; the rest has its own.
        self.clock, self.watch = loop.clock, loop.watch
        loop.fresh_clock()
        try:
            yield from self._finish()
        except (Stop, *FAULTS) as error:
            self.true_end_m = self._true_m()
            if self.outcome is None:
                self._stopped(error)
            self.standing = settled(loop)
        self._over = True

    def _approach(self) -> Iterator[Step]:
        """To the start height, and cycles down to the end height. Raises Stop, with the last reason to hold,
        or a device's error."""
        loop, held = self.loop, ""
        if self.setup.to_start:
            self.note = "to the start height"
            speed_m_s = self.setup.grasping.lift_speed_m_s
            for _ in approach.straight(loop, "start", START_HEIGHT_M, speed_m_s):
                yield step_of(loop)
            loop.fresh_clock()
        while self.options.target == CLICK and loop.wanted.now is None:
            self.note = "click the wanted object on the page"
            tick(loop)
            yield choose(loop)
        loop.plan_descent()
        while not loop.arrived:
            try:
                tick(loop)
                if operator_request(loop, "pause"):
                    yield pause(loop)
                    continue
                step = cycle_or_hold(loop)
            except Stop as stop:
                raise Stop(f"{stop} ({held})" if loop.held_in_a_row else str(stop)) from stop
            held = f"holding: {step.held}" if step.held else held
            self.note = held if step.held else ""
            yield step

    def _finish(self) -> Iterator[Step]:
        """Come to rest, score one more view, grasp if that is wanted; over an object that moves, at once."""
        loop = self.loop
        arrived = self.outcome is None
        loop.allow(math.inf)
        maps: approach.DepthMaps | None = None
        if arrived and self.grasps and scene_velocity_m_s(loop.controller).any():
            self.standing = True
        else:
            if arrived and self.grasps:
                maps = approach.DepthMaps(loop)
            ahead = None if maps is None else maps.ahead
            self.standing = dwell(loop, loop.commanded if arrived else None, ahead)
            if arrived:
                self._look_at_rest()
        self.true_end_m = self._true_m()
        if arrived and self.grasps:
            cycles = approach.grasp(loop, self.setup.grasping, self._tell, maps)
            while self.grasp is None:
                try:
                    next(cycles)
                except StopIteration as done:
                    self.grasp = done.value
                else:
                    yield step_of(loop)
            self._end(self.grasp.outcome, self.grasp.reason)
        elif arrived:
            self._end(Outcome.ARRIVED, loop.off_target())

    def _look_at_rest(self) -> None:
        """Raises Stop if the arm does not come to rest, or if a grasp would be blind."""
        if not self.standing:
            raise Stop("the arm did not come to rest at its target")
        if not look_once_more(self.loop) and self.grasps:
            raise Stop(
                f"no view that can be trusted came within {PATIENCE_S:g} s from where the arm stands; "
                "nothing is grasped blindly: check the camera"
            )

    def _stopped(self, error: Exception) -> None:
        """Stop the arm, record a device's own fault like a row of the guard, and keep the reason."""
        loop = self.loop
        stop_arm(loop)
        if not isinstance(error, Stop):
            name = (
                getattr(error, "name", None) or type(error).__name__.removesuffix("Error").lower()
            )
            loop.guard.record(name, "stop", loop.number)
        record_cycle(loop, None)
        if loop.signals:
            self._end(Outcome.INTERRUPTED, signal.Signals(loop.signals[0]).name)
        else:
            during = f" (during: {loop.phase})" if loop.phase in GRASPING else ""
            self._end(Outcome.STOPPED, f"{error}{during}")

    def _end(self, outcome: Outcome, reason: str = "") -> None:
        self.outcome, self.reason = outcome, reason

    def _tell(self, line: str) -> None:
        self.note = line

    def _true_m(self) -> float | None:
        true = self.cell.true_distance_m
        return true() if true else None

    def _recorder(self, stack: ExitStack) -> RecordSink | None:
        if not isinstance(self._record, str | Path):
            return self._record or self.setup.record
        header = header_of(self.options, self.cell, self.distance, self.candidates)
        return stack.enter_context(Recorder(self._record, header))

    def report(self) -> Report:
        """Everything about the run, once it is over."""
        loop, distance = self.loop, self.distance
        outcome = self.outcome or Outcome.STOPPED
        return Report(
            config=self.options,
            outcome=outcome,
            reason=self.reason,
            exit_code=outcome.exit_code(self._signals[0] if self._signals else 0),
            cell=self.cell,
            contract=distance.contract,
            backend=getattr(distance, "backend", type(distance).__name__),
            candidates=self.candidates,
            cycles=loop.done,
            held=loop.held,
            clock=self.clock,
            watch=self.watch,
            guard=loop.guard,
            refused=self.refused,
            trace=list(loop.trace),
            true_start_m=self.true_start_m,
            true_end_m=self.true_end_m,
            standing=self.standing,
            first=loop.first,
            last=loop.last,
            grasp=self.grasp,
        )


def run(
    config: ServoOptions,
    cell: Cell,
    distance: ContractedDistance,
    candidates: int,
    setup: RunSetup | None = None,
) -> Report:
    """One approach in an open cell, with a line of progress on stderr. Raises Stop and the devices' errors
    only before anything moves."""
    from rt.record.report import Status  # loads rich, which a Servo does not need

    servo = Servo(cell, distance, config, candidates=candidates, setup=setup)
    with Status() as status, servo:
        for step in servo:
            if step.decision is None:
                status.note = servo.note or status.note
            else:
                loop = servo.loop
                status.show(
                    loop.done,
                    round(config.iterations / config.speed_scale),
                    loop.trace[-1],
                    loop.clock,
                )
    return servo.report()


def wants_grasp(config: ServoOptions, cell: Cell) -> bool:
    """True if the last centimetres follow. Raises GripperError if they are asked for without a gripper."""
    if config.grasp == "yes" and cell.gripper is None:
        raise GripperError("--grasp yes needs a gripper; name one in the cell file")
    return config.grasp == "yes" or (
        config.grasp == "auto" and cell.gripper is not None and not cell.simulated
    )


def settled(loop: Loop) -> bool:
    """True if the arm is seen to stand still after a stop."""
    with suppress(*FAULTS):
        return dwell(loop, None)
    return False


def candidate_count(config: ServoOptions, distance: ContractedDistance) -> int:
    """Candidates for each cycle. If even the fewest do not fit the period, they are tried: the guard ends a
    run that misses too many deadlines in a row."""
    if config.candidates != "auto":
        count = config.candidates
    elif config.fast:
        count = UNPACED_CANDIDATES
    else:
        try:
            count = candidates_for(1 / config.rate, distance, maximum=MOST_CANDIDATES)
        except DistanceError as error:
            print(f"rt.servo: {error}; trying {MIN_CANDIDATES} candidates", file=sys.stderr)
            count = MIN_CANDIDATES
    # The first call of a network is the slowest; it must not fall into a cycle.
    blank = np.full((VIEW.size_px, VIEW.size_px), START_HEIGHT_M, np.float32)
    distance(blank, controller.candidates(np.random.default_rng(0), count))
    return count


def header_of(
    config: ServoOptions, cell: Cell, distance: ContractedDistance, candidates: int
) -> dict[str, Any]:
    """The header of a flight record."""
    return flight_header(
        config=config,
        cell={
            "name": cell.name,
            "simulated": cell.simulated,
            "true_distance": cell.true_distance_m is not None,
            **cell.info,
        },
        contract=distance.contract,
        model=str(getattr(distance, "path", "")),
        backend=getattr(distance, "backend", type(distance).__name__),
        candidates=candidates,
        stages=STAGES,
        guard=ROWS,
        robot_now_ns=cell.robot.now_ns(),
    )


@command(
    "rt.servo",
    ServoOptions,
    failures=(Stop, RobotError, CameraError, GripperError, RecordError, RingError, PageError),
    interrupted="the arm did not move, or its run was over",
    parse=parse,
)
def main(config: ServoOptions) -> int:
    devices = settle(config)
    distance = open_model(devices.model, config.backend)
    check_model(distance, devices)
    n = candidate_count(config, distance)
    with ExitStack() as pages:
        page = None
        if config.view:
            from rt.page.flight import LivePage

            page = LivePage(config, pages)
        report = run_with_devices(config, devices, distance, n, page)
        while page is not None and page.again(report.cell.simulated):
            # Another scene, with other random numbers.
            config = replace(config, scene=config.scene + 1)
            report = run_with_devices(config, devices, distance, n, page)
    return int(report.exit_code)


def run_with_devices(
    config: ServoOptions, devices: Devices, distance: Distance, n: int, page: LivePage | None = None
) -> Report:
    """One run with its devices, its record and its report."""
    from rt.record.report import write

    folder = output_folder("servo", config.out)
    with ExitStack() as stack:
        cell = stack.enter_context(open_devices(config, devices))
        recorder = start_record(config, folder, cell, distance, n)
        if recorder is not None:
            stack.enter_context(recorder)
            if page is not None:
                page.show(recorder, cell.simulated)
        report = run(config, cell, distance, n, replace(devices.setup, record=recorder))
    if recorder is not None:
        report = replace(
            report, record=recorder.path, dropped=recorder.dropped, record_error=recorder.error
        )
    write(report, folder)
    return report


def start_record(
    config: ServoOptions, folder: Path, cell: Cell, distance: Distance, n: int
) -> Recorder | None:
    """The flight record's writer, ready to be entered; None if none is wanted."""
    if config.record == "off" and not config.view:
        return None
    path = None  # a ring without a file, for the page
    if config.record != "off":
        path = folder / "flight.mcap" if config.record == "auto" else Path(config.record)
    return Recorder(path, header_of(config, cell, distance, n))


if __name__ == "__main__":
    sys.exit(main())
