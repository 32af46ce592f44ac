"""The compiled kernels: that they are there, and which instruction set they use."""

from __future__ import annotations

import os

from rt.distance.contract import DistanceError
from rt.native import native

ISA_VARIABLE = "GRASP_SERVO_ISA"
"""Environment variable that names the instruction set (sse2, avx2, avx512; neon), for tests."""


def require_native() -> None:
    """Raises DistanceError, with the remedy, if the kernels are not built."""
    if native is None:
        raise DistanceError(
            "backend 'native' needs rt._native, which is not built (or GRASP_SERVO_NATIVE=0 is set); "
            "install a C++ compiler and run `pip install -e .`, or use backend 'onnx'"
        )


def choose_isa(isa: str, available: list[str]) -> str:
    """`isa`, or else the environment's, '' for the best. Raises DistanceError for one that is not here."""
    isa = isa or os.environ.get(ISA_VARIABLE, "")
    if isa and isa not in available:
        raise DistanceError(
            f"instruction set {isa!r} is not one of this processor: {', '.join(available)}"
        )
    return isa
