"""A model of depth cameras: noise, quantisation, holes and shadows applied to exact depth.

A model of triangulating sensors (two imagers, or a projector and an imager, a baseline apart along the
image's rows), stated in the sensor's own disparity, so that it holds for a camera traced at a lower
resolution than the sensor's mode: block matching makes neighbouring pixels of the sensor agree, so one
traced pixel stands for a window of them and keeps their noise.

In order: pixels at depth edges take their neighbour's depth (lateral jitter); what the second imager
cannot see is a hole (shadow), as is what it sees outside its image, what is seen at a grazing angle,
patches that did not match, and single pixels; the rest gets disparity noise, so a depth error that
grows with its square (Grunnet-Jepsen et al., "Best-known methods for tuning Intel RealSense D400 depth
cameras for best performance": RMS = z^2 * subpixel / (focal length * baseline)), is rounded to the
disparity step and to the depth unit, and scaled by the error of the sensor's calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rt.camera import Intrinsics
from rt.native import native


class SensorError(ValueError):
    """A sensor that is not known, or an image that does not fit its camera."""


@dataclass(frozen=True)
class Sensor:
    """A depth camera in one mode. `focal_px`, `subpixel_px`, `lateral_px` are in pixels of that mode."""

    name: str
    width_px: int
    height_px: int
    focal_px: float
    baseline_m: float
    """From the imager of the depth image to the other one or the projector, along +x of the image."""
    near_m: float
    far_m: float
    subpixel_px: float
    """Standard deviation of a disparity."""
    disparity_step_px: float
    """Disparities are multiples of this; 0: no rounding."""
    depth_unit_m: float
    """Depths are multiples of this; 0: no rounding."""
    lateral_px: float
    """Standard deviation of where in the image a depth comes from."""
    grazing_deg: float
    """Angle between ray and surface normal from which no depth is found (90: always found)."""
    patches: float
    """Share of the image lost in patches that did not match."""
    dropout: float
    """Share of single pixels lost."""
    scale_error: float
    """Standard deviation of a depth's relative error, one for a camera."""
    flying: float = 0.0
    """Share of the pixels at depth edges that get a depth between both sides: flying pixels."""

    @property
    def intrinsics(self) -> Intrinsics:
        """Intrinsics of the mode; the optical axis goes through the middle of the image."""
        c = (self.width_px - 1) / 2, (self.height_px - 1) / 2
        return Intrinsics(self.width_px, self.height_px, self.focal_px, self.focal_px, *c)

    def noise_m(self, depth_m: float) -> float:
        """Standard deviation of a depth, before rounding."""
        return depth_m**2 * self.subpixel_px / (self.focal_px * self.baseline_m)


SENSORS = {
    # Exact, with the field of view of a D405.
    "ideal": Sensor("ideal", 480, 270, 252.9, 0, 0, 10, 0, 0, 0, 0, 90, 0, 0, 0),
    # 87 degrees wide, 18 mm baseline, nearest depth 45 mm in this mode, depth unit 0.1 mm (vendor's
    # pages). 2% of depth at 0.5 m (data sheet) is twice what 0.1 px gives here: a well-lit scene is
    # assumed, and 0.1 px is the D400 series' rule of thumb. No projector, so what has no texture does
    # not match: the largest share of patches. Disparity in 32nds of a pixel (white paper on subpixel
    # linearity of the D400 series). Grazing angle, lateral jitter and shares are assumptions.
    "d405": Sensor(
        "d405", 480, 270, 252.9, 0.018, 0.045, 1.0, 0.10, 1 / 32, 1e-4, 0.8, 80, 0.02, 0.003, 0.004
    ),
    # 50 mm baseline, nearest depth 120 mm in this mode (data sheet), depth unit 1 mm; a projector.
    "d435": Sensor(
        "d435", 480, 270, 252.9, 0.050, 0.120, 3.0, 0.10, 1 / 32, 1e-3, 0.8, 80, 0.005, 0.003, 0.004
    ),
    # The d435 with flying pixels at a third of all edges (an assumption), for sets that are to know them.
    "d435_flying": Sensor(
        *("d435_flying", 480, 270, 252.9, 0.050, 0.120, 3.0, 0.10, 1 / 32, 1e-3, 0.8, 80),
        *(0.005, 0.003, 0.004, 0.33),
    ),
    # Coded light: a projector instead of the second imager; 71.5 degrees wide, nearest depth 0.2 m (data
    # sheet), steps of 0.125 mm (Zabatani et al., PAMI 2020). The baseline is an assumption, and the
    # disparity noise is what makes about 0.5 mm at 0.3 m with it.
    "sr300": Sensor(
        "sr300", 640, 480, 444.6, 0.025, 0.200, 1.5, 0.06, 0, 1.25e-4, 0.6, 75, 0.003, 0.005, 0.003
    ),
}
"""Presets. Numbers from a vendor or a paper name their source; the others are marked as assumptions."""

