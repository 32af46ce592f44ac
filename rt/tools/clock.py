"""A fixed rate: absolute deadlines, missed slots, where the time went, real-time privileges.

Slot k begins at start + k * period, whatever happened before: nothing is ever measured from "now",
so the rate does not drift. A cycle that ends after the next slot has begun has missed it; that slot
is skipped, never made up.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np


class ClockError(RuntimeError):
    """A rate that cannot be asked for, that was not held, or privileges that were not granted."""


def _sleep_until(deadline_ns: int) -> None:
    """time.sleep is absolute on the monotonic clock inside, from Python 3.11 on."""
    remaining = deadline_ns - time.monotonic_ns()
    if remaining > 0:
        time.sleep(remaining * 1e-9)


class Histogram:
    """Durations in logarithmic buckets, 32 an octave (2.2% wide), 1 us to 134 s; never grows."""

    _PER_OCTAVE, _OCTAVES, _FIRST_NS = 32, 27, 1000

    def __init__(self) -> None:
        self.counts = np.zeros(self._PER_OCTAVE * self._OCTAVES, dtype=np.int64)
        self.count, self.max_ns, self.sum_ns = 0, 0, 0

    def add(self, ns: int) -> None:
        bucket = math.ceil(self._PER_OCTAVE * math.log2(max(ns, 1) / self._FIRST_NS))
        self.counts[min(max(bucket, 0), len(self.counts) - 1)] += 1
        self.count += 1
        self.sum_ns += ns
        self.max_ns = max(self.max_ns, ns)

    def percentile_ms(self, percent: float) -> float:
        """Least duration that `percent` of all do not exceed, to a bucket's width; nan if empty."""
        if not self.count:
            return math.nan
        rank = min(max(math.ceil(self.count * percent / 100), 1), self.count)
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        return float(min(self._FIRST_NS * 2 ** (bucket / self._PER_OCTAVE), self.max_ns)) / 1e6

    def summary(self) -> dict[str, float]:
        """p50, p99, p99.9, max and mean in ms, and the count."""
        names = {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9}
        result = {name: self.percentile_ms(percent) for name, percent in names.items()}
        result["max_ms"] = self.max_ns / 1e6 if self.count else math.nan
        result["mean_ms"] = self.sum_ns / 1e6 / self.count if self.count else math.nan
        result["count"] = self.count
        return result


class Stopwatch:
    """Times of a cycle's stages: `start()`, then `lap(stage)` at the end of each stage."""

    def __init__(self, stages: Sequence[str], now: Callable[[], int] = time.perf_counter_ns):
        self.histograms = {stage: Histogram() for stage in stages}
        self._number = {stage: i for i, stage in enumerate(stages)}
        self._newest_ms = [math.nan] * len(stages)
        self._now, self._last = now, now()
        self._began = self._last

    def start(self) -> None:
        self._began = self._last = self._now()

    def lap(self, stage: str) -> None:
        now = self._now()
        self._add(stage, now - self._last)
        self._last = now

    def whole(self, stage: str) -> None:
        """Everything since `start`."""
        self._add(stage, self._now() - self._began)

    def _add(self, stage: str, ns: int) -> None:
        self.histograms[stage].add(ns)
        self._newest_ms[self._number[stage]] = ns * 1e-6

    def take_ms(self) -> list[float]:
        """The newest time of each stage, nan for those without one since the last call."""
        newest, self._newest_ms = self._newest_ms, [math.nan] * len(self._newest_ms)
        return newest


