"""One call for d(I, a), whatever computes it: open_model(), and the check that every call passes."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import (
    ARCHITECTURES,
    Contract,
    DistanceError,
    ModelError,
    Weights,
    read_model,
)
from rt.distance.engine import built_for
from rt.distance.graph import check_weights
from rt.native import native
from rt.tools.resolve import ResolveError, resolve

SHIPPED_MODEL = Path(__file__).parents[1] / "models" / "distance.onnx"
SHIPPED = {"paper": SHIPPED_MODEL, "field": SHIPPED_MODEL.with_name("field.onnx")}
"""Files that open_model knows by name."""
DEFAULT_MODEL = SHIPPED["field"]
"""The better of both in the trials (docs/training.md)."""

PRECISIONS = ("float32", "tf32", "half")
"""float32 is exact to rounding; tf32 rounds the factors of matrix products to 10 bits of mantissa; half
stores the paper's big weight matrix in 16 bits and sums in float32 (of the field only TensorRT has it)."""

MAX_DEPTH_M = 10.0
"""A larger depth is taken for millimetres and refused."""
MAX_OFFSET_M = 1.0
"""A larger x or y is refused: the view is 0.84 m wide where it ends."""
MAX_ANGLE_RAD = 2 * np.pi
"""A larger theta is taken for degrees and refused; wrap it, theta is equal modulo pi."""

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """Implementation of d(I, a). `gradient`, `predict` and `outputs` are optional."""

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Prediction:
    """All that a network says of N candidates, (N,) float32 each; None for what it has no output for."""

    distance: NDArray[np.float32]
    """To the nearest good grasp, m."""
    probability: NDArray[np.float32] | None
    """That a grasp lies within 15 mm, 0 to 1."""
    spread: NDArray[np.float32] | None
    """Half the 95 % interval of the distance, m."""


