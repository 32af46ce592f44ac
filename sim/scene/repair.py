"""Certain repairs of triangle meshes: double faces, cracks, faces turned over, bodies that overlap.

Vertices are in metres. A mesh that is sound already is left as it is, byte by byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from manifold3d import Error, Manifold, Mesh64, OpType
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]

CRACK_M = 1e-6
"""Vertices nearer than this are one: exporters' rounding, a thousandth of what a gripper notices."""
_SAME_VOLUME = 1e-4
"""Relative difference of volume from which bodies are said to overlap."""
_MOST_BODIES = 500
"""Meshes of more bodies than this are not examined for overlaps."""


@dataclass(frozen=True)
class Flaws:
    """Properties that keep a mesh from being a solid."""

    open_edges: int
    """Edges that do not join exactly two faces."""
    edges: int
    inconsistent: bool
    """Neighbouring faces that point to opposite sides."""
    volume_m3: float

    @property
    def sound(self) -> bool:
        return self.open_edges == 0 and not self.inconsistent and self.volume_m3 > 0


def volume_m3(vertices: Vertices, faces: Faces) -> float:
    """Signed volume: positive if the faces point outward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def examine(vertices: Vertices, faces: Faces) -> Flaws:
    """The flaws of a mesh whose equal vertices are merged."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges, counts = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    forward = np.where(directed[:, 0] < directed[:, 1], 1, -1)
    _, index = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True)
    balance = np.bincount(index.ravel(), forward, minlength=len(edges))
    paired = counts == 2
    return Flaws(
        int(np.count_nonzero(~paired)),
        len(edges),
        bool((balance[paired] != 0).any()),
        volume_m3(vertices, faces) if len(faces) else 0.0,
    )


def repaired(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces, list[str]]:
    """The mesh with its certain flaws repaired, and a note on each repair."""
    notes = []
    vertices, faces, count, widest = _weld(vertices, faces)
    if count:
        notes.append(f"cracks of up to {widest:.1g} m closed")
    faces = faces[_three_corners(faces)]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    if len(first) < len(faces):
        notes.append(f"{_count(len(faces) - len(first), 'double face')} removed")
        faces = faces[np.sort(first)]
    flaws = examine(vertices, faces)
    if flaws.open_edges:
        return vertices, faces, notes
    if flaws.inconsistent:
        faces, turned = _consistent(faces)
        notes.append(f"{_count(turned, 'face')} turned over")
    if volume_m3(vertices, faces) < 0:
        faces = faces[:, ::-1].copy()
        notes.append("faces pointed inward: turned outward")
    return vertices, faces, notes


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _three_corners(faces: Faces) -> NDArray[np.bool_]:
    a, b, c = faces.T
    return np.asarray((a != b) & (b != c) & (c != a))


def _weld(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces, int, float]:
    """Vertices within CRACK_M of each other merged into the first; how many went, and the widest crack."""
    pairs = cKDTree(vertices).query_pairs(CRACK_M, output_type="ndarray")
    if not len(pairs):
        return vertices, faces, 0, 0.0
    n = len(vertices)
    _, group = connected_components(coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n)))
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    widest = float(np.linalg.norm(vertices[pairs[:, 0]] - vertices[pairs[:, 1]], axis=1).max())
    return vertices[first], inverse[faces], n - len(first), widest


def _face_pairs(faces: Faces) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Faces (E, 2) at each edge of two faces, and whether both pass it in the same direction."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    owner = np.repeat(np.arange(len(faces)), 3)
    key = np.sort(directed, axis=1)
    order = np.lexsort((key[:, 1], key[:, 0]))
    key, directed, owner = key[order], directed[order], owner[order]
    begins = np.flatnonzero(np.r_[True, (key[1:] != key[:-1]).any(axis=1)])
    two = begins[np.diff(np.r_[begins, len(key)]) == 2]
    same = directed[two, 0] == directed[two + 1, 0]
    return np.column_stack([owner[two], owner[two + 1]]), same


