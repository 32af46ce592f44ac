import os
import signal
from functools import partial

import pytest

from rt.tools.pool import PoolError, spread

_here = 0


def begin(value):
    global _here
    _here = value


def work(number):
    return number, _here, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def fails(limit, number):
    if number == limit:
        raise ValueError(f"{number} is bad")
    return number


def dies(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (2, 1), (2, 3)])
def test_results_come_in_order_from_workers_that_have_begun(workers, at_once):
    found = list(
        spread(
            work,
            range(7),
            workers,
            unit="one",
            title="some",
            begin=begin,
            arguments=(5,),
            at_once=at_once,
        )
    )
    assert [f[0] for f in found] == list(range(7)) and {f[1] for f in found} == {5}
    if workers == 1:
        assert {f[2] for f in found} == {os.getpid()}
    else:
        assert os.getpid() not in {f[2] for f in found} and {f[3] for f in found} == {"1"}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller(workers):
    before = os.environ.get("OMP_NUM_THREADS")
    with pytest.raises(ValueError, match="3 is bad"):
        list(spread(partial(fails, 3), range(50), workers, unit="one", title="some"))
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(PoolError, match="died"):
        list(spread(dies, range(6), 2, unit="one", title="some"))


def test_nothing_to_do():
    assert list(spread(work, [], 2, unit="one", title="some")) == []
