"""The loop: `python -m rt.servo` finds a grasp in closed loop (Algorithm 1 of Viereck et al. 2017).

`cycle` is the algorithm, `run` the frame around it: open the cell, wait for the first frame, one
cycle a period down to the end height, stand still, look once more, report.
"""

from __future__ import annotations

import signal
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import tyro
from numpy.typing import NDArray

from rt import controller
from rt.camera import CameraError, Frame, StaleFrameError
from rt.clock import Clock, ClockError, Stopwatch, real_time
from rt.controller import CONTROLLERS, ITERATIONS, RATIO
from rt.distance import Contract, Distance, DistanceError, candidates_for, open_model
from rt.distance.budget import MIN_CANDIDATES
from rt.guard import Guard, Hold, Limits, Situation, Stop
from rt.hand import HandError, load_hand
from rt.pose import METRES_PER_DEGREE, from_top_down, top_down
from rt.report import Look, Report, Status, output_folder, write
from rt.robot import Cell, PoseHistory, RobotError, open_cell
from rt.signals import signals_caught
from rt.view import START_HEIGHT_M, VIEW, Reprojector, ViewError

STAGES = ("world", "camera", "view", "distance", "control", "command", "whole")
"""world: a simulated world's own time, no part of the whole. distance: candidates and their distances."""

MOST_CANDIDATES = 1024
"""More than these gain little: they lie closer than the network can tell apart."""
UNPACED_CANDIDATES = 256
_PATIENCE_S = 3.0
"""How long the first frame may take, and how long the arm may take to stand still."""
_STILL_M, _STILL_M_S, _STILL_RAD_S = 0.001, 0.001, 0.01
_TRACE_LENGTH = 20_000


@dataclass(frozen=True)
class Config:
    """Servo the hand to the nearest grasp. Without further arguments: the simulated twin and the
    shipped network; then a table, servo.json and servo.png in --out.

    Example: python -m rt.servo --rate 30 --seed 3
    """

    rate: float = 30.0
    """Cycles per second [Hz]."""
    robot: str = "twin"
    """What to move: `twin` is the simulated arm and camera."""
    model: Path | None = None
    """Network, as train.export makes it. Default: the shipped one."""
    backend: str = "auto"
    """What computes the network: auto, onnx, reference, ... (rt.distance)."""
    hand: str = "robotiq_2f85"
    """Gripper: a name of rt/hands/ or a TOML file."""
    controller: Literal["paper", "symmetric"] = "paper"
    """paper: Algorithm 1; symmetric: near a grasp, on the mean of four looks at the same view."""
    iterations: int = ITERATIONS
    """Cycles from the start height to the end height (at least: the guard's speed limit may take more)."""
    ratio: float = RATIO
    """Fraction of the way to the goal in one cycle."""
    candidates: int | Literal["auto"] = "auto"
    """Displacements weighed each cycle; auto: as many as fit the period here, at most 1024 (256 with --fast).
    Another number is another run: give it to repeat a run of another machine."""
    noise: float = 0.0
    """Kinematic noise: displacements are off by this times their length times N(0, 1); paper: 0.4."""
    seed: int = 0
    """Of the scene, the start, the candidates and the noise."""
    scene: int = 0
    """Number of the twin's scene (test objects)."""
    mount: Literal["ideal", "wrist"] = "ideal"
    """The twin's camera: `ideal` is the network's own view, `wrist` a D405 beside the hand, reprojected."""
    fast: bool = False
    """No pacing: cycles as fast as they can be computed (simulated time is the same)."""
    realtime: Literal["auto", "off", "require"] = "auto"
    """Real-time priority and locked memory for the loop: if permitted, never, or refuse to run without."""
    cpu: int | None = None
    """Pin the loop to this CPU."""
    out: Path | None = None
    """Folder for servo.json and servo.png. Default: runs/servo/<time>/."""
    limits: Annotated[Limits, tyro.conf.arg(name="limits")] = field(default_factory=Limits)
    """What the guard holds the arm to."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("iterations", self.iterations, 1, 10_000),
            ("ratio", self.ratio, 1e-6, 1.0),
            ("noise", self.noise, 0.0, 10.0),
            ("candidates", 2 if self.candidates == "auto" else self.candidates, 2, 1_000_000),
            ("seed", self.seed, 0, 2**63),
            ("scene", self.scene, 0, 2**31),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")


class DistanceFunction(controller.DistanceFunction, Protocol):
    """d(I, a), with what it was made for."""

    @property
    def contract(self) -> Contract: ...


class Loop:
    """What one run holds: devices, network, and the memory of a cycle."""

    def __init__(self, config: Config, cell: Cell, distance: DistanceFunction, n: int) -> None:
        self.config, self.cell, self.distance, self.n = config, cell, distance, n
        self.robot, self.camera = cell.robot, cell.camera
        # Frames `hand` and `view` coincide (rt.pose).
        self.reproject = Reprojector(cell.camera.intrinsics, cell.camera.T_hand_camera)
        self.guard, self.history = Guard(config.limits), PoseHistory()
        self.clock, self.watch = Clock(config.rate, paced=not config.fast), Stopwatch(STAGES)
        self.rng, self.noise_rng = np.random.default_rng([config.seed, config.scene]).spawn(2)
        self.controller = CONTROLLERS[config.controller](config.ratio, n, self.rng)
        self.commanded = measured(self.robot.state().T_base_hand)
        end_m = distance.contract.end_height_m
        self.end_m, self.descent_m = end_m, (self.commanded[2] - end_m) / config.iterations
        self.done = self.held = self.held_in_a_row = 0
        self.trace: deque[dict[str, Any]] = deque(maxlen=_TRACE_LENGTH)
        self.first: Look | None = None
        self.last: Look | None = None

    @property
    def arrived(self) -> bool:
        return bool(self.commanded[2] <= self.end_m + 1e-9)


def measured(T_base_hand: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) of x, y, z [m], yaw [rad] of a hand that looks straight down."""
    return np.array(from_top_down(T_base_hand))


