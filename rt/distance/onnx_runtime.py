"""Backend `onnx`: ONNX Runtime on the graph of the file, on CUDA where its provider is present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rt.distance.contract import Contract, Weights


class OnnxDistance:
    """d(I, a) by ONNX Runtime. Arguments must have passed rt.distance's check."""

    def __init__(self, model: str | Path | bytes, threads: int = 0):
        """`model` is a path or a serialised graph; `threads` 0 means one per core."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        present = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider",) if p in present]
        self._session: Any = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=[*providers, "CPUExecutionProvider"],
        )

    @property
    def providers(self) -> list[str]:
        """Execution providers in use, by preference."""
        names: list[str] = self._session.get_providers()
        return names

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        feed = {"depth": depth[None, None], "actions": actions}
        distance: NDArray[np.float32] = self._session.run(["distance"], feed)[0]
        if out is None:
            return distance
        out[:] = distance
        return out


def open_backend(
    path: Path, contract: Contract, weights: Weights, threads: int, precision: str
) -> OnnxDistance:
    return OnnxDistance(path, threads)
