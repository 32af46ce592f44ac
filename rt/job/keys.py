"""Keys of the terminal as requests to the loop: space pauses, s steps, n skips, q stops."""

from __future__ import annotations

import os
import select
import sys
from contextlib import AbstractContextManager, suppress
from typing import Any

KEYS = {" ": "pause", "p": "pause", "s": "step", "n": "skip", "q": "stop"}
HELP = "keys: space pauses and goes on, s does one pick, n skips this pick, q stops"


class Keys(AbstractContextManager["Keys"]):
    """Keys as they are pressed, without waiting; none if the input is no terminal."""

    def __init__(self, file: int | None = None) -> None:
        """file: descriptor of the terminal; None: the standard input."""
        self._file = file
        self._before: list[Any] | None = None

    def __enter__(self) -> Keys:
        with suppress(ImportError, OSError, ValueError):
            import termios
            import tty

            ours = self._file is not None  # in the background the terminal belongs to others
            file = sys.stdin.fileno() if self._file is None else self._file
            if os.isatty(file) and (ours or os.tcgetpgrp(file) == os.getpgrp()):
                self._before = termios.tcgetattr(file)
                tty.setcbreak(file)  # Ctrl-C still interrupts
                self._file = file
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None and self._file is not None:
            import termios

            with suppress(termios.error):
                termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
            self._before = None

    @property
    def live(self) -> bool:
        """True if keys are read."""
        return self._before is not None

    def pressed(self) -> list[str]:
        """Requests since the last call: words of KEYS."""
        if self._before is None or self._file is None:
            return []
        text = b""
        with suppress(OSError):
            while select.select([self._file], [], [], 0)[0]:
                more = os.read(self._file, 64)
                if not more:
                    break
                text += more
        return [KEYS[c] for c in text.decode(errors="ignore").lower() if c in KEYS]