def cycle(loop: Loop) -> None:
    """One period of Algorithm 1, from a depth image to a streamed command.

    Raises Hold (nothing is sent: the arm holds its target) or Stop, as the guard decides.
    """
    config, robot, guard, watch = loop.config, loop.robot, loop.guard, loop.watch
    k = loop.done + loop.held

    # Where is the hand, and what did the camera see from where?
    state = robot.state()
    loop.history.append(state)
    s = Situation(config.limits, 1 / config.rate, measured(state.T_base_hand), loop.commanded)
    s.missed_in_a_row, s.held_s = loop.clock.missed_in_a_row, loop.held_in_a_row * s.period_s
    s.state_age_s = (robot.now_ns() - state.stamp_ns) * 1e-9
    guard.check("input", k, s)
    frame = newest_frame(loop, s)
    guard.check("frame", k, s)
    assert frame is not None  # or the guard would have held
    T_base_hand = loop.history.at(frame.stamp_ns)
    watch.lap("camera")

    # I: the depth image, in the view that the network knows.
    view = loop.reproject(frame.depth)
    s.view_filled = float(np.count_nonzero(view)) / view.size
    guard.check("view", k, s)
    watch.lap("view")

    # d(I, a) for candidates a around the hand, the best of them, and part of the way there from where
    # the arm is told to be. The goal is a place in base, so it does not matter that the arm has moved
    # on since the exposure.
    told = loop.controller(loop.distance, view, measured(T_base_hand), loop.commanded)
    s.distances = told.distances
    loop.last = Look(view, told.actions, told.distances)
    loop.first = loop.first or loop.last
    guard.check("answer", k, s)
    watch.lap("distance")

    # What the arm makes of the move, and one step down.
    move = told.move
    if config.noise:
        move = controller.disturb(loop.noise_rng, move, config.noise)
    s.command = loop.commanded + np.array([move[0], move[1], 0, move[2]])
    s.command[2] = controller.descend(loop.commanded[2], loop.descent_m, loop.end_m)
    guard.check("command", k, s)
    watch.lap("control")

    robot.move(top_down(*s.command))
    watch.lap("command")
    watch.whole("whole")
    loop.commanded = s.command
    remember(loop, k, s, frame, told)


