"""Types of the compiled module (rt/native/*.cpp). Arrays are C-contiguous, float32 by default."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]

DISTANCE_BLOCK: int
DISTANCE_GROUP: int
DISTANCE_BLOCKS: int

def extremes(array: _Floats, columns: int) -> tuple[float, ...]:
    """(low, high) of every column of (N, columns); NaN if a column holds one."""

def reproject(
    depth: _Floats,
    directions: _Floats,
    spans: _Floats,
    origin: _Floats,
    half: _Floats,
    out: _Floats,
    focal_px: float,
    near_m: float,
    far_m: float,
    max_half_px: float,
    isa: str = "",
) -> None:
    """Splat depth (H, W) into out (size, size); see rt.view.reproject_numpy."""

def view_isas() -> list[str]: ...
def metric_map(
    depth: _Floats,
    rays: _Floats,
    turns: _Floats,
    out: _Floats,
    growth: float,
    far_m: float,
    max_half: float,
    isa: str = "",
) -> None:
    """Draw depth (B, S, S) into out (B, 2, G, G); see rt.distance.metric_map.metric_map_numpy."""

def metric_map_isas() -> list[str]: ...
def nearest_grasps(
    places: _Floats,
    grasps: _Floats,
    rows: NDArray[Any],
    out: _Floats,
    metres_per_half_turn: float,
) -> None:
    """Distances (B, K) from places (B, K, 3) to the nearest of grasps (3, G); see train.offsets."""

def distance_isas() -> list[str]: ...
def field_isas() -> list[str]: ...

class DistanceEngine:
    """The paper's network, on a copy of its packed weights (rt/distance/native.py)."""

    def __init__(self, *weights: Any, **options: Any) -> None: ...
    def run(self, depth: _Floats, actions: _Floats, out: _Floats) -> None:
        """depth (64, 64) m, actions (N, 3) -> out (N,) m."""

    def gradient(self, depth: _Floats, actions: _Floats, out: _Floats, slope: _Floats) -> None:
        """Also the slope (N, 3) along x, y [m/m] and theta [m/rad]."""

    def stages(self) -> tuple[float, float, float]:
        """Seconds of the last call: convolutions, sorting and ranking, sums."""

    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def growths(self) -> int: ...

class FieldEngine:
    """The field network, on a copy of its weights (rt/distance/field_native.py)."""

    def __init__(self, *weights: Any, **options: Any) -> None: ...
    def run(self, depth: _Floats, actions: _Floats, out: _Floats) -> None:
        """depth (64, 64) m, actions (N, 3) -> out (N,) m."""

    def predict(
        self,
        depth: _Floats,
        actions: _Floats,
        out: _Floats,
        probability: _Floats,
        spread: _Floats,
    ) -> None:
        """Also the probability (N,) of a grasp within 15 mm and the spread (N,) [m]."""

    def gradient(self, depth: _Floats, actions: _Floats, out: _Floats, slope: _Floats) -> None:
        """Also the slope (N, 3) along x, y [m/m] and theta [m/rad]."""

    def stages(self) -> tuple[float, ...]: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def growths(self) -> int: ...
