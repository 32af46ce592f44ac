"""Open a cell: from the name of a simulated one, from a cell file, or with the options of rt.servo."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera.replay import open_replay
from rt.cell.cell import Cell
from rt.cell.devices import Devices as Devices
from rt.cell.file import CAMERAS, GRIPPERS, ROBOTS, CellFile, load_cell
from rt.cell.options import ServoOptions
from rt.cell.plausible import check_force, check_limits
from rt.cell.setup import RunSetup, SpeedBound, slower
from rt.cell.transform import CellError
from rt.controller.target import TargetPoint
from rt.gripper import GripperError
from rt.guard.limits import Limits
from rt.hand import load_hand, load_tip_travel
from rt.pose import inverse
from rt.robot import Robot, RobotState
from rt.robot.kinematics import ArmModel
from rt.tools.resolve import resolve
from rt.view import END_HEIGHT_M

CELLS = {"twin": "sim.twin:open_cell", "table": "sim.table:open_cell"}
"""Functions `open_cell(**options) -> Cell` by name; imported only when they are asked for."""
_BELOW_LIMIT = 0.9
"""Part of the guard's speeds that the loop asks for sideways: the descent adds to it."""


def open_cell(source: str | Path = "twin", **options: Any) -> Cell:
    """Open a cell; nothing moves. Leave it as a context to close its devices.

    source: `twin`, the simulated cell (options: those of sim.twin.open_cell, such as seed, scene, mount,
    sensor); a cell file (`.toml`; options: fields of ServoOptions, such as speed_scale, rate, host); or
    `module:attribute` of a function that returns a Cell (options: its own). Raises CellError, ResolveError
    and the devices' errors.
    """
    if str(source).endswith(".toml"):
        config = ServoOptions(cell=Path(source), **options)
        return open_devices(config, settle(config))
    cell: Cell = resolve("cell", str(source), CELLS, extra=("a file.toml",))(**options)
    return cell


def settle(config: ServoOptions) -> Devices:
    """Resolve the defaults and refuse options that contradict each other. Raises CellError, ResolveError."""
    cell = None if config.cell is None else load_cell(config.cell)
    robot = config.robot or ("twin" if cell is None else cell.robot.kind)
    if robot != "twin":
        resolve("robot", robot, ROBOTS, extra=("twin",))
    if config.camera:
        resolve("camera", config.camera, CAMERAS)
    if config.gripper not in ("", "none"):
        resolve("gripper", config.gripper, GRIPPERS, extra=("none",))
    if robot == "twin":
        if config.camera not in ("", "replay") or config.gripper or config.host:
            raise CellError(
                "the twin brings its own camera and gripper; leave --camera (but for replay), --gripper and "
                "--host out"
            )
        if config.camera == "replay" and not config.camera_device:
            raise CellError("--camera replay needs a recording: --camera-device session.db3")
        limits = config.limits or Limits()
        check_limits(limits)
        _check_target(config, limits)
        if config.speed_scale != 1:
            limits = slower(limits, config.speed_scale, limits.max_speed_m_s, limits.max_turn_deg_s)
        hand = config.hand or "robotiq_2f85"
        setup = RunSetup(limits, tips=load_tip_travel(hand))
        return Devices(robot, hand, model=config.model, setup=setup)
    if cell is None:
        raise CellError(
            f"--robot {robot} needs --cell: the mount, the workspace and the limits; begin with "
            "`python -m rt.cell example > cell.toml`"
        )
    if config.fast:
        raise CellError("--fast is for the twin: a real arm cannot be hurried")
    return _settle_real(config, cell, robot)


def _check_target(config: ServoOptions, limits: Limits) -> None:
    """Refuse a point that is wanted and that no hand comes to. Raises CellError."""
    if isinstance(config.target, tuple) and (why := TargetPoint(config.target).trouble(limits)):
        raise CellError(why)


def _settle_real(config: ServoOptions, cell: CellFile, robot: str) -> Devices:
    if (config.camera or cell.camera.kind) == "replay":
        raise CellError(
            f"--camera replay with the arm {robot!r}: recorded images do not follow an arm; rehearse "
            "with --robot twin"
        )
    check_limits(config.limits or cell.limits)
    _check_target(config, config.limits or cell.limits)
    limits = slower(
        config.limits or cell.limits,
        config.speed_scale,
        cell.robot.max_speed_m_s,
        cell.robot.max_turn_deg_s,
    )
    pace = SpeedBound(
        _BELOW_LIMIT * limits.max_speed_m_s, float(np.radians(_BELOW_LIMIT * limits.max_turn_deg_s))
    )
    grasping = replace(
        cell.grasp,
        speed_m_s=cell.grasp.speed_m_s * config.speed_scale,
        lift_speed_m_s=min(cell.grasp.lift_speed_m_s * config.speed_scale, pace.speed_m_s),
    )
    hand, gripper = config.hand or cell.hand, config.gripper or cell.gripper.kind
    check_force(gripper, cell.gripper.force_N, load_hand(hand))
    devices = Devices(
        robot=robot,
        hand=hand,
        cell=cell,
        gripper=gripper,
        model=config.model or cell.model_path,
        contract={
            "weights_sha256": cell.model.weights_sha256,
            "training_set": cell.model.training_set,
        },
        setup=RunSetup(
            limits, pace, grasping, load_tip_travel(hand), to_start=True, place=cell.place
        ),
    )
    _check_settings(config, devices)
    return devices


