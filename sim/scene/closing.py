"""Closing jaws: hands that close in force closure, the width that they hold, and the middle of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand
from sim.scene.lines import Lines, hands_at

COMPLIANCE_M = 0.001
"""Depth by which a rubber pad gives way: what lies this close behind first contact is touched too."""
LINES = 3
"""Least number of antipodal lines of contact in the middle half of the pads. A patch, not a point, so
that the object cannot turn; not at the pads' edges, where misaligned sides would be turned by closing."""
LEAST_WIDTH_M = 5e-4


@dataclass(frozen=True)
class Surface:
    """The faces of a scene's mesh."""

    normals: NDArray[np.float32]
    """(F, 3) outward unit normals, zero for a degenerate face."""
    object: NDArray[np.int16]
    """(F,): the object that a face is part of."""


class _Grid:
    """Lines across the fingers of one hand: heights over the pad, then coarser along the rest."""

    def __init__(self, hand: Hand, friction: float, least_lines: int = LINES) -> None:
        self.least_lines = least_lines
        self.pad = np.linspace(0.001, hand.pad_height_m, 5).astype(np.float32)
        self.above = np.linspace(hand.pad_height_m, hand.finger_length_m, 4)[1:].astype(np.float32)
        self.w = (np.linspace(-0.5, 0.5, 5) * hand.finger_width_m).astype(np.float32)
        self.inner = np.abs(self.w) < 0.3 * hand.finger_width_m
        self.cosine = np.float32(np.cos(np.arctan(friction)))
        self.most_shift = np.float32(hand.finger_thickness_m)
        self.opening, self.half = np.float32(hand.opening_m), np.float32(hand.opening_m / 2)


def closed_widths(
    lines: Lines,
    surface: Surface,
    poses: NDArray[np.float32],
    objects: NDArray[np.int16],
    hand: Hand,
    friction: float,
    least_lines: int = LINES,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Width [m] on which each hand (N, 4 or more: x, y, z, yaw) closes on its object (N,) in force closure,
    and the way along its closing axis [m] to the middle of that.

    A hand that closes from both sides at one speed pushes a free object to its middle; these hands are to be
    moved there instead. -1 for a hand that does not hold: it meets another object first, or nothing, or fewer than
    `least_lines` lines across the pads have both contacts in the friction cone, or the middle is further away
    than a finger is thick, so that a hand there is not known to be free between here and there.
    """
    grid = _Grid(hand, friction, least_lines)
    if lines.native is None:
        return closed_widths_numpy(lines, surface, poses, objects, grid)
    width, shift = np.empty(len(poses), np.float32), np.empty(len(poses), np.float32)
    lines.native.close(
        hands_at(poses),
        objects,
        surface.normals,
        surface.object,
        grid.pad,
        grid.above,
        grid.w,
        grid.inner.view(np.uint8),
        least_lines,
        grid.half,
        grid.opening,
        grid.cosine,
        COMPLIANCE_M,
        hand.finger_thickness_m,
        LEAST_WIDTH_M,
        width,
        shift,
    )
    return width, shift


def closed_widths_numpy(
    lines: Lines,
    surface: Surface,
    poses: NDArray[np.float32],
    objects: NDArray[np.int16],
    grid: _Grid,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The oracle of LineCaster.close in rt/native/lines.cpp, equal to it bit by bit."""
    hands = hands_at(poses)
    result = np.full(len(poses), -1, np.float32)
    # The pads alone first: contact further up can only take lines away.
    sides: list[tuple[NDArray[Any], ...]] = []
    kept = np.arange(len(poses))
    for sign, (travel, faces) in zip((1, -1), _travels(lines, hands, grid, grid.pad), strict=True):
        t, face = travel[kept], faces[kept]
        touching = t <= t.min(axis=(1, 2), initial=np.inf)[:, None, None] + COMPLIANCE_M
        own = (surface.object[face] == objects[kept, None, None]) & (face >= 0)
        c, s = hands[kept, 3, None, None], hands[kept, 4, None, None]
        toward = surface.normals[face, 0] * c + surface.normals[face, 1] * s
        good = own & (-sign * toward >= grid.cosine)
        keep = _between(touching & good)[:, :, grid.inner].sum(axis=(1, 2)) >= grid.least_lines
        kept = kept[keep]
        sides = [tuple(array[keep] for array in side) for side in (*sides, (t, own, good))]

    n, rays = len(kept), len(grid.pad) * len(grid.w)
    holds = np.ones(n, bool)
    first, presses = [], []
    uppers = _travels(lines, hands[kept], grid, grid.above)
    for (t_above, face_above), (t_pad, own, good) in zip(uppers, sides, strict=True):
        more = len(grid.above) * len(grid.w)
        t = np.concatenate([t_pad.reshape(n, rays), t_above.reshape(n, more)], axis=1)
        contact = t.min(axis=1, initial=np.inf)  # of the whole finger; it must be of the pad
        touching = t_pad <= contact[:, None, None] + COMPLIANCE_M
        holds &= np.isfinite(contact)
        nearest = t.argmin(axis=1)
        met_own = own.reshape(n, rays)[np.arange(n), np.minimum(nearest, rays - 1)]
        high = np.flatnonzero(nearest >= rays)
        face = face_above.reshape(n, more)[high, nearest[high] - rays]
        met_own[high] = (surface.object[face] == objects[kept[high]]) & (face >= 0)
        holds &= met_own
        presses.append(_between(touching & good))
        first.append(np.where(np.isfinite(contact), contact, 0))
    holds &= (presses[0] & presses[1])[:, :, grid.inner].sum(axis=(1, 2)) >= grid.least_lines
    way = (first[0] - first[1]) / 2
    holds &= np.abs(way) <= grid.most_shift
    width = grid.opening - first[0] - first[1]
    holds &= width > LEAST_WIDTH_M
    shift = np.zeros(len(poses), np.float32)
    result[kept[holds]], shift[kept[holds]] = width[holds], way[holds]
    return result, shift


def _travels(
    lines: Lines, hands: NDArray[np.float32], grid: _Grid, z: NDArray[np.float32]
) -> list[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """For the finger from -x_hand and the one from +x_hand: its travel to first contact along each line
    (N, Z, W) [m], inf for none, and the face met there, -1 for none."""
    met = lines.cross(hands, z, grid.w, -float(grid.half), float(grid.half))
    return [(met.left + grid.half, met.left_face), (grid.half - met.right, met.right_face)]


def _between(contact: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Places where a flat pad can press: on or between contacts of a row, (n, rows, columns) bool."""
    since = np.logical_or.accumulate(contact, axis=2)
    until = np.logical_or.accumulate(contact[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.asarray(since & until)
