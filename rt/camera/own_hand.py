"""The hand's own fingers in the camera's image: where they are seen tells where the camera is.

The open fingers stand still in the image, so one look is enough, and the hand need not turn. Compared is the
outline of their last centimetres, as returns nearer than the plane of the fingertips, with what the hand's
file and T_hand_camera predict for a camera at places beside its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rt.camera.intrinsics import Intrinsics
from rt.hand import Hand

REACH_M, STEP_M = 0.0125, 0.0025
"""Largest displacement that is tried along x and y of the hand, and the steps between."""
TIP_M, BEHIND_M = 0.006, -0.03
"""z in the hand between which a return is a fingertip's; what is behind is the gripper, of any shape."""
FEWEST_PX = 60
"""Pixels of fingertips that must be in sight."""
SEEN = 0.15
"""Least part of them with a return: stereo cameras see nothing nearer than some distance."""
_MOST_PX = 240
"""Widest image that is looked at; a larger one is taken in every n-th pixel."""


def hand_depth(
    T_hand_camera: NDArray[np.float64], rays: NDArray[np.float32], hand: Hand
) -> NDArray[np.float32]:
    """Depth (H, W) of the open hand itself, its fingers and palm as boxes; 0 where it is not in sight."""
    finger = (hand.opening_m + hand.finger_thickness_m) / 2
    boxes = [
        ((x, 0.0, -hand.finger_length_m / 2),
         (hand.finger_thickness_m, hand.finger_width_m, hand.finger_length_m))
        for x in (-finger, finger)
    ]  # fmt: skip
    # The palm has no length in the hand file: what a camera behind it would see of its back.
    boxes.append(
        ((0.0, 0.0, -hand.finger_length_m - 0.01), (hand.palm_length_m, hand.palm_width_m, 0.02))
    )
    direction = rays.astype(np.float64) @ T_hand_camera[:3, :3].T
    origin = T_hand_camera[:3, 3]
    nearest = np.full(rays.shape[:2], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for centre, size in boxes:
            low, high = np.array(centre) - np.array(size) / 2, np.array(centre) + np.array(size) / 2
            a, b = (low - origin) / direction, (high - origin) / direction
            enter, leave = np.fmin(a, b).max(axis=-1), np.fmax(a, b).min(axis=-1)
            nearest = np.where((enter < leave) & (enter > 0), np.fmin(nearest, enter), nearest)
    return np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)


class OwnHand:
    """Predicted outlines of the fingertips for displaced cameras, made once."""

    def __init__(
        self, intrinsics: Intrinsics, T_hand_camera: NDArray[np.float64], hand: Hand
    ) -> None:
        T = np.asarray(T_hand_camera, np.float64)
        self._step = s = max(1, math.ceil(intrinsics.width_px / _MOST_PX))
        rays = intrinsics.rays()[s // 2 :: s, s // 2 :: s]
        reach = np.arange(-REACH_M, REACH_M + STEP_M / 2, STEP_M)
        self._places = np.array([(x, y) for x in reach for y in reach])
        corners = np.array([(x, y) for x in (-REACH_M, 0, REACH_M) for y in (-REACH_M, 0, REACH_M)])
        near = np.any([_tips(T, rays, hand, at)[0] for at in corners], axis=0)
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        self.pixels = int(np.count_nonzero(_tips(T, rays, hand, np.zeros(2))[0]))
        """Of the fingertips in sight."""
        if self.pixels < FEWEST_PX:
            return
        self._part = (
            slice(max(rows[0] - 3, 0), rows[-1] + 4),
            slice(max(columns[0] - 3, 0), columns[-1] + 4),
        )
        rays = rays[self._part]
        self._to_z = (rays @ T[2, :3].astype(np.float32)).astype(np.float32)
        self._from_z = np.float32(T[2, 3])
        made = [_tips(T, rays, hand, at) for at in self._places]
        tips = np.array([_blurred(tip.astype(np.float32)).ravel() for tip, _ in made])
        open_ = np.array([~behind.ravel() for _, behind in made], np.float32)
        self._tips = open_ * tips
        self._open, self._squares = open_, open_ * tips**2

    def displaced_m(self, depth: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """(2,) of the camera along x and y of the hand, from a frame (H, W) [m]; None if too little of
        the fingertips is seen."""
        if self.pixels < FEWEST_PX:
            return None
        s = self._step
        d = depth[s // 2 :: s, s // 2 :: s][self._part]
        z = d * self._to_z + self._from_z
        seen = d > 0
        tip = seen & (z > BEHIND_M) & (z < TIP_M)
        if np.count_nonzero(tip) < SEEN * self.pixels:
            return None
        w = (seen & (z > BEHIND_M)).astype(np.float32).ravel()
        m = _blurred(tip.astype(np.float32)).ravel()
        cost = self._open @ (w * m * m) - 2 * (self._tips @ (w * m)) + self._squares @ w
        return self._least(cost / np.maximum(self._open @ w, 1))

    def _least(self, cost: NDArray[np.floating]) -> NDArray[np.float64]:
        """The place of the least cost, between the places that were tried."""
        n = math.isqrt(len(cost))
        grid = cost.reshape(n, n).astype(np.float64)
        best = np.array(np.unravel_index(int(np.argmin(grid)), grid.shape))
        found = self._places[int(best[0]) * n + int(best[1])].copy()
        for axis in (0, 1):
            if 0 < best[axis] < n - 1:
                a, b, c = (grid[tuple(best + k * np.eye(2, dtype=int)[axis])] for k in (-1, 0, 1))
                bend = a - 2 * b + c
                found[axis] += STEP_M * 0.5 * (a - c) / bend if bend > 0 else 0.0
        return np.asarray(found, np.float64)


def _tips(
    T_hand_camera: NDArray[np.float64],
    rays: NDArray[np.float32],
    hand: Hand,
    beside_m: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels of the fingertips, and of what is behind them, for a camera displaced by (2,) in the hand."""
    T = T_hand_camera.copy()
    T[:2, 3] += beside_m
    depth = hand_depth(T, rays, hand)
    z = depth * (rays @ T[2, :3].astype(np.float32)) + np.float32(T[2, 3])
    return (depth > 0) & (z > BEHIND_M), (depth > 0) & (z <= BEHIND_M)


def _blurred(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of 3 x 3."""
    wide = np.pad(mask, 1, mode="edge")
    across = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return np.asarray((across[:-2] + across[1:-1] + across[2:]) / 9)
