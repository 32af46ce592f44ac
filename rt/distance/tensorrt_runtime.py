"""Backend `tensorrt`: the engine of rt/distance/engine.py on a CUDA GPU, driven by pycuda.

Pinned buffers, one stream; a call uploads, launches once, downloads. The launch is a CUDA graph,
captured for each size of BUCKETS when it is first needed. Written against the documented API of
TensorRT 10 and pycuda; it has not been run on a GPU yet (tests marked `gpu` do that).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import (
    Contract,
    DistanceError,
    Weights,
    outputs_of,
    require_architecture,
)
from rt.distance.cuda_graph import CudaGraph
from rt.distance.engine import (
    BUCKETS,
    EngineKey,
    build_plan,
    gpu_name,
    import_library,
    library_name,
    read_engine,
    write_engine,
)
from rt.distance.metric_map import metric_map
from rt.distance.reference import open_backend as open_reference

_PRECISION = {"float32": "fp32", "tf32": "tf32", "half": "fp16"}
_TOLERANCE_M = {"float32": 1e-5, "tf32": 1e-3, "half": 1e-3}
_log = logging.getLogger(__name__)


class TensorRTDistance:
    """d(I, a) on the first GPU. Arguments must have passed rt.distance's check."""

    def __init__(
        self,
        path: Path,
        contract: Contract,
        precision: str = "float32",
        cache: Path | None = None,
    ):
        """Takes the engine from the cache, or builds it there. Raises DistanceError without a GPU."""
        trt = import_library()
        key = EngineKey(
            contract.weights_sha256, library_name(trt), gpu_name(), _PRECISION[precision]
        )
        import pycuda.driver as cuda

        self._contract = contract
        self._cuda, self._lock = cuda, threading.Lock()
        self._context = cuda.Device(0).retain_primary_context()
        self._context.push()
        try:
            self._engine = self._load(trt, path, key, cache)
            self._prepare(trt)
        except cuda.Error as error:
            raise DistanceError(f"backend 'tensorrt': CUDA failed ({error})") from error
        finally:
            self._context.pop()

    def _load(self, trt: Any, path: Path, key: EngineKey, cache: Path | None) -> Any:
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        plan = read_engine(key, cache)
        if plan is not None:
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is not None:
                return engine
        _log.warning("building a TensorRT engine for %s on %s (once)", path.name, key.gpu)
        plan = build_plan(path, trt, key.precision, key.max_candidates)
        write_engine(key, plan, cache)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise DistanceError(f"TensorRT cannot load the engine that it built for {key.gpu}")
        return engine

    def _prepare(self, trt: Any) -> None:
        """Buffers for the largest bucket, page-locked on the host; nothing is allocated later."""
        cuda, most = self._cuda, BUCKETS[-1]
        self._execution = self._engine.create_execution_context()
        self._stream = cuda.Stream()
        self._host, self._device = {}, {}
        size, cells = self._contract.view.size_px, self._contract.cells
        shapes: dict[str, tuple[int, ...]] = {"depth": (size, size)}
        if self._contract.architecture == "field":
            shapes = {"map": (2, cells, cells)}
        self._image, self.outputs = next(iter(shapes)), outputs_of(self._contract)
        shapes["actions"] = (most, 3)
        for name, shape in (shapes | dict.fromkeys(self.outputs, (most,))).items():
            self._host[name] = cuda.pagelocked_zeros(shape, np.float32)
            self._device[name] = cuda.mem_alloc(self._host[name].nbytes)
            self._execution.set_tensor_address(name, int(self._device[name]))
        self._graphs: dict[int, CudaGraph] = {}

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        distance = np.empty(len(actions), np.float32) if out is None else out
        self._run(depth, actions, {"distance": distance})
        return distance

    def predict(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32] | None, ...]:
        """Distance [m], probability and spread [m], (N,) each; None where the network has none."""
        results = {name: np.empty(len(actions), np.float32) for name in self.outputs}
        self._run(depth, actions, results)
        return tuple(results.get(name) for name in ("distance", "probability", "spread"))

    def _run(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        results: dict[str, NDArray[np.float32]],
    ) -> None:
        c, most = self._contract, BUCKETS[-1]
        image = depth
        if c.architecture == "field":
            image = metric_map(depth, c.cells, c.cell_m, c.view)
        with self._lock:
            self._context.push()
            try:
                for start in range(0, len(actions), most):
                    part = slice(start, start + most)
                    self._evaluate(image, actions[part], {n: r[part] for n, r in results.items()})
            except self._cuda.Error as error:
                raise DistanceError(f"backend 'tensorrt': CUDA failed ({error})") from error
            finally:
                self._context.pop()

    def _evaluate(
        self,
        image: NDArray[np.float32],
        actions: NDArray[np.float32],
        results: dict[str, NDArray[np.float32]],
    ) -> None:
        n = len(actions)
        bucket = next(b for b in BUCKETS if b >= n)
        self._host[self._image][:] = image
        self._host["actions"][:n] = actions
        self._host["actions"][n:bucket] = 0
        if bucket not in self._graphs:
            self._graphs[bucket] = self._capture(bucket)
        self._graphs[bucket].launch()
        self._stream.synchronize()
        for name, result in results.items():
            result[:] = self._host[name][:n]

    def _capture(self, n: int) -> CudaGraph:
        """The upload, the network and the download of n candidates as one CUDA graph."""
        if not self._execution.set_input_shape("actions", (n, 3)):
            raise DistanceError(f"the TensorRT engine refuses {n} candidates")
        self._enqueue(n)  # TensorRT allocates on the first run of a shape, which no graph may hold
        self._stream.synchronize()
        return CudaGraph(self._stream.handle, lambda: self._enqueue(n))

    def _enqueue(self, n: int) -> None:
        cuda, host, device, stream = self._cuda, self._host, self._device, self._stream
        cuda.memcpy_htod_async(device[self._image], host[self._image], stream)
        cuda.memcpy_htod_async(device["actions"], host["actions"][:n], stream)
        if not self._execution.execute_async_v3(stream.handle):
            raise DistanceError("TensorRT did not accept the call; see its log")
        for name in self.outputs:
            cuda.memcpy_dtoh_async(host[name][:n], device[name], stream)


def open_backend(
    path: Path, contract: Contract, weights: Weights, threads: int, precision: str
) -> TensorRTDistance:
    """Opens, and compares one answer with the reference: drivers and engines can be wrong."""
    require_architecture("tensorrt", contract)
    try:
        opened = TensorRTDistance(path, contract, precision)
        depth = np.full((contract.view.size_px,) * 2, 0.28, np.float32)
        depth[20:40, 25:35] = 0.22
        actions = np.linspace(-0.05, 0.05, 48, dtype=np.float32).reshape(16, 3)
        wanted = open_reference(path, contract, weights, 0, "float32")(depth, actions)
        error_m = float(np.abs(opened(depth, actions) - wanted).max())
    except DistanceError:
        raise
    except Exception as error:  # whatever a driver or a library raises, `auto` must go on
        raise DistanceError(f"backend 'tensorrt' does not start: {error}") from error
    if not error_m <= _TOLERANCE_M[precision]:
        raise DistanceError(
            f"backend 'tensorrt' is off by {error_m:.2g} m, more than {_TOLERANCE_M[precision]:g} m; "
            "use another backend, and report this"
        )
    return opened
