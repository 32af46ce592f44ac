"""Hand-eye calibration that says whether to trust it.

from calib import solve_arrays  # images or target poses, and robot poses; docs/api.md
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rt.tools.interrupt import one_line

one_line()

if TYPE_CHECKING:
    from calib.collect.arrays import HandEye as HandEye
    from calib.collect.arrays import solve_arrays as solve_arrays

__all__ = ["HandEye", "solve_arrays"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'calib' has no attribute {name!r}")
    return getattr(importlib.import_module("calib.collect.arrays"), name)
