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

class LineCaster:
    """Lines across hands over one mesh (rt/native/lines.cpp; sim.scene.lines.Lines)."""

    def __init__(self, vertices: _Floats, faces: NDArray[np.int32]) -> None: ...
    def cross(
        self,
        hands: _Floats,
        z: _Floats,
        w: _Floats,
        low: float,
        high: float,
        left: _Floats,
        left_face: NDArray[np.int32],
        right: _Floats,
        right_face: NDArray[np.int32],
    ) -> None: ...
    def close(
        self,
        hands: _Floats,
        object: NDArray[np.int16],
        normals: _Floats,
        face_object: NDArray[np.int16],
        pad: _Floats,
        above: _Floats,
        w: _Floats,
        inner: NDArray[np.uint8],
        lines: int,
        half: float,
        opening: float,
        cosine: float,
        compliance: float,
        most_shift: float,
        least: float,
        width: _Floats,
        shift: _Floats,
    ) -> None: ...

def footprint_free(
    height: _Floats,
    hands: _Floats,
    level: _Floats,
    x: _Floats,
    y: _Floats,
    per_m: float,
    out: NDArray[np.uint8],
) -> None:
    """Hands (N, 5) whose rectangle of points meets no cell above its level (sim.scene.hull)."""

def rasterise(
    vertices: _Floats,
    faces: NDArray[np.int32],
    pose: _Floats,
    x: _Floats,
    y: _Floats,
    out: _Floats,
    out_face: NDArray[np.int32],
) -> None:
    """Depth (H, W) of a mesh over the table (sim.scene.raster)."""

def height_map(
    vertices: _Floats, faces: NDArray[np.int32], x: _Floats, y: _Floats, out: _Floats
) -> None:
    """Heights of a mesh over points of a grid (sim.scene.raster)."""

def observe(
    depth: _Floats,
    moves: Any,
    steps: Any,
    words: Any,
    normal: Any,
    lost: Any,
    x: _Floats,
    y: _Floats,
    numbers: Any,
    dropout: float,
    out: _Floats,
) -> None:
    """A depth camera's faults on depth (N, H, W) (sim.scene.sensor.observe)."""
