"""A flight again: `python -m rt.replay FILE` sums a flight record up and scores every view it holds anew.

Each recorded view and its kept candidates go through a network again; the distances are laid beside
the recorded ones, or beside those of a second model (--against). With the recorded model the
difference is the rounding between two backends; with another it says where the two disagree.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table

from rt.controller import symmetry
from rt.distance import SHIPPED, Distance, open_model
from rt.distance.contract import read_model
from rt.page import PageError
from rt.page.server import review
from rt.pose import METRES_PER_RADIAN, wrap_theta
from rt.record.recorder import FlightRecord, RecordError, read_record
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, plain, write_figure, write_json
from rt.tools.progress import progress

_MARKS = {"stop": "#ff3b30", "hold": "#f0a020", "warn": "#b083f0", "clamp": "#9aa1a9"}


@dataclass(frozen=True)
class ReplayOptions:
    """Sum up a flight record, and score its views again with any model and backend.

    Example: python -m rt.replay runs/servo/<time>/flight.mcap --backend reference
    """

    file: tyro.conf.Positional[Path]
    """The flight record, whole or broken off."""
    model: Path | None = None
    """Network to score with. Default: the recorded one, where the file still holds it."""
    backend: str = "auto"
    """Its backend: auto, native, onnx, reference, tensorrt, or module:attribute."""
    against: Path | None = None
    """A second network: compared with the first, instead of the record with the first."""
    every: int = 1
    """Score every n-th view only."""
    tolerance_mm: float | None = None
    """End with exit code 1 if any distance differs by more than this [mm]."""
    view: bool = False
    """Show the flight in the browser (rt.page; extra `view`) with a time slider, and nothing else."""
    view_port: int = 8080
    """First TCP port to try for the page."""
    out: Path | None = None
    """Folder for replay.json and replay.png. Default: runs/replay/<time>/."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every = {self.every} must be 1 or more")
        if self.tolerance_mm is not None and not self.tolerance_mm >= 0:
            raise ValueError(f"tolerance_mm = {self.tolerance_mm} must not be negative")


@dataclass(frozen=True)
class Difference:
    """Two sets of distances of the same candidates of the same views."""

    of: str
    to: str
    rows: NDArray[np.intp]
    """(n,) of the record's cycles."""
    worst_m: NDArray[np.float32]
    """(n,) largest difference among a view's candidates."""
    all_m: NDArray[np.float32]
    """Every difference."""
    moved_m: NDArray[np.float64]
    """(n,) how far apart the two choices are, in the grasp metric; 0: the same candidate."""

    def summary(self, record: FlightRecord) -> dict[str, Any]:
        """Numbers for people and JSON."""
        worst, changed = int(np.argmax(self.worst_m)), self.moved_m > 0
        return {
            "of": self.of,
            "to": self.to,
            "views": len(self.rows),
            "distances": len(self.all_m),
            "median_mm": float(np.median(self.all_m)) * 1e3,
            "p99_mm": float(np.percentile(self.all_m, 99)) * 1e3,
            "max_mm": float(self.worst_m[worst]) * 1e3,
            "max_at_cycle": int(record.cycles["cycle"][self.rows[worst]]),
            "choices_changed": int(changed.sum()),
            "choice_moved_median_mm": float(np.median(self.moved_m[changed])) * 1e3
            if changed.any()
            else 0.0,
            "choices_changed_at_cycles": record.cycles["cycle"][self.rows[changed]].tolist(),
        }


def scorable(record: FlightRecord, every: int = 1) -> NDArray[np.intp]:
    """Cycles (n,) that hold a view and the distances of its candidates."""
    cycles = record.cycles
    rows = np.flatnonzero((cycles["frame"] >= 0) & np.isfinite(cycles["distances"][:, 0]))
    return rows[::every]


def recorded(record: FlightRecord, rows: NDArray[np.intp]) -> list[NDArray[np.float32]]:
    """The distances of each row's candidates, as they were in flight."""
    return [d[~np.isnan(d)] for d in record.cycles["distances"][rows]]


