"""The compiled module, or None with one clear line when the package was built without a compiler."""

from __future__ import annotations

import importlib
import os
import warnings
from types import ModuleType

native: ModuleType | None = None
"""rt._native, or None: then every function that uses it runs its NumPy twin.

GRASP_SERVO_NATIVE=0 in the environment selects the twins, which are also the tests' oracle.
"""

if os.environ.get("GRASP_SERVO_NATIVE", "1") != "0":
    try:
        native = importlib.import_module("rt._native")
    except ImportError as error:
        warnings.warn(
            f"rt._native is not built ({error}): using the slower NumPy twins. Install a C++ compiler "
            "(Debian: apt-get install g++) and run `pip install -e .` again",
            RuntimeWarning,
            stacklevel=2,
        )