USUAL = ("ideal", "d405", "d435", "sr300")
"""The sensors of a training set and of a sweep, unless others are asked for."""

_STEPS = ndtri((np.arange(256) + 0.5) / 256)
"""The standard normal distribution in 256 equally likely numbers, for steps of whole pixels."""
_NORMAL = ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)
"""The same in 65536, for disparities: a word of chance costs a fifth of a normal number drawn."""
EDGE_M = 0.01
"""Least step of depth between neighbours that is an edge."""
_PATCH_PX = 16
"""Size of a lost patch, in pixels of the mode."""


def sensor(name: str) -> Sensor:
    """A preset by name; raises SensorError, naming those that are known."""
    if name not in SENSORS:
        raise SensorError(f"no sensor {name!r}; known are: {', '.join(SENSORS)}")
    return SENSORS[name]


def observe(
    sensor: Sensor,
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    rng: np.random.Generator,
    *,
    scale: float = 1.0,
    first_column: float = 0.0,
) -> NDArray[np.float32]:
    """The sensor's depth image for exact depth (..., H, W) float32 metres, 0 = no return; the same shape.

    `intrinsics` are those of the images, without distortion: the mode's, or coarser, or a part of them
    whose first column is `first_column` of the whole image. `scale` is the camera's own relative error
    (`scale_error` is its spread). Raises SensorError if images and intrinsics disagree.
    """
    if depth.shape[-2:] != (intrinsics.height_px, intrinsics.width_px):
        raise SensorError(
            f"depth is {depth.shape[-2:]}, the camera "
            f"{(intrinsics.height_px, intrinsics.width_px)}; give the intrinsics of these images"
        )
    ratio = intrinsics.fx_px / sensor.focal_px
    images = np.ascontiguousarray(depth, np.float32).reshape(-1, *depth.shape[-2:])
    if sensor.flying > 0:
        images = flown(images, sensor.flying, rng)
    chance = _chance(sensor, images.shape, ratio, rng)
    camera = _numbers(sensor, intrinsics, scale, first_column)
    if native is None:
        return observe_numpy(images, camera, chance).reshape(depth.shape)
    out = np.empty(images.shape, np.float32)
    native.observe(
        images,
        chance.moves,
        chance.steps,
        chance.words,
        _NORMAL,
        chance.lost,
        camera.x,
        camera.y,
        camera.numbers,
        chance.dropout,
        out,
    )
    return out.reshape(depth.shape)


@dataclass(frozen=True)
class _Chance:
    """All chance of some images; an empty array stands for none."""

    moves: NDArray[np.uint8]
    """(2 N H W,) choice of the row's step and of the column's."""
    steps: NDArray[np.int8]
    """(256,) whole pixels."""
    words: NDArray[np.uint16]
    """(2 N H W,) single pixels lost if below `dropout`; choice of the disparity's error."""
    lost: NDArray[np.uint8]
    """(N H W,) in a lost patch."""
    dropout: int