def score(
    record: FlightRecord, rows: NDArray[np.intp], distance: Distance, title: str = "scoring"
) -> list[NDArray[np.float32]]:
    """The distances of each row's candidates, by this network, in the symmetry of the view that the
    recorded controller looked at."""
    result = []
    for row in progress(rows, unit="view", title=title):
        cycle = record.cycles[row]
        actions = np.ascontiguousarray(cycle["candidates"][~np.isnan(cycle["distances"])])
        result.append(distance(*symmetry(int(cycle["symmetry"]), cycle["view"], actions)))
    return result


def rescore(
    record: FlightRecord, distance: Distance, every: int = 1
) -> tuple[NDArray[np.intp], list[NDArray[np.float32]]]:
    """Score the recorded views with a network: the rows (n,) of record.cycles that hold a view, every n-th of
    them, and for each row the distances (K,) [m] of its recorded candidates."""
    rows = scorable(record, every)
    return rows, score(record, rows, distance)


def compare(
    record: FlightRecord,
    rows: NDArray[np.intp],
    a: list[NDArray[np.float32]],
    b: list[NDArray[np.float32]],
    names: tuple[str, str],
) -> Difference:
    """Two scores of the same rows."""
    worst, moved, everything = [], [], []
    for row, x, y in zip(rows, a, b, strict=True):
        difference = np.abs(x - y)
        everything.append(difference)
        worst.append(difference.max())
        actions = record.cycles["candidates"][row]
        way = actions[np.argmin(x)].astype(float) - actions[np.argmin(y)]
        turn = METRES_PER_RADIAN * float(wrap_theta(way[2]))
        moved.append(math.hypot(way[0], way[1], turn))
    return Difference(
        *names, rows, np.array(worst), np.concatenate(everything), np.array(moved, float)
    )


def flight(record: FlightRecord) -> dict[str, Any]:
    """The flight in numbers."""
    cycles = record.cycles
    stamps_s = (cycles["stamp_ns"] - cycles["stamp_ns"][0]) * 1e-9
    duration_s = float(stamps_s[-1])
    events = Counter(cycles["guard_name"][cycles["guard_name"] != b""].tolist())
    age = cycles["frame_age_s"][np.isfinite(cycles["frame_age_s"])] * 1e3
    stages = {}
    for name, column in record.stages.items():
        ms = column[np.isfinite(column)]
        if ms.size:
            p50, p99, top = np.percentile(ms, (50, 99, 100)).tolist()
            stages[name] = {"p50_ms": p50, "p99_ms": p99, "max_ms": top, "count": ms.size}
    last = cycles[-1]
    return {
        "whole": record.whole,
        "lost": record.lost,
        "cycles": len(cycles),
        "duration_s": duration_s,
        "rate_hz": (len(cycles) - 1) / duration_s if duration_s > 0 else None,
        "rate_asked_hz": record.header.get("config", {}).get("rate"),
        "missed_deadlines": int(last["missed"]),
        "held": int(last["held"]),
        "views": int((cycles["frame"] >= 0).sum()),
        "phases": [k.decode() for k in dict.fromkeys(cycles["phase"].tolist())],
        "guard": {name.decode(): count for name, count in events.items()},
        "frame_age_ms": np.percentile(age, (50, 100)).tolist() if age.size else None,
        "stages": stages,
        "predicted_first_mm": _mm(cycles["predicted_m"], 0),
        "predicted_last_mm": _mm(cycles["predicted_m"], -1),
        "true_first_mm": _mm(cycles["true_m"], 0),
        "true_last_mm": _mm(cycles["true_m"], -1),
        "log": record.log,
    }


def _mm(column: NDArray[np.float32], which: int) -> float | None:
    known = column[np.isfinite(column)]
    return float(known[which]) * 1e3 if known.size else None


