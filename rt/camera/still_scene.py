"""Geometry of a scene that stands still: the plane of its table, and the shift between two views of it.

Both tell a camera that is not where its calibration says: the table that it sees is then tilted or too high,
or the scene seems to move while the hand moves (rt.guard.camera_watch; docs/guard.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

TABLE_TOLERANCE_M = 0.006
"""Points nearer than this to a plane speak for it: two standard deviations of a D405's depth at 0.3 m."""
MAX_SLOPE = 1.0
"""Steepest plane that is tried (45 degrees)."""
MIN_SHARE = 0.2
"""Least part of the points that a table has."""
_HYPOTHESES, _STEPS = 120, 4
"""With half of the points on a table, 40 triples missed it once in 200 views."""
_TUKEY, _LEAST_REACH_M, _MOST_REACH_M = 4.685, 0.004, 0.015
_CHANCES = np.random.default_rng(0).random((_HYPOTHESES, 3))


@dataclass(frozen=True)
class TableFit:
    """The plane z = height + slope . ((x, y) - at), in the frame of the points."""

    height_m: float
    """At the place that was asked for."""
    slope: NDArray[np.float64]
    """(2,) dz/dx, dz/dy."""
    share: float
    """Part of the points on the plane, within TABLE_TOLERANCE_M."""
    spread_m: float
    """Standard deviation of those about it."""

    @property
    def tilt_deg(self) -> float:
        """Angle between the plane's normal and z."""
        return math.degrees(math.atan(float(np.hypot(*self.slope))))

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,), of length 1, up."""
        n = np.array([-self.slope[0], -self.slope[1], 1.0])
        return np.asarray(n / np.linalg.norm(n))


def fit_table(
    points: NDArray[np.floating],
    at: ArrayLike = (0.0, 0.0),
    start: TableFit | None = None,
) -> TableFit | None:
    """The lowest large plane of points (N, 3) [m] whose z is up, such as a frame's in base.

    Random triples propose planes; points on a plane speak for it, points below it twice against it, so that
    the table wins over the flat top of a box. The best is refined by least squares with Tukey's weights. `at`
    (2,): the place at which the height is told. `start`: a plane that is tried first, and refined at once if
    it has enough points (`at` must be the same). None if no plane has MIN_SHARE of the points, or there are
    fewer than 30.
    """
    if len(points) < 30:
        return None
    x, y, z = (
        np.asarray(points[:, k] - (at_k), np.float32) for k, at_k in enumerate((*np.asarray(at), 0))
    )
    plane = np.zeros(3) if start is None else np.array([start.height_m, *start.slope])
    if start is None or _share(x, y, z, plane) < max(MIN_SHARE, 0.7 * start.share):
        plane = _propose(x, y, z, plane)
    reach = _MOST_REACH_M / 2
    for _ in range(_STEPS):
        plane = _refine(x, y, z, plane, reach)
        off = np.abs(z - (plane[0] + plane[1] * x + plane[2] * y))
        near = off[off < _MOST_REACH_M]
        if len(near) < 10:
            return None
        sigma = 1.4826 * float(np.partition(near, len(near) // 2)[len(near) // 2])
        reach = min(max(_TUKEY * sigma, _LEAST_REACH_M), _MOST_REACH_M)
    on = off < TABLE_TOLERANCE_M
    share = float(np.count_nonzero(on)) / len(z)
    if share < MIN_SHARE:
        return None
    spread = float(np.sqrt(np.mean(np.square(off[on]))))
    return TableFit(float(plane[0]), plane[1:].copy(), share, spread)


def _share(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    plane: NDArray[np.float64],
) -> float:
    off = np.abs(z - (plane[0] + plane[1] * x + plane[2] * y))
    return float(np.count_nonzero(off < TABLE_TOLERANCE_M)) / len(z)


def _propose(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    expected: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The best of planes (3,) through three points each, and the expected one."""
    chosen = (_CHANCES * len(z)).astype(np.intp)
    px, py, pz = (v[chosen].astype(np.float64) for v in (x, y, z))
    ux, uy, uz = px[:, 1] - px[:, 0], py[:, 1] - py[:, 0], pz[:, 1] - pz[:, 0]
    vx, vy, vz = px[:, 2] - px[:, 0], py[:, 2] - py[:, 0], pz[:, 2] - pz[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        nz = ux * vy - uy * vx
        a, b = -(uy * vz - uz * vy) / nz, -(uz * vx - ux * vz) / nz
    good = np.isfinite(a) & np.isfinite(b) & (np.hypot(a, b) < MAX_SLOPE)
    planes = np.stack([pz[:, 0] - a * px[:, 0] - b * py[:, 0], a, b], axis=1)[good]
    planes = np.concatenate([expected[None], planes])
    low = planes.astype(np.float32)
    off = z - (low[:, :1] + low[:, 1:2] * x + low[:, 2:] * y)
    on = np.count_nonzero(np.abs(off) < TABLE_TOLERANCE_M, axis=1)
    below = np.count_nonzero(off < -2 * TABLE_TOLERANCE_M, axis=1)
    return np.asarray(planes[int(np.argmax(on - 2 * below))])


def _refine(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    plane: NDArray[np.float64],
    reach_m: float,
) -> NDArray[np.float64]:
    """One step of weighted least squares about a plane."""
    off = z - (plane[0] + plane[1] * x + plane[2] * y).astype(np.float32)
    w = np.square(np.maximum(1 - np.square(off / np.float32(reach_m)), 0))
    A = np.stack([np.ones_like(x), x, y])
    weighted = A * w
    try:
        step = np.linalg.solve(
            (weighted @ A.T).astype(np.float64), (weighted @ off).astype(np.float64)
        )
    except np.linalg.LinAlgError:
        return plane
    return np.asarray(plane + step)


@dataclass(frozen=True)
class SceneShift:
    """Motion of a still scene from one height map to another, beyond the motion that was expected."""

    shift_m: NDArray[np.float64]
    """(2,) along the maps' x and y."""
    covariance_m2: NDArray[np.float64]
    """(2, 2)."""
    cells: int
    """Cells with an edge that took part."""


MIN_SLOPE = 0.4
"""Height over way from which a cell has an edge: noise on a table is less."""
MIN_EDGE_CELLS = 30
_CORRELATED = 9.0
"""A cell of the smoothed maps shares its neighbours' errors."""
_LEAST_RESIDUAL_M = 0.0015


def shift_between(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    cell_m: float,
    moved_m: ArrayLike = (0.0, 0.0),
) -> SceneShift | None:
    """Shift of the scene between two height maps (G, G) [m], NaN where unseen, with parallel axes.

    Cell (i, j) is at x = (j + 0.5 - G/2) cell_m, y = (i + 0.5 - G/2) cell_m of its own map. moved_m (2,): the
    way of the second map's origin, seen from the first, by the hand's own motion. Least squares of the height
    differences on the slopes (Lucas and Kanade 1981), with heavy differences left out. None if the maps share
    too few edges, or edges of one direction only.
    """
    moved = np.asarray(moved_m, np.float64) / cell_m
    guess = np.zeros(2)  # of the shift, in cells
    found: SceneShift | None = None
    for _ in range(3):
        whole = np.round(moved - guess).astype(int)
        pair = _overlap(before, after, int(whole[0]), int(whole[1]))
        if pair is None:
            return None
        solved = _solve(*pair, cell_m)
        if solved is None:
            return None
        way, covariance, cells = solved
        shift = moved - whole - way / cell_m
        found = SceneShift(shift * cell_m, covariance, cells)
        if np.abs(shift - guess).max() < 0.7:
            break
        guess = np.clip(shift, -8, 8)
    return found


def _overlap(
    before: NDArray[np.floating], after: NDArray[np.floating], x: int, y: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
    """Parts of both maps that show the same places, if the second's origin is x, y cells further."""
    rows, columns = before.shape
    if abs(x) > columns - 16 or abs(y) > rows - 16:
        return None
    first = before[max(y, 0) : rows + min(y, 0), max(x, 0) : columns + min(x, 0)]
    second = after[max(-y, 0) : rows + min(-y, 0), max(-x, 0) : columns + min(-x, 0)]
    return first, second


def _smooth(h: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean of 3 x 3, NaN where one is; two rows and columns fewer."""
    across = h[:, :-2] + h[:, 1:-1] + h[:, 2:]
    return np.asarray((across[:-2] + across[1:-1] + across[2:]) / 9)


def _solve(
    first: NDArray[np.floating], second: NDArray[np.floating], cell_m: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
    """(2,) way [m] with second(u) = first(u + way), its covariance, and the cells used."""
    a, b = _smooth(first), _smooth(second)
    mean = (a + b) / 2
    gx = (mean[1:-1, 2:] - mean[1:-1, :-2]) / (2 * cell_m)
    gy = (mean[2:, 1:-1] - mean[:-2, 1:-1]) / (2 * cell_m)
    r = (b - a)[1:-1, 1:-1]
    edge = (gx * gx + gy * gy > MIN_SLOPE**2) & np.isfinite(r)  # NaN compares false
    if np.count_nonzero(edge) < MIN_EDGE_CELLS:
        return None
    A = np.stack([gx[edge], gy[edge], np.ones(np.count_nonzero(edge))]).astype(np.float64)
    r = r[edge].astype(np.float64)
    w = np.ones_like(r)
    way = np.zeros(3)
    for _ in range(3):
        weighted = A * w
        normal = weighted @ A.T
        if np.linalg.eigvalsh(normal[:2, :2])[0] < MIN_EDGE_CELLS * MIN_SLOPE**2 / 8:
            return None
        way = np.linalg.solve(normal + 1e-9 * np.eye(3), weighted @ r)
        off = np.abs(r - way @ A)
        sigma = max(1.4826 * float(np.median(off)), _LEAST_RESIDUAL_M)
        w = np.square(np.maximum(1 - np.square(off / (_TUKEY * sigma)), 0))
    covariance = _CORRELATED * sigma**2 * np.linalg.inv(normal + 1e-9 * np.eye(3))[:2, :2]
    return way[:2], covariance, len(r)
