"""After calibrating: does the target, the table, a box stay in one place, seen from new poses?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from calib.data.recording import Recording, read_depth
from calib.errors import CalibrationError
from calib.solve.closed_form import target_pose, with_target
from calib.solve.diagnose import resolve_symmetry
from calib.solve.model import LensModel, Views
from calib.solve.motions import middle_of
from calib.solve.observe import Sight
from calib.solve.refine import refine
from calib.solve.se3 import angle_deg, inverse, mean_transform, skew, to_vector
from calib.target.targets import Target
from rt.pose import Array


@dataclass(frozen=True)
class VerifyRow:
    """One view's disagreement with all of them."""

    name: str
    position_mm: float
    angle_deg: float


@dataclass(frozen=True)
class VerifyCheck:
    """One observed thing, and how far the views place it apart in the robot's frame."""

    what: str
    rows: list[VerifyRow]
    moved_mm: float | None = None
    """Distance of the target from its place in the calibration, if that is known."""

    @property
    def rms_mm(self) -> float:
        return float(np.sqrt(np.mean([r.position_mm**2 for r in self.rows])))

    @property
    def worst_mm(self) -> float:
        return max(r.position_mm for r in self.rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "rms_mm": self.rms_mm,
            "worst_mm": self.worst_mm,
            "rms_deg": float(np.sqrt(np.mean([r.angle_deg**2 for r in self.rows]))),
            "moved_mm": self.moved_mm,
            "views": [vars(r) for r in self.rows],
        }


def fixed_mount(recording: Recording, eye_in_hand: bool) -> Array:
    """T_fixed_mount (N, 4, 4) of every entry."""
    form = recording.format
    if form is None:
        raise CalibrationError(
            f"{recording.pose_files} does not say how its poses are written; give --pose-format"
        )
    T = recording.read_poses(form)
    return T if eye_in_hand else inverse(T)


def check_target(
    recording: Recording,
    sights: list[Sight],
    target: Target,
    camera: LensModel,
    T_mount_camera: Array,
    eye_in_hand: bool,
    T_fixed_target: Array | None = None,
) -> VerifyCheck:
    """The target's place in the robot's frame as each view alone gives it, against the mean of all."""
    if len(sights) < 2:
        raise CalibrationError(
            f"the target is seen in {len(sights)} of {len(recording.entries)} images; "
            "at least 2 views are needed to compare"
        )
    A = fixed_mount(recording, eye_in_hand)
    points = target.points()
    found = np.array(
        [
            A[s.index]
            @ T_mount_camera
            @ target_pose(camera, points[s.detection.ids], s.detection.pixels).T_camera_target
            for s in sights
        ]
    )
    if len(target.symmetries()) > 1:
        # a symmetric target may be read either way round: take the turn nearest the first view's
        turned = found[:, None] @ np.array(target.symmetries())
        angles = angle_deg(np.swapaxes(found[:1, None, :3, :3], -1, -2) @ turned[..., :3, :3])
        found = turned[np.arange(len(found)), np.argmin(angles, axis=1)]
    middle = np.append(middle_of(points), 1)
    mean = mean_transform(found)
    at = (found @ middle)[:, :3]
    centre = at.mean(axis=0)
    turn = angle_deg(np.swapaxes(found[:, :3, :3], 1, 2) @ mean[:3, :3])
    rows = [
        VerifyRow(s.name, float(np.linalg.norm(p - centre) * 1e3), float(a))
        for s, p, a in zip(sights, at, turn, strict=True)
    ]
    moved = None
    if T_fixed_target is not None:
        moved = float(np.linalg.norm(centre - (T_fixed_target @ middle)[:3]) * 1e3)
    return VerifyCheck(f"{target.spec}, {len(rows)} views", rows, moved)


