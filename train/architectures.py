"""Kinds of networks for the training: construction, loss and distances of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from train.calibration import Answers, Floats
from train.field import FieldNetwork, FieldShape, field_loss, field_predictor
from train.network import LENGTH_SCALE_M, DistanceNetwork, predictor

Architecture = Literal["paper", "field"]
"""paper: the network of Viereck et al. 2017; field: the metric map's (train.field)."""

Ask = Callable[[Floats, Floats], Answers]


def build(name: str, settings: dict[str, Any]) -> DistanceNetwork | FieldNetwork:
    """A new network of an architecture; settings as its `settings` attribute gives them."""
    if name == "paper":
        return DistanceNetwork(**settings)
    if name == "field":
        return FieldNetwork(FieldShape(**{**settings, "channels": tuple(settings["channels"])}))
    raise ValueError(f"no architecture {name!r}; known are paper, field")


def loss_of(network: nn.Module, outputs: Any, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of a network's outputs for a batch, and their mean absolute error [m]."""
    if isinstance(network, FieldNetwork):
        return field_loss(network, outputs, distance)
    error = (cast(Tensor, outputs) - distance).abs().mean()
    return error / LENGTH_SCALE_M, error


def asker(network: DistanceNetwork | FieldNetwork, dtype: torch.dtype = torch.float32) -> Ask:
    """The network as a function of arrays: depth (B, 64, 64) m, actions (B, K, 3) -> answers (B, K)."""
    if isinstance(network, FieldNetwork):
        return field_predictor(network, dtype)
    distances = predictor(network, dtype)
    return lambda depth, actions: Answers(distances(depth, actions))
