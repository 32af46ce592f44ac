"""Depth images as coarse clouds with normals, and the plane of the table in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.data.recording import Recording, read_depth
from calib.errors import CalibrationError, Finding, listed
from calib.solve.model import LensModel
from rt.pose import Array

BLOCKS = 120
"""About so many blocks of pixels lie across an image: their means are far less noisy than pixels."""
NEAREST_M, FARTHEST_M = 0.05, 2.0
LEAST_BLOCKS = 400
"""A view with fewer valid blocks tells nothing."""


@dataclass(frozen=True)
class BlockCloud:
    """One depth image in blocks, in the camera's frame."""

    name: str
    points_m: Array
    """(h, w, 3)."""
    normals: Array
    """(h, w, 3) towards the camera; NaN at edges, holes and where the surface is not smooth."""
    step: int
    """Pixels along a block's side."""
    table: NDArray[np.bool_]
    """(h, w): blocks of the table, as `flattened` finds them."""

    @property
    def smooth(self) -> NDArray[np.bool_]:
        """(h, w): blocks with a normal."""
        return np.asarray(np.isfinite(self.normals[..., 0]))


def cloud(name: str, depth: NDArray[np.float32], rays: NDArray[np.float32]) -> BlockCloud:
    """A cloud from depth (H, W) [m], 0 = no return, and rays (H, W, 3) with z = 1."""
    step = max(1, round(depth.shape[1] / BLOCKS))
    h, w = depth.shape[0] // step, depth.shape[1] // step

    def blocks(image: Array) -> Array:
        return image[: h * step, : w * step].reshape(h, step, w, step).swapaxes(1, 2)

    z = blocks(depth.astype(np.float64)).reshape(h, w, -1)
    r = blocks(rays.astype(np.float64).reshape(*depth.shape, 3)[..., 0]).reshape(h, w, -1)
    v = blocks(rays.astype(np.float64).reshape(*depth.shape, 3)[..., 1]).reshape(h, w, -1)
    seen = (z > NEAREST_M) & (z < FARTHEST_M)
    count = seen.sum(axis=-1)
    full = count >= max(1, 0.6 * step * step)
    n = np.maximum(count, 1)[..., None]
    p = np.stack(
        [(a * z * seen).sum(axis=-1) / n[..., 0] for a in (r, v, np.ones_like(z))], axis=-1
    )
    # the noise of a depth grows with its square: a block that varies by far more lies on an edge
    if step > 1:
        spread = np.sqrt(((z - p[..., 2:]) ** 2 * seen).sum(axis=-1) / n[..., 0])
        rough = spread / np.maximum(p[..., 2], 1e-6) ** 2
        if full.any():
            full &= rough < 2.5 * np.median(rough[full]) + 1e-3
    p[~full] = np.nan
    return BlockCloud(name, p, _normals(p, full), step, np.zeros((h, w), dtype=bool))


