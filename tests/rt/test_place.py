"""rt.cell.place: the places of a job, and what limits keep the hand from."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.cell.place import REACH_M, PlacePart
from rt.cell.transform import CellError
from rt.guard.limits import Limits

SIZE = st.floats(0.01, 2.0)


@given(SIZE, SIZE, st.floats(-1, 1), st.floats(-1, 1))
def test_looks_cover_all_that_is_to_be_cleared(w: float, d: float, x: float, y: float) -> None:
    looks = np.array(PlacePart((0, 0, 0, 0), home=(x, y, 0.3), look_m=(w, d)).looks())
    grid = np.stack(np.meshgrid(np.linspace(-w, w, 9) / 2, np.linspace(-d, d, 7) / 2), -1)
    for spot in grid.reshape(-1, 2) + np.array([x, y]):
        assert np.abs(looks[:, :2] - spot).max(axis=1).min() <= REACH_M + 1e-9
    assert looks[:, :2].mean(axis=0) == pytest.approx([x, y], abs=1e-9)
    steps = np.linalg.norm(np.diff(looks[:, :2], axis=0), axis=1)
    assert (steps <= 2 * REACH_M + 1e-9).all()  # no long way from one to the next
    assert (looks[:, 2] == 0.3).all()


def test_a_look_reaches_what_is_small_and_four_what_is_not() -> None:
    def looks(x: float, size: tuple[float, float]) -> np.ndarray:
        return np.array(PlacePart((0, 0.4, 0.2, 0), (x, 0, 0.3), size).looks())

    assert len(looks(0.0, (0.4, 0.3))) == 4
    assert np.allclose(looks(0.1, (0.2, 0.2)), [[0.1, 0.0, 0.3]])


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"look_m": (0.0, 0.3)}, {"carry_m": 1.6}])
def test_a_place_made_in_python_is_checked_too(wrong: dict[str, object]) -> None:
    with pytest.raises(CellError, match=f"place.{next(iter(wrong))} = .* must be from"):
        replace(PlacePart((0, 0.4, 0.2, 0), (0, 0, 0.3)), **wrong)  # type: ignore[arg-type]


def test_slots_fill_the_area_row_by_row() -> None:
    place = PlacePart((0.1, 0.4, 0.2, 90.0), home=(0, 0, 0.3), area_m=(0.2, 0.1), rows=2, columns=2)
    found = np.array(place.slots())
    assert np.allclose(found[:, :2], [[0.05, 0.375], [0.15, 0.375], [0.05, 0.425], [0.15, 0.425]])
    assert np.allclose(found[:, 3], math.pi / 2)
    alone = PlacePart((0.1, 0.4, 0.2, 0.0), home=(0, 0, 0.3)).slots()
    assert len(alone) == 1 and np.allclose(alone[0], [0.1, 0.4, 0.2, 0])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"home": (0.0, 0.6, 0.3)}, r"place.home: workspace: y = 0.600 m must be from -0.5 to 0.5"),
        ({"look_m": (1.2, 0.3)}, r"place.look_m: workspace: x = -0.480 m must be from -0.4 to 0.4"),
        ({"pose": (0.0, 0.4, -0.1, 0.0)}, r"place.pose: height: z = -0.100 m must be from 0"),
        ({"area_m": (0.0, 0.4), "rows": 2}, r"place.pose: workspace: y = 0.55"),
        ({"carry_m": 0.7}, r"place.carry_m: height: z = 0.700 m must be from .* to 0.6 m"),
    ],
)  # fmt: skip
def test_a_place_that_the_limits_forbid_is_named(change: dict[str, object], why: str) -> None:
    values = {"pose": (0.0, 0.45, 0.2, 0.0), "home": (0.0, 0.0, 0.3)} | change
    limits = Limits(workspace_min_m=(-0.4, -0.5), workspace_max_m=(0.4, 0.5), max_height_m=0.6)
    assert PlacePart((0.0, 0.45, 0.2, 0.0), (0.0, 0.0, 0.3)).trouble(limits) == ""
    assert re.search(why, PlacePart(**values).trouble(limits))  # type: ignore[arg-type]
