"""Summaries that bench.figures keeps of each command's JSON, and the table rows made from them."""

from __future__ import annotations

from typing import Any

from sim.experiment.sweep import UNITS
from sim.experiment.tables import LABELS

Json = dict[str, Any]

_ROWS = {
    "INIT": "the start (INIT)",
    "CTR": "the loop (CTR)",
    "CTR_noise": "the loop, noise 0.4 (CTR_noise)",
    "CTR_paper": "the paper's controller (`--controller paper`)",
    "CTR_paper_noise": "the paper's controller, noise 0.4",
    "GPD": "one-shot detection (GPD)",
    "GPD_noise": "one-shot detection, noise 0.4 (GPD_noise)",
    "MAP": "the network, once (MAP)",
    "TRUE": "the true grasp nearest to the start (TRUE)",
}
_SWEPT = {
    "CTR": "the loop (CTR)",
    "CTR_paper": "the paper's controller",
    "GPD": "detector (GPD)",
    "MAP": "network, once",
    "TRUE": "true grasp",
}
_LIFTED = "lifted [95 %]"
_SAME = "the same run"


def _mm(metres: float) -> str:
    return f"{metres * 1e3:.1f}"


def servo(result: Json) -> Json:
    start, end = result["true_distance_start_m"], result["true_distance_end_m"]
    missed = result["timing"]["missed_deadlines"]
    rows = [
        "| cycles | distance at the start | at the end | missed deadlines |",
        "| --- | --- | --- | --- |",
        f"| {result['cycles']} | {_mm(start)} mm | {_mm(end)} mm | {missed} |",
    ]
    return {"title": "A run of the loop: first view, last view, distance over time", "table": rows}


def trials(result: Json) -> Json:
    """Lifts and distances of one set of trials; where scenes were cleared also the share cleared."""
    scenarios = result["scenarios"]
    cleared = "cleared" in scenarios["CTR"]
    counts = [
        k for k in ("inside", "on_wall", "wrong") if any(s.get(k) for s in scenarios.values())
    ]
    columns = [_LIFTED, *(["of possible", "cleared [95 %]", "picks"] * cleared)]
    columns += ["median [95 %]", "under 1 cm", "under 2 cm", *(_COUNTS[k] for k in counts)]
    rows = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, words in _ROWS.items():
        if name not in scenarios:
            continue
        s = scenarios[name]
        cells = [_share(s["lifted"], s["lifted_ci95"])]
        if cleared:
            cells += [f"{100 * s['lifted_possible']:.0f} %"]
            cells += [_share(s["cleared"], s["cleared_ci95"]), str(s["n"])]
        low, high = s["ci95_m"]
        cells.append(f"{_mm(s['median_m'])} mm [{_mm(low)}, {_mm(high)}]")
        cells += [f"{100 * s[key]:.0f} %" for key in ("under_1cm", "under_2cm")]
        cells += [f"{s.get(k, 0)} of {s['n']}" for k in counts]
        rows.append(f"| {words} | " + " | ".join(cells) + " |")
    pair = next((p for p in result["pairs"] if (p["a"], p["b"]) == ("GPD", "CTR")), None)
    if pair is not None:
        low, high = pair["lifted_difference_ci95"]
        rows += [
            "",
            f"Lifts of the loop less those of one-shot detection, on the same trials: "
            f"{-100 * pair['lifted_difference']:+.1f} [{-100 * high:+.1f}, {-100 * low:+.1f}] points. "
            f"Distances are to {LABELS[result['label']]}.",
        ]
    return {"title": f"Lifts and distances of {len(result['trials'])} trials", "table": rows}


_COUNTS = {"inside": "hand inside", "on_wall": "finger on a wall", "wrong": "wrong object"}


