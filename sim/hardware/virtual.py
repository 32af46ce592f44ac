"""The emulated cell on virtual time, in one process: faster than real time, and the same on every computer.

The emulated controller (sim.hardware.ur.controller), the UR driver's own streaming code (SetpointStream,
Follower, ClockMap) and its loop side (UR) are the real ones; between them is no socket and no process, and
their clock is `VirtualCell.now_ns`. Camera, object and gripper are the simplest that let a run grasp.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError, Frame, StaleFrameError
from rt.cell.cell import Cell
from rt.distance.contract import Contract
from rt.gripper import GripperError, GripperState
from rt.hand import load_hand, load_tip_travel
from rt.pose import grasp_distance, to_view, top_down
from rt.robot.target import xyz_yaw
from rt.robot.ur.driver import UR
from rt.robot.ur.link import Link, UrError
from rt.robot.ur.settings import StreamSetup
from rt.robot.ur.shared import attach, create
from rt.robot.ur.stream import SetpointStream, leave
from rt.robot.ur_pose import pose_vector, transform
from rt.view import VIEW
from sim.hardware.ur.controller import MODELS, PLAYING, STOPPED, EmulatedController

Array = NDArray[np.float64]

HAND_AT = np.array([-0.45, -0.10, 0.30, 0.2])
"""The hand at first: x, y, z [m], yaw [rad] in base."""
OBJECT = np.array([-0.43, -0.12, 0.006, 0.0])
WIDE_M, HIGH_M = 0.04, 0.03
FRAME_NS, DELAY_NS = 33_333_333, 25_000_000
MAX_SILENCE_S = 0.05
_T_FLANGE_HAND = transform((0.0, 0.0, 0.163, 0.0, 0.0, 0.0))


class VirtualCell:
    """Devices and their clock. Faults are switched on and off as attributes, or at `controller`."""

    def __init__(self) -> None:
        self.now_ns = 10**12
        start = pose_vector(top_down(*HAND_AT))
        self.controller = EmulatedController(MODELS["cb3"], _T_FLANGE_HAND, start, 0.004, 8.0, 4.0)
        self.tick_ns = round(self.controller.dt * 1e9)
        self.due_ns = self.now_ns + self.tick_ns
        self.frozen = self.repeats = self.dropped = False
        """The network: no packet goes either way; the same packet again and again; the connection is cut."""
        self.camera_fault = self.gripper_fault = ""
        """Camera: stall, zero, nan. Gripper: silent."""
        self.stream: SetpointStream | None = None
        self.camera = VirtualCamera(self)
        self.gripper = VirtualGripper(self)

    # --- time -------------------------------------------------------------------------------------

    def advance(self, ns: int) -> None:
        """Let time pass, for the controller, the streaming code and the camera."""
        end = self.now_ns + ns
        while self.due_ns <= end:
            self.now_ns = max(self.due_ns, self.now_ns)
            self.due_ns += self.tick_ns
            self.controller.tick()
            self.camera.expose()
            if self.stream is not None:
                self._tick_stream(self.stream)
        self.now_ns = max(end, self.now_ns)

    def _tick_stream(self, stream: SetpointStream) -> None:
        """As rt.robot.ur.stream.run does it, each period."""
        try:
            stream.tick()
        except UrError as fault:
            self.stream = None
            leave(stream.state, fault)
            stream.end_paused(fault)
            if fault.name == "frozen":
                stream.coast()
            self.child.code = 1

    def sleep(self, seconds: float) -> None:
        self.advance(max(round(seconds * 1e9), 0))

    @contextmanager
    def clocks(self) -> Iterator[None]:
        """The modules that drive the arm take this clock for theirs."""
        ours = SimpleNamespace(
            monotonic_ns=lambda: self.now_ns, monotonic=lambda: self.now_ns * 1e-9, sleep=self.sleep
        )
        period = self.tick_ns
        waits = SimpleNamespace(wait=lambda: self.advance(period))
        with ExitStack() as stack:
            for name in (
                "rt.robot.ur.stream",
                "rt.robot.ur.link",
                "rt.robot.ur.driver",
                "rt.guard.force",
            ):
                stack.enter_context(mock.patch.object(importlib.import_module(name), "time", ours))
            streaming: Any = importlib.import_module("rt.robot.ur.stream")
            stack.enter_context(mock.patch.object(streaming, "Clock", lambda *_: waits))
            stack.enter_context(mock.patch.object(streaming, "connect", self._connect))
            stack.enter_context(mock.patch.object(streaming, "stop_program", self._stop_program))
            for name in ("die_with_the_loop", "give_up_in"):
                stack.enter_context(mock.patch.object(streaming, name, lambda _: None))
            yield

    # --- the arm ----------------------------------------------------------------------------------

    def _connect(self, host: str) -> Link:
        client = VirtualClient(self)
        return Link(host, client, client, float(self.controller.model.rate_hz), {"payload_kg": 0.0})

    def _stop_program(self, *_: Any) -> bool:
        """The dashboard's `stop`."""
        reached = not (self.frozen or self.dropped)
        if reached and self.controller.runtime != STOPPED:
            self.controller.program_stop()
        return reached

    def open_robot(self) -> UR:
        """The driver, connected and armed. Raises UrError. Inside `clocks` only."""
        state, command = attach(create())
        robot = UR.__new__(UR)
        robot.setup = StreamSetup(
            "virtual", _T_FLANGE_HAND.tolist(), max_silence_s=MAX_SILENCE_S, realtime=False
        )
        robot._state, robot._command, robot._lost = state, command, None
        robot.about, robot.arm_model, robot.remarks = {}, None, []
        self.child = VirtualChild(self)
        robot._child = self.child  # type: ignore[assignment]
        self.stream = None
        self.stream = SetpointStream(robot.setup, state, command, threading.Event())
        self.advance(2 * self.tick_ns)
        robot.state()
        return robot

    def close_robot(self) -> None:
        """The end of the streaming process."""
        if self.stream is not None:
            stream, self.stream = self.stream, None
            stream.over.set()
            try:
                stream.finish()
            except UrError as fault:
                leave(stream.state, fault)
            self.child.code = 0

    def open(self) -> Cell:
        """A cell for rt.Servo, inside `clocks`. Raises UrError."""
        return Cell(
            self.open_robot(),
            self.camera,
            "virtual",
            advance=self.advance,
            gripper=self.gripper,
            simulated=True,
        )

    @property
    def hand(self) -> Array:
        """(4,) of x, y, z [m], yaw [rad] in base: where it truly is."""
        return xyz_yaw(self.controller.arm.T)


