"""Training batches assembled where the network trains: images, grasps, labels and maps stay on the device.

For a GPU, where the host would be too slow to label and send batches: 500k images are 4 GB as stored.
The same distributions as train.batches and train.field_batches, from the device's own random numbers; a
batch is a function of (seed, step), whatever the number of processes that share it. The code is the same on
a CPU, where the tests compare it with its NumPy twins (train.offsets, rt.distance.metric_map).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rt.distance.metric_map import (
    CHANNELS,
    MAX_HALF_CELLS,
    growth_cells_per_m,
    rays_cells_per_m,
)
from rt.pose import METRES_PER_RADIAN
from rt.view import VIEW
from sim.dataset.store import DEPTH_UNIT_M, Split
from train.batches import DRAW_STREAM, Batch, Steps
from train.field import FieldShape
from train.field_batches import FieldBatch, FieldDraw
from train.offsets import REACH_M, fixed_offsets

LABEL_ELEMENTS = 1 << 26
"""Differences between offsets and grasps held at once, of four bytes and a few copies each."""


def resident_bytes(split: Split) -> int:
    """Bytes on the device that a split takes."""
    images = sum(d.nbytes for d in split.depth)
    return images + split.camera.nbytes + split.grasps.nbytes + split.grasp_start.nbytes


class ResidentSteps(Steps):
    """The images and grasps of a split on `device`, and what every batch there is drawn and labelled with."""

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

    def nearest(self, images: NDArray[np.int64], actions: Tensor) -> Tensor:
        """Distances (B, K) in metres from actions (B, K, 3) of images (B,) to the nearest true grasp."""
        scenes = images // self._views
        counts = self._start[scenes + 1] - self._start[scenes]
        # Together with others of about as many grasps, since a scene with fewer repeats its last one.
        order = np.argsort(counts, kind="stable")
        px, py, pt = self._in_world(self._put(images), actions)
        distance = torch.empty(actions.shape[:2], device=self.device)
        stop = len(images)
        while stop > 0:
            most = int(counts[order[stop - 1]])
            begin = max(0, stop - max(1, LABEL_ELEMENTS // (most * actions.shape[1])))
            some = order[begin:stop]
            index = self._put(some)
            scene = self._put(scenes[some])
            column = torch.arange(most, device=self.device)
            rows = torch.minimum(self.start[scene, None] + column, self.start[scene + 1, None] - 1)
            gx, gy, gt = self.grasps[rows].unbind(-1)
            half_turns = (gt[:, None] - pt[index, :, None]) / torch.pi
            half_turns = half_turns - half_turns.round()
            squared = (half_turns * (METRES_PER_RADIAN * torch.pi)).square()
            squared += (gx[:, None] - px[index, :, None]).square()
            squared += (gy[:, None] - py[index, :, None]).square()
            distance[index] = squared.amin(-1).sqrt()
            stop = begin
        return distance

    def _depth_m(self, index: Tensor) -> Tensor:
        """Stored views (B, 64, 64) float32 [m]."""
        return (self.depth[index].int() & 0xFFFF).float() * DEPTH_UNIT_M

    def _in_world(self, index: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y, yaw (B, K) of the hand after the actions: rt.pose.top_down(camera) @ planar(action)."""
        x, y, _, yaw = self.camera[index].T[:, :, None]
        ax, ay, theta = actions.unbind(-1)
        c, s = torch.cos(yaw), torch.sin(yaw)
        return x + c * ax + s * ay, y + s * ax - c * ay, yaw - theta

    def _near_grasps(
        self,
        index: Tensor,
        uniform: Tensor,
        reach_m: float,
        sigma_m: float,
        sigma_deg: float,
        rng: torch.Generator,
    ) -> Tensor:
        """(B, K, 3) near true grasps within reach; where an image has none `uniform` (B, K, 3) stands."""
        grasps = self._grasps_in_reach(index, uniform.shape[1], rng, reach_m)
        sigma = torch.tensor([sigma_m, sigma_m, np.radians(sigma_deg)], dtype=torch.float32)
        jitter = self._normal(tuple(grasps.shape), rng) * sigma.to(self.device)
        return torch.where(grasps.isnan(), uniform, grasps + jitter)

    def _grasps_in_reach(
        self, index: Tensor, count: int, rng: torch.Generator, reach_m: float
    ) -> Tensor:
        """(B, count, 3) true grasps in each view, NaN where fewer are within reach of the hand."""
        scene = index // self._views
        first, last = self.start[scene, None], self.start[scene + 1, None] - 1
        unit = torch.rand((len(index), 4 * count), generator=rng, device=self.device)
        picks = torch.minimum(first + (unit * (last - first + 1)).long(), last)
        x, y, yaw = self.grasps[picks].unbind(-1)
        hx, hy, _, hyaw = self.camera[index].T[:, :, None]
        dx, dy, c, s = x - hx, y - hy, torch.cos(hyaw), torch.sin(hyaw)
        found = torch.stack([dx * c + dy * s, dx * s - dy * c, hyaw - yaw], -1)  # rt.pose.to_view
        far = found[..., :2].abs().amax(-1) > reach_m
        found = found.masked_fill(far[..., None], torch.nan)
        nearest_first = far.byte().argsort(dim=1, stable=True)[:, :count]
        return found.gather(1, nearest_first[..., None].expand(-1, -1, 3))

    def _uniform(self, images: int, reach_m: float, rng: torch.Generator) -> Tensor:
        """Actions (images, K, 3) uniform within +-reach_m, at any angle."""
        shape = (images, self.offsets_per_image, 3)
        unit = torch.rand(shape, generator=rng, device=self.device) * 2 - 1
        return unit * torch.tensor([reach_m, reach_m, np.pi / 2], device=self.device)

    def _disturbed(
        self, depth: Tensor, noise_m: float, dropout: float, rng: torch.Generator
    ) -> Tensor:
        """Views of this part with noise added and pixels dropped; chance is drawn for the whole batch."""
        shape = (self.batch_size, *self.depth.shape[1:])
        if noise_m > 0:
            depth = depth + (self._normal(shape, rng) * noise_m)[self.part] * (depth > 0)
        if dropout > 0:
            unit = torch.rand(shape, generator=rng, device=self.device)
            depth = depth.masked_fill((unit < dropout)[self.part], 0)
        return depth

    def _generator(self, step: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, DRAW_STREAM, step]).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))

    def _normal(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=rng, device=self.device)

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class DeviceBatches(ResidentSteps):
    """As train.batches.Batches, on `device`: call with a step, get a Batch that is there."""

    def __init__(self, split: Split, *arguments: Any, **options: Any) -> None:
        super().__init__(split, *arguments, **options)
        if self.offsets == "fixed":
            every = np.arange(len(split))
            self._fixed = self._put(fixed_offsets(every, self.offsets_per_image, self.seed))

    def __call__(self, step: int) -> Batch:
        rng = self._generator(step)
        images = self.images(step)
        index = self._put(images)
        actions = self._draw(index, rng)
        kinds = torch.randint(0, 8, (len(images),), generator=rng, device=self.device)
        options, here = self.options, self.part
        actions = actions[here]
        distance = self.nearest(images[here], actions)
        depth = self._depth_m(index[here])
        if options.symmetry:
            depth, actions = turned(depth, actions, kinds[here])
        depth = self._disturbed(depth, options.depth_noise_m, options.depth_dropout, rng)
        return Batch(depth, actions, distance)

    def _draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Offsets (B, K, 3) of all parts of a batch; see train.offsets.mixed_offsets."""
        if self.offsets == "fixed":
            return self._fixed[index]
        o, K = self.options, self.offsets_per_image
        actions = self._uniform(len(index), REACH_M, rng)
        if self.offsets == "uniform":
            return actions
        a = round(K * o.uniform_share)
        b = min(K, a + round(K * o.near_share))
        actions[:, a:b, :2] = self._normal((len(index), b - a, 2), rng) * o.near_sigma_m
        if b < K:
            actions[:, b:] = self._near_grasps(
                index, actions[:, b:], REACH_M, o.grasp_sigma_m, o.grasp_sigma_deg, rng
            )
        return actions


class FieldDeviceBatches(ResidentSteps):
    """As train.field_batches.FieldBatches, on `device`: call with a step, get a FieldBatch that is there."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        actions_per_image: int,
        seed: int,
        shape: FieldShape,
        draw: FieldDraw,
        part: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(split, batch_size, actions_per_image, seed, part=part, device=device)
        self.shape, self.draw = shape, draw

    def __call__(self, step: int) -> FieldBatch:
        rng, draw = self._generator(step), self.draw
        images = self.images(step)
        index = self._put(images)
        depth = self._depth_m(index)
        actions = self._draw(index, depth, rng)
        turn = (torch.rand(len(images), generator=rng, device=self.device) * 2 - 1) * torch.pi
        sign = 1 - 2 * torch.randint(0, 2, (len(images),), generator=rng, device=self.device)
        here = self.part
        depth, actions, turn, sign = depth[here], actions[here], turn[here], sign[here].float()
        distance = self.nearest(images[here], actions)
        depth = self._disturbed(depth, draw.depth_noise_m, draw.depth_dropout, rng)
        turns = torch.stack([torch.cos(turn), torch.sin(turn), sign], -1)
        maps = device_maps(depth, turns, self.shape.cells, self.shape.cell_m)
        cosine, sine, _ = turns[:, :, None].unbind(1)
        x, y = actions[..., 0], actions[..., 1] * sign[:, None]
        theta = actions[..., 2] * sign[:, None] + turn[:, None]
        theta = theta - torch.pi * (theta / torch.pi).round()
        moved = torch.stack([cosine * x - sine * y, sine * x + cosine * y, theta], -1)
        return FieldBatch(maps, moved, distance)

    def _draw(self, index: Tensor, depth: Tensor, rng: torch.Generator) -> Tensor:
        """Actions (B, K, 3): near true grasps, on objects' pixels, uniform."""
        draw, K = self.draw, self.offsets_per_image
        actions = self._uniform(len(index), draw.reach_m, rng)
        a = round(K * draw.grasp_share)
        b = min(K, a + round(K * draw.object_share))
        if a:
            actions[:, :a] = self._near_grasps(
                index, actions[:, :a], draw.reach_m, draw.grasp_sigma_m, draw.grasp_sigma_deg, rng
            )
        if b > a:
            actions[:, a:b, :2] = self._on_objects(index, depth, actions[:, a:b, :2], rng)
        return actions

    def _on_objects(
        self, index: Tensor, depth: Tensor, uniform: Tensor, rng: torch.Generator
    ) -> Tensor:
        """x, y (B, K, 2) [m] of random pixels that show objects; `uniform` where a view has none."""
        height = self.camera[index, 2]
        on = (depth > 0) & (depth < (height - self.draw.object_height_m)[:, None, None])
        on = on.flatten(1)
        # A view without objects is drawn from all its pixels, and its draws are put aside.
        none = ~on.any(1, keepdim=True)
        pixel = torch.multinomial(
            (on | none).float(), uniform.shape[1], replacement=True, generator=rng
        )
        scale = depth.flatten(1).gather(1, pixel) / VIEW.focal_px
        middle = VIEW.size_px / 2 - 0.5
        x, y = (pixel % VIEW.size_px - middle) * scale, (pixel // VIEW.size_px - middle) * scale
        return torch.where(none[..., None], uniform, torch.stack([x, y], -1))


def device_maps(depth: Tensor, turns: Tensor, cells: int, cell_m: float) -> Tensor:
    """rt.distance.metric_map on any device: maps (B, 2, G, G) of views (B, 64, 64) [m].

    turns (B, 3): cosine, sine and the sign of y of each view. On a CPU equal to `metric_map_numpy` bit by
    bit; a device that fuses a product with a sum may put a return that lies on a border elsewhere.
    """
    count, device = len(depth), depth.device
    rays = torch.from_numpy(rays_cells_per_m(cell_m)).to(device)
    z = torch.where((depth > 0) & (depth <= VIEW.far_m), depth, 0.0).flatten(1)
    x = (z.view_as(depth) * rays).flatten(1)
    y = (z.view_as(depth) * rays[:, None]).flatten(1) * turns[:, 2:]
    cosine, sine = turns[:, :1], turns[:, 1:2]
    p = (x * cosine - y * sine) + (cells / 2 - 0.5)
    q = (x * sine + y * cosine) + (cells / 2 - 0.5)
    half = (z * growth_cells_per_m(cell_m)).clamp_max(MAX_HALF_CELLS)
    left, right = (p - half).ceil(), (p + half).floor()
    top, bottom = (q - half).ceil(), (q + half).floor()
    view = torch.arange(count, device=device)[:, None] * (cells * cells)
    last = cells - 1
    kept = torch.where(z > 0, z, torch.inf)

    def drawn(into: Tensor, column: Tensor, row: Tensor, inside: Tensor) -> None:
        inside = inside & (column >= 0) & (column <= last) & (row >= 0) & (row <= last)
        # Nothing is drawn into a cell by infinity; one cell for all that lies outside would be waited for.
        cell = view + (row.clamp(0, last) * cells + column.clamp(0, last)).long()
        into.scatter_reduce_(
            0, cell.flatten(), torch.where(inside, kept, torch.inf).flatten(), "amin"
        )

    nearest = torch.full((count * cells * cells,), torch.inf, device=device)
    own = nearest.clone()
    reach = int(2 * float(half.max())) + 1
    for down in range(reach):
        for along in range(reach):
            column, row = left + along, top + down
            drawn(nearest, column, row, (column <= right) & (row <= bottom))
    drawn(own, (p + 0.5).floor(), (q + 0.5).floor(), torch.ones_like(z, dtype=torch.bool))
    found = torch.where(nearest.isfinite(), nearest, own).view(count, cells, cells)
    seen = found.isfinite()
    maps = torch.empty((count, CHANNELS, cells, cells), device=device)
    maps[:, 0] = torch.where(seen, (found - 0.2) * 10, 0.0)
    maps[:, 1] = seen
    return maps


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
