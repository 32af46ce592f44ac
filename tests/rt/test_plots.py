"""rt.tools.plots: figures need no display and are saved whole; the hand's glyph lies where the hand is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.tools.plots import GREEN, hand_lines, hand_segments, panels, save

metres, angles = st.floats(-1, 1), st.floats(-3.2, 3.2)


@given(metres, metres, angles)
def test_the_glyph_spans_the_opening_along_the_closing_axis(x: float, y: float, yaw: float) -> None:
    line, left, right = hand_segments((x, y, yaw), 0.08, 0.02)
    np.testing.assert_allclose(line.mean(0), (x, y), atol=1e-12)
    axis = np.array([np.cos(yaw), np.sin(yaw)])
    np.testing.assert_allclose(line[1] - line[0], 0.08 * axis, atol=1e-12)
    for end, mark in zip(line, (left, right), strict=True):
        np.testing.assert_allclose(mark.mean(0), end, atol=1e-12)
        assert abs((mark[1] - mark[0]) @ axis) < 1e-12
        assert abs(np.linalg.norm(mark[1] - mark[0]) - 0.02) < 1e-12


def test_many_hands_are_the_hands_one_by_one() -> None:
    actions = np.random.default_rng(0).normal(size=(5, 3))
    alone = np.concatenate([hand_segments(a, 0.06, 0.02) for a in actions])
    np.testing.assert_allclose(hand_segments(actions, 0.06, 0.02), alone)


def test_a_figure_is_saved_whole_and_a_failed_one_leaves_nothing(tmp_path: Path) -> None:
    figure, axes = panels()
    axes.add_collection(hand_lines(hand_segments((0, 0, 0), 0.08, 0.02), colour=GREEN))
    save(figure, tmp_path / "a.png", dpi=50)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError):
        save(figure, tmp_path / "a.nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_figure_does_not_load_pyplot() -> None:
    code = (
        "import sys; from rt.tools.plots import panels; panels(); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
