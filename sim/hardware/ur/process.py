"""A UR controller in a process of its own, for tests and for trying things without an arm.

`start_emulator` runs `python -m rt.robot.emulator` and yields an `Emulator`: its address, its control
channel, and its true motion. The client library holds the interpreter lock while it connects, so the
emulator can never be a thread of the program that uses it.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.robot import RobotError
from rt.robot.ur_pose import transform
from rt.tools.process import Child

Array = NDArray[np.float64]
CONTROL_PORT = 30999
STILL_M_S, STILL_RAD_S = 1e-3, 1e-2
"""Slower than this counts as no motion."""


class EmulatorError(RobotError):
    """An emulator that does not start, does not answer, or does not know what is asked."""


class Emulator:
    """The control channel of a running emulator (`tell("help")` lists what it knows)."""

    def __init__(self, address: str, port: int = CONTROL_PORT, timeout_s: float = 10.0) -> None:
        self.address = address
        try:
            self._sock = socket.create_connection((address, port), timeout_s)
        except OSError as error:
            raise EmulatorError(f"no emulator answers at {address}:{port} ({error})") from error
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._sock.makefile("rb")
        self._lock = threading.Lock()

    def tell(self, line: str) -> Any:
        """Send one command; its answer, or EmulatorError."""
        with self._lock:
            return self._tell(line)

    def _tell(self, line: str) -> Any:
        try:
            self._sock.sendall(line.encode() + b"\n")
            got = self._file.readline()
        except OSError as error:
            raise EmulatorError(f"the emulator does not answer {line!r} ({error})") from error
        if not got:
            raise EmulatorError(f"the emulator has gone; it was told {line!r}")
        answer = json.loads(got)
        if isinstance(answer, dict) and "error" in answer:
            raise EmulatorError(answer["error"])
        return answer

    def pose(self) -> tuple[int, Array]:
        """time.monotonic_ns and T_base_tcp (4, 4) at that time."""
        answer = self.tell("pose")
        return answer["monotonic_ns"], transform(answer["pose"])

    def motion(self, seconds: float) -> Array:
        """The true motion (N, 13), one row per tick: time [s], pose (6,), twist (6,) of the tool."""
        with self._lock:
            head = self._tell(f"log {seconds}")
            data = self._file.read(head["rows"] * head["columns"] * 8)
        return np.frombuffer(data, np.float64).reshape(head["rows"], head["columns"])

    def events(self) -> list[tuple[float, str]]:
        """(time [s], what), oldest first, on the controller's clock."""
        return [(float(t), str(what)) for t, what in self.tell("events")]

    def moved_until_s(self, since_s: float, seconds: float = 20.0) -> float:
        """Time [s] from `since_s` (controller's clock) to the tool's last motion; 0 if it did not move."""
        rows = self.motion(seconds)
        v, w = np.linalg.norm(rows[:, 7:10], axis=1), np.linalg.norm(rows[:, 10:], axis=1)
        moving = rows[(v > STILL_M_S) | (w > STILL_RAD_S), 0]
        return max(0.0, float(moving[-1]) - since_s) if len(moving) else 0.0

    def wait_still(self, timeout_s: float = 10.0) -> None:
        """Until the tool does not move; raises EmulatorError."""
        deadline = time.monotonic() + timeout_s
        while not self.tell("state")["still"]:
            if time.monotonic() > deadline:
                raise EmulatorError(f"the emulated arm still moves after {timeout_s:g} s")
            time.sleep(0.01)

    def close(self) -> None:
        self._file.close()
        self._sock.close()


@contextmanager
def start_emulator(
    address: str = "127.0.0.2",
    *options: str,
    control_port: int = CONTROL_PORT,
    timeout_s: float = 60.0,
) -> Iterator[Emulator]:
    """An emulator while inside; `options` are those of the command, such as "--model", "cb3"."""
    arguments = ["--address", address, "--control-port", str(control_port), "--until-eof", *options]
    child = Child("sim.hardware.ur", arguments, writes=True, keeps=True)
    try:
        if not child.wait_until(lambda: "emulating" in child.output, timeout_s):
            said = child.output.strip() or "silence"
            raise EmulatorError(f"the emulator did not start, {child.end_text}: {said}")
        emulator = Emulator(address, control_port)
        try:
            yield emulator
        finally:
            emulator.close()
    finally:
        child.end(5.0)
