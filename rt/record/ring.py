"""Shared-memory ring buffer: the loop publishes each cycle without blocking; other processes read.

One producer (the loop) puts a record of the dtype CYCLE into the next slot; any number of readers in
other processes (the flight recorder, a live page) copy records out, in order, and count those that were
overwritten before they were read. A sequence lock for each slot (rt.tools.seqlock) tells readers of a
copy that was overwritten meanwhile. Readers may write two small things: one byte for each word of CONTROL,
which the loop reads when it likes, and their own status (`ReaderStatus`), for the loop's report.

The memory is a file of /dev/shm, mapped by all and removed by the last process that has it: each holds a
shared lock, which the kernel drops with the process however the process ends. (The resource tracker
behind multiprocessing.shared_memory of Python 3.11 would remove the segment with the first reader.)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import select
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
from rt.tools.seqlock import Seqlock

CONTROL = ("stop", "pause", "slow", "restart", "step", "skip")
"""Requests that a reader may set, a byte each (0: not requested)."""
READERS = ("recorder", "page", "other")
"""Roles of readers, each with a place for its status."""
ABSENT, READY, DONE, FAILED = range(4)
"""States of a reader."""

MAX_SLOTS = 8192
"""Most slots of a ring: 150 MB, reserved when the ring is made."""

_FOLDER = Path("/dev/shm")
_PREFIX = "grasp-servo-"
_MAGIC, _VERSION = b"CYCLES", 2
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
        ("target_begin", "u8"),
        ("target", "f8", (3,)),
        ("target_end", "u8"),
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
    """Status of a reader, as the reader itself reports it."""

    state: int
    """ABSENT, READY, DONE or FAILED."""
    lost: int
    """Records that were overwritten before this reader read them."""
    error: str


class _Mapping:
    """Arrays over the shared memory. `close` removes the file if no other process has it."""

    def __init__(self, path: Path, file: int) -> None:
        self.path, self._file = path, file
        self._memory = mmap.mmap(file, 0)
        self.head: NDArray[np.void] = np.frombuffer(self._memory, _HEAD, 1)
        if bytes(self.head["magic"][0]) != _MAGIC or int(self.head["version"][0]) != _VERSION:
            raise RingError(
                f"{path} is no ring of version {_VERSION}; restart the program that made it"
            )
        text = int(self.head["json_bytes"][0])
        start = _slots_at(text)
        self.header: dict[str, Any] = json.loads(self._memory[_HEAD.itemsize :][:text])
        self.count = int(self.head["slots"][0])
        slots: NDArray[np.void] = np.frombuffer(self._memory, _SLOT, self.count, start)
        self.lock = Seqlock(slots["begin"], slots["end"])
        self.columns = {name: slots["record"][name] for name in CYCLE.names or ()}
        everything = np.frombuffer(self._memory, np.uint8, self.count * _SLOT.itemsize, start)
        everything = everything.reshape(self.count, _SLOT.itemsize)
        self.raw = everything[:, _RECORD_AT : _RECORD_AT + CYCLE.itemsize]
        self.control = self.head["control"][0]
        self.target_lock = Seqlock(self.head["target_begin"], self.head["target_end"])

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
        del self.head, self.lock, self.columns, self.raw, self.control, self.target_lock
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
        # The name may belong to another process's file by now.
        if os.stat(path).st_ino == os.fstat(file).st_ino:
            path.unlink()


def _sweep() -> None:
    """Remove rings that no process has any more: all that had them were killed."""
    for path in _FOLDER.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                _remove_if_last(path, file)
            finally:
                os.close(file)


class Ring:
    """The producer's end. `put` takes some tens of microseconds and never waits."""

    def __init__(self, header: Mapping[str, Any], slots: int = 2048) -> None:
        """header: any JSON object (rt.record.recorder.flight_header). Raises RingError if there is not
        enough shared memory."""
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
        self._mapping.raw[:] = 0  # page faults now, not in the loop
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
        """Put the next record: CYCLE's fields by name; a field that is left out has BLANK's value.

        Raises RingError for a field that CYCLE does not have, ValueError for a shape that does not fit.
        """
        m, i, number = self._mapping, self._written % self._mapping.count, self._written + 1
        m.lock.begin_write(i, number)
        m.raw[i] = self._blank
        try:
            for name, value in fields.items():
                m.columns[name][i] = value
        except KeyError as error:
            raise RingError(
                f"a cycle has no field {error}; it has {', '.join(m.columns)}"
            ) from error
        m.lock.end_write(i, number)
        m.head["written"] = number
        self._written = number

    def asked(self, word: str) -> int:
        """The byte that a reader has set for a word of CONTROL; 0 if none has."""
        return int(self._mapping.control[CONTROL.index(word)])

    def ask(self, word: str, value: int) -> None:
        """Set a word of CONTROL as a reader would: what the keyboard asks for, the page shows."""
        self._mapping.control[CONTROL.index(word)] = value

    def answer(self, word: str) -> None:
        """Clear a word that the loop has acted upon."""
        self.ask(word, 0)

    def asked_target(self) -> tuple[int, NDArray[np.float64]]:
        """Number of requests for a target so far, and the last one: x, y [m] in base and the time [s] of the
        exposure that it was seen in; NaN: any object. A count of 0 while one is being written or none was."""
        lock = self._mapping.target_lock
        count = lock.begin_read(0)
        target = self._mapping.head["target"][0].copy()
        return (count if lock.unchanged(0, count) else 0), target

    def fare(self, role: str) -> ReaderStatus:
        """Status of the reader of that role (READERS)."""
        return self._mapping.fare(role)

    def finish(self) -> None:
        """Tell readers that no more records will come."""
        self._mapping.head["closed"] = 1

    def close(self) -> None:
        """Finish, and unmap the memory; readers keep their own mapping."""
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
        """Start at the oldest record in the ring. Raises RingError if there is no such ring."""
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
        """Records that were overwritten before this reader read them."""
        self._process: int | None = None
        with contextlib.suppress(OSError):
            self._process = os.pidfd_open(int(self._mapping.head["pid"][0]))

    @property
    def header(self) -> dict[str, Any]:
        return self._mapping.header

    @property
    def closed(self) -> bool:
        """True once the producer has finished."""
        return bool(self._mapping.head["closed"][0])

    @property
    def over(self) -> bool:
        """True once no more records will come: the producer has finished, or its process has ended.
        Records that are in the ring can still be read."""
        if self.closed:
            return True
        return self._process is None or bool(select.select([self._process], [], [], 0)[0])

    def read(self, most: int = 128) -> NDArray[np.void]:
        """The next records (n,) of CYCLE, copied, in order, n <= most; n = 0 if none are new."""
        m = self._mapping
        written = int(m.head["written"][0])
        # The slot after the last is being overwritten, or will be at any moment.
        self._skip_to(max(written - m.count + 1, 0))
        records = np.empty(min(written - self._next, most), CYCLE)
        raw = records.view(np.uint8).reshape(len(records), CYCLE.itemsize)
        kept = 0
        for _ in range(len(records)):
            i, number = self._next % m.count, self._next + 1
            whole = m.lock.begin_read(i) == number
            raw[kept] = m.raw[i]
            self._next = number
            if whole and m.lock.unchanged(i, number):
                kept += 1
            else:
                self._count_lost(1)
        return records[:kept]

    def latest(self) -> np.void | None:
        """The newest record if it is new to this reader, else None. Skipped records do not count as lost."""
        self._next = max(self._next, int(self._mapping.head["written"][0]) - 1)
        records = self.read(1)
        return records[0] if len(records) else None

    def follow(self, poll_s: float = 0.05) -> Iterator[NDArray[np.void]]:
        """Yield batches of records (an empty batch at every poll without news) until the producer has ended
        and all is read."""
        while True:
            over = self.over  # looked at first: records that came before the end are still read
            records = self.read()
            yield records
            if len(records) == 0:
                if over:
                    return
                time.sleep(poll_s)

    def ask(self, word: str, value: int = 1) -> None:
        """Set a word of CONTROL for the loop."""
        self._mapping.control[CONTROL.index(word)] = value

    def asked(self) -> dict[str, int]:
        """Requests to the loop now, by word of CONTROL."""
        return dict(zip(CONTROL, self._mapping.control.tolist(), strict=False))

    def ask_target(self, target: tuple[float, float, float] | None) -> None:
        """Ask the loop for the object at x, y [m] in base, seen at a time [s] on the robot's clock; None: any
        object. Only one reader may ask."""
        m = self._mapping
        count = int(m.head["target_end"][0]) + 1
        m.target_lock.begin_write(0, count)
        m.head["target"][0] = (np.nan, np.nan, np.nan) if target is None else target
        m.target_lock.end_write(0, count)

    def say(self, state: int, error: str = "") -> None:
        """Set the status of this reader, for the loop's report."""
        self._mapping.head["reader_error"][0, self._role] = error.encode()[:239]
        self._mapping.lock.fence()
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
