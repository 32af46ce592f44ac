"""GPD's 15-channel image of what is between a hand's fingers.

The closing region is seen along each of the hand's axes: lateral, approach, closing. Each of the three
60x60 projections holds the mean |normal| in the hand's frame (3 channels), the mean place along the
line of sight (1) and the share of it that is hidden from the camera (1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand

SIDE_PX, CHANNELS = 60, 15
WIDTH_M, DEPTH_M, HEIGHT_M = 0.10, 0.06, 0.022
"""Size of the region along the closing axis, the approach, and the lateral axis."""
_AXES = ((0, 2), (0, 1), (1, 2))
"""The image's axes in each projection, of (closing, lateral, approach)."""
_DILATE = 1
"""A point is drawn this many pixels wide to each side: the cloud is coarser than the image."""


def describe(
    points: NDArray[np.float32],
    normals: NDArray[np.float32],
    shadow: NDArray[np.float32],
    hands: NDArray[np.float64],
    hand: Hand,
) -> NDArray[np.float32]:
    """Descriptors (N, 15, 60, 60) float32 in 0..1 of hands (N, 4), fingertips at x, y, z, yaw.

    points (P, 3), normals (P, 3): the observed surface; shadow (S, 3): points out of the camera's sight.
    """
    images = np.zeros((len(hands), 3, 5, SIDE_PX, SIDE_PX), np.float32)
    k, place, n = _inside(points, normals, hands)
    hidden, behind, _ = _inside(shadow, None, hands)
    for projection, (a, b) in enumerate(_AXES):
        seen = 3 - a - b  # the axis that is looked along
        values = np.concatenate([np.abs(n), place[:, seen : seen + 1]], axis=1)
        _draw(images[:, projection, :4], k, place[:, a], place[:, b], values)
        depth = behind[:, seen : seen + 1]
        _draw(images[:, projection, 4:], hidden, behind[:, a], behind[:, b], depth)
    return images.reshape(len(hands), CHANNELS, SIDE_PX, SIDE_PX)


def _inside(
    points: NDArray[np.float32], normals: NDArray[np.float32] | None, hands: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Points in the hands' regions, M of them: which hand (M,), the place in its region (M, 3) in 0..1
    of closing, lateral, approach, and the normal in its frame (M, 3), if there are any."""
    c, s = (f(hands[:, 3]).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    x, y = (points[None, :, i] - hands[:, i, None].astype(np.float32) for i in (0, 1))
    up = points[None, :, 2] - hands[:, 2, None].astype(np.float32)
    unit = (
        (c * x + s * y) / np.float32(WIDTH_M) + np.float32(0.5),
        (s * x - c * y) / np.float32(HEIGHT_M) + np.float32(0.5),
        up / np.float32(DEPTH_M),
    )
    within = np.ones(x.shape, bool)
    for u in unit:
        within &= (u >= 0) & (u < 1)
    k, p = within.nonzero()
    place = np.stack([u[k, p] for u in unit], axis=-1)
    if normals is None:
        return k, place, np.zeros_like(place)
    n = normals[p]
    ck, sk = c[k, 0], s[k, 0]
    turned = [ck * n[:, 0] + sk * n[:, 1], sk * n[:, 0] - ck * n[:, 1], n[:, 2]]
    return k, place, np.stack(turned, axis=-1)


def _draw(
    image: NDArray[np.float32],
    k: NDArray[np.intp],
    u: NDArray[np.float32],
    v: NDArray[np.float32],
    values: NDArray[np.float32],
) -> None:
    """Mean of the values (M, C) at pixels (u, v) of image k, drawn into image (N, C, 60, 60)."""
    n, side = len(image), SIDE_PX
    i, j = (v * side).astype(np.int64), (u * side).astype(np.int64)
    cells, drawn = [], []
    for di in range(-_DILATE, _DILATE + 1):
        for dj in range(-_DILATE, _DILATE + 1):
            row, column = i + di, j + dj
            ok = (row >= 0) & (row < side) & (column >= 0) & (column < side)
            cells.append(((k * side + row) * side + column)[ok])
            drawn.append(values[ok])
    cell, value = np.concatenate(cells), np.concatenate(drawn)
    count = np.bincount(cell, minlength=n * side * side)
    hit = count > 0
    for channel in range(values.shape[1]):
        total = np.bincount(cell, value[:, channel], n * side * side)
        flat = np.zeros(n * side * side, np.float32)
        flat[hit] = total[hit] / count[hit]
        image[:, channel] = flat.reshape(n, side, side)
