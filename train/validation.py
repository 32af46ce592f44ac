"""Validation on scenes of objects the network never saw: how far off its distances are, and where."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.dataset import Split
from train.batches import NEAR_M, REACH_M, near_offsets, nearest_grasp_distance, uniform_offsets
from train.network import DistanceNetwork

BIN_EDGES_M = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.10, 0.15, np.inf)
OFFSETS = 16
"""Offsets of each kind on each validation image."""
CANDIDATES, CANDIDATE_REACH_M = 256, 0.06
"""One decision of a controller: this many candidates on a disc about the hand."""


@dataclass(frozen=True)
class ValidationSet:
    """Fixed questions about test images, and their answers, drawn once from a seed."""

    images: NDArray[np.int64]
    depth: Tensor
    """(B, 64, 64) m, as stored: no noise is added."""
    actions: Tensor
    """(B, 2 * OFFSETS, 3): first uniform in the view, then near the hand."""
    distance: Tensor
    """(B, 2 * OFFSETS) m."""


def draw_validation_set(split: Split, images: int, seed: int) -> ValidationSet:
    """Questions about `images` views (all if there are fewer), spread evenly over the split."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(images, len(split))).astype(np.int64))
    rng = np.random.default_rng([seed, len(chosen)])
    shape = (len(chosen), OFFSETS)
    actions = np.concatenate([uniform_offsets(shape, rng), near_offsets(shape, rng)], axis=1)
    distance = nearest_grasp_distance(split, chosen, actions)
    return ValidationSet(
        chosen, torch.from_numpy(split.depth_m(chosen)), torch.from_numpy(actions), distance
    )


@torch.no_grad()
def predict(
    network: DistanceNetwork,
    depth: Tensor,
    actions: Tensor,
    dtype: torch.dtype,
    samples: int = 2048,
) -> NDArray[np.float32]:
    """Distances (B, K) in metres, computed about `samples` actions at a time to bound memory."""
    device = next(network.parameters()).device
    step = max(1, samples // actions.shape[1])
    parts = []
    for i in range(0, len(depth), step):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            d = network(depth[i : i + step].to(device), actions[i : i + step].to(device))
        parts.append(d.float().cpu())
    return torch.cat(parts).numpy()


def quick_errors(
    network: DistanceNetwork, questions: ValidationSet, dtype: torch.dtype
) -> dict[str, float]:
    """Mean absolute error in metres over offsets uniform in the view (`all_m`) and near ones (`near_m`)."""
    error = np.abs(
        predict(network, questions.depth, questions.actions, dtype) - questions.distance.numpy()
    )
    return {
        "all_m": float(error[:, :OFFSETS].mean()),
        "near_m": float(error[:, OFFSETS:].mean()),
    }


def full_report(
    network: DistanceNetwork, split: Split, images: int, seed: int
) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.float32]]:
    """Everything about a trained network, in float32; also true and predicted distances for a plot.

    Errors for all and near offsets beside those of the best constant, by bins of true distance, and
    the true distance after one choice among candidates about the hand.
    """
    questions = draw_validation_set(split, images, seed)
    true = questions.distance.numpy()
    predicted = predict(network, questions.depth, questions.actions, torch.float32)
    report: dict[str, Any] = {
        "images": len(questions.images),
        "offsets_per_image": OFFSETS,
        "reach_m": REACH_M,
        "near_reach_m": NEAR_M,
    }
    for name, part in (("all", np.s_[:, :OFFSETS]), ("near", np.s_[:, OFFSETS:])):
        t, p = true[part], predicted[part]
        report[name] = {
            "mean_absolute_error_m": float(np.abs(p - t).mean()),
            "median_absolute_error_m": float(np.median(np.abs(p - t))),
            "bias_m": float((p - t).mean()),
            "correlation": float(np.corrcoef(p.ravel(), t.ravel())[0, 1]),
            "trivial_error_m": float(np.abs(np.median(t) - t).mean()),
            "bins": _by_bin(t, p),
        }
    report["choice"] = _choice(network, split, questions.images[:: max(1, images // 512)], seed)
    return report, true, predicted


def _by_bin(true: NDArray[np.float32], predicted: NDArray[np.float32]) -> list[dict[str, Any]]:
    bins = []
    for low, high in pairwise(BIN_EDGES_M):
        here = (true >= low) & (true < high)
        if here.any():
            error = predicted[here] - true[here]
            bins.append(
                {
                    "from_m": low,
                    "to_m": None if high == np.inf else high,
                    "samples": int(here.sum()),
                    "mean_absolute_error_m": float(np.abs(error).mean()),
                    "bias_m": float(error.mean()),
                }
            )
    return bins


def _choice(
    network: DistanceNetwork, split: Split, images: NDArray[np.int64], seed: int
) -> dict[str, float]:
    """Median true distance before and after the move that the network likes best, in one view."""
    rng = np.random.default_rng([seed, CANDIDATES])
    actions = near_offsets((len(images), CANDIDATES), rng)
    actions[..., :2] *= CANDIDATE_REACH_M / NEAR_M
    actions[:, 0] = 0  # staying is a candidate, and the start
    true = nearest_grasp_distance(split, images, actions).numpy()
    depth = torch.from_numpy(split.depth_m(images))
    predicted = predict(network, depth, torch.from_numpy(actions), torch.float32)
    chosen = np.take_along_axis(true, predicted.argmin(1)[:, None], axis=1)
    return {
        "images": len(images),
        "candidates": CANDIDATES,
        "reach_m": CANDIDATE_REACH_M,
        "start_median_m": float(np.median(true[:, 0])),
        "chosen_median_m": float(np.median(chosen)),
        "best_median_m": float(np.median(true.min(1))),
    }
