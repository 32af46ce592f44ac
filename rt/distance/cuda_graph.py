"""CUDA graphs through the driver's C API: pycuda 2026.1 has no binding of stream capture."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from rt.distance.contract import DistanceError

_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class CudaGraph:
    """Recording of the work that `enqueue()` puts on a stream, launched as one."""

    def __init__(self, stream_handle: int, enqueue: Callable[[], None]):
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._stream = ctypes.c_void_p(stream_handle)
        graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            enqueue()
        finally:
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        self._call(
            "cuGraphInstantiateWithFlags",
            ctypes.byref(self._executable),
            graph,
            ctypes.c_ulonglong(0),
        )
        self._call("cuGraphDestroy", graph)

    def launch(self) -> None:
        self._call("cuGraphLaunch", self._executable, self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            raise DistanceError(f"backend 'tensorrt': {name} failed with CUDA error {code}")
