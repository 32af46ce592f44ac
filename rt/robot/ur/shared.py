"""Memory that the loop and the streaming process share: the newest state, and the newest command.

One writes, the other reads, nobody waits. Each block carries its number twice: the writer sets
`begin`, then the data, then `end`; a reader that finds `end` (read first) equal to `begin` (read last)
has seen no writing meanwhile, and else tries again.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

import numpy as np

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
        ("safety_bits", "u4"),
        ("runtime", "u4"),
        ("moving", "i8"),
        ("fault", "S32"),
        ("message", "S480"),
        ("end", "u8"),
    ]
)
"""From the streaming process. moving: the set-point is not at rest. fault: its name; empty for none."""

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
"""From the loop."""

_TRIES, _NAP_S = 20, 0.0005


class Block:
    """One record of a dtype with `begin` and `end`, at an offset of a shared file."""

    def __init__(self, memory: mmap.mmap, dtype: np.dtype[np.void], offset: int) -> None:
        self._array = np.frombuffer(memory, dtype, 1, offset)
        self.here = self._array[0]

    def write(self, **values: object) -> None:
        number = self.here["begin"] + 1
        self.here["begin"] = number
        for name, value in values.items():
            self.here[name] = value
        self.here["end"] = number

    @property
    def number(self) -> int:
        return int(self.here["end"])

    def read(self, within_s: float = 0.0) -> Any:
        """A copy (numpy.void) that belongs together; None if the writer leaves it half written for so long.

        A writer that died in the middle never ends it, and one that this process keeps from the CPU only
        does if this sleeps: so it does not spin.
        """
        deadline = time.monotonic() + within_s
        while True:
            for _ in range(_TRIES):
                end = self.here["end"]
                copy = self._array.copy()[0]
                if self.here["begin"] == end and copy["end"] == end:
                    return copy
            if time.monotonic() >= deadline:
                return None
            time.sleep(_NAP_S)


def create() -> int:
    """A file in memory (its descriptor) for both blocks, zeroed."""
    fd = os.memfd_create("rt.robot.ur")
    os.ftruncate(fd, STATE.itemsize + COMMAND.itemsize)
    return fd


def attach(fd: int) -> tuple[Block, Block]:
    """(state, command) of a file made by `create`."""
    memory = mmap.mmap(fd, STATE.itemsize + COMMAND.itemsize)
    return Block(memory, STATE, 0), Block(memory, COMMAND, STATE.itemsize)
