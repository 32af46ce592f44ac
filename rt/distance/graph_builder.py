"""Building blocks for the ONNX graphs of every architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 8


class GraphBuilder:
    """Nodes and constants under construction; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def __call__(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def model(
        self,
        name: str,
        inputs: dict[str, Sequence[int | str]],
        outputs: dict[str, Sequence[int | str]],
        opset: int,
        metadata: dict[str, str],
    ) -> onnx.ModelProto:
        """The graph as a model; inputs and outputs by name, with their shapes, all float32."""

        def tensors(shapes: dict[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(k, TensorProto.FLOAT, shape)
                for k, shape in shapes.items()
            ]

        graph = helper.make_graph(
            self.nodes, name, tensors(inputs), tensors(outputs), self.initializers
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=IR_VERSION,
            producer_name="grasp-servo",
        )
        if metadata:
            helper.set_model_props(model, metadata)
        return model


def int64(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
