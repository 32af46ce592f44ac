"""The C++ backend against its NumPy twin: every instruction set, threads, fork, memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from needs import NO_NATIVE

from rt.cell.open import open_cell
from rt.distance.contract import Contract, DistanceError, read_model
from rt.distance.model import SHIPPED_MODEL
from rt.distance.native import NativeDistance, available_isas
from rt.distance.native_isa import ISA_VARIABLE
from rt.distance.reference import ReferenceDistance
from rt.native import native
from rt.view import Reprojector
from tests.conftest import random_weights, write_random_model

pytestmark = pytest.mark.skipif(native is None, reason=NO_NATIVE)

TOLERANCE_M = {"float32": 1e-5, "half": 1e-3}
IMAGES = ("random", "flat", "empty", "far", "step", "spike", "real")


def image(kind: str, rng: np.random.Generator) -> np.ndarray:
    depth = {
        "random": lambda: rng.uniform(0, 0.6, (64, 64)),
        "flat": lambda: np.full((64, 64), 0.3),
        "empty": lambda: np.zeros((64, 64)),
        "far": lambda: np.full((64, 64), 0.6),
        "step": lambda: np.where(np.arange(64) < rng.integers(1, 64), 0.2, 0.3) * np.ones((64, 1)),
        "spike": lambda: np.where(rng.random((64, 64)) < 0.001, 10.0, 0.3),
        "real": lambda: 0.3 + 0.0005 * np.arange(64) - 0.1 * (rng.random((64, 1)) < 0.3),
    }[kind]()
    return depth.astype(np.float32)


def some_actions(n: int, spread: float, wrap: bool, twins: bool, rng: np.random.Generator):
    a = rng.uniform(-spread, spread, (n, 3))
    a[:, 2] = rng.uniform(-np.pi, np.pi, n)
    if wrap:
        a[::2, 2] = np.pi / 2
        a[1::2, 2] = -np.pi / 2
    if twins:
        a[:] = a[rng.integers(0, max(1, n // 3), n)]
    return a.astype(np.float32)


@pytest.fixture(scope="module")
def weights():
    return {encoding: random_weights(encoding) for encoding in ("double_angle", "raw")}


@pytest.fixture(scope="module")
def pairs(weights, model_file):
    """Reference and native by (encoding, isa, precision), opened once."""
    opened = {}

    def get(encoding: str, isa: str, precision: str):
        contract = replace(read_model(model_file)[0], action_encoding=encoding)
        if encoding not in opened:
            opened[encoding] = ReferenceDistance(contract, weights[encoding])
        key = encoding, isa, precision
        if key not in opened:
            opened[key] = NativeDistance(contract, weights[encoding], 2, precision, isa)
        return opened[encoding], opened[key]

    return get


@given(
    encoding=st.sampled_from(["double_angle", "raw"]),
    kind=st.sampled_from(IMAGES),
    n=st.integers(1, 130),
    spread=st.sampled_from([0.0, 1e-4, 0.05, 1.0]),
    wrap=st.booleans(),
    twins=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
@example("double_angle", "empty", 1, 0.0, True, False, 0)
@example("raw", "spike", 64, 1.0, False, True, 1)
@example("double_angle", "random", 65, 1.0, True, True, 2)
def test_equals_the_reference(pairs, encoding, kind, n, spread, wrap, twins, seed):
    rng = np.random.default_rng(seed)
    depth, actions = image(kind, rng), some_actions(n, spread, wrap, twins, rng)
    wanted = None
    for isa in available_isas():
        for precision, tolerance in TOLERANCE_M.items():
            reference, d = pairs(encoding, isa, precision)
            wanted = reference(depth, actions) if wanted is None else wanted
            found = d(depth, actions)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=isa)
            np.testing.assert_allclose(d.gradient(depth, actions)[0], found, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def ray_traced():
    """Views (64, 64) m of three test scenes, as the loop gets them from the twin's camera."""
    views = []
    for scene in range(3):
        cell = open_cell("twin", seed=scene, scene=scene, mount="ideal")
        cell.advance(int(0.2e9))
        frame = cell.camera.read_latest(1.0)
        views.append(Reprojector(cell.camera.intrinsics, cell.camera.T_hand_camera)(frame.depth))
    return views


def models(model_file):
    """The random model, and the shipped one where there is one."""
    return [model_file, *([SHIPPED_MODEL] if SHIPPED_MODEL.is_file() else [])]