class Distance:
    """The distance function of one model: `distance(depth, actions)`.

    `contract` says what the model was made for, `backend` which backend computes it, `path` where
    the file is. May be called from several threads.
    """

    def __init__(self, path: Path, contract: Contract, backend: str, compute: Backend):
        self.path, self.contract, self.backend = path, contract, backend
        self.compute = compute

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Distance to the nearest good grasp after each candidate displacement.

        depth: (64, 64) float32 m along the optical axis, 0 = no return. actions: (N, 3) float32 of
        x, y [m], theta [rad] in the view, N >= 1. Returns (N,) float32 m, in `out` if it is given
        (then backend native allocates nothing). Raises DistanceError, naming the value and the
        remedy, before anything is computed.
        """
        _check(depth, actions, self.contract.view.size_px)
        if out is not None and (
            out.shape != (len(actions),)
            or out.dtype != np.float32
            or not (out.flags.c_contiguous and out.flags.writeable)
        ):
            raise DistanceError(
                f"out is {out.shape} {out.dtype}; give a contiguous ({len(actions)},) float32 array"
            )
        return self.compute(depth, actions, out)

    def predict(self, depth: NDArray[np.float32], actions: NDArray[np.float32]) -> Prediction:
        """Distance, probability and spread of each candidate, as far as the network has them.

        Arguments and errors as for a call. `require_outputs` refuses a model that lacks one beforehand.
        """
        _check(depth, actions, self.contract.view.size_px)
        if not hasattr(self.compute, "predict"):
            return Prediction(self.compute(depth, actions, None), None, None)
        return Prediction(*self.compute.predict(depth, actions))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs of `predict`: `distance`, and for some models `probability` and `spread`."""
        known: tuple[str, ...] = getattr(self.compute, "outputs", ("distance",))
        return known

    def require_outputs(self, *names: str) -> None:
        """Raises DistanceError if `predict` has no answer for one of these names."""
        if missing := [name for name in names if name not in self.outputs]:
            raise DistanceError(
                f"{self.path.name} (network {self.contract.architecture!r}) has no output "
                f"{', '.join(missing)}, only {', '.join(self.outputs)}; open a field model"
            )

    def gradient(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The distance (N,) m and its slope along x, y, theta: (N, 3) in m/m, m/m, m/rad.

        Raises DistanceError also where the backend has no gradient (see `has_gradient`).
        """
        if not self.has_gradient:
            remedy = "; open the model with 'native' or 'reference'"
            known = self.contract.architecture in ARCHITECTURES
            raise DistanceError(
                f"backend {self.backend!r} has no gradient{remedy if known else ''}"
            )
        _check(depth, actions, self.contract.view.size_px)
        result: tuple[NDArray[np.float32], NDArray[np.float32]] = self.compute.gradient(  # type: ignore[attr-defined]
            depth, actions
        )
        return result

    @property
    def has_gradient(self) -> bool:
        return hasattr(self.compute, "gradient")


def open_model(
    path: str | Path | None = None,
    backend: str = "auto",
    *,
    threads: int = 0,
    precision: str = "float32",
) -> Distance:
    """Open a model file, check its metadata, and choose what computes it.

    path: a file; `paper` or `field` for a shipped one; None for the default, `field`; or
    `module:attribute` of a function that returns a network of your own: called as network(depth, actions)
    -> (N,) float32 m, with a `contract`. backend: one of BACKENDS; `module:attribute` of an Opener; or
    `auto`: tensorrt if an engine was built for this model and GPU (train.export --tensorrt), else native,
    else onnx, with one line of log for each that cannot run here; a file of another architecture goes to
    onnx. threads: 0 for one per core (CPU backends). precision: one of PRECISIONS; with `auto` it is the
    least that is accepted. Raises ModelError for a missing or altered file, DistanceError for a backend that
    is unknown, cannot run here or has no such precision.
    """
    if path is not None and _is_own(str(path)):
        return _open_own(str(path))
    path = DEFAULT_MODEL if path is None else SHIPPED.get(str(path), Path(path))
    opener = None if backend == "auto" else _resolve("backend", backend, BACKENDS, ("auto",))
    if precision not in PRECISIONS:
        raise DistanceError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    if threads < 0:
        raise DistanceError(f"threads = {threads} must be 0 (one per core) or more")
    if backend != "auto" and precision not in _precisions(backend):
        raise DistanceError(
            f"backend {backend!r} has no precision {precision!r}, only {', '.join(_precisions(backend))}"
        )
    contract, weights = read_model(path)
    check_weights(contract, weights)
    if backend == "native" and precision == "half" and contract.architecture == "field":
        raise DistanceError("backend 'native' has no precision 'half' for the field, only float32")
    names = [backend] if backend != "auto" else _automatic(contract)
    for name in names:
        served = precision if precision in _precisions(name) else "float32"
        try:
            compute = (opener or BACKENDS[name])(path, contract, weights, threads, served)
            return Distance(path, contract, name, compute)
        except DistanceError as error:
            if len(names) == 1:
                raise
            _log.warning("%s", error)
    raise DistanceError("no backend can run here; install onnxruntime or build rt._native")


def _is_own(text: str) -> bool:
    """True for `module:attribute`, which is no file."""
    return ":" in text and not Path(text).exists()


def _open_own(text: str) -> Distance:
    """A network that a function of the user's returns."""
    network = _resolve("model", text, {})()
    contract = getattr(network, "contract", None)
    if not isinstance(contract, Contract):
        raise ModelError(f"model {text!r} has no contract; give it one (rt.Contract)")

    def compute(
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.asarray(network(depth, actions), dtype=np.float32)
        if out is None:
            return found
        out[:] = found
        return out

    return Distance(Path(text), contract, "own", compute)


def _resolve(kind: str, text: str, known: Mapping[str, Any], extra: tuple[str, ...] = ()) -> Any:
    try:
        return resolve(kind, text, known, extra)
    except ResolveError as error:
        raise DistanceError(str(error)) from error


def _automatic(contract: Contract) -> list[str]:
    """Backends that `auto` tries, in order. A GPU is used if an engine of this model was built; rt.native has
    told already if its module is not there."""
    if contract.architecture not in ARCHITECTURES:
        return ["onnx"]
    gpu = ["tensorrt"] if built_for(contract.weights_sha256) else []
    return [*gpu, *(["native"] if native is not None else []), "onnx"]


def _check(depth: NDArray[np.float32], actions: NDArray[np.float32], size_px: int) -> None:
    """The one place where arguments of every backend are judged."""
    for name, array in (("depth", depth), ("actions", actions)):
        if not isinstance(array, np.ndarray):
            raise DistanceError(f"{name} is a {type(array).__name__}; give a numpy array")
        if array.dtype != np.float32 or not array.dtype.isnative:
            raise DistanceError(
                f"{name} is {array.dtype.str}; give float32: {name}.astype('float32')"
            )
    if depth.shape != (size_px, size_px):
        raise DistanceError(
            f"depth has shape {depth.shape}, must be ({size_px}, {size_px}); rt.view makes such views"
        )
    if actions.ndim != 2 or actions.shape[1] != 3 or len(actions) == 0:
        raise DistanceError(
            f"actions has shape {actions.shape}, must be (N, 3) of x, y, theta with N at least 1"
        )
    for name, array in (("depth", depth), ("actions", actions)):
        if not array.flags.c_contiguous:
            raise DistanceError(
                f"{name} is not C-contiguous (strides {array.strides}); give np.ascontiguousarray({name})"
            )
    low, high = _extremes(depth, 1)
    if not (low >= 0.0 and high <= MAX_DEPTH_M):  # written so that NaN is refused too
        raise DistanceError(
            f"depth spans {low:g} to {high:g}; give metres from 0 (no return) to {MAX_DEPTH_M:g}, all finite"
        )
    if high == 0.0:
        raise DistanceError(
            "depth is empty: no return in the whole view, and an answer to that means nothing; look at "
            "the image, its unit (metres) and the mount"
        )
    ends = _extremes(actions, 3)
    x, y, theta = (max(-ends[i], ends[i + 1]) for i in (0, 2, 4))
    if not (x <= MAX_OFFSET_M and y <= MAX_OFFSET_M and theta <= MAX_ANGLE_RAD):
        raise DistanceError(
            f"actions reach |x| {x:g} m, |y| {y:g} m, |theta| {theta:g} rad; the limits are "
            f"{MAX_OFFSET_M:g} m and {MAX_ANGLE_RAD:.4g} rad, all finite (theta is in radians)"
        )


def _extremes(array: NDArray[np.float32], columns: int) -> tuple[float, ...]:
    """(low, high) of every column; NaN if it holds one. Compiled, since NumPy's reductions allocate."""
    if native is not None:
        ends: tuple[float, ...] = native.extremes(array, columns)
        return ends
    rows = array.reshape(-1, columns)
    return tuple(np.stack([rows.min(axis=0), rows.max(axis=0)], axis=1).ravel().tolist())


Opener = Callable[[Path, Contract, Weights, int, str], Backend]


def _opener(module: str) -> Opener:
    """Import a backend only when it is asked for: each has libraries of its own."""

    def open_backend(
        path: Path, contract: Contract, weights: Weights, threads: int, precision: str
    ) -> Backend:
        backend: Backend = importlib.import_module(f"rt.distance.{module}").open_backend(
            path, contract, weights, threads, precision
        )
        return backend

    return open_backend


BACKENDS: dict[str, Opener] = {
    "reference": _opener("reference"),
    "onnx": _opener("onnx_runtime"),
    "native": _opener("native"),
    "tensorrt": _opener("tensorrt_runtime"),
}
"""Openers of the backends, by name; add a backend of your own here (docs/extending.md)."""

_SERVES = {
    "reference": ("float32",),
    "onnx": ("float32",),
    "native": ("float32", "half"),
    "tensorrt": PRECISIONS,
}


def _precisions(backend: str) -> tuple[str, ...]:
    return _SERVES.get(backend, ("float32",))