def newest_frame(loop: Loop, s: Situation) -> Frame | None:
    """The newest frame, and its age and exposure gap for the guard; None if it is too old."""
    try:
        frame = loop.camera.read_latest(loop.config.limits.max_frame_age_s)
    except StaleFrameError as error:
        s.frame_age_s = error.age_s
        return None
    s.frame_age_s = (loop.robot.now_ns() - frame.stamp_ns) * 1e-9
    s.exposure_gap_s = loop.history.gap_s(frame.stamp_ns)
    return frame


def remember(
    loop: Loop,
    k: int,
    s: Situation,
    frame: Frame,
    told: controller.Told,
) -> None:
    """One entry of the trace. Nothing in it comes from the wall clock, so a seed repeats it."""
    true = loop.cell.true_distance_m
    loop.trace.append(
        {
            "cycle": k,
            "time_s": loop.robot.now_ns() * 1e-9,
            "frame": frame.number,
            "frame_age_s": s.frame_age_s,
            "hand": s.hand.tolist(),
            "goal": told.goal.tolist(),
            "command": s.command.tolist(),
            "action": told.actions[told.best].tolist(),
            "predicted_m": float(s.distances[0]),
            "predicted_best_m": float(s.distances[told.best]),
            "true_m": true() if true else None,
        }
    )


def tick(loop: Loop) -> None:
    """To the next slot; a simulated world follows."""
    loop.clock.wait()
    loop.watch.start()
    loop.cell.advance(loop.clock.period_ns)
    loop.watch.lap("world")
    loop.watch.start()


def wait_for_first_frame(loop: Loop) -> None:
    """Until a frame comes that was exposed when the hand's pose was known. Raises CameraError."""
    for _ in range(max(int(_PATIENCE_S * loop.config.rate), 10)):
        loop.history.append(loop.robot.state())
        with suppress(StaleFrameError):
            frame = loop.camera.read_latest(loop.config.limits.max_frame_age_s)
            if loop.history.gap_s(frame.stamp_ns) == 0:
                return
        tick(loop)
    raise CameraError(f"no fresh frame within {_PATIENCE_S:g} s; check the camera's cable")


def stand_still(loop: Loop, where: NDArray[np.float64] | None) -> bool:
    """Let the arm come to rest, at (4,) `where` or anywhere, for a while at most; whether it did."""
    for _ in range(max(int(_PATIENCE_S * loop.config.rate), 10)):
        tick(loop)
        state = loop.robot.state()
        loop.history.append(state)
        speed, turn = np.linalg.norm(state.twist[:3]), np.linalg.norm(state.twist[3:])
        away = 0.0
        if where is not None:
            away = float(np.linalg.norm(measured(state.T_base_hand)[:3] - where[:3]))
        if speed < _STILL_M_S and turn < _STILL_RAD_S and away < _STILL_M:
            return True
    return False


def look_once_more(loop: Loop) -> None:
    """A view from where the arm stands now, for the report."""
    since = loop.robot.now_ns()
    for _ in range(max(int(_PATIENCE_S * loop.config.rate), 10)):
        tick(loop)
        with suppress(StaleFrameError):
            frame = loop.camera.read_latest(loop.config.limits.max_frame_age_s)
            if frame.stamp_ns >= since:
                view = loop.reproject(frame.depth)
                actions = controller.candidates(loop.rng, loop.n)
                loop.last = Look(view, actions, loop.distance(view, actions))
                return


def cycle_or_hold(loop: Loop) -> str:
    """One cycle; where the guard holds it, the last target again, and the reason is returned."""
    try:
        cycle(loop)
    except Hold as hold:
        loop.robot.move(top_down(*loop.commanded))
        loop.held, loop.held_in_a_row = loop.held + 1, loop.held_in_a_row + 1
        return str(hold)
    loop.done, loop.held_in_a_row = loop.done + 1, 0
    return ""


def halt(loop: Loop) -> None:
    """Stop the arm; one that is lost cannot be told to (its own watchdog stops it)."""
    with suppress(RobotError):
        loop.robot.stop()


