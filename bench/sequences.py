"""Random sequences of faults and recoveries over the emulated cell, on virtual time: `bench.sequences`.

Each sequence is one run of rt.Servo (approach and grasp) on sim.hardware.virtual, into which one to three
faults come at random times; some go away again after a random time. The invariants:

- still: the arm stands at most 100 ms after the first fault that lasts could be known
- named: the reason names one of the faults that were there, and a run without a lasting fault may finish
- record: the flight record of the run is readable and shows the stop (every RECORDED-th sequence)
- clean: once every fault is cleared, nothing moves by itself, and the next run starts and moves
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rt.cell.options import ServoOptions
from rt.cell.setup import RunSetup
from rt.guard.rows import Limits
from rt.hand import load_tip_travel
from rt.outcome import Outcome
from rt.pose import top_down
from rt.record.recorder import RecordError, read_record
from rt.robot.ur.link import UrError
from rt.robot.ur_pose import pose_vector
from rt.servo import Servo
from rt.tools.command import DONE, NOT_DONE, command
from rt.tools.files import output_folder, write_json
from sim.hardware.ur.arm import home
from sim.hardware.ur.safety import FAULT, RECOVERY, SAFEGUARD, VIOLATION
from sim.hardware.virtual import HAND_AT, MAX_SILENCE_S, VirtualCell, VirtualDistance

LIMIT_S = 0.100
STILL_M_S, STILL_RAD_S = 0.005, 0.05
SAVED = 100
"""The result so far is written after so many."""
RECORDED = 20
"""Of so many sequences one is recorded to a file and read."""
LIMITS = Limits(workspace_min_m=(-0.8, -0.5), workspace_max_m=(-0.1, 0.4))
_PERIOD_S, _FRAME_S, _WATCHDOG_S = 1 / 30, 1 / 30, 0.1
_CONFIG = ServoOptions(
    fast=True, candidates=48, iterations=30, grasp="yes", controller="paper", patience=1.0
)
_AGE_S = LIMITS.max_frame_age_s + 2 * _PERIOD_S


@dataclass(frozen=True)
class StateFault:
    """One fault of the cell, and what undoes it."""

    name: str
    names: tuple[str, ...]
    """Words of which the reason must contain one."""
    known_s: float
    """From its beginning until it can be known."""
    on: Callable[[VirtualCell, Any], None]
    off: Callable[[VirtualCell, Any], None]
    stops: bool = True
    """False: the run may go on."""


def safety(state: str) -> Callable[[VirtualCell, Any], None]:
    return lambda cell, _: cell.controller.stop_safely(state, state)


def clear(cell: VirtualCell, _: Any) -> None:
    cell.controller.clear()


def put(**values: Any) -> Callable[[VirtualCell, Any], None]:
    """Set attributes of the cell."""

    def do(cell: VirtualCell, _: Any) -> None:
        for name, value in values.items():
            setattr(cell, name, value)

    return do


def push(force_N: float) -> Callable[[VirtualCell, Any], None]:
    def do(cell: VirtualCell, _: Any) -> None:
        cell.controller.external = np.array([force_N, 0, 0, 0, 0, 0])

    return do


def slide(part: float) -> Callable[[VirtualCell, Any], None]:
    return lambda cell, _: setattr(cell.controller, "speed_slider", part)


def breaks(yes: bool) -> Callable[[VirtualCell, Any], None]:
    return lambda _, distance: setattr(distance, "broken", yes)


def nothing(cell: VirtualCell, _: Any) -> None:
    pass


# fmt: off
# ruff: noqa: E501  (a table has the width of its columns)
_SEEN_S = 0.02 + _PERIOD_S
"""From a packet to the end of the cycle that saw it."""
FAULTS: tuple[StateFault, ...] = (
    StateFault("protective stop", ("protective_stop",), 0.0, lambda c, _: c.controller.protective_stop(), clear),
    StateFault("emergency stop", ("emergency_stop",), 0.0, lambda c, _: c.controller.emergency_stop(), clear),
    StateFault("safeguard", ("safeguard_stop",), 0.0, safety(SAFEGUARD), clear),
    StateFault("violation", ("safety_violation",), 0.0, safety(VIOLATION), clear),
    StateFault("safety fault", ("safety_fault",), 0.0, safety(FAULT), clear),
    StateFault("recovery", ("recovery_mode",), 0.0, safety(RECOVERY), clear),
    StateFault("stopped on the pendant", ("program_stopped",), 0.0, lambda c, _: c.controller.program_stop(), nothing),
    StateFault("paused on the pendant", ("program_stopped",), 0.0, lambda c, _: c.controller.pause(), lambda c, _: c.controller.resume()),
    StateFault("network frozen", ("frozen", "connection_lost", "state_age"), _WATCHDOG_S, put(frozen=True), put(frozen=False)),
    StateFault("packets repeat", ("frozen", "state_age"), MAX_SILENCE_S + 0.01, put(repeats=True), put(repeats=False)),
    StateFault("connection cut", ("connection_lost", "frozen", "state_age"), _WATCHDOG_S, put(dropped=True), put(dropped=False)),
    StateFault("blow", ("force", "protective_stop"), _SEEN_S, push(120.0), push(0.0)),
    StateFault("collision", ("protective_stop", "force"), 0.0, push(300.0), push(0.0)),
    StateFault("camera stalls", ("frame_age", "camera", "view"), _AGE_S, put(camera_fault="stall"), put(camera_fault="")),
    StateFault("depth all zero", ("view_filled", "view", "held_too_long"), _FRAME_S + 3 * _PERIOD_S, put(camera_fault="zero"), put(camera_fault="")),
    StateFault("camera lost", ("camera",), 2 * _PERIOD_S, put(camera_fault="lost"), put(camera_fault="")),
    StateFault("network of NaN", ("not_finite",), 2 * _PERIOD_S, breaks(True), breaks(False)),
    StateFault("gripper silent", ("gripper",), 10.0, put(gripper_fault="silent"), put(gripper_fault=""), stops=False),
    StateFault("slider at 60 %", ("following_error", "phase_time", "did not come to rest"), 60.0, slide(0.6), slide(1.0), stops=False),
)
# fmt: on
_CAMERA = {"camera stalls", "depth all zero", "camera lost", "network of NaN"}
"""Faults that matter only during the approach; a hold brakes the arm, and may end again."""


@dataclass(frozen=True)
class Event:
    """One fault of a sequence."""

    fault: int
    """Index into FAULTS."""
    begins_s: float
    lasts_s: float
    """inf: until it is cleared after the run."""


@dataclass(frozen=True)
class SequenceResult:
    """Outcome of one sequence."""

    number: int
    events: tuple[Event, ...]
    outcome: str
    reason: str
    still_s: float | None
    """Time of the last motion after the first lasting fault could be known; None without one."""
    wrong: str
    """Broken invariants; empty if all held."""


def drawn(rng: np.random.Generator) -> tuple[Event, ...]:
    """One to three faults within the first five seconds, half of which go away again."""
    events = []
    for fault in rng.choice(len(FAULTS), int(rng.integers(1, 4)), replace=False).tolist():
        lasts = 0.03 + float(rng.exponential(0.4)) if rng.random() < 0.5 else np.inf
        events.append(Event(fault, float(rng.uniform(0.1, 5.0)), lasts))
    return tuple(sorted(events, key=lambda e: e.begins_s))


def play(number: int, seed: int, folder: Path) -> SequenceResult:
    """One sequence, on a cell of its own."""
    rng = np.random.default_rng([seed, number])
    cell, events = VirtualCell(), drawn(rng)
    distance = VirtualDistance(cell)
    began_ns = cell.now_ns
    pending = [(e.begins_s, True, e) for e in events]
    pending += [(e.begins_s + e.lasts_s, False, e) for e in events if np.isfinite(e.lasts_s)]
    pending.sort(key=lambda p: p[0])
    advance, begun = cell.advance, []

    def with_faults(ns: int) -> None:
        """Time passes in steps between the faults."""
        end = cell.now_ns + ns
        while pending and began_ns + round(pending[0][0] * 1e9) <= end:
            at_s, on, event = pending.pop(0)
            advance(max(began_ns + round(at_s * 1e9) - cell.now_ns, 0))
            fault = FAULTS[event.fault]
            (fault.on if on else fault.off)(cell, distance)
            if on:
                begun.append((cell.controller.time_s, event))
        advance(max(end - cell.now_ns, 0))

    record = folder / f"{number}.mcap" if number % RECORDED == 0 else None
    setup = RunSetup(limits=LIMITS, tips=load_tip_travel())
    wrong: list[str] = []
    with cell.clocks():
        opened = cell.open()
        opened.advance = with_faults
        try:
            servo = Servo(opened, distance, _CONFIG, candidates=48, setup=setup, record=record)
            with servo:
                for _ in servo:
                    pass
            outcome, reason = servo.outcome, servo.reason
        except Exception as error:
            outcome, reason = Outcome.STOPPED, str(error)
            if not isinstance(error, RuntimeError | ValueError):
                wrong.append("".join(traceback.format_exception(error)[-2:]))
        cell.close_robot()
        advance(500_000_000)
        still_s = _still(cell, begun, wrong)
        _named(begun, outcome, reason, wrong)
        if record is not None:
            _readable(record, outcome, wrong)
        _clean(cell, distance, pending, setup, wrong)
    return SequenceResult(number, events, str(outcome), reason, still_s, "; ".join(wrong))


def _still(cell: VirtualCell, begun: list[tuple[float, Event]], wrong: list[str]) -> float | None:
    """Time from when the first lasting fault could be known to the last motion [s]."""
    known = [
        at + FAULTS[e.fault].known_s
        for at, e in begun
        if FAULTS[e.fault].stops
        and FAULTS[e.fault].name not in _CAMERA
        and e.lasts_s > FAULTS[e.fault].known_s + 0.05
    ]
    if not known:
        return None
    rows = cell.controller.motion_log(60.0)
    rows = rows[rows[:, 0] >= min(known)]
    v, w = np.linalg.norm(rows[:, 7:10], axis=1), np.linalg.norm(rows[:, 10:], axis=1)
    moving = rows[(v > STILL_M_S) | (w > STILL_RAD_S), 0]
    still_s = float(moving[-1] - min(known)) if len(moving) else 0.0
    if still_s > LIMIT_S:
        wrong.append(f"moved for {still_s * 1e3:.0f} ms")
    return still_s


def _named(begun: list[tuple[float, Event]], outcome: Any, reason: str, wrong: list[str]) -> None:
    if outcome in (Outcome.GRASPED, Outcome.ARRIVED):
        return
    words = [word for _, e in begun for word in FAULTS[e.fault].names]
    if not any(word in reason for word in words):
        wrong.append(
            f"says nothing of {' or '.join(dict.fromkeys(words)) or 'nothing'}: {reason!r}"
        )


def _readable(path: Path, outcome: Any, wrong: list[str]) -> None:
    try:
        record = read_record(path)
    except RecordError as error:
        wrong.append(f"the record: {error}")
        return
    if not len(record.cycles):
        wrong.append("the record is empty")
    if outcome == Outcome.STOPPED and not (record.cycles["guard_action"] == b"stop").any():
        wrong.append("the record shows no stop")
    path.unlink()


def _clean(
    cell: VirtualCell, distance: Any, pending: list[Any], setup: RunSetup, wrong: list[str]
) -> None:
    """Clear everything: nothing moves, and a new run does."""
    pending.clear()
    for fault in FAULTS:
        fault.off(cell, distance)
    cell.controller.clear()
    if cell.controller.runtime != 1:
        cell.controller.program_stop()  # a person stops what is paused
    before = pose_vector(cell.controller.arm.T)
    cell.advance(500_000_000)
    if float(np.abs(pose_vector(cell.controller.arm.T) - before)[:3].max()) > 1e-3:
        wrong.append("moved by itself once the faults were cleared")
    arm = cell.controller.arm
    arm.q, arm.qd = home(arm.model, arm.T_flange_tcp, pose_vector(top_down(*HAND_AT))), np.zeros(6)
    arm.set_tcp(arm.T_flange_tcp)
    cell.advance(200_000_000)
    try:
        with Servo(cell.open(), distance, _CONFIG, candidates=48, setup=setup) as servo:
            steps = [step for _, step in zip(range(12), servo, strict=False)]
        if servo.outcome is not None and servo.reason != "left before its end":
            wrong.append(f"the next run ended: {servo.reason}")
        if not steps or abs(float(steps[-1].command[2] - HAND_AT[2])) < 0.01:
            wrong.append("the next run does not move")
    except (UrError, RuntimeError) as error:
        wrong.append(f"the next run does not start: {error}")
    cell.close_robot()


@dataclass(frozen=True)
class SequencesOptions:
    """Play random sequences of faults and recoveries, and check what must always hold.

    Example: python -m bench.sequences --sequences 1000
    """

    sequences: int = 1000
    """Number of sequences."""
    first: int = 0
    """Number of the first."""
    seconds: float = 0.0
    """End after so long [s]; 0: when all are played."""
    seed: int = 0
    """Of the faults and their times."""
    out: Path | None = None
    """Folder for sequences.json. Default: runs/sequences/<time>/."""

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.first < 0 or self.seconds < 0:
            raise ValueError("sequences must be 1 or more, first and seconds 0 or more")


@command("bench.sequences", SequencesOptions, interrupted="what was played is kept")
def main(config: SequencesOptions) -> int:
    """Run the command; returns NOT_DONE if an invariant is broken."""
    folder = output_folder("sequences", config.out)
    began, results = time.monotonic(), list[SequenceResult]()
    for number in range(config.first, config.first + config.sequences):
        if config.seconds and time.monotonic() - began > config.seconds:
            break
        with tempfile.TemporaryDirectory(prefix="sequences-") as place:
            result = play(number, config.seed, Path(place))
        if (
            result.outcome == Outcome.INTERRUPTED
        ):  # the signal came to this process; the run took it
            write_json(folder / "sequences.json", summary(config, results, began))
            raise KeyboardInterrupt
        results.append(result)
        if result.wrong:
            names = ", ".join(FAULTS[e.fault].name for e in result.events)
            print(f"sequence {number} ({names}): {result.wrong}", file=sys.stderr, flush=True)
        if len(results) % SAVED == 0:
            write_json(folder / "sequences.json", summary(config, results, began))
    told = summary(config, results, began)
    write_json(folder / "sequences.json", told)
    print(
        f"{len(results)} sequences in {told['seconds']:.0f} s ({told['outcomes']}): {told['broken']} broken; "
        f"still after at most {told['still_s']['most'] * 1e3:.0f} ms; {folder}/: sequences.json"
    )
    return NOT_DONE if told["broken"] else DONE


def summary(
    config: SequencesOptions, results: list[SequenceResult], began_s: float
) -> dict[str, Any]:
    """Content of sequences.json."""
    broken = [r for r in results if r.wrong]
    stills = [r.still_s for r in results if r.still_s is not None]
    return {
        "command": "bench.sequences",
        "seed": config.seed,
        "first": config.first,
        "sequences": len(results),
        "seconds": time.monotonic() - began_s,
        "broken": len(broken),
        "outcomes": dict(Counter(r.outcome for r in results)),
        "still_s": {
            "most": max(stills, default=0.0),
            "median": float(np.median(stills)) if stills else 0.0,
        },
        "faults": dict(Counter(FAULTS[e.fault].name for r in results for e in r.events)),
        "results": [asdict(r) for r in broken],
    }


if __name__ == "__main__":
    sys.exit(main())
