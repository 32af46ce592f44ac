"""Robotiq 2F grippers over the URCap's socket on the UR controller (port 63352).

Lines of text: `GET POS` -> `POS 120`, `SET POS 255 SPE 255 FOR 50 GTO 1` -> `ack` without a newline. One
thread owns the socket and asks for the state some 50 times a second; callers read the newest answer.
Whatever goes wrong there is kept and raised by the next `state`, `open` or `close`, for good: a line
that was silent once may answer yesterday's question next.
"""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import threading
import time

from rt.gripper import GripperError, GripperState

PORT = 63352
FORCE_N = (20.0, 235.0)
"""FOR 0 and 255 of a 2F-85 (vendor's manual)."""
SPEED_M_S = (0.020, 0.150)
"""SPE 0 and 255 of a 2F-85 (vendor's manual)."""

OPEN_COUNT, CLOSED_COUNT = 3, 230
"""POS that a 2F-85 reads when fully open and when closed on nothing, though it is told 0 and 255.
Fingers differ by a few counts, some millimetre: widths are for reports and for telling air from objects."""

FAULTS = {
    5: "a motion was told before the activation ended",
    7: "it is not activated",
    8: "it is too hot",
    9: "no communication with the gripper for a second; check its cable and the URCap",
    10: "its supply voltage is too low",
    11: "an automatic release is in progress",
    12: "an internal fault; power it off and on",
    13: "the activation failed; see that nothing blocks the fingers",
    14: "too much current",
    15: "an automatic release was completed; activate it again",
}
_POLL_S = 0.02
_MOTION_TIMEOUT_S = 8.0
"""The slowest full stroke takes 4.3 s."""
_ECHO_TIMEOUT_S = 1.0
_STALE_S = 1.0


def open_gripper(
    host: str,
    *,
    port: int = PORT,
    opening_m: float = 0.085,
    force_N: float = 40.0,
    speed_m_s: float = 0.075,
    timeout_s: float = 0.5,
    activation_timeout_s: float = 10.0,
) -> Robotiq:
    """A Robotiq gripper at the UR controller `host`. Connected and activated when its context is entered.

    Raises GripperError for a force [N] or speed [m/s] that a 2F-85 does not have.
    """
    for name, value, (low, high), unit in (
        ("force_N", force_N, FORCE_N, "N"),
        ("speed_m_s", speed_m_s, SPEED_M_S, "m/s"),
        ("timeout_s", timeout_s, (0.01, 10.0), "s"),
    ):
        if not low <= value <= high:
            raise GripperError(f"gripper {name} = {value} must be from {low:g} to {high:g} {unit}")
    return Robotiq(host, port, opening_m, force_N, speed_m_s, timeout_s, activation_timeout_s)


def read_status(host: str, port: int = PORT, timeout_s: float = 0.5) -> dict[str, int]:
    """STA, FLT, POS and OBJ as they are now; nothing is activated and nothing moves. Raises GripperError."""
    line = _Line(host, port, timeout_s)
    line.connect()
    try:
        return {name: line.get(name) for name in ("STA", "FLT", "POS", "OBJ")}
    finally:
        line.close()


def _count(value: float, ends: tuple[float, float]) -> int:
    return round(255 * (value - ends[0]) / (ends[1] - ends[0]))


