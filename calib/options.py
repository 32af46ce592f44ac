"""Options of `python -m calib.handeye`, one class for each of its commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

DEFAULT_TARGET = "charuco:7x5:30:22:DICT_5X5_1000"


@dataclass(frozen=True)
class Simulate:
    """Calibrate a simulated rig and compare the claimed error with the true one."""

    seed: int = 0
    """Chooses rig, noise and poses."""
    poses: int = 15
    """Image-pose pairs to take."""
    target: str = DEFAULT_TARGET
    """KIND:COLUMNSxROWS:SIZE_MM[:SECOND_MM][:DICTIONARY]."""
    robot_noise_mm: float = 0.2
    """Standard deviation of the arm's position per axis, mm."""
    robot_noise_deg: float = 0.02
    """Standard deviation of the arm's rotation per axis, deg."""
    true_size: float = 1.0
    """True size of the target over the stated one: 1.02 is a board measured 2 % too small."""
    time_offset_ms: float = 0.0
    """Robot time minus the stamp of an image, ms; needs --moving to matter."""
    moving: bool = False
    """Take the images while the arm moves, and estimate the time offset."""
    working_mm: float = 300.0
    """Distance from the camera at which the error matters, mm."""
    tolerance_mm: float = 1.0
    """Error of a point at the working distance that still is good, mm."""
    out: Path | None = None
    """Results: data/, cell.toml, handeye.json, handeye.html and PNGs. Default runs/handeye/TIME."""


@dataclass(frozen=True)
class Solve:
    """Compute the transform from a folder of images and poses, and judge it."""

    data: tyro.conf.Positional[Path]
    """Folder of `collect`, folder of images with a pose file, or a file of samples of
    moveit_calibration or easy_handeye."""
    target: str | None = None
    """KIND:COLUMNSxROWS:SIZE_MM[:SECOND_MM][:DICTIONARY]; KIND is charuco, aprilgrid, chessboard,
    circles or acircles. Needed unless the data say. none: solve from the depth images of a still scene."""
    poses: Path | None = None
    """File or folder of robot poses, where it is not found by itself."""
    pose_format: str | None = None
    """matrix, quat_xyzw, quat_wxyz, rotvec, euler_XYZ (moving axes) or euler_xyz (fixed axes), then
    :deg, :mm, :cm, :in, :rotation-first, :inverse as needed; or a maker: kuka, fanuc, abb, staubli,
    ur, franka. Default: as the file says, else the one that fits, if the images decide it."""
    camera_is: Literal["hand", "fixed", "auto", "in-hand"] | None = None
    """The camera's mount; fixed: the hand holds the target; auto: the images decide. Default: as the
    data say, else hand."""
    camera: Path | None = None
    """Intrinsics: JSON, YAML (ROS, OpenCV), XML (ViSP). Default: a file in the folder."""
    intrinsics: Literal["auto", "given", "estimate"] = "auto"
    """auto: given ones if they fit the images, else estimated from them."""
    free_scale: bool = False
    """Estimate the target's size too; the robot is then the ruler."""
    working_mm: float = 300.0
    """Distance from the camera at which the error matters, mm."""
    tolerance_mm: float = 1.0
    """Error of a point at the working distance that still is good, mm."""
    cell: Path | None = None
    """Cell file whose [handeye] section is written. Default: cell.toml in --out. A result that must
    not be used is not written unless --force."""
    force: bool = False
    """Write the cell file whatever the verdict."""
    seed: int = 0
    """Of the random subsets."""
    out: Path | None = None
    """Results. Default runs/handeye/TIME."""


@dataclass(frozen=True)
class Collect:
    """Move the arm (or wait while it is guided) and store images with poses."""

    robot: str = "sim"
    """Driver of the arm: sim, or a module of rt.robot."""
    camera: str = "sim"
    """Driver of the camera: sim, a module of rt.camera, or module:function."""
    address: str = ""
    """Network address of the arm."""
    stream: Literal["infrared", "colour"] = "infrared"
    """Infrared: the left imager, in whose frame depth is given. Colour: calibrates that imager."""
    target: str = DEFAULT_TARGET
    """KIND:COLUMNSxROWS:SIZE_MM[:SECOND_MM][:DICTIONARY]; none: tilt the camera over a table with
    things on it, and store depth."""
    poses: int = 15
    """Image-pose pairs to take."""
    free_drive: bool = False
    """Do not move the arm: store a pair whenever the guided arm rests at a new pose."""
    moving: bool = False
    """Take the images on the way, with the arm's path, to find the time offset too."""
    travel_mm: float = 350.0
    """The hand stays this near to where it starts, mm."""
    down_mm: float = 100.0
    """The hand goes at most this far below where it starts, mm."""
    speed_mm_s: float = 80.0
    """Speed of the hand, mm/s."""
    turn_deg_s: float = 20.0
    """Turning speed of the hand, deg/s."""
    yes: bool = False
    """Move without asking first."""
    seed: int = 0
    """Of the choice of poses, and of the simulated rig."""
    out: Path | None = None
    """A folder for the data: a new one, or one of the same set-up to go on in. Default
    runs/handeye/TIME/data."""


