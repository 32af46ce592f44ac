"""rt.view: depth of any camera in the canonical view; the native kernel equals its NumPy twin."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import NO_NATIVE
from numpy.typing import NDArray

import rt.view
from rt.camera import Intrinsics
from rt.controller import symmetry
from rt.view import VIEW, Reprojector, View, ViewError, close_gaps, reproject

needs_native = pytest.mark.skipif(rt.view.native is None, reason=NO_NATIVE)


def rotation(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Rotation by angles [rad] about x, then y, then z."""
    cx, sx, cy, sy, cz, sz = *cos_sin(x), *cos_sin(y), *cos_sin(z)
    Rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    Ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    Rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return Rz @ Ry @ Rx


def cos_sin(angle: float) -> tuple[float, float]:
    return float(np.cos(angle)), float(np.sin(angle))


def mount(
    turn: tuple[float, float, float] = (0, 0, 0), at: tuple[float, float, float] = (0, 0, 0)
) -> NDArray[np.float64]:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation(*turn), at
    return T


def plane_depth(
    rays: NDArray[np.float32],
    T_view_camera: NDArray[np.float64],
    normal: NDArray[np.float64],
    offset: float,
) -> NDArray[np.float32]:
    """Depth of the plane normal . p = offset (in the view) along a camera's rays."""
    R, t = T_view_camera[:3, :3], T_view_camera[:3, 3]
    along = rays.astype(np.float64) @ (R.T @ normal)
    depth = (offset - normal @ t) / along
    return np.where(depth > 0, depth, 0).astype(np.float32)


small = st.builds(
    Intrinsics,
    width_px=st.integers(1, 90),
    height_px=st.integers(1, 70),
    fx_px=st.floats(10, 200),
    fy_px=st.floats(10, 200),
    cx_px=st.floats(-5, 90),
    cy_px=st.floats(-5, 70),
)
mounts = st.builds(
    mount,
    st.tuples(*[st.floats(-0.8, 0.8)] * 3),
    st.tuples(*[st.floats(-0.1, 0.1)] * 3),
)


@given(st.integers(0, 1000))
def test_the_view_itself_gives_back_the_same_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(VIEW.near_m, VIEW.far_m, (64, 64)).astype(np.float32)
    depth = np.clip(depth, np.float32(0.011), np.float32(0.599))
    depth[rng.random(depth.shape) < 0.2] = 0
    np.testing.assert_array_equal(reproject(depth, VIEW.intrinsics, np.eye(4)), depth)


def test_its_own_intrinsics_have_its_own_rays() -> None:
    np.testing.assert_array_equal(VIEW.intrinsics.rays(), VIEW.rays())


@needs_native
@settings(deadline=None)
@given(
    small,
    mounts,
    st.integers(0, 2**32),
    st.sampled_from([64, 1, 7, 300]),
    st.sampled_from(rt.view.native.view_isas() if rt.view.native else [""]),
)
def test_native_equals_numpy_bit_by_bit(
    intrinsics: Intrinsics, T: NDArray[np.float64], seed: int, size: int, isa: str
) -> None:
    rng = np.random.default_rng(seed)
    shape = (intrinsics.height_px, intrinsics.width_px)
    depth = rng.uniform(0.0, 0.7, shape).astype(np.float32)
    bad = np.array([0, -1, np.nan, np.inf, -np.inf, 1e-30, 1e30, 65.535], np.float32)
    spoiled = rng.random(shape) < 0.2
    depth[spoiled] = rng.choice(bad, spoiled.sum())
    reprojector = Reprojector(intrinsics, T, View(size_px=size), isa=isa)
    fast = reprojector(depth)
    native = rt.view.native
    try:
        rt.view.native = None
        plain = reprojector(depth)
    finally:
        rt.view.native = native
    np.testing.assert_array_equal(fast.view(np.uint32), plain.view(np.uint32))


