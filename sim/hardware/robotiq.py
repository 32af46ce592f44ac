"""A Robotiq 2F-85 behind the URCap's socket, for tests and for the emulated arm: `serve(...)`.

Threads, not a process: the driver's socket releases the interpreter lock, so they can share one. Fingers
move at the speed told, stop on an object that is between them, and answer as the URCap does (protocol:
rt.gripper.robotiq).
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable

from rt.gripper.robotiq import CLOSED_COUNT, OPEN_COUNT, PORT, SPEED_M_S
from rt.hand import load_tip_travel

FAULTS = {
    "object": "something between the fingers, `object=WIDTH_M` (0.04)",
    "slips": "the object is lost `slips=SECONDS` (0.3) after it was grasped",
    "silent": "nothing is ever answered",
    "garbage": "every answer is nonsense",
    "slow": "every answer takes `slow=SECONDS` (0.2)",
    "never_activates": "STA stays 1",
    "silent_on_close": "silent from the first request to close on",
    "garbage_on_close": "nonsense from the first request to close on",
    "unreadable_on_close": "`?` from the first request to close on",
    "stuck_on_close": "OBJ stays 0 once told to close: the motion never ends",
    "fault_on_close": "FLT 14 from the first request to close on",
}
"""Faults and obstacles, with their description; several are separated by commas."""
Fault = str | None | Callable[[], str | None]
_LINE_BYTES = 1024
_DEFAULTS = {"object": 0.04, "slips": 0.3, "slow": 0.2}
_STROKE_M = 0.085


def parse_faults(text: str | None) -> dict[str, float]:
    """`object=0.04,slow` as {name: value}. Raises ValueError for one that is not known."""
    faults: dict[str, float] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, value = part.strip().partition("=")
        if name not in FAULTS:
            raise ValueError(f"gripper fault {name!r} is not known; known are {', '.join(FAULTS)}")
        faults[name] = float(value) if value else _DEFAULTS.get(name, 0.0)
    return faults


class GripperEmulator:
    """Running emulator, as `serve` starts it. `faults` may be changed at any time; `stop` ends it."""

    def __init__(self, host: str, port: int, fault: Fault) -> None:
        self._ask = fault if callable(fault) else None
        self._asked = None if callable(fault) else fault
        self.faults = parse_faults(self._asked)
        self._lock = threading.Lock()
        self._values = {"ACT": 0, "GTO": 0, "ATR": 0, "ARD": 0, "FOR": 0, "SPE": 0, "POS": 0}
        self._activated_s: float | None = None
        self._position, self._goal, self._since_s = float(OPEN_COUNT), float(OPEN_COUNT), 0.0
        self._held_s: float | None = None
        self.closing = False
        self._tips = load_tip_travel()
        emulator = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    # A line without an end, as all nonsense, ends this connection and no other.
                    while (line := self.rfile.readline(_LINE_BYTES)).endswith(b"\n"):
                        reply = emulator.answer(line.decode(errors="replace").strip())
                        if "slow" in emulator.faults:
                            time.sleep(emulator.faults["slow"])
                        if reply:
                            self.wfile.write(reply)

        class GripperServer(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True

        self._server = GripperServer((host, port), Handler)
        self._server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host, self.port = self._server.server_address[:2]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> GripperEmulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2.0)

    @property
    def width_m(self) -> float:
        """Between the pads now."""
        with self._lock:
            self._advance()
            part = (self._position - OPEN_COUNT) / (CLOSED_COUNT - OPEN_COUNT)
            return _STROKE_M * (1 - part)

    @property
    def travel_m(self) -> float:
        """Of the fingertips along z since the fully open hand, now."""
        return self._tips(self.width_m)

    def answer(self, line: str) -> bytes:
        """To one line; empty for none."""
        with self._lock:
            if self._ask is not None and (now := self._ask()) != self._asked:
                self._asked, self.faults = now, parse_faults(now)
            self._advance()
            command, *words = line.split() or [""]
            if command == "SET":
                try:
                    values = dict(zip(words[::2], map(int, words[1::2]), strict=True))
                except ValueError:
                    return b"?\n"
                self._set({name: min(max(value, 0), 255) for name, value in values.items()})
            late = self.closing
            if "silent" in self.faults or (late and "silent_on_close" in self.faults):
                return b""
            if "garbage" in self.faults or (late and "garbage_on_close" in self.faults):
                return b"\x00\xff garbage 17\n"
            if command == "SET":
                return b"ack"
            if command == "GET" and len(words) == 1 and re.fullmatch("[A-Z]{3}", words[0]):
                value: int | str | None = self._get(words[0])
                if late and "unreadable_on_close" in self.faults:
                    value = "?"
                return b"?\n" if value is None else f"{words[0]} {value}\n".encode()
            return b"?\n"

    def _set(self, values: dict[str, int]) -> None:
        if values.get("ACT") == 0:
            self._activated_s = None
        elif values.get("ACT") == 1 and self._activated_s is None:
            self._activated_s = time.monotonic()
        self._values.update({k: v for k, v in values.items() if k in self._values})
        if values.get("GTO") == 0:
            self._goal = self._position
        if "POS" in values and self._values["GTO"] and self._active():
            self._goal = float(min(max(values["POS"], OPEN_COUNT), CLOSED_COUNT))
            self.closing = values["POS"] > 128

    def _active(self) -> bool:
        return self._status() == 3

    def _status(self) -> int:
        if self._activated_s is None:
            return 0
        done = time.monotonic() - self._activated_s > 0.1 and "never_activates" not in self.faults
        return 3 if done else 1

    def _get(self, name: str) -> int | None:
        if name == "STA":
            return self._status()
        if name == "FLT":
            return 14 if self.closing and "fault_on_close" in self.faults else 0
        if name == "PRE":
            return self._values["POS"]
        if name == "OBJ":
            return self._object()
        if name == "POS":
            return round(self._position)
        return self._values.get(name)

    def _object(self) -> int:
        if self.closing and "stuck_on_close" in self.faults:
            return 0
        if self._held_s is not None:
            return 2
        return 3 if abs(self._position - self._goal) < 0.5 else 0

    def _advance(self) -> None:
        """The fingers, to now."""
        now = time.monotonic()
        dt, self._since_s = now - self._since_s if self._since_s else 0.0, now
        low, high = SPEED_M_S
        speed_m_s = low + self._values["SPE"] / 255 * (high - low)
        most = speed_m_s * dt * (CLOSED_COUNT - OPEN_COUNT) / _STROKE_M
        goal, way = self._goal, self._goal - self._position
        slipped = (
            self._held_s is not None
            and "slips" in self.faults
            and now - self._held_s > self.faults["slips"]
        )
        if slipped:
            self.faults.pop("object", None)
        if "object" in self.faults and way > 0:
            width = 1 - self.faults["object"] / _STROKE_M
            stop = OPEN_COUNT + width * (CLOSED_COUNT - OPEN_COUNT)
            if self._position <= stop + 0.5:
                goal = min(goal, stop)
                way = goal - self._position
        self._position += min(max(way, -most), most)
        on_it = "object" in self.faults and goal < self._goal and abs(goal - self._position) < 0.5
        if not on_it:
            self._held_s = None
        elif self._held_s is None:
            self._held_s = now


def serve(host: str = "127.0.0.1", port: int = PORT, fault: Fault = None) -> GripperEmulator:
    """Start to answer at host:port (0: any free one, see `.port`), and return. `fault`: see FAULTS; or a
    function that says it, asked at every line.

    Raises OSError if the port is taken, ValueError for a fault that is not known.
    """
    return GripperEmulator(host, port, fault)
