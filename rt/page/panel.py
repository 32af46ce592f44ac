"""The flat half of the page: state, buttons, guard lamps, the view with its field, strip charts."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray
from viser import uplot

from rt.guard.rows import ROWS
from rt.page.choice import Choice
from rt.page.picture import FULL_SCALE_M, SIDE_PX, scale_bar

GREEN, AMBER, RED, BLUE, GREY = "#1f9d55", "#e8940c", "#d92f26", "#2667c9", "#9aa1a9"
RECENT_CYCLES = 30
"""For so long a lamp keeps the full colour of what the guard did; afterwards it is a ring."""
CHART_S = 15.0
_STRIPES = ("#2667c9", "#22262b", "#e8940c", "#14a44d", "#8e44ad", "#0e9aa7", "#d92f26", "#9aa1a9")
_PICTURE_HELP = (
    "red: hand now &nbsp; <span style='color:#1f9d55'>green</span>: chosen &nbsp; ring: reach"
    " &nbsp; <span style='color:#2667c9'>blue</span>: wanted"
)


class Lamps:
    """One lamp for each row of the guard: what it did last, and how often.

    Green: never interfered; amber: warned, clamped or held; red: stopped. `rows` are (name, action) pairs.
    """

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self.rows = list(rows)
        self.forget()

    def forget(self) -> None:
        """Clear the charts: the next records are of another run or of another time."""
        self.counts = np.zeros(len(self.rows), np.int64)
        self.last_cycle = np.full(len(self.rows), -RECENT_CYCLES, np.int64)
        self._cycle = -1
        self._drawn: list[tuple[str, str, bool, int]] = []
        self._html = ""

    def see(self, record: Any) -> None:
        """One record, in order. A counter that fell belongs to a new run."""
        counts = np.asarray(record["guard_counts"], np.int64)[: len(self.rows)]
        if (counts < self.counts).any():
            self.forget()
        # The first record may come late in a run: what happened before it is no news.
        if self._cycle >= 0 or int(record["cycle"]) <= 1:
            self.last_cycle[counts > self.counts] = int(record["cycle"])
        self._cycle, self.counts = int(record["cycle"]), counts

    def states(self) -> list[tuple[str, str, bool, int]]:
        """(name, colour, whether it is recent, how often) of each row."""
        decision = []
        for k, (name, action) in enumerate(self.rows):
            count = int(self.counts[k])
            recent = bool(self._cycle - self.last_cycle[k] < RECENT_CYCLES) and count > 0
            colour = GREEN if not count else RED if action == "stop" else AMBER
            decision.append((name, colour, recent or not count, count))
        return decision

    def html(self) -> str:
        """Made anew only when a lamp has changed."""
        states = self.states()
        if self._html and self._drawn == states:
            return self._html
        self._drawn = states
        cells = []
        for name, colour, full, count in states:
            fill = colour if full else "transparent"
            often = f"<span style='color:{colour}'>{count}</span>" if count else ""
            cells.append(
                "<div style='display:flex;align-items:center;gap:5px;min-width:0'>"
                f"<span style='width:10px;height:10px;flex:none;border-radius:50%;background:{fill};"
                f"border:2px solid {colour};box-sizing:border-box'></span>"
                f"<span style='flex:1;overflow:hidden;text-overflow:ellipsis'>{_text(name)}</span>"
                f"{often}</div>"
            )
        self._html = (
            _box("Guard")
            + "<div style='display:grid;grid-template-columns:repeat(3,1fr);gap:2px 10px;"
            f"font-size:11px'>{''.join(cells)}</div></div>"
        )
        return self._html


def guard_rows(header: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, action) of each counter in a record, from its header; this program's own if it has none."""
    rows = header.get("guard") or [{"name": r.name, "action": r.action.value} for r in ROWS]
    return [(str(r["name"]), str(r.get("action", "stop"))) for r in rows]