@pytest.mark.parametrize("isa", available_isas())
def test_equals_the_reference_on_ray_traced_views(model_file, ray_traced, isa):
    rng = np.random.default_rng(3)
    for path in models(model_file):
        contract, weights = read_model(path)
        reference = ReferenceDistance(contract, weights)
        exact = NativeDistance(contract, weights, 2, "float32", isa)
        half = NativeDistance(contract, weights, 2, "half", isa)
        for view in ray_traced:
            view = np.ascontiguousarray(view, np.float32)
            assert np.ptp(view) > 0.02
            actions = some_actions(60, 0.06, False, False, rng)
            wanted = reference(view, actions)
            np.testing.assert_allclose(exact(view, actions), wanted, rtol=0, atol=1e-5)
            np.testing.assert_allclose(half(view, actions), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("isa", available_isas())
def test_turned_by_pi_is_the_same_grasp(pairs, isa, depth_view):
    """Parallel jaws: with the double-angle encoding d repeats every pi, across the wrap too."""
    _, d = pairs("double_angle", isa, "float32")
    actions = np.zeros((181, 3), np.float32)
    actions[:, 2] = np.linspace(-np.pi / 2, np.pi / 2, 181)
    turned = actions + np.array([0, 0, np.pi], np.float32)
    here = d(depth_view, actions)
    assert np.ptp(here) > 0.001
    np.testing.assert_allclose(d(depth_view, turned), here, rtol=0, atol=2e-6)
    np.testing.assert_allclose(here[0], here[-1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("n", [4096, 5000])
def test_many_candidates_in_tiles(pairs, isa, n):
    rng = np.random.default_rng(n)
    reference, d = pairs("double_angle", isa, "float32")
    depth, actions = image("real", rng), some_actions(n, 0.06, False, False, rng)
    found = d(depth, actions)
    some = np.r_[0:50, 2040:2056, n - 50 : n]
    np.testing.assert_allclose(found[some], reference(depth, actions[some]), rtol=0, atol=1e-5)
    # a candidate's answer does not depend on its neighbours, to rounding
    np.testing.assert_allclose(found[::37], d(depth, actions[::37].copy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("encoding", ["double_angle", "raw"])
@pytest.mark.parametrize("isa", available_isas())
def test_gradient_equals_the_reference(pairs, isa, encoding):
    rng = np.random.default_rng(5)
    reference, d = pairs(encoding, isa, "float32")
    depth, actions = image("random", rng), some_actions(700, 0.06, False, False, rng)
    (wanted, slope), (found, found_slope) = (
        reference.gradient(depth, actions),
        d.gradient(depth, actions),
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # within rounding of a kink (one in a thousand candidates here) the two may take different sides
    close = np.abs(found_slope - slope).max(axis=1) < 1e-5
    assert close.mean() > 0.98 and np.abs(found_slope - slope).max() < 0.01


@pytest.mark.parametrize("isa", available_isas())
def test_candidates_exactly_on_a_knot(pairs, isa):
    """A bias equal to minus a value of the image: either piece gives the same distance."""
    reference, d = pairs("raw", isa, "float32")
    depth = image("random", np.random.default_rng(7))
    values = reference.image_side(depth)
    base = np.zeros((1, 3), np.float32)
    w = random_weights("raw")
    map_ = w["conv2.weight_sum"].astype(np.float64) @ w["action.weight"]
    constant = w["conv2.weight_sum"].astype(np.float64) @ w["action.bias"]
    on_knots = []
    for c in range(50):
        x = (-values[c].ravel() - constant[c]) / map_[c, 0]
        on_knots += [(v, 0, 0) for v in x[np.abs(x) < 0.5][:4]]
    actions = np.concatenate([base, np.array(on_knots)]).astype(np.float32)
    assert len(actions) > 20
    np.testing.assert_allclose(d(depth, actions), reference(depth, actions), rtol=0, atol=1e-5)


def test_the_same_bits_whatever_the_threads(weights, pairs, depth_view):
    contract = Contract(hand=None, training_set="")  # type: ignore[arg-type]
    actions = some_actions(600, 0.06, False, False, np.random.default_rng(0))
    one, two, four = (NativeDistance(contract, weights["double_angle"], t) for t in (1, 2, 4))
    first = one(depth_view, actions)
    for _ in range(20):
        np.testing.assert_array_equal(two(depth_view, actions), first)
        np.testing.assert_array_equal(four(depth_view, actions), first)


def test_several_python_threads_share_one_engine(pairs):
    _, d = pairs("double_angle", available_isas()[0], "float32")
    rng = np.random.default_rng(8)
    jobs = [
        (image("random", rng), some_actions(n, 0.06, False, False, rng)) for n in (1, 50, 300, 900)
    ]
    alone = [d(*job) for job in jobs]
    wrong = []

    def work(k: int) -> None:
        for _ in range(40):
            if not np.array_equal(d(*jobs[k]), alone[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_works_in_the_child_of_a_fork(tmp_path):
    """A forked child has none of the threads; it starts its own."""
    model = write_random_model(tmp_path / "m.onnx")
    code = """
import os, sys, threading
import numpy as np
from rt.distance import open_model
d = open_model(sys.argv[1], "native", threads=2)
depth, actions = np.full((64, 64), 0.3, np.float32), np.zeros((300, 3), np.float32)
wanted = d(depth, actions)
busy = threading.Thread(target=lambda: [d(depth, actions) for _ in range(300)])
busy.start()  # the fork may fall into a running call
children = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(d(depth, actions), wanted) else 1)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
busy.join()
assert np.array_equal(d(depth, actions), wanted)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(model)], check=True, timeout=60)


def test_memory_is_taken_once(weights):
    contract = Contract(hand=None, training_set="")  # type: ignore[arg-type]
    d = NativeDistance(contract, weights["double_angle"], 2)
    depth = np.full((64, 64), 0.3, np.float32)
    actions = np.zeros((9000, 3), np.float32)
    assert d.growths == 0
    d(depth, actions[:1000])
    d(depth, actions[:1000])
    d(depth, actions[:10])
    assert d.growths == 1
    d(depth, actions)
    grown = d.growths
    d(depth, actions[:4096])
    assert d.growths == grown == 2  # tiles: no more memory however many candidates


COUNTER = """
#include <atomic>
#include <cstddef>
extern "C" {
void *__libc_malloc(size_t); void *__libc_calloc(size_t, size_t); void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
static std::atomic<long> calls{0};
long allocation_calls() { return calls; }
void *malloc(size_t n) { calls++; return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { calls++; return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { calls++; return __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { calls++; return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) { calls++; return (*p = __libc_memalign(a, n)) ? 0 : 12; }
}
"""


@pytest.mark.skipif(
    not shutil.which("g++") or not sys.platform.startswith("linux"),
    reason="no g++ with glibc: apt-get install g++",
)
def test_no_heap_allocation_per_call(tmp_path, model_file):
    """Counted by an allocator put before the C library's: a whole call through rt.distance."""
    (tmp_path / "counter.cpp").write_text(COUNTER)
    library = tmp_path / "counter.so"
    subprocess.run(
        ["g++", "-O1", "-shared", "-fPIC", "-o", library, tmp_path / "counter.cpp"], check=True
    )
    code = """
import ctypes, gc, resource, sys
import numpy as np
from rt.distance import open_model
d = open_model(sys.argv[1], "native", threads=2)
rng = np.random.default_rng(0)
depth = np.full((64, 64), 0.3, np.float32)
actions = rng.uniform(-0.05, 0.05, (256, 3)).astype(np.float32)
out = np.empty(256, np.float32)
calls = ctypes.CDLL(None).allocation_calls
calls.restype = ctypes.c_long
for _ in range(50):
    d(depth, actions, out)
gc.disable()
before, resident = calls(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(1000):
    d(depth, actions, out)
after = calls()
held = np.empty(1 << 20)  # the counter does count
print(after - before, calls() - after, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_file)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    per_thousand_calls, control, grown_kb = map(int, done.stdout.split())
    assert control >= 1
    assert per_thousand_calls <= 10  # Python's own pools may take an arena
    assert grown_kb < 1000  # nothing leaks


def test_the_instruction_set_can_be_chosen(weights, monkeypatch):
    contract = Contract(hand=None, training_set="")  # type: ignore[arg-type]
    for isa in available_isas():
        monkeypatch.setenv(ISA_VARIABLE, isa)
        assert NativeDistance(contract, weights["double_angle"], 1).isa == isa
    monkeypatch.setenv(ISA_VARIABLE, "mmx")
    with pytest.raises(DistanceError, match="'mmx' is not one of this processor"):
        NativeDistance(contract, weights["double_angle"], 1)


def test_stages_add_up_to_the_call(pairs, depth_view):
    _, d = pairs("double_angle", available_isas()[0], "float32")
    d(depth_view, np.zeros((64, 3), np.float32))
    stages = d.stages_s()
    assert all(0 < s < 10 for s in stages.values()) and set(stages) == {
        "convolutions",
        "ranking",
        "sums",
    }


def test_half_precision_refuses_what_it_cannot_hold(weights, model_file):
    contract = Contract(hand=None, training_set="")  # type: ignore[arg-type]
    large = dict(weights["double_angle"])
    large["fc1.weight"] = large["fc1.weight"] * np.float32(5e6)
    with pytest.raises(DistanceError, match="too large for half"):
        NativeDistance(contract, large, 1, "half")


def test_wrong_sizes_never_reach_the_kernels(pairs):
    _, d = pairs("double_angle", available_isas()[0], "float32")
    depth, actions = np.zeros((64, 64), np.float32), np.zeros((5, 3), np.float32)
    for bad in (
        (depth[:63].copy(), actions, np.empty(5, np.float32)),
        (depth, actions, np.empty(6, np.float32)),
        (depth, actions[:, :2].copy(), np.empty(5, np.float32)),
        (depth.astype(np.float64), actions, np.empty(5, np.float32)),
        (np.zeros((64, 128), np.float32)[:, ::2], actions, np.empty(5, np.float32)),
        (depth.tolist(), actions, np.empty(5, np.float32)),
    ):
        with pytest.raises((ValueError, TypeError, BufferError)):
            d._engine.run(*bad)


def test_files_compiled_per_instruction_set_include_no_library_header():
    """An inline function compiled for AVX-512 could otherwise be linked into the baseline."""
    source = Path(__file__).parents[2] / "rt/native/distance_kernel.cpp"
    includes = [x for x in source.read_text().splitlines() if x.startswith("#include")]
    assert includes == ['#include "distance_kernel.h"', "#include <immintrin.h>"]
