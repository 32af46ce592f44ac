"""Memory, handles and threads of a run's processes over time: what grows in an hour stops a week's run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.loop import TRACE_LENGTH
from rt.record.recorder import FLUSH_S
from rt.tools.process import descendants

MOST_MB = 4.0
"""Growth of a process's memory in the second half of a run that counts as none [MB]."""
_ENTRY_MB, _CHUNK_MB = 1.3e-3, 1.0e-3
"""Of an entry of servo.json's trace, and of a chunk of the flight record in its index (measured)."""
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def sizes(pid: int) -> tuple[float, int, int] | None:
    """Memory that is its own [MB], open handles and threads of a process; None once it is gone."""
    place = Path(f"/proc/{pid}")
    with suppress(OSError, ValueError):
        resident, shared = map(int, (place / "statm").read_text().split()[1:3])
        handles, threads = len(os.listdir(place / "fd")), len(os.listdir(place / "task"))
        return (resident - shared) * _PAGE_MB, handles, threads
    return None


class Growth:
    """Samples of every process below this one that runs a module of the project."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[float, int, int]]] = {}
        """By module: MB, handles, threads, oldest first."""

    def sample(self) -> None:
        """Take one sample of each."""
        for pid, module in descendants(os.getpid()).items():
            if (found := sizes(pid)) is not None:
                self.samples.setdefault(module, []).append(found)

    def summary(self) -> dict[str, dict[str, float]]:
        """By module: medians at half time and at the end, each over a twelfth of the run."""
        return {
            module: _halves(np.array(rows, np.float64))
            for module, rows in self.samples.items()
            if len(rows) >= 24
        }

    def problems(self, known_mb: Mapping[str, float]) -> list[str]:
        """Lines on all that grew in the second half. known_mb: what a module may grow by and why is known."""
        found = []
        for module, s in self.summary().items():
            more_mb = s["end_mb"] - s["half_mb"]
            if more_mb > MOST_MB + known_mb.get(module, 0.0):
                found.append(f"{module} grew by {more_mb:.1f} MB in the second half")
            for name in ("handles", "threads"):
                if s[f"end_{name}"] > s[f"half_{name}"]:
                    found.append(
                        f"{module} has {s[f'end_{name}']:.0f} {name}, {s[f'half_{name}']:.0f} at half time"
                    )
        return found


def known_growth_mb(cycles: int, seconds: float) -> dict[str, float]:
    """By module, of the second half of a run: rt.servo keeps the last TRACE_LENGTH cycles for servo.json; the
    recorder keeps where each chunk lies, for the index at the record's end (7 MB in an hour)."""
    more = max(min(cycles, TRACE_LENGTH) - cycles / 2, 0.0)
    return {
        "rt.servo": _ENTRY_MB * more,
        "rt.record.recorder": _CHUNK_MB * seconds / 2 / FLUSH_S,
    }


def _halves(rows: NDArray[np.float64]) -> dict[str, float]:
    part = len(rows) // 12
    half = len(rows) // 2
    middle, end = (
        np.median(rows[half : half + part], axis=0),
        np.median(rows[-part - 1 : -1], axis=0),
    )
    names = ("mb", "handles", "threads")
    told = {f"half_{n}": float(v) for n, v in zip(names, middle, strict=True)}
    return told | {f"end_{n}": float(v) for n, v in zip(names, end, strict=True)}


def drift(cycles: NDArray[np.void], rate_hz: float) -> dict[str, Any]:
    """Of a record's cycles: how far the slots drifted from the rate, and ages at both ends of the run [ms].

    The k-th slot is due k periods after the first, missed ones counted; what the wake-up adds at the end
    beyond what it adds at the beginning is drift.
    """
    part = max(len(cycles) // 12, 1)
    slots = np.arange(len(cycles)) + cycles["missed"] - float(cycles["missed"][0])
    late_ms = (cycles["stamp_ns"] - cycles["stamp_ns"][0]) * 1e-6 - slots * 1e3 / rate_hz
    told = {"drift_ms": float(np.median(late_ms[-part:]) - np.median(late_ms[:part]))}
    for name in ("state_age_s", "frame_age_s"):
        first, last = (np.nanmedian(c[name]) * 1e3 for c in (cycles[:part], cycles[-part:]))
        told |= {f"{name[:-2]}_first_ms": float(first), f"{name[:-2]}_last_ms": float(last)}
    return told
