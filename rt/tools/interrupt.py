"""Ctrl-C while a command's modules are still imported: one line and exit code 130, no traceback.

Each package of the project calls `one_line` before it imports anything, so that it holds for every
`python -m package.module`. Once `main` runs, Ctrl-C raises KeyboardInterrupt as ever (rt.tools.command).
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

PACKAGES = ("rt", "sim", "train", "calib", "bench")
_BEGUN = "main"
"""Function that every command calls from its module."""


def one_line() -> None:
    """Take over Ctrl-C if this process is one of our commands, and nobody else has."""
    ours = sys.argv[:1] == ["-m"] and _name().partition(".")[0] in PACKAGES
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _name() -> str:
    """The module after `-m`."""
    words = sys.orig_argv
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def _interrupted(number: int, frame: FrameType | None) -> None:
    if not _begun(frame):
        os.write(2, f"{_name()}: interrupted; nothing was done\n".encode())
        os._exit(128 + number)
    raise KeyboardInterrupt


def _begun(frame: FrameType | None) -> bool:
    """True if the module that was named has called its `main`."""
    called = ""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return called == _BEGUN
        called, frame = frame.f_code.co_name, frame.f_back
    return False
