"""Look at a depth image of your own: `python -m rt.look depth.png --intrinsics fx,fy,cx,cy`.

The network's view of it, the distance to a good grasp all over it, the best jaws at true width, and faults of
the image. Nothing moves. From Python: rt.look_at.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table

from rt.camera import CameraError, Intrinsics, StaleFrameError
from rt.camera.depth_file import SUFFIXES, UNEQUAL, intrinsics_of, read_depth_file
from rt.camera.models import MODELS
from rt.camera.replay import RECORDINGS, open_replay
from rt.cell.file import load_cell
from rt.distance import DistanceError, open_model
from rt.grasp.single_view import Look, look_at
from rt.hand import Hand, HandError, load_hand
from rt.page.look_figure import draw_look
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, shown, write_json
from rt.view import VIEW, ViewError

LIVE = "realsense"
_PATIENCE_S, _FRESH_S = 10.0, 0.5


@dataclass(frozen=True)
class LookOptions:
    """Look at a depth image: look.png and look.json in --out.

    Example: python -m rt.look depth.png --intrinsics 379.5,379.5,321.4,239.8

    Example: python -m rt.look session.db3 --frame 30
    """

    source: Annotated[str, tyro.conf.Positional]
    """An image (png, tiff, npy, npz, exr), a folder of them, a recording (.db3 of a RealSense, .mcap of
    rt.servo), or `realsense`: the camera that is plugged in."""
    intrinsics: str = ""
    """fx,fy,cx,cy of the image [px]. Recordings, cameras and an npz with `intrinsics` need none."""
    camera: str = ""
    """In place of the intrinsics: an ideal D405, D435 or D415, for a first try."""
    unit: Literal["auto", "m", "cm", "mm", "0.1mm"] = "auto"
    """Unit of the file's numbers. auto: whole numbers are millimetres, others metres."""
    height: float | None = None
    """Height of a camera that looks straight down, above the table [m]."""
    fit_table: bool = False
    """Find the table in the image, for height and tilt; the default without --height and --cell."""
    cell: Path | None = None
    """Cell file: the camera's mount and serial, the hand and the network."""
    at: str = ""
    """u,v of the pixel to look at. Default: the image's middle."""
    frame: int = 0
    """Number of the frame of a recording, from 0."""
    hand: str = ""
    """Jaws that are drawn: a name of rt/hands/ or a TOML file. Default: the network's."""
    model: Path | None = None
    """Network, as for rt.servo."""
    backend: str = "auto"
    """Backend of the network."""
    out: Path | None = None
    """Folder for look.json and look.png. Default: runs/look/<time>/."""


def refuse(config: LookOptions) -> None:
    """Raises ValueError for options that contradict each other or name nothing known."""
    places = (
        ("--height", config.height is not None),
        ("--fit-table", config.fit_table),
        ("--cell", config.cell is not None),
    )
    given = [name for name, is_given in places if is_given]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: give one")
    if config.intrinsics and config.camera:
        raise ValueError("--intrinsics and --camera exclude each other: give one")
    if config.camera and config.camera not in MODELS:
        raise ValueError(f"no camera {config.camera!r}; known are {', '.join(MODELS)}")
    if config.frame < 0:
        raise ValueError(f"frame = {config.frame} must be 0 or more")
    _refuse_ignored(config)


def _refuse_ignored(config: LookOptions) -> None:
    """Raises ValueError for options that this source would ignore."""
    suffix = Path(config.source).suffix.lower()
    if config.source == LIVE or suffix in RECORDINGS:
        for name, value in (
            ("--intrinsics", config.intrinsics),
            ("--camera", config.camera),
            ("--unit", config.unit.removeprefix("auto")),
        ):
            if value:
                raise ValueError(f"{name} {value}: {config.source} knows its own; leave it out")
    if config.frame and suffix not in RECORDINGS:
        raise ValueError(
            f"--frame {config.frame} is for recordings ({', '.join(RECORDINGS)}); leave it out"
        )
    own = config.cell is not None or suffix == ".mcap"
    if own and config.at:
        raise ValueError(
            f"--at {config.at}: with --cell, and in a flight record, the view is the hand's own; leave it out"
        )
    if suffix == ".mcap" and config.height is not None:
        raise ValueError(
            f"--height {config.height:g}: the views of a flight record know theirs; leave it out"
        )


