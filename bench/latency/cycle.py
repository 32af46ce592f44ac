"""Timing of the whole cycle of rt.servo on the twin, beside a bare loop, with and without load."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rt import servo
from rt.cell.open import open_cell
from rt.distance import Distance
from rt.tools.clock import Clock, Histogram, real_time
from rt.tools.files import plain

_BURN = """
import os
import numpy as np
if hasattr(os, "sched_setscheduler"):  # whatever class this program was started in
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
a = np.ones(8_000_000, np.float32)  # 32 MB: takes cache and memory, not only a core
while True:
    a *= 1.0000001
"""


@contextlib.contextmanager
def background_load(processes: int) -> Iterator[None]:
    """Context with so many busy processes of ordinary priority."""
    started = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def add(total: Histogram, more: Histogram) -> None:
    total.counts += more.counts
    total.count += more.count
    total.sum_ns += more.sum_ns
    total.max_ns = max(total.max_ns, more.max_ns)


def bare_loop(rate_hz: float, cycles: int, send: Any) -> None:
    """Wake up at the rate and do nothing else; sends the histogram of the wake-up lateness."""
    clock = Clock(rate_hz)
    with real_time("auto"):
        for _ in range(cycles):
            clock.wait()
    h = clock.wake_up
    send.send((h.counts, h.count, h.sum_ns, h.max_ns))


@contextlib.contextmanager
def beside_a_bare_loop(rate_hz: float, cycles: int) -> Iterator[Histogram]:
    """Context with a bare loop in a process of its own; its histogram is filled when the block ends."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=bare_loop, args=(rate_hz, cycles, send), daemon=True)
    process.start()
    histogram = Histogram()
    try:
        yield histogram
        if receive.poll(cycles / rate_hz + 30):
            counts, count, sum_ns, max_ns = receive.recv()
            histogram.counts[:] = counts
            histogram.count, histogram.sum_ns, histogram.max_ns = count, sum_ns, max_ns
    finally:
        process.kill()
        process.join()


def time_cycle(
    model: Path | None,
    distance: Distance,
    rate_hz: float,
    cycles: int,
    candidates: int,
    load: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Histogram]]:
    """Approaches on the twin until `cycles` are done; returns an entry of latency.json, and histograms."""
    stages = {name: Histogram() for name in servo.STAGES}
    wake_up = Histogram()
    done = missed = held = 0
    outcomes: dict[str, int] = {}
    refused: list[str] = []
    with background_load(load), beside_a_bare_loop(rate_hz, cycles) as bare:
        approach = 0
        while done + held < cycles:
            left = cycles - done - held
            config = servo.ServoOptions(
                rate=rate_hz,
                model=model,
                candidates=candidates,
                seed=seed + approach,
                scene=approach,
                iterations=min(75, left),
            )
            cell = open_cell("twin", seed=config.seed, scene=config.scene, mount=config.mount)
            with contextlib.redirect_stderr(io.StringIO()):
                report = servo.run(config, cell, distance, candidates)
            for name, histogram in report.watch.histograms.items():
                add(stages[name], histogram)
            add(wake_up, report.clock.wake_up)
            done, held = done + report.cycles, held + report.held
            missed += report.clock.missed
            refused = report.refused
            outcomes[report.text] = outcomes.get(report.text, 0) + 1
            approach += 1
            if report.cycles == 0:  # something stops every approach at once
                break
    summary: dict[str, Any] = {
        "load": load,
        "rate_hz": rate_hz,
        "candidates": candidates,
        "backend": distance.backend,
        "cycles": done,
        "held": held,
        "missed": missed,
        "missed_share": missed / max(done + held + missed, 1),
        "outcomes": outcomes,
        "latency": stages["whole"].summary(),
        "stages": {n: h.summary() for n, h in stages.items() if n != "whole"},
        "wake_up": wake_up.summary(),
        "bare_wake_up": bare.summary(),
        "refused": refused,
    }
    return plain(summary), {"latency": stages["whole"], "wake_up": wake_up, "bare": bare}