class Robotiq:
    """See open_gripper."""

    def __init__(
        self,
        host: str,
        port: int,
        opening_m: float,
        force_N: float,
        speed_m_s: float,
        timeout_s: float,
        activation_timeout_s: float,
    ) -> None:
        self.host, self.port, self.opening_m = host, port, opening_m
        self._timeout_s, self._activation_timeout_s = timeout_s, activation_timeout_s
        self._pace = f"SPE {_count(speed_m_s, SPEED_M_S)} FOR {_count(force_N, FORCE_N)}"
        self._line = _Line(host, port, timeout_s)
        self._told: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        self._state: GripperState | None = None
        self._error: GripperError | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Robotiq:
        try:
            self._line.connect()
            self._activate()
            self._state = self._read(moving=False)
        except BaseException:
            self._line.close()
            raise
        self._over.clear()
        self._thread = threading.Thread(target=self._serve, name="robotiq", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * self._timeout_s + 1.0)
        self._line.close()

    def open(self) -> None:
        self._tell(0)

    def close(self) -> None:
        self._tell(255)

    def state(self) -> GripperState:
        with self._lock:
            if self._error is not None:
                raise GripperError(str(self._error))
            state = self._state
        if state is None:
            raise GripperError("the gripper's context was not entered")
        age_s = (time.monotonic_ns() - state.stamp_ns) * 1e-9
        if age_s > self._timeout_s + _STALE_S:
            raise GripperError(f"the gripper's last answer is {age_s:.1f} s old; check the URCap")
        return state

    def _tell(self, position: int) -> None:
        self.state()  # raises what is known to be wrong
        with self._lock:
            self._pending += 1
            assert self._state is not None
            s = self._state
            self._state = GripperState(s.stamp_ns, s.width_m, True, False)
        self._told.put(position)

    # Below: only before the thread starts, or in it.

    def _serve(self) -> None:
        try:
            while not self._over.is_set():
                try:
                    position = self._told.get(timeout=_POLL_S)
                except queue.Empty:
                    self._publish(self._read(moving=False), 0)
                else:
                    self._move(position)
        except GripperError as error:
            with self._lock:
                self._error = error

    def _publish(self, state: GripperState, ended: int) -> None:
        with self._lock:
            self._pending -= ended
            if self._pending:
                state = GripperState(state.stamp_ns, state.width_m, True, False)
            self._state = state

    def _move(self, position: int) -> None:
        self._line.set(f"SET POS {position} {self._pace} GTO 1")
        # Until PRE echoes the request, OBJ still tells of the motion before.
        began = time.monotonic()
        while self._line.get("PRE") != position:
            if time.monotonic() - began > _ECHO_TIMEOUT_S:
                raise GripperError(f"the gripper did not take the request POS {position} (PRE)")
            time.sleep(_POLL_S / 4)
        while not self._over.is_set():
            state = self._read(moving=True)
            if not state.moving or not self._told.empty():  # ended, or overtaken
                self._publish(state, 1)
                return
            self._publish(state, 0)
            if time.monotonic() - began > _MOTION_TIMEOUT_S:
                raise GripperError(
                    f"the gripper has been moving for {_MOTION_TIMEOUT_S:g} s (OBJ 0) and should have "
                    "ended; check its fingers"
                )
            time.sleep(_POLL_S)
        self._line.set("SET GTO 0")  # left while they move: the fingers stop too

    def _read(self, moving: bool) -> GripperState:
        status, fault = self._line.get("STA"), self._line.get("FLT")
        if fault:
            raise GripperError(
                f"gripper fault {fault}: {FAULTS.get(fault, 'see the vendor manual')}"
            )
        if status != 3:
            raise GripperError(f"the gripper is no longer active (STA {status}); was it reset?")
        found, count = self._line.get("OBJ"), self._line.get("POS")
        part = (count - OPEN_COUNT) / (CLOSED_COUNT - OPEN_COUNT)
        width_m = self.opening_m * min(max(1 - part, 0.0), 1.0)
        return GripperState(time.monotonic_ns(), width_m, moving and found == 0, found == 2)

    def _activate(self) -> None:
        """One that is active stays as it is: activation opens and closes the fingers."""
        if self._line.get("STA") == 3 and not self._line.get("FLT"):
            return
        self._line.set("SET ACT 0")
        self._wait_for("STA", 0)
        self._line.set("SET ACT 1")
        self._wait_for("STA", 3)

    def _wait_for(self, name: str, value: int) -> None:
        end = time.monotonic() + self._activation_timeout_s
        while (now := self._line.get(name)) != value:
            if time.monotonic() > end:
                fault = self._line.get("FLT")
                raise GripperError(
                    f"the gripper was not activated in {self._activation_timeout_s:g} s ({name} {now}, "
                    f"must become {value}; fault {fault}: {FAULTS.get(fault, 'none')})"
                )
            time.sleep(_POLL_S)


class _Line:
    """Questions and answers over the socket, none of which may take longer than the timeout."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.where, self.timeout_s = (host, port), timeout_s
        self._socket: socket.socket | None = None
        self._buffer = b""

    def connect(self) -> None:
        try:
            self._socket = socket.create_connection(self.where, timeout=max(self.timeout_s, 2.0))
        except OSError as error:
            raise GripperError(
                f"no gripper at {self.where[0]}:{self.where[1]} ({error}); is the Robotiq URCap "
                "installed and the gripper chosen in it?"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket = None

    def get(self, name: str) -> int:
        """The value of a variable."""
        answer = self._ask(f"GET {name}", re.compile(rb"\s*[^\n]+\n"))
        match = re.fullmatch(rf"{name} (\d+|\?)".encode(), answer.strip())
        if match is None:
            raise GripperError(
                f"the gripper answered {answer[:40]!r} to GET {name}; "
                "is something else connected to its socket?"
            )
        if match[1] == b"?":
            raise GripperError(
                f"the gripper's {name} is unreadable ('?'): emergency stop, or no power at the tool"
            )
        return int(match[1])

    def set(self, command: str) -> None:
        answer = self._ask(command, re.compile(rb"ack|[^\n]*\n"))
        if answer.strip() != b"ack":
            raise GripperError(f"the gripper answered {answer[:40]!r} to {command!r}, not ack")

    def _ask(self, question: str, whole: re.Pattern[bytes]) -> bytes:
        if self._socket is None:
            raise GripperError("the gripper is not connected")
        end = time.monotonic() + self.timeout_s
        try:
            self._socket.settimeout(self.timeout_s)
            self._socket.sendall(question.encode() + b"\n")
            while (match := whole.match(self._buffer)) is None:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                if len(self._buffer) > 4096:
                    raise GripperError(
                        f"the gripper answered {self._buffer[:40]!r}... to {question!r}"
                    )
                self._socket.settimeout(left)
                data = self._socket.recv(1024)
                if not data:
                    raise GripperError("the gripper closed the connection")
                self._buffer += data
        except TimeoutError as error:
            raise GripperError(
                f"the gripper is silent: no answer to {question!r} in {self.timeout_s:g} s"
                f"{f' but {self._buffer[:40]!r}' if self._buffer else ''}; check its power and the URCap"
            ) from error
        except OSError as error:
            raise GripperError(f"the gripper's connection broke: {error}") from error
        self._buffer = self._buffer[match.end() :]
        return match[0]
