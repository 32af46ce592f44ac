"""What accompanies a run of rt.servo: its flight record, and the live page that follows it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from rt.cell.cell import Cell
from rt.cell.options import ServoOptions
from rt.distance import Distance
from rt.guard.rows import ROWS
from rt.loop import STAGES
from rt.page.server import Page
from rt.page.server import start as start_page
from rt.record.recorder import Recorder, flight_header
from rt.record.report import Report

_BROWSER_S = 15.0
"""How long a run waits for a browser to open its page."""


class LivePage:
    """The live page over one run after another."""

    def __init__(self, config: ServoOptions, stack: ExitStack) -> None:
        self._config, self._stack = config, stack
        self._page: Page | None = None

    def show(self, recorder: Recorder) -> None:
        """Let the page follow this run; the first time it is opened, and a browser waited for."""
        if self._page is not None:
            self._page.follow(recorder.ring.name)
            return
        port, name = self._config.view_port, recorder.ring.name
        self._page = self._stack.enter_context(start_page(name, port=port, open_browser=True))
        print(f"rt.servo: the live page is at {self._page.url}", file=sys.stderr, flush=True)
        self._page.said("watched", _BROWSER_S)

    def again(self, report: Report) -> bool:
        """Whether another scene is wanted; waits while somebody looks at the page."""
        if self._page is None:
            return False
        twin = report.cell.name == "twin"
        print(
            "rt.servo: the page stays open while it is looked at; Ctrl-C ends it", file=sys.stderr
        )
        try:
            while self._page.alive:
                if self._page.said("restart", 0.5) and twin:
                    return True
        except KeyboardInterrupt:
            pass
        return False


def start_record(
    config: ServoOptions, folder: Path, cell: Cell, distance: Distance, n: int
) -> Recorder | None:
    """The flight record's writer, ready to be entered; None if none is wanted."""
    if config.record == "off" and not config.view:
        return None
    path = None  # a ring without a file, for the page
    if config.record != "off":
        path = folder / "flight.mcap" if config.record == "auto" else Path(config.record)
    header = flight_header(
        config=config,
        cell={"name": cell.name, **cell.info},
        contract=distance.contract,
        model=str(distance.path),
        backend=distance.backend,
        candidates=n,
        stages=STAGES,
        guard=ROWS,
        robot_now_ns=cell.robot.now_ns(),
    )
    return Recorder(path, header)
