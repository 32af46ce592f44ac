"""Settings of the controller that somebody changes while the loop runs: told, and recorded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEADY = 5
"""Cycles for which a setting stays before it is told: a slider is drawn through all values between."""
SLIDER_MOVED, PAYLOAD_CHANGED_KG = 0.005, 0.01
"""Differences from which a setting counts as changed."""


def changes(before: NDArray[np.float64] | None, now: NDArray[np.float64] | None) -> list[str]:
    """Each change from one cycle's RobotState.settings to the next one's, as text. The speed scaling is no
    setting: it follows the slider."""
    if before is None or now is None:
        return []
    (slider, _, payload_kg), (slider_before, _, before_kg) = now, before
    found = []
    if abs(slider - slider_before) > SLIDER_MOVED:
        found.append(f"the speed slider went from {slider_before:.0%} to {slider:.0%}")
    if abs(payload_kg - before_kg) > PAYLOAD_CHANGED_KG:
        found.append(f"the payload went from {before_kg:.3g} to {payload_kg:.3g} kg")
    return found


class SettingsWatch:
    """Remembers the settings that were told last."""

    def __init__(self) -> None:
        self._told: NDArray[np.float64] | None = None
        self._last: NDArray[np.float64] | None = None
        self._steady = 0

    def before(self, now: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Settings (3,) to compare this cycle's with: those told last, once the new ones stay."""
        if now is None:
            return None
        steady = self._last is not None and not changes(self._last, now)
        self._steady, self._last = self._steady + 1 if steady else 0, now
        if self._told is None or self._steady >= STEADY:
            before, self._told = self._told, now
            return before
        return now
