"""RTDE output variables that the emulator offers: name, type, and where the value comes from.

Those that ur-rtde asks for by default are all here; what the emulation does not model (currents,
temperatures, input and output pins) is constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from rt.robot.ur_pose import pose_vector
from sim.hardware.ur.controller import EmulatedController

FORMATS = {
    "DOUBLE": "d",
    "UINT64": "Q",
    "UINT32": "I",
    "INT32": "i",
    "UINT8": "B",
    "BOOL": "?",
    "VECTOR6D": "6d",
    "VECTOR3D": "3d",
    "VECTOR6INT32": "6i",
}
"""Type names of the protocol, as struct writes them (big-endian)."""

Value = Callable[[EmulatedController], Any]


def _zeros(kind: str, n: int = 1) -> tuple[str, Value]:
    return kind, lambda c: [0] * n


def _is(kind: str, value: Any) -> tuple[str, Value]:
    return kind, lambda c: value


_POSE: Value = lambda c: pose_vector(c.arm.T)  # noqa: E731
_Q: Value = lambda c: c.arm.q  # noqa: E731
_QD: Value = lambda c: c.arm.qd  # noqa: E731
_TWIST: Value = lambda c: c.arm.twist  # noqa: E731

FIELDS: dict[str, tuple[str, Value]] = {
    "timestamp": ("DOUBLE", lambda c: [c.time_s]),
    "target_q": ("VECTOR6D", _Q),
    "target_qd": ("VECTOR6D", _QD),
    "actual_q": ("VECTOR6D", _Q),
    "actual_qd": ("VECTOR6D", _QD),
    "actual_TCP_pose": ("VECTOR6D", _POSE),
    "target_TCP_pose": ("VECTOR6D", _POSE),
    "actual_TCP_speed": ("VECTOR6D", _TWIST),
    "target_TCP_speed": ("VECTOR6D", _TWIST),
    "actual_TCP_force": ("VECTOR6D", lambda c: c.wrench),
    "ft_raw_wrench": ("VECTOR6D", lambda c: c.wrench + c.zero),
    "tcp_offset": ("VECTOR6D", lambda c: pose_vector(c.arm.T_flange_tcp)),
    "robot_mode": ("INT32", lambda c: [c.robot_mode]),
    "safety_mode": ("INT32", lambda c: [c.safety_mode]),
    "safety_status": ("INT32", lambda c: [c.safety_mode]),
    "safety_status_bits": ("UINT32", lambda c: [c.safety_bits]),
    "robot_status_bits": ("UINT32", lambda c: [c.status_bits]),
    "runtime_state": ("UINT32", lambda c: [c.runtime]),
    "joint_mode": _is("VECTOR6INT32", [253] * 6),
    "speed_scaling": ("DOUBLE", lambda c: [c.speed_slider]),
    "speed_scaling_combined": ("DOUBLE", lambda c: [c.speed_slider]),
    "target_speed_fraction": ("DOUBLE", lambda c: [c.speed_slider]),
    "payload": ("DOUBLE", lambda c: [c.payload_kg]),
    "actual_main_voltage": _is("DOUBLE", [48.0]),
    "actual_robot_voltage": _is("DOUBLE", [48.0]),
    "joint_temperatures": _is("VECTOR6D", [30.0] * 6),
    "actual_tool_accelerometer": _is("VECTOR3D", [0.0, 0.0, -9.82]),
}
for _name in ("target_qdd", "target_current", "target_moment", "actual_current", "payload_inertia"):
    FIELDS[_name] = _zeros("VECTOR6D", 6)
for _name in ("joint_control_output", "actual_joint_voltage", "actual_current_as_torque"):
    FIELDS[_name] = _zeros("VECTOR6D", 6)
for _name in ("payload_cog", "elbow_position", "elbow_velocity"):
    FIELDS[_name] = _zeros("VECTOR3D", 3)
for _name in ("actual_momentum", "actual_robot_current", "actual_execution_time"):
    FIELDS[_name] = _zeros("DOUBLE")
for _name in ("payload_mass", "tcp_force_scalar", "tool_temperature", "tool_output_current"):
    FIELDS[_name] = _zeros("DOUBLE")
for _side in ("input", "output"):
    for _k in range(2):
        FIELDS[f"standard_analog_{_side}{_k}"] = _zeros("DOUBLE")
    FIELDS[f"actual_digital_{_side}_bits"] = _zeros("UINT64")


def output(name: str) -> tuple[str, Value] | None:
    """Type and value of an output variable; None if there is none of that name."""
    if name in FIELDS:
        return FIELDS[name]
    register = re.fullmatch(r"output_(int|double)_register_(\d+)", name)
    if register is None or int(register[2]) > 47:
        return None
    k = int(register[2])
    if register[1] == "int":
        return "INT32", lambda c: [c.out_ints[k]]
    return "DOUBLE", lambda c: [c.out_doubles[k]]


def input_type(name: str) -> str:
    """Type of an input variable; NOT_FOUND for what the emulator does not know."""
    if re.fullmatch(r"input_int_register_\d+", name):
        return "INT32"
    if re.fullmatch(r"input_double_register_\d+", name):
        return "DOUBLE"
    return "VECTOR6D" if name == "external_force_torque" else "NOT_FOUND"


def values(fields: list[tuple[str, Value]], controller: EmulatedController) -> list[Any]:
    """All values of a recipe, flat, in order."""
    flat: list[Any] = []
    for _, value in fields:
        v = value(controller)
        flat.extend(v.tolist() if isinstance(v, np.ndarray) else v)
    return flat
