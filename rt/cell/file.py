"""A robot cell as one TOML file: `python -m rt.cell check cell.toml`. An example: rt/cell/cell.example.toml.

Read strictly: a key that is not known, a value of another type and a transform that is not rigid are
refused, with the key, the value and the remedy, before anything is opened. Frames: `robot` is the arm's
own base, `table` lies on the table (z = 0, z up) and is what the loop calls `base`; `flange`, `hand`
(rt.pose) and `camera` (optical).
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from rt.cell.place import PlacePart
from rt.cell.plausible import (
    check_camera,
    check_length,
    check_limits,
    check_ranges,
    check_table,
    check_value,
)
from rt.cell.transform import CellError, numbers, transform
from rt.guard.limits import Limits
from rt.pose import inverse
from rt.tools.files import parsed_file

Transform = NDArray[np.float64]
T = TypeVar("T")

ROBOTS = {"ur": "rt.robot.ur.driver:open_robot"}
"""Functions `open_robot(host, *, rate_hz, T_flange_hand, ...) -> Robot` by name (rt.robot.ur.driver)."""
CAMERAS = {"realsense": "rt.camera.realsense:open_camera", "replay": "rt.camera.replay:open_camera"}
"""Functions `open_camera(T_hand_camera, *, serial, width, ...) -> Camera` by name (rt.camera.realsense)."""
GRIPPERS = {"robotiq": "rt.gripper.robotiq:open_gripper"}
"""Functions `open_gripper(host, *, port, opening_m, ...) -> Gripper` by name (rt.gripper.robotiq)."""

EXAMPLE = Path(__file__).with_name("cell.example.toml")
_CAMERA_BEHIND_M = -0.02
"""A camera on the wrist is farther behind the fingertips (z of the hand is the approach)."""


@dataclass(frozen=True)
class RobotPart:
    """[robot]"""

    kind: str
    """A name of ROBOTS, or `module:attribute`."""
    host: str
    """Address of the controller."""
    T_flange_hand: Transform
    """(4, 4): where the hand is on the flange."""
    max_speed_m_s: float = 0.25
    """Limit of the driver."""
    max_acceleration_m_s2: float = 1.5
    max_turn_deg_s: float = 90.0
    max_silence_s: float = 0.05
    """Longest time without news of the controller; after that the arm counts as frozen."""
    watchdog_hz: float = 10.0
    """The controller stops the arm when it hears nothing for 1 / watchdog_hz."""


@dataclass(frozen=True)
class CameraPart:
    """[camera]"""

    kind: str
    """A name of CAMERAS, or `module:attribute`."""
    T_hand_camera: Transform
    """(4, 4): given here, or by the section [handeye] that calib.handeye writes."""
    serial: str | None = None
    """None: the only camera there is."""
    width: int | None = None
    """Of the mode, with height [px]. None: the finest that sees near enough at the final height."""
    height: int | None = None
    rate_hz: float = 60.0
    calibration: str = "given by hand"
    """Origin of T_hand_camera."""


@dataclass(frozen=True)
class GripperPart:
    """[gripper]"""

    kind: str
    """A name of GRIPPERS, `none`, or `module:attribute`."""
    host: str = ""
    """Empty: the robot's."""
    port: int = 63352
    hand: str = "robotiq_2f85"
    """Its geometry: a name of rt/hands/, or a TOML file (relative to the cell file)."""
    force_N: float = 40.0
    speed_m_s: float = 0.075
    timeout_s: float = 0.5


@dataclass(frozen=True)
class Grasping:
    """[grasp]: the last centimetres (rt.grasp.approach)."""

    speed_m_s: float = 0.05
    """Of the straight descent onto the object."""
    contact_N: float = 15.0
    """Force, beyond what was felt before the descent, that ends it."""
    contact_tolerance_m: float = 0.006
    """Contact at most this far above the planned depth ends the descent; higher up it is a collision."""
    finger_clearance_m: float = 0.003
    """Free space below fingertips and palm, beyond what was seen."""
    table_gap_m: float = 0.004
    """Lowest fingertips above the table."""
    min_seen: float = 0.4
    """Least part of the ground under the jaws that must have been seen."""
    min_probability: float = 0.2
    """Least probability of a grasp at the goal, by the network; below it nothing is touched."""
    min_width_m: float = 0.003
    """Least width of an object between the pads."""
    close_timeout_s: float = 6.0
    lift_m: float = 0.10
    lift_speed_m_s: float = 0.10
    hold_s: float = 0.5
    """Time that the object must stay held after the lift."""