@dataclass(frozen=True)
class Verify:
    """Look again from poses far from the calibration's, and tell the error along every axis."""

    data: tyro.conf.Positional[Path | None] = None
    """Folder with images and poses taken after calibrating. Default: collect them now."""
    cell: Path = Path("cell.toml")
    """Cell file with the calibration."""
    depth_only: bool = False
    """Compare the table's plane and a box in the depth images; no target is needed."""
    target: str | None = None
    """Default: the one calibrated with."""
    pose_format: str | None = None
    """As for solve."""
    robot: str = "sim"
    """Driver of the arm, if new data are collected."""
    camera: str = "sim"
    """Driver of the camera, if new data are collected."""
    address: str = ""
    """Network address of the arm."""
    poses: int = 6
    """New poses to look from."""
    yes: bool = False
    """Move without asking first."""
    tolerance_mm: float = 2.0
    """Largest error along the camera's worst axis, its 95 % interval included, beyond which the check
    fails (exit code 1), mm."""
    seed: int = 0
    """Of the choice of poses, and of the simulated rig."""
    out: Path | None = None
    """Results. Default runs/handeye/TIME."""


@dataclass(frozen=True)
class Check:
    """Was the camera knocked? Five poses over anything, in ten seconds, against the cell's transform.

    Ends with 0 if it is still true, with 1 if it moved or if the views cannot tell.
    """

    data: tyro.conf.Positional[Path | None] = None
    """Folder with depth images and poses. Default: collect them now."""
    cell: Path = Path("cell.toml")
    """Cell file with the calibration."""
    pose_format: str | None = None
    """As for solve."""
    robot: str = "sim"
    """Driver of the arm."""
    camera: str = "sim"
    """Driver of the camera."""
    address: str = ""
    """Network address of the arm."""
    yes: bool = False
    """Move without asking first."""
    tolerance_mm: float = 3.0
    """Largest motion of a point at 300 mm, its 95 % interval included, that still counts as true, mm."""
    knock_mm: float = 0.0
    """Simulated rig only: move its camera by so much before looking, mm."""
    seed: int = 0
    """Of the simulated rig."""
    out: Path | None = None
    """Results. Default runs/handeye/TIME."""


@dataclass(frozen=True)
class Touch:
    """Point at spots that the camera chose, and enter how far off each is: the error at the fingers."""

    cell: Path = Path("cell.toml")
    """Cell file with the calibration."""
    target: str | None = None
    """Its corners are the spots; none: corners in the picture. Default: the one calibrated with."""
    spots: int = 3
    """Spots to point at."""
    tip_mm: tuple[float, float, float] | None = None
    """The fingers' point in the frame of the calibrated hand (of the flange with --robot ur), mm. Default:
    the cell's [robot] T_flange_hand."""
    above_mm: float = 5.0
    """Height above the spot at which the fingers stop, mm."""
    robot: str = "sim"
    """Driver of the arm."""
    camera: str = "sim"
    """Driver of the camera."""
    address: str = ""
    """Network address of the arm."""
    yes: bool = False
    """Move without asking first."""
    tolerance_mm: float = 2.0
    """Largest miss, mm; beyond it the exit code is 1."""
    seed: int = 0
    """Of the simulated rig."""
    out: Path | None = None
    """Results. Default runs/handeye/TIME."""


@dataclass(frozen=True)
class PrintTarget:
    """Write a target as a PDF in true size."""

    target: tyro.conf.Positional[str] = DEFAULT_TARGET
    """KIND:COLUMNSxROWS:SIZE_MM[:SECOND_MM][:DICTIONARY]."""
    out: Path | None = None
    """PDF to write. Default: a name after the target, here."""
    paper: Literal["A4", "Letter", "A3", "A2", "A1", "A0"] | None = None
    """Default: the smallest that holds it."""


Command = (
    Annotated[Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[Collect, tyro.conf.subcommand("collect")]
    | Annotated[Solve, tyro.conf.subcommand("solve")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Touch, tyro.conf.subcommand("touch")]
    | Annotated[PrintTarget, tyro.conf.subcommand("print-target")]
)
