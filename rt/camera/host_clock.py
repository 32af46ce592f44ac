"""When a frame was exposed, on the host's monotonic clock, from what the camera says about it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rt.camera import CameraError

_WINDOW_NS = 30_000_000_000
_JUMP_NS = 1_000_000_000
_PLAUSIBLE_NS = 10_000_000_000
_MAX_EXPOSURE_NS = 200_000_000
_FUTURE_NS, _LATE_NS, _SLEW_NS = 5_000_000, 80_000_000, 10_000_000
"""A wall-clock stamp is doubted if it is farther in the future, if the fastest frame of a span is older than
this when it arrives, or if the fastest of one span and the next differ by more."""
_SPAN_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamp:
    """Time stamps of one frame, as the camera gives them."""

    domain: str
    """`global_time`: the host's wall clock, fitted to the camera's by the library. `hardware_clock`:
    the camera's own, of unknown origin. `system_time`: the host's wall clock at arrival."""
    timestamp_ms: float
    sensor_us: int | None = None
    """Middle of the exposure on the camera's clock."""
    readout_us: int | None = None
    """Start of the frame's transfer on the same clock: what `timestamp_ms` is the time of."""
    exposure_us: int | None = None
    """Length of the exposure."""


class HostClock:
    """Turns stamps into time.monotonic_ns of the middle of the exposure.

    The wall clock's distance from the monotonic one is read at every frame, so a clock that is set
    anew moves one frame's stamp at most. A camera's own clock is placed by the frame that came
    fastest within half a minute: its stamps are late by the shortest transfer, some milliseconds.
    """

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic_ns, self._wall_ns = monotonic_ns, wall_ns
        self._delays: deque[tuple[int, int]] = deque()
        self._last_ns: int | None = None
        self._span: list[tuple[int, int]] = []
        """(arrival, delay) [ns] of the frames of this span."""
        self._before_ns: int | None = None
        """Least delay of the span before."""
        self.least_delay_ms = self.most_delay_ms = 0.0
        """Of the last whole span: from a frame's stamp to its arrival, on wall-clock stamps."""
        self._doubts: dict[str, str] = {}
        self._told: set[str] = set()

    def doubts(self) -> list[str]:
        """Lines on stamps that do not agree with the frames' arrival; each kind is told once."""
        new = [kind for kind in self._doubts if kind not in self._told]
        self._told.update(new)
        return [self._doubts[kind] for kind in new]

    def _compare(self, delay_ns: int, arrival_ns: int) -> None:
        """Compare a wall-clock stamp with the frame's arrival."""
        if delay_ns < -_FUTURE_NS:
            self._doubts["future"] = (
                f"a frame's time stamp is {-delay_ns * 1e-6:.0f} ms in the future, and its arrival is taken; "
                "check that the computer's clock is not being set (chrony, ntp, ptp)"
            )
        self._span.append((arrival_ns, delay_ns))
        if arrival_ns - self._span[0][0] < _SPAN_NS:
            return
        least, most = (pick(d for _, d in self._span) for pick in (min, max))
        self._span.clear()
        self.least_delay_ms, self.most_delay_ms = least * 1e-6, most * 1e-6
        if least > _LATE_NS:
            self._doubts["late"] = (
                f"every frame is {least * 1e-6:.0f} ms old or more when it arrives, by its stamp: check "
                "the camera's global time, and what else uses its USB controller"
            )
        if self._before_ns is not None and abs(least - self._before_ns) > _SLEW_NS:
            self._doubts["slew"] = (
                f"the time stamps moved by {(least - self._before_ns) * 1e-6:+.0f} ms against the "
                f"frames' arrival within {2 * _SPAN_NS * 1e-9:g} s: the computer's clock is being set or the "
                "camera's is fitted anew"
            )
        self._before_ns = least

    def exposure_ns(self, stamp: Stamp) -> int:
        """Raises CameraError if the stamp cannot be true: in the future, or long ago."""
        arrival_ns = self._monotonic_ns()
        if stamp.domain == "hardware_clock":
            at = self._from_hardware(round(stamp.timestamp_ms * 1e6), arrival_ns)
        else:
            at = round(stamp.timestamp_ms * 1e6) - (self._wall_ns() - arrival_ns)
            self._compare(arrival_ns - at, arrival_ns)
        if not -_PLAUSIBLE_NS < arrival_ns - at < _PLAUSIBLE_NS:
            raise CameraError(
                f"a frame that has just arrived claims to be {(arrival_ns - at) * 1e-9:.1f} s old by "
                f"its {stamp.domain} stamp; was the computer's clock set? Open the camera again"
            )
        return min(at - since_exposure_ns(stamp), arrival_ns)

    def _from_hardware(self, hardware_ns: int, arrival_ns: int) -> int:
        last, self._last_ns = self._last_ns, hardware_ns
        if last is not None and not -_JUMP_NS < hardware_ns - last < 10 * _JUMP_NS:
            self._delays.clear()  # it began anew: after a reset, or its 32 bits were full
        delay = arrival_ns - hardware_ns
        # Least delay of the window, in constant time a frame: delays that a later, smaller one has
        # made irrelevant are dropped.
        while self._delays and self._delays[-1][1] >= delay:
            self._delays.pop()
        self._delays.append((arrival_ns, delay))
        while self._delays[0][0] < arrival_ns - _WINDOW_NS:
            self._delays.popleft()
        return hardware_ns + self._delays[0][1]


def since_exposure_ns(stamp: Stamp) -> int:
    """From the middle of the exposure to the moment that the stamp tells."""
    if stamp.sensor_us is not None and stamp.readout_us is not None:
        since = (stamp.readout_us - stamp.sensor_us) * 1000
        if 0 <= since <= _MAX_EXPOSURE_NS:
            return since
    if stamp.exposure_us is not None:
        return min(max(stamp.exposure_us, 0) * 500, _MAX_EXPOSURE_NS)
    return 0
