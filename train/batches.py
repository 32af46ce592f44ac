"""Training batches from a dataset on disk: depth views, offsets and their distances, made on the fly.

Every batch is a pure function of (seed, step), so a resumed run sees the same batches. A label is the
distance from an offset to the nearest true grasp of the scene (rt.pose.grasp_distance), so fresh
offsets cost nothing but this minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rt.pose import METRES_PER_RADIAN
from sim.dataset import Split

REACH_M = 0.10
"""Offsets lie within +-0.10 m: what a 70 degree view covers half way down (0.15 * tan 35 deg)."""

NEAR_M = 0.05
"""Offsets this close to the hand count as near: the controller's candidates are among them."""

Offsets = Literal["mixed", "uniform", "fixed"]
"""mixed: fresh ones, part uniform in the view, part near the hand, part near true grasps; uniform:
fresh ones, uniform in the view; fixed: uniform in the view, drawn once for each image (the paper)."""

_DRAW, _ORDER, _FIXED = 1, 2, 3
"""Streams of random numbers: a batch's draws, an epoch's order, the paper's fixed offsets."""


@dataclass(frozen=True)
class BatchOptions:
    """How mixed offsets and the views of a batch are drawn."""

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


@dataclass(frozen=True)
class Batch:
    """depth (B, 64, 64) m, actions (B, K, 3) of x, y [m], theta [rad], distance (B, K) m; float32."""

    depth: Tensor
    actions: Tensor
    distance: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.depth.to(device), self.actions.to(device), self.distance.to(device))


class Batches:
    """Batches of a split by step number; steps run through all images in a new order each epoch."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        offsets_per_image: int,
        seed: int,
        offsets: Offsets = "mixed",
        options: BatchOptions | None = None,
    ) -> None:
        options = options or BatchOptions()
        self.split, self.seed, self.offsets, self.options = split, seed, offsets, options
        self.batch_size = min(batch_size, len(split))
        self.offsets_per_image = offsets_per_image
        self.steps_per_epoch = len(split) // self.batch_size
        self._epoch, self._order = -1, np.empty(0, np.int64)
        rng = np.random.default_rng([seed, _FIXED])
        # Noise of an image: a random stretch of one long table, a hundredth of the cost of drawing it.
        table = rng.standard_normal(1 << 20, dtype=np.float32)
        self._noise = table * np.float32(options.depth_noise_m)

    def images(self, step: int) -> NDArray[np.int64]:
        """Image numbers (B,) of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, _ORDER, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.split))
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]

    def __call__(self, step: int) -> Batch:
        options = self.options
        rng = np.random.default_rng([self.seed, _DRAW, step])
        images = self.images(step)
        if self.offsets == "fixed":
            actions = fixed_offsets(images, self.offsets_per_image, self.seed)
        elif self.offsets == "uniform":
            actions = uniform_offsets((len(images), self.offsets_per_image), rng)
        else:
            actions = mixed_offsets(self.split, images, self.offsets_per_image, options, rng)
        distance = nearest_grasp_distance(self.split, images, actions)
        depth = self.split.depth_m(images)
        if options.symmetry:
            apply_symmetry(depth, actions, rng.integers(0, 8, len(images)))
        self._disturb(depth, rng)
        return Batch(torch.from_numpy(depth), torch.from_numpy(actions), distance)

    def _disturb(self, depth: NDArray[np.float32], rng: np.random.Generator) -> None:
        if self.options.depth_noise_m > 0:
            starts = rng.integers(0, len(self._noise) - depth[0].size, len(depth))
            for image, start in zip(depth, starts, strict=True):
                noise = self._noise[start : start + image.size].reshape(image.shape)
                image += noise * (image > 0)
        if self.options.depth_dropout > 0:
            count = rng.poisson(self.options.depth_dropout * depth.size)
            depth.reshape(-1)[rng.integers(0, depth.size, count)] = 0


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
        [uniform_offsets((count,), np.random.default_rng([seed, _FIXED, int(i)])) for i in images]
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
    split: Split, images: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """`count` of each image's true grasps within REACH_M of the hand, (B, count, 3) in its view.

    Draws four times as many of the scene's grasps and keeps the first within reach; NaN where fewer are.
    """
    scenes = images // split.views
    start, end = split.grasp_start[scenes], split.grasp_start[scenes + 1]
    picks = rng.integers(start[:, None], end[:, None], (len(images), 4 * count))
    x, y, _, yaw = np.moveaxis(split.grasps[picks][..., :4], -1, 0)
    hx, hy, _, hyaw = split.camera[images].T[:, :, None]
    dx, dy, c, s = x - hx, y - hy, np.cos(hyaw), np.sin(hyaw)
    found = np.stack([dx * c + dy * s, dx * s - dy * c, hyaw - yaw], axis=-1)  # rt.pose.to_view
    out_of_reach = np.abs(found[..., :2]).max(-1) > REACH_M
    found[out_of_reach] = np.nan
    first = np.argsort(out_of_reach, axis=1, kind="stable")[:, :count, None]
    return np.take_along_axis(found, first, axis=1).astype(np.float32, copy=False)


def nearest_grasp_distance(
    split: Split, images: NDArray[np.int64], actions: NDArray[np.float32]
) -> Tensor:
    """Distances (B, K) in metres from actions (B, K, 3) of images (B,) to the nearest true grasp.

    min over the scene's grasps of rt.pose.grasp_distance, with the offsets moved to the world (K of
    them) instead of the grasps to the view (a thousand): both frames give the same differences.
    """
    x, y, _, yaw = torch.from_numpy(split.camera[images].T[:, :, None])
    ax, ay, theta = torch.from_numpy(actions).unbind(-1)
    c, s = torch.cos(yaw), torch.sin(yaw)
    # The shift out of an action: rt.pose.top_down(x, y, z, yaw) @ rt.pose.planar(action).
    px, py, pt = x + c * ax + s * ay, y + s * ax - c * ay, (yaw - theta) / torch.pi
    grasps = torch.from_numpy(split.grasps)
    result = torch.empty(actions.shape[:2])
    metres_per_half_turn = METRES_PER_RADIAN * torch.pi
    for i, image in enumerate(images):
        scene = int(image) // split.views
        here = grasps[split.grasp_start[scene] : split.grasp_start[scene + 1]]
        gx, gy, gt = here[:, 0], here[:, 1], here[:, 3] / torch.pi
        turn = gt - pt[i, :, None]
        turn.sub_(turn.round()).mul_(metres_per_half_turn)
        squared = turn.square_()
        dx = gx - px[i, :, None]
        squared.addcmul_(dx, dx)
        torch.sub(gy, py[i, :, None], out=dx)
        squared.addcmul_(dx, dx)
        torch.amin(squared, 1, out=result[i])
    return result.sqrt_()


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