def _consistent(faces: Faces) -> tuple[Faces, int]:
    """Faces of every body turned the way that most of them point; how many were turned."""
    pairs, same = _face_pairs(faces)
    n = len(faces)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n)).tocsr()
    graph = graph + graph.T
    differ = {(int(i), int(j)): bool(s) for (i, j), s in zip(pairs, same, strict=True)}
    differ |= {(j, i): s for (i, j), s in differ.items()}
    turned = np.zeros(n, bool)
    count, body = connected_components(graph, directed=False)
    for k in range(count):
        own = np.flatnonzero(body == k)
        order, parent = breadth_first_order(graph, own[0], directed=False)
        for face in order[1:]:
            turned[face] = turned[parent[face]] ^ differ[int(parent[face]), int(face)]
        if turned[own].sum() > len(own) / 2:
            turned[own] = ~turned[own]
    result = faces.copy()
    result[turned] = result[turned, ::-1]
    return result, int(turned.sum())


def bodies(faces: Faces) -> list[NDArray[np.intp]]:
    """Indices of the faces of each body: faces joined by edges. In the order of their first faces."""
    pairs, _ = _face_pairs(faces)
    n = len(faces)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n))
    count, body = connected_components(graph, directed=False)
    return [np.flatnonzero(body == k) for k in range(count)]


def winding_number(point: NDArray[np.floating], vertices: Vertices, faces: Faces) -> float:
    """Turns of the surface around a point: 1 inside an outward solid, 0 outside (Van Oosterom 1983)."""
    a, b, c = (vertices[faces[:, k]] - point for k in range(3))
    la, lb, lc = (np.linalg.norm(p, axis=1) for p in (a, b, c))
    top = np.einsum("ij,ij->i", a, np.cross(b, c))
    bottom = la * lb * lc
    for p, q, length in ((a, b, lc), (b, c, la), (c, a, lb)):
        bottom = bottom + np.einsum("ij,ij->i", p, q) * length
    return float(np.arctan2(top, bottom).sum() / (2 * np.pi))


def solids(vertices: Vertices, faces: Faces) -> list[NDArray[np.intp]]:
    """Indices of the faces of each solid of a sound mesh: an outer surface with the cavities inside it."""
    parts = bodies(faces)
    signed = [volume_m3(vertices, faces[part]) for part in parts]
    outer = [k for k, v in enumerate(signed) if v > 0]
    found = {k: [parts[k]] for k in outer}
    for k, v in enumerate(signed):
        if v <= 0:
            point = vertices[faces[parts[k][0], 0]]
            around = [
                j for j in outer if winding_number(point, vertices, faces[parts[j]]) > 0.5
            ] or outer[:1]
            found[min(around, key=lambda j: signed[j])].append(parts[k])
    return [np.concatenate(found[k]) for k in outer]


def united(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces, int, bool]:
    """A sound mesh whose overlapping solids are one, so that no mass counts twice.

    Returns vertices, faces, the number of solids apart from each other, and whether any were united. The
    arrays are the given ones if none overlap.
    """
    parts = solids(vertices, faces)
    if not 1 < len(parts) <= _MOST_BODIES:
        return vertices, faces, len(parts), False
    pieces = [_manifold(vertices, faces[part]) for part in parts]
    if any(piece.status() != Error.NoError for piece in pieces):
        return vertices, faces, len(parts), False
    whole = Manifold.batch_boolean(pieces, OpType.Add)
    total = sum(piece.volume() for piece in pieces)
    if whole.volume() >= total * (1 - _SAME_VOLUME):
        return vertices, faces, len(parts), False
    mesh = whole.to_mesh64()
    corners = np.array(mesh.vert_properties[:, :3], np.float64)
    return corners, np.array(mesh.tri_verts, np.int64), len(whole.decompose()), True


def _manifold(vertices: Vertices, faces: Faces) -> Manifold:
    used, inverse = np.unique(faces, return_inverse=True)
    corners = np.ascontiguousarray(vertices[used], np.float64)
    return Manifold(Mesh64(corners, inverse.reshape(-1, 3).astype(np.uint64)))
