"""Instruction count of one call of the native backend by valgrind: repeatable, unlike times."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from rt.distance.contract import read_model
from rt.distance.model import SHIPPED_MODEL
from rt.distance.native import pack

# Only NumPy and the compiled module: every import runs fifty times slower under valgrind.
_SCRIPT = """
import importlib.util, pathlib, sys
import numpy as np
spec = importlib.util.spec_from_file_location("_native", sys.argv[1])
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
arrays = {f.stem: np.load(f) for f in pathlib.Path(sys.argv[2]).glob("*.npy")}
depth, actions = arrays.pop("depth"), arrays.pop("actions")
scalars = {k: arrays.pop(k).item() for k in ("fc2_bias", "slope", "encoded")}
engine = native.DistanceEngine(**arrays, **scalars, threads=1, isa="")
out = np.empty(len(actions), np.float32)
for _ in range(int(sys.argv[3])):
    engine.run(depth, actions, out)
print(engine.isa)
"""


class CallgrindError(RuntimeError):
    """Valgrind or the native module is missing, or valgrind failed."""


def count_instructions(
    path: Path | None, depth: np.ndarray, actions: np.ndarray, precision: str = "float32"
) -> dict[str, object]:
    """Instructions per call on one thread: half the difference between runs of three calls and of one.

    Valgrind does not support AVX-512, so that the module sees a processor with AVX2 at most.
    """
    from rt.native import native

    if shutil.which("valgrind") is None:
        raise CallgrindError("--callgrind needs valgrind (Debian: apt-get install valgrind)")
    if native is None:
        raise CallgrindError("--callgrind counts the native backend, which is not built")
    contract, weights = read_model(path or SHIPPED_MODEL)
    with tempfile.TemporaryDirectory() as folder:
        arrays = pack(contract, weights, precision) | {"depth": depth, "actions": actions}
        for name, array in arrays.items():
            np.save(Path(folder) / name, array)
        few, isa = _run(str(native.__file__), folder, 1)
        more, _ = _run(str(native.__file__), folder, 3)
    return {
        "isa": isa,
        "precision": precision,
        "candidates": len(actions),
        "instructions_per_call": (more - few) // 2,
    }


def _run(module: str, folder: str, calls: int) -> tuple[int, str]:
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
    command += [sys.executable, "-S", "-c", _PATHS + _SCRIPT, module, folder, str(calls)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        raise CallgrindError(f"valgrind failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(found[1]), done.stdout.strip()


# The paths of this interpreter, without running `site` (and its .pth files) under valgrind.
_PATHS = f"import sys; sys.path[:] = {[p for p in sys.path if p]!r}\n"