@dataclass(frozen=True)
class _Camera:
    """A sensor at the images' resolution."""

    x: NDArray[np.float32]
    """(W,) slope of each column's rays."""
    y: NDArray[np.float32]
    numbers: NDArray[np.float32]
    """(12,) in the order of rt/native/sensor.cpp: nearest and furthest depth [m], focal length times baseline
    of the shadows [px m], first column, focal lengths [px], cosine of the grazing angle, focal length
    times baseline of the disparity, the same with the camera's own error, disparity's error and step [px],
    unit [m]; 0 where a sensor has no such fault."""


def _chance(
    sensor: Sensor, shape: tuple[int, ...], ratio: float, rng: np.random.Generator
) -> _Chance:
    size = int(np.prod(shape))
    steps = np.rint(sensor.lateral_px * ratio * _STEPS).astype(np.int8)
    moves = np.frombuffer(rng.bytes(2 * size if steps.any() else 0), np.uint8)
    lost = np.zeros(0, np.uint8)
    if sensor.patches > 0:
        patches = lost_patches(shape, max(1, round(_PATCH_PX * ratio)), sensor.patches, rng)
        lost = np.ascontiguousarray(patches).view(np.uint8).reshape(-1)
    noisy = sensor.dropout > 0 or (sensor.baseline_m > 0 and sensor.subpixel_px > 0)
    words = np.frombuffer(rng.bytes(4 * size if noisy else 0), "<u2").astype(np.uint16, copy=False)
    return _Chance(moves, steps, words, lost, round(sensor.dropout * 65536))


@lru_cache(maxsize=32)
def _numbers(sensor: Sensor, intrinsics: Intrinsics, scale: float, first_column: float) -> _Camera:
    rays = intrinsics.rays()
    fB = np.float32(sensor.focal_px * sensor.baseline_m)
    grazing = np.cos(np.radians(sensor.grazing_deg)) if sensor.grazing_deg < 90 else 0.0
    numbers = np.array(
        [
            sensor.near_m,
            sensor.far_m,
            intrinsics.fx_px * sensor.baseline_m,
            first_column,
            intrinsics.fx_px,
            intrinsics.fy_px,
            grazing,
            fB,
            np.float32(scale) * fB,
            sensor.subpixel_px,
            sensor.disparity_step_px,
            sensor.depth_unit_m,
        ],
        np.float32,
    )
    return _Camera(
        np.ascontiguousarray(rays[0, :, 0]), np.ascontiguousarray(rays[:, 0, 1]), numbers
    )


def observe_numpy(
    depth: NDArray[np.float32], camera: _Camera, chance: _Chance
) -> NDArray[np.float32]:
    """The oracle of native.observe, equal to it bit by bit: float32 in the same order. depth (N, H, W)."""
    near, far, shadow, first, fx, fy, grazing, fB, scaled, subpixel, step, unit = camera.numbers
    N, H, W = depth.shape
    seen = depth
    if len(chance.moves):
        dv, du = chance.steps[chance.moves.reshape(2, N, H, W)]
        row = np.clip(np.arange(H)[:, None] + dv, 0, H - 1)
        column = np.clip(np.arange(W) + du, 0, W - 1)
        seen = depth[np.arange(N)[:, None, None], row, column]
    lost = (seen < near) | (seen > far) | (seen <= 0)
    if shadow > 0:
        lost |= shadowed(seen, shadow, first)
    if grazing > 0:
        lost |= _cosine(seen, camera.x, camera.y, fx, fy) < grazing
    if len(chance.lost):
        lost |= chance.lost.reshape(seen.shape) > 0
    noise = None
    if len(chance.words):
        drop, level = chance.words.reshape(2, N, H, W)
        lost |= drop < chance.dropout
        noise = _NORMAL[level]
    with np.errstate(divide="ignore", invalid="ignore"):
        if fB > 0:
            disparity = fB / seen
            if noise is not None:
                disparity = disparity + subpixel * noise
            if step > 0:
                disparity = np.rint(disparity / step) * step
            seen = scaled / np.maximum(disparity, np.float32(1e-3))
        if unit > 0:
            seen = np.rint(seen / unit) * unit
    return np.where(lost, np.float32(0), seen)