@dataclass(frozen=True)
class Correction:
    """Change of the calibration that new views ask for, at the target's distance, with 95 % intervals.

    Along the camera's axes x, y, z.
    """

    distance_m: float
    point_mm: Array
    """(3,) displacement of the point on the optical axis at that distance."""
    point_half_mm: Array
    turn_deg: Array
    """(3,) rotation."""
    turn_half_deg: Array
    views: int

    @property
    def bound_mm(self) -> Array:
        """(3,) the largest error along each axis that the views leave possible."""
        return np.asarray(np.abs(self.point_mm) + self.point_half_mm)

    @property
    def worst(self) -> str:
        """The axis with the largest bound."""
        return "xyz"[int(np.argmax(self.bound_mm))]

    def verdict(self, tolerance_mm: float) -> tuple[bool, str]:
        """(verified, one line): by the worst axis; True only if the error is surely below the tolerance."""
        k = int(np.argmax(self.bound_mm))
        said = (
            f"at {self.distance_m * 1e3:.0f} mm the camera's points are off by {self.point_mm[k]:+.2f} ± "
            f"{self.point_half_mm[k]:.2f} mm along its {self.worst}, the worst direction; the tolerance "
            f"is {tolerance_mm:g} mm"
        )
        if self.bound_mm[k] <= tolerance_mm:
            return True, f"verified: {said}"
        if abs(self.point_mm[k]) <= tolerance_mm:
            return False, f"NOT verified, since {self.views} views cannot tell: {said}; add poses"
        return False, f"NOT verified: {said}; calibrate again"

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers."""
        return {
            "distance_m": self.distance_m,
            "views": self.views,
            "point_mm": self.point_mm.tolist(),
            "point_interval95_mm": self.point_half_mm.tolist(),
            "rotation_deg": self.turn_deg.tolist(),
            "rotation_interval95_deg": self.turn_half_deg.tolist(),
        }


def correction(
    recording: Recording,
    sights: list[Sight],
    target: Target,
    camera: LensModel,
    T_mount_camera: Array,
    eye_in_hand: bool,
) -> Correction:
    """Calibrate anew from the new views alone, and compare; raises CalibrationError below 4 views."""
    if len(sights) < 4:
        raise CalibrationError(
            f"the target is seen in {len(sights)} of {len(recording.entries)} images; a verdict needs 4, "
            "6 are good"
        )
    index = [s.index for s in sights]
    points = target.points()
    A = fixed_mount(recording, eye_in_hand)[index]
    T_base_hand = A if eye_in_hand else inverse(A)
    seen_points = [points[s.detection.ids] for s in sights]
    pixels = [s.detection.pixels for s in sights]
    C = np.array(
        [
            target_pose(camera, p, q).T_camera_target
            for p, q in zip(seen_points, pixels, strict=True)
        ]
    )
    symmetries = target.symmetries()
    if len(symmetries) > 1:
        choice = resolve_symmetry(A, C, symmetries)
        for k, c in enumerate(choice):
            S = inverse(symmetries[c])
            seen_points[k] = seen_points[k] @ S[:3, :3].T + S[:3, 3]
            C[k] = C[k] @ symmetries[c]
    views = Views(
        tuple(s.name for s in sights),
        T_base_hand,
        tuple(seen_points),
        tuple(pixels),
        camera,
        eye_in_hand,
    )
    fit = refine(views, with_target(T_mount_camera, A, C, camera))
    moved = to_vector(inverse(T_mount_camera) @ fit.state.T_mount_camera)
    distance = float(np.median(C[:, 2, 3]))
    J = np.concatenate([-skew([0, 0, distance]), np.eye(3)], axis=1)
    cov = fit.cov[:6, :6]
    factor = float(student.ppf(0.975, fit.interval_dof))
    return Correction(
        distance,
        J @ moved * 1e3,
        factor * np.sqrt(np.diag(J @ cov @ J.T)) * 1e3,
        np.degrees(moved[:3]),
        factor * np.degrees(np.sqrt(np.diag(cov)[:3])),
        len(views),
    )


@dataclass(frozen=True)
class _Table:
    normal: Array
    offset_m: float
    """normal . p of its points."""


def check_depth(
    recording: Recording, camera: LensModel, T_mount_camera: Array, box_height_m: float = 0.012
) -> list[VerifyCheck]:
    """The table's plane and the largest thing on it, from depth images alone, in the base frame.

    The box is compared by the middle and the direction of its top face. Raises CalibrationError if
    fewer than two views show a plane.
    """
    A = fixed_mount(recording, True)
    rays = camera.rays()[::3, ::3].astype(np.float64)
    clouds: dict[str, tuple[Array, NDArray[np.bool_]]] = {}
    tables: dict[str, _Table] = {}
    rng = np.random.default_rng(0)
    for k, entry in enumerate(recording.entries):
        if entry.depth is None:
            continue
        z = read_depth(entry.depth)
        if z.shape != (camera.height, camera.width):
            raise CalibrationError(
                f"{entry.depth} is {z.shape[1]}x{z.shape[0]}, the camera {camera.width}x{camera.height}"
            )
        z = z[::3, ::3]
        T = A[k] @ T_mount_camera
        edge = np.zeros(z.shape, dtype=bool)
        edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = True, True, True, True
        valid = (z > 0.05) & (z < 2)
        cloud = (rays[valid] * z[valid][:, None]) @ T[:3, :3].T + T[:3, 3]
        if len(cloud) < 200:
            continue
        table = _plane(cloud, rng)
        if table is not None:
            clouds[entry.name], tables[entry.name] = (cloud, edge[valid]), table
    if len(tables) < 2:
        raise CalibrationError(
            f"{len(tables)} of {len(recording.entries)} views have a depth image with a plane in it; "
            "at least 2 are needed to compare"
        )
    up = np.mean([t.normal for t in tables.values()], axis=0)
    up /= np.linalg.norm(up)
    # heights are compared where all views look
    spot = np.median([np.median(c, axis=0) for c, _ in clouds.values()], axis=0)
    heights = {
        n: float(spot @ t.normal - t.offset_m) / float(t.normal @ up) for n, t in tables.items()
    }
    middle = float(np.mean(list(heights.values())))
    checks = [
        VerifyCheck(
            f"table plane by depth, {len(tables)} views",
            [
                VerifyRow(
                    n,
                    abs(heights[n] - middle) * 1e3,
                    float(np.degrees(np.arccos(np.clip(t.normal @ up, -1, 1)))),
                )
                for n, t in tables.items()
            ],
        )
    ]
    tops = {
        n: top
        for n, (cloud, edge) in clouds.items()
        if (top := _top_face(cloud, edge, tables[n], up, box_height_m)) is not None
    }
    # a view that saw another thing does not count: keep those near the most common place
    names = list(tops)
    if names:
        places = np.array([tops[n][0] for n in names])
        near = np.linalg.norm(places[:, None] - places[None], axis=-1) < 0.03
        names = [n for n, ok in zip(names, near[np.argmax(near.sum(axis=1))], strict=True) if ok]
    if len(names) >= 2:
        centre = np.mean([tops[n][0] for n in names], axis=0)
        phase = np.mean([np.exp(4j * tops[n][1]) for n in names])
        rows = []
        for n in names:
            place, angle = tops[n]
            off = abs(np.angle(np.exp(4j * angle) / phase)) / 4
            rows.append(
                VerifyRow(n, float(np.linalg.norm(place - centre) * 1e3), float(np.degrees(off)))
            )
        checks.append(VerifyCheck(f"top face of a box by depth, {len(rows)} views", rows))
    return checks


def _plane(cloud: Array, rng: np.random.Generator) -> _Table | None:
    """The plane with most points within 4 mm, refined on them; pointing up (+z of the base)."""
    sample = cloud[rng.choice(len(cloud), min(len(cloud), 2000), replace=False)]
    best: tuple[int, Array, float] | None = None
    for _ in range(60):
        a, b, c = sample[rng.choice(len(sample), 3, replace=False)]
        n = np.cross(b - a, c - a)
        length = np.linalg.norm(n)
        if length < 1e-6:
            continue
        n = n / length
        count = int(np.sum(np.abs(sample @ n - a @ n) < 4e-3))
        if best is None or count > best[0]:
            best = count, n, float(a @ n)
    if best is None or best[0] < 0.3 * len(sample):
        return None
    _, normal, offset = best
    for gate in (6e-3, 4e-3, 4e-3):
        near = cloud[np.abs(cloud @ normal - offset) < gate]
        middle = near.mean(axis=0)
        normal = np.linalg.eigh((near - middle).T @ (near - middle))[1][:, 0]
        offset = float(middle @ normal)
    return _Table(normal, offset) if normal[2] > 0 else _Table(-normal, -offset)


def _top_face(
    cloud: Array, edge: NDArray[np.bool_], table: _Table, up: Array, least_m: float
) -> tuple[Array, float] | None:
    """(middle (3,), direction [rad]) of the top of the largest thing on the table, wholly in view."""
    height = cloud @ table.normal - table.offset_m
    raised = height > least_m
    if np.sum(raised) < 60:
        return None
    x = np.cross([0.0, 1.0, 0.0], up)
    x /= np.linalg.norm(x)
    axes = np.stack([x, np.cross(up, x)])
    flat = cloud[raised] @ axes.T
    cell = 0.005
    origin = flat.min(axis=0)
    ij = np.floor((flat - origin) / cell).astype(int)
    if np.any(ij.max(axis=0) > 2000):
        return None
    grid = np.zeros(ij.max(axis=0) + 1, np.uint8)
    grid[ij[:, 0], ij[:, 1]] = 1
    _, labels = cv2.connectedComponents(cv2.dilate(grid, np.ones((3, 3), np.uint8)))
    label = labels[ij[:, 0], ij[:, 1]]
    largest = np.argmax(np.bincount(label))
    part = label == largest
    if np.any(edge[raised][part]):
        return None
    h = height[raised][part]
    top_height = float(np.quantile(h, 0.9))
    top = np.abs(h - top_height) < 4e-3
    if np.sum(top) < 40:
        return None
    top_height = float(np.median(h[top]))
    (cx, cy), _, angle = cv2.minAreaRect(flat[part][top].astype(np.float32) * 1e3)
    place = axes.T @ (np.array([cx, cy]) / 1e3) + up * (top_height + table.offset_m)
    return place, float(np.radians(angle))
