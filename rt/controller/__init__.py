"""Controllers: next move of the hand, from the distances of candidates: Algorithm 1, and two with memory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rt.controller.algorithm import (
    DOUBT_WEIGHT_M,
    ITERATIONS,
    RADIUS_M,
    RATIO,
    TURN_RAD,
    Decision,
    DistanceFunction,
    Paper,
    Surroundings,
    ask,
    candidates,
    descend,
    disturb,
    place,
    place_all,
    select,
    step,
)
from rt.controller.ensemble import DOUBT_M, FAR_M, MEMORY, WIDE_M, Ensemble, symmetry
from rt.controller.first_look import FirstLook, dense_actions
from rt.controller.target import TargetPoint
from rt.tools.resolve import resolve

__all__ = [
    "CONTROLLERS",
    "DOUBT_M",
    "DOUBT_WEIGHT_M",
    "FAR_M",
    "ITERATIONS",
    "MEMORY",
    "RADIUS_M",
    "RATIO",
    "TURN_RAD",
    "WIDE_M",
    "Controller",
    "Decision",
    "DistanceFunction",
    "Ensemble",
    "FirstLook",
    "Paper",
    "Surroundings",
    "TargetPoint",
    "ask",
    "candidates",
    "dense_actions",
    "descend",
    "disturb",
    "open_controller",
    "place",
    "place_all",
    "select",
    "step",
    "symmetry",
]


class Controller(Protocol):
    """One period's choice, as Paper makes it. A class of your own is called as
    `MyController(ratio, n, rng)`: part of the way per cycle, candidates, numpy.random.Generator. If it has an
    attribute `around`, the loop sets it to the cycle's `Surroundings` before each call."""

    def forget(self) -> None:
        """Drop what was remembered of earlier views."""

    def __call__(
        self,
        distance: DistanceFunction,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        commanded: NDArray[np.float64],
    ) -> Decision: ...


CONTROLLERS: dict[str, Any] = {"paper": Paper, "ensemble": Ensemble, "first_look": FirstLook}
"""Controllers by name."""


def open_controller(name: str, ratio: float, n: int, rng: np.random.Generator) -> Controller:
    """A controller by its name or `module:attribute`. Raises ResolveError."""
    made: Controller = resolve("controller", name, CONTROLLERS)(ratio, n, rng)
    return made