class Clock:
    """`clock.wait()` at the top of every cycle returns at the beginning of the next slot."""

    def __init__(
        self,
        rate_hz: float,
        *,
        max_missed_in_a_row: int | None = None,
        paced: bool = True,
        now: Callable[[], int] = time.monotonic_ns,
        sleep_until: Callable[[int], None] = _sleep_until,
    ) -> None:
        """paced=False: as fast as possible, no deadlines. Raises ClockError for an impossible rate."""
        if not (math.isfinite(rate_hz) and 0.01 <= rate_hz <= 10_000):
            raise ClockError(f"rate = {rate_hz} Hz must be from 0.01 to 10000 Hz")
        self.period_ns = round(1e9 / rate_hz)
        self.max_missed_in_a_row, self.paced = max_missed_in_a_row, paced
        self.cycles = self.missed = self.missed_in_a_row = 0
        self.dt_s = self.slack_s = 0.0
        """Since the last wake-up; left of the period when the last `wait` was called (negative: late)."""
        self.wake_up = Histogram()
        """Lateness of the system's wake-ups."""
        self._now, self._sleep_until = now, sleep_until
        self._start_ns: int | None = None
        self._woke_ns = 0
        self._slot = 0

    @property
    def remaining_s(self) -> float:
        """Left of the current period now."""
        return (self._deadline(self._slot + 1) - self._now()) * 1e-9

    @property
    def elapsed_s(self) -> float:
        """From the first slot to the last wake-up."""
        return (self._woke_ns - (self._start_ns or 0)) * 1e-9 if self._start_ns is not None else 0.0

    @property
    def rate_hz(self) -> float:
        """Held so far; nan before the second cycle."""
        return (self.cycles - 1) / self.elapsed_s if self.cycles > 1 else math.nan

    def _deadline(self, slot: int) -> int:
        return (self._start_ns or 0) + slot * self.period_ns

    def wait(self) -> None:
        """Sleep to the next slot that has not begun. Raises ClockError after too many missed in a row."""
        now = self._now()
        if self._start_ns is None:
            self._start_ns = self._woke_ns = now
            self.cycles = 1
            return
        if self.paced:
            self._next_slot(now)
            deadline = self._deadline(self._slot)
            self._sleep_until(deadline)
            now = self._now()
            self.wake_up.add(max(now - deadline, 0))
        self.dt_s = (now - self._woke_ns) * 1e-9
        self._woke_ns = now
        self.cycles += 1

    def _next_slot(self, now: int) -> None:
        due = self._slot + 1
        self.slack_s = (self._deadline(due) - now) * 1e-9
        if now <= self._deadline(due):
            self._slot, self.missed_in_a_row = due, 0
            return
        # Already in a later slot: it and all before it are lost, the next one is ours.
        self._slot = (now - self._deadline(0)) // self.period_ns + 1
        skipped = self._slot - due
        self.missed += skipped
        self.missed_in_a_row += skipped
        limit = self.max_missed_in_a_row
        if limit is not None and self.missed_in_a_row > limit:
            raise ClockError(
                f"{self.missed_in_a_row} deadlines missed in a row, the limit is {limit}, at a period of "
                f"{self.period_ns / 1e6:.1f} ms; lower the rate or the number of candidates"
            )


MEMORY_LOCK = 1 | 2
"""MCL_CURRENT | MCL_FUTURE of mlockall: all memory is made resident at once, and stays."""


@contextmanager
def real_time(mode: str = "auto", cpu: int | None = None) -> Iterator[list[str]]:
    """Privileges for the calling thread while inside; yields one line for each that was refused.

    mode: `auto` takes what is permitted, `require` raises ClockError, naming the remedy, for what is
    not, `off` takes nothing. SCHED_FIFO keeps other programs off, locked memory keeps page faults
    away, `cpu` pins the thread (threads that exist already keep their own), and the garbage
    collector rests: what exists is frozen, what the loop makes is freed by reference counts.
    """
    if mode not in ("auto", "require", "off"):
        raise ClockError(f"real-time mode {mode!r}; known are auto, require and off")
    if mode == "off":
        yield []
        return
    refused = []
    affinity = os.sched_getaffinity(0)
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    helpers = [int(t) for t in os.listdir("/proc/self/task") if int(t) != threading.get_native_id()]
    try:
        # Threads and children started meanwhile fall back to normal: only the loop is urgent.
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(50))
        # Threads that exist already (a camera's) share the interpreter lock with the loop: one that is
        # put to sleep with the lock in its hand would hold the loop up.
        _schedule(helpers, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 49)
    except OSError as error:
        refused.append(
            f"SCHED_FIFO refused ({error.strerror}): add '@realtime - rtprio 95' to "
            "/etc/security/limits.conf, join that group and log in again"
        )
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    locked = libc.mlockall(MEMORY_LOCK) == 0
    if not locked:
        refused.append(
            f"mlockall refused ({os.strerror(ctypes.get_errno())}): add '@realtime - memlock unlimited' "
            "to /etc/security/limits.conf, join that group and log in again"
        )
    if cpu is not None:
        try:
            os.sched_setaffinity(0, {cpu})
        except OSError as error:
            refused.append(
                f"cpu {cpu} refused ({error.strerror}): choose one of {sorted(affinity)}"
            )
    collecting = gc.isenabled()
    try:
        if refused and mode == "require":
            raise ClockError("; ".join(refused))
        gc.collect()
        gc.freeze()
        gc.disable()
        yield refused
    finally:
        if collecting:
            gc.enable()
        gc.unfreeze()
        if locked:
            libc.munlockall()
        os.sched_setaffinity(0, affinity)
        os.sched_setscheduler(0, policy, parameter)
        _schedule(helpers, policy, parameter.sched_priority)


def _schedule(threads: Sequence[int], policy: int, priority: int) -> None:
    for thread in threads:
        with suppress(OSError):  # it may have ended
            os.sched_setscheduler(thread, policy, os.sched_param(priority))
