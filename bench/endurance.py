"""Minutes of closed loop on the emulated arm under full CPU load: `python -m bench.endurance`.

rt.servo makes one long approach in the emulated cell (sim.hardware.cell) while busy processes load the
computer. A bare loop, which only wakes up at the same rate and priority (rt.tools.clock), runs beside it.
The run passes if rt.servo misses at most 0.1 % more of its deadlines than the bare loop, the guard
records no event, and no process grew in the second half (bench.growth). The tracking error is read from the
flight record, the jerk from the emulator's true motion.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bench.growth import Growth, drift, known_growth_mb
from bench.latency.cycle import background_load
from rt.record.recorder import RecordError, read_record
from rt.tools.clock import Clock, real_time
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, write_json
from sim.hardware.cell import BELOW_START_M, EmulatedCell, emulated_cell, wait_until_moving
from sim.hardware.ur.process import EmulatorError

EXTRA = 0.001
"""Share of deadlines that the loop may miss in addition to the bare loop's share."""
_POLL_S = 2.0
_AGES = ("state_age", "frame_age")


@dataclass(frozen=True)
class EnduranceOptions:
    """Run the loop for minutes on the emulated arm, under load, beside a bare loop.

    Example: python -m bench.endurance --minutes 10 --rate 30 --load 2
    """

    minutes: float = 10.0
    """Of closed loop [min]."""
    rate: float = 30.0
    """Cycles per second [Hz]."""
    load: int = 2
    """Number of busy processes of ordinary priority that run beside the loop."""
    candidates: int = 256
    """Candidate displacements per cycle."""
    noise: float = 0.0
    """Kinematic noise of the loop (rt.servo). Noise keeps the arm moving, and makes the guard clamp the
    speed that the noise adds."""
    scene: int = 7
    """Number of the simulated scene."""
    silence: float = 0.05
    """The cell's max_silence_s [s] (see bench.faults)."""
    nice: int = 0
    """Niceness of the run and its children (see bench.faults)."""
    number: int = 0
    """Number of the emulated cell, if several run at once on this computer."""
    out: Path | None = None
    """Folder for endurance.json and the run's own files. Default: runs/endurance/<time>/."""

    def __post_init__(self) -> None:
        if not 0.05 <= self.minutes <= 24 * 60:
            raise ValueError(f"minutes = {self.minutes} must be from 0.05 to 1440")
        if self.load < 0:
            raise ValueError(f"load = {self.load} must not be negative")


