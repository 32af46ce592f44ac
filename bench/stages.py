"""Time of each stage of generation: clocks around the functions that sim.generate's make_shard calls."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from rt import view
from sim.dataset import make, store
from sim.scene import grasps, raster, rig

STAGES = ("scene", "grasps", "rays", "sensor", "reprojection", "encoding, writing", "the rest")


class Stages:
    """Seconds of each stage, without those of the stages that it calls.

    The clock is this process's processor time: other programs and waiting for the disk do not count.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock, self._open = clock, ["the rest"]
        self._since = clock()

    def _switch(self) -> None:
        now = self._clock()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return wrapper


@contextmanager
def timed_generation() -> Iterator[Stages]:
    """Context in which the functions that make_shard calls in this process are timed."""
    stages = Stages()
    with ExitStack() as patches:
        for name, owner, attribute in (
            ("scene", grasps, "make_scene"),
            ("grasps", grasps, "true_grasps"),
            ("rays", raster.RasterRenderer, "depth"),
            ("sensor", rig, "observe"),
            ("sensor", rig, "hand_depth"),
            ("reprojection", view.Reprojector, "__call__"),
            ("encoding, writing", make, "encode_depth"),
            ("encoding, writing", store, "write_shard"),
        ):
            timed = stages.timed(name, getattr(owner, attribute))
            patches.enter_context(patch.object(owner, attribute, timed))
        yield stages
        stages._switch()
