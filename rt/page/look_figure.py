"""Picture of one look: the image with the jaws at true width, and the view with its distances."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rt.controller.first_look import MAP_RADIUS_M
from rt.tools.plots import GREEN, INK, RED, hand_lines, hand_segments, panels, save
from rt.view import VIEW

if TYPE_CHECKING:
    from rt.grasp.single_view import Look

FULL_SCALE_MM = 80.0
"""Distances from here on have the colour of the farthest."""


def draw_look(look: Look, path: Path, title: str = "") -> None:
    """look.png. Raises OSError."""
    notes = [line for warning in look.warnings for line in textwrap.wrap(f"- {warning}", 150)]
    figure, (left, right) = panels(1, 2, size_in=(13.0, 5.9), width_ratios=(1.3, 1))
    below = 0.03 * len(notes) + 0.02
    figure.get_layout_engine().set(rect=(0, below, 1, 0.94 - below))  # type: ignore[union-attr]
    seen = np.where(look.depth > 0, look.depth, np.nan)
    if np.isfinite(seen).any():
        low, high = np.nanpercentile(seen, (1, 99))
        left.imshow(seen, cmap="gray_r", vmin=low, vmax=high + 1e-6)
    left.set_facecolor("#3a3e46")  # no return
    frame = look.frame_px()
    left.plot(*np.vstack([frame, frame[:1]]).T, color="white", lw=1, ls="--")
    line, *fingers = look.jaws_px()
    left.plot(*line.T, color=GREEN, lw=2)
    for finger in fingers:
        left.fill(*finger.T, facecolor=GREEN, edgecolor="white", lw=0.8, alpha=0.9)
    height, width = look.depth.shape
    left.set_anchor("N")
    right.set_anchor("N")
    left.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    left.set_title(f"{title or 'depth image'}; dashed: the view", loc="left", fontsize=10)

    z = look.surface_m
    edge = VIEW.size_px / 2 / VIEW.focal_px * z * 100
    view = np.where(look.view > 0, look.view, np.nan)
    right.imshow(view, cmap="gray_r", extent=(-edge, edge, edge, -edge))
    right.set_facecolor("#3a3e46")
    reach = MAP_RADIUS_M * 100
    side = np.linspace(-reach, reach, len(look.map_m))
    mm = np.minimum(look.map_m * 1e3, FULL_SCALE_MM)
    shade = right.contourf(
        side,
        side,
        mm,
        levels=np.arange(0, FULL_SCALE_MM + 1, 5),
        cmap="viridis_r",
        alpha=0.45,
        extend="max",
    )
    right.contour(
        side, side, mm, levels=np.arange(0, FULL_SCALE_MM, 10), colors=INK, linewidths=0.5
    )
    hand = look.hand
    segments = hand_segments(look.action, hand.opening_m, hand.finger_width_m) * 100
    right.add_collection(hand_lines(segments, colour="white", linewidths=5))
    right.add_collection(hand_lines(segments, colour=GREEN, linewidths=3))
    limit = min(edge, reach + 1)
    right.set(xlim=(-limit, limit), ylim=(limit, -limit), xlabel="x [cm]", ylabel="y [cm]")
    right.set_title(
        "the network's view, least distance over all angles [mm]", loc="left", fontsize=10
    )
    figure.colorbar(shade, ax=right, shrink=0.8)
    words = [f"best jaws: {look.distance_m * 1e3:.1f} mm from a good grasp"]
    if look.spread_m is not None:
        words[0] += f" (within {look.spread_m * 1e3:.0f} mm in 95 %)"
    if look.probability is not None:
        words.append(f"probability of a grasp {look.probability:.0%}")
    words.append(f"view filled {look.filled:.0%}")
    if look.camera_height_m is not None:
        words.append(f"camera {look.camera_height_m * 1e3:.0f} mm above the table")
    figure.text(0.01, 0.985, ", ".join(words), va="top", fontsize=11)
    figure.text(0.01, 0.01, "\n".join(notes), color=RED, fontsize=9)
    save(figure, path, dpi=110)
