"""The field network's file: its graph against the oracle, what it refuses, and somebody's own network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rt.distance import DistanceError, ModelError, open_model
from rt.distance import model as model_module
from rt.distance.contract import METADATA_KEY, read_model
from rt.distance.engine import engine_graph
from rt.distance.field_graph import field_graph, map_graph
from rt.distance.field_reference import FieldReference, look_up
from rt.distance.graph import write_model
from rt.distance.graph_builder import GraphBuilder, int64
from rt.distance.metric_map import metric_map
from rt.distance.onnx_runtime import OnnxDistance
from rt.view import View
from tests.conftest import field_contract, random_field_weights

RNG = np.random.default_rng(4)
SMALL = {"channels": (3, 5, 4, 6, 7), "features": 5, "hidden": 9}


def some_actions(count: int, reach_m: float = 0.2) -> np.ndarray:
    limits = (reach_m, reach_m, np.pi)
    return RNG.uniform(np.negative(limits), limits, (count, 3)).astype(np.float32)


def test_the_graph_equals_the_reference(field_file, depth_view):
    contract, weights = read_model(field_file)
    reference, graph = FieldReference(contract, weights), OnnxDistance(field_file)
    assert graph.outputs == reference.outputs == ("distance", "probability", "spread")
    for count in (1, 300):
        actions = some_actions(count)
        for found, wanted in zip(
            graph.predict(depth_view, actions), reference.predict(depth_view, actions), strict=True
        ):
            assert found is not None and found.shape == (count,) and found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert np.ptp(graph(depth_view, some_actions(300))) > 0.01


@given(
    seed=st.integers(0, 2**32),
    far=st.floats(0.02, 0.7),
    cells=st.sampled_from([16, 80, 96]),
    cell_m=st.sampled_from([0.002, 0.0035, 0.0042, 0.02]),
)
@settings(deadline=None, max_examples=15)
def test_the_map_inside_the_graph_equals_the_native_one_bit_by_bit(seed, far, cells, cell_m):
    contract = field_contract(cells=cells, cell_m=cell_m)
    model = field_graph(contract, random_field_weights(**SMALL))
    shape = [1, 2, cells, cells]
    model.graph.output.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, shape))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0, far, (64, 64)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    feed = {"depth": depth[None, None], "actions": np.zeros((1, 3), np.float32)}
    (found,) = session.run(["map"], feed)
    wanted = metric_map(depth, cells, cell_m)
    np.testing.assert_array_equal(found[0].view(np.uint32), wanted.view(np.uint32))


def test_outside_the_map_only_the_angle_counts(field_file, depth_view):
    d = open_model(field_file, "reference")
    actions = np.zeros((3, 3), np.float32)
    actions[:, :2] = (0.3, 0.0), (-0.25, 0.5), (0.0, -0.9)
    found, slope = d.gradient(depth_view, actions)
    assert found[0] == found[1] == found[2] and not slope[:, :2].any()
    assert d(depth_view, np.zeros((1, 3), np.float32))[0] != found[0]


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_the_look_up_is_linear_between_pixels_and_its_slope_is_its_slope(seed):
    rng = np.random.default_rng(seed)
    features, cell_m = rng.normal(size=(3, 6, 6)), 0.01
    xy = rng.uniform(-0.05, 0.05, (40, 2))
    value, along_x, along_y = look_up(features, xy, cell_m)
    step = 1e-7
    for axis, slope in ((0, along_x), (1, along_y)):
        ahead = xy.copy()
        ahead[:, axis] += step
        same = (np.floor(xy / cell_m + 2.5) == np.floor(ahead / cell_m + 2.5)).all(axis=1)
        quotient = (look_up(features, ahead, cell_m)[0] - value) / step
        np.testing.assert_allclose(quotient[same], slope[same], atol=1e-4)
    at = np.array([[-0.025, -0.015]])  # the middle of the pixel in row 1, column 0
    np.testing.assert_allclose(look_up(features, at, cell_m)[0][0], features[:, 1, 0], atol=1e-9)


def test_the_gradient_is_the_slope(field_file, depth_view):
    d = open_model(field_file, "reference")
    actions = some_actions(60, 0.1)
    value, slope = d.gradient(depth_view, actions)
    np.testing.assert_allclose(value, d(depth_view, actions), atol=1e-7)
    for axis, step in ((0, 2e-4), (1, 2e-4), (2, 2e-3)):
        e = np.zeros(3, np.float32)
        e[axis] = step
        ahead, behind = actions + e, actions - e
        quotient = (d(depth_view, ahead) - d(depth_view, behind)) / (ahead - behind)[:, axis]
        # kinks of 128 rectifiers, and outputs rounded to 1e-8 m
        error = np.abs(quotient - slope[:, axis])
        assert np.median(error) < 0.02 * np.abs(slope[:, axis]).mean()


def test_half_precision_of_an_engine_stays_within_a_millimetre(field_file, depth_view):
    contract, weights = read_model(field_file)
    model = engine_graph(contract, weights, half=True)
    onnx.checker.check_model(model, full_check=True)
    halves = {i.name for i in model.graph.initializer if i.data_type == TensorProto.FLOAT16}
    assert {"mix1.weight", "out.bias"} <= halves and not {"in1.weight", "head1.weight"} & halves
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    actions = some_actions(200, 0.1)
    image = metric_map(depth_view, contract.cells, contract.cell_m)[None]
    (found,) = session.run(["distance"], {"map": image, "actions": actions})
    wanted = FieldReference(contract, weights)(depth_view, actions)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert np.abs(found - wanted).max() > 1e-7  # it is in half
    weights["mix2.weight"] = np.where(weights["mix2.weight"] > 0, np.float32(1e5), 0)
    with pytest.raises(ModelError, match=r"mix2\.weight reaches 100000, too large for half"):
        map_graph(contract, weights, half=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("mix3.bias"), r"lack mix3\.bias"),
        (lambda w: w.pop("down4.weight"), r"lack down4\.weight"),
        (lambda w: w.update({"same2.bias": np.zeros(7, np.float32)}), r"same2\.bias is \(7,\)"),
        (lambda w: w.update({"head3.bias": np.zeros(3)}), "float64"),
        (lambda w: w["whole.weight"].__setitem__((0, 0), np.nan), r"whole\.weight reaches nan"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_writing(tmp_path, change, says):
    weights = random_field_weights(**SMALL)
    change(weights)
    with pytest.raises(ModelError, match=says):
        write_model(tmp_path / "m.onnx", field_contract(), weights)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cells": 40}, "cells = 40 must be a multiple of 16"),
        ({"cell_m": 0.0}, "cell_m = 0"),
        ({"distance_scale_m": -1.0}, "distance_scale_m = -1"),
        ({"leaky_slope": 2.0}, "leaky_slope"),
        ({"architecture": "mine"}, "'mine' is not built here"),
    ],
)
def test_a_contract_that_cannot_be_is_refused(tmp_path, change, says):
    with pytest.raises(ModelError, match=says):
        write_model(tmp_path / "m.onnx", field_contract(**change), random_field_weights(**SMALL))


def test_an_altered_or_incomplete_file_is_refused(field_file, tmp_path):
    model = onnx.load(field_file)
    weight = next(i for i in model.graph.initializer if i.name == "mix1.bias")
    array = onnx.numpy_helper.to_array(weight).copy()
    array[3] += 1e-3
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "mix1.bias"))
    onnx.save(model, tmp_path / "altered.onnx")
    with pytest.raises(ModelError, match="altered"):
        open_model(tmp_path / "altered.onnx")
    model.graph.initializer.remove(weight)
    onnx.save(model, tmp_path / "lacks.onnx")
    with pytest.raises(ModelError, match=r"lacks mix1\.bias"):
        open_model(tmp_path / "lacks.onnx")


def test_a_file_that_says_no_architecture_is_the_papers(model_file, tmp_path):
    model = onnx.load(model_file)
    metadata = next(p for p in model.metadata_props if p.key == METADATA_KEY)
    values = json.loads(metadata.value)
    for name in ("architecture", "cells", "cell_m", "distance_scale_m"):
        del values[name]
    metadata.value = json.dumps(values)
    onnx.save(model, tmp_path / "old.onnx")
    d = open_model(tmp_path / "old.onnx", "onnx")
    assert d.contract.architecture == "paper" and d.outputs == ("distance",)


def own_network(
    path: Path, *, rename: str = "", flat: bool = True, probability: bool = False
) -> Path:
    """Somebody's own graph: the least depth of the view, plus the way that the hand goes."""
    g = GraphBuilder()
    least = g("ReduceMin", "least", "depth", keepdims=0)
    square = g("Mul", "square", "actions", "actions")
    way = g("ReduceSum", "way", square, g.constant("axis", int64(1)), keepdims=int(not flat))
    g.constant("tuning", np.ones(3, np.float32))
    outputs = {"distance": ("N",) if flat else ("N", 1)}
    g("Add", "distance", way, least)
    if probability:
        g("Sigmoid", "probability", "distance")
        outputs["probability"] = ("N",)
    contract = replace(field_contract(), architecture="mine")
    inputs = {rename or "depth": (1, 1, 64, 64), "actions": ("N", 3)}
    if rename:
        g("Identity", "depth", rename)
        g.nodes.insert(0, g.nodes.pop())
    model = g.model("own", inputs, outputs, 17, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    return path


def test_somebodys_own_network_opens_on_onnx_runtime(tmp_path, depth_view):
    d = open_model(own_network(tmp_path / "own.onnx"))
    assert d.backend == "onnx" and d.contract.architecture == "mine"
    actions = some_actions(5)
    wanted = depth_view.min() + (actions**2).sum(axis=1)
    np.testing.assert_allclose(d(depth_view, actions), wanted, rtol=1e-6)
    prediction = d.predict(depth_view, actions)
    assert prediction.probability is None and prediction.spread is None
    np.testing.assert_array_equal(prediction.distance, d(depth_view, actions))
    with pytest.raises(DistanceError, match="no output probability, spread, only distance"):
        d.require_outputs("distance", "probability", "spread")
    with pytest.raises(DistanceError, match="give metres"):
        d(depth_view * 1000, actions)
    half = open_model(own_network(tmp_path / "half.onnx", probability=True))
    assert half.outputs == ("distance", "probability")
    half.require_outputs("probability")
    assert half.predict(depth_view, actions).probability is not None


@pytest.mark.parametrize("backend", ["reference", "native", "tensorrt"])
def test_other_backends_refuse_it_with_the_remedy(tmp_path, backend):
    own = own_network(tmp_path / "own.onnx")
    with pytest.raises(DistanceError, match="paper and field, not 'mine'; use backend 'onnx'"):
        open_model(own, backend)


def test_its_tensors_are_named_when_they_are_missing_or_of_a_wrong_shape(tmp_path):
    other = own_network(tmp_path / "other.onnx", rename="image")
    with pytest.raises(ModelError, match=r"no input 'depth' \(it has image, actions\)"):
        open_model(other)
    column = own_network(tmp_path / "column.onnx", flat=False)
    with pytest.raises(ModelError, match=r"'distance' of 3 candidates is \(3, 1\).*must be \(3,\)"):
        open_model(column)


def test_a_view_of_another_size(tmp_path):
    contract = field_contract(view=View(size_px=32), cells=48)
    path = tmp_path / "m.onnx"
    write_model(path, contract, random_field_weights(**SMALL))
    depth, actions = np.full((32, 32), 0.25, np.float32), some_actions(20)
    wanted = open_model(path, "reference")(depth, actions)
    for backend in ("onnx", *(["native"] if model_module.native else [])):
        np.testing.assert_allclose(open_model(path, backend)(depth, actions), wanted, atol=1e-5)
