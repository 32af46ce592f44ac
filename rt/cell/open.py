"""Open devices, and the limits they run under, from the options (rt.cell.options) and the cell file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError
from rt.cell.cell import Cell, open_cell
from rt.cell.file import CellFile, Grasping, load_cell
from rt.cell.options import ServoOptions
from rt.cell.transform import CellError
from rt.gripper import GRIPPERS, GripperError, open_gripper
from rt.guard.rows import Limits
from rt.hand import load_hand
from rt.loop import SpeedBound, slower
from rt.pose import inverse
from rt.robot import Robot, RobotError, RobotState
from rt.robot.kinematics import ArmModel
from rt.view import END_HEIGHT_M

ROBOTS, CAMERAS = ("twin", "ur"), ("realsense",)
_BELOW_LIMIT = 0.9
"""Part of the guard's speeds that the loop asks for sideways: the way down comes on top."""


@dataclass(frozen=True)
class Devices:
    """All that is settled before anything is opened."""

    robot: str
    hand: str
    cell: CellFile | None = None
    gripper: str = "none"
    model_path: Path | None = None
    model: dict[str, str] = field(default_factory=dict)
    """What the cell demands of the model's contract."""
    limits: Limits = field(default_factory=Limits)
    pace: SpeedBound = field(default_factory=SpeedBound)
    grasping: Grasping = field(default_factory=Grasping)
    to_start: bool = False


def settle(config: ServoOptions) -> Devices:
    """Resolve defaults, and refuse what does not go together. Raises CellError, RobotError, ..."""
    cell = None if config.cell is None else load_cell(config.cell)
    robot = config.robot or ("twin" if cell is None else cell.robot.kind)
    if robot not in ROBOTS:
        raise RobotError(f"no robot {robot!r}; known are: {', '.join(ROBOTS)}")
    if config.camera and config.camera not in CAMERAS:
        raise CameraError(f"no camera {config.camera!r}; known are: {', '.join(CAMERAS)}")
    if config.gripper and config.gripper not in (*GRIPPERS, "none"):
        raise GripperError(
            f"no gripper {config.gripper!r}; known are: {', '.join(sorted(GRIPPERS))}, none"
        )
    if robot == "twin":
        if config.camera or config.gripper or config.host:
            raise RobotError(
                "the twin brings its own camera and gripper; leave --camera, --gripper and --host out"
            )
        limits = config.limits
        if config.speed_scale != 1:
            limits = slower(limits, config.speed_scale, limits.max_speed_m_s, limits.max_turn_deg_s)
        return Devices(
            robot, config.hand or "robotiq_2f85", None, model_path=config.model, limits=limits
        )
    if cell is None:
        raise CellError(
            f"--robot {robot} needs --cell: the mount, the workspace and the limits; begin with "
            "`python -m rt.cell example > cell.toml`"
        )
    if config.fast:
        raise RobotError("--fast is for the twin: a real arm's time cannot be hurried")
    return _real(config, cell)


def _real(config: ServoOptions, cell: CellFile) -> Devices:
    limits = _override(cell.limits, config.limits, config.limits_given)
    limits = slower(limits, config.speed_scale, cell.robot.max_speed_m_s, cell.robot.max_turn_deg_s)
    pace = SpeedBound(
        _BELOW_LIMIT * limits.max_speed_m_s, float(np.radians(_BELOW_LIMIT * limits.max_turn_deg_s))
    )
    grasping = replace(
        cell.grasp,
        speed_m_s=cell.grasp.speed_m_s * config.speed_scale,
        lift_speed_m_s=min(cell.grasp.lift_speed_m_s * config.speed_scale, pace.speed_m_s),
    )
    return Devices(
        robot=config.robot or cell.robot.kind,
        hand=config.hand or cell.hand,
        cell=cell,
        gripper=config.gripper or cell.gripper.kind,
        model_path=config.model or cell.model_path,
        model={
            "weights_sha256": cell.model.weights_sha256,
            "training_set": cell.model.training_set,
        },
        limits=limits,
        pace=pace,
        grasping=grasping,
        to_start=True,
    )


