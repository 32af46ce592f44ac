"""The model file: one ONNX graph whose metadata says everything that the robot must agree with.

    depth (1, 1, 64, 64) [m, 0 = no return]    actions (N, 3) [m, m, rad] of x, y, theta
    distance (N,) [m]    and, where the network has them, probability (N,) and spread (N,) [m]

`architecture` in the metadata says which network it is. `field` is described in field_graph.py and
field_shapes.py. Any other name is somebody's own, which ONNX Runtime computes as the file says it.
`paper` (all float32; Viereck et al. 2017, Section III-A, factored exactly) is:

    Y = maxpool2(conv2(maxpool2(lrelu(conv1(depth)))))           (1, 50, 13, 13), once per image
    b = conv2.weight_sum @ (action.weight @ encode(actions) + action.bias)     (N, 50)
    distance = fc2(lrelu(fc1(lrelu(Y + b))))                     (N,) [m]

encode is (x, y, cos 2 theta, sin 2 theta) for `double_angle` and (x, y, theta) for `raw`. Every
normalisation is folded into the weights. Initialisers, by name: conv1.weight (20, 1, 5, 5),
conv1.bias (20,), action.weight (20, E), action.bias (20,), conv2.weight (50, 20, 5, 5), conv2.bias
(50,), conv2.weight_sum (50, 20), fc1.weight (500, 8450), fc1.bias (500,), fc2.weight (1, 500),
fc2.bias (1,). The plain tiled network of the paper is lrelu(maxpool2(conv2(pool1 + tile(u)))) with
u = action.weight @ encode(a) + action.bias, so both forms can be rebuilt from the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray

from rt.distance.field_shapes import FIELD_WEIGHTS, field_shapes
from rt.hand import Hand
from rt.pose import METRES_PER_DEGREE
from rt.tools.files import parsed
from rt.view import END_HEIGHT_M, START_HEIGHT_M, VIEW, View

FORMAT = "grasp-distance/1"
METADATA_KEY = "contract"
LEAST_END_M, MOST_START_M = 0.02, 2.0
"""Range of the heights of an approach."""

SHAPES: dict[str, tuple[int | None, ...]] = {
    "conv1.weight": (20, 1, 5, 5),
    "conv1.bias": (20,),
    "action.weight": (20, None),
    "action.bias": (20,),
    "conv2.weight": (50, 20, 5, 5),
    "conv2.bias": (50,),
    "conv2.weight_sum": (50, 20),
    "fc1.weight": (500, 8450),
    "fc1.bias": (500,),
    "fc2.weight": (1, 500),
    "fc2.bias": (1,),
}
ENCODED = {"double_angle": 4, "raw": 3}
"""Action encodings by name, and how many numbers each makes of (x, y, theta)."""

MOST_BYTES = 1_000_000_000
"""Largest model file; the shipped ones have some megabytes."""
ARCHITECTURES = ("paper", "field")
"""Architectures of the reference, native and TensorRT backends. ONNX Runtime computes any."""

Weights = Mapping[str, NDArray[np.float32]]


class DistanceError(ValueError):
    """Base of this package's errors: a call, an option or a model that cannot be served."""


class ModelError(DistanceError):
    """A model file that cannot be trusted: unreadable, altered, or made for something else."""


@dataclass(frozen=True)
class Contract:
    """Purpose of a model: hand, view, metric. Written by train.export, checked before the loop starts."""

    hand: Hand
    training_set: str
    view: View = VIEW
    start_height_m: float = START_HEIGHT_M
    end_height_m: float = END_HEIGHT_M
    metres_per_degree: float = METRES_PER_DEGREE
    action_encoding: str = "double_angle"
    leaky_slope: float = 0.1
    architecture: str = "paper"
    """`paper`, `field`, or the name of somebody's own network. Files older than the field say nothing."""
    cells: int = 96
    """Of the field's metric map, a side, and below one cell's side in metres."""
    cell_m: float = 0.0035
    distance_scale_m: float = 0.05
    """The field's distance is this times sinh of the network's first output."""
    weights_sha256: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Contract:
        """Raises ModelError if a field is missing, unknown or of another format."""
        try:
            values = parsed(json.loads, text)
            if values.get("format") != FORMAT:
                raise ModelError(
                    f"model format {values.get('format')!r}, this program reads {FORMAT!r}"
                )
            values["hand"] = Hand(**values["hand"])
            values["view"] = View(**values["view"])
            return _possible(Contract(**values))
        except DistanceError:
            raise
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ModelError(
                f"model contract is damaged: {error}; export the model again"
            ) from error

    def require(self, **expected: object) -> None:
        """Refuse a model that disagrees: require(hand=..., view=...) names each value that differs."""
        differences = []
        for name, wanted in expected.items():
            have = getattr(self, name)
            if have == wanted:
                continue
            if hasattr(have, "__dataclass_fields__") and type(have) is type(wanted):
                a, b = asdict(have), asdict(wanted)  # type: ignore[call-overload]
                differences += [
                    f"{name}.{k}: model {a[k]!r}, here {b[k]!r}" for k in a if a[k] != b[k]
                ]
            else:
                differences.append(f"{name}: model {have!r}, here {wanted!r}")
        if differences:
            raise ModelError(
                "the model was trained for something else (" + "; ".join(differences) + "); "
                "use a model trained for this cell, or mend the cell"
            )