def recorded_model(record: FlightRecord) -> Path:
    """The file of the recorded model, if it can still be found: where it was, or a shipped one.

    Raises RecordError otherwise, naming what was recorded.
    """
    model = record.header.get("model", {})
    places = [Path(model["path"])] if model.get("path") else []
    for path in (*places, *SHIPPED.values()):
        if path.is_file() and read_model(path)[0].weights_sha256 == model.get("weights_sha256"):
            return path
    raise RecordError(
        f"the recorded model ({model.get('path')}, weights {str(model.get('weights_sha256'))[:12]}) is no "
        "longer there; give one with --model"
    )


def replay(config: ReplayOptions, record: FlightRecord) -> tuple[dict[str, Any], Difference | None]:
    """All of replay.json, and the difference that the options ask for."""
    result: dict[str, Any] = {
        "command": "rt.replay",
        "config": plain(asdict(config)),
        "flight": flight(record),
        "model": record.header.get("model"),
        "difference": None,
    }
    rows = scorable(record, config.every)
    if not len(rows):
        return result, None
    path = config.model or recorded_model(record)
    first = open_model(path, config.backend)
    a = score(record, rows, first, "first model" if config.against else "scoring")
    name = f"{path.name} ({first.backend})"
    if config.against is None:
        in_flight = f"in flight ({record.header.get('model', {}).get('backend')})"
        difference = compare(record, rows, recorded(record, rows), a, (in_flight, name))
    else:
        second = open_model(config.against, config.backend)
        b = score(record, rows, second, "second model")
        other = f"{config.against.name} ({second.backend})"
        difference = compare(record, rows, a, b, (name, other))
        true = record.cycles["true_m"][rows]
        if np.isfinite(true).any():
            result["error_of_staying_mm"] = {
                label: float(np.nanmean(np.abs(np.array([d[0] for d in scores]) - true))) * 1e3
                for label, scores in ((name, a), (other, b))
            }
    result["difference"] = difference.summary(record)
    return result, difference


def table(result: dict[str, Any]) -> Table:
    """The table on screen."""
    f, d = result["flight"], result["difference"]
    state = "" if f["whole"] else ", broken off"
    shown = Table(title=f"rt.replay: {f['cycles']} cycles{state}", title_style="bold", min_width=76)
    for name in ("", "p50", "p99", "max", "count"):
        shown.add_column(name, justify="right" if name else "left")
    asked = f["rate_asked_hz"]
    shown.add_row("duration", f"{f['duration_s']:.2f} s", "", "", "")
    of = f"of {asked:g} Hz" if asked else ""
    shown.add_row("rate", "-" if f["rate_hz"] is None else f"{f['rate_hz']:.2f} Hz", of, "", "")
    for name in ("missed_deadlines", "held", "lost"):
        if f[name] or name == "missed_deadlines":
            shown.add_row(name.replace("_", " "), str(f[name]), "", "", "")
    if f["frame_age_ms"]:
        p50, top = f["frame_age_ms"]
        shown.add_row("frame age", f"{p50:.1f} ms", "", f"{top:.1f} ms", str(f["views"]))
    for name, s in f["stages"].items():
        times = [f"{s[key]:.2f} ms" for key in ("p50_ms", "p99_ms", "max_ms")]
        shown.add_row(name, *times, str(s["count"]))
    for name, count in sorted(f["guard"].items()):
        shown.add_row(f"guard: {name}", "", "", "", str(count))
    shown.add_section()
    shown.add_row("distance to a grasp", "first", "last", "", "", style="bold")
    for name in ("predicted", "true"):
        ends = (f[f"{name}_first_mm"], f[f"{name}_last_mm"])
        shown.add_row(f"  {name}", *("-" if v is None else f"{v:.1f} mm" for v in ends), "", "")
    shown.add_section()
    if d is None:
        shown.add_row("no view with distances to score", "", "", "", "")
        return shown
    shown.add_row(f"{d['of']} - {d['to']}", "p50", "p99", "max", "", style="bold")
    values = [_small(d[key]) for key in ("median_mm", "p99_mm", "max_mm")]
    shown.add_row("  distances", *values, str(d["distances"]))
    shown.add_row("  largest at cycle", "", "", str(d["max_at_cycle"]), "")
    moved = f"{d['choice_moved_median_mm']:.1f} mm apart" if d["choices_changed"] else ""
    shown.add_row("  other choice", moved, "", "", f"{d['choices_changed']} of {d['views']}")
    for name, error in result.get("error_of_staying_mm", {}).items():
        shown.add_row(f"  mean error of {name}", f"{error:.2f} mm", "", "", "")
    return shown


