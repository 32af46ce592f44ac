"""Sequence lock: one process writes records to shared memory, others copy them, nobody waits.

Each slot carries the number of its record twice. The writer sets `begin`, then the record, then `end`; a
reader looks at `end`, copies the record, looks at `begin`, and drops the copy if the numbers differ. The
order must hold in memory too: x86 keeps it by itself, aarch64 reorders, so both sides have fences.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Fence:
    """Memory barrier: `fence()` orders every access before the call before every access after the call.

    Python has no barrier of its own. Unlocking a lock is a release and locking it an acquire; both kinds of
    access are ordered on every processor that CPython runs on, so lock, unlock, lock, unlock is a full
    barrier. Each object has a lock of its own: no other thread ever holds it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            pass
        with self._lock:
            pass


class Seqlock:
    """The numbers of `n` slots in shared memory, for one writer and any number of readers.

        lock.begin_write(i, number)             end = lock.begin_read(i)
        ... write the record of slot i ...      ... copy the record of slot i ...
        lock.end_write(i, number)               whole = lock.unchanged(i, end)

    A number must differ from the slot's last one; counting up from 1 does. 0: never written.
    """

    def __init__(self, begin: NDArray[Any], end: NDArray[Any]) -> None:
        """begin, end: (n,) of uint64, views of the shared memory."""
        self.begin, self.end = begin, end
        self.fence = Fence()

    def begin_write(self, i: int, number: int) -> None:
        """Mark slot i as being written."""
        self.begin[i] = number
        self.fence()

    def end_write(self, i: int, number: int) -> None:
        """Mark slot i as whole."""
        self.fence()
        self.end[i] = number
        self.fence()

    def begin_read(self, i: int) -> int:
        """Number of the last whole record of slot i; to be called before the record is copied."""
        number = int(self.end[i])
        self.fence()
        return number

    def unchanged(self, i: int, number: int) -> bool:
        """True if no write to slot i has begun since `begin_read` returned `number`."""
        self.fence()
        return bool(self.begin[i] == np.uint64(number))
