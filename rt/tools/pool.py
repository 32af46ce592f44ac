"""Work spread over processes of this machine, each of one numeric thread."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from rt.tools.process import killed_with_parent
from rt.tools.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class PoolError(RuntimeError):
    """A worker process has died."""


@contextmanager
def processes(
    workers: int, begin: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """So many processes, each having called begin(*arguments). They end with this one, and leave Ctrl-C
    to it. When the block raises, what has not begun is dropped. Raises PoolError if one dies."""
    kept = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(kept, "1"))
    # spawn, not fork: a forked child would inherit embree's threads half alive.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), _ready, (os.getpid(), begin, arguments)
    )
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool:
        raise PoolError("a worker process died (killed, or out of memory?)") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 0,
    *,
    unit: str,
    title: str,
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
    at_once: int = 1,
) -> Iterator[Result]:
    """work(item) of each item, in order, with a progress bar; as `processes`, but in this one if
    `workers` is 1. workers: 0 is one for each core. at_once: items that a worker is handed together."""
    workers = min(workers or len(os.sched_getaffinity(0)), max(-(-len(items) // at_once), 1))
    if workers == 1:
        if begin is not None:
            begin(*arguments)
        yield from progress(map(work, items), total=len(items), unit=unit, title=title)
        return
    with processes(workers, begin, arguments) as pool:
        done = pool.map(work, items, chunksize=at_once)
        yield from progress(done, total=len(items), unit=unit, title=title)


def _ready(parent: int, begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """Of a worker. That of a killed run must not go on writing beside the run that resumes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        killed_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    if begin is not None:
        begin(*arguments)
