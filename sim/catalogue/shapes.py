"""The vocabulary of the families: skins through rings, lathes, sweeps, boxes. Lengths in millimetres.

A family is written in millimetres, z up, as the solid is drawn on paper; `sim.catalogue.mesh` turns it
into metres once. Everything is closed by construction, and Boolean operations keep it so (manifold3d).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from manifold3d import CrossSection, Error, Manifold, Mesh
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

Array = NDArray[np.float64]
Profile = list[tuple[float, float]]
"""Outline: (radius, z) of a solid of revolution, (x, z) of a side view."""


def skin(rings: ArrayLike, closed: bool = False) -> Manifold:
    """The solid whose surface runs through the rings (K, N, 3) in turn.

    The ends are closed by fans around their centroids, so an end ring must be star-shaped about it;
    with `closed` the last ring joins the first instead, as on a torus.
    """
    rings = np.asarray(rings, dtype=np.float64)
    k, n, _ = rings.shape
    here = np.arange(k if closed else k - 1)[:, None] * n
    there = (here + n) % (k * n)
    i, j = np.arange(n), np.roll(np.arange(n), -1)
    faces = [
        np.stack([here + i, here + j, there + j], axis=-1).reshape(-1, 3),
        np.stack([here + i, there + j, there + i], axis=-1).reshape(-1, 3),
    ]
    vertices = rings.reshape(-1, 3)
    if not closed:
        last = (k - 1) * n
        faces.append(np.stack([j, i, np.full(n, k * n)], axis=-1))
        faces.append(np.stack([last + i, last + j, np.full(n, k * n + 1)], axis=-1))
        vertices = np.concatenate([vertices, rings[0].mean(0)[None], rings[-1].mean(0)[None]])
    triangles = np.concatenate(faces)
    a, b, c = (vertices[triangles[:, m]] for m in range(3))
    if np.einsum("ij,ij->", a, np.cross(b, c)) < 0:
        triangles = triangles[:, ::-1]
    solid = Manifold(
        Mesh(vertices.astype(np.float32), np.ascontiguousarray(triangles, dtype=np.uint32))
    )
    if solid.status() != Error.NoError:
        raise AssertionError(f"rings do not close: {solid.status()}")
    return solid


def lathe(
    profile: ArrayLike,
    segments: int = 36,
    power: ArrayLike = 2.0,
    squash: ArrayLike = 1.0,
    turn_deg: float = 0.0,
) -> Manifold:
    """A solid about the z axis from its profile (K, 2) of (radius, z), first point to last.

    power 2 makes round sections, 4 and more squarish ones (superellipses); squash scales y. Both may
    be given for every point of the profile, so that a square body can end in a round neck.
    """
    profile = np.asarray(profile, dtype=np.float64)
    angle = np.radians(turn_deg) + 2 * np.pi * np.arange(segments) / segments
    c, s = np.cos(angle), np.sin(angle)
    p = np.broadcast_to(np.asarray(power, dtype=np.float64), len(profile))[:, None]
    unit = (np.abs(c) ** p + np.abs(s) ** p) ** (-1 / p)
    radius = np.maximum(profile[:, :1], 0.05) * unit
    y_scale = np.broadcast_to(np.asarray(squash, dtype=np.float64), len(profile))[:, None]
    z = np.broadcast_to(profile[:, 1:], radius.shape)
    return skin(np.stack([radius * c, radius * s * y_scale, z], axis=-1))


def cylinder(radius: float, height: float, segments: int = 32, bevel: float = 0.0) -> Manifold:
    """Upright on z = 0, its edges bevelled."""
    if bevel <= 0:
        return Manifold.cylinder(height, radius, radius, segments)
    b = bevel
    return lathe(
        [(radius - b, 0), (radius, b), (radius, height - b), (radius - b, height)], segments
    )


def fillet(points: ArrayLike, radius: float, steps: int = 3, closed: bool = False) -> Array:
    """A polyline (K, D) with its corners rounded: curves that leave `radius` before each corner."""
    p = np.asarray(points, dtype=np.float64)
    t = np.linspace(0, 1, steps + 1)[:, None]
    out = [] if closed else [p[:1]]
    for k in range(len(p)) if closed else range(1, len(p) - 1):
        before, corner, after = p[k - 1], p[k], p[(k + 1) % len(p)]
        cut = []
        for other in (before, after):
            away = other - corner
            length = float(np.linalg.norm(away))
            cut.append(corner + away * min(radius / length, 0.499))
        out.append((1 - t) ** 2 * cut[0] + 2 * t * (1 - t) * corner + t**2 * cut[1])
    if not closed:
        out.append(p[-1:])
    return np.concatenate(out)


def through(points: ArrayLike, samples: int) -> Array:
    """A smooth curve (samples, D) through the points (K, D)."""
    p = np.asarray(points, dtype=np.float64)
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))])
    return np.asarray(CubicSpline(chord, p)(np.linspace(0, chord[-1], samples)))


def radii(knots: Sequence[tuple[float, float]], z: ArrayLike) -> Array:
    """Radius at the heights z of a profile through knots of (z, radius), without overshoot."""
    at, r = np.array(sorted(knots)).T
    return np.asarray(PchipInterpolator(at, r)(np.clip(z, at[0], at[-1])))


def ellipse(a: float, b: float, power: float = 2.0, segments: int = 16) -> Array:
    """A superellipse (segments, 2) of half axes a, b."""
    angle = 2 * np.pi * np.arange(segments) / segments
    c, s = np.cos(angle), np.sin(angle)
    unit = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
    return np.stack([a * unit * c, b * unit * s], axis=-1)


def sweep(
    path: ArrayLike,
    section: ArrayLike,
    side: Sequence[float] = (0, 1, 0),
    scale: ArrayLike = 1.0,
    closed: bool = False,
) -> Manifold:
    """A section (N, 2) carried along a path (K, 3) in a plane whose normal is `side`.

    The section's first coordinate lies along `side`, its second in the plane. scale: one number, (K,)
    or (K, 2).
    """
    path, section = np.asarray(path, dtype=np.float64), np.asarray(section, dtype=np.float64)
    around = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    tangent = around if closed else np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side_axis = np.asarray(side, dtype=np.float64)
    normal = np.cross(tangent, side_axis)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    scale = np.asarray(scale, dtype=np.float64)
    scale = np.broadcast_to(scale[:, None] if scale.ndim == 1 else scale, (len(path), 2))
    rings = (
        path[:, None]
        + (section[None, :, 0] * scale[:, None, 0])[..., None] * side_axis
        + (section[None, :, 1] * scale[:, None, 1])[..., None] * normal[:, None]
    )
    return skin(rings, closed=closed)


def rounded_rectangle(width: float, depth: float, radius: float, steps: int = 4) -> Array:
    """Outline (4 * (steps + 1), 2), counter-clockwise about the origin."""
    radius = min(radius, 0.499 * min(width, depth))
    x, y = width / 2 - radius, depth / 2 - radius
    quarter = np.linspace(0, np.pi / 2, steps + 1)
    corners = [(x, y, 0.0), (-x, y, 0.5), (-x, -y, 1.0), (x, -y, 1.5)]
    arcs = [
        (cx + radius * np.cos(quarter + q * np.pi), cy + radius * np.sin(quarter + q * np.pi))
        for cx, cy, q in corners
    ]
    return np.concatenate([np.stack(arc, axis=-1) for arc in arcs])


def block(
    size: Sequence[float], corner: float = 2.0, edge: float = 1.0, steps: int = 3
) -> Manifold:
    """A box (x, y, z) on z = 0 about the z axis: upright edges rounded by `corner`, the rest by `edge`."""
    width, depth, height = size
    edge = min(edge, 0.45 * height, 0.45 * min(width, depth))
    a = np.linspace(0, np.pi / 2, steps)
    inset, rise = edge * (1 - np.sin(a)), edge * (1 - np.cos(a))
    inset, z = np.r_[inset, inset[::-1]], np.r_[rise, height - rise[::-1]]
    rings = []
    for cut, level in zip(inset, z, strict=True):
        outline = rounded_rectangle(width - 2 * cut, depth - 2 * cut, max(corner - cut, 0.2), steps)
        rings.append(np.column_stack([outline, np.full(len(outline), level)]))
    return skin(np.array(rings))


def prism(polygon: ArrayLike, height: float) -> Manifold:
    """A polygon (N, 2) in x, y extruded from z = 0 up."""
    return Manifold.extrude(CrossSection([np.asarray(polygon, dtype=np.float64)]), height)


def plate(polygon: ArrayLike, width: float, round_by: float = 0.0) -> Manifold:
    """A side view: polygon (N, 2) of (x, z), corners rounded, extruded over y in [-width/2, width/2]."""
    points = np.asarray(polygon, dtype=np.float64)
    if round_by > 0:
        points = fillet(points, round_by, closed=True)
    x, z = points[:, 0], points[:, 1]
    if np.sum(x * np.roll(z, -1) - np.roll(x, -1) * z) < 0:
        points = points[::-1]
    return prism(points, width).rotate([90, 0, 0]).translate([0, width / 2, 0])


def join(*solids: Manifold) -> Manifold:
    """The union."""
    total = solids[0]
    for solid in solids[1:]:
        total = total + solid
    return total


def pick(rng: np.random.Generator, *options: float) -> float:
    return options[int(rng.integers(len(options)))]
