"""The compiled module, or None with one clear line if the package was installed without it."""

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
            "and Python's headers (Debian, Ubuntu: apt-get install g++ python3-dev), then run `make "
            "demo` or `pip install -e .` again",
            RuntimeWarning,
            stacklevel=2,
        )
        os.environ["GRASP_SERVO_NATIVE"] = "0"  # processes that this one starts need not repeat it
