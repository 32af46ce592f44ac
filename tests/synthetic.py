"""A tiny dataset in the real format: one box on a table, grasped across its short side."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rt.hand import load_hand
from rt.view import VIEW
from sim.dataset.store import (
    DEPTH_UNIT_M,
    FORMAT,
    ShardIdentity,
    dataset_id,
    shard_path,
    shard_scenes,
    write_shard,
)

BOX_LENGTH_M, BOX_WIDTH_M, BOX_HEIGHT_M = 0.12, 0.04, 0.05


def box_depth(camera: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Depth (64, 64) [m] of a box (x, y, yaw) on the table z = 0 from a camera (x, y, z, yaw).

    Heights only (the box's top and the table, no side walls): every pixel's ray is cut with the top's
    plane, and falls to the table where it misses the top.
    """
    rays = VIEW.rays()
    c, s = np.cos(camera[3]), np.sin(camera[3])
    top = camera[2] - BOX_HEIGHT_M
    px, py = rays[..., 0] * top, rays[..., 1] * top
    wx, wy = camera[0] + c * px + s * py - box[0], camera[1] + s * px - c * py - box[1]
    c, s = np.cos(box[2]), np.sin(box[2])
    along, across = c * wx + s * wy, -s * wx + c * wy
    inside = (np.abs(along) < BOX_LENGTH_M / 2) & (np.abs(across) < BOX_WIDTH_M / 2)
    return np.where(inside, top, camera[2])


def make_dataset(
    folder: Path, train_scenes: int = 12, test_scenes: int = 4, views: int = 4, seed: int = 0
) -> dict[str, Any]:
    """Write a finished dataset to `folder`; returns its manifest."""
    params: dict[str, Any] = {
        "seed": seed,
        "views": views,
        "train_scenes": train_scenes,
        "test_scenes": test_scenes,
        "scenes_per_shard": 8,
        "view": asdict(VIEW),
        "hand": asdict(load_hand()),
    }
    manifest = {"format": FORMAT, "id": dataset_id(params), "params": params}
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for k, split in enumerate(("train", "test")):
        for shard, scenes in enumerate(shard_scenes(manifest, split)):
            depth, camera, grasps, starts = [], [], [], [0]
            for scene in scenes:
                rng = np.random.default_rng([seed, k, scene])
                box = np.array([*rng.uniform(-0.03, 0.03, 2), rng.uniform(-np.pi, np.pi)])
                along = np.linspace(-0.05, 0.05, int(rng.integers(5, 40)))
                n = len(along)
                x, y = box[0] + along * np.cos(box[2]), box[1] + along * np.sin(box[2])
                yaw = np.full(n, box[2] + np.pi / 2) + rng.normal(0, 0.05, n)
                grasps.append(
                    np.stack([x, y, np.full(n, 0.03), yaw, np.full(n, BOX_WIDTH_M)], axis=1)
                )
                starts.append(starts[-1] + n)
                for _ in range(views):
                    pose = [*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.15, 0.30)]
                    camera.append(np.array([*pose, rng.uniform(-np.pi, np.pi)]))
                    depth.append(box_depth(camera[-1], box))
            write_shard(
                shard_path(folder, split, shard),
                {
                    "depth": np.round(np.stack(depth) / DEPTH_UNIT_M).astype(np.uint16),
                    "camera": np.stack(camera).astype(np.float32),
                    "grasps": np.concatenate(grasps).astype(np.float32),
                    "grasp_object": np.zeros(starts[-1], np.int16),
                    "grasp_start": np.array(starts, np.int64),
                },
                [["box"] for _ in scenes],
                ["ideal"] * len(scenes),
                ShardIdentity(manifest["id"], split, shard),
            )
    return manifest


def random_views(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Depth (count, 64, 64) [m] of noise with holes."""
    depth = rng.uniform(0.05, 0.35, (count, 64, 64)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    return torch.from_numpy(depth)


def random_actions(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Actions (*shape, 3) of x, y [m], theta [rad]."""
    return torch.from_numpy(rng.uniform(-1, 1, (*shape, 3)).astype(np.float32)) * torch.tensor(
        [0.1, 0.1, np.pi / 2]
    )
