"""rt.camera.still_scene and rt.guard.camera_watch: plane of the table, shift of the scene, moved cameras."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rt.camera import Intrinsics
from rt.camera.still_scene import fit_table, shift_between
from rt.guard.camera_watch import CameraPlace, CameraWatch
from rt.guard.limits import Limits
from rt.guard.rows import Action, CycleState, Guard, Hold, Stop
from rt.pose import top_down
from rt.view import Reprojector, close_gaps

CAMERA = Intrinsics(240, 180, 150.0, 150.0, 119.5, 89.5)
MOUNT = np.eye(4)
MOUNT[1, 3], MOUNT[2, 3] = -0.07, -0.10
BOXES = (
    (0.02, 0.03, 0.05, 0.06, 0.05),
    (-0.10, -0.06, 0.04, 0.09, 0.03),
    (-0.02, -0.09, 0.08, 0.03, 0.08),
)
"""Centre x, y, size x, y, height [m]."""


def scene_depth(T_base_camera: np.ndarray, camera: Intrinsics = CAMERA) -> np.ndarray:
    """Depth (H, W) float32 m of a table at z = 0 with boxes on it, by slabs."""
    rays = camera.rays().astype(np.float64) @ T_base_camera[:3, :3].T
    origin = T_base_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(rays[..., 2] < 0, -origin[2] / rays[..., 2], np.inf)
        for x, y, wide, long, high in BOXES:
            low, top = (
                np.array([x - wide / 2, y - long / 2, 0]),
                np.array([x + wide / 2, y + long / 2, high]),
            )
            a, b = (low - origin) / rays, (top - origin) / rays
            enter, leave = np.fmin(a, b).max(axis=-1), np.fmax(a, b).min(axis=-1)
            depth = np.where((enter < leave) & (enter > 0), np.fmin(depth, enter), depth)
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-0.05, 0.05),
    st.floats(-0.3, 0.3),
    st.floats(-0.3, 0.3),
    st.floats(0, 0.5),
    st.integers(0, 2**31),
)
@example(0.03125, 0.0, 0.0, 0.5, 21507)
def test_a_plane_is_found_below_things(
    height: float, a: float, b: float, covered: float, seed: int
) -> None:
    """Noise of 1 mm, and a part of the points on or in things above the table."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-0.2, 0.2, (800, 2))
    z = height + xy @ (a, b) + rng.normal(0, 0.001, 800)
    things = rng.random(800) < covered
    z[things] += rng.choice((0.04, 0.06, 0.11), things.sum()) + rng.uniform(0, 0.01, things.sum())
    fit = fit_table(np.column_stack([xy, z]).astype(np.float32))
    assert fit is not None
    assert fit.height_m == pytest.approx(height, abs=0.0006)
    np.testing.assert_allclose(fit.slope, (a, b), atol=0.005)
    assert fit.tilt_deg == pytest.approx(np.degrees(np.arctan(np.hypot(a, b))), abs=0.3)
    n = fit.normal
    assert np.linalg.norm(n) == pytest.approx(1) and n[2] > 0
    assert fit.share == pytest.approx(1 - things.mean(), abs=0.08)


def test_a_box_that_fills_most_is_not_the_table() -> None:
    """Its top has more points than the table, which lies below it."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(-0.2, 0.2, (1000, 2))
    z = np.where(rng.random(1000) < 0.65, 0.05, 0.0) + rng.normal(0, 0.001, 1000)
    fit = fit_table(np.column_stack([xy, z]))
    assert fit is not None and abs(fit.height_m) < 0.001


def test_no_plane_in_a_heap_or_in_a_handful() -> None:
    rng = np.random.default_rng(0)
    assert fit_table(rng.uniform(-0.2, 0.2, (500, 3))) is None
    assert fit_table(np.zeros((29, 3))) is None


def test_the_height_is_told_where_it_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(-0.2, 0.2, (400, 2))
    points = np.column_stack([xy, 0.1 * xy[:, 0]])
    first = fit_table(points, at=(0.1, 0.0))
    assert first is not None and first.height_m == pytest.approx(0.01, abs=1e-5)
    again = fit_table(points, at=(0.1, 0.0), start=first)
    assert again is not None and again.height_m == pytest.approx(0.01, abs=1e-5)


def smooth_map(x0: float, y0: float, size: int = 64, cell: float = 0.005) -> np.ndarray:
    """Heights of a landscape that is known everywhere, in a map whose origin is at x0, y0."""
    c = (np.arange(size) + 0.5 - size / 2) * cell
    x, y = np.meshgrid(c + x0, c + y0)
    bumps = ((0.0, 0.02, 0.05, 0.02), (-0.06, -0.05, 0.03, 0.025), (0.07, -0.03, 0.06, 0.018))
    return sum(h * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s * s)) for a, b, h, s in bumps)  # type: ignore[return-value]


@settings(deadline=None, max_examples=40)
@given(*[st.floats(-0.04, 0.04)] * 2, *[st.floats(-0.012, 0.012)] * 2)
def test_a_shift_is_found_beyond_the_known_motion(
    mx: float, my: float, dx: float, dy: float
) -> None:
    """The scene moved by d while the second map's origin moved by m."""
    found = shift_between(smooth_map(0, 0), smooth_map(mx - dx, my - dy), 0.005, (mx, my))
    assert found is not None
    np.testing.assert_allclose(found.shift_m, (dx, dy), atol=0.0004)


