"""The control channel: one line in, one line of JSON out. COMMANDS lists them, and is its help."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.robot.ur_pose import pose_vector, transform
from sim.hardware.ur.controller import EmulatedController
from sim.hardware.ur.safety import FAULT, RECOVERY, SAFEGUARD, VIOLATION
from sim.hardware.ur.wire import Server

CONTROL_PORT = 30999

COMMANDS = {
    "help": "this list",
    "state": "time_s, monotonic_ns, pose, twist, q, wrench, runtime_state, safety, still, watchdog_hz",
    "pose": "monotonic_ns, and the tool's pose (6,) at that time: x y z [m], rotation vector [rad]",
    "flange": "monotonic_ns, and the flange's pose (6,)",
    "log SECONDS": "the true motion: {rows, columns: 13}, then rows * 13 float64 (time_s, pose, twist)",
    "events": "[[time_s, what], ...]: what happened, on the controller's clock",
    "protective": "protective stop",
    "emergency": "emergency stop: power goes off",
    "safeguard": "safeguard stop: the program is paused",
    "violation": "the safety system found a violation: power goes off",
    "fault": "the safety system found a fault: power goes off",
    "recovery": "the arm is outside its safety limits",
    "reduced 0|1": "reduced mode of the safety system",
    "pause": "the program is paused on the pendant",
    "resume": "the program is resumed on the pendant",
    "slider PART": "speed slider, above 0 to 1",
    "payload SET_KG TRUE_KG": "mass in the installation, and the one that hangs there",
    "stop": "the program is stopped on the pendant",
    "clear": "a person clears the stop (no program runs then)",
    "freeze": "no packet is sent or read any more, the sockets stay open",
    "freeze_time": "the same packet is sent again and again; commands are read",
    "thaw": "ends freeze, freeze_time and slow",
    "slow N": "only every N-th packet is sent",
    "drop": "cuts all connections",
    "refuse": "cuts all connections, and takes no new ones",
    "listen": "takes connections again",
    "local": "leaves remote control",
    "remote": "remote control again",
    "in_use 0|1": "another client holds the input registers",
    "table Z|none": "a table at this height in base [m]",
    "stiffness N_PER_M": "of the table",
    "push FX FY FZ [TX TY TZ]": "a force on the tool, in base [N, Nm]",
    "place X Y Z RX RY RZ": "puts the tool there at once (only while no program runs)",
    "joints Q1 Q2 Q3 Q4 Q5 Q6": "puts the joints there [rad] at once (only while no program runs)",
    "gripper TEXT": "what the gripper's server asks for as its fault; empty for none",
    "quit": "ends the emulator",
}


LONGEST = 4096
"""Of a line [bytes]; a longer one is taken in parts."""
MOST = 1e6
"""Largest number that a command takes."""


def numbers(words: list[str], count: int) -> list[float]:
    """So many numbers, of at most MOST. Raises ValueError."""
    found = [float(word) for word in words]
    if len(found) != count or not all(abs(value) <= MOST for value in found):
        raise ValueError(f"{count} numbers, each at most {MOST:g}, are needed")
    return found


class Channel:
    """Serves the commands on a thread of its own, under the lock that the ticks take too."""

    def __init__(
        self, address: str, port: int, server: Server, lock: threading.Lock, quit_: threading.Event
    ) -> None:
        self.server, self.lock, self.quit = server, lock, quit_
        self.controller: EmulatedController = server.controller
        self.monotonic_ns: Callable[[], int] = lambda: 0
        """time.monotonic_ns of the last tick."""
        self.gripper_fault = ""
        self.listener = socket.create_server((address, port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines, suppress(OSError):
            while line := lines.readline(LONGEST):
                words = line.decode(errors="replace").split()
                if not words:
                    continue
                tail = b""
                try:
                    with self.lock:
                        answer, tail = self.do(words[0], words[1:])
                except (ValueError, IndexError, TypeError) as error:
                    why = "a value is missing" if isinstance(error, IndexError) else error
                    answer = {"error": f"{' '.join(words)}: {why}; see help"}
                sock.sendall(json.dumps(answer).encode() + b"\n" + tail)

    def do(self, name: str, arguments: list[str]) -> tuple[Any, bytes]:
        c, s, ok = self.controller, self.server, {"ok": True, "time_s": self.controller.time_s}
        stamp = {"monotonic_ns": self.monotonic_ns()}
        if name == "help":
            return COMMANDS, b""
        if name == "state":
            return self.state() | stamp, b""
        if name == "pose":
            return {"pose": pose_vector(c.arm.T).tolist()} | stamp, b""
        if name == "flange":
            return {"pose": pose_vector(c.flange()).tolist()} | stamp, b""
        if name == "log":
            rows = c.motion_log(numbers(arguments, 1)[0])
            return {"rows": len(rows), "columns": rows.shape[1]}, rows.tobytes()
        if name == "events":
            return c.events, b""
        simple: dict[str, Callable[[], None]] = {
            "protective": c.protective_stop,
            "emergency": c.emergency_stop,
            "stop": c.program_stop,
            "clear": c.clear,
            "safeguard": lambda: c.stop_safely(SAFEGUARD, "safeguard stop"),
            "violation": lambda: c.stop_safely(VIOLATION, "violation"),
            "fault": lambda: c.stop_safely(FAULT, "fault"),
            "recovery": lambda: c.stop_safely(RECOVERY, "recovery"),
            "pause": c.pause,
            "resume": c.resume,
            "drop": s.drop,
            "listen": lambda: None if s.listening else s.listen(),
            "quit": self.quit.set,
        }
        if name in simple:
            if name in ("drop", "listen", "quit"):
                c.note(name)
            simple[name]()
        elif name == "refuse":
            c.note(name)
            s.refuse()
            s.drop()
        elif name in ("freeze", "freeze_time", "thaw"):
            c.note(name)
            s.frozen, s.frozen_time = name == "freeze", name == "freeze_time"
            s.slow_every = 1 if name == "thaw" else s.slow_every
        elif name == "slow":
            c.note(name)
            s.slow_every = max(1, int(arguments[0]))
        elif name in ("local", "remote"):
            c.note(name)
            c.remote = name == "remote"
        elif name == "in_use":
            c.in_use = bool(int(arguments[0]))
        elif name == "reduced":
            c.set_reduced(bool(int(arguments[0])))
        elif name == "slider":
            c.speed_slider = min(max(numbers(arguments, 1)[0], 0.001), 1.0)
        elif name == "payload":
            c.payload_kg, c.true_payload_kg = numbers(arguments, 2)
        elif name == "table":
            c.table_z_m = None if arguments[0] == "none" else numbers(arguments, 1)[0]
        elif name == "stiffness":
            c.stiffness_n_m = numbers(arguments, 1)[0]
        elif name == "push":
            c.external = np.array(numbers([*arguments, *["0"] * (6 - len(arguments))], 6))
        elif name == "place":
            self.place(numbers(arguments, 6))
        elif name == "joints":
            self.put(np.array(numbers(arguments, 6)))
        elif name == "gripper":
            c.note(f"gripper {' '.join(arguments)}")
            self.gripper_fault = " ".join(arguments)
        else:
            raise ValueError("no such command")
        return ok, b""

    def state(self) -> dict[str, Any]:
        c = self.controller
        return {
            "time_s": c.time_s,
            "pose": pose_vector(c.arm.T).tolist(),
            "twist": c.arm.twist.tolist(),
            "q": c.arm.q.tolist(),
            "qd": c.arm.qd.tolist(),
            "wrench": c.wrench.tolist(),
            "runtime_state": c.runtime,
            "safety": c.safety,
            "still": c.is_still(),
            "watchdog_hz": c.watchdog_hz,
            "clients": len(self.server.lines),
            "unknown_commands": list(c.unknown),
        }

    def place(self, pose: list[float]) -> None:
        from sim.hardware.ur.arm import home

        c = self.controller
        self.put(home(c.model.arm, c.arm.T_flange_tcp, np.array(pose)))
        if not np.allclose(c.arm.T, transform(pose), atol=1e-6):
            raise ValueError("the arm does not reach that pose")

    def put(self, q: NDArray[np.float64]) -> None:
        c = self.controller
        if c.runtime == 2:
            raise ValueError("a program runs; stop it first")
        c.arm.q, c.arm.qd = q, np.zeros(6)
        c.arm.set_tcp(c.arm.T_flange_tcp)
