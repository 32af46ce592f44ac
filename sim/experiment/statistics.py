"""Statistics of a set of trials: medians, shares and differences, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
NEAR_M, NEARER_M = 0.02, 0.01
"""The two distances whose shares are reported."""

Trials = Sequence[dict[str, Any]]


def distances(trials: Trials, scenario: str) -> NDArray[np.float64]:
    """Final distance (n,) [m] of a scenario in every trial."""
    return np.array([trial["final"][scenario]["distance_m"] for trial in trials])


def summary(trials: Trials, scenario: str, seed: int = 0) -> dict[str, Any]:
    """One scenario: median_m, mean_m, p90_m, ci95_m of the median by bootstrap, under_1cm, under_2cm, n;
    where grasps were lifted also the share `lifted` and its interval (Wilson's)."""
    d = distances(trials, scenario)
    result: dict[str, Any] = {
        "median_m": float(np.median(d)),
        "mean_m": float(d.mean()),
        "p90_m": float(np.percentile(d, 90)),
        "ci95_m": interval((d,), _median, seed),
        "under_1cm": float((d < NEARER_M).mean()),
        "under_2cm": float((d < NEAR_M).mean()),
        "under_2cm_ci95": wilson(int((d < NEAR_M).sum()), len(d)),
        "n": len(d),
    }
    if all("lifted" in trial["final"][scenario] for trial in trials):
        lifted = sum(trial["final"][scenario]["lifted"] for trial in trials)
        result["lifted"] = lifted / len(d)
        result["lifted_ci95"] = wilson(lifted, len(d))
    return result


def compare(trials: Trials, a: str, b: str, seed: int = 0) -> dict[str, Any]:
    """Scenario a against b on the same trials: the median paired difference a - b, the ratio of the
    medians a / b, each with its interval (pairs are drawn together), and how often a is nearer."""
    da, db = distances(trials, a), distances(trials, b)
    both = interval((da, db), _ratio, seed)
    result = {
        "a": a,
        "b": b,
        "median_difference_m": float(np.median(da - db)),
        "difference_ci95_m": interval((da - db,), _median, seed),
        "ratio_of_medians": float(np.median(da) / max(np.median(db), 1e-9)),
        "ratio_ci95": both,
        "a_nearer": float((da < db).mean()),
    }
    if all("lifted" in trial["final"][a] for trial in trials):
        la, lb = (
            np.array([trial["final"][s]["lifted"] for trial in trials], float) for s in (a, b)
        )
        result["lifted_difference"] = float((la - lb).mean())
        result["lifted_difference_ci95"] = interval((la - lb,), np.mean, seed)
    return result


def interval(
    samples: tuple[NDArray[np.float64], ...], statistic: Callable[..., Any], seed: int = 0
) -> list[float]:
    """95 % percentile bootstrap interval; the samples' rows are drawn together."""
    from scipy.stats import bootstrap  # a quarter of a second, which --help need not take

    n = len(samples[0])
    if n < 2 or all(np.ptp(s) == 0 for s in samples):
        value = float(statistic(*samples, axis=-1))
        return [value, value]
    found = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        paired=len(samples) > 1,
        vectorized=True,
        method="percentile",
        batch=500,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); (0, 1) for no trials."""
    from scipy.stats import binomtest

    if trials == 0:
        return 0.0, 1.0
    found = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def by_category(trials: Trials, scenarios: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each category of object that the hand started nearest to: {n, <scenario>: {median_m, under_2cm}}."""
    result: dict[str, dict[str, Any]] = {}
    for category in sorted({trial["category"] for trial in trials}):
        result[category] = _group([t for t in trials if t["category"] == category], scenarios)
    return result


def by_clutter(trials: Trials, scenarios: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The same by the number of objects in the scene."""
    result: dict[str, dict[str, Any]] = {}
    for count in sorted({len(trial["objects"]) for trial in trials}):
        result[str(count)] = _group([t for t in trials if len(t["objects"]) == count], scenarios)
    return result


def _group(own: Trials, scenarios: Sequence[str]) -> dict[str, Any]:
    group: dict[str, Any] = {"n": len(own)}
    for s in scenarios:
        d = distances(own, s)
        group[s] = {"median_m": float(np.median(d)), "under_2cm": float((d < NEAR_M).mean())}
        if all("lifted" in t["final"][s] for t in own):
            hits = sum(t["final"][s]["lifted"] for t in own)
            group[s] |= {"lifted": hits / len(own), "lifted_ci95": wilson(hits, len(own))}
    return group


def _median(sample: NDArray[np.float64], axis: int = -1) -> Any:
    return np.median(sample, axis=axis)


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> Any:
    return np.median(a, axis=axis) / np.maximum(np.median(b, axis=axis), 1e-9)
