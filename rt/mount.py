"""Check that a camera at its mount sees enough: `python -m rt.mount`.

For every height of the travel: the part of the canonical view that the camera fills when it looks at the
table, or at the tops of things up to 0.13 m high. The least of these decides: below the guard's
`min_view_filled` the arm is held.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from rt.camera import CameraError
from rt.camera.coverage import CLEARANCE_M, MIN_SHARE, SURFACES_M, Coverage, SurfaceView
from rt.camera.models import MODELS, CameraModel, parse_size
from rt.cell.file import load_cell
from rt.cell.transform import CellError
from rt.hand import Hand, load_hand
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, write_figure, write_json
from rt.view import END_HEIGHT_M, START_HEIGHT_M

_ACROSS = 4
"""Heights drawn and listed."""


@dataclass(frozen=True)
class MountOptions:
    """Which part of the view a camera covers over the travel, and whether it suffices (exit code 1: no).

    Example: python -m rt.mount --cell cell.toml --camera D435 --mode 480x270
    """

    cell: Path | None = None
    """Cell file with the camera's mount and, unless --mode, its mode. Default: --mount."""
    mount: str = "0,-0.0705,-0.10,-12.4245"
    """Without a cell file: where the camera is on the hand, x,y,z [m], and its tilt about x [deg]."""
    hand: str = ""
    """Hand whose fingers and palm may hide something: a name in rt/hands/ or a TOML file. Default: the
    cell's, or robotiq_2f85."""
    camera: str = "D405"
    """Model: D405, D435 or D415."""
    mode: str = ""
    """Width x height of the depth stream, such as 480x270. Default: the cell's, or every mode known."""
    start_height: float = START_HEIGHT_M
    """Of the fingertips above the table, at first [m]."""
    end_height: float = END_HEIGHT_M
    """At the end of the travel [m]."""
    min_view_filled: float = MIN_SHARE
    """Least part of the view that must be covered; the guard's limit of that name, the cell's if given."""
    out: Path | None = None
    """Folder for mount.json and mount.png. Default: runs/mount/<time>/."""

    def __post_init__(self) -> None:
        if not CLEARANCE_M <= self.end_height <= self.start_height <= 2.0:
            raise ValueError(
                f"heights must be {CLEARANCE_M:g} <= end_height ({self.end_height:g}) <= start_height "
                f"({self.start_height:g}) <= 2 m"
            )
        if not 0 < self.min_view_filled <= 1:
            raise ValueError(
                f"min_view_filled = {self.min_view_filled:g} must be above 0, at most 1"
            )


@dataclass(frozen=True)
class Checked:
    """One mode at the mount."""

    size: tuple[int, int]
    nearest_m: float
    seen: list[SurfaceView]

    @property
    def worst(self) -> SurfaceView:
        return min(self.seen, key=lambda s: s.share)

    def share(self, height_m: float, surface_m: float) -> float | None:
        """None if the hand would touch the surface."""
        found = (s.share for s in self.seen if (s.height_m, s.surface_m) == (height_m, surface_m))
        return next(found, None)


def settle(
    config: MountOptions,
) -> tuple[MountOptions, CameraModel, NDArray[np.float64], list[tuple[int, int]]]:
    """Options with the cell file's values, the model, T_hand_camera, the modes.

    Raises CellError, CameraError or HandError.
    """
    if config.camera not in MODELS:
        raise CameraError(f"no camera {config.camera!r}; known are {', '.join(MODELS)}")
    model, mode = MODELS[config.camera], config.mode
    if config.cell is None:
        T = tilted(config.mount)
    else:
        cell = load_cell(config.cell)
        T = cell.camera.T_hand_camera
        config = replace(config, hand=config.hand or cell.hand)
        if not mode and cell.camera.width and cell.camera.height:
            mode = f"{cell.camera.width}x{cell.camera.height}"
        if config.min_view_filled == MIN_SHARE:
            config = replace(config, min_view_filled=cell.limits.min_view_filled)
    config = replace(config, hand=config.hand or "robotiq_2f85")
    return config, model, T, [parse_size(mode)] if mode else sorted(model.nearest_m, reverse=True)


def tilted(text: str) -> NDArray[np.float64]:
    """`x,y,z,tilt_deg` -> T_hand_camera (4, 4): moved, then turned about the camera's x."""
    try:
        x, y, z, tilt = (float(v) for v in text.split(","))
    except ValueError:
        x = y = z = tilt = np.nan
    if not np.isfinite([x, y, z, tilt]).all():
        raise CellError(
            f"mount {text!r} must be x,y,z [m] and tilt [deg], four numbers with commas"
        )
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    return np.array([[1, 0, 0, x], [0, c, -s, y], [0, s, c, z], [0, 0, 0, 1]])


def check(
    model: CameraModel,
    size: tuple[int, int],
    T_hand_camera: NDArray[np.float64],
    heights: list[float],
    hand: Hand,
) -> Checked:
    """One mode, from every height, over every surface."""
    nearest_m = model.nearest(size)
    coverage = Coverage(
        model.intrinsics(size), T_hand_camera, nearest_m, model.baseline_m, hand=hand
    )
    return Checked(size, nearest_m, coverage.over_travel(tuple(heights), SURFACES_M))


