"""What the live page costs the loop: `python -m bench.page`.

rt.servo on the twin, in turns: without the page; with a page that nobody looks at; with one that a
browser on another computer looks at (a client of its websocket stands for it); with a headless
Chromium that draws it here. A bare loop of the same rate and priority, which only wakes up, runs
beside each.

The Chromium has no GPU: it draws with the processor, at the lowest priority, and shares this
computer's cores with the loop. A user's browser has a GPU, and runs on another computer where the
loop's is small. So the third row is the page's own cost; the last one is the worst case.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.emulated_cell import children
from bench.endurance import bare_loop
from bench.page_viewers import VIEWERS, Seen, chromium_path
from rt.files import output_folder, write_json
from rt.progress import progress
from rt.record import RecordError, read_record

CASES = {
    "without": "without the page",
    "nobody": "page, nobody looks",
    "elsewhere": "page, browser on another computer",
    "chromium": "page, Chromium on these cores",
}
Case = Literal["without", "nobody", "elsewhere", "chromium"]
_WAITS_S, _SPARE_S = 180.0, 200.0
"""For a browser, the page, the end of a run; and how much longer a run could last."""
_SETTLED_S = 3.0
"""The page counts its updates over two seconds: what it says before is not the rate it holds."""
_TICK_S: float = 1 / os.sysconf("SC_CLK_TCK")


class BenchError(RuntimeError):
    """A run that could not be made."""


@dataclass(frozen=True)
class Config:
    """Run the loop without the page and with it, and count deadlines and updates.

    Example: python -m bench.page --seconds 30 --turns 3
    """

    seconds: float = 30.0
    """Of closed loop in each run [s]."""
    turns: int = 2
    """Runs of each case, one case after the other."""
    rate: float = 30.0
    """Cycles per second [Hz]."""
    candidates: int = 256
    """Displacements weighed each cycle."""
    cases: tuple[Case, ...] = ("without", "nobody", "elsewhere", "chromium")
    """What to run; chromium needs playwright and a Chromium, and is left out where there is none."""
    port: int = 8800
    """First TCP port to try for the page."""
    seed: int = 0
    """Of the scene and the candidates."""
    out: Path | None = None
    """Folder for page.json and the flight records. Default: runs/page/<time>/."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("seconds", self.seconds, 1, 3600),
            ("turns", self.turns, 1, 100),
            ("rate", self.rate, 1, 1000),
            ("candidates", self.candidates, 2, 100_000),
            ("port", self.port, 1, 65_000),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")


@dataclass
class Flight:
    """One run."""

    case: str
    cycles: int
    missed: int
    bare: dict[str, Any]
    whole_ms: list[float]
    """Every cycle's time, but for the twin's own."""
    updates_hz: float | None = None
    """By the page's own count; None where nobody looked."""
    dropped: int = 0
    """Cycles that the page came too late for."""
    page_cpu: float | None = None
    """Of the page's process, in cores."""
    browser_cpu: float | None = None
    """Of all of the browser's processes, in cores; None where none runs on this computer."""
    sent_kB_s: float | None = None


@dataclass
class Meter:
    """Processor time of a process, and of all that it started."""

    pid: int
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._before = cpu_s(self.pid)

    def cores(self) -> float:
        """Used since it was made, seconds a second."""
        return (cpu_s(self.pid) - self._before) / max(time.monotonic() - self.began, 1e-9)


def cpu_s(pid: int) -> float:
    """Processor time [s] of a process and its descendants, those that ended included; 0 if it is gone."""
    total = 0.0
    with suppress(OSError, IndexError):
        # the name, in parentheses, may hold anything
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total = sum(int(v) for v in numbers[11:15]) * _TICK_S
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                total += cpu_s(int(child))
    return total


