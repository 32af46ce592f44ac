"""SIGINT and SIGTERM as a note that the loop reads between two cycles, never in the middle of one; and a
process that the kernel kills with its parent."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1


def killed_with_parent(yes: bool = True) -> None:
    """Whether the kernel kills this process with the thread that started it (Linux). Raises OSError."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL) if yes else 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


@contextmanager
def signals_caught() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted while inside; a second one is not caught. In another thread than the main
    one, which receives the signals, nothing is noted."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.getsignal(number)
            signal.signal(number, note)
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
