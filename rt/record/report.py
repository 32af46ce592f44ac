"""Output of a run of rt.servo: the live status line, the table, servo.json and servo.png."""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from rt.hand import Hand
from rt.outcome import GraspResult, Outcome, Report, ScoredView
from rt.tools.clock import Clock
from rt.tools.command import screen
from rt.tools.files import write_figure, write_json
from rt.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 12
"""Best candidates drawn in a picture."""
GREEN, RED, INK, BLUE = "#2bd96b", "#ff3b30", "#22262b", "#2667c9"


class Status:
    """One line of progress on stderr. A thread of its own draws it; the loop only sets `note`."""

    def __init__(self) -> None:
        self.note = ""
        self._live = sys.stderr.isatty()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def show(self, done: int, of: int, entry: dict[str, Any], clock: Clock) -> None:
        """After a cycle: `entry` is its trace."""
        true = "" if entry["true_m"] is None else f"  true {entry['true_m'] * 1e3:5.1f} mm"
        self.note = (
            f"cycle {done:3d}/{of}  height {entry['hand'][2] * 1e3:3.0f} mm  "
            f"predicted {entry['predicted_m'] * 1e3:5.1f} mm{true}  missed {clock.missed}"
        )

    def _draw(self) -> None:
        shown = ""
        while not self._over.wait(0.1 if self._live else 1.0):
            if self.note != shown:
                shown = self.note
                start, end = ("\r\x1b[2K", "") if self._live else ("", "\n")
                print(start + shown, end=end, file=sys.stderr, flush=True)

    def __enter__(self) -> Status:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=1.0)
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def write(report: Report, folder: Path) -> None:
    """The outcome first, as a full disk must not hide it; then servo.json and servo.png into the folder, and
    the table on screen. Raises OSError."""
    if report.exit_code:
        print(f"rt.servo: {report.text}", file=sys.stderr, flush=True)
    write_json(folder / "servo.json", summary(report))
    written = "servo.json"
    if report.first is not None:
        draw(report, folder / "servo.png")
        written += ", servo.png"
    if report.record is not None and report.record.is_file():
        written += f", {report.record.name if report.record.parent == folder else report.record}"
    console = screen()
    console.print(table(report))
    for line in report.refused:
        console.print(f"[dim]real time: {line}[/dim]", soft_wrap=True)
    console.print(f"{folder}/: {written}", soft_wrap=True, highlight=False)
    if report.record_error:
        print(f"rt.servo: no whole flight record: {report.record_error}", file=sys.stderr)
    for event in report.guard.events:
        if "said" in event:  # a row that warns
            print(f"rt.servo: warning: {event['said']}", file=sys.stderr)
    if report.exit_code:  # again, below the table
        print(f"rt.servo: {report.text}", file=sys.stderr)


def summary(report: Report) -> dict[str, Any]:
    """The record, as servo.json holds it. All but the wall clock's times repeats with the seed."""
    predicted_start, predicted_end = _predicted(report)
    config = asdict(report.config)
    if report.config.limits is None:
        config["limits"] = asdict(report.guard.limits)
    return {
        "command": "rt.servo",
        "outcome": report.text,
        "ended": report.outcome.value,
        "reason": report.reason,
        "exit_code": int(report.exit_code),
        "true_distance_start_m": report.true_start_m,
        "true_distance_end_m": report.true_end_m,
        "predicted_distance_start_m": predicted_start,
        "predicted_distance_end_m": predicted_end,
        "cycles": report.cycles,
        "held": report.held,
        "standing_still": report.standing,
        "grasp": None if report.grasp is None else _grasp_summary(report.grasp),
        "record": {
            "file": None if report.record is None else str(report.record),
            "dropped": report.dropped,
            "error": report.record_error,
        },
        "candidates": report.candidates,
        "seed": report.config.seed,
        "scene": report.config.scene,
        "cell": {
            "name": report.cell.name,
            "simulated": report.cell.simulated,
            **report.cell.info,
        },
        "model": {
            "path": None if report.config.model is None else str(report.config.model),
            "training_set": report.contract.training_set,
            "weights_sha256": report.contract.weights_sha256,
            "backend": report.backend,
        },
        "config": config,
        "guard": {"counts": dict(report.guard.counts), "events": list(report.guard.events)},
        "timing": {
            "paced": report.clock.paced,
            "period_ms": report.clock.period_ns / 1e6,
            "rate_held_hz": report.clock.rate_hz,
            "missed_deadlines": report.clock.missed,
            "stages": {k: h.summary() for k, h in report.watch.histograms.items() if h.count},
            "wake_up": report.clock.wake_up.summary(),
            "real_time_refused": report.refused,
        },
        "trace": report.trace,
    }


