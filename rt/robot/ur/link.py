"""The connection to a UR controller: what is checked before anything moves, its state, its faults by name.

Facts about ur-rtde that shape this file: its constructors hold the interpreter lock; `isConnected`
stays true for seconds on a frozen controller, so only packet times count; and when the connection
breaks, its control interface reconnects by itself, again and again, uploads its program again if it
was made to upload it, and may crash. So it is made without uploading, the program is started once and
explicitly, and all of it runs in a process of its own (rt.robot.ur.stream) which ends at the first fault.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.robot import RobotError
from rt.robot.kinematics import model_name

Array = NDArray[np.float64]

DASHBOARD_PORT, RTDE_PORT = 29999, 30004
PORTS = {RTDE_PORT: "RTDE", 30003: "programs", DASHBOARD_PORT: "dashboard"}
VARIABLES = [
    "timestamp",
    "actual_q",
    "actual_qd",
    "actual_TCP_pose",
    "actual_TCP_speed",
    "actual_TCP_force",
    "robot_mode",
    "runtime_state",
    "safety_status_bits",
    "speed_scaling",
    "target_speed_fraction",
]
PAYLOAD_SINCE = {3: (3, 11, 0), 5: (5, 5, 1)}
"""Oldest PolyScope of each generation that tells the payload."""
RUNNING_MODE, PLAYING, PAUSED = 7, 2, (3, 4)
"""Robot mode; runtime states: playing; pausing and paused."""
LEAST_VERSIONS = {3: (3, 4), 5: (5, 4)}
"""Oldest PolyScope of each generation (CB3, e-Series): ur-rtde crashes while it connects to an older one."""
_PACKET_TRIES = 100
_LINE_BYTES = 4096
"""Longest line that a dashboard may answer."""
_MODES = {
    -1: "no controller",
    0: "disconnected",
    1: "confirm safety",
    2: "booting",
    3: "power off",
    4: "power on",
    5: "idle (brakes on)",
    6: "backdrive",
    8: "updating firmware",
}


class UrError(RobotError):
    """A UR arm that is missing, refuses, or stopped by itself. `name` says which, in a word."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


_REMEDY = "; see to the arm, clear it on the pendant, and start again (nothing resumes by itself)"
SAFETY = (
    # bits of safety_status_bits, name, message; the first that is set counts
    (0b1110_0000, "emergency_stop", "an emergency stop is pressed" + _REMEDY),
    (0b1_0000_0000, "safety_violation", "the safety system found a violation" + _REMEDY),
    (0b10_0000_0000, "safety_fault", "the safety system found a fault" + _REMEDY),
    (0b0100, "protective_stop", "the arm has made a protective stop" + _REMEDY),
    (
        0b1_0000,
        "safeguard_stop",
        "the safeguard (gate, light curtain) has stopped the arm" + _REMEDY,
    ),
    (0b1000, "recovery_mode", "the arm is outside its safety limits" + _REMEDY),
)


REDUCED = 0b10
"""Bit of safety_status_bits: the safety limits of the reduced mode hold."""


def safety_fault(bits: int) -> tuple[str, str] | None:
    """Name and message of a safety status that forbids motion; None if there is none."""
    for mask, name, message in SAFETY:
        if bits & mask:
            return name, message
    return None


@dataclass(frozen=True)
class Packet:
    """One packet of the controller, of its own time [s]."""

    timestamp_s: float
    pose: Array
    """(6,) of the tool centre point in base."""
    twist: Array
    wrench: Array
    q: Array
    qd: Array
    robot_mode: int
    runtime: int
    safety_bits: int


def read_settings(receive: Any, tells_payload: bool) -> Array:
    """(3,) of speed slider, speed scaling and payload [kg], NaN from a controller that does not tell it."""
    payload_kg = receive.getPayload() if tells_payload else np.nan
    return np.array([receive.getTargetSpeedFraction(), receive.getSpeedScaling(), payload_kg])


