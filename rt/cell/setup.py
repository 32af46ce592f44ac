"""The limits, speeds and grasp settings that a run is held to, beside its ServoOptions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rt.cell.file import Grasping
from rt.cell.place import PlacePart
from rt.guard.limits import Limits
from rt.hand import TipTravel


class RecordSink(Protocol):
    """The interface of a flight recorder to the loop (rt.record.recorder.Recorder)."""

    ring: Any

    def put(self, **fields: Any) -> None:
        """Record one cycle; never waits."""


@dataclass(frozen=True)
class SpeedBound:
    """The fastest move that the loop itself asks for, so that the guard has nothing to clamp."""

    speed_m_s: float = math.inf
    turn_rad_s: float = math.inf

    def bound(self, move: NDArray[np.float64], period_s: float) -> NDArray[np.float64]:
        """(3,) of dx, dy [m], dyaw [rad], shortened to the speeds."""
        far, turn = float(np.hypot(move[0], move[1])), abs(float(move[2]))
        along = min(1.0, self.speed_m_s * period_s / max(far, 1e-12))
        around = min(1.0, self.turn_rad_s * period_s / max(turn, 1e-12))
        return np.asarray(move * np.array([along, along, around]))


@dataclass(frozen=True)
class RunSetup:
    """All of a run that a cell file decides, and the recorder."""

    limits: Limits | None = None
    """None: those of the ServoOptions."""
    pace: SpeedBound = field(default_factory=SpeedBound)
    grasping: Grasping = field(default_factory=Grasping)
    tips: TipTravel = field(default_factory=TipTravel)
    """Travel of the fingertips while the fingers close."""
    to_start: bool = False
    """True: the hand is first brought straight to the start height."""
    record: RecordSink | None = None
    place: PlacePart | None = None
    """Place to put things down (rt.clear); None: nothing is put down."""


def slower(limits: Limits, scale: float, speed_m_s: float, turn_deg_s: float) -> Limits:
    """Limits at `scale` of the speeds of an arm that reaches speed_m_s and turn_deg_s itself."""
    return replace(
        limits,
        max_speed_m_s=min(limits.max_speed_m_s, speed_m_s) * scale,
        max_turn_deg_s=min(limits.max_turn_deg_s, turn_deg_s) * scale,
    )
