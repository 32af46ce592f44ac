"""Backend `native` of the field network: map, convolutions and head in C++ (rt/native/field*.cpp).

Twin and oracle: rt/distance/field_reference.py; how it is computed: docs/inference.md. The weights are laid
out here once, and packed for the instruction set by the kernels.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import Contract, Weights
from rt.distance.field_shapes import CONVOLUTIONS, TURN_INPUTS
from rt.distance.metric_map import MAX_HALF_CELLS, growth_cells_per_m, rays_cells_per_m
from rt.distance.native_isa import choose_isa, require_native
from rt.native import native

STAGES = ("map", "convolutions", "candidates")
MAX_THREADS = 16
"""More tasks than these a convolution is not cut into."""


class FieldNative:
    """Distance, probability, spread and gradient. Arguments must have passed rt.distance's check."""

    outputs = ("distance", "probability", "spread")

    def __init__(self, contract: Contract, weights: Weights, threads: int = 0, isa: str = ""):
        """`threads` 0: one per core that this process may use, as far as there is work for them.

        `isa` '': GRASP_SERVO_ISA, or the best. Raises DistanceError if the kernels are not built or
        this processor lacks the instruction set.
        """
        require_native()
        assert native is not None
        self._engine: Any = native.FieldEngine(
            **lay_out(contract, weights),
            threads=threads or min(len(os.sched_getaffinity(0)), MAX_THREADS),
            isa=choose_isa(isa, list(native.field_isas())),
        )

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return str(self._engine.isa)

    @property
    def threads(self) -> int:
        return int(self._engine.threads)

    def stages_s(self) -> dict[str, float]:
        """Seconds that each of STAGES took in the last call."""
        return dict(zip(STAGES, self._engine.stages(), strict=True))

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        distance = np.empty(len(actions), np.float32) if out is None else out
        self._engine.run(depth, actions, distance)
        return distance

    def predict(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Distance [m], probability and spread [m], (N,) each."""
        distance, probability, spread = np.empty((3, len(actions)), np.float32)
        self._engine.predict(depth, actions, distance, probability, spread)
        return distance, probability, spread

    def gradient(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """d (N,) m, and dd/da (N, 3) in m/m, m/m, m/rad (at a kink, of one side of it)."""
        distance = np.empty(len(actions), np.float32)
        slope = np.empty((len(actions), 3), np.float32)
        self._engine.gradient(depth, actions, distance, slope)
        return distance, slope


def lay_out(contract: Contract, weights: Weights) -> dict[str, Any]:
    """Weights in the layouts of rt/native/field.h: channels together, input channels rounded up to 8.

    Two things are multiplied out. The mean over the map passes through `whole` and `up3`, both linear, so it
    adds one matrix times it to up3's bias. And the first layer's part over the features is taken at every
    pixel of the map, once per image, in one with `out`: bilinear look-up and a matrix may change places.
    """
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def layer(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = w[f"{name}.weight"].transpose(2, 3, 1, 0)  # rows, columns, inputs, outputs
        if name != "in1":
            weight = _padded(weight, 8)
        return _float32(weight), _float32(w[f"{name}.bias"])

    features, hidden = len(w["out.bias"]), len(w["head1.bias"])
    none = np.zeros(hidden)
    up3 = w["up3.weight"][:, :, 0, 0]
    w["up3.bias"] = w["up3.bias"] + up3 @ w["whole.bias"]
    first, turn = w["head1.weight"][:, :features], w["head1.weight"][:, features:]
    assert turn.shape == (hidden, TURN_INPUTS)
    second = w["head2.weight"]
    out = w["out.weight"][:, :, 0, 0]
    layers = [layer(name) for name in CONVOLUTIONS if name != "out"]
    layers.append((_float32(_padded((first @ out).T, 8)), _float32(first @ w["out.bias"])))
    layers.append((_float32(_padded(second.T, 16)), _float32(w["head2.bias"])))
    layers.append((_float32(_padded(second, 16)), _float32(none)))
    return {
        "layers": layers,
        "whole": _float32((up3 @ w["whole.weight"]).T),
        "turn": _float32(turn.T),
        "bias1": _float32(w["head1.bias"]),
        "weight3": _float32(w["head3.weight"]),
        "bias3": _float32(w["head3.bias"]),
        "channels": [len(w[f"{n}.bias"]) for n in ("in1", "in2", "down2", "down3", "down4")],
        "hidden": hidden,
        "cells": contract.cells,
        "rays": rays_cells_per_m(contract.cell_m, contract.view),
        "growth": growth_cells_per_m(contract.cell_m, contract.view),
        "far_m": contract.view.far_m,
        "max_half": MAX_HALF_CELLS,
        "cell_m": contract.cell_m,
        "slope": contract.leaky_slope,
        "scale": contract.distance_scale_m,
    }


def _padded(weight: NDArray[np.float64], to: int) -> NDArray[np.float64]:
    """Input channels, the axis before the last, filled up with zeros to a multiple."""
    more = -weight.shape[-2] % to
    return np.pad(weight, [(0, 0)] * (weight.ndim - 2) + [(0, more), (0, 0)])


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)
