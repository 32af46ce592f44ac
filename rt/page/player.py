"""Playing a recording: a time slider, play and pause, and the speed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import viser

_SPEEDS = {"1/4 x": 0.25, "1 x": 1.0, "4 x": 4.0}


class Player:
    """Which record is to be shown now. Time runs as recorded, times the speed."""

    def __init__(self, stamps_ns: Sequence[int]) -> None:
        """stamps_ns: of every record, rising."""
        self._at_s = [(stamp - stamps_ns[0]) * 1e-9 for stamp in stamps_ns]
        self.playing, self.speed = True, 1.0
        self._now_s = 0.0
        self._wall_s: float | None = None
        self._slider: Any = None
        self._button: Any = None

    @property
    def end_s(self) -> float:
        return self._at_s[-1]

    def time(self, k: int) -> str:
        return f"{self._at_s[k]:.1f} of {self.end_s:.1f} s"

    def seek(self, seconds: float) -> None:
        """Go to a moment [s] from the first record; play stops there."""
        self._now_s, self.playing = min(max(seconds, 0.0), self.end_s), False

    def toggle(self) -> None:
        """Play or pause; at the end, play begins again."""
        if not self.playing and self._now_s >= self.end_s:
            self._now_s = 0.0
        self.playing = not self.playing

    def step(self, wall_s: float) -> int:
        """Index of the record to be shown at this time of any clock [s]."""
        if self.playing and self._wall_s is not None:
            self._now_s = min(self._now_s + (wall_s - self._wall_s) * self.speed, self.end_s)
            self.playing = self._now_s < self.end_s
        self._wall_s = wall_s
        self._show()
        return max(bisect_right(self._at_s, self._now_s) - 1, 0)

    def add(self, gui: viser.GuiApi) -> None:
        """The slider and the buttons."""
        end_s = math.ceil(self.end_s * 100) / 100
        self._slider = gui.add_slider("time [s]", 0.0, max(end_s, 0.02), 0.01, 0.0)
        self._button = gui.add_button("Pause")
        speeds = gui.add_button_group("speed", tuple(_SPEEDS))

        def sought(event: Any) -> None:
            if event.client is not None:  # the user's hand, not ours
                self.seek(float(self._slider.value))

        self._slider.on_update(sought)
        self._button.on_click(lambda _: self.toggle())

        @speeds.on_click
        def _(_: Any) -> None:
            self.speed = _SPEEDS[speeds.value]

    def _show(self) -> None:
        if self._slider is not None:
            if self.playing:
                self._slider.value = round(self._now_s, 2)
            self._button.label = "Pause" if self.playing else "Play"
