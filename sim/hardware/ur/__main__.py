"""The command `python -m rt.robot.emulator`: a UR controller on this computer, with an arm behind it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rt.cell.file import CellFile, load_cell
from rt.pose import top_down
from rt.robot.kinematics import ARMS, ArmModel, singularity
from rt.robot.ur_pose import pose_vector, transform
from rt.tools.command import parsed
from sim.hardware.ur.arm import home
from sim.hardware.ur.channel import COMMANDS, CONTROL_PORT, Channel
from sim.hardware.ur.controller import MODELS, EmulatedController
from sim.hardware.ur.wire import Server

START_ABOVE_M = 0.36
"""Height of the hand above the table at the start of an emulated cell."""
OBJECT_M = 0.04
"""Width between the fingers of an emulated cell."""
Pose = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class EmulatorOptions:
    """An emulated UR controller: RTDE 30004, programs 30003, dashboard 29999, and with --gripper 63352.

    Use 127.0.0.2 and up, one address for each emulator: at 127.0.0.1 ur-rtde leaves out its check of
    remote control. With --cell address, tool centre point, gripper, table and a start pose above the
    workspace are the cell's, and the lines that check it and run the loop are printed. A control channel (one
    line in, one line of JSON out) makes faults and tells the true motion; send it `help`. Ends on SIGTERM,
    SIGINT or `quit`.

    Example: python -m rt.robot.emulator --address 127.0.0.2 --model e

    Example: python -m rt.robot.emulator --cell cell.toml
    """

    cell: Path | None = None
    """A cell file (rt.cell) to emulate."""
    address: str = ""
    """Address to listen at. Default: the cell's if it is one of this computer (127...), else 127.0.0.2."""
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
    scene: int = 7
    """Of the camera in the printed line: number of the simulated scene."""
    delay_s: float = 0.004
    """From a command to the arm's first response [s]."""
    acceleration_m_s2: float = 8.0
    """Most that the arm manages [m/s^2]; five times that in rad/s^2."""
    brake_m_s2: float = 4.0
    """Deceleration of every stop that is not commanded [m/s^2]."""
    tcp: Pose | None = None
    """Active tool centre point: x y z [m], rotation vector [rad], in the flange. Default: the cell's, or the
    flange."""
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


def of_cell(config: EmulatorOptions) -> tuple[EmulatorOptions, str]:
    """The options with what the cell says, and those of a run against them. Raises CellError,
    and ValueError if the arm does not reach above the workspace."""
    assert config.cell is not None
    cell = load_cell(config.cell)
    local = cell.robot.host.startswith("127.") and cell.robot.host != "127.0.0.1"
    address = config.address or (cell.robot.host if local else "127.0.0.2")
    gripper = cell.gripper.kind != "none"
    arm = ARMS[config.arm] if config.arm in ARMS else MODELS[config.model].arm
    start = config.start or above_workspace(cell, arm)
    device = (
        f"sim.hardware.realsense:emulated?host={address}&control_port={config.control_port}"
        f"&scene={config.scene}&cell={config.cell}"
    )
    if cell.camera.width and cell.camera.height:
        device += f"&size={cell.camera.width}x{cell.camera.height}&rate_hz={cell.camera.rate_hz:g}"
    line = f'--host {address} --camera-device "{device}"'
    tcp: Any = config.tcp or tuple(pose_vector(cell.robot.T_flange_hand).tolist())
    table_z = config.table_z
    if table_z is None and cell.T_robot_table[2, 2] > 0.999:
        table_z = float(cell.T_robot_table[2, 3])
    filled = replace(
        config, address=address, gripper=gripper, tcp=tcp, start=start, table_z=table_z
    )
    return filled, line


def above_workspace(cell: CellFile, arm: ArmModel) -> Any:
    """A pose (6,) of the tool, looking straight down START_ABOVE_M over the workspace's middle, or over
    another place in it that the arm reaches. Raises ValueError."""
    low, high = (np.array(p) for p in (cell.limits.workspace_min_m, cell.limits.workspace_max_m))
    z = min(START_ABOVE_M, cell.limits.max_height_m)
    for part in (0.5, 0.35, 0.65, 0.2, 0.8):
        for yaw in (0.0, np.pi / 2, -np.pi / 2):
            x, y = low + part * (high - low)
            T = cell.T_robot_table @ top_down(x, y, z, yaw)
            with suppress(ValueError, np.linalg.LinAlgError):
                q = home(arm, cell.robot.T_flange_hand, pose_vector(T))
                if (
                    singularity(arm, q)[0] > 2 * cell.limits.min_singular_deg
                    and np.abs(q).max() < 6
                ):
                    return tuple(pose_vector(T).tolist())
    raise ValueError(
        f"no place in the workspace {low.tolist()} to {high.tolist()} m, {z:g} m above the table, is within "
        f"the reach of a {arm.name} with the hand straight down; give --start, --arm or another workspace"
    )


def serve(config: EmulatorOptions) -> None:
    line = ""
    if config.cell is not None:
        config, line = of_cell(config)
    config = replace(config, address=config.address or "127.0.0.2")
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
        transform(config.tcp or (0.0,) * 6),
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
        fingers = gripper.serve(config.address, 63352, lambda: channel.gripper_fault)
        controller.tip_travel_m = lambda: fingers.travel_m
        if config.cell is not None:
            channel.gripper_fault = f"object={OBJECT_M}"
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
    if line:
        print("in another terminal, here, with any other options:", flush=True)
        print(f"  python -m rt.cell check {config.cell} --live {line}", flush=True)
        print(f"  python -m rt.servo --cell {config.cell} {line}", flush=True)
        if config.gripper:
            print(f"the fingers will find something {OBJECT_M * 1e3:g} mm wide", flush=True)
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
        serve(parsed(EmulatorOptions, "python -m rt.robot.emulator"))
    except (OSError, ValueError) as error:
        print(f"rt.robot.emulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