class History:
    """The last CHART_S seconds of what the charts draw, by name, with the time in seconds."""

    def __init__(self, stages: Sequence[str], length: int = 6000) -> None:
        """length: most cycles remembered."""
        self.stages = list(stages)
        self._rows = np.empty((2 * length, 5 + len(self.stages)))
        self._length, self._end, self._gone = length, 0, 0
        self._began_ns = self._last_ns = 0

    def clear(self) -> None:
        self._end = self._gone = 0

    def append(self, record: Any) -> None:
        stamp = int(record["stamp_ns"])
        if stamp < self._last_ns or not self._end:  # another run
            self.clear()
            self._began_ns = stamp
        self._last_ns = stamp
        if self._end == len(self._rows):
            self._rows[: self._length] = self._rows[self._length :]
            self._end, self._gone = self._length, self._gone + self._length
        row = self._rows[self._end]
        row[0] = (stamp - self._began_ns) * 1e-9
        for k, name in enumerate(("predicted_m", "predicted_best_m", "true_m", "slack_s"), start=1):
            row[k] = 1e3 * record[name]
        row[5:] = record["stage_ms"][: len(self.stages)]
        self._end += 1

    def table(self, most: int = 300) -> NDArray[np.float64]:
        """(N, 5 + stages): time [s], predicted, best predicted and true distance [mm], slack [ms], stages
        [ms]; the last CHART_S, thinned to at most `most` rows, of a moving window always the same ones."""
        if not self._end:
            return np.full((1, 5 + len(self.stages)), np.nan)
        rows = self._rows[: self._end]
        begin = int(np.searchsorted(rows[:, 0], rows[-1, 0] - CHART_S, side="right"))
        step = -(-(self._end - begin) // most)
        begin += -(begin + self._gone) % step
        return rows[begin::step]


class Charts:
    """Strip charts of distance, stage times and slack; one is renewed at each call of `show`."""

    def __init__(
        self, gui: viser.GuiApi, stages: Sequence[str], shown: Sequence[int], true: bool = True
    ) -> None:
        """shown: indices of the stages to draw; true: whether the true distance can be known."""
        self._shown, self._true, self._turn = list(shown), true, 0
        nothing = np.zeros(2)
        names = [stages[k] for k in shown]
        distances = ("predicted", "chosen", "true")[: 3 if true else 2]
        self._handles = [
            _chart(gui, "distance to the nearest grasp [mm]", nothing, distances, 0),
            _chart(gui, "time of the stages [ms]", nothing, names, 0),
            _chart(gui, "slack before the deadline [ms]", nothing, ("slack", "deadline"), None),
        ]

    def show(self, history: History, every: bool = False) -> None:
        table = history.table()
        for k in range(len(self._handles)) if every else (self._turn,):
            self._handles[k].data = self._columns(table, k)
        self._turn = (self._turn + 1) % len(self._handles)

    def _columns(self, table: NDArray[np.float64], chart: int) -> tuple[NDArray[np.float64], ...]:
        """Nothing in them is NaN: one such value would blank its chart."""
        time_s, slack = np.ascontiguousarray(table[:, 0]), table[:, 4]
        if chart == 0:
            return time_s, *(carried(table[:, k]) for k in range(1, 4 if self._true else 3))
        if chart == 1:  # a stage that was not run took no time
            return time_s, *(np.nan_to_num(table[:, 5 + k]) for k in self._shown)
        return time_s, carried(slack), np.zeros_like(slack)


def carried(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """The column, each unknown value replaced by the last known one (a held cycle predicts nothing), at the
    beginning by the first known one; zeros if no value is known."""
    known = np.isfinite(column)
    if not known.any():
        return np.zeros_like(column)
    rows = np.where(known, np.arange(len(column)), int(known.argmax()))
    return np.asarray(column[np.maximum.accumulate(rows)])


def _chart(
    gui: viser.GuiApi, title: str, x: NDArray[np.float64], names: Sequence[str], least: float | None
) -> viser.GuiUplotHandle:
    lines: list[uplot.Series] = [{"label": "s"}]
    for k, name in enumerate(names):
        deadline = name == "deadline"
        colour = RED if deadline else _STRIPES[k % len(_STRIPES)]
        lines.append(
            {
                "label": name,
                "stroke": colour,
                "width": 1 if deadline else 1.6,
                "points": {"show": False},
            }
        )
    scales: dict[str, uplot.Scale] = {"x": {"time": False}, "y": {"range": (least, None)}}
    if least is None:
        scales["y"] = {"auto": True}
    return gui.add_uplot(
        (x, *(x for _ in names)),
        tuple(lines),
        title=title,
        scales=scales,
        legend={"show": True, "live": False},
        axes=({"size": 32}, {"size": 44}),
        height=132,
        padding=(4, 12, 0, 0),
    )


def state(
    record: Any | None, *, age_s: float, over: bool, asked: Mapping[str, int]
) -> tuple[str, str, str]:
    """(word, colour, why) of what the loop is doing, for the banner.

    record: the last one; age_s: since it came; over: the loop has ended; asked: words of CONTROL.
    """
    if record is None:
        return (
            ("ENDED", GREY, "no cycle was seen")
            if over
            else ("WAITING", GREY, "for the first cycle")
        )
    name, action = _name(record["guard_name"]), _name(record["guard_action"])
    row = f"{name}: {float(record['guard_value']):.4g}, limit {float(record['guard_limit']):.4g}"
    if action == "stop":
        return "STOPPED", RED, row
    if over:
        return "ENDED", GREY, "the loop has ended; this is its last cycle"
    if asked.get("stop"):
        return "STOPPING", RED, "asked for on this page"
    if age_s > 1.0:
        paused = bool(asked.get("pause"))
        why = f"no cycle for {age_s:.0f} s"
        return ("PAUSED" if paused else "SILENT", AMBER, why)
    if asked.get("pause"):
        return "PAUSED", AMBER, "the arm holds its target"
    if action == "hold":
        return "HOLDING", AMBER, row
    phase = _name(record["phase"]).replace("_", " ").upper() or "RUNNING"
    if phase == "PAUSED":
        return phase, AMBER, "the next pick waits: press step, or pause to go on"
    if phase == "CHOOSE":
        return phase, AMBER, "click the wanted object in the view"
    if asked.get("slow"):
        return phase, AMBER, "slow, as asked for on this page"
    return phase, GREEN, row if action in ("clamp", "warn") else ""


def banner(word: str, colour: str, why: str, record: Any | None, extra: Mapping[str, str]) -> str:
    """The state in one look: a word, why, and the figures that matter."""
    figures: dict[str, str] = {}
    if record is not None:
        if tried := int(record["tried"]):
            figures["placed"] = f"{int(record['placed'])} of {tried}"
        figures["cycle"] = str(int(record["cycle"]))
        figures["height"] = _number(record["hand"][2], 1e3, "mm", 0)
        figures["predicted"] = _number(record["predicted_m"], 1e3, "mm", 1)
        figures["true"] = _number(record["true_m"], 1e3, "mm", 1)
        figures["frame age"] = _number(record["frame_age_s"], 1e3, "ms", 0)
        figures["candidates"] = str(int(record["weighed"]))
        figures["missed"] = str(int(record["missed"]))
        figures["held"] = str(int(record["held"]))
        if gripper := _name(record["gripper"]):
            figures["gripper"] = gripper
    figures |= extra
    cells = "".join(
        f"<div style='min-width:0'><div style='color:#6b7280;font-size:10.5px'>{_text(k)}</div>"
        "<div style='font-size:14px;font-variant-numeric:tabular-nums;white-space:nowrap'>"
        f"{_text(v)}</div></div>"
        for k, v in figures.items()
    )
    return (
        "<div style='padding:0 10px 8px'>"
        f"<div id='grasp-servo-state' style='background:{colour};color:white;border-radius:4px;"
        "padding:7px 12px;display:flex;align-items:baseline;gap:12px;margin-bottom:8px'>"
        f"<b style='font-size:17px;letter-spacing:.04em'>{_text(word)}</b>"
        f"<span style='font-size:12px;opacity:.95'>{_text(why)}</span></div>"
        f"<div style='display:grid;grid-template-columns:repeat(4,1fr);gap:6px 8px'>{cells}</div></div>"
    )


class PanelPicture:
    """The depth view with what the network makes of it, its scale and its words."""

    def __init__(self, gui: viser.GuiApi, choice: Choice | None = None) -> None:
        blank = np.full((SIDE_PX, SIDE_PX, 3), 235, np.uint8)
        gui.add_html(_box("Depth view and predicted distance") + "</div>")
        self._image = gui.add_image(blank, format="jpeg", jpeg_quality=80)
        gui.add_image(scale_bar(), format="png")
        self._words = gui.add_html("")
        if choice is not None:
            choice.add_button()

    def show(self, picture: NDArray[np.uint8], note: str) -> None:
        self._image.image = picture
        ends = f"<span>0</span><span>{FULL_SCALE_M * 500:.0f}</span><span>{FULL_SCALE_M * 1e3:.0f} mm</span>"
        self._words.content = (
            "<div style='padding:0 10px 8px;font-size:11.5px;color:#4a5058'>"
            "<div style='display:flex;justify-content:space-between;font-variant-numeric:tabular-nums;"
            f"margin-top:-6px'>{ends}</div><div>{_PICTURE_HELP}. {_text(note)}</div></div>"
        )


def big_button(
    gui: viser.GuiApi,
    label: str,
    colour: Any,
    height_px: int,
    on: Callable[[], None],
    **options: Any,
) -> viser.GuiButtonHandle:
    """A button over the whole width, as high as it must be to be hit in a hurry."""
    button = gui.add_button(label, color=colour, **options)
    style = (
        f"height:{height_px}px!important;font-size:{height_px * 0.36:.0f}px;letter-spacing:.06em"
    )
    gui.add_html(f"<style>[id='{button._impl.uuid}']{{{style}}}</style>")
    button.on_click(lambda _: on())
    return button


def _box(title: str) -> str:
    return (
        "<div style='padding:6px 10px 6px'><div style='font-size:11px;color:#6b7280;letter-spacing:.05em;"
        f"text-transform:uppercase;margin-bottom:4px'>{_text(title)}</div>"
    )


def _name(value: Any) -> str:
    return bytes(value).rstrip(b"\0").decode(errors="replace")


def _number(value: Any, factor: float, unit: str, digits: int) -> str:
    return f"{float(value) * factor:.{digits}f} {unit}" if np.isfinite(value) else "-"


def _text(value: str) -> str:
    return html.escape(value)
