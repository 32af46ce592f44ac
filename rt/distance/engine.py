"""TensorRT engines of a model file: built here, cached under a key, rebuilt when stale or foreign.

`tensorrt` and `tensorrt_rtx` have the same API; this file is the only one that imports either. An
engine belongs to one model, one library version, one GPU and one precision. TensorRT needs the GPU
to build for it; TensorRT-RTX also builds on a machine without one, for a named target.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rt.distance.contract import Contract, DistanceError, Weights, read_model
from rt.distance.field_graph import map_graph
from rt.distance.graph import factored_graph
from rt.tools.files import whole

PRECISIONS = ("fp32", "tf32", "fp16")
"""tf32 rounds the factors of the matrix products to 10 bits of mantissa; fp16 also stores the largest of the
paper's network (fc1), or the field's convolutions but the first, in 16 bits."""

BUCKETS = (16, 64, 256, 1024, 4096)
"""Numbers of candidates that a CUDA graph is captured for; N is padded to the next."""
MAX_CANDIDATES = BUCKETS[-1]


def import_library() -> Any:
    """The module tensorrt, or tensorrt_rtx. Raises DistanceError if neither can be imported."""
    reasons = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return importlib.import_module(name)
        except Exception as error:  # a half-installed library raises anything
            reasons.append(f"{name}: {error}")
    raise DistanceError(
        f"backend 'tensorrt' needs TensorRT ({'; '.join(reasons)}); install the extra "
        "grasp-servo[tensorrt], or grasp-servo[tensorrt-rtx]"
    )


@dataclass(frozen=True)
class EngineKey:
    """Key of an engine: a difference in any field makes it another engine."""

    weights_sha256: str
    library: str
    """Name and version, such as `tensorrt_rtx 1.7.1.116`."""
    gpu: str
    """Name and compute capability, such as `NVIDIA L4 SM89`; without a GPU only the target `SM89`."""
    precision: str
    max_candidates: int = MAX_CANDIDATES

    @property
    def digest(self) -> str:
        """Sixteen hex digits that name the engine's file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Folder of the engines: $XDG_CACHE_HOME/grasp-servo, by default ~/.cache/grasp-servo."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "grasp-servo"


def engine_path(key: EngineKey, folder: Path | None = None) -> Path:
    return (folder or cache_folder()) / f"{key.digest}.engine"


def library_name(trt: Any) -> str:
    return f"{trt.__name__} {trt.__version__}"


def built_for(weights_sha256: str, folder: Path | None = None) -> bool:
    """True if an engine of this model was built, which is the sign that a GPU shall be used."""
    for record in (folder or cache_folder()).glob("*.json"):
        try:
            if json.loads(record.read_text())["key"]["weights_sha256"] == weights_sha256:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def read_engine(key: EngineKey, folder: Path | None = None) -> bytes | None:
    """The cached engine, or None if there is none, or it is damaged or of another key."""
    path = engine_path(key, folder)
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        plan = path.read_bytes()
    except (OSError, ValueError):
        return None
    if record.get("key") != asdict(key) or record.get("sha256") != hashlib.sha256(plan).hexdigest():
        return None
    return plan


def write_engine(key: EngineKey, plan: bytes, folder: Path | None = None) -> Path:
    """Store an engine and its record, each beside and renamed; a reader trusts only both together."""
    path = engine_path(key, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"key": asdict(key), "sha256": hashlib.sha256(plan).hexdigest()}
    for target, data in (
        (path, plan),
        (path.with_suffix(".json"), json.dumps(record, indent=1).encode() + b"\n"),
    ):
        with whole(target) as beside:
            beside.write_bytes(data)
    return path


def build_engine(
    onnx_path: str | Path,
    out: str | Path | None = None,
    precision: str = "fp32",
    max_candidates: int = MAX_CANDIDATES,
    target: str | None = None,
) -> Path:
    """Build an engine from a model file and return where it lies.

    out: folder of the cache, default cache_folder(). target: with tensorrt_rtx, a compute capability
    to build for where there is no GPU (`SM89`); by default the GPU that is here. The number of
    candidates stays free from 1 to max_candidates. Raises DistanceError, with the parser's or the
    builder's words, and ModelError for a damaged model.
    """
    if precision not in PRECISIONS:
        raise DistanceError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if not 1 <= max_candidates <= 1_000_000:
        raise DistanceError(f"max_candidates = {max_candidates} must be from 1 to 1000000")
    contract, _ = read_model(onnx_path)
    trt = import_library()
    gpu = target or gpu_name()
    key = EngineKey(contract.weights_sha256, library_name(trt), gpu, precision, max_candidates)
    plan = build_plan(onnx_path, trt, precision, max_candidates, target)
    return write_engine(key, plan, None if out is None else Path(out))