@given(
    st.tuples(*[st.floats(-0.35, 0.35)] * 2, st.floats(-3, 3)),
    st.tuples(*[st.floats(-0.05, 0.05)] * 2, st.floats(-0.12, 0.0)),
    st.tuples(*[st.floats(-0.3, 0.3)] * 2),
    st.sampled_from([(640, 480, 380.0), (424, 240, 214.0), (64, 64, 45.7), (40, 40, 24.0)]),
)
@settings(deadline=None, max_examples=60)
def test_a_plane_has_the_right_depth_wherever_the_camera_sits(
    turn: tuple[float, float, float],
    at: tuple[float, float, float],
    slope: tuple[float, float],
    camera: tuple[int, int, float],
) -> None:
    width, height, focal = camera
    intrinsics = Intrinsics(width, height, focal, focal, width / 2 - 0.5, height / 2 - 0.5)
    T = mount(turn, at)
    normal = np.array([*slope, 1.0])
    offset = 0.25
    source = plane_depth(intrinsics.rays(), T, normal, offset)
    seen = reproject(source, intrinsics, T)
    true = plane_depth(VIEW.rays(), np.eye(4), normal, offset)
    both = seen > 0
    assert both.any()
    # A splat is at most one and a half source pixels wide and slanted footprints are boxed: the depth
    # is that of a point within two source pixels (or half a view pixel) of the ray.
    reach_px = max(2.0 * VIEW.focal_px / focal * float((source.max() + 0.15) / 0.15), 0.75)
    per_px = (abs(slope[0]) + abs(slope[1])) * true / VIEW.focal_px
    within = reach_px * per_px / (1 - 0.7 * (abs(slope[0]) + abs(slope[1]))) + 1e-5
    assert (np.abs(seen - true) <= within)[both].all()


@pytest.mark.parametrize("focal", [15.0, 24.0, 45.7, 100.0, 380.0])
@pytest.mark.parametrize("yaw", [0.0, 0.4, np.pi / 4, 2.0])
@pytest.mark.parametrize("tilt", [0.0, 0.25, 0.5])
def test_a_surface_in_full_sight_has_no_holes(focal: float, yaw: float, tilt: float) -> None:
    side = int(4.0 * focal) + 2
    intrinsics = Intrinsics(side, side, focal, focal, side / 2 - 0.5, side / 2 - 0.5)
    T = mount((tilt, 0, yaw), (0, -0.05 if tilt else 0, -0.05))
    source = plane_depth(intrinsics.rays(), T, np.array([0, 0, 1.0]), 0.25)
    seen = reproject(source, intrinsics, T)
    points = (0.25 * VIEW.rays() - T[:3, 3]) @ T[:3, :3]  # what the view sees, in the camera
    pixel = points[..., :2] / points[..., 2:] * focal + side / 2 - 0.5
    in_sight = ((pixel >= 0) & (pixel <= side - 1)).all(axis=-1)
    assert in_sight.mean() > 0.9
    assert (seen[in_sight] > 0).all()


def test_the_nearest_wins() -> None:
    """Two cameras' worth of returns on the same ray: a sheet at 0.2 m before a wall at 0.4 m."""
    intrinsics = Intrinsics(128, 64, 45.7, 45.7, 31.5, 31.5)
    depth = np.full((64, 128), 0.4, np.float32)
    depth[20:40, 20:40] = 0.2
    seen = reproject(depth, intrinsics, mount(at=(0.1, 0, 0)))
    u = np.argwhere(seen[30] == np.float32(0.2)).ravel()
    # f * 0.1 / 0.2 = 22.85 px further right than in the camera, and all 20 columns of it
    assert u.min() in (42, 43) and u.max() == 62
    hidden = seen[seen > 0.21]
    np.testing.assert_allclose(hidden, 0.4, rtol=1e-6)


def test_what_is_hidden_from_the_camera_is_a_hole() -> None:
    """A box before a wall throws a shadow for a camera that sits to the side; it is not filled."""
    intrinsics = Intrinsics(128, 64, 45.7, 45.7, 63.5, 31.5)
    depth = np.full((64, 128), 0.4, np.float32)
    depth[20:40, 50:70] = 0.2
    seen = reproject(depth, intrinsics, mount(at=(0.05, 0, 0)))
    assert (seen[21:39] == 0).sum(axis=1).min() >= 4
    assert (seen[:18] > 0).all()


def test_near_and_far_end_the_view() -> None:
    rays = VIEW.intrinsics
    for depth, kept in ((0.009, False), (0.02, True), (0.59, True), (0.61, False)):
        seen = reproject(np.full((64, 64), depth, np.float32), rays, np.eye(4))
        assert (seen > 0).all() == kept and (seen > 0).any() == kept


@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_what_is_no_depth_is_no_return(nothing: float) -> None:
    depth = np.full((64, 64), nothing, np.float32)
    np.testing.assert_array_equal(reproject(depth, VIEW.intrinsics, mount((0.1, 0, 0))), 0)


def test_noise_on_a_fine_image_does_not_bring_the_surface_nearer() -> None:
    """The least of all the returns in a view pixel would lie 2.4 sigma too near."""
    intrinsics = Intrinsics(640, 480, 380.0, 380.0, 319.5, 239.5)
    sigma = 0.002
    noise = np.random.default_rng(0).normal(0, sigma, (480, 640))
    seen = reproject((0.3 + noise).astype(np.float32), intrinsics, np.eye(4))
    assert abs(seen[seen > 0].mean() - 0.3) < sigma


