"""train.calibration: shares, intervals and ranks on answers whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.calibration import (
    GRASP_WITHIN_M,
    Answers,
    probability_report,
    separation,
    spread_factor,
    spread_report,
)

EDGES = (0.0, 0.05, np.inf)


def drawn(count: int = 20_000) -> tuple[np.ndarray, Answers]:
    """Distances whose errors are normal with a known width, wider where the truth is far."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 0.1, (count, 2)).astype(np.float32)
    sigma = 0.002 + 0.1 * true
    distance = (true + sigma * rng.standard_normal(true.shape)).astype(np.float32)
    return true, Answers(distance, None, (1.96 * sigma).astype(np.float32))


def test_an_honest_spread_holds_95_percent_everywhere() -> None:
    true, answers = drawn()
    height = np.linspace(0.15, 0.30, len(true), dtype=np.float32)
    report = spread_report(true, answers, height, EDGES)
    assert report["held"] == pytest.approx(0.95, abs=0.005)
    for kind in ("heights", "bins"):
        assert sum(row["samples"] for row in report[kind]) == true.size
        for row in report[kind]:
            assert row["held"] == pytest.approx(0.95, abs=0.01)
    assert [row["from_m"] for row in report["heights"]] == [0.0, 0.2, 0.25]


def test_the_factor_mends_a_spread_that_is_too_narrow() -> None:
    true, answers = drawn()
    assert answers.spread is not None
    narrow = answers._replace(spread=answers.spread / 2)
    assert spread_factor(true, narrow) == pytest.approx(2, rel=0.02)
    mended = narrow._replace(spread=answers.spread / 2 * np.float32(spread_factor(true, narrow)))
    height = np.full(len(true), 0.2, np.float32)
    assert spread_report(true, mended, height, EDGES)["held"] == pytest.approx(0.95, abs=1e-3)


def test_probabilities_that_are_shares_have_no_calibration_error() -> None:
    rng = np.random.default_rng(1)
    p = rng.random((400, 100)).astype(np.float32)
    true = np.where(rng.random(p.shape) < p, 0.5, 2.0).astype(np.float32) * GRASP_WITHIN_M
    report = probability_report(true, Answers(true, p))
    assert report["calibration_error"] < 0.01
    assert report["share"] == pytest.approx(0.5, abs=0.01)
    assert sum(row["samples"] for row in report["bins"]) == p.size
    doubled = probability_report(true, Answers(true, np.clip(2 * p, 0, 1)))
    assert doubled["calibration_error"] > 0.2 and doubled["brier"] > report["brier"]
    # the area under the curve of p ~ U(0, 1) with outcomes of chance p: 5/6
    assert report["separation"] == pytest.approx(5 / 6, abs=0.01)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_separation_is_the_share_of_pairs_in_order(items: list[tuple[int, bool]]) -> None:
    score = np.array([s for s, _ in items], float)
    good = np.array([g for _, g in items])
    pairs = [1.0 if a < b else 0.5 if a == b else 0.0 for a in score[good] for b in score[~good]]
    found = separation(score, good)
    assert math.isnan(found) if not pairs else found == pytest.approx(np.mean(pairs))
