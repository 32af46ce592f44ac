"""Faults injected in the emulated cell, and the time until the arm is still: `python -m bench.faults`.

Each fault is injected into a fresh emulated cell (sim.hardware.cell) while rt.servo, complete and not
mocked, moves the emulated arm. The judgement of a run:

- the message names the cause, and the exit code is the expected one
- the arm is still at most 100 ms after the fault could be known. `known_s` counts from the beginning of the
  fault: a stalled camera, for example, is known once its last frame is older than the cell allows
- the flight record is readable, and shows when the loop first held or stopped (`told_s`)
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from rt.distance.contract import read_model
from rt.distance.graph import write_model
from rt.distance.model import SHIPPED_MODEL
from rt.guard.rows import Limits
from rt.record.recorder import RecordError, read_record
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.process import children
from sim.hardware.cell import EmulatedCell, emulated_cell, wait_until_moving
from sim.hardware.inject import SLOW_S
from sim.hardware.ur.process import EmulatorError

LIMIT_S = 0.100
"""Limit on the time from when a fault can be known to when the arm is still."""
WATCHDOG_S = 0.100
"""Watchdog of the emulated controller: its program ends after this long without a packet."""
STILL_M_S, STILL_RAD_S = 0.005, 0.05
"""Speeds below which the arm counts as still: five times the tremor of an arm that holds its pose."""
BELOW_M = 0.27
"""Height of the hand at which a fault is injected, on the way down."""
RECORD_BYTES = 400_000
_LIMITS = Limits()
_FRAME_S = 1 / 30
_PERIOD_S = 1 / 30

_EARLY = "the run ended before the fault began"

Act = Callable[[EmulatedCell, "subprocess.Popen[str]"], None]


@dataclass(frozen=True)
class Fault:
    """One fault: its injection and the expected outcome."""

    name: str
    names: tuple[str, ...]
    """Words of which the run's message must contain at least one."""
    exit_codes: tuple[int, ...] = (1,)
    known_s: float = 0.0
    """Time from the beginning of the fault until it can be known."""
    act: Act | None = None
    """Injects the fault from outside; None: sim.hardware.inject does, inside the run's process."""
    inject: str = "none"
    by_silence: bool = False
    """True if the fault is known from the controller's silence: after --silence, or by the state's age."""
    moves_on: bool = False
    """True if the run must continue in spite of the fault."""
    begins: str = "moving"
    """`moving` (in motion), `start` (before the run), or `closing` (when the gripper is told to close)."""
    recorded: bool = True
    """False if the run must end before a flight record is begun."""


def tell(line: str) -> Act:
    """Injection by a line to the emulator's control channel."""
    return lambda cell, process: cell.emulator.tell(line) and None


def send(number: signal.Signals) -> Act:
    return lambda cell, process: process.send_signal(number)


def kill_all(cell: EmulatedCell, process: subprocess.Popen[str]) -> None:
    """Kill the loop and its streaming process, so that only the arm's watchdog is left to stop the arm."""
    victims = children(process.pid, "rt.robot.ur.stream")
    for pid in (*victims, process.pid):
        os.kill(pid, signal.SIGKILL)


def fill_disk(cell: EmulatedCell, process: subprocess.Popen[str]) -> None:
    """Limit the size of the recorder's file, so that its next write fails."""
    for pid in children(process.pid, "rt.record.recorder"):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (RECORD_BYTES, RECORD_BYTES))


def busy(cell: EmulatedCell, process: subprocess.Popen[str]) -> None:
    """Start two busy processes per CPU, which end with the run."""
    program = (
        "import os, time\n"
        f"while os.path.exists('/proc/{process.pid}/fd') and os.getppid() != 1:\n"
        " end = time.monotonic() + .2\n"
        " while time.monotonic() < end: sum(range(10000))"
    )
    for _ in range(2 * (os.cpu_count() or 1)):
        hog = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL)
        os.setpriority(os.PRIO_PROCESS, hog.pid, os.getpriority(os.PRIO_PROCESS, process.pid))


def shout(cell: EmulatedCell, process: subprocess.Popen[str]) -> None:
    """Send nonsense to every port of the emulated controller, as a port scanner does: nobody may mind."""
    for port in (29999, 30001, 30002, 30003, 30004, 63352):
        with (
            suppress(OSError),
            socket.create_connection((cell.emulator.address, port), 2.0) as sock,
        ):
            sock.sendall(bytes(range(256)) * 8)


_AGE_S = _LIMITS.max_frame_age_s

