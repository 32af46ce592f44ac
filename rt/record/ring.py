"""What the loop shows of every cycle: a ring in shared memory that others read and that never makes it wait.

One producer (the loop) puts a record of the dtype CYCLE into the next slot; any number of readers in
other processes (the flight recorder, a live page) copy records out, in order, and count those that were
overwritten before they came. Every slot has its record's number before and after the record (a seqlock):
the writer sets `begin`, the record, `end`; a reader checks `end`, copies, checks `begin`, and so knows a
torn copy. Readers may write two small things: one byte for each word of CONTROL, which the loop reads
when it likes, and how they fare (`ReaderStatus`), for the loop to report at its end.

The memory is a file of /dev/shm, mapped by all and removed by the last: each holds a shared lock, which
the kernel drops with the process however it ends. (multiprocessing.shared_memory would have the resource
tracker of Python 3.11 remove the segment with the first reader that exits.)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import select
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.record.schema import BLANK, CYCLE
from rt.record.schema import GUARD_ROWS as GUARD_ROWS
from rt.record.schema import STAGES as STAGES
from rt.record.schema import K as K
from rt.record.schema import best_candidates as best_candidates

CONTROL = ("stop", "pause", "slow", "restart")
"""Words that a reader may set, a byte each (0: not asked for)."""
READERS = ("recorder", "page", "other")
"""Who may read, each with a place to say how it fares."""
ABSENT, READY, DONE, FAILED = range(4)
"""States of a reader."""

MAX_SLOTS = 8192
"""150 MB, reserved at once."""

_FOLDER = Path("/dev/shm")
_PREFIX = "grasp-servo-"
_MAGIC, _VERSION = b"CYCLES", 1
_HEAD = np.dtype(
    [
        ("magic", "S8"),
        ("version", "u4"),
        ("slots", "u4"),
        ("json_bytes", "u8"),
        ("pid", "i8"),
        ("written", "u8"),
        ("closed", "u1"),
        ("control", "u1", (16,)),
        ("reader_state", "u1", (len(READERS),)),
        ("reader_lost", "u8", (len(READERS),)),
        ("reader_error", "S240", (len(READERS),)),
    ],
    align=True,
)
_SLOT = np.dtype([("begin", "u8"), ("record", CYCLE), ("end", "u8")], align=True)
_RECORD_AT = 8


class RingError(RuntimeError):
    """Shared memory that is missing, too small or not a ring, or a record that does not fit."""


@dataclass(frozen=True)
class ReaderStatus:
    """How a reader fares, in its own words."""

    state: int
    """ABSENT, READY, DONE or FAILED."""
    lost: int
    """Records that were overwritten before it came."""
    error: str


_lock = threading.Lock()


def _fence() -> None:
    """Memory written before is seen before what is written after, also where the processor reorders
    (aarch64): a lock let go and taken is a release and an acquire."""
    with _lock:
        pass
    with _lock:
        pass


class _Mapping:
    """The shared memory, seen as arrays. Closing it removes the file if nobody else has it."""

    def __init__(self, path: Path, file: int) -> None:
        self.path, self._file = path, file
        self._memory = mmap.mmap(file, 0)
        self.head: NDArray[np.void] = np.frombuffer(self._memory, _HEAD, 1)
        if bytes(self.head["magic"][0]) != _MAGIC or int(self.head["version"][0]) != _VERSION:
            raise RingError(f"{path} is no ring of version {_VERSION}; restart what made it")
        text = int(self.head["json_bytes"][0])
        start = _slots_at(text)
        self.header: dict[str, Any] = json.loads(self._memory[_HEAD.itemsize :][:text])
        self.count = int(self.head["slots"][0])
        slots: NDArray[np.void] = np.frombuffer(self._memory, _SLOT, self.count, start)
        self.begin, self.end = slots["begin"], slots["end"]
        self.columns = {name: slots["record"][name] for name in CYCLE.names or ()}
        everything = np.frombuffer(self._memory, np.uint8, self.count * _SLOT.itemsize, start)
        everything = everything.reshape(self.count, _SLOT.itemsize)
        self.raw = everything[:, _RECORD_AT : _RECORD_AT + CYCLE.itemsize]
        self.control = self.head["control"][0]

    def fare(self, role: str) -> ReaderStatus:
        i = READERS.index(role)
        return ReaderStatus(
            int(self.head["reader_state"][0, i]),
            int(self.head["reader_lost"][0, i]),
            bytes(self.head["reader_error"][0, i]).decode(errors="replace"),
        )

    def close(self) -> None:
        if self._file < 0:
            return
        # Views of the mapping may live on; the memory goes with the last of them.
        del self.head, self.begin, self.end, self.columns, self.raw, self.control
        with contextlib.suppress(BufferError):
            self._memory.close()
        _remove_if_last(self.path, self._file)
        os.close(self._file)
        self._file = -1


def _slots_at(json_bytes: int) -> int:
    page = mmap.PAGESIZE
    return -(-(_HEAD.itemsize + json_bytes) // page) * page


def _remove_if_last(path: Path, file: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Not another's file of the same name.
        if os.stat(path).st_ino == os.fstat(file).st_ino:
            path.unlink()


def _sweep() -> None:
    """Remove rings that nobody has: everyone who had them was killed."""
    for path in _FOLDER.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                _remove_if_last(path, file)
            finally:
                os.close(file)


class Ring:
    """The producer's end. `put` costs some tens of microseconds and waits for nobody."""

    def __init__(self, header: Mapping[str, Any], slots: int = 2048) -> None:
        """header: whatever JSON can hold; see rt.record.flight_header. Raises RingError if the shared
        memory cannot be had."""
        if not 2 <= slots <= MAX_SLOTS:
            raise RingError(f"slots = {slots} must be from 2 to {MAX_SLOTS}")
        text = json.dumps(header).encode()
        size = _slots_at(len(text)) + slots * _SLOT.itemsize
        _sweep()
        self.name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        path, beside = _FOLDER / self.name, _FOLDER / f".{self.name}"
        try:
            file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            fcntl.flock(file, fcntl.LOCK_SH)
            # Reserved now: memory that is missing later would be a bus error in the loop.
            os.posix_fallocate(file, 0, size)
            head = np.zeros(1, _HEAD)
            head["magic"], head["version"], head["slots"] = _MAGIC, _VERSION, slots
            head["json_bytes"], head["pid"] = len(text), os.getpid()
            os.pwrite(file, head.tobytes() + text, 0)
            os.rename(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise RingError(
                f"no shared memory of {size / 1e6:.0f} MB in {_FOLDER} ({error.strerror}); make room "
                "there (docker run --shm-size), or run with fewer slots"
            ) from error
        self._mapping = _Mapping(path, file)
        self._mapping.raw[:] = 0  # touch every page now, not in the loop
        self._blank = np.frombuffer(BLANK.tobytes(), np.uint8)
        self._written = 0

    @property
    def header(self) -> dict[str, Any]:
        return self._mapping.header

    @property
    def written(self) -> int:
        """Records put so far."""
        return self._written

    def put(self, **fields: Any) -> None:
        """The next record: CYCLE's fields by name; what is left out is BLANK's.

        Raises RingError for a field that CYCLE has not, ValueError for a shape that does not fit.
        """
        m, i, number = self._mapping, self._written % self._mapping.count, self._written + 1
        m.begin[i] = number
        _fence()
        m.raw[i] = self._blank
        try:
            for name, value in fields.items():
                m.columns[name][i] = value
        except KeyError as error:
            raise RingError(
                f"a cycle has no field {error}; it has {', '.join(m.columns)}"
            ) from error
        _fence()
        m.end[i] = number
        _fence()
        m.head["written"] = number
        self._written = number

    def asked(self, word: str) -> int:
        """The byte that a reader set for a word of CONTROL; 0 if none did."""
        return int(self._mapping.control[CONTROL.index(word)])

    def answer(self, word: str) -> None:
        """Clear a word that has been acted upon."""
        self._mapping.control[CONTROL.index(word)] = 0

    def fare(self, role: str) -> ReaderStatus:
        """How a reader of READERS fares."""
        return self._mapping.fare(role)

    def finish(self) -> None:
        """Says that no more will come."""
        self._mapping.head["closed"] = 1

    def close(self) -> None:
        """Finishes, and lets go of the memory; readers keep what they have mapped."""
        if self._mapping._file >= 0:
            self.finish()
            self._mapping.close()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reader:
    """A reader's end, in any process of the same user."""

    def __init__(self, name: str, role: str = "other") -> None:
        """Begins with the oldest record there is. Raises RingError if there is no such ring."""
        if role not in READERS:
            raise RingError(f"no reader {role!r}; known are {', '.join(READERS)}")
        self._role = READERS.index(role)
        try:
            file = os.open(_FOLDER / name, os.O_RDWR | os.O_NOFOLLOW)
        except OSError as error:
            raise RingError(f"no ring {name!r} ({error.strerror}): is the loop running?") from error
        fcntl.flock(file, fcntl.LOCK_SH)
        self._mapping = _Mapping(_FOLDER / name, file)
        self._next = 0
        self.lost = 0
        """Records that were overwritten before this reader came."""
        self._process: int | None = None
        with contextlib.suppress(OSError):
            self._process = os.pidfd_open(int(self._mapping.head["pid"][0]))

    @property
    def header(self) -> dict[str, Any]:
        return self._mapping.header

    @property
    def closed(self) -> bool:
        """Whether the producer said that no more will come."""
        return bool(self._mapping.head["closed"][0])

    @property
    def over(self) -> bool:
        """Whether no more will come: the producer closed the ring, or its process is gone. What it
        has put can still be read."""
        if self.closed:
            return True
        return self._process is None or bool(select.select([self._process], [], [], 0)[0])

    def read(self, most: int = 128) -> NDArray[np.void]:
        """The next records (n,) of CYCLE, copied, in order; at most `most`; none if none are new."""
        m = self._mapping
        written = int(m.head["written"][0])
        # The slot after the last is being overwritten, or will be at any moment.
        self._skip_to(max(written - m.count + 1, 0))
        records = np.empty(min(written - self._next, most), CYCLE)
        raw = records.view(np.uint8).reshape(len(records), CYCLE.itemsize)
        kept = 0
        for _ in range(len(records)):
            i, number = self._next % m.count, self._next + 1
            whole = int(m.end[i]) == number
            _fence()
            raw[kept] = m.raw[i]
            _fence()
            self._next = number
            if whole and int(m.begin[i]) == number:
                kept += 1
            else:
                self._count_lost(1)
        return records[:kept]

    def latest(self) -> np.void | None:
        """The newest record if it is new to this reader, else None. What it passes over is no loss."""
        self._next = max(self._next, int(self._mapping.head["written"][0]) - 1)
        records = self.read(1)
        return records[0] if len(records) else None

    def follow(self, poll_s: float = 0.05) -> Iterator[NDArray[np.void]]:
        """Records as they come, in batches (an empty one at every poll without news), until the
        producer is gone and all is read."""
        while True:
            over = self.over  # asked before reading: what came before the end is still read
            records = self.read()
            yield records
            if len(records) == 0:
                if over:
                    return
                time.sleep(poll_s)

    def ask(self, word: str, value: int = 1) -> None:
        """Ask the loop for a word of CONTROL."""
        self._mapping.control[CONTROL.index(word)] = value

    def say(self, state: int, error: str = "") -> None:
        """How this reader fares, for the loop's report."""
        self._mapping.head["reader_error"][0, self._role] = error.encode()[:239]
        _fence()
        self._mapping.head["reader_state"][0, self._role] = state

    def _skip_to(self, number: int) -> None:
        if self._next < number:
            self._count_lost(number - self._next)
            self._next = number

    def _count_lost(self, count: int) -> None:
        self.lost += count
        self._mapping.head["reader_lost"][0, self._role] = self.lost

    def close(self) -> None:
        self._mapping.close()
        if self._process is not None:
            os.close(self._process)
            self._process = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
