"""`python -m sim.gpd train`: the classifier of the one-shot baseline, from scenes of training objects.

Each scene is seen once from where trials start. Candidates are found in that view as the detector
finds them, and labelled by geometry on the full surface (`antipodal`). Cross-entropy, classes balanced.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand, load_hand
from rt.pose import top_down
from rt.tools.command import command, screen
from rt.tools.files import whole
from rt.tools.pool import PoolError, spread
from rt.tools.progress import progress
from rt.view import START_HEIGHT_M, VIEW
from sim.gpd.descriptor import describe
from sim.gpd.detector import FINE, LAYERS, WEIGHTS, candidates, cloud_of
from sim.scene.arrange import make_scene
from sim.scene.objects import object_set
from sim.scene.render import Renderer
from sim.scene.scene import Scene, camera_poses

_EXTREME_M = 0.003
"""Points this near to what the fingers touch first are their contacts."""
_CONE_DEG = 20.0
_CONTACTS = 6
_LABELLED = 48
"""Most candidates labelled in a scene."""
_SURFACE_M2 = 3e-6
"""Area for each point of the full surface: 1.7 mm apart."""


@dataclass(frozen=True)
class GpdTrainOptions:
    """Train the one-shot baseline's classifier.

    Example: python -m sim.gpd train --scenes 1500
    """

    scenes: int = 1500
    """Scenes of training objects."""
    held_out: int = 100
    """Scenes of test objects, for the accuracy that is reported."""
    per_scene: int = 16
    """Most candidates of each class kept of a scene."""
    epochs: int = 4
    """Passes over the candidates."""
    batch: int = 64
    """Candidates in a step."""
    rate: float = 1e-3
    """Learning rate (AdamW, falling along a cosine)."""
    seed: int = 0
    """Seed of the scenes, the candidates and their order."""
    workers: int = 0
    """Processes that make scenes. 0: one for each core."""
    out: Path = WEIGHTS
    """File to write."""


def surface(
    scene: Scene, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (S, 3) spread evenly over all of the scene's surface, and their outward normals."""
    a, b, c = (scene.vertices[scene.faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1) / 2
    n = int(area.sum() / _SURFACE_M2)
    face = rng.choice(len(area), n, p=area.astype(np.float64) / area.sum(dtype=np.float64))
    u, v = np.sqrt(rng.random((n, 1), np.float32)), rng.random((n, 1), np.float32)
    points = (1 - u) * a[face] + u * (1 - v) * b[face] + u * v * c[face]
    return points, cross[face] / (2 * area[face, None])


def antipodal(
    points: NDArray[np.float32],
    normals: NDArray[np.float32],
    hands: NDArray[np.float64],
    hand: Hand,
) -> NDArray[np.bool_]:
    """True (N,) for hands (N, 4) that would hold what they close on, by the full surface (S, 3).

    The fingers are free; on each side at least 6 points within 3 mm of first contact have normals
    within 20 degrees of the closing axis, and both sides' points overlap in height and laterally.
    """
    good = np.zeros(len(hands), bool)
    cosine = np.cos(np.radians(_CONE_DEG))
    for k, (x, y, z, yaw) in enumerate(hands):
        reach = hand.opening_m / 2 + hand.finger_thickness_m
        near = (np.abs(points[:, 0] - x) < reach + 0.02) & (np.abs(points[:, 1] - y) < reach + 0.02)
        near &= points[:, 2] > z
        d, n = points[near] - np.array([x, y, z], np.float32), normals[near]
        c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
        across, along = c * d[:, 0] + s * d[:, 1], s * d[:, 0] - c * d[:, 1]
        strip = np.abs(along) < hand.finger_width_m / 2
        if (strip & (np.abs(across) > hand.opening_m / 2) & (np.abs(across) < reach)).any():
            continue
        held = strip & (np.abs(across) < hand.opening_m / 2) & (d[:, 2] < hand.finger_length_m)
        if held.sum() < 2 * _CONTACTS:
            continue
        across, along, up = across[held], along[held], d[held, 2]
        normal = c * n[held, 0] + s * n[held, 1]
        left = (across < across.min() + _EXTREME_M) & (normal < -cosine)
        right = (across > across.max() - _EXTREME_M) & (normal > cosine)
        if min(left.sum(), right.sum()) < _CONTACTS:
            continue
        good[k] = _overlap(along, left, right) and _overlap(up, left, right)
    return good


def _overlap(
    values: NDArray[np.float32], left: NDArray[np.bool_], right: NDArray[np.bool_]
) -> bool:
    low = max(values[left].min(), values[right].min())
    return bool(low < min(values[left].max(), values[right].max()))


def examples(
    split: str, seed: int, per_scene: int, number: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int, int]:
    """Descriptors (N, 15, 60, 60) as bytes and labels (N,) of one scene, and how many candidates of
    each class there were before thinning: positive, all."""
    rng = np.random.default_rng([seed, split == "test", number])
    scene = make_scene(object_set("test" if split == "test" else "train"), rng)
    hand = load_hand()
    pose = camera_poses(scene, 1, rng)[0].astype(np.float64)
    pose[2] = START_HEIGHT_M
    rays = FINE.rays()
    depth = Renderer(scene).depth(top_down(*pose), rays)
    depth = np.where(depth <= VIEW.far_m, depth, np.float32(0))
    cloud = cloud_of(depth, rays, top_down(*pose))
    hands = np.zeros((0, 4)) if cloud is None else candidates(cloud, hand, rng, _LABELLED)
    if cloud is None or not len(hands):
        return np.zeros((0, 15, 60, 60), np.uint8), np.zeros(0, np.uint8), 0, 0
    label = antipodal(*surface(scene, rng), hands, hand)
    # Balanced within the scene, so that a scene full of good hands does not outweigh others.
    most = min(per_scene, max(2, int(label.sum())), max(2, int((~label).sum())))
    kept = np.concatenate([np.flatnonzero(label)[:most], np.flatnonzero(~label)[:most]])
    images = describe(cloud.points, cloud.normals, cloud.shadow, hands[kept], hand)
    return (
        np.rint(images * 255).astype(np.uint8),
        label[kept].astype(np.uint8),
        int(label.sum()),
        len(label),
    )


def make_examples(
    config: GpdTrainOptions, split: str, scenes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All examples of a split, made on all cores."""
    images, labels, good, every = [], [], 0, 0
    work = partial(examples, split, config.seed, config.per_scene)
    made = spread(work, range(scenes), config.workers, unit="scene", title=split, at_once=8)
    for image, label, positive, count in made:
        images.append(image)
        labels.append(label)
        good, every = good + positive, every + count
    print(
        f"{split}: {good / max(every, 1):.0%} of {every} candidates hold; {sum(map(len, labels))} kept"
    )
    return np.concatenate(images), np.concatenate(labels)


def train(config: GpdTrainOptions) -> float:
    """Make the examples, fit, write the weights; returns the accuracy on test objects."""
    try:
        import torch
        from torch import nn
    except ImportError as error:
        raise ImportError(
            f"{error}; training needs PyTorch: pip install 'grasp-servo[train]'"
        ) from error

    for name, value in (("scenes", config.scenes), ("held_out", config.held_out)):
        if value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least 1")
    torch.manual_seed(config.seed)
    images, labels = make_examples(config, "train", config.scenes)
    held_images, held_labels = make_examples(config, "test", config.held_out)
    net = nn.Sequential(
        nn.Conv2d(15, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * 12 * 12, 500),
        nn.ReLU(),
        nn.Linear(500, 2),
    )
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = torch.tensor([float(labels.mean()), float(1 - labels.mean())])
    loss_of = nn.CrossEntropyLoss(weight / weight.sum() * 2)
    steps = config.epochs * -(-len(labels) // config.batch)
    optimizer = torch.optim.AdamW(net.parameters(), config.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(config.seed)
    accuracy = 0.0
    for epoch in range(config.epochs):
        net.train()
        total, began = 0.0, time.monotonic()
        order = np.array_split(rng.permutation(len(labels)), steps // config.epochs)
        title = f"epoch {epoch + 1} of {config.epochs}"
        for rows in progress(order, unit="batch", title=title):
            batch = torch.from_numpy(images[rows]).float().div_(255)
            # A hand is the same seen from its other side: mirror along the lateral or closing axis.
            flips = rng.random(2) < 0.5
            batch = _mirror(batch, bool(flips[0]), bool(flips[1]))
            loss = loss_of(net(batch), torch.from_numpy(labels[rows]).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        net.eval()
        with torch.no_grad():
            right = [
                (
                    net(torch.from_numpy(held_images[i : i + 256]).float().div_(255))
                    .argmax(1)
                    .numpy()
                )
                == held_labels[i : i + 256]
                for i in range(0, len(held_labels), 256)
            ]
        accuracy = float(np.concatenate(right).mean())
        took = time.monotonic() - began
        print(
            f"loss {total / len(labels):.4f}, accuracy on test objects {accuracy:.3f}, {took:.0f} s"
        )
    arrays: dict[str, Any] = {}
    for name, layer in zip(LAYERS, (net[0], net[2], net[5], net[7]), strict=True):
        for part in ("weight", "bias"):
            value = getattr(layer, part).detach().numpy()
            arrays[f"{name}.{part}"] = np.ascontiguousarray(value, np.float16)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with whole(config.out, sum(array.nbytes for array in arrays.values())) as beside:
        np.savez_compressed(beside, **arrays)
    return accuracy


def _mirror(batch: Any, lateral: bool, closing: bool) -> Any:
    """Descriptors of the same hands seen in a mirror across the lateral or the closing axis."""
    import torch

    b = batch.view(-1, 3, 5, *batch.shape[2:]).clone()
    # Projections: (closing, approach), (closing, lateral), (lateral, approach) by (column, row).
    if closing:
        b[:, 0], b[:, 1] = b[:, 0].flip(-1), b[:, 1].flip(-1)
        for channel in (3, 4):  # place along the closing axis, where something is there
            part = b[:, 2, channel]
            b[:, 2, channel] = torch.where(part > 0, 1 - part, part)
    if lateral:
        b[:, 1], b[:, 2] = b[:, 1].flip(-2), b[:, 2].flip(-1)
        for channel in (3, 4):
            part = b[:, 0, channel]
            b[:, 0, channel] = torch.where(part > 0, 1 - part, part)
    return b.view(batch.shape)


@command("sim.gpd train", GpdTrainOptions, failures=(PoolError,))
def main(config: GpdTrainOptions) -> int:
    accuracy = train(config)
    screen().print(f"accuracy on test objects {accuracy:.3f}: {config.out}", highlight=False)
    return 0
