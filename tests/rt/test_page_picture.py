"""rt.page.picture: hand, choice and field are drawn where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pages import GOAL, view_of_a_box
from PIL import Image

from rt.hand import load_hand
from rt.page.picture import (
    CHOSEN,
    COLOURS,
    HAND,
    SIDE_PX,
    draw,
    field,
    relief,
    surface_depth,
    veil,
)
from rt.view import VIEW


def to_a_point(at: tuple[float, float]) -> Any:
    def distance(depth: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.linalg.norm(actions[:, :2] - np.float32(at), axis=1).astype(np.float32)

    return distance


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(0.15, 0.3))
def test_the_field_is_least_where_the_view_sees_the_goal(x: float, y: float, depth: float) -> None:
    at = VIEW.intrinsics
    u, v = (x * at.fx_px / depth + at.cx_px + 0.5, y * at.fy_px / depth + at.cy_px + 0.5)
    if not (1 < u < 63 and 1 < v < 63):
        return
    values = field(to_a_point((x, y)), np.full((64, 64), depth, np.float32), 0.0, depth)
    row, column = np.unravel_index(int(values.argmin()), values.shape)
    cell = VIEW.size_px / len(values)
    assert (
        abs((column + 0.5) * cell - u) <= 0.51 * cell and abs((row + 0.5) * cell - v) <= 0.51 * cell
    )


def test_the_overlay_is_bright_at_a_grasp_and_dark_far_from_it() -> None:
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), (150, 150, 150))
    values = field(to_a_point((0.05, 0.0)), np.full((64, 64), 0.2, np.float32), 0.0, 0.2)
    layer = veil(values)
    image.paste(layer, (0, 0), layer)
    picture = np.asarray(image).astype(int)
    near = picture[SIDE_PX // 2, SIDE_PX // 2 + round(0.05 * VIEW.focal_px / 0.2 * SIDE_PX / 64)]
    far = picture[SIDE_PX // 2, 4]
    assert near[0] > far[0] + 60 and near[1] > far[1] + 60
    unknown = np.asarray(veil(np.full((48, 48), np.nan, np.float32)))
    assert (unknown[..., :3] == COLOURS[-1]).all()


def test_hand_and_choice_are_drawn_where_they_are() -> None:
    def grey() -> Image.Image:
        return Image.new("RGB", (SIDE_PX, SIDE_PX), (150, 150, 150))

    nothing = np.full((4, 3), np.nan, np.float32)
    hand, depth = load_hand(), 0.25
    action = np.array([0.05, -0.03, 0.0], np.float32)
    picture = draw(grey(), depth, nothing, np.full(4, np.nan), action, hand)

    def middle(colour: tuple[int, int, int]) -> NDArray[np.float64]:
        rows, columns = np.nonzero((picture == colour).all(axis=2))
        return np.array([columns.mean(), rows.mean()])

    metre = VIEW.focal_px / depth * SIDE_PX / VIEW.size_px
    assert np.allclose(middle(CHOSEN) - middle(HAND), action[:2] * metre, atol=4)
    unknown = draw(grey(), depth, nothing, np.full(4, np.nan), np.full(3, np.nan), hand)
    assert not (unknown == CHOSEN).all(axis=2).any()


def test_no_return_is_dark_and_an_empty_view_is_drawn() -> None:
    view = np.full((64, 64), 0.3, np.float32)
    view[:, 40:] = 0
    picture = np.asarray(relief(view))
    side = len(picture)
    assert picture[:, : side // 2].min() > 90 > picture[:, -side // 8 :].max()
    empty = np.asarray(relief(np.zeros((64, 64), np.float32)))
    assert empty.shape == (side, side, 3) and empty.max() < 90


def test_surface_depth_is_that_of_the_object_under_the_action() -> None:
    hand = np.array([*GOAL[:2], 0.30, 0.0])
    view = view_of_a_box(hand)
    assert surface_depth(view, np.zeros(2)) == pytest.approx(0.25, abs=1e-6)
    assert surface_depth(view, np.array([0.1, 0.1])) == pytest.approx(0.30, abs=1e-6)
    assert surface_depth(np.zeros((64, 64), np.float32), np.zeros(2)) == VIEW.far_m
