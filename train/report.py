"""What people see of a training run: a progress line, a table and a picture."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from train.batches import Batches
from train.checkpoint import State
from train.validation import OFFSETS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LINE_EVERY_S = 15.0
"""Between progress lines when the output is not a terminal."""


class Progress:
    """A bar on a terminal, else a plain line now and then: done, loss, validation, images/s, time left."""

    def __init__(self, state: State, total: int | None, total_s: float, batches: Batches) -> None:
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
    """Validation as a table: error by true distance, for all offsets and for near ones."""
    table = Table(title="mean absolute error on test objects, mm")
    for column in ("true distance, mm", "all offsets", "bias", "near offsets", "bias"):
        table.add_column(column, justify="right")
    v = record["validation"]
    rows: dict[tuple[float, float | None], dict[str, dict[str, Any]]] = {}
    for kind in ("all", "near"):
        for b in v[kind]["bins"]:
            rows.setdefault((b["from_m"], b["to_m"]), {})[kind] = b
    for (low, high), kinds in sorted(rows.items(), key=lambda row: row[0][0]):
        cells = [f"{1000 * low:.0f} to {1000 * high:.0f}" if high else f"above {1000 * low:.0f}"]
        for kind in ("all", "near"):
            b = kinds.get(kind)
            cells += (
                [f"{1000 * b['mean_absolute_error_m']:.1f}", f"{1000 * b['bias_m']:+.1f}"]
                if b
                else ["", ""]
            )
        table.add_row(*cells)
    table.add_section()
    for name, key in (
        ("all together", "mean_absolute_error_m"),
        ("best constant", "trivial_error_m"),
    ):
        table.add_row(name, f"{1000 * v['all'][key]:.1f}", "", f"{1000 * v['near'][key]:.1f}", "")
    Console().print(table)
    c = v["choice"]
    print(
        f"one choice among {c['candidates']} candidates within {1000 * c['reach_m']:.0f} mm: median true "
        f"distance {1000 * c['start_median_m']:.1f} mm before, {1000 * c['chosen_median_m']:.1f} mm after, "
        f"{1000 * c['best_median_m']:.1f} mm at best"
    )
    print(
        f"{record['images_seen']} images ({record['epochs_done']:.2f} epochs) in "
        f"{record['training_s'] / 60:.1f} min: {record['images_per_s']:.0f} images/s, "
        f"{record['samples_per_s']:.0f} samples/s"
    )


def plot_fit(
    path: Path,
    record: dict[str, Any],
    true: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> None:
    """Curves, and predicted against true distance on test objects for all and for near offsets."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
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
    parts = (
        ("all", "offsets uniform in the view", np.s_[:, :OFFSETS]),
        (
            "near",
            f"offsets within {1e3 * record['validation']['near_reach_m']:.0f} mm",
            np.s_[:, OFFSETS:],
        ),
    )
    for ax, (kind, title, part) in zip(axes[1:], parts, strict=True):
        t, p = 1e3 * true[part].ravel(), 1e3 * predicted[part].ravel()
        top = float(np.percentile(t, 99.8))
        image = ax.hist2d(t, p, bins=120, range=[[0, top], [0, top]], norm="log", cmap="viridis")[3]
        figure.colorbar(image, ax=ax, label="samples")
        ax.plot([0, top], [0, top], "r-", lw=1)
        error = 1e3 * record["validation"][kind]["mean_absolute_error_m"]
        ax.set(
            xlabel="true distance, mm",
            ylabel="predicted distance, mm",
            title=f"{title}: {error:.1f} mm",
            aspect="equal",
        )
    beside = path.with_name(f".{path.stem}.partial.png")
    figure.savefig(beside, dpi=110)
    plt.close(figure)
    beside.replace(path)
