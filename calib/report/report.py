"""Results for people: tables on screen, a JSON file, and one HTML page that carries its pictures."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from calib.collect.motions import PARAMETERS
from rt.tools.files import write_text

COLOUR = {"good": "green", "usable": "yellow", "do not use": "red"}


def print_result(console: Console, s: dict[str, Any], truth: dict[str, Any] | None = None) -> None:
    """The tables, the findings, and the verdict as the last line."""
    estimate = [*s["rotvec_deg"], *(1e3 * x for x in s["translation_m"])]
    half = [*s["interval95_rotation_deg"], *s["interval95_translation_mm"]]
    table = Table(title=f"{s['transform']} (rotation vector and position), 95 % intervals")
    for heading in ("", "value", "±", "unit", "determined"):
        table.add_column(
            heading, justify="right" if heading in ("value", "±", "determined") else "left"
        )
    if truth:
        table.add_column("true error", justify="right")
        table.add_column("inside", justify="right")
    for k, name in enumerate(PARAMETERS):
        score = s["motion"]["score"][name]
        row = [
            name,
            f"{estimate[k]:.4f}" if k < 3 else f"{estimate[k]:.3f}",
            f"{half[k]:.4f}" if k < 3 else f"{half[k]:.3f}",
            "deg" if k < 3 else "mm",
            "-" if np.isnan(score) else f"{score:.0%}",
        ]
        if truth:
            error = truth["error"][k]
            row += [
                f"{error:+.4f}" if k < 3 else f"{error:+.3f}",
                "yes" if abs(error) <= half[k] else "no",
            ]
        table.add_row(*row)
    row = [
        f"point at {s['working_distance_m'] * 1e3:.0f} mm",
        "",
        f"{s['point_radius95_mm']:.3f}",
        "mm",
    ]
    row += ["-" if np.isnan(s["motion"]["overall"]) else f"{s['motion']['overall']:.0%}"]
    if truth:
        inside = truth["point_error_mm"] <= s["point_radius95_mm"]
        row += [f"{truth['point_error_mm']:.3f}", "yes" if inside else "no"]
    table.add_row(*row, end_section=True)
    console.print(table)

    poses = Table(title="poses: residual, and error when the pose is held out")
    for heading in ("pose", "points", "px", "mm", "deg", "held out mm", "deg", "studentised", ""):
        poses.add_column(heading, justify="left" if heading in ("pose", "") else "right")
    for p in s["poses"]:
        far = f"{p['studentised']:.1f}" if p["studentised"] < 1e4 else ">9999"
        poses.add_row(
            p["name"], str(p["points"]), f"{p['error_px']:.2f}", f"{p['error_mm']:.2f}",
            f"{p['error_deg']:.3f}", f"{p['held_out_mm']:.2f}", f"{p['held_out_deg']:.3f}", far,
            "" if p["kept"] else "left out", style=None if p["kept"] else "red",
        )  # fmt: skip
    console.print(poses)

    methods = Table(title="closed-form methods against the joint result")
    for heading in (
        "method",
        f"point at {s['working_distance_m'] * 1e3:.0f} mm [mm]",
        "angle [deg]",
    ):
        methods.add_column(heading, justify="left" if heading == "method" else "right")
    if truth:
        methods.add_column("true error [mm]", justify="right")
        methods.add_column("[deg]", justify="right")
    for name, m in s["methods"].items():
        row = [name, f"{m['point_mm']:.3f}", f"{m['angle_deg']:.4f}"]
        methods.add_row(*row, *(truth["methods"][name] if truth else []))
    if truth:
        methods.add_row("joint", "", "", *truth["methods"]["joint"])
    console.print(methods)

    n = s["noise"]
    pixel = "" if n["pixel_px"] is None else f"corners {n['pixel_px']:.3f} px, "
    console.print(
        f"noise estimated: {pixel}robot {n['robot_mm']:.3f} mm and {n['robot_deg']:.4f} deg per axis"
    )
    console.print(
        f"target's size by the robot's motion: {s['scale']['value']:.5f} ± "
        f"{2 * s['scale']['sd']:.5f} of that stated"
        + ("" if s["depth_ratio"] is None else f"; by depth images: {s['depth_ratio']:.4f}")
    )
    if s["motion"]["next_pose"]:
        console.print(
            f"next pose to add: {s['motion']['next_pose']} "
            f"(error at the working point x {s['motion']['next_pose_error_ratio']:.2f})"
        )
    for f in reversed(s["findings"]):
        style = {"error": "red", "warning": "yellow", "note": "dim"}[f["level"]]
        remedy = f" -> {f['remedy']}" if f["remedy"] else ""
        console.print(
            f"[{style}]{f['level']}: {escape(f['text'] + remedy)}[/{style}]", soft_wrap=True
        )
    colour = COLOUR[s["verdict"]]
    console.print(f"[bold {colour}]{s['verdict']}[/]: {escape(s['reason'])}", soft_wrap=True)


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1120px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em;margin-bottom:.2em} h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ddd}
.verdict{padding:.8em 1.1em;border-radius:8px;color:#fff;font-size:1.1em;margin:1em 0}
.good{background:#2e7d4f}.usable{background:#b57800}.no{background:#b3261e}
table{border-collapse:collapse;margin:.6em 0;font-variant-numeric:tabular-nums}
th,td{padding:.22em .8em;border-bottom:1px solid #e4e4e4;text-align:right}
th{background:#f5f5f5;font-weight:600} td:first-child,th:first-child{text-align:left}
td.text{text-align:left} tr.out td{color:#b3261e;font-weight:600}
.error{color:#b3261e;font-weight:600}.warning{color:#9a6700;font-weight:600}.note{color:#777}
li{margin:.3em 0} img{max-width:100%} pre{background:#f5f5f5;padding:.8em;overflow:auto}
.cols{display:flex;gap:1.2em;flex-wrap:wrap} .dim{color:#777}
"""


