"""The sensor model against what is known of it: its noise law, its shadows, its angles."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import NO_NATIVE

from rt.camera import Intrinsics
from rt.native import native
from sim.scene import sensor as sensor_module
from sim.scene.sensor import (
    SENSORS,
    Sensor,
    SensorError,
    grazing_cosine,
    observe,
    sensor,
    shadowed,
)

CAMERA = Intrinsics(96, 64, 80.0, 80.0, 47.5, 31.5)
REAL = ("d405", "d435", "sr300")


def clean(name: str, **changes: float) -> Sensor:
    """A preset that only has what is asked for."""
    none = dict.fromkeys(
        ("subpixel_px", "disparity_step_px", "depth_unit_m", "lateral_px", "patches", "dropout"),
        0.0,
    )
    return Sensor(**{**vars(SENSORS[name]), **none, "grazing_deg": 90.0, **changes})


def plane(normal: tuple[float, float, float], distance_m: float) -> np.ndarray:
    """Exact depth of the plane normal . p = distance."""
    cosine = CAMERA.rays().astype(np.float64) @ np.array(normal)
    return np.where(cosine > 0, distance_m / cosine, 0).astype(np.float32)


def test_the_ideal_sensor_changes_nothing() -> None:
    depth = plane((0.1, 0.2, 1.0), 0.3)
    seen = observe(sensor("ideal"), depth, CAMERA, np.random.default_rng(0))
    np.testing.assert_array_equal(seen, depth)


@pytest.mark.parametrize("name", REAL)
def test_noise_grows_with_the_square_of_depth(name: str) -> None:
    kind = clean(name, subpixel_px=SENSORS[name].subpixel_px, baseline_m=SENSORS[name].baseline_m)
    spread = []
    for z in (0.25, 0.5):
        depth = np.full((40, 64, 96), z, np.float32)
        seen = observe(kind, depth, CAMERA, np.random.default_rng(1))
        spread.append(seen[seen > 0].std())
        assert spread[-1] == pytest.approx(kind.noise_m(z), rel=0.05)
    assert spread[1] / spread[0] == pytest.approx(4, rel=0.1)


def test_a_step_casts_the_shadow_that_geometry_says() -> None:
    """A near half plane right of a far one hides fB (1/near - 1/far) columns left of it."""
    depth = np.full((4, 96), 0.5, np.float32)
    depth[:, 48:] = 0.25
    fB = 80 * 0.05
    hidden = shadowed(depth, fB)
    width = fB * (1 / 0.25 - 1 / 0.5)
    band = fB / 0.5  # out of the second image's sight
    assert hidden[:, : int(band)].all()
    inner = hidden[0, int(band) :]
    assert inner.sum() == pytest.approx(width, abs=1)
    assert inner[47 - int(band)] and not inner[48 - int(band) :].any()


def test_shadow_against_every_pair_of_points() -> None:
    rng = np.random.default_rng(3)
    depth = rng.uniform(0.2, 0.5, (8, 40)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    hidden = shadowed(depth, 3.0, first_column=20)
    for row, marks in zip(depth, hidden, strict=True):
        other = [u - np.float32(3) / z if z > 0 else np.inf for u, z in enumerate(row)]
        for u, place in enumerate(other):
            if row[u] > 0:
                expected = place < -20 or any(place > q for q in other[u + 1 :])
                assert marks[u] == expected


@given(st.floats(-60, 60), st.floats(0, 2 * np.pi))
@settings(max_examples=30, deadline=None)
def test_the_angle_to_a_plane_is_exact(tilt_deg: float, about: float) -> None:
    t = np.radians(tilt_deg) / 2.2
    n = np.array([np.sin(t) * np.cos(about), np.sin(t) * np.sin(about), np.cos(t)])
    depth = plane(tuple(n), 0.3)
    rays = CAMERA.rays().astype(np.float64)
    true = (rays @ n) / np.linalg.norm(rays, axis=-1)
    # Differences of neighbours stand for slopes: off by half a pixel's curvature of the logarithm.
    np.testing.assert_allclose(grazing_cosine(depth, CAMERA), true, atol=0.02)


@pytest.mark.parametrize("name", REAL)
def test_a_preset_loses_what_is_too_near_and_keeps_most_of_a_table(name: str) -> None:
    kind = SENSORS[name]
    near = np.full((64, 96), kind.near_m * 0.8, np.float32)
    assert not observe(kind, near, CAMERA, np.random.default_rng(0)).any()
    table = plane((0.0, 0.2, 1.0), 0.32)
    seen = observe(kind, table, CAMERA, np.random.default_rng(0), first_column=100)
    assert 0.9 < (seen > 0).mean() < 1
    error = np.abs(seen - table)[seen > 0]
    assert np.median(error) < 3 * kind.noise_m(0.32) + kind.depth_unit_m
    steps = seen[seen > 0] / kind.depth_unit_m
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-2)


def test_patches_and_dropout_take_their_share() -> None:
    depth = np.full((30, 64, 96), 0.4, np.float32)
    for changes in ({"patches": 0.1}, {"dropout": 0.1}):
        kind = clean("ideal", **changes)
        lost = observe(kind, depth, CAMERA, np.random.default_rng(5)) == 0
        assert lost.mean() == pytest.approx(0.1, abs=0.02)


def test_the_same_chance_gives_the_same_image() -> None:
    depth = plane((0.1, 0.1, 1.0), 0.3)
    a, b = (observe(SENSORS["d405"], depth, CAMERA, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_refusals_name_the_remedy() -> None:
    with pytest.raises(SensorError, match="d405"):
        sensor("kinect")
    with pytest.raises(SensorError, match="intrinsics"):
        observe(SENSORS["d405"], np.zeros((2, 2), np.float32), CAMERA, np.random.default_rng(0))


@pytest.mark.skipif(native is None, reason=NO_NATIVE)
@pytest.mark.parametrize("name", SENSORS)
def test_the_kernel_agrees_with_its_twin_bit_by_bit(name: str) -> None:
    rng = np.random.default_rng(11)
    depth = rng.uniform(0.2, 0.5, (3, 64, 96)).astype(np.float32)
    depth[:, 20:50] = plane((0.1, 0.4, 1.0), 0.3)[20:50]
    depth[rng.random(depth.shape) < 0.05] = 0
    kernel, twin = [], []
    for seen, module in ((kernel, native), (twin, None)):
        with patch.object(sensor_module, "native", module):
            chance = np.random.default_rng(1)
            seen.append(observe(SENSORS[name], depth, CAMERA, chance, scale=1.003, first_column=40))
    np.testing.assert_array_equal(kernel[0], twin[0])
    assert 0.1 < (kernel[0] > 0).mean() < 1
