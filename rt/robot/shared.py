"""Memory that the loop and the streaming process share: the newest state, and the newest command.

One writes, the other reads, nobody waits. Each block carries its number twice: the writer sets
`begin`, then the data, then `end`; a reader that finds `end` (read first) equal to `begin` (read last)
has seen no writing meanwhile, and else tries again.
"""

from __future__ import annotations

import mmap
import os
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

NOTHING, TARGET, STOP = 0, 1, 2
COMMAND = np.dtype(
    [
        ("begin", "u8"),
        ("kind", "i8"),
        ("stamp_ns", "i8"),
        ("T_base_hand", "f8", (4, 4)),
        ("heartbeat_ns", "i8"),
        ("end", "u8"),
    ]
)
"""From the loop. heartbeat_ns is written by itself, outside the numbering."""


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

    def read(self) -> Any:
        """A copy (numpy.void) that belongs together."""
        while True:
            end = self.here["end"]
            copy = self._array.copy()[0]
            if self.here["begin"] == end and copy["end"] == end:
                return copy


def create() -> int:
    """A file in memory (its descriptor) for both blocks, zeroed."""
    fd = os.memfd_create("rt.robot.ur")
    os.ftruncate(fd, STATE.itemsize + COMMAND.itemsize)
    return fd


def attach(fd: int) -> tuple[Block, Block]:
    """(state, command) of a file made by `create`."""
    memory = mmap.mmap(fd, STATE.itemsize + COMMAND.itemsize)
    return Block(memory, STATE, 0), Block(memory, COMMAND, STATE.itemsize)