def closed_naively(view: NDArray[np.float32]) -> NDArray[np.float32]:
    for _ in range(2):
        before, view = view, view.copy()
        for v, u in np.argwhere(before == 0):
            block = before[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
            seen = sorted(block[block > 0])
            if len(seen) >= 4:
                view[v, u] = seen[(len(seen) - 1) // 2]
    return view


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.9, 1.0]), st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_small_gaps_are_closed_with_what_is_beside_them(seed: int, lost: float, turn: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.uniform(0.1, 0.3, (32, 32)).astype(np.float32)
    view = np.where(rng.random(whole.shape) < lost, np.float32(0), whole)
    given = view.copy()
    closed = close_gaps(view)
    np.testing.assert_array_equal(view, given)
    np.testing.assert_array_equal(closed, closed_naively(view))
    np.testing.assert_array_equal(closed[view > 0], view[view > 0])
    assert closed.dtype == np.float32
    no_actions = np.zeros((0, 3), np.float32)
    turned, _ = symmetry(turn, view, no_actions)
    np.testing.assert_array_equal(close_gaps(turned), symmetry(turn, closed, no_actions)[0])


def test_a_wide_hole_stays_a_hole() -> None:
    view = np.full((64, 64), 0.3, np.float32)
    view[20:40, 10:30] = 0
    closed = close_gaps(view)
    rounded = (closed > 0) & (view == 0)
    assert rounded.sum() == 12 and not closed[21:39, 13:27].any()
    assert (closed[rounded] == np.float32(0.3)).all()


def test_a_frame_of_another_shape_or_type_is_refused() -> None:
    reprojector = Reprojector(VIEW.intrinsics, np.eye(4))
    with pytest.raises(ViewError, match=r"\(48, 64\)"):
        reprojector(np.zeros((48, 64), np.float32))
    with pytest.raises(ViewError, match="uint16"):
        reprojector(np.zeros((64, 64), np.uint16))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [np.eye(3), 2 * np.eye(4), np.diag([1.0, 1, -1, 1]), np.full((4, 4), np.nan)]
)
def test_a_mount_that_is_not_rigid_is_refused(bad: NDArray[np.float64]) -> None:
    with pytest.raises(ViewError, match="rigid"):
        Reprojector(VIEW.intrinsics, bad)


def test_strided_depth_is_understood() -> None:
    depth = np.random.default_rng(0).uniform(0.1, 0.5, (64, 128)).astype(np.float32)
    reprojector = Reprojector(VIEW.intrinsics, np.eye(4))
    np.testing.assert_array_equal(reprojector(depth[:, ::2]), depth[:, ::2])


@needs_native
def test_the_interpreter_is_free_meanwhile() -> None:
    """Another thread counts on while one call works on a large image."""
    intrinsics = Intrinsics(2000, 2000, 900.0, 900.0, 999.5, 999.5)
    reprojector = Reprojector(intrinsics, mount((0.3, 0, 0.3)))
    depth = np.full((2000, 2000), 0.3, np.float32)
    inside, counted = threading.Event(), []

    def work() -> None:
        inside.set()
        for _ in range(5):
            reprojector(depth)
        inside.clear()

    thread = threading.Thread(target=work)
    before = time.get_clock_info(
        "monotonic"
    ).resolution  # the clock is read at least once a ms below
    assert before < 1e-3
    thread.start()
    inside.wait()
    while inside.is_set():
        counted.append(time.monotonic())
        time.sleep(0.001)
    thread.join()
    # Holding the lock, five calls would let this thread in five times or so.
    assert len(counted) > 10


@needs_native
def test_rays_that_cannot_touch_the_view_are_left_out() -> None:
    """Of a camera twice as wide as the view, most; and what is left out changes nothing (above)."""
    wide = Intrinsics(128, 128, VIEW.focal_px / 2, VIEW.focal_px / 2, 63.5, 63.5)
    spans = Reprojector(wide, np.eye(4))._spans
    assert (spans[:, 1] - spans[:, 0]).sum() < 0.5 * 128 * 128
    away = Reprojector(wide, mount((np.pi, 0, 0)))._spans  # looks back
    assert (away[:, 1] - away[:, 0] >= 0).all()


@needs_native
def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match="instruction set 'mmx'"):
        Reprojector(VIEW.intrinsics, np.eye(4), isa="mmx")(np.zeros((64, 64), np.float32))
