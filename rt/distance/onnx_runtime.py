"""Backend `onnx`: ONNX Runtime on the graph of the file, on CUDA where its provider is present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rt.distance.contract import ARCHITECTURES, Contract, ModelError, Weights

OUTPUTS = ("distance", "probability", "spread")


class OnnxDistance:
    """d(I, a) by ONNX Runtime. Arguments must have passed rt.distance's check."""

    def __init__(self, model: str | Path | bytes, threads: int = 0):
        """`model` is a path or a serialised graph; `threads` 0 means one per core."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        present = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider",) if p in present]
        # A thread that spins after the call would cost the loop a core between two cycles.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=[*providers, "CPUExecutionProvider"],
            )
        except Exception as error:  # the library's own, of no common base
            raise ModelError(f"ONNX Runtime cannot open {_name(model)}: {error}") from error
        have = [output.name for output in self._session.get_outputs()]
        self.outputs = tuple(name for name in OUTPUTS if name in have)

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

    def predict(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32] | None, ...]:
        """Distance [m], probability and spread [m], (N,) each; None where the graph has none."""
        feed = {"depth": depth[None, None], "actions": actions}
        found = dict(zip(self.outputs, self._session.run(list(self.outputs), feed), strict=True))
        return tuple(found.get(name) for name in OUTPUTS)

    def try_out(self, size_px: int) -> None:
        """One call with three candidates. Raises ModelError if it fails or an output is not (3,)."""
        depth, actions = np.full((size_px, size_px), 0.25, np.float32), np.zeros((3, 3), np.float32)
        try:
            found = self._session.run(
                list(self.outputs), {"depth": depth[None, None], "actions": actions}
            )
        except Exception as error:
            raise ModelError(
                f"the graph does not take depth (1, 1, {size_px}, {size_px}) and actions (3, 3): {error}"
            ) from error
        for name, array in zip(self.outputs, found, strict=True):
            if array.shape != (3,) or array.dtype != np.float32:
                raise ModelError(
                    f"output {name!r} of 3 candidates is {array.shape} {array.dtype}, must be (3,) float32"
                )


def _name(model: str | Path | bytes) -> str:
    return "the graph" if isinstance(model, bytes) else str(model)


def open_backend(
    path: Path, contract: Contract, weights: Weights, threads: int, precision: str
) -> OnnxDistance:
    opened = OnnxDistance(path, threads)
    if contract.architecture not in ARCHITECTURES:
        try:
            opened.try_out(contract.view.size_px)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
    return opened
