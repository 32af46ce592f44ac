"""Watch over the camera's place: what its images say of the table and of the still scene, against the cell.

Every 0.15 s one look at the table (some hundred points of the frame, in base by the cell's transforms), one
at the scene's shift since an earlier view, and one at the hand's own open fingers, where the camera sees
them. The row `camera_moved` judges the result (docs/guard.md).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.camera import Intrinsics
from rt.camera.own_hand import OwnHand
from rt.camera.still_scene import TableFit, fit_table, shift_between
from rt.distance.metric_map import metric_map
from rt.guard.limits import Limits
from rt.robot.target import xyz_yaw

LOOK_EVERY_S = 0.15
POINTS = 600
"""Of a frame, at most, for the table's plane."""
CELLS, CELL_M = 64, 0.005
_LOOKS = 24
"""Looks at the table that count, the last: 3.6 s."""
_FEWEST = 4
_BELOW_HAND_M = 0.04
"""Returns nearer than this to the fingertips' height are the hand's own, or an object between them."""
_SCALE_ERROR = 0.004
"""Standard deviation of a depth camera's relative error: such a table is too high by as much of its distance,
and the camera has not moved."""
_HEIGHT_ERROR_M, _SLOPE_ERROR = 0.0003, 0.0015
"""Standard deviations of one look, mostly for low objects on the table; looks that follow share them."""
_PRIOR_M, _PRIOR_TURN = 0.01, math.radians(3)
"""Standard deviations of a camera's displacement beside the optical axis, and of its turn about it."""
_MAP_ERROR_M, _WAY_ERROR = 0.0008, 0.025
"""Standard deviation of the shift between two views, and its growth with the way between them: they show
other sides of the objects."""
_SHARED = 2.0
"""Pairs with the same first view share its error."""
_WORST_PAIR_M = 0.002
"""Standard deviation from which a pair of views is left out."""
_SAME_HEIGHT = 0.12
"""Part by which two views' heights may differ: edges in them are then blurred alike."""
_TINY = 1e-9
_AGAIN = 0.5
"""A jump counts once a second pair tells the same, within this part of it."""
_HAND_ERROR_M = 0.0015
"""Standard deviation of the fingertips' place in the hand's file (real ones are no boxes), of the measured
outline, and of what a slight tilt of the camera does to it."""
_HAND_LOOKS, _FEWEST_HAND = 8, 3
"""Looks at the fingers that count, the last; and their least number."""
_SURE, _SURE_JUMP = 2.0, 3.0
"""Standard deviations that are taken off an estimate before it is judged; more off a jump between two views:
where another side of an object comes into sight, they are farther apart than their outlines tell."""


@dataclass(frozen=True)
class CameraPlace:
    """Displacement of the camera from where the cell says, as far as it is certain."""

    tilt_deg: float = 0.0
    """Between the table as seen and the cell's."""
    height_m: float = 0.0
    """Of the table as seen, above or below the cell's."""
    shift_m: float = 0.0
    """Of the camera beside its axis, or of the whole scene between two views."""
    words: str = ""

    def part_of(self, limits: Limits) -> float:
        """Largest part that tilt, height and shift have of their limits; above 1 the camera has moved."""
        return max(
            self.tilt_deg / max(limits.max_camera_tilt_deg, _TINY),
            self.height_m / max(limits.max_camera_height_m, _TINY),
            self.shift_m / max(limits.max_camera_shift_m, _TINY),
        )