def read_packet(receive: Any) -> Packet:
    """The newest packet, all of it from the same one: the getters lock one by one. Raises UrError."""
    for _ in range(_PACKET_TRIES):
        timestamp = receive.getTimestamp()
        packet = Packet(
            timestamp,
            np.array(receive.getActualTCPPose()),
            np.array(receive.getActualTCPSpeed()),
            np.array(receive.getActualTCPForce()),
            np.array(receive.getActualQ()),
            np.array(receive.getActualQd()),
            receive.getRobotMode(),
            receive.getRuntimeState(),
            receive.getSafetyStatusBits(),
        )
        if receive.getTimestamp() == timestamp:
            return packet
    raise UrError(
        "stream_stalled",
        f"no packet could be read whole in {_PACKET_TRIES} tries: this computer is too busy",
    )


class ClockMap:
    """The controller's clock on time.monotonic_ns, by the smallest delay seen lately.

    A packet is found some time after it was made, never before: the least (found - made) of the last
    ten seconds is the offset between the clocks plus the shortest delay of the network and of looking
    (under 1 ms on a wire). Stamps are late by that delay; the window follows the clocks' drift.
    """

    _WINDOW_NS = 1_000_000_000

    def __init__(self) -> None:
        self._least: list[tuple[int, int]] = []

    def stamp_ns(self, timestamp_s: float, found_ns: int) -> int:
        """When a packet was made; to be called once for each, when it is found."""
        made_ns = round(timestamp_s * 1e9)
        offset, window = found_ns - made_ns, found_ns // self._WINDOW_NS
        if self._least and self._least[-1][0] == window:
            self._least[-1] = (window, min(offset, self._least[-1][1]))
        else:
            self._least = [*self._least[-9:], (window, offset)]
        return made_ns + min(o for _, o in self._least)


@dataclass
class Link:
    """An open connection. `control` has no program running until `start_program`."""

    host: str
    receive: Any
    control: Any
    rate_hz: float
    about: dict[str, Any] = field(default_factory=dict)

    def start_program(self) -> None:
        """Upload ur-rtde's program and wait until it runs; raises UrError."""
        self.control.reuploadScript()
        deadline = time.monotonic() + 5
        while not self.control.isProgramRunning():
            if time.monotonic() > deadline:
                raise UrError(
                    "program_refused",
                    f"{self.host} does not start the control program within 5 s; is the arm in remote "
                    "control, its brakes released, and no message open on the pendant?",
                )
            time.sleep(0.005)


def connect(host: str, timeout_s: float = 2.0) -> Link:
    """Connect and check; nothing moves and no program starts. Raises UrError, by name."""
    for port, what in PORTS.items():
        try:
            socket.create_connection((host, port), timeout_s).close()
        except OSError as error:
            hint = (
                "; PolyScope X (10 and later) has no dashboard and is not supported"
                if port == DASHBOARD_PORT
                else ""
            )
            raise UrError(
                "unreachable",
                f"{host}:{port} ({what}) does not answer within {timeout_s:g} s ({error}); check the "
                "address, the cable, and Settings > Security > Services on the pendant" + hint,
            ) from error
    about = _ask_dashboard(host, timeout_s)
    _probe_rtde(host, timeout_s)
    try:
        from rtde_control import RTDEControlInterface
        from rtde_receive import RTDEReceiveInterface
    except ImportError as error:
        raise UrError("no_library", f"{error}; pip install 'grasp-servo[ur]'") from error
    rate_hz = 125.0 if about["version"][0] <= 3 else 500.0
    try:
        tells = about["version"] >= PAYLOAD_SINCE[3 if about["version"][0] <= 3 else 5]
        variables = [*VARIABLES, "payload"] if tells else VARIABLES
        receive = RTDEReceiveInterface(host, rate_hz, variables, rt_priority=-1)
        packet = _first_packet(receive, host)
        _check_packet(packet, host)
        slider, scaling, payload_kg = read_settings(receive, tells).round(3).tolist()
        about["payload_kg"] = payload_kg if tells else None
        about["speed_slider"], about["speed_scaling"] = slider, scaling
        about["reduced"] = bool(packet.safety_bits & REDUCED)
        flags = RTDEControlInterface.FLAG_NO_WAIT  # no program: it is started explicitly
        control = RTDEControlInterface(host, rate_hz, flags, rt_priority=-1)
    except UrError:
        raise
    except Exception as error:  # the library throws whatever its parts throw
        text = str(error)
        if "in use" in text:
            raise UrError(
                "in_use",
                f"another client of {host} holds the RTDE input registers; end the other program, or "
                "disable EtherNet/IP, PROFINET and MODBUS on the controller",
            ) from error
        if "remote control" in text:
            raise UrError("not_remote", _not_remote(host)) from error
        raise UrError("connection_failed", f"{host}: {text}") from error
    return Link(host, receive, control, rate_hz, about)


