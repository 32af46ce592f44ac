"""Backend `native`: the exact piecewise-linear evaluation in C++ (rt/native/distance*.cpp).

The algebra is in docs/inference.md; the twin and oracle is rt/distance/reference.py. The weights are
packed here once, in the order in which the kernels read them. The field's is in field_native.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import Contract, DistanceError, Weights, require_architecture
from rt.distance.field_native import FieldNative
from rt.distance.native_isa import choose_isa, require_native
from rt.native import native

STAGES = ("convolutions", "ranking", "sums")


def available_isas() -> list[str]:
    """Instruction sets that the kernels were built for and this processor has, best first."""
    return list(native.distance_isas()) if native is not None else []


class NativeDistance:
    """d(I, a) and its gradient. Arguments must have passed rt.distance's check."""

    def __init__(
        self,
        contract: Contract,
        weights: Weights,
        threads: int = 0,
        precision: str = "float32",
        isa: str = "",
    ):
        """`threads` 0: one per core that this process may use, as far as there is work for them.

        `isa` '': GRASP_SERVO_ISA, or the best. Raises DistanceError if the kernels are not built or
        this processor lacks the instruction set.
        """
        require_native()
        assert native is not None
        self._engine: Any = native.DistanceEngine(
            **pack(contract, weights, precision),
            threads=threads or min(len(os.sched_getaffinity(0)), native.DISTANCE_BLOCKS),
            isa=choose_isa(isa, available_isas()),
        )

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return str(self._engine.isa)

    @property
    def threads(self) -> int:
        return int(self._engine.threads)

    @property
    def growths(self) -> int:
        """Number of allocations of working memory: one, and one more for each larger N."""
        return int(self._engine.growths)

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

    def gradient(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """d (N,) m, and dd/da (N, 3) in m/m, m/m, m/rad (at a kink, of one side of it)."""
        distance = np.empty(len(actions), np.float32)
        slope = np.empty((len(actions), 3), np.float32)
        self._engine.gradient(depth, actions, distance, slope)
        return distance, slope


def pack(contract: Contract, weights: Weights, precision: str) -> dict[str, Any]:
    """Weights in the layouts of rt/native/distance_kernel.h, padded to whole blocks of hidden units."""
    assert native is not None
    group, block = native.DISTANCE_GROUP, native.DISTANCE_BLOCK
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    blocks = -(-500 // block)

    def blocked(array: NDArray[Any]) -> NDArray[np.float64]:
        """Hidden units of the first axis to (blocks, ..., block)."""
        padded = np.zeros((blocks * block, *array.shape[1:]))
        padded[:500] = array
        return np.moveaxis(padded.reshape(blocks, block, *array.shape[1:]), 1, -1)

    encoded = w["action.weight"].shape[1]
    bias_map = np.zeros((50, 5))
    bias_map[:, :encoded] = w["conv2.weight_sum"] @ w["action.weight"]
    bias_map[:, 4] = w["conv2.weight_sum"] @ w["action.bias"]
    per_channel = w["fc1.weight"].reshape(500, 50, 169).sum(axis=2)
    fc1 = blocked(weights["fc1.weight"].reshape(500, 50, 169))
    if precision == "half":
        largest = float(np.abs(fc1).max())
        if largest > float(np.finfo(np.float16).max):
            raise DistanceError(f"fc1.weight reaches {largest:g}, too large for half precision")
        packed: NDArray[Any] = np.ascontiguousarray(fc1, np.float16).view(np.uint16)
    else:
        packed = _float32(fc1)
    return {
        "conv1": _float32(w["conv1.weight"].reshape(-1, group, 25).transpose(0, 2, 1)),
        "conv1_bias": _float32(w["conv1.bias"]),
        "conv2": _float32(w["conv2.weight"].reshape(-1, group, 20, 25).transpose(0, 2, 3, 1)),
        "conv2_bias": _float32(w["conv2.bias"]),
        "bias_map": _float32(bias_map),
        "fc1": packed,
        "fc1_bias": _float32(blocked(w["fc1.bias"])),
        "fc1_linear": _float32(blocked(per_channel @ bias_map)),
        "fc2": _float32(blocked(w["fc2.weight"][0])),
        "fc2_bias": float(w["fc2.bias"][0]),
        "slope": contract.leaky_slope,
        "encoded": encoded,
    }


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)


def open_backend(
    path: Path, contract: Contract, weights: Weights, threads: int, precision: str
) -> NativeDistance | FieldNative:
    require_architecture("native", contract)
    if contract.architecture == "field":
        return FieldNative(contract, weights, threads)
    return NativeDistance(contract, weights, threads, precision)
