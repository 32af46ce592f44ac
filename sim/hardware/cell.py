"""An emulated cell for measurements: a UR controller with a gripper, and rt.servo run against it.

Arm and gripper are `rt.robot.emulator` in a process of its own, the camera is the RealSense library's
software device fed by a renderer that follows the arm's true pose: only matter is simulated.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rt.cell.file import load_cell
from rt.pose import top_down
from rt.robot.ur_pose import pose_vector
from rt.tools.process import children
from sim.hardware.ur.process import Emulator, start_emulator

CELL = """\
[robot]
kind = "ur"
host = "{host}"
T_flange_hand = {{ xyz_m = [0.0, 0.0, 0.163], rpy_deg = [0.0, 0.0, 90.0] }}
max_silence_s = {silence}

[camera]
kind = "realsense"
T_hand_camera = {{ xyz_m = [0.0, -0.07, -0.10], rpy_deg = [-12.34, 0.0, 0.0] }}

[gripper]
kind = "robotiq"
hand = "robotiq_2f85"

[workspace]
table_height_m = 0.0

[limits]
workspace_min_m = [-0.8, -0.6]
workspace_max_m = [-0.2, 0.6]

[place]
pose = [-0.45, 0.30, 0.22, 0.0]
home = [-0.45, -0.1, 0.30]
look_m = [0.28, 0.28]
carry_m = 0.28
"""
PLACE_M = (-0.45, 0.30)
"""x, y of the bin, on the table."""
START = (-0.45, -0.1, 0.36, 0.0)
"""The hand at first: x, y, z [m], yaw [rad] in base."""
BELOW_START_M = 0.345
"""Below this it is on its way down to the start height."""
_OBJECT_M = 0.04
"""Width of what the emulated gripper finds between its fingers."""


def patient(rate_hz: float = 15.0, ages_s: float = 0.8) -> list[str]:
    """Options of a run on a computer that others keep busy: few cycles, old data and late cycles allowed."""
    options = ["--patience", "120", "--rate", f"{rate_hz:g}", "--candidates", "64"]
    for age in ("max-frame-age-s", "max-state-age-s", "max-target-age-s"):
        options += [f"--limits.{age}", f"{ages_s:g}"]
    return [*options, "--limits.max-exposure-gap-s", "0.3", "--limits.max-missed-in-a-row", "1000"]


@dataclass(frozen=True)
class EmulatedCell:
    """Running emulated cell, as `emulated_cell` yields it."""

    emulator: Emulator
    cell: Path
    control_port: int

    def servo(self, out: Path, *more: str, scene: int = 7) -> list[str]:
        """Arguments of rt.servo."""
        source = (
            f"sim.hardware.realsense:emulated?host={self.emulator.address}&control_port={self.control_port}"
            f"&scene={scene}&cell={self.cell}"
        )
        device = ["--camera-device", source, "--controller", "ensemble"]
        return ["--cell", str(self.cell), *device, "--out", str(out), *more]

    def clear(self, out: Path, *more: str, scene: int = 7) -> list[str]:
        """Arguments of rt.clear: the gripper takes objects from the scene, and gone.json, beside the cell
        file, keeps what lies in the bin."""
        arguments = self.servo(out, *more, scene=scene)
        place, origin = (",".join(map(str, xy)) for xy in (PLACE_M, START[:2]))
        device = arguments.index("--camera-device") + 1
        arguments[device] += (
            f"&place={place}&origin={origin}&gone={self.cell.with_name('gone.json')}"
        )
        return arguments

    def start(
        self,
        out: Path,
        arguments: Sequence[str],
        module: Sequence[str] = ("rt.servo",),
        nice: int = 0,
    ) -> subprocess.Popen[str]:
        """Run it, as `nice` as told; what it says goes to out/said.txt."""
        out.mkdir(parents=True, exist_ok=True)
        with (out / "said.txt").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", *module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
            )
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        given = (process, out / "said.txt")
        threading.Thread(target=_put_first, args=given, daemon=True).start()
        return process

    def clocks_offset_s(self) -> float:
        """The emulated controller's time less time.monotonic."""
        state = self.emulator.tell("state")
        return float(state["time_s"]) - float(state["monotonic_ns"]) * 1e-9


def _put_first(process: subprocess.Popen[str], said: Path) -> None:
    """Priority for the camera's renderer, where permitted: a camera is not late because a PC is busy.
    (The emulated arm does so itself.) Real-time priority only once its scene is made, which takes all
    that it can get for seconds: the kernel would then hold every real-time program back for a while."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError):
            if found := children(process.pid, "sim.hardware.renderer"):
                if "sim.hardware.renderer: scene" in said.read_text():
                    os.sched_setscheduler(found[0], os.SCHED_FIFO, os.sched_param(40))
                    return
                os.setpriority(os.PRIO_PROCESS, found[0], -20)
        time.sleep(0.05)


@contextmanager
def emulated_cell(
    folder: Path, number: int = 0, max_silence_s: float = 0.05
) -> Iterator[EmulatedCell]:
    """An emulator at rest above the scene, and a cell file for it in `folder`. number: of several at once.
    max_silence_s: after so long without news the controller counts as frozen."""
    host, port = f"127.0.0.{80 + number}", 31080 + number
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cell.toml"
    path.write_text(CELL.format(host=host, silence=max_silence_s))
    tool = pose_vector(load_cell(path).robot.T_flange_hand)
    start = pose_vector(top_down(*START))
    options = ["--gripper", "--tcp", *map(str, tool), "--start", *map(str, start)]
    with start_emulator(host, *options, control_port=port) as emulator:
        emulator.tell(f"gripper object={_OBJECT_M}")
        yield EmulatedCell(emulator, path, port)


def wait_until_moving(
    cell: EmulatedCell, process: subprocess.Popen[str], timeout_s: float, below_m: float
) -> bool:
    """Until the hand comes down through a height; False if the run ended before, or took too long."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        state = cell.emulator.tell("state")
        if state["pose"][2] < below_m and np.linalg.norm(state["twist"][:3]) > 0.02:
            return True
        time.sleep(0.005)
    return False
