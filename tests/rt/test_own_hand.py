"""rt.camera.own_hand: a displaced camera is told by the open fingers in one image, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from rt.camera import Intrinsics
from rt.camera.own_hand import OwnHand, hand_depth
from rt.guard.camera_watch import CameraWatch
from rt.guard.limits import Limits
from rt.hand import load_hand
from rt.pose import top_down
from rt.view import VIEW
from sim.scene.rig import mounted

HAND, T = load_hand(), mounted(load_hand())
CAMERA = Intrinsics(199, 112, 105.0, 105.0, 99.0, 55.5)
TABLE_M = 0.3


@pytest.fixture(scope="module")
def own_hand() -> OwnHand:
    return OwnHand(CAMERA, T, HAND)


def seen(beside_m: tuple[float, float], opening_m: float = HAND.opening_m) -> np.ndarray:
    """A frame (H, W) of fingers and far table, with a camera displaced so."""
    from dataclasses import replace

    true = T.copy()
    true[:2, 3] += beside_m
    depth = hand_depth(true, CAMERA.rays(), replace(HAND, opening_m=opening_m))
    depth[depth == 0] = TABLE_M
    return depth + np.random.default_rng(0).normal(0, 3e-4, depth.shape).astype(np.float32)


@pytest.mark.parametrize("beside_m", [(0.0, 0.0), (0.005, 0.0), (0.0, -0.005), (-0.004, 0.003)])
def test_the_displacement_is_measured(own_hand: OwnHand, beside_m: tuple[float, float]) -> None:
    found = own_hand.displaced_m(seen(beside_m))
    np.testing.assert_allclose(found, beside_m, atol=8e-4)


def test_a_larger_one_is_told_as_the_largest_that_is_tried(own_hand: OwnHand) -> None:
    found = own_hand.displaced_m(seen((0.02, 0.0)))
    assert found is not None and np.linalg.norm(found) > 0.011


def test_fingers_that_are_not_seen_tell_nothing(own_hand: OwnHand) -> None:
    no_fingers = np.full((112, 199), TABLE_M, np.float32)
    assert own_hand.displaced_m(no_fingers) is None
    assert own_hand.displaced_m(np.zeros_like(no_fingers)) is None  # too near for the camera
    assert (
        OwnHand(VIEW.intrinsics, np.eye(4), HAND).displaced_m(np.ones((64, 64), np.float32)) is None
    )


@pytest.mark.parametrize(("beside_m", "told"), [(0.0, False), (0.0025, False), (0.005, True)])
def test_the_watch_tells_five_millimetres_after_a_few_looks(
    own_hand: OwnHand, beside_m: float, told: bool
) -> None:
    watch = CameraWatch(CAMERA, T, own_hand)
    view = np.full((64, 64), 0.3, np.float32)
    for k in range(8):
        place = watch.look(seen((beside_m, 0.0)), view, top_down(0, 0, 0.3, 0), round(k * 8e7))
    assert (place.shift_m > Limits().max_camera_shift_m) is told
    assert ("fingertips are seen 5" in place.words) is told
