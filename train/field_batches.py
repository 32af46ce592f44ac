"""Training batches of the field network: metric maps under any turn and mirror, actions, distances.

The images of a step and the streams of random numbers are those of train.batches; every batch is a pure
function of (seed, step), and several processes each make their part of the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rt.distance.metric_map import metric_map
from rt.view import VIEW
from sim.dataset.store import Split
from train.batches import DRAW_STREAM, Steps, disturb, noise_table
from train.field import FieldShape
from train.nearest import NearestGrasps
from train.offsets import random_grasps_in_reach


@dataclass(frozen=True)
class FieldDraw:
    """Distribution of the field network's training actions and views."""

    grasp_share: float = 0.5
    """Share of the actions drawn near true grasps."""
    object_share: float = 0.25
    """Share drawn on pixels of objects, with or without a grasp: most are hard negatives. The rest are
    uniform."""
    reach_m: float = 0.15
    """Uniform actions lie within +- this, m, and grasps beyond it are not drawn near."""
    grasp_sigma_m: float = 0.012
    """Spread of x and y about a true grasp, m."""
    grasp_sigma_deg: float = 14.0
    """Spread of theta about a true grasp, degrees."""
    object_height_m: float = 0.008
    """A pixel this much above the table or more is an object's, m."""
    depth_noise_m: float = 0.0005
    """Standard deviation of the noise added to every depth, m."""
    depth_dropout: float = 0.002
    """Share of pixels set to no return."""

    def __post_init__(self) -> None:
        shares = (self.grasp_share, self.object_share, self.grasp_share + self.object_share)
        if not all(0 <= s <= 1 for s in shares):
            raise ValueError(
                f"grasp share {self.grasp_share} and object share {self.object_share} "
                "must be 0 or more and sum to 1 at most"
            )
        for name in ("grasp_sigma_m", "grasp_sigma_deg", "depth_noise_m", "object_height_m"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more")
        if not 0 < self.reach_m <= 1:
            raise ValueError(f"reach_m = {self.reach_m} must be above 0, at most 1 m")
        if not 0 <= self.depth_dropout < 1:
            raise ValueError(f"depth dropout {self.depth_dropout} must be in [0, 1)")


@dataclass(frozen=True)
class FieldBatch:
    """image (B, 2, G, G) maps, actions (B, K, 3) of x, y [m], theta [rad], distance (B, K) m; float32."""

    image: Tensor
    actions: Tensor
    distance: Tensor

    def to(self, device: torch.device) -> FieldBatch:
        return FieldBatch(self.image.to(device), self.actions.to(device), self.distance.to(device))


class FieldBatches(Steps):
    """Batches of a split by step number."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        actions_per_image: int,
        seed: int,
        shape: FieldShape,
        draw: FieldDraw,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(split, batch_size, actions_per_image, seed, part=part)
        self.split, self.shape, self.draw = split, shape, draw
        self._nearest = NearestGrasps(split)
        self._noise = noise_table(seed, draw.depth_noise_m)

    def __call__(self, step: int) -> FieldBatch:
        rng = np.random.default_rng([self.seed, DRAW_STREAM, step])
        images = self.images(step)
        depth = self.split.depth_m(images)
        actions = self._draw(images, depth, rng)
        turn = rng.uniform(-np.pi, np.pi, len(images))
        mirror = rng.random(len(images)) < 0.5
        here = self.part
        depth = depth[here]
        disturb(depth, self.draw.depth_dropout, self._noise, self.batch_size, here, rng)
        images, actions, turn, mirror = images[here], actions[here], turn[here], mirror[here]
        distance = self._nearest(images, actions)
        maps = metric_map(depth, self.shape.cells, self.shape.cell_m, turn_rad=turn, mirror=mirror)
        turned(actions, turn, mirror)
        return FieldBatch(
            torch.from_numpy(maps), torch.from_numpy(actions), torch.from_numpy(distance)
        )

    def _draw(
        self, images: NDArray[np.int64], depth: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Actions (B, K, 3): near true grasps, on objects' pixels, uniform."""
        count, draw = self.offsets_per_image, self.draw
        unit = rng.random((len(images), count, 3), dtype=np.float32) * 2 - 1
        actions = unit * np.array([draw.reach_m, draw.reach_m, np.pi / 2], np.float32)
        a = round(count * draw.grasp_share)
        b = min(count, a + round(count * draw.object_share))
        if a:
            grasps = random_grasps_in_reach(self.split, images, a, rng, draw.reach_m)
            sigma = np.array([draw.grasp_sigma_m] * 2 + [np.radians(draw.grasp_sigma_deg)])
            jitter = rng.standard_normal(grasps.shape, dtype=np.float32) * sigma.astype(np.float32)
            # Where no grasp is within reach the uniform action stands.
            actions[:, :a] = np.where(np.isnan(grasps), actions[:, :a], grasps + jitter)
        if b > a:
            self._on_objects(images, depth, actions[:, a:b, :2], rng)
        return actions

    def _on_objects(
        self,
        images: NDArray[np.int64],
        depth: NDArray[np.float32],
        places: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> None:
        """Move x, y (B, K, 2) onto pixels that show objects, where a view has any."""
        heights = self.split.camera[images, 2]
        pick = rng.random(places.shape[:2])
        size = depth.shape[-1]
        on = (depth > 0) & (depth < (heights - self.draw.object_height_m)[:, None, None])
        for view, seen, xy, unit in zip(depth, on, places, pick, strict=True):
            pixels = np.flatnonzero(seen)
            if not len(pixels):
                continue
            row, column = np.divmod(pixels[(unit * len(pixels)).astype(np.int64)], size)
            scale = view[row, column] / np.float32(VIEW.focal_px)
            xy[:, 0] = (column - (size / 2 - 0.5)) * scale
            xy[:, 1] = (row - (size / 2 - 0.5)) * scale


def turned(
    actions: NDArray[np.float32], turn_rad: NDArray[np.float64], mirror: NDArray[np.bool_]
) -> None:
    """Move actions (B, K, 3) in place as rt.distance.metric_map moves the points of their views."""
    sign = np.where(mirror, -1, 1).astype(np.float32)[:, None]
    c, s = (f(turn_rad).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    x, y = actions[..., 0].copy(), actions[..., 1] * sign
    actions[..., 0], actions[..., 1] = c * x - s * y, s * x + c * y
    theta = actions[..., 2] * sign + turn_rad.astype(np.float32)[:, None]
    actions[..., 2] = theta - np.float32(np.pi) * np.rint(theta / np.float32(np.pi))
