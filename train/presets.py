"""Named training schedules: optimiser, and learning rate over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from train.offsets import Offsets

WARM_UP = 0.02
"""Fraction of a run during which the modern rate rises linearly."""


@dataclass(frozen=True)
class Preset:
    """One schedule. Rates are for the loss in units of LENGTH_SCALE_M."""

    optimizer: Literal["adamw", "sgd"]
    rate: float
    batch: int
    """Images a step, of all processes together."""
    offsets_per_image: int
    offsets: Offsets
    constant: bool
    """Keep the rate; else warm up linearly, then a cosine to zero."""
    weight_decay: float = 0.0
    momentum: float = 0.9
    clip: float = math.inf
    """Largest norm of a gradient."""
    average: float = 0.0
    """Decay of the moving average of the weights, which is then what is validated and exported; 0: none."""
    steps: int | None = None
    """Length if none is asked for; None: 10 epochs."""


PRESETS = {
    # 64 images: after 64,000 images of 1,500 scenes the error on test objects was 22.2 mm, against
    # 27.6 mm with 256. A step of 64 costs a sixth more time per image.
    "modern": Preset("adamw", 1e-3, 64, 16, "mixed", constant=False, weight_decay=0.01, clip=1.0),
    # The field network's `modern`: a step of 64 maps with 128 actions each (docs/training.md).
    "field": Preset(
        "adamw", 2e-3, 64, 128, "mixed", constant=False, weight_decay=0.01, clip=1.0, average=0.999
    ),
    # Viereck et al. 2017: rate 0.001, momentum 0.9, 900k iterations of 1k samples, each image with its
    # 10 fixed offsets.
    "paper": Preset("sgd", 1e-3, 100, 10, "fixed", constant=True, steps=900_000),
}


def make_optimizer(network: nn.Module, preset: Preset) -> torch.optim.Optimizer:
    """The preset's optimiser; weight decay acts on weights, not on biases."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    biases = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    if preset.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=preset.rate, momentum=preset.momentum)
    return torch.optim.AdamW(
        groups, lr=preset.rate, weight_decay=preset.weight_decay, betas=(0.9, 0.99), fused=True
    )


def learning_rate(preset: Preset, fraction: float) -> float:
    """The rate when a fraction of the run is done."""
    if preset.constant:
        return preset.rate
    if fraction < WARM_UP:
        return preset.rate * max(fraction / WARM_UP, 0.01)
    return preset.rate * 0.5 * (1 + math.cos(math.pi * (fraction - WARM_UP) / (1 - WARM_UP)))