class VirtualChild:
    """The streaming process as UR sees it."""

    pid = 0
    end_text = "has ended"

    def __init__(self, cell: VirtualCell) -> None:
        self._cell = cell
        self.code: int | None = None

    def end(self, *_: Any, **__: Any) -> None:
        self._cell.close_robot()


class VirtualClient:
    """ur-rtde's two interfaces, over the controller itself."""

    def __init__(self, cell: VirtualCell) -> None:
        self._cell, self._c = cell, cell.controller
        self._last: tuple[Any, ...] = ()
        self._read()

    def _read(self) -> tuple[Any, ...]:
        """The newest packet that the network lets through."""
        c = self._c
        silent = self._cell.frozen or self._cell.repeats or self._cell.dropped
        if not self._last or not (silent or self._last[0] == c.time_s):
            self._last = (
                c.time_s, pose_vector(c.arm.T), c.arm.twist, c.wrench.copy(), c.arm.q.copy(), c.arm.qd.copy(),
                c.robot_mode, c.runtime, c.safety_bits, c.speed_slider, c.payload_kg,
            )  # fmt: skip
        return self._last

    def getTimestamp(self) -> float:
        return float(self._read()[0])

    def getActualTCPPose(self) -> Any:
        return self._read()[1]

    def getActualTCPSpeed(self) -> Any:
        return self._read()[2]

    def getActualTCPForce(self) -> Any:
        return self._read()[3]

    def getActualQ(self) -> Any:
        return self._read()[4]

    def getActualQd(self) -> Any:
        return self._read()[5]

    def getRobotMode(self) -> int:
        return int(self._read()[6])

    def getRuntimeState(self) -> int:
        return int(self._read()[7])

    def getSafetyStatusBits(self) -> int:
        return int(self._read()[8])

    def getTargetSpeedFraction(self) -> float:
        return float(self._read()[9])

    def getSpeedScaling(self) -> float:
        return float(self._read()[9])

    def getPayload(self) -> float:
        return float(self._read()[10])

    def isConnected(self) -> bool:
        return not self._cell.dropped

    def isProgramRunning(self) -> bool:
        return self.getRuntimeState() == PLAYING

    def getTCPOffset(self) -> Any:
        return pose_vector(self._c.arm.T_flange_tcp)

    def reuploadScript(self) -> None:
        if not (self._cell.frozen or self._cell.dropped):
            self._c.upload("def rtde_control():\nend\n")

    def _command(self, number: int, doubles: list[float]) -> None:
        if self._cell.frozen or self._cell.dropped:
            return
        values: dict[str, float | int] = {
            f"input_double_register_{k}": v for k, v in enumerate(doubles)
        }
        self._c.receive(values | {"input_int_register_0": number}, self._c.time_s)

    def setWatchdog(self, hz: float) -> bool:
        self._command(35, [hz])
        self._cell.advance(2 * self._cell.tick_ns)
        self._command(0, [])
        self._cell.advance(2 * self._cell.tick_ns)
        return self._c.watchdog_hz == hz

    def kickWatchdog(self) -> None:
        self._command(0, [])

    def servoL(
        self, pose: list[float], v: float, a: float, t: float, look: float, gain: float
    ) -> None:
        self._command(24, [*pose, v, a, t, look, gain])

    def servoStop(self, deceleration: float) -> None:
        self._command(16, [deceleration])

    def stopScript(self) -> None:
        self._command(255, [])


