"""sim.experiment.displaced: displacements are as large as they say, and the command counts what is told."""

from __future__ import annotations

import numpy as np
import pytest

from sim.experiment import displaced
from sim.experiment.displaced import KINDS, STRENGTHS, WORDS, DisplacedOptions, displacement


@pytest.mark.parametrize(("kind", "amount"), STRENGTHS)
def test_a_displacement_has_its_size(kind: str, amount: float) -> None:
    for seed in range(5):
        T = displacement(kind, amount, np.random.default_rng(seed))
        angle = np.degrees(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1)))
        assert angle == pytest.approx(amount if kind == "tilt" else 0.0, abs=1e-5)
        assert abs(T[2, 3]) == pytest.approx(amount if kind == "height" else 0.0)
        beside = amount if kind in ("shift", "knock") else 0.0
        assert np.linalg.norm(T[:2, 3]) == pytest.approx(beside)
    assert set(WORDS) == set(KINDS) == {k for k, _ in STRENGTHS}


def test_a_tilted_camera_is_counted_and_one_in_its_place_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(displaced, "STRENGTHS", (("none", 0.0), ("tilt", 2.0)))
    report = displaced.measure(DisplacedOptions(approaches=2, clean=2, workers=1))
    clean, tilted = report["points"]
    assert (clean["approaches"], clean["told"], clean["alarms"]) == (2, 0, [])
    assert (tilted["approaches"], tilted["told"]) == (2, 2)
    assert 0.15 <= tilted["median_height_m"] < 0.30
    assert displaced.table(report).row_count == 2


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="clean = 0 must be from 1"):
        DisplacedOptions(clean=0)
