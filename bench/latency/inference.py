"""Inference timed: every backend, number of candidates and threads, taken in turns in one run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt import controller
from rt.distance.contract import Contract, DistanceError, Weights, read_model
from rt.distance.field_native import FieldNative
from rt.distance.graph import tiled_graph
from rt.distance.model import SHIPPED, SHIPPED_MODEL, Distance, open_model
from rt.distance.native import NativeDistance
from rt.distance.onnx_runtime import OnnxDistance
from rt.distance.reference import open_backend as open_reference

FULL_MAP = 64 * 64 * 18
"""Candidates of a map of the whole view: every pixel, an angle every 10 degrees."""
CHUNK = 1024
"""Backends that hold an activation per candidate get more than 4096 in chunks: 35 kB each, tiled 170."""
BACKENDS = ("reference", "tiled", "onnx", "native", "native-half", "tensorrt")
FIELD_BACKENDS = ("field-reference", "field-onnx", "field-native")
"""The field network on the same view and candidates, beside whatever network is timed."""

Call = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


@dataclass
class TimedBackend:
    """One backend with one number of threads at one number of candidates, and its calls so far."""

    backend: str
    threads: int
    candidates: int
    call: Call
    times_s: list[float] = field(default_factory=list)
    stages_s: list[dict[str, float]] = field(default_factory=list)
    max_abs_error_m: float = float("nan")
    compute: Any = None

    def measure(self, depth: NDArray[np.float32], actions: NDArray[np.float32]) -> None:
        start = time.perf_counter()
        self.call(depth, actions)
        self.times_s.append(time.perf_counter() - start)
        if isinstance(self.compute, (NativeDistance, FieldNative)):
            self.stages_s.append(self.compute.stages_s())

    def result(self) -> dict[str, Any]:
        """As in latency.json."""
        ms = np.sort(self.times_s) * 1e3
        p50, p99, p999 = (float(np.percentile(ms, p, method="higher")) for p in (50.0, 99.0, 99.9))
        result = {
            "backend": self.backend,
            "candidates": self.candidates,
            "threads": self.threads,
            "calls": len(ms),
            "p50_ms": p50,
            "p99_ms": p99,
            "p999_ms": p999,
            "max_ms": float(ms[-1]),
            "min_ms": float(ms[0]),
            "candidates_per_s": self.candidates / (p50 * 1e-3),
            "max_abs_error_m": self.max_abs_error_m,
        }
        if self.stages_s:
            names = self.stages_s[0]
            result["stages_ms"] = {
                n: float(np.median([s[n] for s in self.stages_s])) * 1e3 for n in names
            }
        return result


def all_threads() -> int:
    return len(os.sched_getaffinity(0))


def open_backends(
    path: Path | None, names: tuple[str, ...], threads: tuple[int, ...]
) -> Iterator[tuple[str, int, Call, Any]]:
    """(name, threads, call, compute) of each that can run here; DistanceError for one that is named."""
    for name in names:
        kind = name.removeprefix("field-")
        at = SHIPPED["field"] if kind != name else path or SHIPPED_MODEL
        contract, weights = read_model(at)
        if kind == "reference":  # threads are NumPy's own
            reference = open_reference(at, contract, weights, 0, "float32")
            yield name, all_threads(), _chunked(reference, CHUNK), reference
            continue
        for count in threads:
            distance: Call
            if kind == "tiled":
                compute = _open_tiled(contract, weights, count)
                yield name, count, _chunked(compute, CHUNK // 4), compute
            elif kind == "tensorrt":
                distance = open_model(at, kind)
                yield name, 0, distance, None
                break
            else:
                backend, _, half = (kind, "", "") if ":" in kind else kind.partition("-")
                opened: Distance = open_model(
                    at, backend, threads=count, precision="half" if half else "float32"
                )
                paper = contract.architecture == "paper"
                call = _chunked(opened, 4096) if backend == "onnx" and paper else opened
                yield name, count, call, opened.compute


def available() -> tuple[str, ...]:
    """Backends that can be timed on this machine."""
    from rt.distance.engine import gpu_name, import_library
    from rt.native import native

    names = [n for n in BACKENDS if n != "tensorrt" and (native or not n.startswith("native"))]
    if SHIPPED["field"].is_file():
        names += [n for n in FIELD_BACKENDS if native or n != "field-native"]
    try:
        import_library()
        gpu_name()
        names.append("tensorrt")
    except DistanceError:
        pass
    return tuple(names)


def _open_tiled(contract: Contract, weights: Weights, threads: int) -> OnnxDistance:
    return OnnxDistance(tiled_graph(contract, weights).SerializeToString(), threads)


def _chunked(call: Call, most: int) -> Call:
    def in_chunks(depth: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(actions) <= most:
            return call(depth, actions)
        return np.concatenate(
            [call(depth, actions[i : i + most]) for i in range(0, len(actions), most)]
        )

    return in_chunks


def view(rng: np.random.Generator) -> NDArray[np.float32]:
    """A made-up view (64, 64) m: a table at 0.28 m, three boxes on it, sensor noise, holes."""
    depth = np.full((64, 64), 0.28)
    for _ in range(3):
        v, u = rng.integers(5, 45, 2)
        depth[v : v + rng.integers(6, 18), u : u + rng.integers(6, 18)] -= rng.uniform(0.02, 0.1)
    depth += rng.normal(0, 0.0005, depth.shape)
    depth[rng.random(depth.shape) < 0.02] = 0
    return depth.astype(np.float32)


def some_actions(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(count, 3): near the hand as the loop draws them, or for FULL_MAP the grid over the whole view."""
    if count != FULL_MAP:
        return controller.candidates(rng, count)
    half_width_m = 0.28 * np.tan(np.radians(35))
    offset = (np.arange(64) + 0.5) / 32 * half_width_m - half_width_m
    theta = np.radians(np.arange(18) * 10.0 - 90)
    grid = np.meshgrid(theta, offset, offset, indexing="ij")
    return np.stack([grid[2], grid[1], grid[0]], axis=-1).reshape(-1, 3).astype(np.float32)


