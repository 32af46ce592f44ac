"""Functions that are to name the wanted object, and do not: for tests, with few imports."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray


def found_nothing(colour: NDArray[np.uint8] | None, depth: NDArray[np.float32]) -> None:
    return None


calls = 0


def fails_later(colour: NDArray[np.uint8] | None, depth: NDArray[np.float32]) -> Any:
    global calls
    calls += 1
    if calls > 1:
        raise RuntimeError("the lamp is off")
    return (20, 20, 40, 40)


def hangs(colour: NDArray[np.uint8] | None, depth: NDArray[np.float32]) -> Any:
    time.sleep(1000)
