"""Streaming a path to the arm, under the guard, one target a cycle."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from rt.camera import Frame
from rt.guard.rows import CycleState, Stop
from rt.job.path import Path, Retrace
from rt.loop import Loop, hold, operator_request, send, sense, tick
from rt.record.cycle import record_cycle

Glimpse = Callable[[CycleState], tuple[Frame, NDArray[np.float32]] | None]
"""Called in every cycle after the command was sent; the frame and view that it took, for the record."""
Watch = Callable[[CycleState], None]
"""Called in every cycle before the command is sent; raises to end the move."""

_NEAR_M, _NEAR_RAD = 0.003, 0.03
_SETTLE_S = 2.0
_SLOW = 0.25
"""Part of the speed while the page asks for slow motion."""


def follow(
    loop: Loop,
    path: Path | Retrace,
    phase: str,
    watch: Watch | None = None,
    *,
    settle: bool = True,
    glimpse: Glimpse | None = None,
    but: Collection[str] = (),
) -> Iterator[CycleState]:
    """Stream a path that begins at the arm's target; yields every cycle. Holds while a pause is asked for.

    settle: wait until the arm is at the end, not only its target. but: rows of the guard that do not count,
    asked in every cycle. Raises Stop if it never gets there, and
    the robot's errors; and what `watch` raises.
    """
    loop.allow(path.seconds + _SETTLE_S)
    time_s, patience = 0.0, max(int(_SETTLE_S * loop.config.rate), 10)
    while True:
        tick(loop)
        s = sense(loop, phase, loop.limits.min_grasp_height_m, but)
        if watch is not None:
            watch(s)
        if operator_request(loop, "pause"):
            hold(loop)
            loop.count_pause()
            record_cycle(loop, s)
            yield s
            continue
        time_s += s.period_s * (_SLOW if operator_request(loop, "slow") else 1.0)
        send(loop, s, path.at(time_s))
        record_cycle(loop, s, *((glimpse and glimpse(s)) or ()))
        yield s
        if time_s < path.seconds:
            continue
        away_m = float(np.linalg.norm(s.hand[:3] - path.end[:3]))
        turned = abs(math.remainder(float(s.hand[3] - path.end[3]), 2 * math.pi))
        if not settle or (away_m < _NEAR_M and turned < _NEAR_RAD):
            return
        patience -= 1
        if patience < 0:
            raise Stop(
                f"{phase}: the arm stays {away_m * 1e3:.1f} mm from where it is told to be; something "
                "holds it"
            )
