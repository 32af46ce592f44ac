"""Options of `python -m rt.servo`, which are those of rt.Servo too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from rt.cell.file import load_cell
from rt.controller import CONTROLLERS, ITERATIONS, RATIO
from rt.guard.limits import Limits
from rt.tools.command import parsed
from rt.tools.resolve import resolve

LEAST_RATE_HZ, MOST_RATE_HZ = 0.5, 1000.0
PAPER_RATE_HZ = 30.0
"""Rate for which the paper's constants per cycle hold here."""


@dataclass(frozen=True)
class ServoOptions:
    """Servo the hand to the nearest grasp. Without further arguments: the simulated twin and the
    shipped network; then a table, servo.json and servo.png in --out.

    Example: python -m rt.servo --rate 30 --seed 3

    Example on an arm: python -m rt.servo --cell cell.toml --speed-scale 0.1
    """

    rate: float = 30.0
    """Cycles per second [Hz]."""
    cell: Path | None = None
    """The cell's file (rt.cell): a real arm, camera and gripper; see docs/bring-up.md."""
    robot: str = ""
    """The arm: twin (simulated, with its camera), ur, or module:attribute of an open_robot. Default: the
    cell's, else twin."""
    host: str = ""
    """Address of the robot's controller, in place of the cell's."""
    camera: str = ""
    """realsense, replay (on the twin: the recording --camera-device), or module:attribute of an open_camera.
    Default: the cell's."""
    camera_device: str = ""
    """Another source of the camera's frames, `module:function?name=value&...` (rt.camera.realsense), or a
    recording for --camera replay."""
    patience: float = 10.0
    """Longest wait for the camera's first frame [s]."""
    gripper: str = ""
    """robotiq, none, or module:attribute of an open_gripper. Default: the cell's."""
    speed_scale: float = 1.0
    """Everything slower by this factor, 0.01 to 1: begin with 0.1."""
    grasp: Literal["auto", "yes", "no"] = "auto"
    """After the final height: come down, close, lift. auto: with a real gripper yes, on the twin no."""
    model: Path | None = None
    """Network: an ONNX file with the contract (train.export), a shipped one's name, or module:attribute.
    Default: the cell's, else the shipped one."""
    backend: str = "auto"
    """Backend of the network: auto, native, onnx, reference, tensorrt, or module:attribute (rt.distance)."""
    hand: str = ""
    """Gripper: a name of rt/hands/ or a TOML file. Default: the cell's, else robotiq_2f85."""
    controller: str = "ensemble"
    """ensemble: goals kept in base, with their mean over the last eight views; first_look: a place chosen
    from the whole first eight views, followed if it moves; paper: Algorithm 1; or module:attribute of a
    class of your own."""
    target: tuple[float, float] | str | None = None
    """The object that is wanted, and no other: a point of it, x and y in base [m]; module:function, which
    finds it in the camera's picture; or click, which waits for a click on the page's view (--view). Default:
    any object, or the one that is clicked while the run goes on."""
    target_box: tuple[float, float, float, float] | None = None
    """The object that is wanted, by a box in the camera's depth image where the hand is at the beginning: its
    left column, top row, right column and bottom row [px]."""
    iterations: int = 0
    """Cycles from the start height to the end height; the guard's speed limit may take more. 0 means 75 (the
    paper's) at 30 Hz, more at higher rates so that the descent takes the same time."""
    ratio: float = 0.0
    """Fraction of the way to the goal per cycle. 0 means 0.2 (the paper's) at 30 Hz, reduced at higher rates
    so that the speed stays the same."""
    candidates: int | Literal["auto"] = "auto"
    """Displacements scored each cycle; auto: as many as fit the period on this machine, at most 1024 (256
    with --fast). Give a number to repeat a run of another machine."""
    noise: float = 0.0
    """Kinematic noise: displacements err by this times their length times N(0, 1); paper: 0.4."""
    seed: int = 0
    """Seed of the scene, the start, the candidates and the noise."""
    scene: int = 0
    """Number of the twin's scene (test objects)."""
    mount: Literal["ideal", "wrist"] = "ideal"
    """The twin's camera: `ideal` is the network's own view, `wrist` a D405 beside the hand, reprojected."""
    sensor: Literal["ideal", "d405", "d435", "sr300"] = "ideal"
    """Depth noise of the twin's camera (sim.scene.sensor); any but the ideal one sits at the `wrist`."""
    conveyor: tuple[float, float] = (0.0, 0.0)
    """Velocity of the twin's objects [m/s] along x and y: a conveyor."""
    fast: bool = False
    """No pacing: cycles as fast as they can be computed (simulated time is the same). Twin only."""
    realtime: Literal["auto", "off", "require"] = "auto"
    """Real-time priority and locked memory for the loop: if permitted, never, or refuse to run without."""
    cpu: int | None = None
    """Pin the loop to this CPU."""
    record: Literal["auto", "off"] | Path = "auto"
    """The flight record (MCAP, every cycle): a file, or off. auto: flight.mcap in --out."""
    view: bool = False
    """A live page in the browser (rt.page; extra `view`); the run begins once a browser shows it."""
    view_port: int = 8080
    """First TCP port to try for the page."""
    out: Path | None = None
    """Folder for servo.json, servo.png and the record. Default: runs/servo/<time>/."""
    limits: Limits | None = None
    """Limits of the guard. None: those of the cell file, else the defaults."""
    usual_iterations: ClassVar[int] = ITERATIONS
    """Cycles of an approach at 30 Hz, unless `iterations` says otherwise."""

    def __post_init__(self) -> None:
        if not LEAST_RATE_HZ <= self.rate <= MOST_RATE_HZ:
            raise ValueError(
                f"rate = {self.rate:g} Hz must be from {LEAST_RATE_HZ:g} to {MOST_RATE_HZ:g} Hz"
            )
        faster = max(self.rate / PAPER_RATE_HZ, 1.0)
        if self.iterations == 0:
            object.__setattr__(self, "iterations", round(self.usual_iterations * faster))
        if self.ratio == 0:
            object.__setattr__(
                self, "ratio", 1 - (1 - RATIO) ** (1 / faster) if faster > 1 else RATIO
            )
        for name, value, low, high in (
            ("iterations", self.iterations, 1, 1_000_000),
            ("ratio", self.ratio, 1e-6, 1.0),
            ("noise", self.noise, 0.0, 10.0),
            ("candidates", 2 if self.candidates == "auto" else self.candidates, 2, 1_000_000),
            ("seed", self.seed, 0, 2**63),
            ("scene", self.scene, 0, 2**31),
            ("patience", self.patience, 0.1, 600.0),
            ("speed_scale", self.speed_scale, 0.01, 1.0),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")
        resolve("controller", self.controller, CONTROLLERS)
        if self.target is not None and self.target_box is not None:
            raise ValueError("target and target_box both say which object is wanted; give one")
        if self.target == "click" and not self.view:
            raise ValueError("target click needs the live page: add --view")
        if self.target_function:
            resolve("target", self.target_function, {}, extra=("x y [m]", "click"))

    @property
    def target_function(self) -> str | None:
        """`module:function` that looks at colour pictures, if `target` is one."""
        return self.target if isinstance(self.target, str) and self.target != "click" else None


Options = TypeVar("Options", bound=ServoOptions)


def parse(prog: str, arguments: Sequence[str] | None = None) -> ServoOptions:
    """The command line; the limits of the cell file are the defaults of --limits. Raises CellError."""
    return parse_as(_ServoArguments, prog, arguments)


def parse_as(kind: type[Options], prog: str, arguments: Sequence[str] | None) -> Options:
    """The command line of a command with the options of rt.servo and more; in `kind` the field `limits` has
    the defaults, so that tyro shows each limit as an option. Raises CellError."""
    given: Options = parsed(kind, prog, arguments)
    if given.cell is None:
        return given
    defaults = kind(limits=load_cell(given.cell).limits)
    limits: Limits = parsed(kind, prog, arguments, default=defaults).limits
    return replace(given, limits=limits)


@dataclass(frozen=True)
class _ServoArguments(ServoOptions):
    limits: Limits = field(default_factory=Limits)  # tyro shows each limit as an option
    """Limits of the guard. Default: those of the cell file."""


_ServoArguments.__name__, _ServoArguments.__doc__ = ServoOptions.__name__, ServoOptions.__doc__