@dataclass(frozen=True)
class ModelPart:
    """[model]"""

    path: str = ""
    """ONNX file (relative to the cell file). Empty: the shipped one."""
    weights_sha256: str = ""
    """The only weights this cell may run; empty: any."""
    training_set: str = ""
    """The only training set whose models it may run; empty: any."""


@dataclass(frozen=True)
class CellFile:
    """One cell, as read and checked."""

    path: Path
    robot: RobotPart
    camera: CameraPart
    gripper: GripperPart
    T_robot_table: Transform = field(default_factory=lambda: np.eye(4))
    limits: Limits = field(default_factory=Limits)
    grasp: Grasping = field(default_factory=Grasping)
    model: ModelPart = field(default_factory=ModelPart)
    place: PlacePart | None = None
    """None: this cell puts nothing down."""

    @property
    def model_path(self) -> Path | None:
        return self.path.parent / self.model.path if self.model.path else None

    @property
    def hand(self) -> str:
        """The hand's name, or its file."""
        name = self.gripper.hand
        return str(self.path.parent / name) if name.endswith(".toml") else name


SECTIONS = (
    "robot", "camera", "gripper", "workspace", "limits", "grasp", "place", "model", "handeye"
)  # fmt: skip


def load_cell(path: str | Path) -> CellFile:
    """Read and check a cell file. Raises CellError."""
    path = Path(path)
    if not path.is_file():
        raise CellError(f"no cell file {path}; begin with a copy of {EXAMPLE.name}")
    try:
        document = parsed_file(tomllib.loads, path)
    except ValueError as error:
        raise CellError(f"{path} is not a TOML file: {error}") from error
    try:
        return _cell(path, document)
    except CellError as error:
        raise CellError(f"{path}: {error}") from error


def _cell(path: Path, document: dict[str, Any]) -> CellFile:
    for name, value in document.items():
        if name not in SECTIONS:
            raise CellError(f"section [{name}] is not known; known are {', '.join(SECTIONS)}")
        if not isinstance(value, dict):
            raise CellError(f"{name} = {value!r} must be a section [{name}]")
    for name in ("robot", "camera", "gripper"):
        if name not in document:
            raise CellError(f"section [{name}] is missing; see {EXAMPLE.name}")
    robot = dict(document["robot"])
    T_flange_hand = transform(_need(robot, "robot", "T_flange_hand"), "robot.T_flange_hand")
    check_length("robot.T_flange_hand", T_flange_hand)
    robot["T_flange_hand"] = T_flange_hand
    limits = _section(Limits, document.get("limits", {}), "limits")
    for key in ("workspace_min_m", "workspace_max_m"):
        if key not in document.get(
            "limits", {}
        ):  # no box fits every cell, and the arm's foot is in some
            raise CellError(
                f"limits.{key} is missing: say where the hand may go; see {EXAMPLE.name}"
            )
    check_limits(limits)
    return CellFile(
        path,
        _section(RobotPart, robot, "robot"),
        _camera(path, document, T_flange_hand),
        _section(GripperPart, document["gripper"], "gripper"),
        _table(document.get("workspace", {})),
        limits,
        _section(Grasping, document.get("grasp", {}), "grasp"),
        _section(ModelPart, document.get("model", {}), "model"),
        _section(PlacePart, document["place"], "place") if "place" in document else None,
    )