def write_html(
    path: Path, s: dict[str, Any], pictures: dict[str, Path], truth: dict[str, Any] | None = None
) -> None:
    """One self-contained page."""
    e = html.escape
    css = {"good": "good", "usable": "usable", "do not use": "no"}[s["verdict"]]
    findings = "".join(
        f"<li><span class={f['level']}>{f['level']}</span> {e(f['text'])}"
        + (f"<br><span class=dim>→ {e(f['remedy'])}</span>" if f["remedy"] else "")
        for f in s["findings"]
    )
    n, far, ratio, camera = s["noise"], s["held_out_rms"], s["depth_ratio"], s["camera"]
    lens = ", ".join(f"{k} {camera[k]:.2f}" for k in ("fx", "fy", "cx", "cy")) + " px"
    lines = [
        ("data", s["data"]),
        ("SHA-256", s["data_sha256"]),
        ("target", s["target"]),
        ("camera", "in the hand" if s["eye_in_hand"] else "fixed"),
        ("poses", f"{sum(p['kept'] for p in s['poses'])} of {len(s['poses'])} used"),
        ("held-out error, rms", f"{far['mm']:.3f} mm, {far['deg']:.4f} deg, {far['px']:.2f} px"),
        ("corner noise", "no images" if n["pixel_px"] is None else f"{n['pixel_px']:.3f} px"),
        ("robot noise per axis", f"{n['robot_mm']:.3f} mm, {n['robot_deg']:.4f} deg"),
        ("size by robot motion", f"{s['scale']['value']:.5f} ± {2 * s['scale']['sd']:.5f} of that stated"),
        ("size by depth images", "no depth" if ratio is None else f"{ratio:.4f} of that stated"),
        ("intrinsics", ("estimated: " if camera["estimated"] else "given: ") + lens),
    ]  # fmt: skip
    if s["time_offset_ms"] is not None:
        lines.append(
            ("time offset", f"{s['time_offset_ms']:.2f} ± {2 * s['time_offset_sd_ms']:.2f} ms")
        )
    if s["motion"]["next_pose"]:
        lines.append(("next pose to add", s["motion"]["next_pose"]))
    about = "".join(f"<tr><td>{e(k)}<td class=text>{e(str(v))}" for k, v in lines)
    body = f"""<h1>Hand-eye calibration: {s["transform"]}</h1>
<div class="verdict {css}"><b>{s["verdict"]}</b>: {e(s["reason"])}</div>
<div class=cols><div><h2>Transform</h2>{_parameters(s, truth)}</div>
<div><h2>Closed-form methods</h2>{_methods(s, truth)}</div></div>
<h2>Findings</h2><ul>{findings or "<li class=note>nothing to report"}</ul>
<h2>Data and noise</h2><table>{about}</table>"""
    for title, file in pictures.items():
        data = base64.b64encode(file.read_bytes()).decode()
        body += f'<h2>{e(title)}</h2><img alt="{e(title)}" src="data:image/png;base64,{data}">'
    body += f"<h2>Poses</h2>{_poses(s)}<h2>Matrix</h2><pre>{_matrix(s['matrix'])}</pre>"
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Hand-eye: {s['verdict']}</title>"
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )
    write_text(path, page)