@dataclass(frozen=True)
class LookPicture:
    """One image to look at."""

    name: str
    depth: NDArray[np.float32]
    """(H, W) m."""
    intrinsics: Intrinsics
    is_view: bool = False
    """True for a view of a flight record: it is the hand's own."""
    notes: tuple[str, ...] = ()


def numbers(text: str, count: int, name: str) -> NDArray[np.float64]:
    """Numbers with commas between them. Raises ValueError."""
    try:
        values = np.array([float(v) for v in text.split(",")])
    except ValueError:
        values = np.zeros(0)
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{name} {text!r} must be {count} numbers with commas between them")
    return values


def listed(config: LookOptions) -> list[Path]:
    """The source, or the images of a folder. Raises CameraError if the folder has none."""
    path = Path(config.source)
    if not path.is_dir():
        return [path]
    files = shown(path, SUFFIXES)
    if not files:
        raise CameraError(f"{path} holds none of {', '.join(SUFFIXES)}")
    return files


def read(path: Path, config: LookOptions) -> LookPicture:
    """One image. Raises CameraError."""
    if str(path) == LIVE:
        return _from_camera(config)
    if path.suffix.lower() in RECORDINGS:
        return _from_recording(path, config.frame)
    return _from_file(path, config)


def _from_file(path: Path, config: LookOptions) -> LookPicture:
    read = read_depth_file(path, config.unit)
    if config.intrinsics:
        intrinsics = intrinsics_of(numbers(config.intrinsics, 4, "--intrinsics"), read.depth.shape)
    elif config.camera:
        height, width = read.depth.shape
        intrinsics = MODELS[config.camera].intrinsics((width, height))
    elif read.intrinsics is not None:
        intrinsics = read.intrinsics
    else:
        raise CameraError(
            f"{path} says nothing of its camera: give --intrinsics fx,fy,cx,cy (of this mode, in pixels), or "
            f"for a first try --camera {'|'.join(MODELS)}"
        )
    notes = []
    if read.guessed and read.unit != "m":
        notes.append(
            f"unit: whole numbers were taken for {read.unit}; give --unit if that is wrong"
        )
    unequal = max(intrinsics.fx_px / intrinsics.fy_px, intrinsics.fy_px / intrinsics.fx_px)
    if unequal > UNEQUAL:
        notes.append(
            f"intrinsics: fx = {intrinsics.fx_px:g}, fy = {intrinsics.fy_px:g} px differ by "
            f"{unequal - 1:.0%}; depth cameras have square pixels, and the order is fx,fy,cx,cy"
        )
    if config.camera:
        notes.append(f"intrinsics: those of an ideal {config.camera}, not of yours")
    return LookPicture(path.stem, read.depth, intrinsics, notes=tuple(notes))


def _from_recording(path: Path, frame: int) -> LookPicture:
    with open_replay(path, None if path.suffix == ".mcap" else np.eye(4), paced=False) as camera:
        if frame >= len(camera):
            raise CameraError(
                f"{path} has {len(camera)} frames, --frame {frame} is beyond the last"
            )
        for _ in range(frame + 1):
            found = camera.read_latest(1.0)
    name = f"{path.stem}_{frame}"
    return LookPicture(name, found.depth, found.intrinsics, is_view=path.suffix == ".mcap")