def _possible(contract: Contract) -> Contract:
    """The contract, if its heights can be flown. Raises ModelError."""
    start_m, end_m = contract.start_height_m, contract.end_height_m
    if not LEAST_END_M <= end_m < start_m <= MOST_START_M:
        raise ModelError(
            f"start_height_m = {start_m!r} and end_height_m = {end_m!r} must be from {LEAST_END_M:g} to "
            f"{MOST_START_M:g} m, the end below the start; export the model again"
        )
    return contract


def outputs_of(contract: Contract) -> tuple[str, ...]:
    """Names of the outputs per candidate of a network of ARCHITECTURES."""
    if contract.architecture == "field":
        return ("distance", "probability", "spread")
    return ("distance",)


def require_architecture(backend: str, contract: Contract) -> None:
    """Raises DistanceError if a backend that computes only ARCHITECTURES is given another's."""
    if contract.architecture not in ARCHITECTURES:
        raise DistanceError(
            f"backend {backend!r} computes the networks {' and '.join(ARCHITECTURES)}, not "
            f"{contract.architecture!r}; use backend 'onnx'"
        )


def hash_weights(weights: Weights, architecture: str = "paper") -> str:
    """SHA-256 over names, shapes and little-endian bytes, in the order of the architecture's names.

    The names of somebody's own network are taken in alphabetical order.
    """
    names = {"paper": tuple(SHAPES), "field": FIELD_WEIGHTS}.get(architecture, sorted(weights))
    digest = hashlib.sha256()
    for name in names:
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def expected_shapes(contract: Contract, weights: Weights) -> dict[str, tuple[int | None, ...]]:
    """Every weight's name and shape; of somebody's own network none. Raises ModelError if a size is
    not given because its weight is missing."""
    if contract.architecture == "paper":
        encoded = ENCODED.get(contract.action_encoding)
        return SHAPES | {"action.weight": (20, encoded)}
    if contract.architecture == "field":
        try:
            return dict(field_shapes(weights))
        except KeyError as error:
            raise ModelError(f"weights lack {error.args[0]}") from None
        except ValueError as error:
            raise ModelError(f"{error}; export the model again") from None
    return {}


def read_model(path: str | Path) -> tuple[Contract, dict[str, NDArray[np.float32]]]:
    """Contract and weights of a model file; raises ModelError if it is damaged or foreign.

    Somebody's own architecture must have the tensors depth, actions and distance; its weights are all float32
    initialisers of the graph, and their hash is compared only if the contract has one.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no model file {path}; train.export makes one")
    if path.stat().st_size > MOST_BYTES:
        raise ModelError(f"{path} has more than {MOST_BYTES} bytes: it is no model for a loop")
    try:
        model = onnx.load(path)
    except Exception as error:
        raise ModelError(f"{path} is not an ONNX file: {error}") from error
    try:
        return _read(path, model)
    except DistanceError:
        raise
    except Exception as error:  # a damaged file makes its libraries raise anything
        raise ModelError(f"{path} is damaged ({error}); export the model again") from error


def _read(path: Path, model: onnx.ModelProto) -> tuple[Contract, dict[str, NDArray[np.float32]]]:
    """Contract and weights of a parsed file. Raises ModelError, or whatever its libraries raise."""
    metadata = {p.key: p.value for p in model.metadata_props}
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path} has no {METADATA_KEY!r} metadata: it was not made by train.export"
        )
    contract = Contract.from_json(metadata[METADATA_KEY])
    _require_tensors(path, model.graph)
    _require_operators(path, model.graph, contract.architecture not in ARCHITECTURES)
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    try:
        shapes = expected_shapes(contract, weights)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    for name, shape in shapes.items():
        if name not in weights:
            raise ModelError(f"{path} lacks {name}")
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            found = f"{weights[name].shape} {weights[name].dtype}"
            raise ModelError(f"{path}: {name} is {found}, must be {shape} float32")
    if shapes:
        weights = {name: weights[name] for name in shapes}
    else:
        weights = {n: w for n, w in weights.items() if w.dtype == np.float32}
    unknown_hash = not shapes and not contract.weights_sha256
    if not unknown_hash and hash_weights(weights, contract.architecture) != contract.weights_sha256:
        raise ModelError(
            f"{path}: weights do not match the hash in the metadata; the file was altered"
        )
    return contract, weights


def _require_operators(path: Path, graph: onnx.GraphProto, own: bool) -> None:
    """Raises ModelError for an operator that ONNX does not have: the kernels, which compute a known
    architecture from its weights, would not notice. own: operators of other domains may be there too."""
    for node in graph.node:
        standard = node.domain in ("", "ai.onnx")
        if not (onnx.defs.has(node.op_type) if standard else own):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ModelError(
                f"{path}: the operator {name!r} of node {node.name or list(node.output)!r} is none of "
                "ONNX; export the model again"
            )


def _require_tensors(path: Path, graph: onnx.GraphProto) -> None:
    """Raises ModelError unless the graph has depth, actions and distance, all float32."""
    inputs = {t.name: t for t in graph.input}
    outputs = {t.name: t for t in graph.output}
    for kind, tensors, name in (
        ("input", inputs, "depth"), ("input", inputs, "actions"), ("output", outputs, "distance"),
    ):  # fmt: skip
        if name not in tensors:
            have = ", ".join(tensors) or "none"
            raise ModelError(
                f"{path} has no {kind} {name!r} (it has {have}); a model takes depth (1, 1, 64, 64) and "
                "actions (N, 3) and gives distance (N,), all float32 (docs/formats.md)"
            )
        if tensors[name].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ModelError(f"{path}: {kind} {name!r} is not float32; export it as float32")
