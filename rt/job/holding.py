"""Fingers that hold something when a job starts, as after a kill or a power cut: said, and settled first."""

from __future__ import annotations

import sys
from enum import Enum

from rt.guard.rows import Stop
from rt.job.state import DROPPED, JobState
from rt.loop import Loop

CHOICES = ("place", "open", "stop")


class Held(Enum):
    """Content of the fingers at the start."""

    NOTHING = "nothing"
    SOMETHING = "something"


def settle_holding(loop: Loop, state: JobState, choice: str) -> Held:
    """Find out what the fingers hold, say it, and decide as `choice` says (rt.clear --if-holding).

    SOMETHING: it is to be carried to the place. NOTHING: the fingers may be opened. Raises Stop if the job
    must not start, and GripperError.
    """
    gripper = loop.cell.gripper
    assert gripper is not None
    now = gripper.state()
    cut_off = next((a for a in state.attempts if not a.outcome), None)
    if cut_off is not None:
        cut_off.outcome = DROPPED if state.carrying else "missed"
        cut_off.reason = cut_off.reason or "the run was cut off"
    if not now.holding:
        if state.carrying:
            print(
                "rt.clear: the run before was cut off with something between the fingers; the gripper "
                "feels nothing now",
                file=sys.stderr,
            )
        return Held.NOTHING
    text = f"the fingers hold something, {now.width_m * 1e3:.0f} mm wide"
    print(f"rt.clear: {text}", file=sys.stderr)
    if choice == "ask":
        choice = _ask()
    if choice == "open":
        return Held.NOTHING
    if choice == "place":
        state.carrying = True
        return Held.SOMETHING
    raise Stop(
        f"{text}; nothing moved: say --if-holding place (carry it to the place) or --if-holding open "
        "(open right here)"
    )


def _ask() -> str:
    """The user's answer at the terminal; stop where there is none."""
    if not sys.stdin.isatty():
        return "stop"
    print("rt.clear: place (carry it to the place), open (right here) or stop? ", file=sys.stderr)
    answer = sys.stdin.readline().strip().lower()
    return answer if answer in CHOICES else "stop"
