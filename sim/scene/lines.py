"""Contacts of closing jaws: where horizontal lines across a hand first meet a mesh, from either side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.native import native

_AT_ONCE = 500
"""Hands that the twin holds in memory at once."""
_CLUSTER = 64
"""Most faces in a box of the twin's."""


@dataclass(frozen=True)
class Crossings:
    """First contacts of N hands with a mesh along lines of Z heights and W places beside the axis."""

    left: NDArray[np.float32]
    """(N, Z, W) place along the closing axis [m] of the first contact from its low end; inf for none."""
    left_face: NDArray[np.int32]
    """(N, Z, W) the face met there, -1 for none."""
    right: NDArray[np.float32]
    """The same from the high end; -inf for none."""
    right_face: NDArray[np.int32]


class Lines:
    """Line queries on one mesh of vertices (V, 3) float32 [m] and faces (F, 3) int32."""

    def __init__(self, vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> None:
        self._mesh = (
            np.ascontiguousarray(vertices, np.float32),
            np.ascontiguousarray(faces, np.int32),
        )
        self.native = native.LineCaster(*self._mesh) if native is not None else None
        """The kernel, None if the package was installed without it."""

    def cross(
        self,
        hands: NDArray[np.float32],
        z: NDArray[np.floating],
        w: NDArray[np.floating],
        low: float,
        high: float,
    ) -> Crossings:
        """Contacts of N hands (N, 5): x, y, z [m] in the world, cosine and sine of the yaw.

        The lines run along the closing axis (c, s, 0) from low to high [m], at heights z (Z,) above the
        hand's point and at places w (W,) along (s, -c, 0), both ascending.
        """
        hands = np.ascontiguousarray(hands, np.float32)
        z, w = np.ascontiguousarray(z, np.float32), np.ascontiguousarray(w, np.float32)
        if self.native is None:
            return cross_numpy(*self._mesh, hands, z, w, low, high)
        shape = len(hands), len(z), len(w)
        found = Crossings(
            np.empty(shape, np.float32),
            np.empty(shape, np.int32),
            np.empty(shape, np.float32),
            np.empty(shape, np.int32),
        )
        self.native.cross(
            hands, z, w, low, high, found.left, found.left_face, found.right, found.right_face
        )
        return found


def hands_at(poses: NDArray[np.floating]) -> NDArray[np.float32]:
    """Hands (N, 5) as Lines wants them, of poses (N, 4 or more): x, y, z [m], yaw [rad]."""
    yaw = poses[:, 3].astype(np.float32)
    return np.column_stack([poses[:, :3], np.cos(yaw), np.sin(yaw)]).astype(np.float32)


def cross_numpy(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    hands: NDArray[np.float32],
    z: NDArray[np.float32],
    w: NDArray[np.float32],
    low: float,
    high: float,
) -> Crossings:
    """The oracle of rt/native/lines.cpp, equal to it bit by bit: float32 in the same order."""
    shape = len(hands), len(z), len(w)
    found = Crossings(
        np.full(shape, np.inf, np.float32),
        np.full(shape, -1, np.int32),
        np.full(shape, -np.inf, np.float32),
        np.full(shape, -1, np.int32),
    )
    corners = vertices[faces]
    clusters = _clusters(corners)
    for begin in range(0, len(hands) if len(faces) else 0, _AT_ONCE):
        step = _AT_ONCE
        line, face, x = _meetings(corners, clusters, hands[begin : begin + step], z, w, low, high)
        for place, number, order in (
            (found.left, found.left_face, np.lexsort((face, x, line))),
            (found.right, found.right_face, np.lexsort((face, -x, line))),
        ):
            first = order[np.unique(line[order], return_index=True)[1]]
            place[begin : begin + step].reshape(-1)[line[first]] = x[first]
            number[begin : begin + step].reshape(-1)[line[first]] = face[first]
    return found


def _meetings(
    corners: NDArray[np.float32],
    clusters: list[NDArray[np.int64]],
    hands: NDArray[np.float32],
    z: NDArray[np.float32],
    w: NDArray[np.float32],
    low: float,
    high: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Every meeting of a line and a face: the line's number through all hands, the face, the place."""
    beam = low, high, float(w[0]), float(w[-1]), float(z[0]), float(z[-1])
    hand, face = _near(corners, clusters, hands, beam)
    c, s, corner = hands[hand, 3:4], hands[hand, 4:5], corners[face]
    dx, dy, pz = (corner[..., k] - hands[hand, k, None] for k in range(3))
    px, pw = c * dx + s * dy, s * dx - c * dy

    # (P, Z, W): pairs of hand and face, lines.
    at_z, at_w = z[None, :, None], w[None, None, :]
    box = (at_z >= pz.min(-1)[:, None, None]) & (at_z <= pz.max(-1)[:, None, None])
    box = box & (at_w >= pw.min(-1)[:, None, None]) & (at_w <= pw.max(-1)[:, None, None])
    pair, row, column = np.nonzero(box)
    px, pw, pz = px[pair], pw[pair], pz[pair]
    at_z, at_w = z[row], w[column]
    edges = []
    for k in range(3):
        m = (k + 1) % 3
        A, B = pz[:, k] - pz[:, m], pw[:, m] - pw[:, k]
        C = pw[:, k] * pz[:, m] - pw[:, m] * pz[:, k]
        edges.append(A * at_w + (B * at_z + C))
    edge = np.stack(edges)
    inside = (edge >= 0).all(0) | (edge <= 0).all(0)
    ux, uw, uz = (p[:, 1] - p[:, 0] for p in (px, pw, pz))
    vx, vw, vz = (p[:, 2] - p[:, 0] for p in (px, pw, pz))
    nx, nw, nz = uw * vz - uz * vw, uz * vx - ux * vz, ux * vw - uw * vx
    with np.errstate(divide="ignore", invalid="ignore"):
        x = px[:, 0] - (nw * (at_w - pw[:, 0]) + nz * (at_z - pz[:, 0])) / nx
        least, most = px.min(-1), px.max(-1)
        x = np.where(x < least, least, x)
        x = np.where(x > most, most, x)
        inside &= (x >= np.float32(low)) & (x <= np.float32(high))
    kept = np.flatnonzero(inside)
    line = (hand[pair] * len(z) + row) * len(w) + column
    return line[kept], face[pair][kept], x[kept]


def _near(
    corners: NDArray[np.float32],
    clusters: list[NDArray[np.int64]],
    hands: NDArray[np.float32],
    beam: tuple[float, float, float, float, float, float],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hand and face of all pairs whose face can meet the box of the hand's lines, and of some more."""
    bounds = [(corners[some].min(axis=(0, 1)), corners[some].max(axis=(0, 1))) for some in clusters]
    least, most = (np.array(side) for side in zip(*bounds, strict=True))
    hand, cluster = np.nonzero(_touches(least, most, hands[:, None], beam))
    size = np.array([len(some) for some in clusters])[cluster]
    begin = np.cumsum([0] + [len(some) for some in clusters])[cluster]
    place = np.repeat(begin - (np.cumsum(size) - size), size) + np.arange(size.sum())
    hand, face = np.repeat(hand, size), np.concatenate(clusters)[place]
    least, most = corners.min(axis=1), corners.max(axis=1)
    near = np.flatnonzero(_touches(least[face], most[face], hands[hand], beam))
    return hand[near], face[near]


def _touches(
    least: NDArray[np.float32],
    most: NDArray[np.float32],
    hands: NDArray[np.float32],
    beam: tuple[float, float, float, float, float, float],
) -> NDArray[np.bool_]:
    """True where a box (..., 3) can meet the box of a hand's lines (..., 5), with 0.01 mm to spare."""
    low, high, w0, w1, z0, z1 = beam
    c, s = hands[..., 3], hands[..., 4]
    centre, half = (least + most) / 2, (most - least) / 2 + np.float32(1e-5)
    dx, dy = centre[..., 0] - hands[..., 0], centre[..., 1] - hands[..., 1]
    dz = centre[..., 2] - hands[..., 2]
    near = np.abs(dz - (z0 + z1) / 2) <= half[..., 2] + (z1 - z0) / 2
    beside = np.abs(s) * half[..., 0] + np.abs(c) * half[..., 1] + (w1 - w0) / 2
    near &= np.abs(s * dx - c * dy - (w0 + w1) / 2) <= beside
    along = np.abs(c) * half[..., 0] + np.abs(s) * half[..., 1] + (high - low) / 2
    return np.asarray(near & (np.abs(c * dx + s * dy - (low + high) / 2) <= along))


def _clusters(corners: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """Faces in clusters of at most _CLUSTER that lie together: halves along the longer side."""
    middle, waiting, done = corners.mean(axis=1), [np.arange(len(corners))], []
    while waiting:
        some = waiting.pop()
        if len(some) <= _CLUSTER:
            done.append(some)
            continue
        axis = np.ptp(middle[some], axis=0).argmax()
        some = some[np.argpartition(middle[some, axis], len(some) // 2)]
        waiting += [some[: len(some) // 2], some[len(some) // 2 :]]
    return done