# fmt: off
# ruff: noqa: E501  (a table has the width of its columns)
FAULTS: tuple[Fault, ...] = (
    Fault("camera stalls", ("frame_age",), inject="camera_stall", known_s=_AGE_S),
    Fault("camera repeats its picture", ("same_view",), inject="same_frame", known_s=(_LIMITS.max_same_views + 2) * _FRAME_S + _PERIOD_S),
    Fault("frames 300 ms late", ("frame_age", "exposure_gap"), inject="late_frames", known_s=_AGE_S),
    Fault("depth all zero", ("view_filled",), inject="zero_depth", known_s=_FRAME_S + _PERIOD_S),
    Fault("depth all NaN", ("view_filled", "depth"), inject="nan_depth", known_s=_FRAME_S + _PERIOD_S),
    Fault("model of another view", ("view.fov_deg",), begins="start", recorded=False),
    Fault("network returns NaN", ("not_finite",), inject="nan_network", known_s=_PERIOD_S),
    Fault("network takes 500 ms", ("late_command", "target_age", "missed_deadlines"), inject="slow_network", known_s=2 * _PERIOD_S + _LIMITS.max_target_age_s),
    Fault("robot freezes", ("frozen", "connection_lost", "state_age"), act=tell("freeze"), known_s=WATCHDOG_S),
    Fault("robot repeats its state", ("frozen", "state_age"), act=tell("freeze_time"), by_silence=True),
    Fault("robot disconnects", ("connection_lost", "frozen", "state_age"), act=tell("drop")),
    Fault("protective stop", ("protective_stop",), act=tell("protective")),
    Fault("emergency stop", ("emergency_stop",), act=tell("emergency")),
    Fault("safeguard stop", ("safeguard_stop",), act=tell("safeguard")),
    Fault("safety violation", ("safety_violation",), act=tell("violation")),
    Fault("safety fault", ("safety_fault",), act=tell("fault")),
    Fault("outside its safety limits", ("recovery_mode",), act=tell("recovery")),
    Fault("paused on the pendant", ("program_stopped",), act=tell("pause")),
    Fault("a blow of 120 N", ("force",), act=tell("push 120 0 0"), known_s=_PERIOD_S),
    Fault("speed slider at 60 %", (), (0, 1, 3), act=tell("slider 0.6"), moves_on=True),
    Fault("nonsense on every port", (), (0, 3), act=shout, moves_on=True),
    Fault("SIGHUP", ("SIGHUP",), (129,), act=send(signal.SIGHUP), known_s=_PERIOD_S),
    Fault("stopped on the pendant", ("program_stopped",), act=tell("stop")),
    Fault("gripper silent", ("gripper",), (1, 3), act=tell("gripper silent_on_close"), begins="closing"),
    Fault("gripper talks garbage", ("gripper",), (1, 3), act=tell("gripper garbage_on_close"), begins="closing"),
    Fault("disk full", ("disk full",), (0, 3), act=fill_disk, moves_on=True),
    Fault("SIGINT", ("SIGINT",), (130,), act=send(signal.SIGINT), known_s=_PERIOD_S),
    Fault("SIGTERM", ("SIGTERM",), (143,), act=send(signal.SIGTERM), known_s=_PERIOD_S),
    Fault("SIGKILL of the loop", (), (-9,), act=send(signal.SIGKILL), known_s=WATCHDOG_S),
    Fault("SIGKILL of loop and stream", (), (-9,), act=kill_all, known_s=WATCHDOG_S),
    Fault("CPU full", ("stall", "missed_deadlines", "state_age", "target_age"), (0, 1, 3), act=busy, moves_on=True),
)
# fmt: on


@dataclass(frozen=True)
class FaultResult:
    """Outcome of one fault. Times count from the beginning of the fault."""

    fault: str
    passed: bool
    detected: str
    """Last message of the run."""
    exit_code: int | None
    known_s: float
    told_s: float | None
    """Time of the first hold or stop in the record."""
    still_s: float | None
    """Time of the emulated arm's last motion."""
    cycles: int | None
    """Number of cycles in the record; None if it cannot be read."""
    why: str
    """Problems, separated by semicolons; empty if the fault passed."""
    ran_on_m: float | None = None
    """Distance [m] that the arm moved from the fault until it was still."""