def servo(loop: Loop, signals: list[int], status: Status) -> str:
    """Cycles until the end height; returns why it ended: `arrived`, or what stopped it."""
    why = ""
    while not loop.arrived:
        if signals:
            halt(loop)
            return f"interrupted by {signal.Signals(signals[0]).name}"
        try:
            tick(loop)
            held = cycle_or_hold(loop)
        except (Stop, RobotError, CameraError, DistanceError, ClockError) as error:
            halt(loop)
            return f"stopped: {error}" + (f" ({why})" if loop.held_in_a_row else "")
        if held:
            status.note = why = f"holding: {held}"
        else:
            status.show(loop.done, loop.config.iterations, loop.trace[-1], loop.clock)
    return "arrived"


def run(config: Config, cell: Cell, distance: DistanceFunction, candidates: int) -> Report:
    """One approach, in a cell that is open. Raises the devices' errors only before anything moves."""
    with signals_caught() as signals, cell.robot, Status() as status:
        loop = Loop(config, cell, distance, candidates)
        wait_for_first_frame(loop)
        true = cell.true_distance_m
        start_m = true() if true else None
        loop.clock = Clock(config.rate, paced=not config.fast)
        loop.watch = Stopwatch(STAGES)
        with real_time("off" if config.fast else config.realtime, config.cpu) as refused:
            outcome = servo(loop, signals, status)
        # The clock and the watch of the cycles are done; what follows has its own.
        clock, watch = loop.clock, loop.watch
        loop.clock, loop.watch = Clock(config.rate, paced=not config.fast), Stopwatch(STAGES)
        standing = False
        try:
            standing = stand_still(loop, loop.commanded if outcome == "arrived" else None)
            if outcome == "arrived" and standing:
                look_once_more(loop)
            elif outcome == "arrived":
                outcome = "stopped: the arm did not come to rest at its target"
        except (RobotError, CameraError, DistanceError) as error:
            if outcome == "arrived":
                outcome = f"stopped: {error}"
        return Report(
            config=config,
            outcome=outcome,
            exit_code=128 + signals[0]
            if signals and outcome != "arrived"
            else outcome != "arrived",
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
            true_end_m=true() if true else None,
            standing=standing,
            first=loop.first,
            last=loop.last,
        )


def how_many(config: Config, distance: Distance) -> int:
    """Candidates for each cycle. Where even the fewest do not fit, they are tried all the same: the
    guard ends a run that misses too many deadlines in a row."""
    if config.candidates != "auto":
        return config.candidates
    if config.fast:
        return UNPACED_CANDIDATES
    period_s = 1 / config.rate / CONTROLLERS[config.controller].looks
    try:
        return candidates_for(period_s, distance, maximum=MOST_CANDIDATES)
    except DistanceError as error:
        print(f"rt.servo: {error}; trying {MIN_CANDIDATES} candidates", file=sys.stderr)
        return MIN_CANDIDATES


def main() -> int:
    try:
        config = tyro.cli(Config, prog="python -m rt.servo")
        Clock(config.rate)  # refuses an impossible rate before anything is opened
        distance = open_model(config.model, config.backend)
        distance.contract.require(
            hand=load_hand(config.hand), view=VIEW, metres_per_degree=METRES_PER_DEGREE
        )
        n = how_many(config, distance)
        # The first call of a network is the slowest; it shall not be a cycle's.
        blank = np.full((VIEW.size_px, VIEW.size_px), START_HEIGHT_M, np.float32)
        distance(blank, controller.candidates(np.random.default_rng(0), n))
        cell = open_cell(config.robot, seed=config.seed, scene=config.scene, mount=config.mount)
        folder = output_folder(config.out)
        report = run(config, cell, distance, n)
        write(report, folder)
    except KeyboardInterrupt:
        return 128 + int(signal.SIGINT)
    except (
        *(RobotError, CameraError, ClockError, DistanceError, HandError, ViewError),
        *(ValueError, OSError),
    ) as error:
        print(f"rt.servo: {error}", file=sys.stderr)
        return 1
    return int(report.exit_code)


if __name__ == "__main__":
    sys.exit(main())
