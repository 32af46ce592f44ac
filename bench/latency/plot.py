"""latency.png: time against candidates for every backend, and histograms of the cycle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rt.tools.clock import Histogram
from rt.tools.files import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "reference": "#8b8f98",
    "tiled": "#d1495b",
    "onnx": "#edae49",
    "native": "#00798c",
    "native-half": "#30b57c",
    "tensorrt": "#6a4c93",
    "field-reference": "#b9bcc4",
    "field-onnx": "#f2a65a",
    "field-native": "#2667c9",
}
CYCLE_COLOURS = {"latency": "#2667c9", "wake_up": "#00798c", "bare": "#d1495b"}


def draw(result: dict[str, Any], histograms: dict[int, dict[str, Histogram]], path: Path) -> None:
    """One panel of inference, and two for every load of the cycle."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = 1 + len(histograms)
    figure = plt.figure(figsize=(11, 5 + 3 * len(histograms)), layout="constrained")
    grid = figure.add_gridspec(rows, 2, height_ratios=[1.7] + [1.0] * len(histograms))
    _draw_inference(figure.add_subplot(grid[0, :]), result)
    for row, cycle in enumerate(result["cycle"], start=1):
        drawn = histograms[cycle["load"]]
        load = f"{cycle['load']} busy processes beside" if cycle["load"] else "no load"
        left, right = figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1])
        period_ms = 1e3 / cycle["rate_hz"]
        _draw_histogram(left, drawn["latency"], CYCLE_COLOURS["latency"], "whole cycle")
        left.axvline(period_ms, color="#22262b", linestyle="--", linewidth=1)
        left.text(period_ms, left.get_ylim()[1], " period", va="top", fontsize=8)
        left.set_title(
            f"Cycle at {cycle['rate_hz']:g} Hz, {cycle['candidates']} candidates, {load}: "
            f"{cycle['missed']} of {cycle['cycles'] + cycle['missed']} deadlines missed",
            fontsize=9,
        )
        _draw_histogram(right, drawn["wake_up"], CYCLE_COLOURS["wake_up"], "rt.servo")
        _draw_histogram(right, drawn["bare"], CYCLE_COLOURS["bare"], "bare loop beside it")
        right.set_title(f"How late the system woke it, {load}", fontsize=9)
        for axes in (left, right):
            _plain_ticks(axes)
            axes.set_xlabel("ms")
            axes.set_ylabel("cycles")
            axes.legend(fontsize=8)
    write_figure(figure, path, dpi=130)


def _draw_inference(axes: Axes, result: dict[str, Any]) -> None:
    lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for entry in result["inference"]:
        lines.setdefault((entry["backend"], entry["threads"]), []).append(entry)
    most = result["machine"]["threads"]
    for (backend, threads), entries in lines.items():
        n = [e["candidates"] for e in entries]
        p50, p99 = ([e[key] for e in entries] for key in ("p50_ms", "p99_ms"))
        colour, style = COLOURS.get(backend, "#666b73"), "-" if threads in (0, most) else ":"
        name = {"tiled": "tiled graph, ONNX Runtime", "onnx": "factored graph, ONNX Runtime"}
        label = f"{name.get(backend, backend)}, {threads} thread{'s' * (threads != 1)}"
        axes.plot(n, p50, style, color=colour, marker="o", markersize=3, label=label)
        if style == "-":
            axes.fill_between(n, p50, p99, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({e["candidates"] for e in result["inference"]})
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks], fontsize=8)
    axes.set_xlabel("candidates in one call")
    axes.set_ylabel("ms a call: median, shaded to p99")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    axes.set_title(f"d(I, a) on {result['machine']['processor']}", fontsize=10)


def _plain_ticks(axes: Axes) -> None:
    """1, 2, 5 of every decade in sight, or only 1 if there are many."""
    low, high = axes.get_xlim()
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks], fontsize=8)
    axes.set_xticks([], minor=True)


def _draw_histogram(axes: Axes, histogram: Histogram, colour: str, label: str) -> None:
    if not histogram.count:
        return
    edges_ms = 1e-3 * 2.0 ** ((np.arange(len(histogram.counts) + 1) - 1) / 32)
    coarse = histogram.counts.reshape(-1, 4).sum(axis=1)
    shown = np.flatnonzero(coarse)
    low, high = max(shown[0] - 2, 0), shown[-1] + 3
    summary = histogram.summary()
    axes.stairs(
        coarse[low:high],
        edges_ms[::4][low : high + 1],
        fill=True,
        alpha=0.55,
        color=colour,
        label=f"{label}: p50 {summary['p50_ms']:.3g}, p99 {summary['p99_ms']:.3g} ms",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