def _grasp_summary(grasp: GraspResult) -> dict[str, Any]:
    return {**asdict(grasp), "outcome": grasp.text, "ended": grasp.outcome.value}


def table(report: Report) -> Table:
    """The summary on screen."""
    clock, predicted = report.clock, _predicted(report)
    result = Table(title=f"rt.servo: {report.text}", title_style="bold", min_width=76)
    for name in ("", "p50", "p99", "p99.9", "max"):
        result.add_column(name, justify="right" if name else "left", no_wrap=True)
    held = f"{report.held} held" if report.held else ""
    result.add_row("cycles", str(report.cycles), held, "", "")
    result.add_row("rate", f"{clock.rate_hz:.2f} Hz", f"of {report.config.rate:g} Hz", "", "")
    result.add_row(
        "missed deadlines", str(clock.missed) if clock.paced else "not paced", "", "", ""
    )
    result.add_row("candidates", str(report.candidates), report.backend, "", "")
    result.add_section()
    rows = {**report.watch.histograms, "wake-up lateness": clock.wake_up}
    for name, histogram in rows.items():
        if histogram.count:
            h = histogram.summary()
            cells = [f"{h[key]:.2f} ms" for key in ("p50_ms", "p99_ms", "p999_ms", "max_ms")]
            result.add_row(name, *cells)
    result.add_section()
    result.add_row("distance to a grasp", "start", "end", "", "", style="bold")
    result.add_row("  predicted", *(_mm(v) for v in predicted), "", "")
    result.add_row("  true", _mm(report.true_start_m), _mm(report.true_end_m), "", "")
    if report.grasp is not None:
        result.add_section()
        for name, value in _grasp_rows(report.grasp):
            result.add_row(name, value, "", "", "")
    if report.guard.counts:
        result.add_section()
        for name, count in sorted(report.guard.counts.items()):
            result.add_row(f"guard: {name}", f"{count} times", "", "", "")
    return result


def _grasp_rows(grasp: GraspResult) -> list[tuple[str, str]]:
    height = grasp.height
    deep = "-" if height is None else f"{_mm(height.height_m)} ({height.limited_by})"
    force = "-" if grasp.contact_N is None else f"{grasp.contact_N:.1f} N"
    return [
        ("grasp", "held" if grasp.outcome is Outcome.GRASPED else f"none ({grasp.phase})"),
        ("  fingertips to", deep),
        ("  force on the way down", f"{force}{', touched' if grasp.touched else ''}"),
        ("  between the pads", _mm(grasp.width_m)),
        ("  lifted by", _mm(grasp.lifted_m)),
    ]


