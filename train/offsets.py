"""Sampling of offsets and their distance to the nearest true grasp, in plain NumPy.

A label is the distance from an offset to the nearest true grasp of the scene (rt.pose.grasp_distance).
`nearest_grasp` here is for validation and the oracle of the two that training uses (train.batches on
the CPU, train.device_batches on a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rt.pose import METRES_PER_RADIAN, to_view
from sim.dataset.store import Split

REACH_M = 0.10
"""Offsets lie within +-0.10 m: what a 70 degree view covers half way down (0.15 * tan 35 deg)."""

NEAR_M = 0.05
"""Offsets this close to the hand count as near: the controller's candidates are among them."""

Offsets = Literal["mixed", "uniform", "fixed"]
"""mixed: fresh ones, part uniform in the view, part near the hand, part near true grasps; uniform:
fresh ones, uniform in the view; fixed: uniform in the view, drawn once for each image (the paper)."""


OFFSETS = 16
"""Offsets of each kind on each validation image."""

FIXED_STREAM = 3
"""Of the random numbers of the paper's fixed offsets; train.batches uses others."""


@dataclass(frozen=True)
class BatchOptions:
    """Distribution of the mixed offsets and of the views of a batch."""

    uniform_share: float = 0.5
    """Share of mixed offsets drawn uniformly in the view, 0 to 1."""
    near_share: float = 0.25
    """Share of mixed offsets drawn near the hand; what is left is drawn near true grasps."""
    near_sigma_m: float = 0.03
    """Spread of x and y of the offsets near the hand, m; their theta is uniform."""
    grasp_sigma_m: float = 0.015
    """Spread of x and y about a random true grasp within reach, m."""
    grasp_sigma_deg: float = 15.0
    """Spread of theta about a random true grasp within reach, degrees."""
    symmetry: bool = True
    """Turn and mirror views by the 8 symmetries of the square; exact for views without a direction."""
    depth_noise_m: float = 0.001
    """Standard deviation of the noise added to every depth, m."""
    depth_dropout: float = 0.002
    """Share of pixels set to no return."""

    def __post_init__(self) -> None:
        shares = (self.uniform_share, self.near_share, self.uniform_share + self.near_share)
        if not all(0 <= s <= 1 for s in shares):
            raise ValueError(
                f"uniform share {self.uniform_share} and near share {self.near_share} "
                "must be 0 or more and sum to 1 at most"
            )
        for name in ("near_sigma_m", "grasp_sigma_m", "grasp_sigma_deg", "depth_noise_m"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more")
        if not 0 <= self.depth_dropout < 1:
            raise ValueError(f"depth dropout {self.depth_dropout} must be in [0, 1)")


def uniform_offsets(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Offsets (*shape, 3) uniform in the view: x, y within REACH_M, theta in [-pi/2, pi/2)."""
    unit = rng.random((*shape, 3), dtype=np.float32) * 2 - 1
    return unit * np.array([REACH_M, REACH_M, np.pi / 2], dtype=np.float32)


def near_offsets(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Offsets (*shape, 3) uniform in the disc of NEAR_M about the hand, theta in [-pi/2, pi/2)."""
    actions = uniform_offsets(shape, rng)
    radius = NEAR_M * np.sqrt(rng.random(shape, dtype=np.float32))
    angle = rng.uniform(0, 2 * np.pi, shape)
    actions[..., 0], actions[..., 1] = radius * np.cos(angle), radius * np.sin(angle)
    return actions


def fixed_offsets(images: NDArray[np.int64], count: int, seed: int) -> NDArray[np.float32]:
    """The paper's offsets (B, K, 3): uniform, drawn once for every image and seed."""
    return np.stack(
        [
            uniform_offsets((count,), np.random.default_rng([seed, FIXED_STREAM, int(i)]))
            for i in images
        ]
    )


def mixed_offsets(
    split: Split,
    images: NDArray[np.int64],
    count: int,
    options: BatchOptions,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Offsets (B, K, 3): first uniform ones, then near the hand, then near true grasps within reach.

    A controller asks near its hand, and has to tell apart candidates near a grasp, where the distance
    has its sharp minimum; uniform offsets alone put one in a hundred there.
    """
    actions = uniform_offsets((len(images), count), rng)
    a = round(count * options.uniform_share)
    b = min(count, a + round(count * options.near_share))
    near = actions[:, a:b, :2]
    near[:] = rng.standard_normal(near.shape, dtype=np.float32) * options.near_sigma_m
    if b < count:
        grasps = random_grasps_in_reach(split, images, count - b, rng)
        sigma = [options.grasp_sigma_m] * 2 + [np.radians(options.grasp_sigma_deg)]
        jitter = rng.standard_normal(grasps.shape, dtype=np.float32) * np.array(sigma, np.float32)
        # Where no grasp is within reach the uniform offset stands.
        actions[:, b:] = np.where(np.isnan(grasps), actions[:, b:], grasps + jitter)
    return actions


def random_grasps_in_reach(
    split: Split,
    images: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
    reach_m: float = REACH_M,
) -> NDArray[np.float32]:
    """`count` of each image's true grasps within reach of the hand, (B, count, 3) in its view.

    Draws four times as many of the scene's grasps and keeps the first within reach; NaN where fewer are.
    """
    scenes = images // split.views
    start, end = split.grasp_start[scenes], split.grasp_start[scenes + 1]
    picks = rng.integers(start[:, None], end[:, None], (len(images), 4 * count))
    x, y, _, yaw = np.moveaxis(split.grasps[picks][..., :4], -1, 0)
    hx, hy, _, hyaw = split.camera[images].T[:, :, None]
    dx, dy, c, s = x - hx, y - hy, np.cos(hyaw), np.sin(hyaw)
    found = np.stack([dx * c + dy * s, dx * s - dy * c, hyaw - yaw], axis=-1)  # rt.pose.to_view
    out_of_reach = np.abs(found[..., :2]).max(-1) > reach_m
    found[out_of_reach] = np.nan
    first = np.argsort(out_of_reach, axis=1, kind="stable")[:, :count, None]
    return np.take_along_axis(found, first, axis=1).astype(np.float32, copy=False)


def nearest_grasp(
    split: Split, images: NDArray[np.int64], actions: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances (B, K) in metres from actions (B, K, 3) of images (B,) to the nearest true grasp,
    and which it is: rows (B, K) of split.grasps."""
    distance = np.empty(actions.shape[:2], np.float32)
    row = np.empty(actions.shape[:2], np.int64)
    for i, image in enumerate(images):
        start, end = split.grasp_start[image // split.views :][:2]
        grasps = to_view(split.grasps[start:end, :4].astype(np.float64), split.camera[image])
        d = actions[i][:, None] - grasps.astype(np.float32)
        d[..., 2] -= np.float32(np.pi) * np.rint(d[..., 2] / np.float32(np.pi))
        d[..., 2] *= np.float32(METRES_PER_RADIAN)
        squared = np.einsum("kgi,kgi->kg", d, d)
        nearest = squared.argmin(1)
        row[i] = start + nearest
        distance[i] = np.sqrt(squared[np.arange(len(nearest)), nearest])
    return distance, row


def apply_symmetry(
    depth: NDArray[np.float32], actions: NDArray[np.float32], kinds: NDArray[np.integer]
) -> None:
    """Turn views (B, 64, 64) and actions (B, K, 3) together, in place, by one of 8 symmetries each.

    Bits of a kind: 1 swaps x and y (transposes), 2 mirrors x, 4 mirrors y, in this order. Exact,
    because the canonical camera is centred, square and fixed to the hand, and a distance does not
    change when grasp and action turn together.
    """
    for bit, flip in ((1, np.s_[:, :, :]), (2, np.s_[:, :, ::-1]), (4, np.s_[:, ::-1, :])):
        chosen = np.flatnonzero(kinds & bit)
        a = actions[chosen]
        if bit == 1:
            depth[chosen] = depth[chosen].transpose(0, 2, 1)
            a = np.stack([a[..., 1], a[..., 0], np.float32(np.pi / 2) - a[..., 2]], axis=-1)
        else:
            depth[chosen] = depth[chosen][flip]
            a *= np.array([-1, 1, -1] if bit == 2 else [1, -1, -1], np.float32)
        actions[chosen] = a
    theta = actions[..., 2]
    theta -= np.float32(np.pi) * np.floor(theta / np.float32(np.pi) + np.float32(0.5))
