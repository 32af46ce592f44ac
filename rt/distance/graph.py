"""The ONNX graphs of the paper's network, and the writing of a model file of any architecture.

A file of the paper's network holds the factored graph; the plain tiled one is its equal, for comparison.

Layout and names of the weights: rt/distance/contract.py. METHOD, exactly: an action adds a constant to
every channel of pool1, so conv2 turns it into a bias per channel, and max pooling commutes with
adding a bias and with the leaky ReLU. The factored graph therefore runs both convolutions once per
image, the tiled one once per action; their outputs are equal up to rounding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from rt.distance.contract import (
    ENCODED,
    METADATA_KEY,
    SHAPES,
    Contract,
    ModelError,
    Weights,
    expected_shapes,
    hash_weights,
)
from rt.distance.field_graph import check_field_contract, field_graph
from rt.distance.graph_builder import GraphBuilder, int64
from rt.tools.files import whole

OPSET = 17
"""Read by ONNX Runtime from 1.12, TensorRT from 8.6 and TensorRT-RTX."""

MAX_WEIGHT = 1e6
"""No sum of the network can overflow float32 with weights up to this and a depth in metres."""


def model_graph(contract: Contract, weights: Weights) -> onnx.ModelProto:
    """The graph that a model file of the contract's architecture holds. Raises ModelError for another's."""
    check_weights(contract, weights)
    if contract.architecture == "field":
        return field_graph(contract, weights)
    if contract.architecture == "paper":
        return factored_graph(contract, weights)
    raise ModelError(
        f"architecture {contract.architecture!r} is not built here, only 'paper' and 'field'; export the "
        "graph yourself, with the contract as its metadata"
    )


def factored_graph(contract: Contract, weights: Weights) -> onnx.ModelProto:
    """The graph of a model file: image side once, then a bias per action. Metadata as `contract` is.

    depth (1, 1, 64, 64) float32 m, actions (N, 3) float32 -> distance (N,) float32 m.
    """
    g = _begin(contract, weights)
    pool1 = _image_side_to_pool1(g, contract)
    conv2 = g("Conv", "conv2", pool1, "conv2.weight", "conv2.bias")
    pooled = g("MaxPool", "pool2", conv2, kernel_shape=[2, 2], strides=[2, 2])
    u = g("Gemm", "u", _encode(g, contract), "action.weight", "action.bias", transB=1)
    bias = g(
        "Gemm", "bias", u, g.constant("conv2.weight_sum", weights["conv2.weight_sum"]), transB=1
    )
    bias = g("Reshape", "bias_nchw", bias, g.constant("shape_bias", int64(-1, 50, 1, 1)))
    return _finish(g, contract, "factored", g("Add", "z", pooled, bias))


def tiled_graph(contract: Contract, weights: Weights) -> onnx.ModelProto:
    """The same function as the paper draws it: u tiled over pool1, then conv2 for every action."""
    g = _begin(contract, weights)
    pool1 = _image_side_to_pool1(g, contract)
    u = g("Gemm", "u", _encode(g, contract), "action.weight", "action.bias", transB=1)
    u = g("Reshape", "u_nchw", u, g.constant("shape_u", int64(-1, 20, 1, 1)))
    conv2 = g("Conv", "conv2", g("Add", "pool1_u", pool1, u), "conv2.weight", "conv2.bias")
    pooled = g("MaxPool", "pool2", conv2, kernel_shape=[2, 2], strides=[2, 2])
    return _finish(g, contract, "tiled", pooled)


def write_model(path: str | Path, contract: Contract, weights: Weights) -> Contract:
    """Write the architecture's graph with its metadata beside `path` and rename it there.

    Fills in `weights_sha256` and returns the contract as written. Raises ModelError if a weight is
    missing, of a wrong shape or not finite, or conv2.weight_sum is not the sum of conv2.weight.
    """
    path = Path(path)
    check_weights(contract, weights)
    contract = replace(contract, weights_sha256=hash_weights(weights, contract.architecture))
    model = model_graph(contract, weights)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside:
        onnx.save(model, beside)
    return contract


def check_weights(contract: Contract, weights: Weights) -> None:
    """Raises ModelError, naming the weight, unless all are there and fit together."""
    paper = contract.architecture == "paper"
    if paper and contract.action_encoding not in ENCODED:
        known = ", ".join(ENCODED)
        raise ModelError(f"action_encoding {contract.action_encoding!r} is not one of: {known}")
    if contract.architecture == "field":
        check_field_contract(contract)
    if not 0.0 <= contract.leaky_slope <= 1.0:  # else max pooling would not commute with it
        raise ModelError(f"leaky_slope {contract.leaky_slope!r} must lie in [0, 1]")
    for name, shape in expected_shapes(contract, weights).items():
        if name not in weights:
            raise ModelError(f"weights lack {name}")
        array = weights[name]
        if array.shape != shape or array.dtype != np.float32:
            raise ModelError(f"{name} is {array.shape} {array.dtype}, must be {shape} float32")
        largest = float(np.abs(array).max())
        if not largest <= MAX_WEIGHT:  # written so that NaN is refused too
            raise ModelError(
                f"{name} reaches {largest:g}; weights must be finite, at most {MAX_WEIGHT:g}"
            )
    if not paper:
        return
    summed = weights["conv2.weight"].sum(axis=(2, 3), dtype=np.float64)
    worst = float(np.abs(summed - weights["conv2.weight_sum"]).max())
    if worst > 1e-5 * max(1.0, float(np.abs(weights["conv2.weight"]).sum(axis=(2, 3)).max())):
        raise ModelError(
            f"conv2.weight_sum is off by {worst:.2g}; it must be conv2.weight.sum(axis=(2, 3))"
        )


def _begin(contract: Contract, weights: Weights) -> GraphBuilder:
    check_weights(contract, weights)
    g = GraphBuilder()
    for name in SHAPES:
        if name != "conv2.weight_sum":  # the tiled graph has no use for it
            g.constant(name, weights[name])
    return g


def _image_side_to_pool1(g: GraphBuilder, contract: Contract) -> str:
    conv1 = g("Conv", "conv1", "depth", "conv1.weight", "conv1.bias")
    relu1 = g("LeakyRelu", "relu1", conv1, alpha=contract.leaky_slope)
    return g("MaxPool", "pool1", relu1, kernel_shape=[2, 2], strides=[2, 2])


def _encode(g: GraphBuilder, contract: Contract) -> str:
    if contract.action_encoding == "raw":
        return "actions"
    axis = g.constant("axis_1", int64(1))
    start, middle, end = (g.constant(f"column_{i}", int64(i)) for i in (0, 2, 3))
    xy = g("Slice", "xy", "actions", start, middle, axis)
    theta = g("Slice", "theta", "actions", middle, end, axis)
    double = g("Mul", "two_theta", theta, g.constant("two", np.array([2], np.float32)))
    return g("Concat", "encoded", xy, g("Cos", "cos", double), g("Sin", "sin", double), axis=1)


def _finish(g: GraphBuilder, contract: Contract, name: str, z: str) -> onnx.ModelProto:
    relu2 = g("LeakyRelu", "relu2", z, alpha=contract.leaky_slope)
    flat = g("Reshape", "flat", relu2, g.constant("shape_flat", int64(-1, 8450)))
    fc1 = g("Gemm", "fc1", flat, "fc1.weight", "fc1.bias", transB=1)
    relu3 = g("LeakyRelu", "relu3", fc1, alpha=contract.leaky_slope)
    fc2 = g("Gemm", "fc2", relu3, "fc2.weight", "fc2.bias", transB=1)
    g("Reshape", "distance", fc2, g.constant("shape_distance", int64(-1)))
    return g.model(
        f"grasp_distance_{name}",
        {"depth": (1, 1, 64, 64), "actions": ("N", 3)},
        {"distance": ("N",)},
        OPSET,
        {METADATA_KEY: contract.to_json()},
    )
