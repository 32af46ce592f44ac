"""TensorRT: the build for real with tensorrt_rtx where it is installed; the runtime needs a GPU."""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import replace

import numpy as np
import onnx
import pytest
from needs import NO_GPU, no

from rt.distance import DistanceError, open_model
from rt.distance import engine as engine_module
from rt.distance.contract import read_model
from rt.distance.engine import (
    PRECISIONS,
    EngineKey,
    build_engine,
    built_for,
    engine_path,
    gpu_name,
    read_engine,
    with_half_fc1,
    write_engine,
)
from rt.distance.graph import factored_graph
from rt.distance.onnx_runtime import OnnxDistance
from rt.distance.reference import ReferenceDistance

KEY = EngineKey("0" * 64, "tensorrt 10.0", "NVIDIA L4 SM89", "fp16")
needs_builder = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason=no("tensorrt-rtx")
)


def a_gpu_is_here() -> bool:
    try:
        gpu_name()
    except DistanceError:
        return False
    return True


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "1" * 64},
        {"library": "tensorrt 10.1"},
        {"gpu": "NVIDIA A2 SM86"},
        {"precision": "tf32"},
        {"max_candidates": 64},
    ],
)
def test_an_engine_of_another_key_is_not_used(tmp_path, change):
    path = write_engine(KEY, b"plan", tmp_path)
    assert read_engine(KEY, tmp_path) == b"plan"
    other = replace(KEY, **change)
    assert engine_path(other, tmp_path) != path and read_engine(other, tmp_path) is None
    # nor when somebody copies the file to that key's place
    engine_path(other, tmp_path).write_bytes(path.read_bytes())
    engine_path(other, tmp_path).with_suffix(".json").write_text(
        path.with_suffix(".json").read_text()
    )
    assert read_engine(other, tmp_path) is None


def test_a_damaged_engine_is_not_used(tmp_path):
    path = write_engine(KEY, b"plan", tmp_path)
    path.write_bytes(b"plaN")
    assert read_engine(KEY, tmp_path) is None
    path.write_bytes(b"plan")
    path.with_suffix(".json").write_text("{")
    assert read_engine(KEY, tmp_path) is None and not built_for(KEY.weights_sha256, tmp_path)
    write_engine(KEY, b"plan", tmp_path)
    assert built_for(KEY.weights_sha256, tmp_path) and not built_for("2" * 64, tmp_path)


@needs_builder
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_of_the_field_is_built_without_a_gpu(field_file, tmp_path, precision):
    path = build_engine(field_file, tmp_path, precision, 256, target="SM89")
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["key"]["weights_sha256"] == read_model(field_file)[0].weights_sha256
    assert record["key"]["precision"] == precision and path.stat().st_size > 1e6
    assert built_for(record["key"]["weights_sha256"], tmp_path)


@needs_builder
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_engine_is_built_without_a_gpu(model_file, tmp_path, precision):
    path = build_engine(model_file, tmp_path, precision, 256, target="SM89")
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["key"]["weights_sha256"] == read_model(model_file)[0].weights_sha256
    assert record["key"]["precision"] == precision and record["key"]["gpu"] == "SM89"
    size_mb = path.stat().st_size / 1e6
    assert 8 < size_mb < (13 if precision == "fp16" else 25)  # fc1 is 17 MB, or half
    key = EngineKey(**record["key"])
    assert read_engine(key, tmp_path) == path.read_bytes()


@needs_builder
def test_what_cannot_be_built_is_said(model_file, tmp_path):
    with pytest.raises(DistanceError, match=r"'SM70' is not one of .*SM89"):
        build_engine(model_file, tmp_path, target="SM70")
    with pytest.raises(DistanceError, match="fp32, tf32, fp16"):
        build_engine(model_file, tmp_path, "int8", target="SM89")
    with pytest.raises(DistanceError, match="max_candidates = 0"):
        build_engine(model_file, tmp_path, max_candidates=0, target="SM89")
    if not a_gpu_is_here():
        with pytest.raises(DistanceError, match=r"pycuda|no CUDA GPU"):
            build_engine(model_file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_half_graph_is_near_the_reference(model_file, depth_view):
    contract, weights = read_model(model_file)
    graph = with_half_fc1(factored_graph(contract, weights))
    onnx.checker.check_model(graph, full_check=True)
    actions = np.random.default_rng(0).uniform(-0.05, 0.05, (40, 3)).astype(np.float32)
    found = OnnxDistance(graph.SerializeToString())(depth_view, actions)
    wanted = ReferenceDistance(contract, weights)(depth_view, actions)
    error = np.abs(found - wanted).max()
    assert 0 < error < 1e-3


def test_without_the_library_the_message_says_what_to_install(monkeypatch):
    def nothing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(engine_module.importlib, "import_module", nothing)
    with pytest.raises(DistanceError, match=r"grasp-servo\[tensorrt\]"):
        engine_module.import_library()


@pytest.mark.skipif(a_gpu_is_here(), reason="a GPU is here: run where there is none")
def test_without_a_gpu_auto_falls_back_and_the_named_backend_fails(
    model_file, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DistanceError, match="backend 'tensorrt'"):
        open_model(model_file, "tensorrt")
    with caplog.at_level(logging.WARNING):
        assert open_model(model_file).backend in ("native", "onnx")
        assert not caplog.records  # nobody asked for a GPU
        key = replace(KEY, weights_sha256=read_model(model_file)[0].weights_sha256)
        write_engine(key, b"of some other machine")
        assert open_model(model_file).backend in ("native", "onnx")
    (record,) = caplog.records
    assert "backend 'tensorrt'" in record.getMessage() and "\n" not in record.getMessage()


@pytest.mark.gpu
@pytest.mark.skipif(not a_gpu_is_here(), reason=NO_GPU)
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("tf32", 1e-3), ("half", 1e-3)]
)
def test_equals_the_reference_on_a_gpu(model_file, tmp_path, monkeypatch, precision, tolerance):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    contract, weights = read_model(model_file)
    reference = ReferenceDistance(contract, weights)
    rng = np.random.default_rng(0)
    depth = rng.uniform(0, 0.6, (64, 64)).astype(np.float32)
    for _ in range(2):  # the second opens the cached engine
        d = open_model(model_file, "tensorrt", precision=precision)
        for n in (1, 17, 4096, 4097):
            actions = rng.uniform(-0.1, 0.1, (n, 3)).astype(np.float32)
            np.testing.assert_allclose(
                d(depth, actions), reference(depth, actions), rtol=0, atol=tolerance
            )
