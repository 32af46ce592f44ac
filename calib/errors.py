"""Errors of a calibration's input, and findings about data and result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class CalibrationError(ValueError):
    """Input that cannot be calibrated from: the message names the files, the value and the remedy."""


Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing the user should know about the data or the result."""

    level: Level
    """`error` forbids using the result, `warning` makes it at most usable, `note` only informs."""
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.text}" + (f". {self.remedy}" if self.remedy else "")


def listed(names: list[str], most: int = 6) -> str:
    """a, b, c and 4 more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def require_opencv() -> None:
    """Raise CalibrationError unless an OpenCV with hand-eye calibration can be imported."""
    remedy = "install it with: pip install 'grasp-servo[calib]'"
    try:
        import cv2
    except ImportError as error:
        raise CalibrationError(f"OpenCV is missing ({error}); {remedy}") from None
    if not hasattr(cv2, "calibrateHandEye"):
        raise CalibrationError(f"OpenCV {cv2.__version__} has no calibrateHandEye; {remedy}")
