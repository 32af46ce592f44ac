"""The live page over the runs of rt.servo."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from rt.cell.options import ServoOptions
from rt.outcome import Report
from rt.page.server import Page
from rt.page.server import start as start_page
from rt.record.recorder import Recorder

_BROWSER_S = 15.0
"""Longest wait of a run for a browser to open its page."""


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
        """True if another scene is wanted; waits while a browser is connected."""
        if self._page is None:
            return False
        print(
            "rt.servo: the page stays open while it is looked at; Ctrl-C ends it", file=sys.stderr
        )
        try:
            while self._page.alive:
                if self._page.said("restart", 0.5) and report.cell.simulated:
                    return True
        except KeyboardInterrupt:
            pass
        return False
