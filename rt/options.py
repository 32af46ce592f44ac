"""What `python -m rt.servo` can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rt.controller import ITERATIONS, RATIO
from rt.guard import Limits

PAPER_RATE_HZ = 30.0
"""At which the paper's constants for one cycle are meant here."""


@dataclass(frozen=True)
class Config:
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
    """What to move: twin (the simulated arm and camera) or ur. Default: the cell's, else twin."""
    host: str = ""
    """Address of the robot's controller, in place of the cell's."""
    camera: str = ""
    """realsense. Default: the cell's."""
    camera_device: str = ""
    """Another source of the camera's frames, `module:function?name=value&...` (rt.camera.realsense)."""
    patience: float = 10.0
    """How long the camera's first frame may take [s]."""
    gripper: str = ""
    """robotiq or none. Default: the cell's."""
    speed_scale: float = 1.0
    """Everything slower by this factor, 0.01 to 1: begin with 0.1."""
    grasp: Literal["auto", "yes", "no"] = "auto"
    """After the final height: come down, close, lift. auto: with a real gripper yes, on the twin no."""
    model: Path | None = None
    """Network, as train.export makes it. Default: the cell's, else the shipped one."""
    backend: str = "auto"
    """What computes the network: auto, onnx, reference, ... (rt.distance)."""
    hand: str = ""
    """Gripper: a name of rt/hands/ or a TOML file. Default: the cell's, else robotiq_2f85."""
    controller: Literal["paper", "ensemble", "first_look"] = "paper"
    """paper: Algorithm 1; ensemble: on goals kept in base, with the mean of the last eight views;
    first_look: the same about a place chosen from the whole first view."""
    iterations: int = 0
    """Cycles from the start height to the end height (at least: the guard's speed limit may take more).
    0: 75, the paper's; above 30 Hz as many more as take as long: a faster loop looks more often."""
    ratio: float = 0.0
    """Fraction of the way to the goal in one cycle. 0: 0.2, the paper's; above 30 Hz as much less as leads
    as far in the same time."""
    candidates: int | Literal["auto"] = "auto"
    """Displacements weighed each cycle; auto: as many as fit the period here, at most 1024 (256 with --fast).
    Another number is another run: give it to repeat a run of another machine."""
    noise: float = 0.0
    """Kinematic noise: displacements are off by this times their length times N(0, 1); paper: 0.4."""
    seed: int = 0
    """Of the scene, the start, the candidates and the noise."""
    scene: int = 0
    """Number of the twin's scene (test objects)."""
    mount: Literal["ideal", "wrist"] = "ideal"
    """The twin's camera: `ideal` is the network's own view, `wrist` a D405 beside the hand, reprojected."""
    sensor: Literal["ideal", "d405", "d435", "sr300"] = "ideal"
    """What the twin's camera makes of depth (sim.sensor); a real one sits at the `wrist`."""
    fast: bool = False
    """No pacing: cycles as fast as they can be computed (simulated time is the same). Twin only."""
    realtime: Literal["auto", "off", "require"] = "auto"
    """Real-time priority and locked memory for the loop: if permitted, never, or refuse to run without."""
    cpu: int | None = None
    """Pin the loop to this CPU."""
    record: Literal["auto", "off"] | Path = "auto"
    """The flight record (MCAP, every cycle): a file, or off. auto: flight.mcap in --out."""
    view: bool = False
    """A live page in the browser (rt.page; extra `view`): the run begins when one has opened it."""
    view_port: int = 8080
    """First TCP port to try for the page."""
    out: Path | None = None
    """Folder for servo.json, servo.png and the record. Default: runs/servo/<time>/."""
    limits: Annotated[Limits, tyro.conf.arg(name="limits")] = field(default_factory=Limits)
    """What the guard holds the arm to. With --cell its [limits] hold, but for what is given here."""
    limits_given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of those of `limits` that were given, also if as the default has them (`parse`)."""

    def __post_init__(self) -> None:
        faster = max(self.rate / PAPER_RATE_HZ, 1.0)
        if self.iterations == 0:
            object.__setattr__(self, "iterations", round(ITERATIONS * faster))
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


def parse(prog: str, arguments: Sequence[str] | None = None) -> Config:
    """The command line. A limit counts as given if it comes out the same from two sets of defaults."""
    config = tyro.cli(Config, prog=prog, args=arguments)
    if config.cell is None:
        return config  # nothing else has a say in them
    names = [f.name for f in fields(Limits)]
    others = Limits(**{name: _slightly_more(getattr(Limits(), name)) for name in names})
    again = tyro.cli(Config, prog=prog, args=arguments, default=Config(limits=others))
    given = [n for n in names if getattr(config.limits, n) == getattr(again.limits, n)]
    return replace(config, limits_given=tuple(given))


def _slightly_more(value: Any) -> Any:
    """Another value, which is as good."""
    if isinstance(value, tuple):
        return tuple(_slightly_more(v) for v in value)
    return value + 1 if isinstance(value, int) else value * (1 + 1e-9) + 1e-12
