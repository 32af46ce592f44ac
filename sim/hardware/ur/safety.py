"""Safety states of the emulated controller, with their numbers and bits in RTDE and dashboard words."""

from __future__ import annotations

from dataclasses import dataclass

NORMAL, PROTECTIVE, EMERGENCY = "normal", "protective_stop", "emergency_stop"
SAFEGUARD, VIOLATION, FAULT, RECOVERY = "safeguard_stop", "violation", "fault", "recovery"

REDUCED_BIT, STOPPED_BIT = 1 << 1, 1 << 10


@dataclass(frozen=True)
class SafetyState:
    """One state; all but the normal one forbid motion."""

    mode: int
    """safety_mode"""
    bits: int
    """safety_status_bits"""
    powered: bool
    """False: the state takes the arm's power."""
    pauses: bool
    """True: the program is paused, not ended."""
    word: str
    """Of the dashboard's safetystatus."""


SAFETY = {
    NORMAL: SafetyState(1, 1, True, False, "NORMAL"),
    PROTECTIVE: SafetyState(3, 1 << 2 | STOPPED_BIT, True, False, "PROTECTIVE_STOP"),
    RECOVERY: SafetyState(4, 1 << 3, True, False, "RECOVERY"),
    SAFEGUARD: SafetyState(5, 1 << 4 | STOPPED_BIT, True, True, "SAFEGUARD_STOP"),
    EMERGENCY: SafetyState(7, 1 << 6 | 1 << 7 | STOPPED_BIT, False, False, "ROBOT_EMERGENCY_STOP"),
    VIOLATION: SafetyState(8, 1 << 8 | STOPPED_BIT, False, False, "VIOLATION"),
    FAULT: SafetyState(9, 1 << 9 | STOPPED_BIT, False, False, "FAULT"),
}