def require_buildable(target: str | None) -> None:
    """Raise DistanceError unless an engine can be built here: for the GPU, or for a target.

    The message names `--target` where that would do: tensorrt_rtx builds for a GPU that is elsewhere.
    """
    trt = import_library()
    if target is not None:
        _capability(trt, target)
        return
    try:
        gpu_name()
    except DistanceError as error:
        known = _capabilities(trt)
        if not known:
            raise
        raise DistanceError(
            f"no CUDA GPU is here: give the compute capability of the one that will run it, --target with "
            f"one of {', '.join(known)} (SM89: RTX 40 series); {error}"
        ) from error


def build_plan(
    onnx_path: str | Path,
    trt: Any,
    precision: str,
    max_candidates: int,
    target: str | None = None,
) -> bytes:
    """The serialised engine of a model file."""
    graph = engine_graph(*read_model(onnx_path), half=precision == "fp16")
    messages = _Messages(trt)
    builder = trt.Builder(messages.logger)
    if builder is None:
        raise DistanceError(f"TensorRT did not start: {messages.last}")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages.logger)
    if not parser.parse(graph.SerializeToString()):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise DistanceError(f"TensorRT cannot read {onnx_path}: {errors}")
    profile = builder.create_optimization_profile()
    profile.set_shape("actions", (1, 3), (min(1024, max_candidates), 3), (max_candidates, 3))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    else:
        config.set_flag(trt.BuilderFlag.TF32)
    if target is not None:
        _aim(trt, config, target)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DistanceError(f"TensorRT built no engine from {onnx_path}: {messages.last}")
    return bytes(plan)


def engine_graph(contract: Contract, weights: Weights, half: bool = False) -> onnx.ModelProto:
    """The graph that an engine is built from. Raises DistanceError for somebody's own architecture.

    The field's begins at the metric map, which is drawn on the CPU: TensorRT scatters with no reduction.
    """
    if contract.architecture == "field":
        return map_graph(contract, weights, half)
    if contract.architecture != "paper":
        raise DistanceError(
            f"backend 'tensorrt' builds the networks paper and field, not {contract.architecture!r}; use "
            "backend 'onnx'"
        )
    graph = factored_graph(contract, weights)
    if not half:
        return graph
    largest = float(np.abs(weights["fc1.weight"]).max())
    if largest > float(np.finfo(np.float16).max):
        raise DistanceError(f"fc1.weight reaches {largest:g}, too large for half precision")
    return with_half_fc1(graph)


def _aim(trt: Any, config: Any, target: str) -> None:
    capability = _capability(trt, target)
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)


def _capabilities(trt: Any) -> dict[str, Any]:
    """Compute capabilities that a library can build for where there is no GPU; none for TensorRT itself."""
    known = getattr(trt, "ComputeCapability", None)
    members = {} if known is None else known.__members__
    return {name: value for name, value in members.items() if name.startswith("SM")}


def _capability(trt: Any, target: str) -> Any:
    known = _capabilities(trt)
    if not known:
        raise DistanceError(
            f"target {target!r}: only tensorrt_rtx builds for a GPU that is not here; leave it out"
        )
    if target not in known:
        raise DistanceError(f"target {target!r} is not one of {', '.join(known)}")
    return known[target]


def with_half_fc1(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with fc1, nearly all of its arithmetic, in float16: explicit casts around it."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for initializer in graph.initializer:
        if initializer.name == "fc1.weight":
            array = onnx.numpy_helper.to_array(initializer).astype(np.float16)
            initializer.CopyFrom(onnx.numpy_helper.from_array(array, "fc1.weight"))
    index, fc1 = next((i, n) for i, n in enumerate(graph.node) if n.name == "fc1")
    bias = fc1.input[2]
    graph.node.remove(fc1)
    cast, node = onnx.TensorProto, onnx.helper.make_node
    for replacement in reversed(
        [
            node("Cast", ["flat"], ["flat_half"], name="flat_half", to=cast.FLOAT16),
            node("Gemm", ["flat_half", "fc1.weight"], ["fc1_half"], name="fc1_half", transB=1),
            node("Cast", ["fc1_half"], ["fc1_sum"], name="fc1_sum", to=cast.FLOAT),
            node("Add", ["fc1_sum", bias], ["fc1"], name="fc1"),
        ]
    ):
        graph.node.insert(index, replacement)
    return half


def gpu_name() -> str:
    """Name and compute capability of the first GPU. Raises DistanceError if there is none."""
    try:
        import pycuda.driver as cuda
    except Exception as error:
        raise DistanceError(
            f"backend 'tensorrt' needs pycuda and a CUDA driver ({error}); install grasp-servo[tensorrt] "
            "on a machine with a CUDA GPU"
        ) from error
    try:
        cuda.init()
        device = cuda.Device(0)
    except Exception as error:
        raise DistanceError(f"backend 'tensorrt' finds no CUDA GPU ({error})") from error
    major, minor = device.compute_capability()
    return f"{device.name()} SM{major}{minor}"


class _Messages:
    """TensorRT's log, of which the last warning or error is kept for our own message."""

    def __init__(self, trt: Any) -> None:
        self.last = "no message"
        outer = self

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.Severity.ERROR:
                    outer.last = message.strip()

        self.logger = Logger()