@dataclass(frozen=True)
class FaultsOptions:
    """Inject faults in an emulated cell, and judge how each run ends.

    Example: python -m bench.faults --only "protective stop" "SIGKILL of the loop"
    """

    only: tuple[str, ...] = ()
    """Names of faults. Default: all."""
    tries: int = 3
    """Largest number of runs per fault: a run that ends before its fault begins is repeated."""
    timeout: float = 120.0
    """Time limit for one run [s]."""
    nice: int = 0
    """Niceness of the run and its children, -20 to 19: on a computer that others keep busy, -10 (by root)."""
    number: int = 0
    """Number of the emulated cell, if several run at once on this computer."""
    candidates: int = 256
    """Candidate displacements per cycle."""
    rate: float = 1 / _PERIOD_S
    """Control rate [Hz]. A busy computer keeps fewer; times are judged as at the default."""
    silence: float = 0.05
    """The cell's max_silence_s [s]. On a busy computer give more than rt.cell's default, or late packets
    count as a frozen arm."""
    out: Path | None = None
    """Folder for faults.json, and the record and output of every run. Default: runs/faults/<time>/."""

    def __post_init__(self) -> None:
        known = [fault.name for fault in FAULTS]
        if self.tries < 1:
            raise ValueError(f"tries = {self.tries} must be 1 or more")
        if unknown := [name for name in self.only if name not in known]:
            raise ValueError(f"no fault {', '.join(unknown)}; known are: {', '.join(known)}")


def other_view(path: Path) -> Path:
    """Write the shipped network with a contract for a 60 degree view; returns its path."""
    contract, weights = read_model(SHIPPED_MODEL)
    write_model(path, replace(contract, view=replace(contract.view, fov_deg=60.0)), weights)
    return path


def tried(fault: Fault, config: FaultsOptions, folder: Path) -> FaultResult:
    """Outcome of one fault; repeats a run that ended before the fault began, up to `config.tries` times."""
    for number in range(config.tries):
        for old in ("trigger", "trigger.at", "flight.mcap"):
            (folder / old).unlink(missing_ok=True)
        result = run(fault, config, folder)
        if _EARLY not in result.why:
            break
        print(f"  try {number + 1}: {result.why}: {result.detected}", file=sys.stderr, flush=True)
    return result


def run(fault: Fault, config: FaultsOptions, folder: Path) -> FaultResult:
    """Outcome of one run of rt.servo in an emulated cell of its own."""
    if fault.by_silence:
        fault = replace(fault, known_s=min(config.silence, _LIMITS.max_state_age_s))
    with emulated_cell(folder, config.number, config.silence) as cell:
        more = ["--candidates", str(config.candidates), "--rate", f"{config.rate:g}"]
        more += ["--patience", f"{config.timeout / 2:g}"]
        if fault.begins == "start":
            more += ["--model", str(other_view(folder / "other.onnx"))]
        trigger = folder / "trigger"
        module = ["sim.hardware.inject", fault.inject, str(trigger), "--"]
        process = cell.start(folder, cell.servo(folder, *more), module, config.nice)
        try:
            began_s = _begin(fault, cell, process, trigger, config.timeout)
            try:
                process.wait(config.timeout)
            except subprocess.TimeoutExpired:
                return _result(fault, folder, None, began_s, None, "the run did not end")
            cell.emulator.wait_still()
            still_s = ran_on_m = None
            if began_s is not None:
                at = began_s + cell.clocks_offset_s()
                rows = cell.emulator.motion(time.monotonic() - began_s + 1)
                np.save(folder / "motion.npy", rows - np.eye(13)[0] * at)
                still_s, ran_on_m = motion_after(rows, at)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    result = _result(fault, folder, process.returncode, began_s, still_s, "")
    return replace(result, ran_on_m=None if fault.moves_on else ran_on_m)


def motion_after(rows: NDArray[np.float64], at_s: float) -> tuple[float, float]:
    """Time [s] and distance [m] from `at_s` to the last sample above STILL_M_S or STILL_RAD_S.

    rows (N, 13): time [s], pose, twist of the tool, on the clock of `at_s` (Emulator.motion).
    """
    rows = rows[rows[:, 0] >= at_s]
    v, w = np.linalg.norm(rows[:, 7:10], axis=1), np.linalg.norm(rows[:, 10:], axis=1)
    moving = np.flatnonzero((v > STILL_M_S) | (w > STILL_RAD_S))
    if not len(moving):
        return 0.0, 0.0
    last = int(moving[-1])
    far_m = np.linalg.norm(rows[last, 1:4] - rows[0, 1:4])
    return float(rows[last, 0]) - at_s, float(far_m)


def _begin(
    fault: Fault,
    cell: EmulatedCell,
    process: subprocess.Popen[str],
    trigger: Path,
    timeout_s: float,
) -> float | None:
    """Inject the fault; returns its time (time.monotonic), or None if the run ended before."""
    if fault.begins == "start":
        return None
    if fault.begins == "closing":
        assert fault.act is not None
        fault.act(cell, process)
        return None
    if not wait_until_moving(cell, process, timeout_s, BELOW_M):
        return None
    if fault.act is not None:
        before = time.monotonic()
        fault.act(cell, process)
        return before
    trigger.touch()
    at, until = trigger.with_suffix(".at"), time.monotonic() + 10
    while time.monotonic() < until:
        if at.exists():
            return int(at.read_text()) * 1e-9
        time.sleep(0.002)
    return None


