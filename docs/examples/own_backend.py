"""A distance backend: the model's graph on another execution provider of ONNX Runtime (OpenVINO, ROCm, ...).

import own_backend
distance = open_model(backend="provider")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rt.distance import BACKENDS, Contract, DistanceError
from rt.distance.contract import Weights

PROVIDERS = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
"""The first that this build of ONNX Runtime has."""


class ProviderDistance:
    """`Backend`: rt.distance has judged the arguments before it is called."""

    def __init__(self, path: Path, threads: int) -> None:
        here = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
        if not here:
            raise DistanceError(f"this ONNX Runtime has none of {', '.join(PROVIDERS)}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, providers=here[:1])

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        found: NDArray[np.float32]
        (found,) = self._session.run(["distance"], {"depth": depth[None, None], "actions": actions})
        if out is None:
            return found
        out[:] = found
        return out


def open_backend(
    path: Path, contract: Contract, weights: Weights, threads: int, precision: str
) -> ProviderDistance:
    return ProviderDistance(path, threads)


BACKENDS["provider"] = open_backend
