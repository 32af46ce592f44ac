"""Distances from actions to the nearest true grasp of their scene, for training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rt.native import native
from rt.pose import METRES_PER_RADIAN
from sim.dataset.store import Split
from train.offsets import nearest_grasp


class NearestGrasps:
    """The grasps of a split, laid out for the compiled search."""

    def __init__(self, split: Split) -> None:
        self.split = split
        x, y, _, yaw = split.grasps[:, :4].T
        half_turns = (yaw / np.float32(np.pi)).astype(np.float32)
        self._columns = np.ascontiguousarray(np.stack([x, y, half_turns]), dtype=np.float32)

    def __call__(
        self, images: NDArray[np.int64], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Distances (B, K) [m] from actions (B, K, 3) of images (B,): rt.pose.grasp_distance, the least
        over the scene's grasps. The actions are moved to the world, K of them, not the grasps to the view."""
        if native is None:
            return nearest_grasp(self.split, images, actions)[0]
        x, y, _, yaw = self.split.camera[images].T[:, :, None]
        c, s = np.cos(yaw), np.sin(yaw)
        ax, ay, theta = np.moveaxis(actions, -1, 0)
        # The shift out of an action: rt.pose.top_down(x, y, z, yaw) @ rt.pose.planar(action).
        places = np.empty(actions.shape, np.float32)
        places[..., 0], places[..., 1] = x + c * ax + s * ay, y + s * ax - c * ay
        places[..., 2] = (yaw - theta) / np.float32(np.pi)
        scene = images // self.split.views
        rows = np.stack([self.split.grasp_start[scene], self.split.grasp_start[scene + 1]], axis=1)
        distance = np.empty(actions.shape[:2], np.float32)
        native.nearest_grasps(places, self._columns, rows, distance, METRES_PER_RADIAN * np.pi)
        return distance
