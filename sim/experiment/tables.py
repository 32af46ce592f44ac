"""Tables of a set of trials on the screen: lifts first, then distances."""

from __future__ import annotations

from typing import Any

from rich.table import Table

LABELS = {
    "paper": "the nearest true grasp",
    "lifted": "the nearest grasp that lifts",
}
"""Grasps that distances are measured to, in words."""


def tables(report: dict[str, Any]) -> list[Table]:
    """The scenarios, the paired differences, and the categories where there are any."""
    found = [_scenarios(report), *([_pairs(report)] if report["pairs"] else [])]
    return [*found, _groups(report)] if "categories" in report else found


def _scenarios(report: dict[str, Any]) -> Table:
    config, scenarios = report["config"], report["scenarios"]
    first = next(iter(scenarios.values()))
    lifts, cleared = "lifted" in first, "cleared" in first
    table = Table(
        title=f"{config['experiment']}, n = {len(report['trials'])}: lifts, and distance to "
        f"{LABELS[report['label']]}",
    )
    table.add_column("scenario", no_wrap=True)
    counts = [key for key in ("inside", "on_wall", "wrong") if key in first]
    names = [
        *(["lifted [95 %]"] * lifts),
        *(["of possible", "cleared [95 %]", "emptied", "picks"] * cleared),
    ]
    tail = [] if cleared else ["mean", "p90"]  # these tables are wide enough
    names += ["median [95 %]", *tail, "< 1 cm", "< 2 cm", *(["one change"] * cleared)]
    for name in (*names, *(_COUNTS[key] for key in counts)):
        table.add_column(name, justify="right", no_wrap=True)
    for name, s in scenarios.items():
        row = [_share(s["lifted"], s["lifted_ci95"])] if lifts else []
        if cleared:
            row += [f"{s['lifted_possible']:.0%}", _share(s["cleared"], s["cleared_ci95"])]
            row += [f"{s['emptied']:.0%}", str(s["n"])]
        low, high = s["ci95_m"]
        row += [
            f"{_mm(s['median_m'])} [{_mm(low)}, {_mm(high)}] mm",
            *(f"{_mm(s[key])} mm" for key in ("mean_m", "p90_m") if not cleared),
            *(f"{s[key]:.0%}" for key in ("under_1cm", "under_2cm")),
            *([f"{s['one_change']:.1%}" if "one_change" in s else "-"] * cleared),
            *(str(s[key]) for key in counts),
        ]
        table.add_row(name, *row)
    return table


_COUNTS = {"inside": "inside", "on_wall": "on wall", "wrong": "wrong"}
"""Attempts with the hand inside anything, with a finger on a wall, and lifts of a wrong object."""


def _pairs(report: dict[str, Any]) -> Table:
    table = Table("paired", title="on the same trials")
    some = report["pairs"][:1]
    lifts = any("lifted_difference" in p for p in some)
    near = any("a_nearer" in p for p in some)
    names = [*(["lifted [95 %]"] * lifts)]
    names += ["difference [95 %]", "medians' ratio [95 %]", "nearer"] * near
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for p in report["pairs"]:
        row = []
        if lifts:
            low, high = p["lifted_difference_ci95"]
            row.append(f"{p['lifted_difference']:+.1%} [{low:+.1%}, {high:+.1%}]")
        if near:
            (low, high), (rlow, rhigh) = p["difference_ci95_m"], p["ratio_ci95"]
            row += [
                f"{p['median_difference_m'] * 1e3:+.1f} [{low * 1e3:+.1f}, {high * 1e3:+.1f}] mm",
                f"{p['ratio_of_medians']:.2f} [{rlow:.2f}, {rhigh:.2f}]",
                f"{p['a_nearer']:.0%}",
            ]
        table.add_row(f"{p['a']} - {p['b']}", *row)
    return table


def _groups(report: dict[str, Any]) -> Table:
    """Lifts and medians by category of the object nearest to the start, and by the number of objects."""
    shown = [n for n in report["scenarios"] if n.startswith(("CTR", "GPD"))]
    lifts = "lifted" in report["scenarios"][shown[0]]
    table = Table("objects", "n", *shown, title="lifted, median in mm" if lifts else "median in mm")
    for kind in ("categories", "clutter"):
        for name, group in report[kind].items():
            cells = [
                (f"{group[s]['lifted']:.0%}, " if lifts else "") + _mm(group[s]["median_m"])
                for s in shown
            ]
            label = f"{name} in the scene" if kind == "clutter" else name
            table.add_row(label, str(group["n"]), *cells)
        table.add_section()
    return table


def _mm(metres: float) -> str:
    return f"{metres * 1e3:.1f}"


def _share(share: float, interval: list[float]) -> str:
    return f"{share:.0%} [{interval[0]:.0%}, {interval[1]:.0%}]"
