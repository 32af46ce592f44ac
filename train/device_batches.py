"""Training batches assembled where the network trains: images, grasps and labels stay on the device.

For a GPU, where the host would be too slow to label and send batches: 500k images are 4 GB as stored.
The same distributions as train.batches, from the device's own random numbers; a batch is a function of
(seed, step), whatever the number of processes that share it. The code is the same on a CPU, where the
tests compare it with its NumPy twins (train.offsets).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rt.pose import METRES_PER_RADIAN
from sim.dataset.store import DEPTH_UNIT_M, Split
from train.batches import DRAW_STREAM, Batch, Steps
from train.offsets import REACH_M, fixed_offsets

LABEL_ELEMENTS = 1 << 26
"""Differences between offsets and grasps held at once, of four bytes and a few copies each."""


def resident_bytes(split: Split) -> int:
    """Bytes on the device that a split takes."""
    images = sum(d.nbytes for d in split.depth)
    return images + split.camera.nbytes + split.grasps.nbytes + split.grasp_start.nbytes


class DeviceBatches(Steps):
    """As train.batches.Batches, on `device`: call with a step, get a Batch that is there."""

    def __init__(
        self, split: Split, *arguments: Any, device: torch.device | str = "cpu", **options: Any
    ) -> None:
        super().__init__(split, *arguments, **options)
        self.device = torch.device(device)
        self._views, self._start = split.views, split.grasp_start
        # The bits of uint16: torch indexes int16 on every device.
        self.depth = torch.empty(
            (len(split), *split.depth[0].shape[1:]), dtype=torch.int16, device=self.device
        )
        for first, shard in zip(split.first[:-1], split.depth, strict=True):
            self.depth[first : first + len(shard)] = torch.from_numpy(np.array(shard).view("i2"))
        self.camera = self._put(split.camera)
        self.grasps = self._put(split.grasps[:, [0, 1, 3]])  # x, y, yaw
        self.start = self._put(split.grasp_start)
        if self.offsets == "fixed":
            every = np.arange(len(split))
            self._fixed = self._put(fixed_offsets(every, self.offsets_per_image, self.seed))

    def __call__(self, step: int) -> Batch:
        rng = self._generator(step)
        images = self.images(step)
        index = self._put(images)
        actions = self._draw(index, rng)
        kinds = torch.randint(0, 8, (len(images),), generator=rng, device=self.device)
        noise, dropped = self._disturbance(rng)
        here = self.part
        actions = actions[here]
        distance = self.nearest(images[here], actions)
        depth = (self.depth[index[here]].int() & 0xFFFF).float() * DEPTH_UNIT_M
        if self.options.symmetry:
            depth, actions = turned(depth, actions, kinds[here])
        if noise is not None:
            depth = depth + noise[here] * (depth > 0)
        if dropped is not None:
            depth = depth.masked_fill(dropped[here], 0)
        return Batch(depth, actions, distance)

    def nearest(self, images: NDArray[np.int64], actions: Tensor) -> Tensor:
        """Distances (B, K) in metres from actions (B, K, 3) of images (B,) to the nearest true grasp."""
        scenes = images // self._views
        counts = self._start[scenes + 1] - self._start[scenes]
        most = int(counts.max())
        step = max(1, LABEL_ELEMENTS // (most * actions.shape[1]))
        px, py, pt = self._in_world(self._put(images), actions)
        first, last = self.start[self._put(scenes)], self.start[self._put(scenes + 1)] - 1
        column = torch.arange(most, device=self.device)
        parts = []
        for i in range(0, len(images), step):
            s = slice(i, i + step)
            # A scene with fewer grasps repeats its last one.
            rows = torch.minimum(first[s, None] + column, last[s, None])
            gx, gy, gt = self.grasps[rows].unbind(-1)
            half_turns = (gt[:, None] - pt[s, :, None]) / torch.pi
            half_turns = half_turns - half_turns.round()
            squared = (half_turns * (METRES_PER_RADIAN * torch.pi)).square()
            squared += (gx[:, None] - px[s, :, None]).square()
            squared += (gy[:, None] - py[s, :, None]).square()
            parts.append(squared.amin(-1).sqrt())
        return torch.cat(parts)

    def _in_world(self, index: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y, yaw (B, K) of the hand after the actions: rt.pose.top_down(camera) @ planar(action)."""
        x, y, _, yaw = self.camera[index].T[:, :, None]
        ax, ay, theta = actions.unbind(-1)
        c, s = torch.cos(yaw), torch.sin(yaw)
        return x + c * ax + s * ay, y + s * ax - c * ay, yaw - theta

    def _draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Offsets (B, K, 3) of all parts of a batch; see train.offsets.mixed_offsets."""
        if self.offsets == "fixed":
            return self._fixed[index]
        o, K = self.options, self.offsets_per_image
        limits = torch.tensor([REACH_M, REACH_M, np.pi / 2], device=self.device)
        actions = (
            torch.rand((len(index), K, 3), generator=rng, device=self.device) * 2 - 1
        ) * limits
        if self.offsets == "uniform":
            return actions
        a = round(K * o.uniform_share)
        b = min(K, a + round(K * o.near_share))
        actions[:, a:b, :2] = self._normal((len(index), b - a, 2), rng) * o.near_sigma_m
        if b < K:
            grasps = self._grasps_in_reach(index, K - b, rng)
            sigma = [o.grasp_sigma_m, o.grasp_sigma_m, np.radians(o.grasp_sigma_deg)]
            jitter = self._normal(tuple(grasps.shape), rng) * torch.tensor(
                sigma, dtype=torch.float32, device=self.device
            )
            # Where no grasp is within reach the uniform offset stands.
            actions[:, b:] = torch.where(grasps.isnan(), actions[:, b:], grasps + jitter)
        return actions

    def _grasps_in_reach(self, index: Tensor, count: int, rng: torch.Generator) -> Tensor:
        """(B, count, 3) true grasps in each view, NaN where fewer are within REACH_M of the hand."""
        scene = index // self._views
        first, last = self.start[scene, None], self.start[scene + 1, None] - 1
        unit = torch.rand((len(index), 4 * count), generator=rng, device=self.device)
        picks = torch.minimum(first + (unit * (last - first + 1)).long(), last)
        x, y, yaw = self.grasps[picks].unbind(-1)
        hx, hy, _, hyaw = self.camera[index].T[:, :, None]
        dx, dy, c, s = x - hx, y - hy, torch.cos(hyaw), torch.sin(hyaw)
        found = torch.stack([dx * c + dy * s, dx * s - dy * c, hyaw - yaw], -1)  # rt.pose.to_view
        far = found[..., :2].abs().amax(-1) > REACH_M
        found = found.masked_fill(far[..., None], torch.nan)
        nearest_first = far.byte().argsort(dim=1, stable=True)[:, :count]
        return found.gather(1, nearest_first[..., None].expand(-1, -1, 3))

    def _disturbance(self, rng: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """Noise in metres and dropped pixels (B, 64, 64) of all parts of a batch."""
        shape = (self.batch_size, *self.depth.shape[1:])
        noise = dropped = None
        if self.options.depth_noise_m > 0:
            noise = self._normal(shape, rng) * self.options.depth_noise_m
        if self.options.depth_dropout > 0:
            unit = torch.rand(shape, generator=rng, device=self.device)
            dropped = unit < self.options.depth_dropout
        return noise, dropped

    def _generator(self, step: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, DRAW_STREAM, step]).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))

    def _normal(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=rng, device=self.device)

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def turned(depth: Tensor, actions: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Views (B, 64, 64) and actions (B, K, 3) under one of 8 symmetries each (train.offsets)."""
    swap, mirror_x, mirror_y = ((kinds & bit).bool()[:, None, None] for bit in (1, 2, 4))
    depth = torch.where(swap, depth.transpose(1, 2), depth)
    depth = torch.where(mirror_x, depth.flip(2), depth)
    depth = torch.where(mirror_y, depth.flip(1), depth)
    x, y, theta = actions.unbind(-1)
    swap, mirror_x, mirror_y = swap[:, 0], mirror_x[:, 0], mirror_y[:, 0]
    x, y, theta = (
        torch.where(swap, y, x),
        torch.where(swap, x, y),
        torch.where(swap, torch.pi / 2 - theta, theta),
    )
    x, y = torch.where(mirror_x, -x, x), torch.where(mirror_y, -y, y)
    theta = torch.where(mirror_x ^ mirror_y, -theta, theta)
    theta = theta - torch.pi * torch.floor(theta / torch.pi + 0.5)
    return depth, torch.stack([x, y, theta], -1)
