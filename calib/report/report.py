"""Results for people: tables on screen, and one HTML page that carries its pictures."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from calib.report.layout import (
    ResultTable,
    Summary,
    facts,
    methods_table,
    parameters_table,
    poses_table,
)
from rt.tools.files import write_text

COLOUR = {"good": "green", "usable": "yellow", "do not use": "red"}
LEVEL_STYLE = {"error": "red", "warning": "yellow", "note": "dim"}


def print_table(console: Console, table: ResultTable) -> None:
    """One table on the screen."""
    drawn = Table(title=table.title)
    for k, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="left" if k in table.text_columns else "right")
    for i, row in enumerate(table.rows):
        drawn.add_row(*map(escape, row), style="red" if i in table.marked else None)
    console.print(drawn)


def print_result(console: Console, s: Summary, truth: Summary | None = None) -> None:
    """The tables, the facts, the findings, and the verdict as the last line."""
    for table in (parameters_table(s, truth), poses_table(s), methods_table(s, truth)):
        print_table(console, table)
    for name, value in facts(s):
        console.print(f"{name}: {escape(value)}", soft_wrap=True)
    for f in reversed(s["findings"]):
        remedy = f" -> {f['remedy']}" if f["remedy"] else ""
        style = LEVEL_STYLE[f["level"]]
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
th{background:#f5f5f5;font-weight:600}
td.text,th.text{text-align:left} tr.out td{color:#b3261e;font-weight:600}
.error{color:#b3261e;font-weight:600}.warning{color:#9a6700;font-weight:600}.note{color:#777}
li{margin:.3em 0} img{max-width:100%} pre{background:#f5f5f5;padding:.8em;overflow:auto}
.dim{color:#777}
"""


def html_table(table: ResultTable) -> str:
    """One table as HTML."""

    def cells(tag: str, row: list[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if k in table.text_columns else ''}>{html.escape(c)}"
            for k, c in enumerate(row)
        )

    rows = f"<tr>{cells('th', list(table.headings))}"
    for i, row in enumerate(table.rows):
        rows += f"<tr{' class=out' if i in table.marked else ''}>{cells('td', row)}"
    return f"<h2>{html.escape(table.title)}</h2><table>{rows}</table>"


def write_html(
    path: Path, s: Summary, pictures: dict[str, Path], truth: Summary | None = None
) -> None:
    """One self-contained page."""
    e = html.escape
    css = {"good": "good", "usable": "usable", "do not use": "no"}[s["verdict"]]
    findings = "".join(
        f"<li><span class={f['level']}>{f['level']}</span> {e(f['text'])}"
        + (f"<br><span class=dim>→ {e(f['remedy'])}</span>" if f["remedy"] else "")
        for f in s["findings"]
    )
    about = ResultTable("Data and noise", ("", ""), [list(f) for f in facts(s)], (0, 1))
    body = f"""<h1>Hand-eye calibration: {s["transform"]}</h1>
<div class="verdict {css}"><b>{s["verdict"]}</b>: {e(s["reason"])}</div>
{html_table(parameters_table(s, truth))}
<h2>Findings</h2><ul>{findings or "<li class=note>nothing to report"}</ul>
{html_table(methods_table(s, truth))}{html_table(about)}"""
    for title, file in pictures.items():
        data = base64.b64encode(file.read_bytes()).decode()
        body += f'<h2>{e(title)}</h2><img alt="{e(title)}" src="data:image/png;base64,{data}">'
    matrix = "\n".join("  ".join(f"{x: .9f}" for x in row) for row in s["matrix"])
    body += f"{html_table(poses_table(s))}<h2>Matrix</h2><pre>{matrix}</pre>"
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Hand-eye: {s['verdict']}</title>"
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )
    write_text(path, page)
