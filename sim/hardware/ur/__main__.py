"""The command `python -m rt.robot.emulator`: a UR controller on this computer, with an arm behind it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import tyro

from rt.robot.kinematics import ARMS
from rt.robot.ur_pose import transform
from sim.hardware.ur.channel import COMMANDS, CONTROL_PORT, Channel
from sim.hardware.ur.controller import MODELS, EmulatedController
from sim.hardware.ur.wire import Server

Pose = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class EmulatorOptions:
    """An emulated UR controller: RTDE 30004, programs 30003, dashboard 29999, and with --gripper 63352.

    Use 127.0.0.2 and up, one address for each emulator: at 127.0.0.1 ur-rtde leaves out its check of
    remote control. A control channel (one line in, one line of JSON out) makes faults and tells the
    true motion; send it `help`. Ends on SIGTERM, SIGINT or `quit`.

    Example: python -m rt.robot.emulator --address 127.0.0.2 --model e
    """

    address: str = "127.0.0.2"
    """Address to listen at."""
    model: Literal["e", "cb3"] = "e"
    """e: 500 Hz, PolyScope 5.11, a UR5e; cb3: 125 Hz, PolyScope 3.15, a UR5."""
    arm: str = ""
    """Another arm on that controller: UR3, UR5, UR10, UR3e, UR5e, UR10e, UR16e, UR20, UR30."""
    polyscope: str = ""
    """Another version of PolyScope to report, such as 5.3.0."""
    control_port: int = CONTROL_PORT
    """Port of the control channel."""
    gripper: bool = False
    """Also serve a Robotiq gripper's URCap (sim.hardware.robotiq)."""
    delay_s: float = 0.004
    """From a command to the arm's first response [s]."""
    acceleration_m_s2: float = 8.0
    """Most that the arm manages [m/s^2]; five times that in rad/s^2."""
    brake_m_s2: float = 4.0
    """Deceleration of every stop that is not commanded [m/s^2]."""
    tcp: Pose = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """Active tool centre point: x y z [m], rotation vector [rad], in the flange."""
    start: Pose | None = None
    """Pose of the tool at the beginning: x y z [m], rotation vector [rad] in base. Default: a usual posture,
    the tool about 0.49 m in front and 0.49 m high, looking straight down."""
    table_z: float | None = None
    """Height of a table in base [m], which pushes back."""
    priority: bool = True
    """Real-time priority, where permitted: a controller is not late because a PC is busy."""
    until_eof: bool = False
    """End when standard input ends, as it does when the program that started this dies."""


def privileges() -> None:
    """As far as permitted; an emulator without them is late when the computer is busy."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(60))
    except OSError:
        print("rt.robot.emulator: no real-time priority; late when busy", file=sys.stderr)


def serve(config: EmulatorOptions) -> None:
    model = MODELS[config.model]
    if config.arm:
        if config.arm not in ARMS:
            raise ValueError(f"no arm {config.arm!r}; known are: {', '.join(ARMS)}")
        model = replace(model, arm=ARMS[config.arm])
    if config.polyscope:
        major, minor, bugfix = (int(v) for v in config.polyscope.split("."))
        model = replace(model, version=(major, minor, bugfix, 0))
    start = None if config.start is None else np.array(config.start)
    controller = EmulatedController(
        model,
        transform(config.tcp),
        start,
        config.delay_s,
        config.acceleration_m_s2,
        config.brake_m_s2,
    )
    controller.table_z_m = config.table_z
    began_ns, period_ns = time.monotonic_ns(), round(1e9 / model.rate_hz)

    def now_s() -> float:
        return controller.started_s + (time.monotonic_ns() - began_ns) * 1e-9

    if config.priority:
        # Before any thread is made: they inherit it. One without, asleep with the lock in its hand on a
        # busy computer, would hold every tick up.
        privileges()
    lock, over = threading.Lock(), threading.Event()
    server = Server(config.address, controller, now_s)
    channel = Channel(config.address, config.control_port, server, lock, over)
    channel.monotonic_ns = lambda: began_ns + controller.ticks * period_ns
    if config.gripper:
        try:
            gripper = importlib.import_module("sim.hardware.robotiq")
        except ImportError as error:
            raise OSError(f"--gripper: {error}") from error
        threading.Thread(
            target=gripper.serve,
            args=(config.address, 63352, lambda: channel.gripper_fault),
            daemon=True,
        ).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    if config.until_eof:

        def until_eof() -> None:
            while os.read(0, 4096):
                pass
            over.set()

        threading.Thread(target=until_eof, daemon=True).start()
    print(
        f"emulating {config.model} at {config.address}, {model.rate_hz} Hz; control channel on port "
        f"{config.control_port}: {', '.join(c.split()[0] for c in COMMANDS)}",
        flush=True,
    )
    while not over.is_set():
        due_ns = began_ns + (controller.ticks + 1) * period_ns
        left_s = (due_ns - time.monotonic_ns()) * 1e-9
        if server.frozen:
            time.sleep(max(left_s, 0))  # what comes meanwhile stays in the sockets
            if left_s > 0:
                continue
        else:
            with lock:
                server.wait(0)
            if left_s > 0:
                server.selector.select(left_s)  # sleeps until something comes; served above
                continue
        with lock:
            controller.tick()
            server.publish()


def main() -> int:
    try:
        serve(tyro.cli(EmulatorOptions, prog="python -m rt.robot.emulator"))
    except (OSError, ValueError) as error:
        print(f"rt.robot.emulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
