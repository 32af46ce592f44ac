"""Rigs: the view through a mounted camera is the view traced directly, but for what the camera misses."""

import numpy as np
import pytest
from solids import box

from rt.camera.own_hand import hand_depth
from rt.hand import load_hand
from rt.pose import top_down
from rt.view import VIEW, Reprojector
from sim.scene.render import Renderer
from sim.scene.rig import MOUNT, RigView, make_rig, mounted, random_rig
from sim.scene.scene import Scene, assemble
from sim.scene.sensor import SENSORS

HAND = load_hand()
POSE = np.array([0.01, -0.02, 0.22, 0.4])


@pytest.fixture(scope="module")
def scene() -> Scene:
    thing = box((0.05, 0.08, 0.04))
    return assemble([(thing, thing.rest[0])])


def test_a_mounted_camera_looks_at_the_aim() -> None:
    for azimuth in np.linspace(-np.pi, np.pi, 9):
        T = mounted(HAND, azimuth)
        aim = np.linalg.inv(T) @ [0, 0, MOUNT.aim_m, 1]
        np.testing.assert_allclose(aim[:2], 0, atol=1e-12)
        np.testing.assert_allclose(T[:3, :3].T @ T[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(T[:3, :3]) > 0


@pytest.mark.parametrize("azimuth", [-np.pi / 2, 0.0, 2.5])
def test_the_view_through_a_perfect_camera_is_the_view(scene: Scene, azimuth: float) -> None:
    rig = make_rig(SENSORS["ideal"], mounted(HAND, azimuth))
    seen = RigView(Renderer(scene), rig, HAND)(POSE, np.random.default_rng(0))
    exact = Renderer(scene).depth(top_down(*POSE), VIEW.rays())
    there = seen > 0
    assert there.mean() > 0.6
    error = np.abs(seen - exact)[there]
    assert np.median(error) < 1e-3
    assert (error < 5e-3).mean() > 0.95  # the rest are edges, which come out wide


def test_the_window_gives_what_the_whole_image_gives(scene: Scene) -> None:
    """Cutting the image down to what the view needs loses nothing of the view."""
    T = mounted(HAND)
    rig = make_rig(SENSORS["ideal"], T)
    part = rig.intrinsics.fx_px / SENSORS["ideal"].focal_px
    mode = SENSORS["ideal"].intrinsics
    assert rig.intrinsics.width_px < mode.width_px * part
    from sim.scene.rig import _resized

    whole = _resized(mode, part)
    renderer = Renderer(scene)
    for height in (0.15, 0.30):
        T_world = top_down(0, 0, height, 0.3) @ T
        a = Reprojector(rig.intrinsics, T)(renderer.depth(T_world, rig.intrinsics.rays()))
        b = Reprojector(whole, T)(renderer.depth(T_world, whole.rays()))
        differ = np.abs(a - b) > 1e-4
        assert differ.mean() < 0.01


def test_the_fingers_hide_what_is_behind_them() -> None:
    T = mounted(HAND)
    rig = make_rig(SENSORS["ideal"], T)
    depth = hand_depth(T, rig.intrinsics.rays(), HAND)
    assert (depth > 0).any()
    v, u = np.nonzero(depth)
    rays = rig.intrinsics.rays()[v, u]
    points = depth[v, u, None] * rays @ T[:3, :3].T + T[:3, 3]
    # Every point lies on the hand's boxes, behind the fingertips: it never gets into the view.
    assert points[:, 2].max() < VIEW.near_m
    x = np.abs(points[:, 0])
    inner, outer = HAND.opening_m / 2, HAND.opening_m / 2 + HAND.finger_thickness_m
    on_finger = (x > inner - 1e-6) & (x < outer + 1e-6)
    assert (on_finger | (points[:, 2] < -HAND.finger_length_m + 1e-6)).all()


def test_rigs_are_drawn_within_their_range_and_repeat() -> None:
    names = tuple(SENSORS)
    kinds = set()
    for seed in range(40):
        rig = random_rig(names, HAND, np.random.default_rng(seed))
        again = random_rig(names, HAND, np.random.default_rng(seed))
        if rig is None:
            assert again is None
            kinds.add("ideal")
            continue
        assert again is not None
        np.testing.assert_array_equal(rig.T_hand_true, again.T_hand_true)
        kinds.add(rig.sensor.name)
        assert abs(-rig.T_hand_true[2, 3] - MOUNT.behind_m) <= MOUNT.behind_spread_m
        away = np.linalg.norm(rig.T_hand_true[:3, 3] - rig.T_hand_camera[:3, 3])
        assert 0 < away < 6 * MOUNT.calibration_m
    assert kinds == set(names)