def _result(
    fault: Fault,
    folder: Path,
    exit_code: int | None,
    began_s: float | None,
    still_s: float | None,
    wrong: str,
) -> FaultResult:
    said = (folder / "said.txt").read_text()
    lines = [line for line in said.splitlines() if line.startswith("rt.servo:")]
    detected = lines[-1].removeprefix("rt.servo: ") if lines else ""
    problems = [wrong] if wrong else []
    told_s, cycles, closed = None, None, False
    try:
        record = read_record(folder / "flight.mcap")
        cycles = len(record.cycles)
        closed = bool((record.cycles["phase"] == b"close").any())
        if began_s is not None:
            stamps = record.cycles["stamp_ns"] * 1e-9
            acted = np.isin(record.cycles["guard_action"], (b"hold", b"stop"))
            after = stamps[acted & (stamps >= began_s)]
            told_s = float(after[0] - began_s) if len(after) else None
    except RecordError as error:
        if fault.recorded:
            problems.append(f"record: {error}")
    if fault.begins == "closing" and not closed:
        problems.append("the gripper was never told to close")
    if fault.recorded and cycles == 0:
        problems.append("the record is empty")
    if began_s is None and fault.begins == "moving":
        problems.append(_EARLY)
    if exit_code is not None and exit_code not in fault.exit_codes:
        problems.append(f"exit code {exit_code}, not {' or '.join(map(str, fault.exit_codes))}")
    if fault.names and exit_code != 0 and not any(n in said for n in fault.names):
        problems.append(f"said nothing of {' or '.join(fault.names)}")
    if fault.name == "disk full" and "disk full" not in said:
        problems.append("said nothing of the disk")
    if still_s is not None and not fault.moves_on and still_s > fault.known_s + LIMIT_S:
        problems.append(f"moved for {still_s * 1e3:.0f} ms")
    return FaultResult(
        fault.name,
        not problems,
        detected,
        exit_code,
        fault.known_s,
        told_s,
        None if fault.moves_on else still_s,
        cycles,
        "; ".join(problems),
    )


def table(results: list[FaultResult]) -> Table:
    """On screen."""
    shown = Table(title="faults in the emulated cell", title_style="bold")
    for name in ("fault", "exit", "known", "told", "still", "ran on", "record", "", "said"):
        shown.add_column(
            name,
            justify="right"
            if name in ("exit", "known", "told", "still", "ran on", "record")
            else "left",
        )

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value * 1e3:.0f} ms"

    for r in results:
        shown.add_row(
            r.fault,
            "-" if r.exit_code is None else str(r.exit_code),
            ms(r.known_s),
            ms(r.told_s),
            ms(r.still_s),
            "-" if r.ran_on_m is None else f"{r.ran_on_m * 1e3:.1f} mm",
            "-" if r.cycles is None else f"{r.cycles} cycles",
            "[green]pass[/green]" if r.passed else "[bold red]FAIL[/bold red]",
            r.detected if r.passed else f"{r.why} | {r.detected}",
        )
    return shown


@command(
    "bench.faults", FaultsOptions, failures=(EmulatorError,), interrupted="finished faults are kept"
)
def main(config: FaultsOptions) -> int:
    """Run the command; returns NOT_DONE if a fault did not pass."""
    folder = output_folder("faults", config.out)
    chosen = [f for f in FAULTS if not config.only or f.name in config.only]
    results: list[FaultResult] = []
    for number, fault in enumerate(chosen, start=1):
        print(f"{number} of {len(chosen)}: {fault.name}", file=sys.stderr, flush=True)
        place = folder / fault.name.replace(" ", "_")
        place.mkdir(exist_ok=True)
        results.append(tried(fault, config, place))
        save(config, results, folder)
    console = screen(200)
    console.print(table(results))
    failed = [r.fault for r in results if not r.passed]
    print(f"{len(results) - len(failed)} of {len(results)} pass; {folder}/: faults.json")
    return NOT_DONE if failed else DONE


def save(config: FaultsOptions, results: list[FaultResult], folder: Path) -> None:
    """Write faults.json, after every fault, so that an interrupted run keeps the finished ones."""
    content: dict[str, Any] = {
        "command": "bench.faults",
        "limit_s": LIMIT_S,
        "watchdog_s": WATCHDOG_S,
        "slow_network_s": SLOW_S,
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "only": list(config.only),
        "results": [asdict(r) for r in results],
    }
    write_json(folder / "faults.json", content)


if __name__ == "__main__":
    sys.exit(main())