def table(model: CameraModel, checked: list[Checked], heights: list[float], least: float) -> Table:
    """Share by mode, height and surface."""
    result = Table(
        title=f"{model.name}: part of the view covered, by height of the surface above the table",
        title_style="bold",
    )
    for name in ("mode", "nearest", "hand at", *(f"{s * 1e3:.0f} mm" for s in SURFACES_M)):
        result.add_column(name, justify="right")
    for one in checked:
        result.add_section()
        for k, height_m in enumerate(heights):
            shares = [one.share(height_m, s) for s in SURFACES_M]
            cells = [
                "-" if v is None else f"[red]{v:.0%}[/red]" if v < least else f"{v:.0%}"
                for v in shares
            ]
            size, nearest = f"{one.size[0]}x{one.size[1]}", f"{one.nearest_m * 1e3:.0f} mm"
            first = (size, nearest) if k == 0 else ("", "")
            result.add_row(*first, f"{height_m * 1e3:.0f} mm", *cells)
    return result


def draw(model: CameraModel, one: Checked, heights: list[float], least: float, path: Path) -> None:
    """mount.png: the view by height (rows) and surface (columns), covered or not."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    rows, columns = len(heights), len(SURFACES_M)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.0 * columns + 0.6, 2.15 * rows + 0.9), dpi=110, squeeze=False
    )
    masks = {(s.height_m, s.surface_m): s for s in one.seen}
    for i, height_m in enumerate(heights):
        for j, surface_m in enumerate(SURFACES_M):
            ax = axes[i][j]
            ax.set_xticks([])
            ax.set_yticks([])
            seen = masks.get((height_m, surface_m))
            if seen is None:
                ax.axis("off")
                ax.text(0.5, 0.5, "would touch", ha="center", va="center", color="#666b73")
            else:
                ax.imshow(seen.mask, cmap=ListedColormap(["#22262b", "#2bd96b"]), vmin=0, vmax=1)
                enough = seen.share >= least
                ax.set_title(
                    f"{seen.share:.0%}", fontsize=10, color="#22262b" if enough else "#ff3b30"
                )
            if i == 0:
                what = "the table" if surface_m == 0 else f"a top {surface_m * 1e3:.0f} mm high"
                ax.text(0.5, 1.22, what, transform=ax.transAxes, ha="center", fontsize=10)
            if j == 0:
                ax.text(
                    *(-0.08, 0.5),
                    f"hand at\n{height_m * 1e3:.0f} mm",
                    transform=ax.transAxes,
                    ha="right",
                    va="center",
                    fontsize=10,
                )
    figure.suptitle(
        f"{model.name} at {one.size[0]}x{one.size[1]} (sees from {one.nearest_m * 1e3:.0f} mm on): "
        f"the view's part covered in green; at least {least:.0%} is needed",
        fontsize=11,
    )
    figure.subplots_adjust(left=0.09, right=0.99, bottom=0.02, top=0.86, wspace=0.08, hspace=0.2)
    write_figure(figure, path)


def verdict(model: CameraModel, one: Checked, least: float) -> tuple[bool, str]:
    """True if a mode suffices, and the line that says so."""
    worst = one.worst
    what = "the table" if worst.surface_m == 0 else f"a top {worst.surface_m * 1e3:.0f} mm high"
    line = (
        f"{model.name} at {one.size[0]}x{one.size[1]}: at least {worst.share:.0%} of the view is covered "
        f"({what}, from {worst.height_m * 1e3:.0f} mm), {least:.0%} is needed"
    )
    if worst.share >= least:
        return True, f"enough: {line}"
    if worst.nearest_m < one.nearest_m:
        line += (
            f"; it is {worst.nearest_m * 1e3:.0f} mm from the camera, which sees from "
            f"{one.nearest_m * 1e3:.0f} mm on: choose a smaller mode or mount it further back"
        )
    else:
        line += (
            "; the rest lies outside the image or behind the hand itself: tilt the camera towards the "
            "fingertips, or mount it further from the palm"
        )
    return False, f"not enough: {line}"


@command("rt.mount", MountOptions, mistakes=(ValueError, CameraError))
def main(config: MountOptions) -> int:
    config, model, T, sizes = settle(config)
    hand = load_hand(config.hand)
    least = config.min_view_filled
    heights = np.linspace(config.start_height, config.end_height, _ACROSS).round(4).tolist()
    checked = [check(model, size, T, heights, hand) for size in sizes]
    verdicts = [verdict(model, one, least) for one in checked]
    # Of several modes, the finest that suffices is drawn, or the one that comes nearest to it.
    good = [one for one, (ok, _) in zip(checked, verdicts, strict=True) if ok]
    drawn = good[0] if good else max(checked, key=lambda one: one.worst.share)
    folder = output_folder("mount", config.out)
    draw(model, drawn, heights, least, folder / "mount.png")
    write_json(folder / "mount.json", summary(config, model, T, checked, least))
    console = screen(110)
    console.print(table(model, checked, heights, least))
    for _, line in verdicts:
        print(line)
    print(
        "Fingers and palm hide what they do as boxes of the hand's file; cables, adapters and the gripper's "
        "body are not in this: look at a real view, too."
    )
    print(f"{folder}/: mount.json, mount.png ({drawn.size[0]}x{drawn.size[1]})")
    return DONE if good else NOT_DONE


def summary(
    config: MountOptions,
    model: CameraModel,
    T_hand_camera: NDArray[np.float64],
    checked: list[Checked],
    least: float,
) -> dict[str, Any]:
    """Content of mount.json."""
    return {
        "command": "rt.mount",
        "camera": model.name,
        "cell": config.cell,
        "hand": config.hand,
        "T_hand_camera": T_hand_camera,
        "min_view_filled": least,
        "enough": any(verdict(model, one, least)[0] for one in checked),
        "modes": [
            {
                "mode": f"{one.size[0]}x{one.size[1]}",
                "nearest_m": one.nearest_m,
                "enough": verdict(model, one, least)[0],
                "least_share": one.worst.share,
                "covered": [
                    {"height_m": s.height_m, "surface_m": s.surface_m, "share": s.share}
                    for s in one.seen
                ],
            }
            for one in checked
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
