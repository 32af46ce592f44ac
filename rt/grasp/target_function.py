"""A user's function that says which object is wanted, in a process of its own.

The function is called as `function(colour, depth)`: colour (H, W, 3) uint8 RGB in the depth image's pixels,
or None from a camera without; depth (H, W) float32 m, 0 = no return. It returns a mask (H, W), a box (u0, v0,
u1, v1) in pixels, or None where it does not see the object. It is called CALLS_HZ times a second at most,
always with the newest frame. The loop hands out frames and reads answers without waiting: a thread waits, and
the function's work takes neither the loop's interpreter nor its time.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera import Frame
from rt.controller.target import TargetPoint
from rt.tools.process import killed_with_parent
from rt.tools.resolve import ResolveError, resolve

CALLS_HZ = 10.0
SLOW_S = 2.0
"""A call that takes longer is told; it may go on."""
_STARTS_WITHIN_S = 60.0
"""Longest time that the function's imports may take."""

Posed = tuple[Frame, NDArray[np.float64]]
"""A frame, and T_base_camera at its exposure."""


class TargetError(ValueError):
    """A wanted object that is not to be found: a box without depth, a function that fails."""


class FunctionProcess:
    """The function's process, and the thread that talks to it."""

    def __init__(
        self, text: str, target_of: Callable[[Any, Frame, NDArray[np.float64]], TargetPoint]
    ) -> None:
        """text: `module:function`. target_of: of an answer that is not None; may raise TargetError."""
        self.name, self._target_of = text, target_of
        self.now: TargetPoint | None = None
        """The last that was found."""
        self.trouble = ""
        """Why the last call gave no answer; empty: it gave one."""
        self.answers = 0
        """Number of calls that ended, with a target or without."""
        self._offered: Posed | None = None
        self._news, self._over = threading.Event(), False
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(text, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._thread = threading.Thread(target=self._work, name="target", daemon=True)
        self._thread.start()

    def offer(self, frame: Frame, T_base_camera: NDArray[np.float64]) -> None:
        """The newest frame, for the next call."""
        self._offered = frame, T_base_camera
        self._news.set()

    def first(self, look: Callable[[], Posed], patience_s: float) -> TargetPoint:
        """The first target, within so long after the imports. Raises TargetError."""
        until = time.monotonic() + _STARTS_WITHIN_S
        asked = False
        while self.now is None and time.monotonic() < until:
            self.offer(*look())
            if not asked and (self.answers or self.trouble):
                asked, until = True, time.monotonic() + patience_s
            time.sleep(0.02)
            if not self._process.is_alive():
                break
        if self.now is None:
            why = self.trouble or (
                "it sees no such object" if self.answers else "it has not answered yet"
            )
            raise TargetError(f"{self.name} names no object: {why}; nothing moved")
        return self.now

    def close(self) -> None:
        """End the process; a function that hangs is killed."""
        self._over = True
        self._news.set()
        self._process.kill()
        self._process.join(timeout=3.0)
        self._thread.join(timeout=3.0)

    def _work(self) -> None:
        try:
            self._answered(self._receive(_STARTS_WITHIN_S), None)
            while not self._over:
                self._news.wait(0.1)
                posed = self._offered
                if posed is None:
                    continue
                self._news.clear()
                self._offered, began = None, time.monotonic()
                self._pipe.send((posed[0].colour, posed[0].depth))
                self._answered(self._receive(SLOW_S), posed)
                time.sleep(max(began + 1 / CALLS_HZ - time.monotonic(), 0))
        except (EOFError, OSError):
            if not self._over:
                self._tell(f"{self.name} has ended (exit code {self._process.exitcode})")

    def _receive(self, within_s: float) -> Any:
        """The next answer; one that takes longer than within_s is told, and waited for."""
        if not self._pipe.poll(within_s):
            self._tell(f"{self.name} does not answer within {within_s:g} s")
        while not self._over and not self._pipe.poll(0.1):
            if not self._process.is_alive():
                raise EOFError
        return self._pipe.recv()

    def _answered(self, answer: tuple[str, Any], posed: Posed | None) -> None:
        error, found = answer
        if not error and found is not None and posed is not None:
            try:
                self.now = self._target_of(found, *posed)
            except TargetError as bad:
                error = f"{self.name}: {bad}"
        self.answers += posed is not None
        if error:
            self._tell(error)
        else:
            self.trouble = ""

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            held = "the last target holds" if self.now is not None else "there is no target yet"
            print(f"rt.grasp.target: {trouble}; {held}", file=sys.stderr, flush=True)
        self.trouble = trouble


def _serve(text: str, pipe: Connection) -> None:
    """In the process: (colour, depth) -> (error, answer), until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        killed_with_parent()
    try:
        function = resolve("target", text, {})
    except ResolveError as error:
        pipe.send((str(error), None))
        return
    pipe.send(("", None))
    while True:
        try:
            colour, depth = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            found = function(colour, depth)
            pipe.send(("", None if found is None else np.asarray(found)))
        except Exception as error:
            pipe.send((f"{text} raised {type(error).__name__}: {error}", None))