def _normals(p: Array, full: NDArray[np.bool_], half: int = 2) -> Array:
    """(h, w, 3) by the plane through the blocks around each; NaN where they do not make one."""
    size = (2 * half + 1, 2 * half + 1)
    q = np.where(full[..., None], p, 0.0)

    def total(image: Array) -> Array:
        return np.asarray(
            cv2.boxFilter(image, cv2.CV_64F, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        )

    count = total(full.astype(np.float64))
    middle = np.stack([total(q[..., k].copy()) for k in range(3)], axis=-1)
    middle /= np.maximum(count, 1)[..., None]
    cov = np.empty((*p.shape[:2], 3, 3))
    for a in range(3):
        for b in range(a, 3):
            second = total(q[..., a] * q[..., b]) / np.maximum(count, 1)
            cov[..., a, b] = cov[..., b, a] = second - middle[..., a] * middle[..., b]
    values, vectors = np.linalg.eigh(cov)
    normal = vectors[..., 0]
    normal = np.where((np.sum(normal * middle, axis=-1) > 0)[..., None], -normal, normal)
    off = np.sqrt(np.maximum(values[..., 0], 0)) / np.maximum(middle[..., 2], 1e-6) ** 2
    good = full & (count >= 0.6 * size[0] ** 2)
    if good.any():
        good &= off < 2.5 * np.median(off[good]) + 1e-4
    return np.asarray(np.where(good[..., None], normal, np.nan))


def clouds_of(recording: Recording, camera: LensModel) -> tuple[list[BlockCloud], list[int]]:
    """Clouds of the recording's depth images, and their rows; findings name those that are left out.

    Raises CalibrationError for depth of another size than the camera's.
    """
    rays = camera.rays()
    found: list[BlockCloud] = []
    rows: list[int] = []
    empty: list[str] = []
    for k, entry in enumerate(recording.entries):
        if entry.depth is None:
            empty.append(entry.name)
            continue
        z = read_depth(entry.depth)
        if z.shape != (camera.height, camera.width):
            raise CalibrationError(
                f"{entry.depth} is {z.shape[1]}x{z.shape[0]}, the camera {camera.width}x{camera.height}; "
                "give the intrinsics of the depth images with --camera"
            )
        one = cloud(entry.name, z, rays)
        if one.smooth.sum() < LEAST_BLOCKS:
            empty.append(entry.name)
            continue
        found.append(one)
        rows.append(k)
    if empty:
        recording.findings.append(
            Finding("warning", f"{len(empty)} views show no surface by depth: {listed(empty)}")
        )
    return found, rows


@dataclass(frozen=True)
class TablePlane:
    """The plane with most points: normal . p = offset_m, in the frame of the points."""

    normal: Array
    """(3,) towards the camera."""
    offset_m: float
    share: float
    """Part of the points that lie in it."""


def table_plane(points_m: Array, rng: np.random.Generator, gate_m: float = 4e-3) -> TablePlane:
    """The plane with most of the points (n, 3), as the camera at the origin sees it.

    By random triples, then least squares. Raises CalibrationError if no plane holds a fifth of them.
    """
    sample = points_m[rng.choice(len(points_m), min(len(points_m), 2000), replace=False)]
    corners = sample[rng.integers(len(sample), size=(150, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    normals, corners = normals[length > 1e-8], corners[length > 1e-8]
    normals /= length[length > 1e-8][:, None]
    off = np.abs(sample @ normals.T - np.sum(normals * corners[:, 0], axis=1))
    best = int(np.argmax((off < gate_m).sum(axis=0)))
    normal, offset = normals[best], float(normals[best] @ corners[best, 0])
    near = np.zeros(len(points_m), dtype=bool)
    for gate in (1.5 * gate_m, gate_m, gate_m):
        near = np.abs(points_m @ normal - offset) < gate
        if near.sum() < 0.2 * len(points_m):
            raise CalibrationError(
                f"no plane holds more than {near.mean():.0%} of a view's points; a fifth is needed: look "
                "at a table with some things on it"
            )
        middle = points_m[near].mean(axis=0)
        normal = np.linalg.eigh((points_m[near] - middle).T @ (points_m[near] - middle))[1][:, 0]
        offset = float(middle @ normal)
    sign = -1.0 if offset > 0 else 1.0
    return TablePlane(sign * normal, sign * offset, float(near.mean()))


def flattened(
    one: BlockCloud, plane: TablePlane, gate_m: float = 4e-3, most_deg: float = 20.0
) -> BlockCloud:
    """The cloud with the table's normal at all blocks of the table.

    Normals of single blocks are noisy, and noise in a normal looks like a surface that tells of motion along
    the table, which nothing does.
    """
    near = np.abs(one.points_m @ plane.normal - plane.offset_m) < gate_m
    near &= one.normals @ plane.normal > np.cos(np.radians(most_deg))
    return replace(one, normals=np.where(near[..., None], plane.normal, one.normals), table=near)


def planes_of(clouds: Sequence[BlockCloud], rng: np.random.Generator) -> list[TablePlane]:
    """The table in every view; raises CalibrationError, naming the view, where there is none."""
    planes = []
    for one in clouds:
        try:
            planes.append(table_plane(one.points_m[one.smooth], rng))
        except CalibrationError as error:
            raise CalibrationError(f"{one.name}: {error}") from error
    return planes
