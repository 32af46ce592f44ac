"""Training batches from a dataset on disk: depth views, offsets and their distances, made on the fly.

Every batch is a pure function of (seed, step), so a resumed run sees the same batches, and several
processes each make their part of the same one. A label is the distance from an offset to the nearest
true grasp of the scene (rt.pose.grasp_distance), so fresh offsets cost nothing but this minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rt.pose import METRES_PER_RADIAN
from sim.dataset.store import Split
from train.offsets import (
    BatchOptions,
    Offsets,
    apply_symmetry,
    fixed_offsets,
    mixed_offsets,
    uniform_offsets,
)

DRAW_STREAM, _ORDER, _NOISE = 1, 2, 3
"""Streams of random numbers: a batch's draws, an epoch's order, the table of noise."""


@dataclass(frozen=True)
class Batch:
    """depth (B, 64, 64) m, actions (B, K, 3) of x, y [m], theta [rad], distance (B, K) m; float32."""

    depth: Tensor
    actions: Tensor
    distance: Tensor

    @property
    def image(self) -> Tensor:
        """All that the network is shown of a view."""
        return self.depth

    def to(self, device: torch.device) -> Batch:
        return Batch(self.depth.to(device), self.actions.to(device), self.distance.to(device))


class Steps:
    """Which images of a split are those of a step; all of them in a new order each epoch.

    part: (k, n) for the k-th of n equal parts of every batch: what one of n processes trains on.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        offsets_per_image: int,
        seed: int,
        offsets: Offsets = "mixed",
        options: BatchOptions | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.seed, self.offsets, self.options = seed, offsets, options or BatchOptions()
        self.batch_size = min(batch_size, len(split))
        self.offsets_per_image = offsets_per_image
        self.steps_per_epoch = len(split) // self.batch_size
        self.part = part_of(self.batch_size, part)
        self._count, self._epoch, self._order = len(split), -1, np.empty(0, np.int64)

    def images(self, step: int) -> NDArray[np.int64]:
        """Image numbers (B,) of a step, of all parts: a function of the seed and the step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, _ORDER, epoch])
            self._epoch, self._order = epoch, rng.permutation(self._count)
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]

    waited_s = 0.0
    """Time that training has waited for images: none, for a set on disk."""

    def __call__(self, step: int) -> Any:
        """The batch of a step."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop what makes the images: nothing, for a set on disk."""


class Batches(Steps):
    """Batches of a split by step number."""

    def __init__(self, split: Split, *arguments: Any, **options: Any) -> None:
        super().__init__(split, *arguments, **options)
        self.split = split
        self._noise = noise_table(self.seed, self.options.depth_noise_m)

    def __call__(self, step: int) -> Batch:
        options = self.options
        rng = np.random.default_rng([self.seed, DRAW_STREAM, step])
        images = self.images(step)
        # What chance decides is drawn for the whole batch, so that its parts do not depend on how many.
        if self.offsets == "fixed":
            actions = fixed_offsets(images, self.offsets_per_image, self.seed)
        elif self.offsets == "uniform":
            actions = uniform_offsets((len(images), self.offsets_per_image), rng)
        else:
            actions = mixed_offsets(self.split, images, self.offsets_per_image, options, rng)
        kinds = rng.integers(0, 8, len(images)) if options.symmetry else None
        images, actions = images[self.part], actions[self.part]
        distance = nearest_grasp_distance(self.split, images, actions)
        depth = self.split.depth_m(images)
        if kinds is not None:
            apply_symmetry(depth, actions, kinds[self.part])
        dropout = self.options.depth_dropout
        disturb(depth, dropout, self._noise, self.batch_size, self.part, rng)
        return Batch(torch.from_numpy(depth), torch.from_numpy(actions), distance)


def noise_table(seed: int, sigma_m: float) -> NDArray[np.float32]:
    """A million draws [m]; none if sigma is 0. An image's noise is a random stretch of it, a hundredth of
    the cost of drawing anew."""
    rng = np.random.default_rng([seed, _NOISE])
    table = rng.standard_normal(1 << 20 if sigma_m > 0 else 0, dtype=np.float32)
    return table * np.float32(sigma_m)


def disturb(
    depth: NDArray[np.float32],
    dropout: float,
    noise_m: NDArray[np.float32],
    batch_size: int,
    here: slice,
    rng: np.random.Generator,
) -> None:
    """Add noise to views (B, 64, 64) [m] in place and drop pixels; the views are those of `here` out of a
    batch, and chance is drawn for the whole batch."""
    pixels = depth[0].size
    if len(noise_m):
        starts = rng.integers(0, len(noise_m) - pixels, batch_size)[here]
        for image, start in zip(depth, starts, strict=True):
            noise = noise_m[start : start + pixels].reshape(image.shape)
            image += noise * (image > 0)
    if dropout > 0:
        every = batch_size * pixels
        dropped = rng.integers(0, every, rng.poisson(dropout * every))
        dropped -= here.start * pixels
        depth.reshape(-1)[dropped[(dropped >= 0) & (dropped < depth.size)]] = 0


def part_of(batch_size: int, part: tuple[int, int]) -> slice:
    """The images of a batch that the k-th of n processes trains on, of part (k, n)."""
    rank, parts = part
    if batch_size % parts:
        raise ValueError(
            f"a batch of {batch_size} images does not divide among {parts} processes; "
            f"give a multiple of {parts}"
        )
    share = batch_size // parts
    return slice(rank * share, (rank + 1) * share)


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
