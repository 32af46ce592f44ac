"""rt.camera: pixel rays, with and without distortion."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import needed

from rt.camera import CameraError, Intrinsics, StaleFrameError, distort
from rt.camera.realsense import find_device
from rt.camera.stream import depth_unit_m

CAMERA = {
    "width_px": 64,
    "height_px": 48,
    "fx_px": 60.0,
    "fy_px": 58.0,
    "cx_px": 30.5,
    "cy_px": 25.0,
}
coefficients = st.tuples(*[st.floats(-0.15, 0.15)] * 2, *[st.floats(-0.01, 0.01)] * 2)


def test_a_pixel_is_seen_along_its_ray() -> None:
    rays = Intrinsics(**CAMERA).rays()  # type: ignore[arg-type]
    assert rays.shape == (48, 64, 3) and rays.dtype == np.float32
    u, v = np.meshgrid(np.arange(64), np.arange(48))
    np.testing.assert_allclose(rays[..., 0] * 60 + 30.5, u, atol=1e-4)
    np.testing.assert_allclose(rays[..., 1] * 58 + 25, v, atol=1e-4)
    np.testing.assert_array_equal(rays[..., 2], 1)


@given(coefficients, st.floats(-0.05, 0.05))
@settings(deadline=None)
def test_the_bent_ray_is_seen_at_its_pixel(k: tuple[float, ...], k3: float) -> None:
    camera = Intrinsics(**CAMERA, distortion=(*k, k3))  # type: ignore[arg-type]
    rays = camera.rays().astype(np.float64)
    x, y = distort(rays[..., 0], rays[..., 1], camera.distortion)
    u, v = np.meshgrid(np.arange(64), np.arange(48))
    np.testing.assert_allclose(x * 60 + 30.5, u, atol=2e-3)
    np.testing.assert_allclose(y * 58 + 25, v, atol=2e-3)


@given(coefficients)
@settings(deadline=None)
def test_the_two_models_act_in_opposite_ways(k: tuple[float, ...]) -> None:
    there = Intrinsics(**CAMERA, distortion=k, distortion_model="inverse_brown_conrady")  # type: ignore[arg-type]
    plain = Intrinsics(**CAMERA).rays().astype(np.float64)  # type: ignore[arg-type]
    x, y = distort(plain[..., 0], plain[..., 1], k)
    np.testing.assert_allclose(there.rays()[..., 0], x, atol=1e-6)
    np.testing.assert_allclose(there.rays()[..., 1], y, atol=1e-6)


def test_rays_agree_with_opencv() -> None:
    cv2 = needed("calib", "cv2")
    k = (-0.12, 0.05, 0.001, -0.002, 0.01)
    camera = Intrinsics(**CAMERA, distortion=k)  # type: ignore[arg-type]
    K = np.array([[60, 0, 30.5], [0, 58, 25], [0, 0, 1.0]])
    pixels = np.stack(np.meshgrid(np.arange(64.0), np.arange(48.0)), axis=-1).reshape(-1, 1, 2)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-10)
    true = cv2.undistortPointsIter(pixels, K, np.array(k), None, None, stop).reshape(48, 64, 2)
    np.testing.assert_allclose(camera.rays()[..., :2], true, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx_px": 0.0}, "above 0"),
        ({"width_px": 0}, "above 0"),
        ({"cx_px": float("nan")}, "finite"),
        ({"distortion": (0.1, 0.2)}, "coefficients"),
        ({"distortion_model": "kannala_brandt4"}, "not known"),
    ],
)
def test_impossible_intrinsics_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        Intrinsics(**{**CAMERA, **change})  # type: ignore[arg-type]


def test_distortion_without_an_inverse_is_refused() -> None:
    with pytest.raises(CameraError, match="calibrate"):
        Intrinsics(**CAMERA, distortion=(-3.0, 0, 0, 0)).rays()  # type: ignore[arg-type]


def test_a_stale_frame_tells_its_age() -> None:
    error = StaleFrameError(0.2, 0.15)
    assert error.age_s == 0.2 and "200 ms" in str(error) and "150 ms" in str(error)


class _Devices:
    """Of the library: what `find_device` and `depth_unit_m` ask."""

    def __init__(self, *serials: str, unit_m: float = 1e-3) -> None:
        self.serials, self.unit_m = serials, unit_m
        self.camera_info = SimpleNamespace(serial_number="serial_number")
        self.option = SimpleNamespace(depth_units="depth_units")

    def query_devices(self) -> list[Any]:
        return [
            SimpleNamespace(supports=lambda _: True, get_info=lambda _, s=s: s)
            for s in self.serials
        ]

    def get_option(self, _: str) -> float:
        return self.unit_m


def test_of_two_cameras_one_must_be_chosen() -> None:
    two = _Devices("111", "222")
    with pytest.raises(CameraError, match=r"2 RealSense cameras.*serial.*111, 222"):
        find_device(two, two, None)
    assert find_device(two, two, "222").get_info("") == "222"
    one = _Devices("111")
    assert find_device(one, one, None).get_info("") == "111"


@pytest.mark.parametrize("unit_m", [0.0, -0.001, float("nan")])
def test_a_depth_unit_that_is_not_positive_is_named(unit_m: float) -> None:
    device = _Devices(unit_m=unit_m)
    with pytest.raises(CameraError, match=f"depth unit of {unit_m:g} m"):
        depth_unit_m(device, device)
    assert depth_unit_m(_Devices(), _Devices()) == 1e-3