def open_devices(config: ServoOptions, devices: Devices) -> Cell:
    """Open robot and camera; the gripper is prepared. Nothing moves. Raises the devices' errors."""
    colour = config.target_function is not None
    if devices.cell is None:
        mount = config.mount if config.sensor == "ideal" else "wrist"
        world: dict[str, Any] = {"mount": mount, "sensor": config.sensor, "hand": devices.hand}
        world |= {"conveyor_m_s": config.conveyor, "colour": colour}
        cell = open_cell("twin", seed=config.seed, scene=config.scene, **world)
        if config.camera == "replay":
            cell = _with_recording(cell, config)
        return replace(cell, setup=devices.setup)
    file = devices.cell
    host = config.host or file.robot.host
    camera_kind = config.camera or file.camera.kind
    with ExitStack() as stack:
        robot = resolve("robot", devices.robot, ROBOTS)(host, **robot_settings(config, devices))
        stack.push(robot)
        camera = resolve("camera", camera_kind, CAMERAS)(
            file.camera.T_hand_camera,
            serial=file.camera.serial,
            width=file.camera.width,
            height=file.camera.height,
            rate_hz=file.camera.rate_hz,
            final_height_m=END_HEIGHT_M,
            device=config.camera_device or None,
            # A camera of the user's own knows itself whether its frames have colour.
            **({"colour": True} if colour and camera_kind == "realsense" else {}),
        )
        if isinstance(camera, AbstractContextManager):
            stack.push(camera)
        gripper = make_gripper(config, devices)
        stack.pop_all()
        info = {
            "file": str(file.path),
            "host": host,
            "controller": getattr(robot, "about", ""),
            "camera": getattr(camera, "info", {}),
            "T_hand_camera": file.camera.T_hand_camera.tolist(),
            "calibration": file.camera.calibration,
            "T_flange_hand": file.robot.T_flange_hand.tolist(),
            "T_robot_table": file.T_robot_table.tolist(),
            "gripper": devices.gripper,
            "speed_scale": config.speed_scale,
        }
        return Cell(
            InTable(robot, file.T_robot_table),
            camera,
            devices.robot,
            info,
            gripper=gripper,
            setup=devices.setup,
            devices=devices,
        )


def _with_recording(cell: Cell, config: ServoOptions) -> Cell:
    """A twin whose images are recorded ones: the whole loop on true pictures, which do not follow the arm."""
    mount = None if config.cell is None else load_cell(config.cell).camera.T_hand_camera
    path = Path(config.camera_device)
    camera = open_replay(path, None if path.suffix == ".mcap" else mount, now_ns=cell.robot.now_ns)
    info = {**cell.info, "camera": camera.info, "images": "recorded; they do not follow the arm"}
    return replace(cell, camera=camera, info=info, true_distance_m=None, gripper=None)


def robot_settings(config: ServoOptions, devices: Devices) -> dict[str, Any]:
    """Arguments of an open_robot, beside the host."""
    assert devices.cell is not None
    part, limits = devices.cell.robot, devices.setup.limits or devices.cell.limits
    return {
        "rate_hz": config.rate,
        "T_flange_hand": part.T_flange_hand,
        "max_speed_m_s": part.max_speed_m_s,
        "max_acceleration_m_s2": part.max_acceleration_m_s2,
        "max_turn_deg_s": part.max_turn_deg_s,
        "max_target_age_s": 1 / config.rate + limits.max_target_age_s,
        "speed_scale": config.speed_scale,
        "max_silence_s": part.max_silence_s,
        "watchdog_hz": part.watchdog_hz,
    }


def make_gripper(config: ServoOptions, devices: Devices) -> Any:
    """The gripper, not connected yet; None without one. Raises GripperError for settings that it lacks."""
    if devices.gripper == "none" or devices.cell is None:
        return None
    part = devices.cell.gripper
    return resolve("gripper", devices.gripper, GRIPPERS)(
        host=part.host or config.host or devices.cell.robot.host,
        port=part.port,
        opening_m=load_hand(devices.hand).opening_m,
        force_N=part.force_N,
        speed_m_s=part.speed_m_s,
        timeout_s=part.timeout_s,
    )


def _check_settings(config: ServoOptions, devices: Devices) -> None:
    """Refuse settings that the project's own drivers refuse, before anything is opened. Raises CellError."""
    if devices.robot == "ur":
        from rt.robot.ur.settings import StreamSetup

        host = config.host or (devices.cell.robot.host if devices.cell else "")
        try:
            StreamSetup(host=host, **robot_settings(config, devices))
        except ValueError as error:
            raise CellError(f"robot: {error}") from error
    if devices.gripper in GRIPPERS:
        try:
            make_gripper(config, devices)
        except GripperError as error:
            raise CellError(str(error)) from error


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
