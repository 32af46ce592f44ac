"""Number of candidates that fit a period, measured on this machine when the loop starts."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import Contract, DistanceError
from rt.distance.model import open_model

MIN_CANDIDATES, MAX_CANDIDATES = 16, 4096


class MeasurableDistance(Protocol):
    """d(I, a), and the contract of its model: rt.distance.Distance, or a function of one's own."""

    @property
    def contract(self) -> Contract: ...

    def __call__(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]: ...


def candidates_for(
    period_s: float,
    distance: MeasurableDistance | None = None,
    *,
    share: float = 0.5,
    maximum: int = MAX_CANDIDATES,
    repeats: int = 5,
) -> int:
    """The largest power of two of candidates whose evaluation fits `share` of a period.

    Times `distance` (default: open_model()) on doubling numbers of candidates, each `repeats` times
    after one to warm up, and judges by the slowest but one: the loop meets bad moments too. The rest
    of the period is for the camera, the view, the arm and the jitter. Takes some
    4 (repeats + 1) share period_s at most. Raises DistanceError if not even MIN_CANDIDATES fit.
    """
    if not period_s > 0 or not 0 < share <= 1 or maximum < MIN_CANDIDATES or repeats < 2:
        raise DistanceError(
            f"period_s={period_s!r} must be above 0, share={share!r} in (0, 1], maximum={maximum!r} at "
            f"least {MIN_CANDIDATES}, repeats={repeats!r} at least 2"
        )
    distance = distance or open_model()
    limit_s = share * period_s
    depth = _view(distance.contract.view.size_px)
    actions = _actions(maximum)
    fits = 0
    count = MIN_CANDIDATES
    while count <= maximum:
        took_s = _nearly_worst_s(distance, depth, actions[:count], repeats)
        if took_s > limit_s:
            break
        fits = count
        count *= 2
    if fits == 0:
        name = getattr(distance, "backend", type(distance).__name__)
        raise DistanceError(
            f"backend {name!r} takes {took_s * 1e3:.3g} ms for {MIN_CANDIDATES} candidates, the "
            f"period leaves {limit_s * 1e3:.3g} ms; lower the rate or use a faster backend"
        )
    return fits


def _nearly_worst_s(
    distance: MeasurableDistance,
    depth: NDArray[np.float32],
    actions: NDArray[np.float32],
    repeats: int,
) -> float:
    distance(depth, actions)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        distance(depth, actions)
        times.append(time.perf_counter() - start)
    return sorted(times)[-2]


def _view(size: int) -> NDArray[np.float32]:
    """A table with a step: what is in the image does not change the cost."""
    depth = np.full((size, size), 0.28, np.float32)
    depth[size // 3 : size // 2, size // 3 : size // 2] = 0.2
    return depth


def _actions(count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.uniform((-0.06, -0.06, -1.5), (0.06, 0.06, 1.5), (count, 3)).astype(np.float32)