def _probe_rtde(host: str, timeout_s: float) -> None:
    """Speak RTDE as far as a first packet of data, since ur-rtde waits without a bound for a port that is
    silent or talks nonsense at any step of this. Raises UrError."""
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, RTDE_PORT), timeout_s) as sock:
            for kind, payload in _HANDSHAKE:
                size = _HEADER.size + len(payload)
                if kind != b"U":
                    with suppress(ConnectionError):  # closed: told with what it answered before
                        sock.sendall(_HEADER.pack(size, kind) + payload)
                answer = _answer(sock, kind, host, deadline)
                if kind in b"VS" and answer[:1] != b"\1":
                    raise _wrong_rtde(host, answer)
    except OSError as error:
        raise UrError(
            "frozen",
            f"{host}:{RTDE_PORT} (RTDE) takes connections but does not answer within {timeout_s:g} s "
            f"({error}); restart the controller",
        ) from error


_HEADER = struct.Struct(">Hc")
"""Of an RTDE packet: its size, this included, and its type."""
_HANDSHAKE = (
    (b"V", b"\0\2"),
    (b"O", struct.pack(">d", 10.0) + b"timestamp"),
    (b"S", b""),
    (b"U", b""),
)
"""Protocol version 2, one variable at 10 Hz, start; then a packet of data is due."""
_MOST_PACKETS, _MOST_BYTES = 20, 4096
"""Packets of other types (text messages) before the answer, and the size of one."""


def _answer(sock: socket.socket, kind: bytes, host: str, deadline_s: float) -> bytes:
    """Payload of the next RTDE packet of that type. Raises OSError, UrError."""
    for _ in range(_MOST_PACKETS):
        header = _receive(sock, _HEADER.size, host, deadline_s)
        size, found = _HEADER.unpack(header)
        if not _HEADER.size <= size <= _MOST_BYTES or not found.isalpha():
            raise _wrong_rtde(host, header)
        payload = _receive(sock, size - _HEADER.size, host, deadline_s)
        if found == kind:
            return payload
    raise _wrong_rtde(host, header + payload)


def _receive(sock: socket.socket, size: int, host: str, deadline_s: float) -> bytes:
    """So many bytes. Raises OSError, UrError."""
    data = b""
    while len(data) < size:
        sock.settimeout(max(deadline_s - time.monotonic(), 0.001))
        more = b""
        with suppress(ConnectionError):
            more = sock.recv(size - len(data))
        if not more:
            raise _wrong_rtde(host, data)
        data += more
    return data


def _wrong_rtde(host: str, answer: bytes) -> UrError:
    return UrError(
        "wrong_device",
        f"{host}:{RTDE_PORT} (RTDE) answers {answer[:20]!r} to the request for data by protocol version 2; "
        "is this the address of a UR controller?",
    )


def _not_remote(host: str) -> str:
    return f"{host} is in local control; switch it to Remote Control at the pendant's top right"


