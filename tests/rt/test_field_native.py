"""The field network in C++ against its NumPy twin: instruction sets, sizes, threads, fork, memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from needs import NO_NATIVE
from test_distance_native import COUNTER, IMAGES, image, some_actions

from rt.distance import DistanceError, open_model
from rt.distance.contract import read_model
from rt.distance.field_native import FieldNative
from rt.distance.field_reference import FieldReference
from rt.native import native
from tests.conftest import field_contract, random_field_weights

pytestmark = pytest.mark.skipif(native is None, reason=NO_NATIVE)

ISAS = native.field_isas() if native else []
SIZES = (
    {},
    {"channels": (24, 32, 48, 96, 128)},
    {"channels": (5, 17, 40, 33, 70), "features": 3, "hidden": 20},
    {"channels": (1, 1, 1, 1, 1), "features": 1, "hidden": 1},
)


@pytest.fixture(scope="module")
def pairs():
    """Reference and native by (size, cells, isa), opened once."""
    opened = {}

    def get(size: int, cells: int, isa: str):
        contract, weights = field_contract(cells=cells), random_field_weights(**SIZES[size])
        for key in ((size, cells), (size, cells, isa)):
            if key not in opened:
                reference = len(key) == 2
                opened[key] = (
                    FieldReference(contract, weights)
                    if reference
                    else FieldNative(contract, weights, 2, isa)
                )
        return opened[size, cells], opened[size, cells, isa]

    return get


@given(
    size=st.integers(0, len(SIZES) - 1),
    cells=st.sampled_from([80, 96, 64, 48, 16]),
    kind=st.sampled_from(IMAGES),
    n=st.integers(1, 230),
    spread=st.sampled_from([0.0, 1e-4, 0.05, 0.17, 1.0]),
    wrap=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
@example(0, 80, "empty", 1, 0.0, True, 0)
@example(0, 80, "real", 200, 0.17, False, 1)
@example(1, 96, "random", 97, 1.0, False, 2)
@example(3, 16, "step", 5, 0.05, False, 3)
def test_equals_the_reference(pairs, size, cells, kind, n, spread, wrap, seed):
    rng = np.random.default_rng(seed)
    depth, actions = image(kind, rng), some_actions(n, spread, wrap, False, rng)
    for isa in ISAS:
        reference, d = pairs(size, cells, isa)
        wanted = reference.predict(depth, actions)
        for found, right in zip(d.predict(depth, actions), wanted, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5, err_msg=isa)
        np.testing.assert_array_equal(d(depth, actions), d.predict(depth, actions)[0])
        np.testing.assert_array_equal(d.gradient(depth, actions)[0], d(depth, actions))


@pytest.mark.parametrize("isa", ISAS)
def test_the_gradient_equals_the_reference(pairs, isa, depth_view):
    reference, d = pairs(0, 80, isa)
    actions = some_actions(700, 0.15, False, False, np.random.default_rng(5))
    wanted, found = reference.gradient(depth_view, actions), d.gradient(depth_view, actions)
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
    # within rounding of a kink the two may take different sides
    close = np.abs(found[1] - wanted[1]).max(axis=1) < 1e-4 * max(1.0, np.abs(wanted[1]).max())
    assert close.mean() > 0.98 and np.abs(wanted[1]).max() > 0.1
    outside = np.abs(actions[:, :2]).max(axis=1) > 0.5
    assert not found[1][outside, :2].any()


@pytest.mark.parametrize("isa", ISAS)
def test_the_dense_field(pairs, isa, depth_view):
    reference, d = pairs(0, 80, isa)
    actions = some_actions(73_728, 0.2, False, False, np.random.default_rng(6))
    found = d(depth_view, actions)
    np.testing.assert_allclose(found, reference(depth_view, actions), atol=2e-5)
    # a candidate's answer does not depend on its neighbours
    np.testing.assert_array_equal(found[::37], d(depth_view, actions[::37].copy()))


def test_the_same_bits_whatever_the_threads(depth_view):
    contract, weights = field_contract(), random_field_weights()
    actions = some_actions(600, 0.1, False, False, np.random.default_rng(0))
    one, two, four = (FieldNative(contract, weights, t) for t in (1, 2, 4))
    first = one(depth_view, actions)
    assert np.ptp(first) > 0.01
    for _ in range(20):
        np.testing.assert_array_equal(two(depth_view, actions), first)
        np.testing.assert_array_equal(four(depth_view, actions), first)


def test_several_python_threads_share_one_engine(pairs):
    _, d = pairs(0, 80, ISAS[0])
    rng = np.random.default_rng(8)
    jobs = [
        (image("random", rng), some_actions(n, 0.1, False, False, rng)) for n in (1, 50, 300, 900)
    ]
    alone = [d(*job) for job in jobs]
    wrong = []

    def work(k: int) -> None:
        for _ in range(30):
            if not np.array_equal(d(*jobs[k]), alone[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_works_in_the_child_of_a_fork(field_file):
    """A forked child has none of the threads; it starts its own."""
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
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(field_file)], check=True, timeout=120
    )


@pytest.mark.skipif(
    not shutil.which("g++") or not sys.platform.startswith("linux"),
    reason="no g++ or glibc: apt-get install g++",
)
def test_no_heap_allocation_per_call(tmp_path, field_file):
    """Counted by an allocator put before the C library's: a whole call through rt.distance."""
    (tmp_path / "counter.cpp").write_text(COUNTER)
    library = tmp_path / "counter.so"
    subprocess.run(
        ["g++", "-O1", "-shared", "-fPIC", "-o", library, tmp_path / "counter.cpp"], check=True
    )
    code = """
import ctypes, gc, sys
import numpy as np
from rt.distance import open_model
d = open_model(sys.argv[1], "native", threads=2)
rng = np.random.default_rng(0)
depth = np.full((64, 64), 0.3, np.float32)
actions = rng.uniform(-0.05, 0.05, (256, 3)).astype(np.float32)
out = np.empty(256, np.float32)
calls = ctypes.CDLL(None).allocation_calls
calls.restype = ctypes.c_long
for _ in range(20):
    d(depth, actions, out)
gc.disable()
before = calls()
for _ in range(300):
    d(depth, actions, out)
after = calls()
held = np.empty(1 << 20)  # the counter does count
print(after - before, calls() - after)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(field_file)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    in_all_calls, control = map(int, done.stdout.split())
    assert control >= 1
    assert in_all_calls <= 10  # Python's own pools may take an arena


def test_the_front_door(field_file, depth_view):
    d = open_model(field_file)
    assert d.backend == "native" and d.outputs == ("distance", "probability", "spread")
    d.require_outputs("probability", "spread")
    actions = some_actions(64, 0.1, False, False, np.random.default_rng(9))
    found = d.predict(depth_view, actions)
    wanted = open_model(field_file, "reference").predict(depth_view, actions)
    for name in d.outputs:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5)
    assert d.has_gradient and d.gradient(depth_view, actions)[1].shape == (64, 3)
    with pytest.raises(DistanceError, match="no precision 'half' for the field"):
        open_model(field_file, "native", precision="half")
    with pytest.raises(DistanceError, match="radians"):
        d.predict(depth_view, actions * np.float32(57.3))
    stages = d.compute.stages_s()  # type: ignore[attr-defined]
    assert all(0 < s < 10 for s in stages.values())
    assert set(stages) == {"map", "convolutions", "candidates"}


def test_wrong_sizes_never_reach_the_kernels(field_file):
    contract, weights = read_model(field_file)
    d = FieldNative(contract, weights, 1)
    depth, actions = np.zeros((64, 64), np.float32), np.zeros((5, 3), np.float32)
    for bad in (
        (depth[:63].copy(), actions, np.empty(5, np.float32)),
        (depth, actions, np.empty(6, np.float32)),
        (depth, actions[:, :2].copy(), np.empty(5, np.float32)),
    ):
        with pytest.raises(ValueError, match="must have"):
            d(*bad)
    with pytest.raises(DistanceError, match="'mmx' is not one of this processor"):
        FieldNative(contract, weights, 1, "mmx")
