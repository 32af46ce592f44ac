"""A network of another architecture: an ONNX file with the three tensors and the contract.

    python docs/examples/own_network.py tall.onnx     then: python -m rt.servo --model tall.onnx

This one has no weights: the distance is the way to the highest point of the view. An exporter (torch.onnx,
tf2onnx) gives a graph with the same inputs and output; only `add_contract` is needed then.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from rt import VIEW, Contract, load_hand
from rt.distance.contract import METADATA_KEY


def add_contract(model: onnx.ModelProto) -> onnx.ModelProto:
    """The contract says for which hand and view the network was made; rt refuses it for others."""
    contract = Contract(hand=load_hand(), training_set="none", architecture="highest-point")
    model.metadata_props.add(key=METADATA_KEY, value=contract.to_json())
    return model


def highest_point() -> onnx.ModelProto:
    """depth (1, 1, 64, 64) m, 0 = no return; actions (N, 3) of x, y [m], theta [rad] -> distance (N,) m."""
    pixel = np.arange(VIEW.size_px, dtype=np.float32) - (VIEW.size_px / 2 - 0.5)
    v, u = np.meshgrid(pixel, pixel, indexing="ij")
    rays = np.stack([u, v], axis=-1).reshape(-1, 2) / np.float32(VIEW.focal_px)
    constants = {
        "rays": rays.astype(np.float32),
        "flat": np.array([-1], np.int64),
        "no_return": np.array(1e-3, np.float32),
        "far": np.array(VIEW.far_m, np.float32),
        "one": np.array([1], np.int64),
        "zero": np.array([0], np.int64),
        "two": np.array([2], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Reshape", ["depth", "flat"], ["z_all"]),
        node("Less", ["z_all", "no_return"], ["unseen"]),
        node("Where", ["unseen", "far", "z_all"], ["z"]),
        node("ArgMin", ["z"], ["nearest"], axis=0, keepdims=1),
        node("Gather", ["rays", "nearest"], ["ray"], axis=0),
        node("ReduceMin", ["z"], ["z_nearest"], keepdims=1),
        node("Mul", ["ray", "z_nearest"], ["place"]),  # (1, 2) m in the view
        node("Slice", ["actions", "zero", "two", "one"], ["x_y"]),
        node("Sub", ["x_y", "place"], ["way"]),
        node("ReduceL2", ["way"], ["distance"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "highest-point",
        [
            helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 1, 64, 64]),
            helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["N", 3]),
        ],
        [helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["N"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return add_contract(model)


if __name__ == "__main__":
    onnx.save(highest_point(), Path(sys.argv[1]))