def _ask_dashboard(host: str, timeout_s: float) -> dict[str, Any]:
    """Version, model, and remote control where the controller knows it (PolyScope 5.6 and later)."""
    try:
        with socket.create_connection((host, DASHBOARD_PORT), timeout_s) as sock:
            _read_line(sock, timeout_s)  # the greeting

            def ask(question: str) -> str:
                sock.sendall(question.encode() + b"\n")
                return _read_line(sock, timeout_s)

            text = ask("PolyscopeVersion")
            found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
            if found is None:
                raise UrError(
                    "wrong_device",
                    f"the dashboard of {host} does not tell its version, but {text[:40]!r}; is this the "
                    "address of a UR controller?",
                )
            version = tuple(int(v) for v in found.groups())
            _check_version(host, version)
            remote = ask("is in remote control") if version >= (5, 6, 0) else "true"
            model = model_name(ask("get robot model"), version[0])  # not known to all versions
    except OSError as error:
        raise UrError(
            "unreachable",
            f"the dashboard of {host}:{DASHBOARD_PORT} takes connections but does not answer within "
            f"{timeout_s:g} s ({error}); restart the controller",
        ) from error
    if remote.lower() != "true":
        raise UrError("not_remote", _not_remote(host))
    return {"version": version, "polyscope": text[:80], "model": model[:40]}


def _check_version(host: str, version: tuple[int, ...]) -> None:
    """Refuse, before any program is started, a PolyScope that ur-rtde cannot talk to. Raises UrError."""
    told = ".".join(map(str, version))
    if version[0] >= 10:
        raise UrError(
            "not_supported", f"{host} has PolyScope X {told}; PolyScope 5.4 or later is needed"
        )
    least = LEAST_VERSIONS[3 if version[0] <= 3 else 5]
    if version[:2] < least:
        raise UrError(
            "too_old",
            f"{host} has PolyScope {told}; {'.'.join(map(str, least))} or later is needed, ur-rtde crashes "
            "with an older one; update the controller",
        )


def _read_line(sock: socket.socket, timeout_s: float) -> str:
    """One line of the dashboard, bounded in time and size. Raises OSError, UrError."""
    deadline, data = time.monotonic() + timeout_s, b""
    while not data.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no whole line within {timeout_s:g} s")
        sock.settimeout(left_s)
        waiting = sock.recv(
            _LINE_BYTES, socket.MSG_PEEK
        )  # what follows the line stays for the next
        if not waiting:
            break
        data += sock.recv(waiting.find(b"\n") + 1 or len(waiting))
        if len(data) > _LINE_BYTES:
            raise UrError(
                "wrong_device",
                f"the dashboard answers {data[:40]!r}..., {_LINE_BYTES} bytes without the end of a line; is "
                "this the address of a UR controller?",
            )
    return data.decode(errors="replace").strip()


def stop_program(host: str, timeout_s: float = 2.0) -> bool:
    """Have the dashboard stop the program that runs; False if the dashboard does not answer."""
    try:
        with socket.create_connection((host, DASHBOARD_PORT), timeout_s) as sock:
            _read_line(sock, timeout_s)
            sock.sendall(b"stop\n")
            return _read_line(sock, timeout_s).lower().startswith("stop")
    except (OSError, UrError):
        return False


def _first_packet(receive: Any, host: str, timeout_s: float = 2.0) -> Packet:
    """A packet with a time that goes on."""
    first, deadline = receive.getTimestamp(), time.monotonic() + timeout_s
    while receive.getTimestamp() == first or first == 0.0:
        if time.monotonic() > deadline:
            raise UrError("frozen", f"{host} takes connections but sends no new data; restart it")
        first = first or receive.getTimestamp()
        time.sleep(0.002)
    return read_packet(receive)


def _check_packet(packet: Packet, host: str) -> None:
    if (fault := safety_fault(packet.safety_bits)) is not None:
        raise UrError(*fault)
    if packet.robot_mode != RUNNING_MODE:
        raise UrError(
            "not_running",
            f"{host} is in mode {_MODES.get(packet.robot_mode, packet.robot_mode)!r}, not running; switch "
            "it on and release the brakes on the pendant",
        )
    if packet.runtime == PLAYING:
        raise UrError(
            "program_running",
            f"a program runs on {host}; stop it on the pendant, or end the other client that started it",
        )