def _smooth(values: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
    """Moving average over 16 ms: removes the steps between packets that an arm's inertia would filter."""
    n = max(1, round(0.016 / dt))
    kernel = np.ones(n) / n
    return np.stack([np.convolve(v, kernel, "valid") for v in values.T], axis=1)


def bare_loop(rate_hz: float, send: Connection, go: Any, over: Any) -> None:
    """Wake up at the rate from `go` until `over`, after sending "ready".

    Sends cycles, missed deadlines and the summary of the wake-up lateness at the end.
    """
    send.send("ready")
    go.wait()
    clock = Clock(rate_hz)
    with real_time("auto"):
        while not over.is_set():
            clock.wait()
    send.send({"cycles": clock.cycles, "missed": clock.missed, **clock.wake_up.summary()})


class Jerk:
    """Peak jerk [m/s^3] and peak speed [m/s] of the true motion, for each chunk of a few seconds."""

    def __init__(self) -> None:
        self.peaks: list[float] = []
        self.speeds: list[float] = []

    def add(self, rows: NDArray[np.float64]) -> None:
        """Add a chunk of the emulator's log, rows (N, 13); fewer than 20 rows are ignored."""
        if len(rows) < 20:
            return
        dt = float(np.median(np.diff(rows[:, 0])))
        velocity = rows[:, 7:10]
        acceleration = np.diff(_smooth(velocity, dt), axis=0) / dt
        jerk = np.linalg.norm(np.diff(acceleration, axis=0), axis=1) / dt
        self.peaks.append(float(jerk.max()))
        self.speeds.append(float(np.linalg.norm(velocity, axis=1).max()))


def measure(config: EnduranceOptions, folder: Path) -> dict[str, Any]:
    """Run loop, bare loop and load; returns the content of endurance.json. Raises EmulatorError, OSError."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    go, over = context.Event(), context.Event()
    cycles = round(config.minutes * 60 * config.rate)
    with emulated_cell(folder, config.number, config.silence) as cell:
        arguments = cell.servo(
            *(folder, "--rate", f"{config.rate:g}", "--grasp", "no"),
            *("--iterations", str(cycles), "--noise", f"{config.noise:g}"),
            *("--candidates", str(config.candidates), "--patience", "60"),
            scene=config.scene,
        )
        process = cell.start(folder, arguments, nice=config.nice)
        bare = context.Process(target=bare_loop, args=(config.rate, send, go, over), daemon=True)
        jerk, growth = Jerk(), Growth()
        try:
            bare.start()
            if not receive.poll(120):
                raise OSError("the bare loop did not start within 120 s")
            receive.recv()
            if wait_until_moving(cell, process, 120, BELOW_START_M):
                with background_load(config.load):
                    go.set()
                    _watch(config, cell, process, jerk, growth)
                    over.set()
                    beside = receive.recv() if receive.poll(10) else None
            else:
                beside = None
            process.wait(60)
        finally:
            go.set()
            over.set()
            for running in (process, bare):
                with suppress(AssertionError, ValueError, OSError, AttributeError):
                    running.kill()
    return judged(config, folder, process.returncode, beside, jerk, growth)


def _watch(
    config: EnduranceOptions, cell: EmulatedCell, process: Any, jerk: Jerk, growth: Growth
) -> None:
    began = told = time.monotonic()
    limit = began + config.minutes * 60 * 1.5 + 60
    while process.poll() is None and time.monotonic() < limit:
        time.sleep(_POLL_S)
        jerk.add(cell.emulator.motion(_POLL_S))
        growth.sample()
        if time.monotonic() - told > 15:
            told = time.monotonic()
            done = (told - began) / 60
            print(f"{done:.1f} of {config.minutes:g} min", file=sys.stderr, flush=True)


def judged(
    config: EnduranceOptions,
    folder: Path,
    code: int | None,
    bare: dict[str, Any] | None,
    jerk: Jerk,
    growth: Growth,
) -> dict[str, Any]:
    """Content of endurance.json: figures of the run, and `problems`, empty if the run passed."""
    said = [line for line in (folder / "said.txt").read_text().splitlines() if line.strip()]
    result: dict[str, Any] = {
        "command": "bench.endurance",
        "config": asdict(config),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "exit_code": code,
        "said": said[-1] if said else "",
        "bare": bare,
        "jerk_peak_m_s3": max(jerk.peaks, default=None),
        "jerk_median_of_peaks_m_s3": float(np.median(jerk.peaks)) if jerk.peaks else None,
        "fastest_m_s": max(jerk.speeds, default=None),
        "growth": growth.summary(),
    }
    problems = [] if code == 0 else [f"the run ended with exit code {code}: {result['said']}"]
    cycles_due = round(config.minutes * 60 * config.rate)
    problems += growth.problems(known_growth_mb(cycles_due, config.minutes * 60))
    try:
        record = read_record(folder / "flight.mcap")
        cycles = record.cycles[record.cycles["phase"] == b"approach"]
        events = cycles["guard_name"][cycles["guard_name"] != b""].tolist()
        result["guard"] = {name.decode(): events.count(name) for name in sorted(set(events))}
        result["cycles"] = len(cycles)
        result["lost"] = record.lost
        result |= drift(cycles, config.rate) if len(cycles) else {}
        missed = int(cycles["missed"][-1]) if len(cycles) else 0
        result["missed"], result["missed_share"] = missed, missed / max(len(cycles) + missed, 1)
        error = cycles["hand"][1:, :3] - cycles["command"][:-1, :3]
        off = np.linalg.norm(error, axis=1) * 1e3
        off = off[np.isfinite(off)]
        if len(off):
            p99, top = np.percentile(off, (99, 100)).tolist()
            rms = float(np.sqrt(np.mean(off**2)))
            result["tracking_mm"] = {"rms": rms, "p99": p99, "max": top}
        whole = record.stages.get("whole", np.zeros(0))
        whole = whole[np.isfinite(whole)]
        if len(whole):
            result["whole_ms"] = dict(
                zip(
                    ("p50", "p99", "max"), np.percentile(whole, (50, 99, 100)).tolist(), strict=True
                )
            )
        if result["guard"]:
            problems.append(f"the guard: {result['guard']}")
    except RecordError as wrong:
        problems.append(f"record: {wrong}")
    if bare is None:
        problems.append("the bare loop was not measured")
    elif "missed_share" in result:
        bare["missed_share"] = bare["missed"] / max(bare["cycles"] + bare["missed"], 1)
        if result["missed_share"] > bare["missed_share"] + EXTRA:
            problems.append("more deadlines missed than the bare loop and 0.1 %")
    result["problems"] = problems
    return result


def table(result: dict[str, Any]) -> Table:
    """Table of the figures for the terminal."""
    config = result["config"]
    shown = Table(
        title=f"{config['minutes']:g} min at {config['rate']:g} Hz, {config['load']} busy processes",
        title_style="bold",
        min_width=72,
    )
    for name in ("", "loop", "bare loop"):
        shown.add_column(name, justify="right" if name else "left")
    bare = result["bare"] or {}
    shown.add_row("cycles", str(result.get("cycles", "-")), str(bare.get("cycles", "-")))
    shown.add_row("missed deadlines", str(result.get("missed", "-")), str(bare.get("missed", "-")))
    if "missed_share" in result and "missed_share" in bare:
        shares = (f"{x['missed_share'] * 100:.3f} %" for x in (result, bare))
        shown.add_row("  of all", *shares)
    if bare:
        shown.add_row("wake-up lateness p99", "", f"{bare['p99_ms']:.2f} ms")
    if "whole_ms" in result:
        times = result["whole_ms"]
        text = " / ".join(f"{times[k]:.1f}" for k in ("p50", "p99", "max"))
        shown.add_row("cycle p50 / p99 / max, ms", text, "")
    if "tracking_mm" in result:
        t = result["tracking_mm"]
        text = f"{t['rms']:.2f} / {t['p99']:.2f} / {t['max']:.2f}"
        shown.add_row("behind the command rms / p99 / max, mm", text, "")
    if result["jerk_peak_m_s3"] is not None:
        shown.add_row("peak jerk, m/s^3", f"{result['jerk_peak_m_s3']:.0f}", "")
        shown.add_row("fastest, m/s", f"{result['fastest_m_s']:.3f}", "")
    for name, count in result.get("guard", {}).items():
        shown.add_row(f"guard: {name}", str(count), "")
    if "drift_ms" in result:
        shown.add_row("drift of the slots, ms", f"{result['drift_ms']:.2f}", "")
        ages = (f"{result[f'{k}_first_ms']:.1f} / {result[f'{k}_last_ms']:.1f}" for k in _AGES)
        shown.add_row("age of state; of frame, first / last, ms", "; ".join(ages), "")
    for module, s in result["growth"].items():
        shown.add_row(f"{module}, half / end, MB", f"{s['half_mb']:.1f} / {s['end_mb']:.1f}", "")
    shown.add_row("cycles that the record lost", str(result.get("lost", "-")), "")
    return shown


@command("bench.endurance", EnduranceOptions, failures=(EmulatorError,))
def main(config: EnduranceOptions) -> int:
    """Run the command; returns NOT_DONE if the run did not pass."""
    folder = output_folder("endurance", config.out)
    result = measure(config, folder)
    write_json(folder / "endurance.json", result)
    screen().print(table(result))
    print(f"{folder}/: endurance.json")
    for problem in result["problems"]:
        print(f"bench.endurance: {problem}", file=sys.stderr)
    return NOT_DONE if result["problems"] else DONE


if __name__ == "__main__":
    sys.exit(main())
