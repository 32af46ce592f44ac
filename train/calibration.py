"""Calibration of a network's probabilities and of its intervals, against true distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float32]

GRASP_WITHIN_M = 0.015
"""The probability is that of a grasp this near."""
COVERAGE = 0.95
"""Share of errors that lie within the spread."""
HEIGHT_EDGES_M = (0.0, 0.20, 0.25, np.inf)
"""Of the hand above the table."""
_PROBABILITY_BINS = 10


class Answers(NamedTuple):
    """Outputs of a network for actions (B, K); the last two are None for a network with distances only."""

    distance: Floats
    """m."""
    probability: Floats | None = None
    """That a grasp lies within GRASP_WITHIN_M."""
    spread: Floats | None = None
    """Half-width of the distance's interval of COVERAGE, m."""


@dataclass(frozen=True)
class Bin:
    """Values from `low` up to `high`."""

    low: float
    high: float

    def holds(self, values: NDArray[np.floating]) -> NDArray[np.bool_]:
        return (values >= self.low) & (values < self.high)

    @property
    def ends(self) -> dict[str, float | None]:
        return {"from_m": self.low, "to_m": None if self.high == np.inf else self.high}


def bins(edges: Sequence[float]) -> list[Bin]:
    return [Bin(low, high) for low, high in pairwise(edges)]


def spread_report(
    true: Floats, answers: Answers, height_m: Floats, edges_m: Sequence[float]
) -> dict[str, Any]:
    """Shares of errors within the spread: of all, by the hand's height (B,), by true distance (B, K)."""
    assert answers.spread is not None
    held = np.abs(answers.distance - true) <= answers.spread
    heights = np.broadcast_to(height_m[:, None], true.shape)

    def groups(values: NDArray[np.floating], parts: list[Bin]) -> list[dict[str, Any]]:
        rows = []
        for part in parts:
            here = part.holds(values)
            if here.any():
                rows.append(
                    {**part.ends, "samples": int(here.sum()), "held": float(held[here].mean())}
                )
        return rows

    return {
        "held": float(held.mean()),
        "median_spread_m": float(np.median(answers.spread)),
        "heights": groups(heights, bins(HEIGHT_EDGES_M)),
        "bins": groups(true, bins(edges_m)),
    }


def spread_factor(true: Floats, answers: Answers) -> float:
    """Factor on the spreads for which a share COVERAGE of these errors lies within them."""
    assert answers.spread is not None
    return float(np.quantile(np.abs(answers.distance - true) / answers.spread, COVERAGE))


def probability_report(true: Floats, answers: Answers) -> dict[str, Any]:
    """Probabilities beside the shares that came true: by bin, expected calibration error, Brier score."""
    assert answers.probability is not None
    p, near = answers.probability.ravel().astype(np.float64), (true < GRASP_WITHIN_M).ravel()
    which = np.minimum((p * _PROBABILITY_BINS).astype(int), _PROBABILITY_BINS - 1)
    rows, gap = [], 0.0
    for k in range(_PROBABILITY_BINS):
        here = which == k
        if not here.any():
            continue
        said, came = float(p[here].mean()), float(near[here].mean())
        gap += abs(said - came) * here.mean()
        rows.append({"samples": int(here.sum()), "said": said, "came_true": came})
    return {
        "within_m": GRASP_WITHIN_M,
        "share": float(near.mean()),
        "calibration_error": float(gap),
        "brier": float(np.mean((p - near) ** 2)),
        "separation": separation(-p, near),
        "bins": rows,
    }


def separation(score: NDArray[np.floating], good: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: chance that a good one's score is lower than another's; NaN without both."""
    yes, no = int(good.sum()), int((~good).sum())
    if not yes or not no:
        return float("nan")
    ranks = rankdata(-score)
    return float((ranks[good].sum() - yes * (yes + 1) / 2) / (yes * no))