def _parameters(s: dict[str, Any], truth: dict[str, Any] | None) -> str:
    value = [*s["rotvec_deg"], *(1e3 * x for x in s["translation_m"])]
    half = [*s["interval95_rotation_deg"], *s["interval95_translation_mm"]]
    rows = "<tr><th><th>value<th>95 %<th><th>determined" + ("<th>true error" if truth else "")
    for k, name in enumerate(PARAMETERS):
        score = s["motion"]["score"][name]
        unit, digits = ("deg", 4) if k < 3 else ("mm", 3)
        rows += f"<tr><td>{name}<td>{value[k]:.{digits}f}<td>± {half[k]:.{digits}f}<td>{unit}"
        rows += f"<td>{'-' if np.isnan(score) else f'{score:.0%}'}"
        rows += f"<td>{truth['error'][k]:+.{digits}f}" if truth else ""
    at = s["working_distance_m"] * 1e3
    rows += f"<tr><td>point at {at:.0f} mm<td><td>{s['point_radius95_mm']:.3f}<td>mm"
    rows += f"<td>{s['motion']['overall']:.0%}" + (
        f"<td>{truth['point_error_mm']:.3f}" if truth else ""
    )
    return f"<table>{rows}</table><p class=dim>rotation vector and position; 95 % radius of the point</p>"


def _methods(s: dict[str, Any], truth: dict[str, Any] | None) -> str:
    rows = "<tr><th>method<th>point [mm]<th>angle [deg]" + (
        "<th>true error [mm]<th>[deg]" if truth else ""
    )
    for name, m in s["methods"].items():
        rows += f"<tr><td>{name}<td>{m['point_mm']:.3f}<td>{m['angle_deg']:.4f}"
        rows += "".join(f"<td>{x}" for x in truth["methods"][name]) if truth else ""
    if truth:
        rows += "<tr><td>joint<td><td>" + "".join(f"<td>{x}" for x in truth["methods"]["joint"])
    return f"<table>{rows}</table><p class=dim>difference from the joint result at the working distance</p>"


def _poses(s: dict[str, Any]) -> str:
    rows = (
        "<tr><th>pose<th>points<th>px<th>mm<th>deg<th>held out px<th>mm<th>deg"
        "<th>studentised<th>p<th>"
    )
    for p in s["poses"]:
        far = f"{p['studentised']:.2f}" if p["studentised"] < 1e4 else "&gt; 9999"
        rows += (
            f"<tr{'' if p['kept'] else ' class=out'}><td>{html.escape(p['name'])}<td>{p['points']}"
            f"<td>{p['error_px']:.2f}<td>{p['error_mm']:.3f}<td>{p['error_deg']:.4f}"
            f"<td>{p['held_out_px']:.2f}<td>{p['held_out_mm']:.3f}<td>{p['held_out_deg']:.4f}"
            f"<td>{far}<td>{p['p_value']:.2g}<td class=text>{html.escape(p['reason'])}"
        )
    return f"<table>{rows}</table>"


def _matrix(rows: list[list[float]]) -> str:
    return "\n".join("  ".join(f"{x: .9f}" for x in row) for row in rows)