def _small(mm: float) -> str:
    return f"{mm:.2f} mm" if mm >= 0.01 or mm == 0 else f"{mm:.1e} mm"


def draw(record: FlightRecord, difference: Difference | None, path: Path) -> None:
    """replay.png: distance over time with the guard's marks, the differences, and the stage times."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cycles = record.cycles
    time_s = (cycles["stamp_ns"] - cycles["stamp_ns"][0]) * 1e-9
    figure, axes = plt.subplots(3, 1, figsize=(11, 9), dpi=110, sharex=True, layout="constrained")
    top, middle, low = axes
    for name, color, width in (("predicted_m", "#2667c9", 1.4), ("true_m", "#22262b", 2.2)):
        if np.isfinite(cycles[name]).any():
            top.plot(time_s, cycles[name] * 1e3, color=color, lw=width, label=name[:-2])
    for action, color in _MARKS.items():
        rows = np.flatnonzero(cycles["guard_action"] == action.encode())
        if rows.size:
            top.plot(time_s[rows], 0 * rows, "|", color=color, ms=16, mew=2, label=action)
    top.set_title("distance to the nearest grasp [mm]; marks: the guard", loc="left")
    if top.get_legend_handles_labels()[1]:
        top.legend(frameon=False, loc="upper right")
    if difference is not None:
        at = time_s[difference.rows]
        middle.plot(at, np.maximum(difference.worst_m * 1e3, 1e-6), color="#b3541e", lw=1.2)
        changed = difference.moved_m > 0
        worst = np.maximum(difference.worst_m[changed] * 1e3, 1e-6)
        middle.plot(at[changed], worst, "o", color="#22262b", ms=4, label="another choice")
        middle.set_yscale("log")
        middle.set_title(
            f"largest difference in a view [mm]: {difference.of} - {difference.to}", loc="left"
        )
        if changed.any():
            middle.legend(frameon=False, loc="upper right")
    for name, column in record.stages.items():
        if np.isfinite(column).any():
            low.plot(time_s, column, lw=2.0 if name == "whole" else 1.0, label=name)
    low.set_title("stage times [ms]", loc="left")
    low.set_ylim(bottom=0)
    low.legend(frameon=False, loc="upper right", ncols=4)
    low.set_xlabel("time [s]")
    for axis in axes:
        axis.grid(axis="y", color="#e3e6ea")
        axis.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path)


@command(
    "rt.replay",
    ReplayOptions,
    failures=(PageError,),
    mistakes=(RecordError, ValueError),
)
def main(config: ReplayOptions) -> int:
    record = read_record(config.file)
    if not len(record.cycles):
        raise RecordError(f"{config.file} holds no cycle: the run ended before its first")
    if config.view:
        review(record.header, record.cycles, port=config.view_port, open_browser=True)
        return DONE
    result, difference = replay(config, record)
    folder = output_folder("replay", config.out)
    write_json(folder / "replay.json", result)
    draw(record, difference, folder / "replay.png")
    console = screen()
    console.print(table(result))
    for line in record.log:
        console.print(f"[dim]{line}[/dim]", soft_wrap=True, highlight=False)
    console.print(f"{folder}/: replay.json, replay.png", soft_wrap=True, highlight=False)
    worst_mm = 0.0 if difference is None else float(difference.worst_m.max()) * 1e3
    if config.tolerance_mm is None or worst_mm <= config.tolerance_mm:
        return DONE
    print(
        f"rt.replay: distances differ by up to {worst_mm:.3g} mm, "
        f"the tolerance is {config.tolerance_mm:g} mm",
        file=sys.stderr,
    )
    return NOT_DONE


if __name__ == "__main__":
    sys.exit(main())
