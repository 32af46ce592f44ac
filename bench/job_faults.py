"""Faults in each phase of a whole job on the emulated arm: `python -m bench.job_faults`.

Each fault is injected into a fresh emulated cell (sim.hardware.cell) while rt.clear, complete and not mocked,
takes one object from the rendered scene. Measured: the time until the arm is still, the line that names the
cause, the flight record and the state file; then `rt.clear --resume`, after a person has cleared the arm,
must take the object into the bin.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.faults import LIMIT_S, WATCHDOG_S, motion_after
from rt.job.state import StateError, read_state
from rt.record.recorder import RecordError, read_record
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, write_json
from sim.hardware.cell import EmulatedCell, emulated_cell, patient
from sim.hardware.ur.process import EmulatorError

SCENE = 7
"""One object."""
TABLE_Y_M = 0.0
"""Objects lie at smaller y in base, the bin at larger."""
SILENT_S = 0.02 + 0.5 + 1 / 15
"""Pause before the next question, longest wait for its answer (rt.gripper.robotiq), a period of the loop."""

Numbers = list[float]
PHASES: dict[str, Callable[[Numbers, Numbers], bool]] = {
    "approach": lambda p, v: p[2] < 0.27 and p[1] < TABLE_Y_M and math.hypot(v[0], v[1]) > 0.005,
    "descent": lambda p, v: p[2] < 0.13 and p[1] < TABLE_Y_M and v[2] < -0.01,
    "carry": lambda p, v: p[1] > TABLE_Y_M + 0.05 and p[2] > 0.2 and v[1] > 0.02,
    "place": lambda p, v: p[1] > TABLE_Y_M + 0.25 and p[2] < 0.255,
}
"""Phases by the tool's pose [m, rad] and twist in base, as the emulator tells them."""


@dataclass(frozen=True)
class JobFault:
    """One fault, and the expected outcome."""

    name: str
    tell: tuple[str | float, ...]
    """Lines to the emulator, and pauses [s] between them; none: SIGKILL of rt.clear."""
    words: tuple[str, ...] = ()
    """One of these is said of the cause."""
    phases: tuple[str, ...] = ("approach", "carry")
    known_s: float = 0.0
    """From the begin of the fault until it can be known."""
    goes_on: tuple[str, ...] = ()
    """Phases in which the job must go on by itself."""
    first: str = ""
    """Said by --resume before a person has seen to the arm; empty: it may go on at once."""


_BLOW = ("push 0 120 0", 0.25, "push 0 0 0")
FAULTS = (
    JobFault("SIGKILL", (), phases=tuple(PHASES), known_s=WATCHDOG_S),
    JobFault(
        "controller gone",
        ("emergency", "refuse"),
        ("connection_lost", "emergency_stop"),
        first="unreachable",
    ),
    JobFault("connection cut", ("drop",), ("connection_lost",), ("approach", "place")),
    JobFault(
        "protective stop",
        ("protective",),
        ("protective_stop",),
        ("descent", "carry"),
        first="protective_stop",
    ),
    JobFault("blow", _BLOW, ("force",), ("approach", "descent", "carry"), goes_on=("carry",)),
    JobFault("gripper silent", ("gripper object=0.04,silent",), ("silent",), ("carry",), SILENT_S),
    JobFault("object slips", ("gripper object=0.04,slips=0",), (), ("carry",), goes_on=("carry",)),
)


@dataclass(frozen=True)
class JobFaultsOptions:
    """Inject faults in each phase of a job on the emulated arm, and resume it.

    Example: python -m bench.job_faults --only SIGKILL "protective stop"
    """

    only: tuple[str, ...] = ()
    """Names of faults. Default: all."""
    rate: float = 15.0
    """Of the loop [Hz]."""
    ages: float = 0.8
    """Limit on the ages of frames, states and targets [s]: a busy computer needs more than a robot's PC."""
    nice: int = 0
    """Niceness of the job, -20 to 19."""
    timeout: float = 150.0
    """Time limit for one run [s]."""
    out: Path | None = None
    """Folder for job_faults.json and all runs. Default: runs/job_faults/<time>/."""

    def __post_init__(self) -> None:
        known = [fault.name for fault in FAULTS]
        if unknown := [name for name in self.only if name not in known]:
            raise ValueError(f"no fault {', '.join(unknown)}; known are: {', '.join(known)}")