def _camera(path: Path, document: dict[str, Any], T_flange_hand: Transform) -> CameraPart:
    """[camera], whose transform may be given in it, in this file's [handeye], or in another file's."""
    camera = dict(document["camera"])
    other = camera.pop("handeye", None)
    seen_from = camera.pop("handeye_of", None)
    if seen_from not in (None, "hand", "flange"):
        raise CellError(f"camera.handeye_of = {seen_from!r} must be 'hand' or 'flange'")
    if other is not None and not isinstance(other, str):
        raise CellError(f"camera.handeye = {other!r} must be the name of a file with [handeye]")
    if "T_hand_camera" in camera:
        if other is not None or "handeye" in document:
            raise CellError(
                "camera.T_hand_camera is given, and a [handeye] too; keep the one that holds"
            )
        made = transform(camera["T_hand_camera"], "camera.T_hand_camera")
    else:
        section, source = document.get("handeye"), path.name
        if other is not None:
            source = other
            try:
                section = parsed_file(tomllib.loads, path.parent / other).get("handeye")
            except (OSError, ValueError) as error:
                raise CellError(f"camera.handeye = {other!r}: {error}") from error
        if section is None:
            raise CellError(
                "camera.T_hand_camera is missing and there is no [handeye]; run `python -m "
                f"calib.handeye solve ... --cell {path.name}`, or measure it"
            )
        made, camera["calibration"] = _handeye(section, source)
        known = section.get("poses_of")
        if known is not None and seen_from is not None and known != seen_from:
            raise CellError(
                f"camera.handeye_of = {seen_from!r}, but [handeye] of {source} says poses_of = {known!r}; "
                "remove handeye_of"
            )
        seen_from = known or seen_from
        if seen_from not in (None, "hand", "flange"):
            raise CellError(f"handeye.poses_of = {seen_from!r} must be 'hand' or 'flange'")
    T_hand_camera = inverse(T_flange_hand) @ made if seen_from == "flange" else made
    if T_hand_camera[2, 3] > _CAMERA_BEHIND_M:
        raise CellError(
            f"the camera would be at z = {T_hand_camera[2, 3]:.3f} m of the hand, level with the fingertips "
            f"or beyond, the limit is {_CAMERA_BEHIND_M:g} m; if it was calibrated with the poses of the "
            "flange, write handeye_of = 'flange' in [camera]"
        )
    check_length("camera.T_hand_camera", T_hand_camera)
    check_camera(T_hand_camera)
    camera["T_hand_camera"] = T_hand_camera
    return _section(CameraPart, camera, "camera")


def _handeye(section: dict[str, Any], source: str) -> tuple[Transform, str]:
    """The transform that calib.handeye wrote, and what to say of it."""
    if section.get("transform") != "T_hand_camera":
        raise CellError(
            f"handeye.transform = {section.get('transform')!r}: the camera must be in the hand "
            "(T_hand_camera)"
        )
    if section.get("verdict") == "do not use":
        raise CellError(
            f"handeye.verdict = 'do not use' ({section.get('reason', 'no reason given')}); calibrate again"
        )
    parts = {"xyz_m": "translation_m", "quaternion_xyzw": "quaternion_xyzw"}
    given = {ours: _need(section, "handeye", theirs) for ours, theirs in parts.items()}
    words = (
        f"{source} [handeye], verdict {section.get('verdict', 'none')}, {section.get('date', '')}"
    )
    return transform(given, "handeye"), words.rstrip(", ")


def _table(workspace: dict[str, Any]) -> Transform:
    """[workspace]: T_robot_table, or the table's height alone."""
    known = ("table_height_m", "T_robot_table")
    for key in workspace:
        if key not in known:
            raise CellError(f"workspace.{key} is not known; known are {', '.join(known)}")
    if len(workspace) > 1:
        raise CellError(
            "workspace has both table_height_m and T_robot_table; give the one that holds"
        )
    if "T_robot_table" in workspace:
        made = transform(workspace["T_robot_table"], "workspace.T_robot_table")
        check_length("workspace.T_robot_table", made)
        check_table(made)
        return made
    made = np.eye(4)
    made[2, 3] = _typed(workspace.get("table_height_m", 0.0), float, "workspace.table_height_m")
    check_value("workspace.table_height_m", float(made[2, 3]))
    return made