class VirtualCamera:
    """The canonical view itself, over one box on a table."""

    intrinsics, T_hand_camera = VIEW.intrinsics, np.eye(4)
    info: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, cell: VirtualCell) -> None:
        self._cell, self._rays = cell, VIEW.rays().astype(np.float64)
        self._exposed: deque[tuple[int, int, Array]] = deque(maxlen=8)
        self._number, self._due_ns = 0, 0
        self.seen_from = HAND_AT

    def expose(self) -> None:
        if self._cell.now_ns >= self._due_ns and self._cell.camera_fault != "stall":
            self._number += 1
            self._due_ns = self._cell.now_ns + FRAME_NS
            self._exposed.append((self._cell.now_ns, self._number, self._cell.hand))

    def read_latest(self, max_age_s: float) -> Frame:
        ready = [e for e in self._exposed if e[0] + DELAY_NS <= self._cell.now_ns]
        age_s = (self._cell.now_ns - ready[-1][0]) * 1e-9 if ready else math.inf
        if age_s > max_age_s:
            raise StaleFrameError(age_s, max_age_s)
        stamp_ns, number, self.seen_from = ready[-1]
        depth = self._depth(self.seen_from)
        if self._cell.camera_fault == "zero":
            depth = np.zeros_like(depth)
        elif self._cell.camera_fault == "lost":
            raise CameraError("the camera is gone; check its cable")
        return Frame(stamp_ns, number, depth, self.intrinsics)

    def _depth(self, hand: Array) -> NDArray[np.float32]:
        depth = np.full(self._rays.shape[:2], hand[2])
        T = top_down(*hand)
        points = (self._rays * (hand[2] - HIGH_M)) @ T[:3, :3].T + T[:3, 3]
        on = (np.abs(points[..., :2] - OBJECT[:2]) < WIDE_M / 2).all(axis=-1)
        return np.where(on, hand[2] - HIGH_M, depth).astype(np.float32)


class VirtualGripper:
    """Fingers that find the box."""

    def __init__(self, cell: VirtualCell) -> None:
        self._cell, self._tips = cell, load_tip_travel()
        self._opening_m = load_hand().opening_m
        self._from_m = self._goal_m = self._opening_m
        self._began_ns = 0

    def open(self) -> None:
        self._start(self._opening_m)

    def close(self) -> None:
        self._start(WIDE_M)

    def _start(self, goal_m: float) -> None:
        self._from_m = self.state().width_m
        self._goal_m, self._began_ns = goal_m, self._cell.now_ns

    def state(self) -> GripperState:
        if self._cell.gripper_fault:
            raise GripperError(
                "the gripper is silent: no answer in 0.5 s; check its power and the URCap"
            )
        way = self._goal_m - self._from_m
        gone = 0.15 * (self._cell.now_ns - self._began_ns) * 1e-9
        moving = gone < abs(way)
        width = self._from_m + math.copysign(gone, way) if moving else self._goal_m
        held = not moving and self._goal_m == WIDE_M
        return GripperState(self._cell.now_ns, width, moving, held)

    def __enter__(self) -> VirtualGripper:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class VirtualDistance:
    """A perfect network for the box; or one that answers NaN."""

    contract = Contract(hand=load_hand(), training_set="virtual")
    backend = "virtual"

    def __init__(self, cell: VirtualCell) -> None:
        self._cell, self.broken = cell, False
        self._grasps = np.array([OBJECT, OBJECT + np.array([0, 0, 0, math.pi / 2])])

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        targets = to_view(self._grasps, self._cell.camera.seen_from)
        away = np.asarray(
            grasp_distance(actions[:, None], targets[None]).min(axis=1), dtype=np.float32
        )
        return np.full_like(away, np.nan) if self.broken else away
