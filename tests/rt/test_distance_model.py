"""One call, whatever computes it: choice of backend, refusal of bad arguments, equality."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from needs import NO_NATIVE

from rt.distance import BACKENDS, DistanceError, ModelError, budget, candidates_for, open_model
from rt.distance import model as model_module

RNG = np.random.default_rng(2)
ACTIONS = RNG.uniform((-0.06, -0.06, -1.5), (0.06, 0.06, 1.5), (40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def distance(model_file):
    return open_model(model_file, "onnx")


@pytest.mark.parametrize("name", [b for b in BACKENDS if b != "tensorrt"])
def test_every_backend_equals_the_reference(name, any_model_file, depth_view):
    if name == "native" and model_module.native is None:
        pytest.skip(NO_NATIVE)
    reference = open_model(any_model_file, "reference")
    d = open_model(any_model_file, name)
    assert d.backend == name and d.contract == reference.contract
    result = d(depth_view, ACTIONS)
    assert result.dtype == np.float32 and result.shape == (40,)
    np.testing.assert_allclose(result, reference(depth_view, ACTIONS), atol=1e-5)
    out = np.empty(40, np.float32)
    assert d(depth_view, ACTIONS, out) is out
    np.testing.assert_array_equal(out, result)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d, a: (d.astype(np.float64), a), r"depth is <f8.*astype\('float32'\)"),
        (lambda d, a: (d, a.astype(">f4")), "actions is >f4"),
        (lambda d, a: (d.tolist(), a), "depth is a list"),
        (lambda d, a: (d[None], a), r"\(1, 64, 64\), must be \(64, 64\)"),
        (lambda d, a: (d, a[0]), r"\(3,\), must be \(N, 3\)"),
        (lambda d, a: (d, a[:0]), "N at least 1"),
        (lambda d, a: (d, np.asfortranarray(a)), "actions is not C-contiguous"),
        (lambda d, a: (d.T, a), "depth is not C-contiguous"),
        (lambda d, a: (np.where(d > 0.2, np.nan, d).astype(np.float32), a), "nan"),
        (lambda d, a: (np.where(d > 0.2, np.inf, d).astype(np.float32), a), "inf"),
        (lambda d, a: (-d, a), "give metres"),
        (lambda d, a: (d * 1000, a), "give metres"),
        (lambda d, a: (d, a * np.float32("nan")), "nan"),
        (lambda d, a: (d, a * 100), r"\|x\|"),
        (lambda d, a: (d, a * np.array([1, 1, 57.3], np.float32)), "radians"),
    ],
)
def test_bad_arguments_are_refused_by_name(distance, depth_view, change, says):
    depth, actions = change(depth_view, ACTIONS)
    with pytest.raises(DistanceError, match=says):
        distance(depth, actions)


def test_one_bad_value_anywhere_is_found(distance, depth_view):
    for index in ((0, 0), (63, 63), (31, 5)):
        depth = depth_view.copy()
        depth[index] = np.nan
        with pytest.raises(DistanceError):
            distance(depth, ACTIONS)
    for index in ((0, 0), (39, 1), (20, 2)):
        actions = ACTIONS.copy()
        actions[index] = np.nan
        with pytest.raises(DistanceError):
            distance(depth_view, actions)


@pytest.mark.skipif(model_module.native is None, reason=NO_NATIVE)
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf])
def test_compiled_extremes_equal_their_twin(columns, bad, monkeypatch):
    array = RNG.normal(size=(50, columns)).astype(np.float32)
    if bad is not None:
        array[17, columns - 1] = bad
    compiled = model_module._extremes(array, columns)
    monkeypatch.setattr(model_module, "native", None)
    np.testing.assert_array_equal(compiled, model_module._extremes(array, columns))


def test_a_foreign_out_is_refused(distance, depth_view):
    for out in (np.empty(39, np.float32), np.empty(40), np.empty(80, np.float32)[::2]):
        with pytest.raises(DistanceError, match="out is"):
            distance(depth_view, ACTIONS, out)


def test_gradient_only_where_there_is_one(distance, depth_view):
    assert not distance.has_gradient
    with pytest.raises(DistanceError, match="'native' or 'reference'"):
        distance.gradient(depth_view, ACTIONS)


def test_unknown_names_list_the_known(model_file):
    with pytest.raises(DistanceError, match="no backend 'gpu'; known are auto, native, onnx"):
        open_model(model_file, "gpu")
    with pytest.raises(DistanceError, match="float32, tf32, half"):
        open_model(model_file, precision="int8")
    with pytest.raises(DistanceError, match="threads = -1"):
        open_model(model_file, threads=-1)
    with pytest.raises(ModelError, match="no model file"):
        open_model("/nowhere/distance.onnx")


def test_auto_passes_over_what_cannot_run_with_one_line(
    model_file, depth_view, monkeypatch, caplog
):
    def broken(*_):
        raise DistanceError("backend 'native' cannot run: because")

    monkeypatch.setattr(model_module, "native", model_module.native or object())
    monkeypatch.setitem(model_module.BACKENDS, "native", broken)
    with caplog.at_level(logging.WARNING):
        d = open_model(model_file)
    assert d.backend == "onnx"
    assert [r.getMessage() for r in caplog.records] == ["backend 'native' cannot run: because"]
    with pytest.raises(DistanceError, match="because"):
        open_model(model_file, "native")


def test_without_the_compiled_module_auto_still_works(model_file):
    code = (
        "import sys; from rt.distance import open_model, DistanceError\n"
        "print(open_model(sys.argv[1]).backend)\n"
        "try: open_model(sys.argv[1], 'native')\n"
        "except DistanceError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_file)],
        env={"GRASP_SERVO_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == "onnx" and "install a C++ compiler" in second


def test_reference_gradient_is_the_slope(any_model_file, depth_view):
    d = open_model(any_model_file, "reference")
    value, slope = d.gradient(depth_view, ACTIONS)
    np.testing.assert_allclose(value, d(depth_view, ACTIONS), atol=1e-7)
    step = 1e-3
    for axis in range(3):
        e = np.zeros(3, np.float32)
        e[axis] = step
        ahead, behind = d(depth_view, ACTIONS + e), d(depth_view, ACTIONS - e)
        # 8,450 kinks, and outputs rounded to 1e-8 m: a difference quotient agrees to a few percent
        error = np.abs((ahead - behind) / (2 * step) - slope[:, axis])
        assert np.median(error) < 0.05 * np.abs(slope[:, axis]).mean()


class Paced:
    """A distance function that takes 1 ms and 10 us a candidate, on a clock of its own."""

    backend = "paced"

    def __init__(self, contract):
        self.contract, self.now_s, self.largest = contract, 0.0, 0

    def __call__(self, depth, actions):
        assert depth.shape == (64, 64) and actions.shape[1] == 3
        self.now_s += 1e-3 + 1e-5 * len(actions)
        self.largest = max(self.largest, len(actions))
        return np.zeros(len(actions), np.float32)


def test_candidates_that_fit_a_period(distance, monkeypatch):
    paced = Paced(distance.contract)
    monkeypatch.setattr(budget.time, "perf_counter", lambda: paced.now_s)
    assert candidates_for(1 / 30, paced) == 1024  # 11.2 ms of 16.7
    assert paced.largest == 2048
    assert candidates_for(1 / 30, paced, share=0.3) == 512
    assert candidates_for(10.0, paced, maximum=64) == 64
    with pytest.raises(DistanceError, match=r"1\.16 ms for 16 candidates.*0\.5 ms; lower the rate"):
        candidates_for(1e-3, paced)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(DistanceError, match="period_s="):
            candidates_for(bad, paced)


def test_candidates_are_measured_on_a_real_one(model_file):
    assert candidates_for(100.0, open_model(model_file), maximum=32, repeats=2) == 32
