"""Everything made of triangles: objects, scenes, depth images, true grasps, the simulated twin.

from sim import TrialsOptions, run_trials  # trials of a network and a controller; docs/api.md
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rt.tools.interrupt import one_line

one_line()

if TYPE_CHECKING:
    from sim.experiment.run import TrialsOptions as TrialsOptions
    from sim.trials import run_trials as run_trials

__all__ = ["TrialsOptions", "run_trials"]

_HOMES = {"TrialsOptions": "sim.experiment.run", "run_trials": "sim.trials"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