def _share(share: float, interval: list[float]) -> str:
    low, high = interval
    return f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def sweep(result: Json) -> Json:
    """Rows by strength: the share lifted and the median distance at the end."""
    words = UNITS[result["config"]["over"]]
    points = result["points"]
    names = [name for name in _SWEPT if name in points[0]["scenarios"]]
    rows = [
        f"| {words} | " + " | ".join(_SWEPT[name] for name in names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for point in points:
        found = [point["scenarios"][name] for name in names]
        cells = [f"{100 * s['lifted']:.0f} %, {_mm(s['median_m'])} mm" for s in found]
        value = point["value"]
        label = value if isinstance(value, str) else f"{value:g}"
        rows.append(f"| {label} | " + " | ".join(cells) + " |")
    said = "share lifted, and median"
    return {"title": f"Lifts and median distance over: {words}", "cells": said, "table": rows}


def latency(result: Json) -> Json:
    most = result["machine"]["threads"]

    def ms(backend: str, candidates: int) -> float:
        rows = result["inference"]
        found = (
            r
            for r in rows
            if (r["backend"], r["candidates"], r["threads"]) == (backend, candidates, most)
        )
        return next(found)["p50_ms"]

    n, whole = 1024, 73728
    native = ms("native", n)
    cycle = [
        {k: c[k] for k in ("load", "candidates", "cycles", "missed", "rate_hz")}
        | {k: c["latency"][k] for k in ("p50_ms", "p99_ms")}
        for c in result["cycle"]
    ]
    return {
        "threads": most,
        "field_ms": ms("field-native", n),
        "field_onnx_ms": ms("field-onnx", n),
        "field_map_ms": ms("field-native", whole),
        "field_map_onnx_ms": ms("field-onnx", whole),
        "native_ms": native,
        "onnx_ratio": ms("onnx", n) / native,
        "tiled_ratio": ms("tiled", n) / native,
        "map_ms": ms("native", whole),
        "cycle": cycle,
    }


def study(result: Json) -> Json:
    poses, a = max(result["accuracy"].items(), key=lambda item: int(item[0]))
    best = min((v for k, v in a["median"].items() if k != "joint"), key=lambda v: v[0])
    return {
        "poses": int(poses),
        "joint": a["median"]["joint"],
        "closed_form": best,
        "coverage": a["coverage_all"],
        "found": min(c["found"] for c in result["corruption"].values()),
    }


def validation(result: Json) -> Json:
    return _errors(result["validation"])


def network(record: Json) -> Json:
    """Summary of rt/models/distance.json."""
    kept = {k: record[k] for k in ("training_images", "images_per_s", "samples_per_s", "minutes")}
    return {**kept, **_errors(record["validation"])}


def _errors(report: Json) -> Json:
    keys = ("mean_absolute_error_m", "trivial_error_m")
    return {part: {k: report[part][k] for k in keys} for part in ("all", "near")}


def measured(stored: dict[str, Json]) -> list[str]:
    """Rows | quantity | figure | command | of the stored summaries without a table of their own."""
    rows: list[tuple[str, str, str]] = []
    if n := stored.get("network"):
        rows.append(
            (
                f"the paper's network, trained on {n['training_images']:,} images: error on test objects",
                _said(n),
                "`train.fit`; record in `rt/models/distance.json`",
            )
        )
    if v := stored.get("validation"):
        rows.append(("the shipped network: error on a fresh test set", _said(v), _command(v)))
    if t := stored.get("latency"):
        for candidates, ms, onnx_ms, by in (
            ("1,024 candidates", "field_ms", "field_onnx_ms", _command(t)),
            ("73,728 candidates (the whole field)", "field_map_ms", "field_map_onnx_ms", _SAME),
        ):
            rows.append(
                (
                    f"a call of the default network for {candidates}, {t['threads']} threads, median",
                    f"{t[ms]:.2f} ms ({t[onnx_ms]:.2f} ms in ONNX Runtime)",
                    by,
                )
            )
        rows.append(
            (
                "a call of the paper's network for 1,024 candidates",
                f"{t['native_ms']:.2f} ms; {t['onnx_ratio']:.1f} times faster than ONNX Runtime on the same "
                f"factored graph, {t['tiled_ratio']:.0f} times than on the plain network",
                _SAME,
            )
        )
        rows.append(
            (
                "the same for 73,728 candidates",
                f"{t['map_ms']:.1f} ms",
                _SAME,
            )
        )
        for c in t["cycle"]:
            beside = f", {c['load']} busy processes beside" if c["load"] else ""
            rows.append(
                (
                    f"whole cycle at {c['rate_hz']:g} Hz, {c['candidates']:,} candidates{beside}",
                    f"median {c['p50_ms']:.1f} ms, 99 % under {c['p99_ms']:.1f} ms, "
                    f"{c['missed']} of {c['cycles']} deadlines missed",
                    _SAME,
                )
            )
    if s := stored.get("study"):
        (mm, deg), (other_mm, _) = s["joint"], s["closed_form"]
        rows.append(
            (
                f"hand-eye, simulated rigs of {s['poses']} poses",
                f"joint median {mm:.3f} mm, {deg:.3f} deg (best closed form {other_mm:.3f} mm); its 95 % "
                f"intervals hold the truth in {s['coverage'] * 100:.1f} %; a corrupted pair is found in "
                f"{s['found'] * 100:.1f} % or more",
                _command(s),
            )
        )
    return _rows(rows)


def summary(stored: dict[str, Json]) -> list[str]:
    """The README's four rows, | quantity | figure | command |; none unless all their runs are stored."""
    if not {"trials", "sweep_jump", "latency"} <= stored.keys():
        return []
    kept, jump, timing = stored["trials"], stored["sweep_jump"], stored["latency"]
    loop, once, loop_noise, once_noise = (
        _cell(kept, _ROWS[name], _LIFTED) for name in ("CTR", "GPD", "CTR_noise", "GPD_noise")
    )
    far, names = jump["table"][-1], _cells(jump["table"][0])
    strength, still_loop = _cells(far)[:2]
    still_once = _cells(far)[names.index(_SWEPT["GPD"])]
    cycle = timing["cycle"][0]
    return _rows(
        [
            (
                "objects lifted [95 %], without noise",
                f"the loop {loop}; one-shot detection {once}",
                _command(kept),
            ),
            (
                "objects lifted [95 %], kinematic noise 0.4",
                f"the loop {loop_noise}; one-shot detection {once_noise}",
                _SAME,
            ),
            (
                f"{jump.get('cells', 'median, and share within 2 cm')}, if the objects jump by {strength} m",
                f"the loop {still_loop}; one-shot detection {still_once}",
                _command(jump),
            ),
            (
                f"time of one cycle with {cycle['candidates']:,} candidates",
                f"median {cycle['p50_ms']:.1f} ms of the {1e3 / cycle['rate_hz']:.0f} ms that "
                f"{cycle['rate_hz']:g} Hz allow; {cycle['missed']} of {cycle['cycles']} deadlines missed",
                _command(timing),
            ),
        ]
    )


_BARS = {
    "single": ("one object", 97, 99),
    "clutter": ("clutter", 94, 97),
    "moved": ("moved clutter", 92, 95),
    "single_meshes": ("one object, real meshes", 94, 98),
    "clutter_meshes": ("clutter, real meshes", 90, 95),
    "moved_meshes": ("moved clutter, real meshes", 88, 92),
}
"""By figure: words, and the share lifted [%] that the project asks of the loop: at least, and as its aim."""


def bars(stored: dict[str, Json]) -> list[str]:
    """Rows of the shares lifted by the loop beside those asked for."""
    rows = []
    for name, (words, least, aim) in _BARS.items():
        if name in stored:
            found = _cell(stored[name], _ROWS["CTR"], _LIFTED)
            share = float(found.split()[0])
            said = "aim met" if share >= aim else "met" if share >= least else "missed"
            rows.append(f"| {words} | {found} | {least} % | {aim} % | {said} |")
    return rows


def _rows(rows: list[tuple[str, str, str]]) -> list[str]:
    return [f"| {quantity} | {figure} | {made_by} |" for quantity, figure, made_by in rows]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.removeprefix("|").removesuffix("|").split("|")]


def _cell(kept: Json, label: str, column: str) -> str:
    """Cell of a stored table, by the first cell of its row and its column's name. Raises StopIteration."""
    place = _cells(kept["table"][0]).index(column)
    return next(cells[place] for cells in map(_cells, kept["table"]) if cells[0] == label)


def _said(errors: Json) -> str:
    (a, b), (c, d) = (
        (errors[p]["mean_absolute_error_m"], errors[p]["trivial_error_m"]) for p in ("all", "near")
    )
    return (
        f"{_mm(a)} mm over the view, {_mm(c)} mm within 5 cm of the hand "
        f"(best constant {_mm(b)}, {_mm(d)})"
    )


def _command(summary: Json) -> str:
    return f"`{summary['command'].removeprefix('python -m ')}` ({summary['machine']})"
