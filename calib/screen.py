"""The terminal of `calib.handeye`: what it prints, asks, and where results go."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress as Bar

from calib.errors import CalibrationError
from rt.tools.command import screen


@dataclass
class Screen:
    """Prints results; progress is shown on a terminal only."""

    console: Console = field(default_factory=lambda: screen(highlight=False))

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)

    def confirm(self, question: str) -> bool:
        self.say(question + " Enter: go; Ctrl-C: stop.")
        try:
            input()
        except (EOFError, KeyboardInterrupt):
            return False
        return True

    def ask(self, question: str) -> str:
        """A line that the operator types; empty if there is no operator."""
        self.say(question)
        try:
            return input().strip()
        except EOFError:
            return ""


def output(given: Path | None) -> Path:
    """--out, or runs/handeye/TIME, not yet made; raises CalibrationError for a file."""
    out = given or Path("runs/handeye") / time.strftime("%Y-%m-%d_%H-%M-%S")
    if out.exists() and not out.is_dir():
        raise CalibrationError(f"{out} is a file; give a folder as --out")
    return out


def positive(**values: float) -> None:
    """Raise CalibrationError for an option that is not above 0."""
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise CalibrationError(f"--{name.replace('_', '-')} = {value:g} must be above 0")


class ProgressBar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, screen: Screen) -> None:
        self.bar = Bar(console=screen.console, transient=True, disable=not sys.stdout.isatty())
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Callable[[str, int, int], None]:
        self.bar.start()
        return self.update

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, task: str, done: int, total: int) -> None:
        if task not in self.tasks:
            self.tasks[task] = self.bar.add_task(task, total=total)
        self.bar.update(self.tasks[task], completed=done)
