"""Settings of a UR arm: the only place of their defaults, ranges and meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class StreamSetup:
    """Settings of one connection; the loop's process hands them to the streaming process as JSON.

    Raises ValueError for a value out of its range.
    """

    host: str
    """Address of the controller."""
    T_flange_hand: list[list[float]]
    """(4, 4): the hand's frame, between the fingertips, in the flange."""
    rate_hz: float = 30.0
    """Rate at which `move` will be called [Hz]."""
    max_speed_m_s: float = 0.25
    """Speed limit of the hand's set-point [m/s]."""
    max_acceleration_m_s2: float = 1.0
    """Acceleration limit of the hand's set-point [m/s^2]."""
    max_turn_deg_s: float = 90.0
    """Turn limit of the hand's set-point [deg/s]."""
    max_target_age_s: float = 0.15
    """Age at which a target ends in a stop, as fast as `stop`'s [s]."""
    speed_scale: float = 1.0
    """Scales speed, turn, acceleration and jerk."""
    watchdog_hz: float = 10.0
    """The controller stops its program if it hears nothing for 1 / watchdog_hz seconds."""
    max_silence_s: float = 0.05
    """Longest that the packets' time may stand still before the arm counts as frozen [s]."""
    max_tcp_error_m: float | None = 0.003
    """Greatest distance of the controller's tool centre point from the hand's origin [m]; None: any.
    Commands are computed for the tool centre point that is set. From 1 mm or 1 degree on it is reported."""
    program_at_once: bool = True
    """Start the control program when connecting; False: with the first `move`, until which the arm can be
    guided by hand."""
    realtime: bool = True
    """Ask for real-time priority."""

    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        "rate_hz": (1.0, 500.0),
        "max_speed_m_s": (1e-3, 3.0),
        "max_acceleration_m_s2": (1e-2, 20.0),
        "max_turn_deg_s": (0.1, 360.0),
        "max_target_age_s": (1e-3, 5.0),
        "speed_scale": (1e-3, 1.0),
        "watchdog_hz": (1.0, 100.0),
        "max_silence_s": (0.01, 1.0),
    }

    def __post_init__(self) -> None:
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")