def draw(report: Report, path: Path) -> None:
    """servo.png: the first and the last view with the best candidates, and the distance over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    assert report.first is not None and report.last is not None
    hand = report.contract.hand
    figure = plt.figure(figsize=(14.6, 5.0), dpi=110, facecolor="white")
    left = figure.add_axes((0.010, 0.10, 0.2757, 0.805))
    middle = figure.add_axes((0.302, 0.10, 0.2757, 0.805))
    right = figure.add_axes((0.625, 0.13, 0.36, 0.775))
    for axes, look, title in (
        (left, report.first, "first view"),
        (middle, report.last, "last view"),
    ):
        _draw_look(axes, look, hand, report.contract.view)
        axes.set_title(title, loc="left", fontsize=12, color=INK)
    true = (_mm(report.true_start_m), _mm(report.true_end_m))
    for axes, text in zip((left, middle), true, strict=True):
        if text != "-":
            axes.set_title(f"{text} from a true grasp", loc="right", fontsize=10, color=INK)
    _draw_distance(right, report)
    for x, color, text in (
        (0.010, RED, "the hand"),
        (0.075, "#14a44d", f"its {_SHOWN} best candidates, the best boldest"),
        (0.302, "#666b73", "lighter is nearer, black is no return"),
    ):
        figure.text(x, 0.04, text, fontsize=10, color=color)
    write_figure(figure, path)


def glyph(
    action: NDArray[np.floating], hand: Hand, focal_px: float, depth_m: float, centre: float
) -> Any:
    """The hand as lines in the image, [(2, 2), ...] of u, v: the closing line and the two fingers' pads.

    A hand displaced by `action` that then goes straight down comes to `depth_m` there.
    """
    half, tick = hand.opening_m / 2, hand.finger_width_m / 2
    lines = np.array(
        [[[-half, 0], [half, 0]], [[-half, -tick], [-half, tick]], [[half, -tick], [half, tick]]]
    )
    c, s = math.cos(action[2]), math.sin(action[2])
    placed = lines @ np.array([[c, s], [-s, c]]) + np.asarray(action[:2])
    return list(placed * (focal_px / depth_m) + centre)


def _draw_look(axes: Axes, look: ScoredView, hand: Hand, view: View) -> None:
    import matplotlib.patheffects as effects
    from matplotlib.collections import LineCollection

    seen = look.view[look.view > 0]
    far = float(np.percentile(seen, 99)) if seen.size else 1.0
    near = min(float(np.percentile(seen, 0.5)), far - 0.05) if seen.size else 0.0
    height = np.clip((far - look.view) / (far - near), 0, 1)
    # The root lifts low objects off the table.
    shade = np.where(look.view > 0, 0.2 + 0.75 * height**0.6, 0.0)
    axes.imshow(shade, cmap="bone", vmin=0, vmax=1, interpolation="nearest")
    order = np.argsort(look.distances, kind="stable")[:_SHOWN]
    centre = view.size_px / 2 - 0.5
    depth_m = _surface_depth(look, look.actions[order[0]], view)

    def place(
        action: NDArray[np.floating], color: str, width: float, edge: str, **style: Any
    ) -> None:
        segments = glyph(action, hand, view.focal_px, depth_m, centre)
        lines = LineCollection(segments, colors=color, linewidths=width, capstyle="round", **style)
        if edge:
            lines.set_path_effects([effects.withStroke(linewidth=width + 1.6, foreground=edge)])
        axes.add_collection(lines)

    for rank in range(len(order) - 1, 0, -1):
        alpha = 0.75 - 0.5 * rank / len(order)
        place(look.actions[order[rank]], GREEN, 1.1, "", alpha=alpha, zorder=3)
    # The best is drawn thinner and over the hand, so that both show where they agree.
    place(np.zeros(3), RED, 5.0, "#5c0d09", zorder=4)
    place(look.actions[order[0]], GREEN, 2.0, "", zorder=5)
    axes.set_xlim(-0.5, view.size_px - 0.5)
    axes.set_ylim(view.size_px - 0.5, -0.5)
    axes.set_axis_off()


def _surface_depth(look: ScoredView, action: NDArray[np.float32], view: View) -> float:
    """Depth of what lies under a displaced hand: the glyphs of one picture are drawn at this depth."""
    seen = look.view[look.view > 0]
    depth = float(np.median(seen)) if seen.size else view.far_m
    for _ in range(3):
        pixel = action[:2] * (view.focal_px / depth) + view.size_px / 2 - 0.5
        u, v = np.clip(np.round(pixel), 0, view.size_px - 1).astype(int)
        around = look.view[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
        if (around > 0).any():
            depth = float(np.median(around[around > 0]))
    return depth


def _draw_distance(axes: Axes, report: Report) -> None:
    if report.trace:
        began = report.trace[0]["time_s"]
        time_s = [entry["time_s"] - began for entry in report.trace]
        predicted = [entry["predicted_m"] * 1e3 for entry in report.trace]
        axes.plot(time_s, predicted, color=BLUE, lw=1.4, alpha=0.85, label="predicted")
        true = [entry["true_m"] for entry in report.trace]
        if true[0] is not None:
            axes.plot(time_s, [t * 1e3 for t in true], color=INK, lw=2.4, label="true")
            if report.true_end_m is not None and report.reached:
                axes.plot(time_s[-1], report.true_end_m * 1e3, "o", color=INK, ms=6, clip_on=False)
        axes.set_xlim(0, max(time_s[-1], 1e-3) * 1.02)
        axes.legend(frameon=False, loc="upper right", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.set_title("distance to the nearest grasp [mm]", loc="left", fontsize=12, color=INK)
    axes.set_xlabel("time [s]", color=INK)
    axes.grid(axis="y", color="#e3e6ea")
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9aa1a9")
    axes.tick_params(colors="#4a5058")


def _predicted(report: Report) -> tuple[float | None, float | None]:
    """The network's distance for staying, in the first and the last view."""
    looks = (report.first, report.last)
    start, end = (None if look is None else float(look.distances[0]) for look in looks)
    return start, end


def _mm(metres: float | None) -> str:
    return "-" if metres is None else f"{metres * 1e3:.1f} mm"
