"""Statistics of a set of trials: shares lifted, medians and differences, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
NEAR_M, NEARER_M = 0.02, 0.01
"""The two distances whose shares are reported."""

Trials = Sequence[dict[str, Any]]


def ends(trials: Trials, scenario: str) -> list[list[dict[str, Any]]]:
    """The ends of a scenario in every trial: one, or where scenes are cleared one for each pick."""
    found = [trial["final"][scenario] for trial in trials]
    return [end.get("picks", [end]) for end in found]


def distances(trials: Trials, scenario: str) -> NDArray[np.float64]:
    """Distance (n,) [m] of every end of a scenario, but for those in a scene where no true grasp was left."""
    every = (end["distance_m"] for own in ends(trials, scenario) for end in own)
    return np.array([d for d in every if d is not None])


def lifts(
    trials: Trials, scenario: str, possible: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Attempts that lifted, and attempts, (n,) each, by trial; None if there were no lifts. With possible
    only attempts in a scene where a true grasp was left."""
    every = ends(trials, scenario)
    if possible:
        every = [[end for end in own if end["distance_m"] is not None] for own in every]
    if not all("lifted" in end for own in every for end in own):
        return None
    lifted = np.array([sum(end["lifted"] for end in own) for own in every], float)
    return lifted, np.array([len(own) for own in every], float)


def summary(trials: Trials, scenario: str, seed: int = 0) -> dict[str, Any]:
    """One scenario: median_m, mean_m, p90_m, ci95_m of the median by bootstrap, under_1cm, under_2cm, n.

    Where grasps were lifted also the share `lifted` of the n attempts and its interval; where scenes were
    cleared the share of objects `cleared`, its interval, the share of scenes `emptied`, and the share lifted
    of the `possible` attempts, for which a true grasp was left. Also the number of attempts with the hand
    `inside` anything on its way, or with a finger `on_wall`, and `one_change`, the share of approaches whose
    goal went over to another object at most once.
    """
    d = distances(trials, scenario)
    result: dict[str, Any] = {
        "median_m": float(np.median(d)),
        "mean_m": float(d.mean()),
        "p90_m": float(np.percentile(d, 90)),
        "ci95_m": interval((d,), _median, seed),
        "under_1cm": float((d < NEARER_M).mean()),
        "under_2cm": float((d < NEAR_M).mean()),
        "under_2cm_ci95": wilson(int((d < NEAR_M).sum()), len(d)),
        "n": sum(len(own) for own in ends(trials, scenario)),
    }
    if (counted := lifts(trials, scenario)) is not None:
        result |= {"lifted": _share(*counted), "lifted_ci95": share_interval(*counted, seed)}
    final = [trial["final"][scenario] for trial in trials]
    if "cleared" in final[0]:
        cleared, of = (np.array([end[key] for end in final], float) for key in ("cleared", "of"))
        result |= {
            "cleared": _share(cleared, of),
            "cleared_ci95": share_interval(cleared, of, seed),
        }
        result["emptied"] = float((cleared == of).mean())
        some = lifts(trials, scenario, possible=True)
        assert some is not None
        result["possible"] = int(some[1].sum())
        result["lifted_possible"] = _share(*some)
    every = [end for own in ends(trials, scenario) for end in own]
    for key in ("inside", "on_wall", "wrong"):
        if key in every[0]:
            result[key] = sum(bool(end[key]) for end in every)
    if "changes" in every[0]:
        result["one_change"] = float(np.mean([end["changes"] <= 1 for end in every]))
    return result


def compare(trials: Trials, a: str, b: str, seed: int = 0) -> dict[str, Any]:
    """Scenario a against b on the same trials: the difference of their lifted shares a - b with its interval
    (trials are drawn together). Where both have one end a trial also the median paired difference, the
    ratio of the medians a / b, each with its interval, and how often a is nearer."""
    result: dict[str, Any] = {"a": a, "b": b}
    la, lb = lifts(trials, a), lifts(trials, b)
    if la is not None and lb is not None:
        result["lifted_difference"] = _share(*la) - _share(*lb)
        result["lifted_difference_ci95"] = interval((*la, *lb), _share_difference, seed)
    if "picks" in trials[0]["final"][a]:
        return result
    da, db = distances(trials, a), distances(trials, b)
    return result | {
        "median_difference_m": float(np.median(da - db)),
        "difference_ci95_m": interval((da - db,), _median, seed),
        "ratio_of_medians": float(np.median(da) / max(np.median(db), 1e-9)),
        "ratio_ci95": interval((da, db), _ratio, seed),
        "a_nearer": float((da < db).mean()),
    }


def share_interval(
    hits: NDArray[np.float64], attempts: NDArray[np.float64], seed: int = 0
) -> tuple[float, float]:
    """95 % interval of sum(hits) / sum(attempts): Wilson's for one attempt a trial; else trials are drawn
    anew with all their attempts, which depend on one another."""
    if attempts.max() <= 1 or (hits == attempts).all() or not hits.any():
        return wilson(int(hits.sum()), int(attempts.sum()))
    low, high = interval((hits, attempts), _share, seed)
    return low, high


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
        if (counted := lifts(own, s)) is not None:
            group[s] |= {"lifted": _share(*counted), "lifted_ci95": share_interval(*counted)}
    return group


def _share(hits: NDArray[np.float64], attempts: NDArray[np.float64], axis: int = -1) -> Any:
    return np.sum(hits, axis=axis) / np.sum(attempts, axis=axis)


def _share_difference(
    hits: NDArray[np.float64],
    attempts: NDArray[np.float64],
    other_hits: NDArray[np.float64],
    other_attempts: NDArray[np.float64],
    axis: int = -1,
) -> Any:
    return _share(hits, attempts, axis) - _share(other_hits, other_attempts, axis)


def _median(sample: NDArray[np.float64], axis: int = -1) -> Any:
    return np.median(sample, axis=axis)


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> Any:
    return np.median(a, axis=axis) / np.maximum(np.median(b, axis=axis), 1e-9)
