"""The live page over the runs of rt.servo, and over a job of rt.clear."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from rt.cell.options import ServoOptions
from rt.page import PageError
from rt.page.server import Page
from rt.page.server import start as start_page
from rt.record.recorder import Recorder

_BROWSER_S = 15.0
"""Longest wait of a simulated run for a browser to open its page."""
_DRAWS_WITHIN_S = 120.0
"""Longest wait for a browser that has opened the page to say that it is drawn."""
_STARTS_WITHIN_S = 600.0
"""Longest wait for START on an arm."""


class LivePage:
    """The live page over one run after another."""

    def __init__(self, config: ServoOptions, stack: ExitStack, prog: str = "rt.servo") -> None:
        """prog: the command, for its messages."""
        self._config, self._stack, self._prog = config, stack, prog
        self._page: Page | None = None

    def show(self, recorder: Recorder, simulated: bool) -> None:
        """Let the page follow this run. The first time it is opened, and waited for: on a real arm until its
        START is pressed, on a simulated one until a browser says that it has drawn the page, or none came.
        Raises PageError if nobody presses START; nothing has moved then.
        """
        if self._page is not None:
            self._page.follow(recorder.ring.name)
            return
        port, name = self._config.view_port, recorder.ring.name
        self._page = self._stack.enter_context(start_page(name, port=port, open_browser=True))
        self._say(f"the live page is at {self._page.url}")
        if not simulated:
            self._wait_for_start(self._page)
        elif self._page.said("watched", _BROWSER_S):
            self._page.said("drawn", _DRAWS_WITHIN_S)

    def _wait_for_start(self, page: Page) -> None:
        self._say("press START on the page; nothing moves before")
        if page.said("start", _STARTS_WITHIN_S):
            return
        why = (
            f"nobody pressed START on {page.url} within {_STARTS_WITHIN_S:g} s"
            if page.alive
            else f"the page at {page.url} has ended ({page.child.end_text})"
        )
        raise PageError(f"{why}; nothing moved")

    def _say(self, line: str) -> None:
        print(f"{self._prog}: {line}", file=sys.stderr, flush=True)

    def again(self, simulated: bool) -> bool:
        """True if another scene is wanted, of a simulated cell; waits while a browser is connected."""
        if self._page is None:
            return False
        self._say("the page stays open while it is looked at; Ctrl-C ends it")
        try:
            while self._page.alive:
                if self._page.said("restart", 0.5) and simulated:
                    return True
        except KeyboardInterrupt:
            pass
        return False