def _override(limits: Limits, given: Limits, names: Sequence[str] = ()) -> Limits:
    """The cell's limits, but for those that were given on the command line: `names`, and whatever is not
    as by default."""
    usual = Limits()
    changed = {
        f.name: value
        for f in fields(Limits)
        if (value := getattr(given, f.name)) != getattr(usual, f.name) or f.name in names
    }
    return replace(limits, **changed)


def open_devices(config: ServoOptions, devices: Devices) -> Cell:
    """Open robot and camera; the gripper is prepared. Nothing moves. Raises the devices' errors."""
    if devices.cell is None:
        mount = config.mount if config.sensor == "ideal" else "wrist"
        world = {"mount": mount, "sensor": config.sensor, "hand": devices.hand}
        return open_cell("twin", seed=config.seed, scene=config.scene, **world)
    file, limits = devices.cell, devices.limits
    from rt.camera.realsense import open_camera
    from rt.robot.ur.driver import open_robot

    host = config.host or file.robot.host
    with ExitStack() as stack:
        robot = open_robot(
            host,
            rate_hz=config.rate,
            T_flange_hand=file.robot.T_flange_hand,
            max_speed_m_s=file.robot.max_speed_m_s,
            max_acceleration_m_s2=file.robot.max_acceleration_m_s2,
            max_turn_deg_s=file.robot.max_turn_deg_s,
            max_target_age_s=1 / config.rate + limits.max_target_age_s,
            speed_scale=config.speed_scale,
            max_silence_s=file.robot.max_silence_s,
            watchdog_hz=file.robot.watchdog_hz,
        )
        stack.push(robot)
        camera = open_camera(
            file.camera.T_hand_camera,
            serial=file.camera.serial,
            width=file.camera.width,
            height=file.camera.height,
            rate_hz=file.camera.rate_hz,
            final_height_m=END_HEIGHT_M,
            device=config.camera_device or None,
        )
        stack.push(camera)
        gripper = None
        if devices.gripper != "none":
            gripper = open_gripper(
                devices.gripper,
                host=file.gripper.host or host,
                port=file.gripper.port,
                opening_m=load_hand(devices.hand).opening_m,
                force_N=file.gripper.force_N,
                speed_m_s=file.gripper.speed_m_s,
                timeout_s=file.gripper.timeout_s,
            )
        stack.pop_all()
        info = {
            "file": str(file.path),
            "host": host,
            "controller": robot.about,
            "camera": camera.info,
            "T_hand_camera": file.camera.T_hand_camera.tolist(),
            "calibration": file.camera.calibration,
            "T_flange_hand": file.robot.T_flange_hand.tolist(),
            "T_robot_table": file.T_robot_table.tolist(),
            "gripper": devices.gripper,
            "speed_scale": config.speed_scale,
        }
        return Cell(
            InTable(robot, file.T_robot_table), camera, devices.robot, info, gripper=gripper
        )


class InTable(AbstractContextManager["InTable"]):
    """An arm as seen from the table's frame (z = 0 on the table, z up), which the loop calls `base`."""

    def __init__(self, robot: Robot, T_robot_table: NDArray[np.float64]) -> None:
        self.robot, self._T = robot, T_robot_table
        self.T_robot_base = T_robot_table
        self.arm_model: ArmModel | None = getattr(robot, "arm_model", None)
        self._T_table_robot = inverse(T_robot_table)
        self._turn = np.kron(np.eye(2), self._T_table_robot[:3, :3])

    def now_ns(self) -> int:
        return self.robot.now_ns()

    def state(self) -> RobotState:
        state = self.robot.state()
        return replace(
            state,
            T_base_hand=self._T_table_robot @ state.T_base_hand,
            twist=self._turn @ state.twist,
            wrench=None if state.wrench is None else self._turn @ state.wrench,
        )

    def move(self, T_base_hand: NDArray[np.float64]) -> None:
        self.robot.move(self._T @ T_base_hand)

    def stop(self) -> None:
        self.robot.stop()

    def __enter__(self) -> InTable:
        self.robot.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.robot.__exit__(*error)