def _from_camera(config: LookOptions) -> LookPicture:
    from rt.camera.realsense import open_camera

    serial = T = None
    if config.cell is not None:
        camera = load_cell(config.cell).camera
        serial, T = camera.serial, camera.T_hand_camera
    mount = np.eye(4) if T is None else T
    with_it = open_camera(mount, serial=serial, final_height_m=None)
    try:
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            with suppress(StaleFrameError):
                found = with_it.read_latest(_FRESH_S)
                return LookPicture(LIVE, found.depth, found.intrinsics)
            time.sleep(0.02)
    finally:
        with_it.close()
    raise CameraError(f"no frame came within {_PATIENCE_S:g} s; check the camera's cable")


def table(looks: list[tuple[str, Look]]) -> Table:
    """On screen."""
    result = Table("image", title="rt.look", title_style="bold")
    for name in ("distance", "within", "probability", "filled", "camera at", "tilt", "warnings"):
        result.add_column(name, justify="right")
    for name, look in looks:
        result.add_row(
            name,
            f"{look.distance_m * 1e3:.1f} mm",
            "-" if look.spread_m is None else f"{look.spread_m * 1e3:.0f} mm",
            "-" if look.probability is None else f"{look.probability:.0%}",
            f"{look.filled:.0%}",
            "-" if look.camera_height_m is None else f"{look.camera_height_m * 1e3:.0f} mm",
            "-" if look.tilt_deg is None else f"{look.tilt_deg:.1f} deg",
            str(len(look.warnings)),
        )
    return result


@command(
    "rt.look", LookOptions, mistakes=(ValueError, CameraError, HandError, DistanceError, ViewError)
)
def main(config: LookOptions) -> int:
    refuse(config)
    at = None if not config.at else numbers(config.at, 2, "--at")
    cell = None if config.cell is None else load_cell(config.cell)
    hand: Hand | None = load_hand(config.hand or cell.hand) if cell else None
    hand = load_hand(config.hand) if config.hand else hand
    paths, several = listed(config), Path(config.source).is_dir()
    network = open_model(config.model or (cell.model_path if cell else None), config.backend)
    looks: list[tuple[str, Look]] = []
    failed: list[tuple[str, str]] = []
    folder: Path | None = None
    for path in paths:
        try:
            picture = read(path, config)
            mount = None if cell is None else cell.camera.T_hand_camera
            look = look_at(
                picture.depth,
                picture.intrinsics,
                height_m=None if picture.is_view else config.height,
                T_view_camera=np.eye(4) if picture.is_view else mount,
                at_px=None if at is None else (at[0], at[1]),
                distance=network,
                hand=hand,
            )
        except (CameraError, ViewError) as error:
            if not several:
                raise
            failed.append((path.name, str(error)))
            continue
        look = replace(look, warnings=(*picture.notes, *look.warnings))
        folder = folder or output_folder("look", config.out)
        draw_look(
            look, folder / (f"look_{picture.name}.png" if several else "look.png"), picture.name
        )
        looks.append((picture.name, look))
    for name, reason in failed:
        print(f"rt.look: {name}: {reason}", file=sys.stderr)
    if folder is None:
        raise CameraError(f"none of the {len(failed)} images of {config.source} could be looked at")
    write_json(folder / "look.json", summary(config, looks, failed))
    screen().print(table(looks))
    for name, look in looks:
        for warning in look.warnings:
            print(f"{name}: {warning}" if several else warning)
    drawn = ", ".join(f"look_{name}.png" for name, _ in looks) if several else "look.png"
    print(f"{folder}/: look.json, {drawn}")
    return NOT_DONE if failed else DONE


def summary(
    config: LookOptions, looks: list[tuple[str, Look]], failed: list[tuple[str, str]]
) -> dict[str, Any]:
    """Content of look.json."""
    return {
        "command": "rt.look",
        "config": asdict(config),
        "view": asdict(VIEW),
        "images": [
            {"name": name, **look.summary(), "view_m": look.view, "map_m": look.map_m}
            for name, look in looks
        ],
        "failed": [{"name": name, "error": error} for name, error in failed],
    }


if __name__ == "__main__":
    sys.exit(main())