def test_no_shift_without_edges_in_both_directions() -> None:
    flat = np.zeros((64, 64))
    assert shift_between(flat, flat, 0.005) is None
    ridge = np.where(np.abs(np.arange(64) - 32) < 5, 0.05, 0.0) * np.ones((64, 1))
    assert shift_between(ridge, ridge, 0.005) is None  # free along the ridge
    unseen = np.full((64, 64), np.nan)
    assert shift_between(smooth_map(0, 0), unseen, 0.005) is None
    assert shift_between(smooth_map(0, 0), smooth_map(0, 0), 0.005, (0.3, 0.0)) is None  # apart


def approach(
    error: np.ndarray, *, at: float = 0.0, turn_deg: float = 60.0, noise_m: float = 0.0005
) -> tuple[CameraPlace, list[CameraPlace]]:
    """An approach with a camera whose true mount is MOUNT @ error from the part `at` of the way on."""
    watch, reproject = CameraWatch(CAMERA, MOUNT), Reprojector(CAMERA, MOUNT)
    rng, places = np.random.default_rng(1), []
    for k in range(75):
        part = 1 - np.exp(-k / 15)
        yaw = np.radians(turn_deg) * part
        hand = top_down(0.05 * (1 - part), -0.04 * (1 - part), 0.30 - 0.002 * k, yaw)
        true = MOUNT @ error if k >= 75 * at else MOUNT
        depth = scene_depth(hand @ true)
        depth += (noise_m * rng.standard_normal(depth.shape)).astype(np.float32) * (depth > 0)
        stamp_ns = 10**9 + round(k * 1e9 / 30)
        places.append(watch.look(depth, close_gaps(reproject(depth)), hand, stamp_ns))
    return places[-1], places


def moved(x: float = 0, y: float = 0, z: float = 0, tilt_deg: float = 0) -> np.ndarray:
    c, s = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    return np.array([[1, 0, 0, x], [0, c, -s, y], [0, s, c, z], [0, 0, 0, 1]])


def test_a_camera_in_its_place_is_not_told() -> None:
    _, places = approach(np.eye(4))
    assert max(p.part_of(Limits()) for p in places) < 0.5


@pytest.mark.parametrize(
    ("error", "quantity", "words"),
    [
        (moved(tilt_deg=1.0), "tilt_deg", "1.0 deg tilted"),
        (moved(tilt_deg=-1.0), "tilt_deg", "1.0 deg tilted"),
        (moved(z=0.005), "height_m", r"\+5\.\d mm high"),
        (moved(z=-0.005), "height_m", r"-5\.\d mm high|-4\.\d mm high"),
        (moved(x=0.006, y=-0.005), "shift_m", "the camera seems .* mm beside its place"),
    ],
)
def test_a_displaced_camera_is_told_within_one_approach(
    error: np.ndarray, quantity: str, words: str
) -> None:
    limits = Limits()
    limit = getattr(limits, f"max_camera_{quantity}")
    _, places = approach(error)
    told = [p for p in places if getattr(p, quantity) > limit]
    assert told and max(p.part_of(limits) for p in places) > 1
    assert any(re.search(words, p.words) for p in told), told[-1].words


def test_a_knock_on_the_way_is_told_when_it_comes() -> None:
    """8 mm beside its axis, from the middle on, without a turn of the hand."""
    _, places = approach(moved(x=0.008), at=0.5, turn_deg=0.0)
    told = [k for k, p in enumerate(places) if p.shift_m > Limits().max_camera_shift_m]
    assert told and min(told) >= 37
    assert "jumped" in places[told[0]].words


def test_without_a_table_in_sight_nothing_is_said() -> None:
    watch = CameraWatch(CAMERA, MOUNT)
    nothing, view = np.zeros((180, 240), np.float32), np.zeros((64, 64), np.float32)
    for k in range(20):
        place = watch.look(nothing, view, top_down(0, 0, 0.3, 0), k * 10**8)
    assert place.part_of(Limits()) == 0


def test_a_look_is_due_by_time_and_not_by_cycle() -> None:
    watch = CameraWatch(CAMERA, MOUNT)
    depth = scene_depth(top_down(0, 0, 0.3, 0) @ MOUNT)
    view = close_gaps(Reprojector(CAMERA, MOUNT)(depth))
    watch.look(depth, view, top_down(0, 0, 0.3, 0), 0)
    assert not watch.due(10**6) and watch.due(10**9)


SITUATION = CycleState(
    Limits(),
    1 / 30,
    np.zeros(4),
    np.zeros(4),
    view_filled=1.0,
    place=CameraPlace(tilt_deg=1.2, words="tilted"),
)


def test_the_cell_chooses_the_action() -> None:
    for action, raised in (("hold", Hold), ("stop", Stop), ("auto", Hold)):
        with pytest.raises(raised, match=r"camera_moved: 2 of its limit.*\(tilted\).*Calibrate"):
            Guard(Limits(camera_moved=action)).check("view", 3, SITUATION)
    with pytest.raises(ValueError, match="camera_moved = 'perhaps' must be one of auto, warn"):
        Limits(camera_moved="perhaps")
    assert not Guard(Limits(camera_moved="off")).watches_camera


def test_a_warning_is_recorded_once_until_it_is_over() -> None:
    guard = Guard(simulated=True)
    for cycle in range(5):
        guard.check("view", cycle, SITUATION)
    assert guard.counts == {"camera_moved": 1}
    event = guard.events[-1]
    assert event["action"] == Action.WARN and event["cycle"] == 0 and "tilted" in event["said"]
    guard.check("view", 5, replace(SITUATION, place=CameraPlace()))
    guard.check("view", 6, SITUATION)
    assert guard.counts == {"camera_moved": 2}