class CameraWatch:
    """Memory of one run: the last looks at the table and the pairs of views."""

    def __init__(
        self,
        intrinsics: Intrinsics,
        T_hand_camera: NDArray[np.float64],
        own_hand: OwnHand | None = None,
    ) -> None:
        """own_hand: the open fingers in this camera's image; None if they may be closed, or are not known."""
        self.own_hand = own_hand
        self._beside: deque[NDArray[np.float64]] = deque(maxlen=_HAND_LOOKS)
        T = np.asarray(T_hand_camera, np.float64)
        pixels = intrinsics.width_px * intrinsics.height_px
        self._stride = max(1, math.isqrt(max(pixels - 1, 0) // POINTS) + (pixels > POINTS))
        s = self._stride
        rays = intrinsics.rays()[s // 2 :: s, s // 2 :: s].reshape(-1, 3)
        self._directions = np.ascontiguousarray(rays @ T[:3, :3].T.astype(np.float32))
        self._origin = T[:3, 3].astype(np.float32)
        self._fit: TableFit | None = None
        self._looks: deque[tuple[float, float, NDArray[np.float64]]] = deque(maxlen=_LOOKS)
        self._maps: deque[tuple[NDArray[np.float32], NDArray[np.float64]]] = deque(maxlen=6)
        self._next_ns, self._turn = -(2**62), 0
        prior = np.array([_PRIOR_M, _PRIOR_M, _PRIOR_TURN]) ** -2.0
        self._information, self._sums = np.diag(prior), np.zeros(3)
        self._jump_m = 0.0
        self._beyond: NDArray[np.float64] = np.full(2, np.inf)
        """(2,) unexplained shift of the last pair; infinite if it was explained."""
        self.place = CameraPlace()

    def due(self, stamp_ns: int) -> bool:
        """True if a frame exposed then will be looked at."""
        return stamp_ns >= self._next_ns

    def look(
        self,
        depth: NDArray[np.float32],
        view: NDArray[np.float32],
        T_base_hand: NDArray[np.float64],
        stamp_ns: int,
        still: bool = True,
    ) -> CameraPlace:
        """The newest judgement. depth (H, W) [m] as the camera gave it; view (64, 64) [m], gaps closed;
        T_base_hand (4, 4) at the exposure; stamp_ns of it. still: False while the scene itself moves, as on a
        conveyor; views are then not compared. Most calls return at once."""
        if not self.due(stamp_ns):
            if self._jump_m:
                self._jump_m = 0.0
                self._judge()
            return self.place
        self._next_ns = stamp_ns + round(LOOK_EVERY_S * 0.5e9)
        self._turn ^= 1
        self._jump_m = 0.0
        if self._turn:
            self._look_at_table(depth, T_base_hand)
        else:
            if still:
                self._look_at_scene(view, T_base_hand)
            else:
                self._maps.clear()
            self._look_at_hand(depth)
        self._judge()
        return self.place

    def _look_at_table(self, depth: NDArray[np.float32], T_base_hand: NDArray[np.float64]) -> None:
        s = self._stride
        d = depth[s // 2 :: s, s // 2 :: s].ravel()
        seen = np.flatnonzero(d > 0)
        points = d[seen, None] * self._directions[seen] + self._origin
        points = points[points[:, 2] > _BELOW_HAND_M]
        R, t = T_base_hand[:3, :3], T_base_hand[:3, 3]
        base = points @ R.T.astype(np.float32) + t.astype(np.float32)
        fit = fit_table(base, t[:2], self._moved(t[:2]))
        self._fit, self._fit_at = fit, t[:2].copy()
        if fit is not None:
            camera_m = float(t[2] + R[2] @ self._origin)
            self._looks.append((fit.height_m, camera_m, R[:2, :2].T @ fit.slope))

    def _moved(self, at: NDArray[np.float64]) -> TableFit | None:
        """The last fit, with its height at another place."""
        fit = self._fit
        if fit is None:
            return None
        height = fit.height_m + float(fit.slope @ (at - self._fit_at))
        return TableFit(height, fit.slope, fit.share, fit.spread_m)

    def _look_at_hand(self, depth: NDArray[np.float32]) -> None:
        beside = None if self.own_hand is None else self.own_hand.displaced_m(depth)
        if beside is not None:
            self._beside.append(beside)

    def _look_at_scene(self, view: NDArray[np.float32], T_base_hand: NDArray[np.float64]) -> None:
        hand = xyz_yaw(T_base_hand)
        seen = metric_map(view, CELLS, CELL_M, turn_rad=-hand[3])
        # metric_map's first channel is (depth - 0.2 m) / 0.1 m
        heights = np.where(
            seen[1] > 0, np.float32(hand[2] - 0.2) - seen[0] / 10, np.float32(np.nan)
        )
        heights = np.clip(heights, -0.02, 0.10)
        now = (heights, hand)
        near = [m for m in self._maps if abs(m[1][2] - hand[2]) < _SAME_HEIGHT * hand[2]]
        if near:
            self._compare(near[0], now)
        self._maps.append(now)

    def _compare(
        self,
        before: tuple[NDArray[np.float32], NDArray[np.float64]],
        now: tuple[NDArray[np.float32], NDArray[np.float64]],
    ) -> None:
        """One pair of views: a jump of the scene, and one more equation for a displaced camera."""
        way = now[1][:2] - before[1][:2]
        found = shift_between(before[0], now[0], CELL_M, way * (1, -1))  # the maps' y is base's -y
        if found is None:
            return
        shift = found.shift_m * (1, -1)
        variance = np.diag(found.covariance_m2) + _MAP_ERROR_M**2 + _WAY_ERROR**2 * (way @ way)
        if variance.max() > _WORST_PAIR_M**2:
            return
        # The camera's error (x, y, turn) in the hand shows in base as it is turned with the hand.
        rows = np.column_stack([_turned(now[1]) - _turned(before[1]), (-way[1], way[0])])
        beyond = shift - rows @ self._error()[0]
        jump_m = float(np.linalg.norm(beyond)) - _SURE_JUMP * math.sqrt(float(variance.sum()))
        if jump_m > 0:
            again = float(np.linalg.norm(beyond - self._beyond))
            if again < _AGAIN * float(np.linalg.norm(beyond)):
                self._jump_m = jump_m
                self._maps.clear()
            self._beyond = beyond
            return
        self._beyond = np.full(2, np.inf)
        variance *= _SHARED
        self._information += rows.T @ (rows / variance[:, None])
        self._sums += rows.T @ (shift / variance)

    def _error(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x, y [m] and turn [rad] of the camera on the hand, and their covariance."""
        covariance = np.asarray(np.linalg.inv(self._information), np.float64)
        return covariance @ self._sums, covariance

    def _judge(self) -> None:
        tilt_deg, height_m, height, slope = 0.0, 0.0, 0.0, np.zeros(2)
        if len(self._looks) >= _FEWEST:
            seen, camera_m, slopes = (np.array(v) for v in zip(*self._looks, strict=True))
            height, height_sd = _height(seen, camera_m)
            slope = np.median(slopes, axis=0)
            tilt = max(float(np.hypot(*slope)) - _SURE * _SLOPE_ERROR / 2, 0.0)
            tilt_deg = math.degrees(math.atan(tilt))
            height_m = max(abs(height) - _SURE * height_sd, 0.0)
        error, covariance = self._error()
        sd = math.sqrt(float(np.linalg.eigvalsh(covariance[:2, :2])[-1]))
        offset = float(np.hypot(*error[:2]))
        beside_m, by_scene_m = 0.0, offset - _SURE * sd
        if (
            len(self._beside) >= _FEWEST_HAND
        ):  # ten times as exact as the scene's turn about the hand
            beside_m, by_scene_m = float(np.hypot(*np.median(np.array(self._beside), axis=0))), 0.0
        by_hand_m = beside_m - _SURE * _HAND_ERROR_M
        shift_m = max(by_scene_m, by_hand_m, self._jump_m, 0.0)
        words = (
            f"the table is seen {math.degrees(math.atan(float(np.hypot(*slope)))):.1f} deg tilted and "
            f"{height * 1e3:+.1f} mm high"
        )
        if self._jump_m >= shift_m > 0:
            words += f"; the scene jumped by {self._jump_m * 1e3:.1f} mm or more between two views"
        elif by_hand_m >= shift_m > 0:
            words += (
                f"; the fingertips are seen {beside_m * 1e3:.1f} mm beside where T_hand_camera and the "
                "hand's file have them"
            )
        elif shift_m > 0:
            words += f"; the camera seems {offset * 1e3:.1f} mm beside its place"
        self.place = CameraPlace(tilt_deg, height_m, shift_m, words)


def _height(seen_m: NDArray[np.float64], camera_m: NDArray[np.float64]) -> tuple[float, float]:
    """Height of the table and its standard deviation, apart from the camera's own scale.

    Heights (N,) are the table's plus the scale's error times the camera's distance (N,); the scale is known
    to be small (_SCALE_ERROR), and different distances tell one from the other.
    """
    A = np.column_stack([np.ones_like(camera_m), camera_m])
    variance = _HEIGHT_ERROR_M**2
    information = A.T @ A / variance + np.diag([0.05**-2.0, _SCALE_ERROR**-2.0])
    covariance = np.linalg.inv(information)
    return float((covariance @ (A.T @ seen_m / variance))[0]), math.sqrt(float(covariance[0, 0]))


def _turned(hand: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 2): a displacement x, y in the hand, in base."""
    c, s = np.cos(hand[3]), np.sin(hand[3])
    return np.array([[c, s], [s, -c]])