@dataclass
class JobFaultResult:
    """Outcome of one fault in one phase."""

    fault: str
    phase: str
    exit_code: int | None = None
    still_s: float | None = None
    """From the fault to the arm's last motion; None where the job goes on."""
    opened_s: float | None = None
    """From a slip to the record's first cycle of opening fingers."""
    said: str = ""
    cycles: int | None = None
    """In the flight record; None if it cannot be read."""
    resumed: str = ""
    """First line of --resume, and its exit code."""
    why: str = ""
    """Problems, separated by semicolons; empty if it passed."""


class _Run:
    """One fault in one phase, in a cell of its own."""

    def __init__(self, fault: JobFault, phase: str, config: JobFaultsOptions, folder: Path) -> None:
        self.fault, self.config, self.folder = fault, config, folder
        self.result, self.problems = JobFaultResult(fault.name, phase), list[str]()

    def __call__(self) -> JobFaultResult:
        with emulated_cell(self.folder, 60, 0.3) as cell:
            self._job(cell)
        self.result.why = "; ".join(self.problems)
        return self.result

    def _start(self, cell: EmulatedCell, name: str, *more: str) -> subprocess.Popen[str]:
        config, out = self.config, self.folder / "out"
        options = patient(config.rate, config.ages)
        arguments = cell.clear(out, *options, *more, scene=SCENE)
        return cell.start(self.folder / name, arguments, ("rt.clear",), config.nice)

    def _job(self, cell: EmulatedCell) -> None:
        result, goes_on = self.result, self.result.phase in self.fault.goes_on
        process = self._start(cell, "first")
        try:
            if not self._reached(cell, process):
                self.problems.append("the job ended before this phase")
                return
            began = time.monotonic()
            at = began + cell.clocks_offset_s()
            self._inject(cell, process)
            result.exit_code = process.wait(self.config.timeout)
            time.sleep(0.5)
            still_s, _ = motion_after(cell.emulator.motion(time.monotonic() - began + 0.5), at)
        except subprocess.TimeoutExpired:
            self.problems.append("the job did not end")
            return
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        result.said = self._line("first", -1)
        self._judge(None if goes_on else still_s, began)
        if not goes_on:
            self._resume(cell)

    def _reached(self, cell: EmulatedCell, process: subprocess.Popen[str]) -> bool:
        until = time.monotonic() + self.config.timeout
        while time.monotonic() < until and process.poll() is None:
            state = cell.emulator.tell("state")
            if PHASES[self.result.phase](state["pose"], state["twist"]):
                return True
            time.sleep(0.005)
        return False

    def _inject(self, cell: EmulatedCell, process: subprocess.Popen[str]) -> None:
        for line in self.fault.tell:
            if isinstance(line, str):
                cell.emulator.tell(line)
            else:
                time.sleep(line)
        if not self.fault.tell:
            os.kill(process.pid, signal.SIGKILL)

    def _judge(self, still_s: float | None, began_s: float) -> None:
        result, out = self.result, self.folder / "out"
        result.still_s = still_s
        expected = 0 if still_s is None else 1 if self.fault.tell else -signal.SIGKILL
        if result.exit_code != expected:
            self.problems.append(f"exit code {result.exit_code}, not {expected}")
        try:
            cycles = read_record(out / "flight.mcap").cycles
            result.cycles = len(cycles)
            opening = (cycles["phase"] == b"release") & (cycles["stamp_ns"] * 1e-9 > began_s)
            if still_s is None and not self.fault.words and opening.any():
                result.opened_s = float(cycles["stamp_ns"][opening][0] * 1e-9 - began_s)
        except RecordError as error:
            self.problems.append(f"record: {error}")
        try:
            state = read_state(out)
            reasons = " ".join(a.reason for a in state.attempts)
        except StateError as error:
            self.problems.append(str(error))
            reasons = ""
        words = self.fault.words
        if words and not any(word in result.said + reasons for word in words):
            self.problems.append(f"said nothing of {' or '.join(words)}")
        if still_s is not None and still_s > self.fault.known_s + LIMIT_S:
            self.problems.append(f"moved for {still_s * 1e3:.0f} ms")

    def _resume(self, cell: EmulatedCell) -> None:
        on = ("--resume", str(self.folder / "out"), "--if-holding", "place")
        if self.fault.first:
            self._wait(self._start(cell, "at_once", *on))
            if self.fault.first not in self._line("at_once", -1):
                self.problems.append(f"--resume at once: {self._line('at_once', -1)}")
        for line in ("listen", "clear", "remote", "gripper object=0.04"):
            cell.emulator.tell(line)
        code = self._wait(self._start(cell, "again", *on))
        self.result.resumed = f"{self._line('again', 0)} (exit code {code})"
        gone = json.loads(cell.cell.with_name("gone.json").read_text())
        if code != 0 or gone != {"gone": [0], "held": None}:
            self.problems.append(f"--resume: exit code {code}, {gone}")

    def _wait(self, process: subprocess.Popen[str]) -> int | None:
        try:
            return process.wait(self.config.timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def _line(self, name: str, k: int) -> str:
        said = (self.folder / name / "said.txt").read_text().replace("\r", "\n")
        lines = [line for line in said.splitlines() if line.startswith("rt.clear: ")]
        return lines[k].removeprefix("rt.clear: ") if lines else ""


def table(results: list[JobFaultResult]) -> Table:
    """On screen."""
    shown = Table(title="faults during rt.clear in the emulated cell", title_style="bold")
    for name in ("fault", "while", "still", "", "said", "--resume"):
        shown.add_column(name, overflow="fold")
    for r in results:
        still = "goes on" if r.still_s is None else f"{r.still_s * 1e3:.0f} ms"
        if r.opened_s is not None:
            still += f", opens after {r.opened_s * 1e3:.0f} ms"
        verdict = f"[bold red]{r.why}[/bold red]" if r.why else "[green]pass[/green]"
        shown.add_row(r.fault, r.phase, still, verdict, r.said, r.resumed)
    return shown


@command(
    "bench.job_faults",
    JobFaultsOptions,
    failures=(EmulatorError,),
    interrupted="finished faults are kept",
)
def main(config: JobFaultsOptions) -> int:
    """Run the command; returns NOT_DONE if a fault did not pass."""
    folder = output_folder("job_faults", config.out)
    chosen = [(f, p) for f in FAULTS if not config.only or f.name in config.only for p in f.phases]
    results: list[JobFaultResult] = []
    for number, (fault, phase) in enumerate(chosen, start=1):
        print(f"{number} of {len(chosen)}: {fault.name}, {phase}", file=sys.stderr, flush=True)
        place = folder / f"{fault.name.replace(' ', '_')}_{phase}"
        results.append(_Run(fault, phase, config, place)())
        content: dict[str, Any] = {
            "command": "bench.job_faults",
            "config": asdict(config),
            "limit_s": LIMIT_S,
            "cpus": os.cpu_count(),
            "load": os.getloadavg(),
            "results": [asdict(r) for r in results],
        }
        write_json(folder / "job_faults.json", content)
    screen(200).print(table(results))
    failed = sum(bool(r.why) for r in results)
    print(f"{len(results) - failed} of {len(results)} pass; {folder}/: job_faults.json")
    return NOT_DONE if failed else DONE


if __name__ == "__main__":
    sys.exit(main())
