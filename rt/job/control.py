"""Requests of the user to a job: pause, step, skip, stop, from the keyboard and from the live page."""

from __future__ import annotations

from rt.job.keys import Keys
from rt.loop import Loop


class Control:
    """Requests, as the job asks for them once a period."""

    def __init__(self, loop: Loop, keys: Keys | None = None) -> None:
        self.loop, self.keys = loop, keys
        self._stepping = self._step_done = False
        self._page_paused = 0

    def poll(self) -> None:
        """Read the keys and the page's requests for single steps."""
        loop = self.loop
        for word in self.keys.pressed() if self.keys is not None else ():
            self.ask(word)
        if loop.record is None:
            return
        ring = loop.record.ring
        if ring.asked("step"):
            ring.answer("step")
            self.ask("step")
        if ring.asked("skip"):
            ring.answer("skip")
            self.ask("skip")
        paused = int(ring.asked("pause"))
        if paused != self._page_paused:  # a pause, begun or ended on the page, ends single steps
            self._page_paused, self._stepping = paused, False

    def ask(self, word: str) -> None:
        """One request: pause (again: go on), step, skip or stop."""
        requests = self.loop.requests
        if word == "pause":
            was = requests.get("pause", 0) or self._stepping
            requests["pause"] = 0 if was else 1
            self._stepping = self._step_done = False
        elif word == "step":
            requests["pause"] = 0
            if self.loop.record is not None:
                self.loop.record.ring.answer("pause")
                self._page_paused = 0
            self._stepping, self._step_done = True, False
        else:
            requests[word] = 1

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
