"""Where generation's time goes: the real make_shard, with clocks around what it calls."""

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
from sim.scene import grasps, render, rig

STAGES = ("scene", "grasps", "rays", "sensor", "reprojection", "encoding, writing", "the rest")


class Stages:
    """Seconds by stage, each without those of the stages it calls. Processor time of this process, so
    that other programs' work does not count; waiting for the disk does not either."""

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
    """While inside, what make_shard calls in this process is timed."""
    stages = Stages()
    with ExitStack() as patches:
        for name, owner, attribute in (
            ("scene", grasps, "make_scene"),
            ("grasps", grasps, "true_grasps"),
            ("rays", render.Renderer, "depth"),
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
