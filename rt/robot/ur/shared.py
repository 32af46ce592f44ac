"""Shared memory between the loop and the streaming process: the newest state and the newest command.

Each block has one writer and one reader; a sequence lock (rt.tools.seqlock) tells whole copies
from torn ones.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

import numpy as np

from rt.tools.seqlock import Seqlock

STATE = np.dtype(
    [
        ("begin", "u8"),
        ("stamp_ns", "i8"),
        ("timestamp_s", "f8"),
        ("T_base_hand", "f8", (4, 4)),
        ("twist", "f8", 6),
        ("wrench", "f8", 6),
        ("q", "f8", 6),
        ("qd", "f8", 6),
        ("settings", "f8", 3),
        ("safety_bits", "u4"),
        ("runtime", "u4"),
        ("moving", "i8"),
        ("fault", "S32"),
        ("message", "S480"),
        ("end", "u8"),
    ]
)
"""Written by the streaming process. moving: 1 if the set-point is not at rest. settings: speed slider,
speed scaling, payload [kg] or NaN. fault: name, or empty."""

STARTS_PROGRAM = b"starts the program"
"""Message of a state without a stamp: connected and checked, about to start the control program."""

TARGET, STOP = 1, 2
COMMAND = np.dtype(
    [
        ("begin", "u8"),
        ("kind", "i8"),
        ("stamp_ns", "i8"),
        ("T_base_hand", "f8", (4, 4)),
        ("end", "u8"),
    ]
)
"""Written by the loop."""

_TRIES, _NAP_S = 20, 0.0005


class Block:
    """One record of a dtype with `begin` and `end`, at an offset of a shared file."""

    def __init__(self, memory: mmap.mmap, dtype: np.dtype[np.void], offset: int) -> None:
        self._array = np.frombuffer(memory, dtype, 1, offset)
        self._lock = Seqlock(self._array["begin"], self._array["end"])
        self.here = self._array[0]

    def write(self, **values: object) -> None:
        """Change some fields; the others keep their values."""
        number = int(self.here["begin"]) + 1
        self._lock.begin_write(0, number)
        for name, value in values.items():
            self.here[name] = value
        self._lock.end_write(0, number)

    @property
    def number(self) -> int:
        """Number of the last whole record; 0 before the first."""
        return int(self.here["end"])

    def read(self, within_s: float = 0.0) -> Any:
        """A consistent copy (numpy.void), or None if the writer does not finish within `within_s`.

        A writer that was killed half-way never finishes. Between tries the reader sleeps: a writer of lower
        priority on the same processor could not finish otherwise.
        """
        deadline = time.monotonic() + within_s
        while True:
            for _ in range(_TRIES):
                number = self._lock.begin_read(0)
                copy = self._array.copy()[0]
                if self._lock.unchanged(0, number):
                    return copy
            if time.monotonic() >= deadline:
                return None
            time.sleep(_NAP_S)


def create() -> int:
    """Descriptor of a zeroed file in memory with room for both blocks."""
    fd = os.memfd_create("rt.robot.ur")
    os.ftruncate(fd, STATE.itemsize + COMMAND.itemsize)
    return fd


def attach(fd: int) -> tuple[Block, Block]:
    """(state, command) of a file made by `create`."""
    memory = mmap.mmap(fd, STATE.itemsize + COMMAND.itemsize)
    return Block(memory, STATE, 0), Block(memory, COMMAND, STATE.itemsize)
