"""Processes: children that run a module of this project, signals of this process, and the kernel's /proc.

Every wait has a bound. A child notices the end of its parent by itself, so that it can finish its work:
its standard input ends (arm, emulator), its ring is over (recorder, page), or its pipe breaks (renderer). A
child that has nothing to finish calls `killed_with_parent`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal or connection that closes: each asks the loop to stop the arm and end."""


class Child:
    """A process `python -m module arguments...` in a session of its own: Ctrl-C does not reach it."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        writes: bool = False,
        reads: bool = False,
        keeps: bool = False,
        pass_fds: Sequence[int] = (),
        one_thread: bool = False,
    ) -> None:
        """writes, reads: pipes to its standard input, from its standard output. keeps: keep the rest of its
        output for `output`; otherwise it goes to this process's own. one_thread: of numeric libraries.
        """
        self._log = tempfile.TemporaryFile() if keeps else None  # noqa: SIM115 (read after the end)
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if one_thread else {}
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            bufsize=0,
            stdin=subprocess.PIPE if writes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if reads else self._log,
            stderr=self._log,
            pass_fds=pass_fds,
            start_new_session=True,
            env={**os.environ, **single},
        )
        self._rest = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        """Exit code; negative for a signal, None while the process runs."""
        return self.process.poll()

    @property
    def output(self) -> str:
        """Output so far, if it is kept."""
        if self._log is None:
            return ""
        with contextlib.suppress(ValueError):  # closed
            return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")
        return ""

    @property
    def end_text(self) -> str:
        """Cause of its end: the signal, or the exit code and the last line of the output that is kept."""
        code = self.code
        if code is None:
            return "still runs"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        lines = self.output.strip().splitlines()
        return f"ended with exit code {code}" + (f": {lines[-1]}" if lines else "")

    def wait_until(
        self, ready: Callable[[], bool], within_s: float, every_s: float = 0.005
    ) -> bool:
        """True once `ready()`; False if the process ends before, or after `within_s`."""
        until = time.monotonic() + within_s
        while not ready():
            if self.code is not None or time.monotonic() > until:
                return ready()
            time.sleep(every_s)
        return True

    def lines(self, within_s: float = 0.0) -> list[str]:
        """New whole lines of its standard output; waits up to `within_s` for the first byte."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        chunk = os.read(pipe, 4096) if select.select([pipe], [], [], within_s)[0] else b""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def first_line(self, within_s: float) -> str:
        """First line of its standard output; empty if none comes within `within_s`, or the process ends."""
        until = time.monotonic() + within_s
        while (left_s := until - time.monotonic()) > 0:
            if lines := self.lines(min(left_s, 0.2)):
                return lines[0].strip()
            if self.code is not None and not (lines := self.lines()):
                return ""
        return ""

    def write_line(self, text: str) -> None:
        """A line to its standard input; a process that has ended does not read it."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(text.encode() + b"\n")

    def end(self, within_s: float, *, terminate: bool = True) -> bool:
        """Close its input, send SIGTERM (unless `terminate` is False), and kill it after `within_s`.

        May be called twice. False if it had to be killed.
        """
        self._close(self.process.stdin)
        if terminate and self.code is None:
            self.process.terminate()
        try:
            self.process.wait(within_s)
            in_time = True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            in_time = False
        self._close(self.process.stdout)
        return in_time

    @staticmethod
    def _close(pipe: Any) -> None:
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def killed_with_parent(yes: bool = True) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux); `yes` False undoes it.

    Raises OSError.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL) if yes else 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


@contextmanager
def signals_caught() -> Iterator[list[int]]:
    """Note the first of STOP_SIGNALS while inside, for the loop to read between two cycles.

    The second one is not caught. A signal that was ignored before (nohup) stays ignored. In another thread
    than the main one, which receives the signals, nothing is noted.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    try:
        for number in map(int, STOP_SIGNALS):
            handler = signal.getsignal(number)
            if number == signal.SIGHUP and handler == signal.SIG_IGN:
                continue
            before[number] = handler
            signal.signal(number, note)
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_sleeping(pid: int) -> bool:
    """True for a process that waits for something other than a processor (proc(5)); False if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "SD"
    return False


def _started(pid: int) -> Iterator[tuple[int, list[bytes]]]:
    """Id and command line of each process that process `pid` started. Raises OSError if one is gone."""
    for task in list(Path(f"/proc/{pid}/task").iterdir()):
        for child in (task / "children").read_text().split():
            yield int(child), Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")


def children(pid: int, module: str) -> list[int]:
    """Ids of the processes that process `pid` started to run a module."""
    return [child for child, words in _started(pid) if module.encode() in words]


def descendants(pid: int) -> dict[int, str]:
    """Ids and modules of the processes below `pid` that run a module (`python -m module`)."""
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError):
            for child, words in _started(waiting.pop()):
                waiting.append(child)
                if b"-m" in words[:-1]:
                    found[child] = words[words.index(b"-m") + 1].decode(errors="replace")
    return found
