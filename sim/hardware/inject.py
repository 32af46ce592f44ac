"""`rt.servo` with a fault in its camera or its network: what bench.faults starts in place of it.

    python -m sim.hardware.inject FAULT TRIGGER -- [arguments of rt.servo]

The fault begins when the file TRIGGER appears; the moment when it first acts, on time.monotonic_ns, is
then written to TRIGGER.at. Everything else is rt.servo itself, untouched.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

LATE_S = 0.3
SLOW_S = 0.5
_CHECK_S = 0.005


class Trigger:
    """Beginning of the fault: true once its file exists, looked up every few milliseconds at most."""

    def __init__(self, path: Path) -> None:
        self._path, self._looked, self.on = path, 0.0, False

    def __call__(self) -> bool:
        if not self.on and time.monotonic() - self._looked > _CHECK_S:
            self._looked = time.monotonic()
            if self._path.exists():
                self.on = True
                at = self._path.with_suffix(".at")
                beside = at.with_suffix(".beside")
                beside.write_text(str(time.monotonic_ns()))
                beside.rename(at)
        return self.on


def camera_fault(change: Callable[[Any, Trigger, Any], Any], begun: Trigger) -> None:
    """Let `change(send, begun, frame)` decide what becomes of each frame that the camera sends."""
    from sim.hardware.realsense import SoftwareCamera

    usual = SoftwareCamera.send

    def send(
        self: Any, pixels: Any, number: int, *, stamp_ns: int | None = None, **more: Any
    ) -> None:
        def go(pixels: Any, number: int, stamp_ns: int | None) -> None:
            usual(self, pixels, number, stamp_ns=stamp_ns, **more)

        change(go, begun, (pixels, number, stamp_ns))

    SoftwareCamera.send = send  # type: ignore[method-assign]


def stall(go: Any, begun: Trigger, frame: Any) -> None:
    if not begun():
        go(*frame)


def zero(go: Any, begun: Trigger, frame: Any) -> None:
    pixels, number, stamp_ns = frame
    go(np.zeros_like(pixels) if begun() else pixels, number, stamp_ns)


class Same:
    """The last picture again and again, with new numbers and stamps."""

    last: Any = None

    def __call__(self, go: Any, begun: Trigger, frame: Any) -> None:
        pixels, number, stamp_ns = frame
        if self.last is None or not begun():
            self.last = pixels.copy()
        go(self.last, number, stamp_ns)


class Late:
    """Every frame LATE_S after it was exposed."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()

    def __call__(self, go: Any, begun: Trigger, frame: Any) -> None:
        if not begun():
            go(*frame)
            return
        pixels, number, stamp_ns = frame
        self.waiting.append((pixels.copy(), number, stamp_ns))
        while self.waiting and time.monotonic_ns() - self.waiting[0][2] > LATE_S * 1e9:
            go(*self.waiting.popleft())


def nan_depth(begun: Trigger) -> None:
    """Frames of NaN, as a driver that divides by a missing scale would give."""
    from rt.camera.realsense import RealSense

    usual: Any = RealSense._take

    def take(self: Any, frames: Any) -> Any:
        frame = usual(self, frames)
        if frame is None or not begun():
            return frame
        return replace(frame, depth=np.full_like(frame.depth, np.nan))

    RealSense._take = take  # type: ignore[method-assign]


def network_fault(change: Callable[[Any], Any], begun: Trigger) -> None:
    """Let `change(distances)` have what the network returns."""
    servo: Any = importlib.import_module("rt.servo")
    usual = servo.open_model

    def open_model(*arguments: Any, **options: Any) -> Any:
        distance = usual(*arguments, **options)
        compute = distance.compute

        def faulty(depth: Any, actions: Any, out: Any = None) -> Any:
            result = compute(depth, actions, out)
            return change(result) if begun() else result

        distance.compute = faulty
        return distance

    servo.open_model = open_model


def not_a_number(distances: Any) -> Any:
    return np.full_like(distances, np.nan)


def slow(distances: Any) -> Any:
    time.sleep(SLOW_S)
    return distances


FAULTS: dict[str, Callable[[Trigger], None]] = {
    "none": lambda begun: None,
    "camera_stall": lambda begun: camera_fault(stall, begun),
    "same_frame": lambda begun: camera_fault(Same(), begun),
    "late_frames": lambda begun: camera_fault(Late(), begun),
    "zero_depth": lambda begun: camera_fault(zero, begun),
    "nan_depth": nan_depth,
    "nan_network": lambda begun: network_fault(not_a_number, begun),
    "slow_network": lambda begun: network_fault(slow, begun),
}


def main() -> int:
    split = sys.argv.index("--") if "--" in sys.argv else 0
    if split != 3 or sys.argv[1] not in FAULTS:
        print(
            f"usage: python -m sim.hardware.inject FAULT TRIGGER -- ...; FAULT: {', '.join(FAULTS)}",
            file=sys.stderr,
        )
        return 2
    fault, trigger = sys.argv[1], Path(sys.argv[2])
    FAULTS[fault](Trigger(trigger))
    sys.argv = ["rt.servo", *sys.argv[split + 1 :]]
    import rt.servo

    return rt.servo.main()


if __name__ == "__main__":
    sys.exit(main())