def _need(section: dict[str, Any], name: str, key: str) -> Any:
    if key not in section:
        raise CellError(f"{name}.{key} is missing; see {EXAMPLE.name}")
    return section[key]


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _section(kind: type[T], values: dict[str, Any], name: str) -> T:
    """A section as its dataclass: every key known, every value of its type and finite."""
    types = _types(kind)  # type: ignore[arg-type]
    places = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    hidden = {"calibration"} if kind is CameraPart else set()
    for key in values:
        if key not in places:
            known = ", ".join(k for k in places if k not in hidden)
            raise CellError(f"{name}.{key} is not known; known are {known}")
    made = {k: _typed(v, types[k], f"{name}.{k}") for k, v in values.items()}
    for key, place in places.items():
        if key not in made and place.default is MISSING and place.default_factory is MISSING:
            raise CellError(f"{name}.{key} is missing; see {EXAMPLE.name}")
    known_parts = {
        RobotPart: ROBOTS,
        CameraPart: CAMERAS,
        GripperPart: {**GRIPPERS, "none": "none"},
    }
    if kind in known_parts and ":" not in made["kind"] and made["kind"] not in known_parts[kind]:
        raise CellError(
            f"{name}.kind = {made['kind']!r} is not known; known are {', '.join(known_parts[kind])}, or "
            "give module:attribute"
        )
    for key, value in made.items():
        positive = kind is not Limits and isinstance(value, int | float)
        if positive and not value > 0:
            raise CellError(f"{name}.{key} = {value} must be above 0")
    _check_host(name, made)
    if not any(
        isinstance(v, int | float) and v < 0 for v in made.values()
    ):  # Limits says it better
        check_ranges(name, made)
    try:
        return kind(**made)
    except CellError:
        raise
    except ValueError as error:
        raise CellError(f"{name}: {error}") from error


def _check_host(name: str, made: dict[str, Any]) -> None:
    host = made.get("host", "")
    if name == "robot" and not host.strip():
        raise CellError(f"robot.host = {host!r} must be the address of the controller")
    if any(c in host for c in " /\t\n") or host.count(":") == 1:
        raise CellError(
            f"{name}.host = {host!r} must be a name or an address alone, such as 192.168.1.10"
        )


def _typed(value: Any, kind: Any, key: str) -> Any:
    """A value of the type that a field asks for. Raises CellError."""
    if isinstance(value, np.ndarray):
        return value
    if get_origin(kind) is tuple:
        return tuple(float(v) for v in numbers(value, len(get_args(kind)), key))
    wanted = next(t for t in (*get_args(kind), kind) if t in (str, int, float))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is float and number and math.isfinite(value):
        return float(value)
    if (wanted is int and number and isinstance(value, int)) or (
        wanted is str and isinstance(value, str)
    ):
        return value
    names = {str: "text in quotes", int: "a whole number", float: "a finite number"}
    raise CellError(f"{key} = {value!r} must be {names[wanted]}")


def describe(cell: CellFile) -> list[tuple[str, str, str]]:
    """(section, key, value) of everything in a cell, defaults included."""
    rows = []
    parts = {
        "robot": cell.robot,
        "camera": cell.camera,
        "gripper": cell.gripper,
        "workspace": None,
        "limits": cell.limits,
        "grasp": cell.grasp,
        "place": cell.place,
        "model": cell.model,
    }
    for section, part in parts.items():
        if section == "place" and part is None:
            continue
        if part is None:
            rows.append((section, "T_robot_table", _words(cell.T_robot_table)))
            continue
        rows += [(section, f.name, _words(getattr(part, f.name))) for f in fields(part)]  # type: ignore[arg-type]
    return rows


def _words(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return "-" if value in (None, "") else str(value)
    x, y, z = value[:3, 3] * 1e3
    R = value[:3, :3]
    pitch = math.degrees(math.asin(min(max(-R[2, 0], -1.0), 1.0)))
    roll, yaw = (math.degrees(math.atan2(*p)) for p in ((R[2, 1], R[2, 2]), (R[1, 0], R[0, 0])))
    turn = " ".join(f"{round(a, 2) + 0.0:.2f}" for a in (roll, pitch, yaw))  # no minus zero
    return f"xyz {x:.1f} {y:.1f} {z:.1f} mm, rpy {turn} deg"
