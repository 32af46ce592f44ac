"""clear.png: the table from above with every pick and the hand's way, and the seconds of each pick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rt.cell.place import PlacePart
from rt.job.report import JobReport
from rt.job.state import DROPPED, MISSED, PLACED, SKIPPED
from rt.tools.files import write_figure

COLOURS = {
    PLACED: "#1f9d55", MISSED: "#e8940c", DROPPED: "#d92f26", SKIPPED: "#9aa1a9", "": "#22262b",
}  # fmt: skip
_JAW_M = 0.03


def draw(
    report: JobReport, place: PlacePart, track: Sequence[tuple[float, float]], path: Path
) -> None:
    """Write the picture. track: x, y [m] of the hand, in the order of time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    figure, (plan, times) = plt.subplots(
        1, 2, figsize=(10, 4.8), layout="constrained", width_ratios=(1.3, 1)
    )
    (x, y), (width, depth) = place.home[:2], place.look_m
    plan.add_patch(
        Rectangle((x - width / 2, y - depth / 2), width, depth, fill=False, ls="--", ec="#9aa1a9")
    )
    plan.text(x - width / 2, y - depth / 2, " to be cleared", va="bottom", color="#6b7280", size=8)
    if track:
        plan.plot(*np.transpose(track), color="#2667c9", lw=0.6, alpha=0.5)
    places = np.array(place.slots())
    plan.plot(places[:, 0], places[:, 1], "s", ms=14, mfc="none", color="#22262b")
    plan.annotate("place", places[0, :2], xytext=(10, 0), textcoords="offset points", va="center")
    for a in report.state.attempts:
        c, s = math.cos(a.yaw_rad) * _JAW_M, math.sin(a.yaw_rad) * _JAW_M
        colour = COLOURS.get(a.outcome, COLOURS[""])
        plan.plot([a.x_m - c, a.x_m + c], [a.y_m - s, a.y_m + s], color=colour, lw=3)
        plan.annotate(str(a.number), (a.x_m, a.y_m), xytext=(4, 4), textcoords="offset points")
    for left_x, left_y, _ in report.left:
        plan.plot(left_x, left_y, "x", color=COLOURS[DROPPED], ms=10)
    plan.set(aspect="equal", xlabel="x [m]", ylabel="y [m]")
    plan.set_title("picks (bars: closing axis) and the hand's way", loc="left", fontsize=10)
    for a in report.state.attempts:
        times.barh(a.number, a.seconds, color=COLOURS.get(a.outcome, COLOURS[""]))
    times.invert_yaxis()
    times.yaxis.set_major_locator(MaxNLocator(integer=True))
    times.set(xlabel="time [s]", ylabel="pick")
    handles = [
        Rectangle((0, 0), 1, 1, color=COLOURS[name])
        for name in (PLACED, MISSED, DROPPED, SKIPPED)
        if report.state.count(name)
    ]
    names = [name for name in (PLACED, MISSED, DROPPED, SKIPPED) if report.state.count(name)]
    if names:
        times.legend(handles, names, loc="lower right", fontsize=8)
    times.set_title(
        f"{report.state.placed} placed, {report.picks_per_hour:.0f} placed an hour",
        loc="left",
        fontsize=10,
    )
    for axes in (plan, times):
        axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path, dpi=110)
