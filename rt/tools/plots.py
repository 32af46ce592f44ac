"""Figures: without a display, without pyplot's global state, saved whole; and the glyph of the hand.

figure, (left, right) = panels(1, 2, size_in=(13, 4.8))
left.add_collection(hand_lines(hand_segments(actions, hand.opening_m, hand.finger_width_m), colour=GREEN))
save(figure, path, dpi=110)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.tools.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

INK, GREEN, RED, BLUE, GREY = "#22262b", "#14a44d", "#d92f26", "#2667c9", "#9aa1a9"


def panels(
    rows: int = 1, columns: int = 1, *, size_in: tuple[float, float] = (8.0, 5.0), **grid: Any
) -> tuple[Figure, Any]:
    """A figure of size_in inches and its axes: one, or an array of them as `Figure.subplots` returns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in, layout="constrained")
    return figure, figure.subplots(rows, columns, **grid)


def save(figure: Figure, path: Path, dpi: float | None = None) -> None:
    """Save at the figure's own resolution or at `dpi`; the file is whole or not there. Raises OSError."""
    with whole(path) as beside:
        figure.savefig(beside, dpi="figure" if dpi is None else dpi)


def plain_axes(*axes: Axes) -> None:
    """Remove the frame's upper and right side."""
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)


def hand_segments(
    actions: ArrayLike, opening_m: float, finger_width_m: float
) -> NDArray[np.float64]:
    """(3 n, 2, 2) end points [m] of the glyphs of n hands: the closing line, and each pad as a line across.

    actions: (n, 3) or (3,) of x, y [m] and yaw [rad] in the plane of the picture.
    """
    x_y_yaw = np.atleast_2d(np.asarray(actions, dtype=np.float64))
    half, tick = opening_m / 2, finger_width_m / 2
    glyph = np.array(
        [[[-half, 0], [half, 0]], [[-half, -tick], [-half, tick]], [[half, -tick], [half, tick]]]
    )
    c, s = np.cos(x_y_yaw[:, 2]), np.sin(x_y_yaw[:, 2])
    turn = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)  # rows: images of x and y
    placed = np.einsum("kei,nij->nkej", glyph, turn) + x_y_yaw[:, None, None, :2]
    segments: NDArray[np.float64] = placed.reshape(-1, 2, 2)
    return segments


def hand_lines(
    segments: NDArray[np.float64] | Sequence[NDArray[np.float64]], *, colour: str, **style: Any
) -> LineCollection:
    """Segments as a collection for `Axes.add_collection`."""
    from matplotlib.collections import LineCollection

    return LineCollection(list(segments), colors=colour, capstyle="round", **style)
