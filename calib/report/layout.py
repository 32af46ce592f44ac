"""The tables of a result, laid out once: the screen and the HTML page show the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.solve.motions import PARAMETERS

Summary = dict[str, Any]


@dataclass(frozen=True)
class ResultTable:
    """One table: a title, headings, rows of text."""

    title: str
    headings: tuple[str, ...]
    rows: list[list[str]]
    text_columns: tuple[int, ...] = (0,)
    """Columns aligned to the left; the others hold numbers."""
    marked: tuple[int, ...] = ()
    """Rows that are drawn in red."""


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}"


def _length(mm: float, digits: int) -> str:
    """A length in mm; nobody can use the digits of one beyond ten metres."""
    return f"{mm:.{digits}f}" if mm < 1e4 else "> 10 m"


def parameters_table(s: Summary, truth: Summary | None = None) -> ResultTable:
    """Value, interval and determination of the six parameters and of the point at work."""
    value = [*s["rotvec_deg"], *(1e3 * x for x in s["translation_m"])]
    half = [*s["interval95_rotation_deg"], *s["interval95_translation_mm"]]
    claimed = s["intervals_hold"]
    rows = []
    for k, name in enumerate(PARAMETERS):
        digits, unit = (4, "deg") if k < 3 else (3, "mm")
        interval = f"{half[k]:.{digits}f}" if claimed else "-"
        row = [name, f"{value[k]:.{digits}f}", interval, unit]
        row.append(_percent(s["motion"]["score"][name]))
        if truth:
            error = truth["error"][k]
            row.append(f"{error:+.{digits}f}")
            row.append(("yes" if abs(error) <= half[k] else "no") if claimed else "-")
        rows.append(row)
    radius = s["point_radius95_mm"]
    at_work = f"point at {s['working_distance_m'] * 1e3:.0f} mm"
    row = [at_work, "", _length(radius, 3) if claimed else "-", "mm"]
    row.append(_percent(s["motion"]["overall"]))
    if truth:
        row.append(f"{truth['point_error_mm']:.3f}")
        row.append(("yes" if truth["point_error_mm"] <= radius else "no") if claimed else "-")
    headings = ("", "value", "±", "unit", "determined")
    return ResultTable(
        f"{s['transform']} (rotation vector and position), 95 % intervals",
        headings + (("true error", "inside") if truth else ()),
        [*rows, row],
        (0, 3),
    )


def poses_table(s: Summary) -> ResultTable:
    """Residual, held-out error and fate of every pose."""
    rows = []
    for p in s["poses"]:
        far = f"{p['studentised']:.1f}" if p["studentised"] < 1e4 else "> 9999"
        rows.append(
            [
                p["name"],
                str(p["points"]),
                f"{p['error_px']:.2f}",
                _length(p["error_mm"], 2),
                f"{p['error_deg']:.3f}",
                _length(p["held_out_mm"], 2),
                f"{p['held_out_deg']:.3f}",
                far,
                "" if p["kept"] else "left out",
            ]
        )
    headings = ("pose", "points", "px", "mm", "deg", "held out mm", "deg", "studentised", "")
    marked = tuple(i for i, p in enumerate(s["poses"]) if not p["kept"])
    return ResultTable(
        "poses: residual, and error when the pose is held out", headings, rows, (0, 8), marked
    )


def methods_table(s: Summary, truth: Summary | None = None) -> ResultTable:
    """Every closed form beside the joint result: distance, held-out error, and the true error if known."""
    rows, far = [], s["held_out_rms"]
    for name, m in s["methods"].items():
        row = [name, _length(m["point_mm"], 3), f"{m['angle_deg']:.4f}"]
        unknown = m["held_out_mm"] is None or np.isnan(m["held_out_mm"])
        row += ["-", "-"] if unknown else [_length(m["held_out_mm"], 3), f"{m['held_out_deg']:.4f}"]
        rows.append(row + (list(truth["methods"][name]) if truth else []))
    joint = ["joint", "", "", _length(far["mm"], 3), f"{far['deg']:.4f}"]
    rows.append(joint + (list(truth["methods"]["joint"]) if truth else []))
    headings = (
        "method",
        f"point at {s['working_distance_m'] * 1e3:.0f} mm [mm]",
        "angle [deg]",
        "held out [mm]",
        "held out [deg]",
    )
    return ResultTable(
        "OpenCV's closed-form methods against the joint result",
        headings + (("true error [mm]", "[deg]") if truth else ()),
        rows,
    )


def facts(s: Summary) -> list[tuple[str, str]]:
    """Name and value of what is known about the data and the noise."""
    n, far, ratio, camera = s["noise"], s["held_out_rms"], s["depth_ratio"], s["camera"]
    lens = ", ".join(f"{k} {camera[k]:.2f}" for k in ("fx", "fy", "cx", "cy")) + " px"
    scale = f"{s['scale']['value']:.5f} ± {2 * s['scale']['sd']:.5f} of that stated"
    held = f"{_length(far['mm'], 3)} mm, {far['deg']:.4f} deg, {far['px']:.2f} px"
    lines = [
        ("data", s["data"]),
        ("SHA-256", s["data_sha256"]),
        ("target", s["target"]),
        ("camera", "in the hand" if s["eye_in_hand"] else "fixed"),
        ("read as", s["reading"]),
        ("poses", f"{sum(p['kept'] for p in s['poses'])} of {len(s['poses'])} used"),
        ("held-out error, rms", held),
        ("corner noise", "no images" if n["pixel_px"] is None else f"{n['pixel_px']:.3f} px"),
        ("robot noise per axis", f"{n['robot_mm']:.3f} mm, {n['robot_deg']:.4f} deg"),
        ("size by robot motion", scale),
        ("size by depth images", "no depth" if ratio is None else f"{ratio:.4f} of that stated"),
        ("intrinsics", ("estimated: " if camera["estimated"] else "given: ") + lens),
    ]
    if s["time_offset_ms"] is not None:
        offset = f"{s['time_offset_ms']:.2f} ± {2 * s['time_offset_sd_ms']:.2f} ms"
        lines.append(("time offset", offset))
    if s["motion"]["next_pose"]:
        ratio = s["motion"]["next_pose_error_ratio"]
        lines.append(
            ("next pose to add", f"{s['motion']['next_pose']} (error at work x {ratio:.2f})")
        )
    return lines
