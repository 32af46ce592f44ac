"""Pictures of a set of trials: lifts, the histogram of Figure 5, and a strip of the worst trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from rt.hand import Hand, load_hand
from rt.tools.files import write_figure
from sim.experiment.statistics import distances
from sim.experiment.tables import LABELS
from sim.experiment.trial import TrialSetup, World, make_world, objects_of
from sim.show import hand_lines

_WORST = 6
_EDGES_MM = np.arange(0, 105, 5)
"""Bins of the histogram; what is further is in the last."""
INK, GREEN, RED, BLUE, GREY = "#22262b", "#14a44d", "#d92f26", "#2667c9", "#9aa1a9"
COLOURS = {
    "INIT": GREY,
    "CTR": BLUE,
    "CTR_noise": "#7fa8e8",
    "GPD": "#e07b1a",
    "GPD_noise": "#f2bd86",
}


def draw_trials(report: dict[str, Any], path: Path) -> None:
    """trials.png: the shares lifted, and how many attempts ended how far from a grasp, with medians."""
    names = [n for n in COLOURS if n in report["scenarios"]]
    lifts = all("lifted" in s for s in report["scenarios"].values())
    ratio = (1, 1.5, 1) if lifts else (1.5, 1)
    figure, panels = plt.subplots(
        1, len(ratio), figsize=(5.2 * len(ratio), 4.8), width_ratios=ratio, layout="constrained"
    )
    *first, left, right = panels
    if lifts:
        _dots(first[0], report, "lifted", "lifted_ci95", 100, "lifted [%], 95 % interval", "{:.0f}")
        first[0].set_xlim(0, 108)
    trials = report["trials"]
    width = 5 / (len(names) + 1)
    for k, name in enumerate(names):
        mm = np.minimum(distances(trials, name) * 1e3, _EDGES_MM[-1] - 1e-9)
        count, _ = np.histogram(mm, _EDGES_MM)
        at = _EDGES_MM[:-1] + (k + 0.5) * width + 0.5 * width
        left.bar(at, count, width, color=COLOURS[name], label=name)
    grasp = LABELS[report["label"]]
    left.set(xlim=(0, _EDGES_MM[-1]), xlabel=f"distance to {grasp} [mm]; the last bin: or more")
    left.set_ylabel(f"ends, {len(trials)} trials")
    left.legend(frameon=False)
    _dots(right, report, "median_m", "ci95_m", 1e3, "median [mm], 95 % interval", "{:.1f}")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path, dpi=110)


def _dots(
    axes: Axes,
    report: dict[str, Any],
    key: str,
    bounds: str,
    scale: float,
    label: str,
    said: str,
) -> None:
    """One value of every scenario, with its interval."""
    every = list(report["scenarios"])
    for row, name in enumerate(reversed(every)):
        s = report["scenarios"][name]
        low, high = (scale * v for v in s[bounds])
        colour = COLOURS.get(name, "#6b7280")
        axes.plot([low, high], [row, row], color=colour, lw=3, solid_capstyle="round")
        axes.plot(scale * s[key], row, "o", color=colour, ms=7)
        axes.annotate(
            said.format(scale * s[key]),
            (high, row),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(every)), reversed(every))
    axes.set(xlabel=label, xlim=(0, None))
    axes.margins(x=0.12)


def draw_worst(report: dict[str, Any], setup: TrialSetup, path: Path) -> None:
    """worst.png: the trials in which CTR ended furthest, from above."""
    trials = report["trials"]
    order = np.argsort(-distances(trials, "CTR"), kind="stable")[:_WORST]
    figure, rows = plt.subplots(
        1, len(order), figsize=(3.3 * len(order), 3.9), layout="constrained", squeeze=False
    )
    objects, hand = objects_of(setup), load_hand(setup.hand)
    for axes, k in zip(rows[0], order, strict=True):
        trial = trials[k]
        _draw_trial(axes, make_world(objects, setup, trial["trial"]), trial, hand)
    figure.suptitle(
        "worst trials of CTR, from above: start (grey), CTR (blue), GPD (orange), nearest true grasp to "
        "CTR's end (green)",
        color=INK,
        fontsize=10,
    )
    write_figure(figure, path, dpi=110)


def _draw_trial(axes: Axes, world: World, trial: dict[str, Any], hand: Hand) -> None:
    end = np.array(trial["final"]["CTR"]["hand"])
    half, step = 0.16, 0.001
    height = world.renderer.height_map(0.5, step)
    gx, gy = np.gradient(height.T, step)[::-1]
    light = np.clip((1 - 0.5 * gx - 0.6 * gy) / np.sqrt(1 + gx**2 + gy**2), 0, 1.3)
    shade = np.clip(0.25 + 0.5 * light + 1.5 * height.T, 0, 1)
    axes.imshow(shade, cmap="gray", vmin=0, vmax=1.2, origin="lower", extent=(-0.5, 0.5, -0.5, 0.5))
    _hands(axes, world.grasps.poses[:, [0, 1, 3]], hand, GREEN, 0.4, alpha=0.12)
    nearest = world.grasps.poses[world.nearest(end)]
    for pose, colour, width in (
        (np.array(trial["start"]), GREY, 2.0),
        *((np.array(end["hand"]), "#e07b1a", 2.0) for end in [trial["final"].get("GPD")] if end),
        (nearest.astype(float), GREEN, 3.0),
        (end, BLUE, 2.0),
    ):
        _hands(axes, pose[None, [0, 1, 3]], hand, colour, width)
    away = 1e3 * trial["final"]["CTR"]["distance_m"]
    axes.set_title(
        f"trial {trial['trial']}: {trial['category']}, {away:.0f} mm", fontsize=9, color=INK
    )
    x, y = end[:2]
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[])


def _hands(
    axes: Axes,
    poses: NDArray[np.floating],
    hand: Hand,
    colour: str,
    width: float,
    alpha: float = 1.0,
) -> None:
    lines = list(hand_lines(poses, hand))
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, alpha=alpha))
