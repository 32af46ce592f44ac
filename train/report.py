"""Report of a training run and of a validation: progress line, tables and pictures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table
from tqdm import tqdm

from rt.tools.command import screen
from rt.tools.plots import panels, save
from train.offsets import OFFSETS

if TYPE_CHECKING:  # they import torch, which a validation does without
    from train.batches import Steps
    from train.checkpoint import TrainingState
    from train.endless import EndlessBatches

LINE_EVERY_S = 15.0
"""Between progress lines when the output is not a terminal."""


class Progress:
    """A bar on a terminal, else a plain line now and then: done, loss, validation, images/s, time left."""

    def __init__(
        self,
        state: TrainingState,
        total: int | None,
        total_s: float,
        batches: Steps | EndlessBatches,
    ) -> None:
        self.state, self.total, self.total_s, self.batches = state, total, total_s, batches
        self.begun, self.first_step = time.perf_counter(), state.step
        self.shown = self.begun
        self.loss: float | None = None
        self.bar = (
            tqdm(total=1000, bar_format="{l_bar}{bar}| {postfix}") if _on_terminal() else None
        )

    def update(self) -> None:
        state, now = self.state, time.perf_counter()
        recent = state.losses[-1] if state.losses else state.curve[-1]["loss_m"]
        self.loss = recent if self.loss is None else 0.98 * self.loss + 0.02 * recent
        if now - self.shown < (0.5 if self.bar is not None else LINE_EVERY_S):
            return
        self.shown = now
        self.show()

    def show(self) -> None:
        state, now = self.state, time.perf_counter()
        images = (state.step - self.first_step) * self.batches.batch_size
        rate = images / max(now - self.begun, 1e-9)
        if self.total is None:
            done, left_s = state.elapsed_s / self.total_s, self.total_s - state.elapsed_s
        else:
            done = state.step / self.total
            left_s = (self.total - state.step) * self.batches.batch_size / max(rate, 1e-9)
        text = (
            f"step {state.step}, epoch {state.step / self.batches.steps_per_epoch:.2f}, "
            f"loss {1000 * (self.loss or 0):.2f} mm"
        )
        if state.validations:
            v = state.validations[-1]
            text += f", test {1000 * v['all_m']:.2f} mm (near {1000 * v['near_m']:.2f} mm)"
        text += f", {rate:.0f} images/s, {max(left_s, 0) / 60:.1f} min left"
        if self.bar is None:
            print(f"{100 * min(done, 1):5.1f}% {text}", flush=True)
        else:
            self.bar.n = round(1000 * min(done, 1))
            self.bar.set_postfix_str(text)

    def close(self) -> None:
        if self.state.step > self.first_step:
            self.show()
        if self.bar is not None:
            self.bar.close()


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def print_report(record: dict[str, Any]) -> None:
    """The validation of a finished run, and what it took."""
    print_validation(record["validation"])
    print(
        f"{record['images_seen']} images ({record['epochs_done']:.2f} epochs) in "
        f"{record['training_s'] / 60:.1f} min: {record['images_per_s']:.0f} images/s, "
        f"{record['samples_per_s']:.0f} samples/s"
    )
    if record["endless"]:
        print(
            f"{record['waited_s'] / record['training_s']:.0%} of the time was waited for fresh scenes"
        )


def print_validation(v: dict[str, Any]) -> None:
    """Validation as a table: error by true distance and by category, for all offsets and near ones."""
    table = Table(title=f"mean absolute error on {v['images']} views of test objects, mm")
    for column in ("", "all offsets", "bias", "near offsets", "bias", "one choice"):
        table.add_column(column, justify="right")
    choice = v["choice"]
    bins: dict[tuple[float, float | None], dict[str, dict[str, Any]]] = {}
    for kind in ("all", "near"):
        for b in v[kind]["bins"]:
            bins.setdefault((b["from_m"], b["to_m"]), {})[kind] = b
    for (low, high), kinds in sorted(bins.items(), key=lambda row: row[0][0]):
        name = f"{1e3 * low:.0f} to {1e3 * high:.0f} mm" if high else f"above {1e3 * low:.0f} mm"
        table.add_row(name, *_cells(kinds))
    table.add_section()
    for group in ("categories", "sensors"):
        names = sorted(v["all"][group].keys() | v["near"][group].keys())
        if group == "sensors" and len(names) == 1:
            continue
        for name in names:
            kinds = {k: v[k][group][name] for k in ("all", "near") if name in v[k][group]}
            chosen = choice[group].get(name)
            cells = _cells(kinds)
            table.add_row(name, *cells, f"{1e3 * chosen['chosen_median_m']:.1f}" if chosen else "")
        table.add_section()
    table.add_row("all together", *_cells(v), f"{1e3 * choice['chosen_median_m']:.1f}")
    trivial = (f"{1e3 * v[kind]['trivial_error_m']:.1f}" for kind in ("all", "near"))
    table.add_row("best constant", next(trivial), "", next(trivial), "")
    screen().print(table)
    print(
        f"near: within {1e3 * v['near_reach_m']:.0f} mm of the hand. Category: of the object that the "
        "nearest true grasp holds."
    )
    print(
        f"one choice among {choice['candidates']} candidates within {1e3 * choice['reach_m']:.0f} mm: "
        f"median true distance {1e3 * choice['start_median_m']:.1f} mm before, "
        f"{1e3 * choice['chosen_median_m']:.1f} mm after, {1e3 * choice['best_median_m']:.1f} mm at best"
    )
    print_knowledge(v)


def print_knowledge(v: dict[str, Any]) -> None:
    """Print calibration of probabilities and intervals, and the decisions on which objects are graspable."""
    heights = Table(title="by the hand's height")
    for column in ("height", "all offsets", "bias", "near offsets", "bias", "spread holds"):
        heights.add_column(column, justify="right")
    held = {row["from_m"]: row["held"] for row in v.get("spread", {}).get("heights", [])}
    for every, near in zip(v["all"]["heights"], v["near"]["heights"], strict=True):
        low, high = every["from_m"], every["to_m"]
        name = f"{low:.2f} to {high:.2f} m" if high else f"above {low:.2f} m"
        share = f"{held[low]:.1%}" if low in held else ""
        heights.add_row(name, *_cells({"all": every, "near": near}), share)
    screen().print(heights)
    if "spread" in v:
        parts = ", ".join(
            f"{1e3 * b['from_m']:.0f} mm {b['held']:.1%}" for b in v["spread"]["bins"]
        )
        print(
            f"the 95 % spread holds {v['spread']['held']:.1%} of the errors, median spread "
            f"{1e3 * v['spread']['median_spread_m']:.1f} mm; by true distance from {parts}"
        )
    if "probability" in v:
        p = v["probability"]
        print(
            f"a grasp within {1e3 * p['within_m']:.0f} mm: {p['share']:.1%} of the offsets; calibration "
            f"error {p['calibration_error']:.3f}, Brier score {p['brier']:.3f}, "
            f"separation {p['separation']:.3f}"
        )
    if "graspable" in v:
        g = v["graspable"]
        for row in g["heights"]:
            both = (
                f", greatest probability {row['probability']:.3f}, both {row['both']:.3f}"
                if "both" in row
                else ""
            )
            print(
                f"{g['with_few']} of {g['objects']} objects with fewer than {g['few']} grasps, seen from "
                f"{row['height_m']:.2f} m, are told apart (ROC area) by least distance "
                f"{row['distance']:.3f}{both}"
            )


def _cells(kinds: dict[str, dict[str, Any]]) -> list[str]:
    """Error and bias in mm of all and of near offsets; empty where there are none."""
    cells = []
    for kind in ("all", "near"):
        if b := kinds.get(kind):
            cells += [f"{1e3 * b['mean_absolute_error_m']:.1f}", f"{1e3 * b['bias_m']:+.1f}"]
        else:
            cells += ["", ""]
    return cells


def plot_fit(
    path: Path,
    record: dict[str, Any],
    true: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> None:
    """Curves, and predicted against true distance on test objects for all and for near offsets."""
    figure, axes = panels(1, 3, size_in=(15, 4.6))
    ax = axes[0]
    curve, checks = record["curve"], record["validation_curve"]
    ax.plot([p["step"] for p in curve], [1e3 * p["loss_m"] for p in curve], lw=1, label="training")
    for key, label in (("all_m", "test, all offsets"), ("near_m", "test, near offsets")):
        ax.plot(
            [p["step"] for p in checks], [1e3 * p[key] for p in checks], "o-", ms=3, label=label
        )
    ax.set(xlabel="step", ylabel="mean absolute error, mm", ylim=(0, None), title="Training")
    ax.grid(which="both", alpha=0.3)
    ax.legend()
    _plot_distances(figure, axes[1:], record["validation"], true, predicted)
    save(figure, path, dpi=110)


def plot_validation(
    path: Path, v: dict[str, Any], true: NDArray[np.float32], predicted: NDArray[np.float32]
) -> None:
    """Errors by category, and predicted against true distance for all and for near offsets."""
    figure, axes = panels(1, 3, size_in=(15, 4.6))
    ax = axes[0]
    names = sorted(v["all"]["categories"], reverse=True)
    rows = np.arange(len(names))
    for shift, kind in ((0.2, "all"), (-0.2, "near")):
        errors = [v[kind]["categories"].get(n, {}).get("mean_absolute_error_m", 0) for n in names]
        ax.barh(rows + shift, [1e3 * e for e in errors], height=0.4, label=f"{kind} offsets")
    ax.set_yticks(rows, names)
    ax.set(xlabel="mean absolute error, mm", title="By category of the nearest grasp's object")
    ax.grid(axis="x", alpha=0.3)
    ax.legend()
    _plot_distances(figure, axes[1:], v, true, predicted)
    save(figure, path, dpi=110)


def _plot_distances(
    figure: Figure,
    axes: NDArray[np.object_],
    v: dict[str, Any],
    true: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> None:
    parts = (
        ("all", "offsets uniform in the view", np.s_[:, :OFFSETS]),
        ("near", f"offsets within {1e3 * v['near_reach_m']:.0f} mm", np.s_[:, OFFSETS:]),
    )
    for ax, (kind, title, part) in zip(axes, parts, strict=True):
        t, p = 1e3 * true[part].ravel(), 1e3 * predicted[part].ravel()
        top = float(np.percentile(t, 99.8))
        p = np.clip(p, 0, top)  # what is off the scale is on its border
        image = ax.hist2d(t, p, bins=120, range=[[0, top], [0, top]], norm="log", cmap="viridis")[3]
        figure.colorbar(image, ax=ax, label="samples")
        ax.plot([0, top], [0, top], "r-", lw=1)
        ax.set(
            xlabel="true distance, mm",
            ylabel="predicted distance, mm",
            title=f"{title}: {1e3 * v[kind]['mean_absolute_error_m']:.1f} mm",
            aspect="equal",
        )
