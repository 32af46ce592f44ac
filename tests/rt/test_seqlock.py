"""rt.tools.seqlock: a copy that was overwritten meanwhile never counts as whole; fences keep the order."""

from __future__ import annotations

import mmap
import os
import sys
import time

import numpy as np
import pytest

from rt.tools.seqlock import Seqlock


class Watched:
    """A slot of two words whose fences note all that has been stored so far."""

    def __init__(self) -> None:
        self.begin, self.end = np.zeros(1, "u8"), np.zeros(1, "u8")
        self.data = np.zeros(2, "u8")
        self.lock = Seqlock(self.begin, self.end)
        self.noted: list[tuple[int, int, int, int]] = []
        self.lock.fence = self.note  # type: ignore[assignment]

    def note(self) -> None:
        first, second = map(int, self.data)
        self.noted.append((int(self.begin[0]), first, second, int(self.end[0])))

    def write(self, number: int) -> None:
        self.lock.begin_write(0, number)
        self.data[:] = number
        self.lock.end_write(0, number)


def test_a_fence_stands_between_begin_and_data_and_between_data_and_end() -> None:
    slot = Watched()
    slot.write(1)
    assert slot.noted == [(1, 0, 0, 0), (1, 1, 1, 0), (1, 1, 1, 1)]


def test_a_reader_has_a_fence_before_and_after_its_copy() -> None:
    slot = Watched()
    slot.write(1)
    slot.noted.clear()
    number = slot.lock.begin_read(0)
    assert len(slot.noted) == 1
    assert slot.lock.unchanged(0, number) and len(slot.noted) == 2


@pytest.mark.parametrize("stage", ["begun", "half", "whole"])
def test_a_write_that_falls_into_the_copy_is_noticed(stage: str) -> None:
    slot = Watched()
    slot.write(1)
    number = slot.lock.begin_read(0)
    slot.lock.begin_write(0, 2)
    if stage != "begun":
        slot.data[0] = 2
    if stage == "whole":
        slot.data[1] = 2
        slot.lock.end_write(0, 2)
    assert not slot.lock.unchanged(0, number)


def test_a_half_written_slot_is_never_whole() -> None:
    slot = Watched()
    slot.write(1)
    slot.lock.begin_write(0, 2)
    assert not slot.lock.unchanged(0, slot.lock.begin_read(0))


@pytest.mark.skipif(sys.platform != "linux", reason="no fork: run on Linux")
def test_no_torn_copy_between_two_processes() -> None:
    memory = mmap.mmap(-1, 8 * 66)
    words = np.frombuffer(memory, "u8")
    lock, data = Seqlock(words[:1], words[65:]), words[1:65]
    child = os.fork()
    if child == 0:
        until = time.monotonic() + 0.5
        number = 0
        while time.monotonic() < until:
            number += 1
            lock.begin_write(0, number)
            data[:] = number
            lock.end_write(0, number)
        os._exit(0)
    whole = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        number = lock.begin_read(0)
        copy = data.copy()
        if lock.unchanged(0, number):
            whole += 1
            assert (copy == number).all()
    assert whole > 100
