"""Parts of a machine that a test may lack: each skip says which, then the remedy after a colon."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

NO_NATIVE = "no rt._native: apt-get install g++ python3-dev, then make again"
NO_GPU = "no CUDA GPU: run on a machine with one"
NO_CHROMIUM = "no Chromium: apt-get install chromium, or .venv/bin/playwright install chromium"


def no(extra: str) -> str:
    """The reason of a skip for want of an extra."""
    return f"no extra {extra}: pip install -e '.[{extra}]' -c constraints.txt"


def needed(extra: str, *modules: str) -> Any:
    """The last of the named modules of an extra; skips the test, or the file, if one is missing.

    A module that is there and does not load is an error of the installation, and so of the test.
    """
    return [pytest.importorskip(module, reason=no(extra)) for module in modules][-1]


def needed_realsense() -> Any:
    """pyrealsense2, loaded as the camera's driver loads it; skips if it is not installed."""
    if importlib.util.find_spec("pyrealsense2") is None:
        pytest.skip(no("realsense"), allow_module_level=True)
    from rt.camera.realsense import library

    return library()