def time_backends(
    path: Path | None,
    names: tuple[str, ...],
    threads: tuple[int, ...],
    candidates: tuple[int, ...],
    seconds: float,
    longest_s: float,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Results as in latency.json, and a line for each combination that was left out as too slow.

    At each number of candidates the backends take turns, one call each, until each has had `seconds`
    of its own (at least 5 calls): a disturbance meets them all. One whose call is expected to take over
    `longest_s` is left out.
    """
    opened = list(open_backends(path, names, threads))
    oracles = {}
    for of_field in {name.startswith("field-") for name in names}:
        at = SHIPPED["field"] if of_field else path or SHIPPED_MODEL
        oracles[of_field] = _chunked(open_reference(at, *read_model(at), 0, "float32"), CHUNK)
    depth = view(rng)
    results, left_out = [], []
    for count in sorted(candidates):
        actions = some_actions(count, rng)
        checked = np.unique(np.linspace(0, count - 1, min(count, CHUNK)).astype(int))
        wanted = {key: oracle(depth, actions[checked]) for key, oracle in oracles.items()}
        entries = []
        for name, thread_count, call, compute in opened:
            if _expected_s(call, depth, actions) > longest_s:
                left_out.append(
                    f"{name}, {thread_count} threads, {count} candidates: over {longest_s:g} s a call"
                )
                continue
            progress(f"{count} candidates: {name}, {thread_count} threads")
            entry = TimedBackend(name, thread_count, count, call, compute=compute)
            found = call(depth, actions)  # also warms up
            entry.max_abs_error_m = float(
                np.abs(found[checked] - wanted[name.startswith("field-")]).max()
            )
            entries.append(entry)
        progress(f"{count} candidates: {len(entries)} backends in turns")
        while waiting := [e for e in entries if len(e.times_s) < 5 or sum(e.times_s) < seconds]:
            for entry in waiting:
                entry.measure(depth, actions)
        for entry in entries:
            results.append(entry.result())
    return results, left_out


def _expected_s(call: Call, depth: NDArray[np.float32], actions: NDArray[np.float32]) -> float:
    """Expected time of a call [s], from a call with a sixteenth of the candidates."""
    if len(actions) < 256:
        return 0.0
    start = time.perf_counter()
    call(depth, actions[: len(actions) // 16])
    return 16 * (time.perf_counter() - start)