def fly(config: Config, case: str, folder: Path) -> Flight:
    """One run of rt.servo, watched as the case says. Raises BenchError."""
    context = multiprocessing.get_context("spawn")
    go, over = context.Event(), context.Event()
    running: list[Any] = []

    def start(target: Any, pipe: Any, *more: Any) -> Any:
        process = context.Process(target=target, args=(*more, pipe, over), daemon=True)
        process.start()
        pipe.close()  # so that its end is noticed
        running.append(process)
        return process

    folder.mkdir(parents=True, exist_ok=True)
    bare, bare_end = context.Pipe()
    eye, eye_end = context.Pipe()
    servo: subprocess.Popen[bytes] | None = None
    try:
        start(_bare_loop, bare_end, config.rate, go)
        viewer = None if case == "without" else start(VIEWERS[case], eye_end)
        for pipe in (bare,) if viewer is None else (bare, eye):
            _receive(pipe, "what stands beside the loop")
        servo = _servo(config, case, folder)
        if viewer is None:
            _until(lambda: (folder / "flight.mcap").exists(), servo, "the flight record")
        else:
            eye.send(_until(lambda: _said(folder, r"live page is at (\S+)"), servo, "the page"))
            _until(eye.poll, servo, "the browser")
            _receive(eye, "the browser")
        go.set()
        pages = children(servo.pid, "rt.page")
        page = Meter(pages[0]) if pages else None
        browser = Meter(viewer.pid) if viewer is not None and case == "chromium" else None
        time.sleep(config.seconds)
        used = [None if meter is None else meter.cores() for meter in (page, browser)]
        servo.send_signal(signal.SIGINT)
        over.set()
        beside = _receive(bare, "the bare loop")
        seen = None if viewer is None else _receive(eye, "the browser")
        _until(lambda: _said(folder, r"(servo\.json)"), servo, "the end of the run")
    finally:
        go.set()
        over.set()
        _end(servo, running)
    return _flown(config, case, folder, beside, seen, used)


def _bare_loop(rate_hz: float, go: Any, pipe: Any, over: Any) -> None:
    bare_loop(rate_hz, pipe, go, over)


def _servo(config: Config, case: str, folder: Path) -> subprocess.Popen[bytes]:
    # Long enough for whatever comes late; it is stopped after `seconds`.
    cycles = round((config.seconds + _SPARE_S) * config.rate)
    command = [sys.executable, "-m", "rt.servo", "--rate", f"{config.rate:g}"]
    command += ["--iterations", str(cycles), "--candidates", str(config.candidates)]
    command += ["--seed", str(config.seed), "--out", str(folder)]
    if case != "without":
        command += ["--view", "--view-port", str(config.port)]
    # It shall open no browser: the case decides who looks.
    environment = {**os.environ, "BROWSER": "true", "PYTHONUNBUFFERED": "1"}
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        )


def _said(folder: Path, pattern: str) -> str:
    found = re.search(pattern, (folder / "said.txt").read_text())
    return found[1] if found else ""


def _until(what: Any, servo: subprocess.Popen[bytes], name: str) -> Any:
    """What `what` returns when it is true."""
    until = time.monotonic() + _WAITS_S
    while time.monotonic() < until:
        ended = servo.poll() is not None  # asked before, so that its last words count
        if found := what():
            return found
        if ended:
            raise BenchError(f"rt.servo ended with exit code {servo.returncode} before {name} came")
        time.sleep(0.05)
    raise BenchError(f"{name} did not come within {_WAITS_S:g} s")


def _receive(pipe: Any, name: str) -> Any:
    if not pipe.poll(_WAITS_S):
        raise BenchError(f"{name} said nothing for {_WAITS_S:g} s")
    try:
        return pipe.recv()
    except EOFError as error:
        raise BenchError(f"{name} ended before its time; see above") from error


def _end(servo: subprocess.Popen[bytes] | None, running: list[Any]) -> None:
    if servo is not None and servo.poll() is None:
        servo.send_signal(signal.SIGINT)  # it waits for its page to be left
        try:
            servo.wait(30)
        except subprocess.TimeoutExpired:
            servo.kill()
            servo.wait()
    for process in running:
        process.join(20)
        if process.is_alive():
            process.kill()


def _flown(
    config: Config,
    case: str,
    folder: Path,
    bare: dict[str, Any],
    seen: Seen | None,
    used: list[float | None],
) -> Flight:
    """The last `seconds` before it was stopped."""
    outcome = json.loads((folder / "servo.json").read_text())["outcome"]
    if not outcome.startswith("interrupted"):
        raise BenchError(f"the run {folder} ended before its time: {outcome}")
    record = read_record(folder / "flight.mcap")
    rows = np.flatnonzero(record.cycles["phase"] == b"approach")
    rows = rows[-round(config.seconds * config.rate) :]
    missed, whole = record.cycles["missed"][rows], record.stages["whole"][rows]
    flight = Flight(
        case=case,
        cycles=len(rows),
        missed=int(missed[-1] - missed[0]),
        bare=bare,
        whole_ms=whole[np.isfinite(whole)].tolist(),
        page_cpu=used[0],
        browser_cpu=used[1],
    )
    if seen is not None and case != "nobody":
        settled = seen.rates_hz[round(len(seen.rates_hz) * _SETTLED_S / config.seconds) :]
        rates = settled or seen.rates_hz
        flight.updates_hz = float(np.mean(rates)) if rates else 0.0
        flight.dropped = seen.dropped
        flight.sent_kB_s = seen.received_bytes / config.seconds / 1e3 or None
    return flight


