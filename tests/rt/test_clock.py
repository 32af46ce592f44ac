"""rt.tools.clock, on a fake time: absolute deadlines, skipped slots, percentiles, privileges."""

from __future__ import annotations

import gc
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.tools.clock import Clock, ClockError, Histogram, Stopwatch, real_time

MS = 1_000_000


class FakeTime:
    """A time that passes when told to; a sleeper wakes late by what is planned."""

    def __init__(self, late_ns: int = 0) -> None:
        self.ns, self.late_ns = 7_000_000_123, late_ns

    def now(self) -> int:
        return self.ns

    def sleep_until(self, deadline_ns: int) -> None:
        if deadline_ns > self.ns:
            self.ns = deadline_ns + self.late_ns

    def clock(self, rate_hz: float = 100.0, limit: int | None = None) -> Clock:
        return Clock(rate_hz, max_missed_in_a_row=limit, now=self.now, sleep_until=self.sleep_until)


def test_it_does_not_drift_however_late_the_system_wakes_it() -> None:
    time = FakeTime(late_ns=3 * MS)
    clock = time.clock()
    began = time.ns
    for _ in range(1000):
        clock.wait()
        time.ns += 4 * MS  # work
    assert time.ns == began + 999 * 10 * MS + 3 * MS + 4 * MS
    assert clock.missed == 0
    assert clock.rate_hz == pytest.approx(100.0, rel=1e-3)
    assert clock.wake_up.max_ns == 3 * MS


@given(st.lists(st.integers(0, 45 * MS), min_size=1, max_size=60))
def test_every_cycle_begins_on_a_slot_and_every_slot_is_used_or_missed(work: list[int]) -> None:
    time = FakeTime()
    clock = time.clock()
    clock.wait()
    began = time.ns
    for ns in work:
        before = time.ns
        time.ns += ns
        clock.wait()
        assert (time.ns - began) % (10 * MS) == 0
        # The next slot that had not begun when the work was done.
        assert (
            time.ns == before + max(math.ceil(ns / (10 * MS)), 1) * 10 * MS or ns % (10 * MS) == 0
        )
    slots = (time.ns - began) // (10 * MS)
    assert slots == len(work) + clock.missed


def test_a_late_cycle_skips_what_it_missed_and_makes_nothing_up() -> None:
    time = FakeTime()
    clock = time.clock()
    clock.wait()
    began = time.ns
    time.ns += 25 * MS
    clock.wait()
    assert time.ns == began + 30 * MS
    assert (clock.missed, clock.missed_in_a_row) == (2, 2)
    assert clock.slack_s == pytest.approx(-0.015)
    time.ns += 1 * MS
    clock.wait()
    assert time.ns == began + 40 * MS
    assert (clock.missed, clock.missed_in_a_row) == (2, 0)
    assert clock.slack_s == pytest.approx(0.009)
    assert clock.dt_s == pytest.approx(0.010)
    time.ns += 4 * MS
    assert clock.remaining_s == pytest.approx(0.006)


def test_a_cycle_that_ends_on_its_deadline_is_in_time() -> None:
    time = FakeTime()
    clock = time.clock()
    clock.wait()
    time.ns += 10 * MS
    clock.wait()
    assert clock.missed == 0 and clock.cycles == 2


def test_too_many_missed_in_a_row_are_an_error() -> None:
    time = FakeTime()
    clock = time.clock(limit=3)
    clock.wait()
    for _ in range(3):
        time.ns += 15 * MS
        clock.wait()
    time.ns += 15 * MS
    with pytest.raises(ClockError, match="4 deadlines missed in a row, the limit is 3"):
        clock.wait()


def test_unpaced_it_neither_sleeps_nor_misses() -> None:
    time = FakeTime()
    clock = Clock(100.0, paced=False, now=time.now, sleep_until=time.sleep_until)
    for _ in range(5):
        clock.wait()
        time.ns += 25 * MS
    assert clock.missed == 0
    assert clock.rate_hz == pytest.approx(40.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, 1e6])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ClockError, match="rate"):
        Clock(rate)


@given(st.lists(st.integers(1, 10**11), min_size=1, max_size=300), st.floats(0.1, 100))
def test_percentiles_are_those_of_numpy_to_a_bucket(values: list[int], percent: float) -> None:
    histogram = Histogram()
    for ns in values:
        histogram.add(ns)
    true = float(np.percentile(values, percent, method="inverted_cdf")) / 1e6
    found = histogram.percentile_ms(percent)
    assert true <= found * (1 + 1e-9) or found == pytest.approx(0.001)
    assert found <= max(true * 2 ** (1 / 32), 0.001) * (1 + 1e-9)
    assert histogram.summary()["max_ms"] == max(values) / 1e6


def test_a_histogram_does_not_grow() -> None:
    histogram = Histogram()
    size = histogram.counts.nbytes
    for ns in (0, -5, 1, 10**15):
        histogram.add(ns)
    assert histogram.counts.nbytes == size and histogram.counts.sum() == 4


def test_an_empty_histogram_has_no_percentiles() -> None:
    assert math.isnan(Histogram().percentile_ms(50))


def test_laps_add_up_to_the_whole() -> None:
    time = FakeTime()
    watch = Stopwatch(["a", "b", "whole"], now=time.now)
    time.ns += 5 * MS
    watch.start()
    time.ns += 2 * MS
    watch.lap("a")
    time.ns += 3 * MS
    watch.lap("b")
    watch.whole("whole")
    taken = {name: h.sum_ns for name, h in watch.histograms.items()}
    assert taken == {"a": 2 * MS, "b": 3 * MS, "whole": 5 * MS}


def test_privileges_are_taken_back() -> None:
    before = (os.sched_getscheduler(0), os.sched_getaffinity(0), gc.isenabled())
    with real_time("auto", min(os.sched_getaffinity(0))) as refused:
        assert not gc.isenabled()
        assert os.sched_getaffinity(0) == {min(before[1])}
        granted = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
        assert granted != any("SCHED_FIFO" in line for line in refused)
    assert (os.sched_getscheduler(0), os.sched_getaffinity(0), gc.isenabled()) == before


def test_privileges_that_are_refused_come_with_a_remedy() -> None:
    with real_time("auto", cpu=10_000) as refused:
        assert any("cpu 10000" in line and "choose one of" in line for line in refused)
    with pytest.raises(ClockError, match="choose one of"), real_time("require", cpu=10_000):
        raise AssertionError("must not get here")
    with real_time("off") as refused:
        assert refused == [] and gc.isenabled()
    with pytest.raises(ClockError, match="known are"), real_time("maybe"):
        pass