def shadowed(
    depth: NDArray[np.float32], fB_px_m: float, first_column: float = 0.0
) -> NDArray[np.bool_]:
    """Pixels that the second imager does not see, (..., H, W) bool, at a baseline along +x.

    A point of column u is in the second image at u - fB / z. It is hidden if a point right of it lies
    there or further left, and out of sight left of that image. Pixels without depth hide nothing.
    """
    with np.errstate(divide="ignore"):
        other = np.arange(depth.shape[-1], dtype=np.float32) - np.float32(fB_px_m) / depth
    other[depth <= 0] = np.inf
    # The least place of all points further right.
    right = np.minimum.accumulate(other[..., ::-1], axis=-1)[..., ::-1]
    hidden = np.zeros(depth.shape, dtype=np.bool_)
    hidden[..., :-1] = other[..., :-1] > right[..., 1:]
    return hidden | (other < -first_column)


def grazing_cosine(depth: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Cosine of the angle between each pixel's ray and the surface's normal there, (..., H, W).

    From differences of 1/z to the neighbours, the smaller of both sides, so that a pixel beside an edge
    counts as part of its own surface. 1/z is linear over a plane, so its angle is exact. With slopes
    a = f z_u / z and b = f z_v / z, a plane's normal is (a, b, -(1 + x a + y b)) up to length (x, y the
    ray's slopes).
    """
    rays = intrinsics.rays()
    fx, fy = np.float32(intrinsics.fx_px), np.float32(intrinsics.fy_px)
    return _cosine(depth, rays[0, :, 0], rays[:, 0, 1], fx, fy)


def _cosine(
    depth: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    fx: np.float32,
    fy: np.float32,
) -> NDArray[np.float32]:
    y, one = y[:, None], np.float32(1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = one / depth
        a = -fx * _slope(inverse, -1) / inverse
        b = -fy * _slope(inverse, -2) / inverse
        along = one + x * a + y * b
        normal = np.sqrt(a * a + b * b + along * along)
        cosine = one / (normal * np.sqrt(one + x * x + y * y))
    return np.where(np.isnan(cosine), one, cosine)


def _slope(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The smaller of the differences to both neighbours; at the border the only one."""
    step = np.diff(values, axis=axis)
    first, last = np.take(step, [0], axis=axis), np.take(step, [-1], axis=axis)
    before, after = np.concatenate([first, step], axis), np.concatenate([step, last], axis)
    return np.where(np.abs(before) < np.abs(after), before, after)


def flown(
    depth: NDArray[np.float32], share: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Depth (..., H, W) with flying pixels: a share of those beside an edge get a depth between both sides.

    A pixel or a matching window that covers both sides of an edge mixes them, in stereo (whose windows make
    edges fat) as in time of flight. An edge is a step of more than EDGE_M to the pixel on the right.
    """
    left, right = depth[..., :-1], depth[..., 1:]
    edge = (left > 0) & (right > 0) & (np.abs(left - right) > EDGE_M)
    some = edge & (rng.random(edge.shape, dtype=np.float32) < share)
    weight = rng.random(edge.shape, dtype=np.float32)
    result = depth.copy()
    result[..., :-1][some] = (weight * left + (1 - weight) * right)[some]
    return result


def lost_patches(
    shape: tuple[int, ...], size_px: int, share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Squares of that size, on a grid shifted at random, that together cover a share of the image."""
    H, W = shape[-2:]
    grid = (*shape[:-2], H // size_px + 2, W // size_px + 2)
    lost = rng.random(grid, dtype=np.float32) < share
    lost = np.repeat(np.repeat(lost, size_px, axis=-2), size_px, axis=-1)
    v, u = rng.integers(size_px, size=2)
    return lost[..., v : v + H, u : u + W]