def summed(flights: list[Flight]) -> dict[str, Any]:
    """All runs of one case."""

    def mean(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else None

    whole = np.concatenate([f.whole_ms for f in flights])
    p50, p99, top = np.percentile(whole, (50, 99, 100)).tolist()
    row: dict[str, Any] = {
        "case": flights[0].case,
        "runs": len(flights),
        "cycles": sum(f.cycles for f in flights),
        "missed": sum(f.missed for f in flights),
        "bare_cycles": sum(f.bare["cycles"] for f in flights),
        "bare_missed": sum(f.bare["missed"] for f in flights),
        "whole_ms": {"p50": p50, "p99": p99, "max": top},
        "updates_hz": mean([f.updates_hz for f in flights]),
        "dropped": sum(f.dropped for f in flights),
        "page_cores": mean([f.page_cpu for f in flights]),
        "browser_cores": mean([f.browser_cpu for f in flights]),
        "sent_kB_s": mean([f.sent_kB_s for f in flights]),
    }
    row["page_ms_per_update"] = (
        row["page_cores"] / row["updates_hz"] * 1e3 if row["updates_hz"] else None
    )
    return row


def table(result: dict[str, Any]) -> Table:
    """On screen."""
    config = result["config"]
    shown = Table(
        title=f"the loop at {config['rate']:g} Hz on {result['cpus']} cores, {config['turns']} times "
        f"{config['seconds']:g} s each",
        title_style="bold",
    )
    for name in (
        "",
        "cycles",
        "missed",
        "bare loop\nmissed",
        "cycle p50 / p99\n[ms]",
        "updates\n[1/s]",
        "dropped",
        "page, CPU\n[% of a core]",
        "[ms per\nupdate]",
        "browser, CPU\n[% of a core]",
    ):
        shown.add_column(escape(name), justify="right" if name else "left", no_wrap=True)
    for row in result["cases"]:
        times = row["whole_ms"]
        shown.add_row(
            CASES[row["case"]],
            str(row["cycles"]),
            str(row["missed"]),
            f"{row['bare_missed']} of {row['bare_cycles']}",
            f"{times['p50']:.2f} / {times['p99']:.2f}",
            _number(row["updates_hz"]),
            str(row["dropped"]) if row["updates_hz"] is not None else "-",
            _number(row["page_cores"], 100, 0),
            _number(row["page_ms_per_update"]),
            _number(row["browser_cores"], 100, 0),
        )
    return shown


def _number(value: float | None, factor: float = 1.0, digits: int = 1) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"


def measure(config: Config, folder: Path) -> dict[str, Any]:
    """What page.json holds. Raises BenchError, RecordError or OSError."""
    cases = list(dict.fromkeys(config.cases))
    if "chromium" in cases and chromium_path() is None:
        cases.remove("chromium")
        print("bench.page: no Chromium, or no playwright: that case is left out", file=sys.stderr)
    flights: dict[str, list[Flight]] = {case: [] for case in cases}
    runs = [(turn, case) for turn in range(config.turns) for case in cases]
    for turn, case in progress(runs, unit="run", title="runs"):
        flights[case].append(fly(config, case, folder / f"{case}-{turn}"))
    return {
        "command": "bench.page",
        "config": asdict(config),
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "cases": [summed(flights[case]) for case in cases],
        "flights": [
            {k: v for k, v in asdict(f).items() if k != "whole_ms"}
            for case in cases
            for f in flights[case]
        ],
    }


def main() -> int:
    try:
        config = tyro.cli(Config, prog="python -m bench.page")
        folder = output_folder("page", config.out)
        result = measure(config, folder)
        write_json(folder / "page.json", result)
    except KeyboardInterrupt:
        return 130
    except (BenchError, RecordError, ValueError, OSError) as error:
        print(f"bench.page: {error}", file=sys.stderr)
        return 1
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table(result))
    if any(row["case"] == "chromium" for row in result["cases"]):
        console.print(
            "[dim]Chromium draws without a GPU, at the lowest priority, on the loop's own cores; a "
            "browser on another computer costs this one only what the page's process takes.[/dim]",
            soft_wrap=True,
        )
    print(f"{folder}/: page.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
