"""The model file: written, read back, refused when it does not fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from rt.distance.contract import ENCODED, Contract, ModelError, read_model
from rt.distance.graph import factored_graph, tiled_graph, write_model
from rt.distance.onnx_runtime import OnnxDistance
from rt.distance.reference import ReferenceDistance
from rt.hand import load_hand
from tests.conftest import random_weights

RNG = np.random.default_rng(1)


def contract(**changes) -> Contract:
    return replace(Contract(hand=load_hand(), training_set="random"), **changes)


def test_a_written_model_reads_back_whole(any_model_file):
    read, weights = read_model(any_model_file)
    assert read.hand == load_hand() and read.training_set == "random"
    assert len(read.weights_sha256) == 64
    assert set(weights) == set(random_weights(read.action_encoding))
    onnx.checker.check_model(onnx.load(any_model_file), full_check=True)


def test_tiled_and_factored_graphs_are_the_same_function(any_model_file, depth_view):
    read, weights = read_model(any_model_file)
    actions = RNG.uniform(-0.06, 0.06, (48, 3)).astype(np.float32)
    factored = OnnxDistance(any_model_file)(depth_view, actions)
    tiled = OnnxDistance(tiled_graph(read, weights).SerializeToString())(depth_view, actions)
    assert np.ptp(factored) > 0.01
    np.testing.assert_allclose(tiled, factored, atol=1e-6)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_the_slope_of_the_contract_is_the_one_computed(slope, depth_view):
    weights = random_weights("double_angle")
    c = contract(leaky_slope=slope)
    actions = RNG.uniform(-0.06, 0.06, (9, 3)).astype(np.float32)
    graph = OnnxDistance(factored_graph(c, weights).SerializeToString())
    np.testing.assert_allclose(
        graph(depth_view, actions),
        ReferenceDistance(c, weights)(depth_view, actions),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("fc1.bias"), "lack fc1.bias"),
        (lambda w: w.update({"fc1.bias": np.zeros(499, np.float32)}), r"\(499,\).*\(500,\)"),
        (lambda w: w.update({"fc1.bias": np.zeros(500)}), "float64"),
        (lambda w: w["conv1.bias"].__setitem__(3, np.nan), "conv1.bias reaches nan"),
        (lambda w: w["fc1.weight"].__setitem__((0, 0), 1e9), "fc1.weight reaches 1e"),
        (lambda w: w["conv2.weight_sum"].__setitem__((4, 4), 9), "weight_sum"),
    ],
)
def test_weights_that_do_not_fit_together_are_refused_before_writing(tmp_path, change, says):
    weights = random_weights("double_angle")
    change(weights)
    with pytest.raises(ModelError, match=says):
        write_model(tmp_path / "m.onnx", contract(), weights)
    assert list(tmp_path.iterdir()) == []


def test_unknown_encoding_and_slope_are_refused(tmp_path):
    weights = random_weights("raw")
    with pytest.raises(ModelError, match=", ".join(ENCODED)):
        write_model(tmp_path / "m.onnx", contract(action_encoding="polar"), weights)
    with pytest.raises(ModelError, match="leaky_slope"):
        write_model(tmp_path / "m.onnx", contract(action_encoding="raw", leaky_slope=1.5), weights)


def test_an_altered_model_is_refused(model_file: Path, tmp_path):
    model = onnx.load(model_file)
    bias = next(i for i in model.graph.initializer if i.name == "fc1.bias")
    array = onnx.numpy_helper.to_array(bias).copy()
    array[7] += 1e-3
    bias.CopyFrom(onnx.numpy_helper.from_array(array, "fc1.bias"))
    onnx.save(model, tmp_path / "altered.onnx")
    with pytest.raises(ModelError, match="altered"):
        read_model(tmp_path / "altered.onnx")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no model file.*train\.export"):
        read_model(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelError, match=r"not an ONNX file|no 'contract'"):
        read_model(tmp_path / "text.onnx")


@pytest.mark.parametrize("domain", ["", "com.else"])
def test_an_operator_that_onnx_lacks_is_refused_whatever_computes_the_model(
    domain, any_model_file, tmp_path
):
    model = onnx.load(any_model_file)
    model.graph.node[3].op_type, model.graph.node[3].domain = "Frobnicate", domain
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match=r"the operator '.*Frobnicate' of node"):
        read_model(tmp_path / "broken.onnx")
