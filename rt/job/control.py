"""Requests of the user to a job: pause, step, skip, stop, from the keyboard and from the live page."""

from __future__ import annotations

from rt.job.keys import Keys
from rt.loop import Loop


class Control:
    """Requests, as the loop asks for them at the begin of every period."""

    def __init__(self, loop: Loop, keys: Keys | None = None) -> None:
        self.loop, self.keys = loop, keys
        loop.listen = self.poll
        self._stepping = self._step_done = False
        self._page_paused = 0

    def poll(self) -> None:
        """Read the keys and the page's requests for single steps."""
        for word in self.keys.pressed() if self.keys is not None else ():
            self.ask(word)
        if self.loop.record is None:
            return
        ring = self.loop.record.ring
        for word in ("step", "skip"):
            if ring.asked(word):
                ring.answer(word)
                self.ask(word)
        paused = int(ring.asked("pause"))
        if paused != self._page_paused:  # begun or ended on the page
            self._page_paused = paused
            if paused and self._stepping and self._step_done:  # the job waited already: it goes on
                self._pause(0)
            self._stepping = False

    def ask(self, word: str) -> None:
        """One request: pause (again: go on), step, skip or stop."""
        requests = self.loop.requests
        if word == "pause":
            self._pause(0 if self.waits() else 1)
            self._stepping = self._step_done = False
        elif word == "step":
            self._pause(0)
            self._stepping, self._step_done = True, False
        else:
            requests[word] = 1

    def _pause(self, value: int) -> None:
        """One pause for keyboard and page: in the ring, where the page sees it, if there is one."""
        if self.loop.record is None:
            self.loop.requests["pause"] = value
        else:
            self.loop.record.ring.ask("pause", value)
            self._page_paused = value

    def waits(self) -> bool:
        """True if no new pick may begin now."""
        asked = bool(self.loop.requests.get("pause"))
        if self.loop.record is not None:
            asked = asked or bool(self.loop.record.ring.asked("pause"))
        return asked or (self._stepping and self._step_done)

    def take(self, word: str) -> bool:
        """True if that was asked for; the request is then done."""
        return bool(self.loop.requests.pop(word, 0))

    def begin_pick(self) -> None:
        """A request to skip holds for the pick at hand."""
        self.loop.requests.pop("skip", None)

    def end_pick(self) -> None:
        """One pick is done: in single steps the next one waits."""
        self._step_done = self._stepping
