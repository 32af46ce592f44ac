"""Observations from the images: the target in each, the lens, depth against size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from calib.data.recording import Recording, read_depth
from calib.errors import CalibrationError, Finding, listed
from calib.solve.closed_form import target_pose
from calib.solve.intrinsics import Lens, estimate
from calib.solve.model import LensModel, Views, project
from calib.solve.se3 import transform
from calib.target.detect import LEAST_POINTS, Detection, detect, read_image, why_not
from calib.target.targets import Target
from rt.pose import Array


@dataclass
class Sight:
    """The target detected in one image."""

    name: str
    index: int
    """Row of the recording."""
    detection: Detection
    size: tuple[int, int] = (0, 0)
    """Width and height of the image."""


Progress = Callable[[str, int, int], None]


def silent(task: str, done: int, total: int) -> None:
    pass


def look(recording: Recording, target: Target, progress: Progress = silent) -> list[Sight]:
    """Detect the target in every image of the recording; adds findings to it.

    Raises CalibrationError for mixed sizes and where the target is found nowhere.
    """
    sights: list[Sight] = []
    sizes: dict[tuple[int, int], list[str]] = {}
    digests: dict[int, list[int]] = {}
    blind: list[str] = []
    images: list[Any] = []
    for k, entry in enumerate(recording.entries):
        if entry.image is None:
            continue
        progress("looking for the target", k, len(recording.entries))
        try:
            image = read_image(str(entry.image))
        except CalibrationError as error:
            recording.findings.append(
                Finding("warning", f"{error}; it is left out", "copy it again, or take it again")
            )
            continue
        sizes.setdefault((image.shape[1], image.shape[0]), []).append(entry.name)
        digests.setdefault(hash(image.tobytes()), []).append(k)
        found = detect(target, image)
        if found is None:
            blind.append(entry.name)
            if len(images) < 4:
                images.append(image)
        else:
            sights.append(Sight(entry.name, k, found, (image.shape[1], image.shape[0])))
    progress("looking for the target", len(recording.entries), len(recording.entries))
    if len(sizes) > 1:
        common = max(sizes, key=lambda s: len(sizes[s]))
        odd = [f"{n} is {s[0]}x{s[1]}" for s, names in sizes.items() if s != common for n in names]
        raise CalibrationError(
            f"images of different sizes: most are {common[0]}x{common[1]}, but {listed(odd)}: they are of "
            "another camera, stream or setting; remove them"
        )
    if not sights:
        raise CalibrationError(
            f"no {target.spec} is found in any of {len(blind)} images ({listed(blind)}); "
            + (why_not(target, images) if images else "none can be read")
        )
    if blind:
        hint = why_not(target, images) if len(sights) < 3 else ""
        recording.findings.append(
            Finding("note", f"no target seen in {len(blind)} images: {listed(blind)}", hint)
        )
    twins: set[int] = set()
    for group in digests.values():
        if len(group) > 1:
            names = [recording.entries[k].name for k in group]
            recording.findings.append(
                Finding(
                    "warning",
                    f"{listed(names)} are the same image; only the first counts",
                    "was the camera's picture stale? take them again",
                )
            )
            twins.update(group[1:])
    size = next(iter(sizes))
    if recording.camera is not None:
        try:
            recording.camera = of_size(recording.camera, size)
        except CalibrationError as error:
            recording.findings.append(Finding("warning", f"{error}; they are not used"))
            recording.camera = None
    return [s for s in sights if s.index not in twins]


def of_size(camera: LensModel, size: tuple[int, int]) -> LensModel:
    if camera.width == 0:
        return replace(camera, width=size[0], height=size[1])
    if (camera.width, camera.height) != size:
        raise CalibrationError(
            f"the intrinsics are for {camera.width}x{camera.height} images, these are "
            f"{size[0]}x{size[1]}"
        )
    return camera


def nominal_camera(T_camera_target: Array) -> Array:
    """T_camera_nominal (4, 4): a place from which every given target pose (N, 4, 4) is well in view.

    The camera's own frame if it looks at the targets, as that of a tag detector does; otherwise
    (motion capture, arbitrary frames) a place before them.
    """
    p, normal = T_camera_target[:, :3, 3], T_camera_target[:, :3, 2]
    far = np.linalg.norm(p, axis=1)
    facing = np.abs(np.sum(p * normal, axis=1)) > 0.2 * far
    if np.all((p[:, 2] > 0.03) & (np.linalg.norm(p[:, :2], axis=1) < 2 * p[:, 2]) & facing):
        return np.eye(4)
    middle = p.mean(axis=0)
    size = float(np.max(np.linalg.norm(p - middle, axis=1))) + 0.1
    z = middle / np.linalg.norm(middle) if np.linalg.norm(middle) > 1e-6 else np.array([0, 0, 1.0])
    x = np.cross([0, 1.0, 0] if abs(z[1]) < 0.9 else [1.0, 0, 0], z)
    x /= np.linalg.norm(x)
    return transform(np.stack([x, np.cross(z, x), z], axis=1), middle - 4 * size * z)


def virtual(
    T_camera_target: Array, names: list[str], target: Target
) -> tuple[list[Sight], list[Array], list[Array], LensModel]:
    """Target poses (N, 4, 4) without images, as if a nominal camera had seen a target there."""
    camera = LensModel(1000, 1000, 1000.0, 1000.0, 499.5, 499.5)
    points = target.points()
    sights, pixels = [], []
    for k, (name, T) in enumerate(zip(names, T_camera_target, strict=True)):
        uv = project(camera, points @ T[:3, :3].T + T[:3, 3])[0]
        sights.append(Sight(name, k, Detection(np.arange(len(points)), uv)))
        pixels.append(uv)
    return sights, [points] * len(sights), pixels, camera


def choose_lens(
    recording: Recording,
    intrinsics: str,
    points: list[Array],
    pixels: list[Array],
    size: tuple[int, int],
) -> tuple[LensModel, Lens | None, tuple[int, ...]]:
    """The intrinsics to use, those estimated from the images, and which to refine jointly."""
    given = recording.camera
    width, height = size
    if given is not None:
        given = of_size(given, (width, height))
    if given is None and intrinsics == "given":
        raise CalibrationError("--intrinsics given, but there are none; name a file with --camera")
    try:
        lens = estimate(points, pixels, (width, height))
    except CalibrationError as error:
        if given is None or intrinsics == "estimate":
            raise
        recording.findings.append(
            Finding("note", f"the given intrinsics were not checked: {error}")
        )
        return given, None, ()
    if given is None:
        recording.findings.append(
            Finding(
                "note",
                f"the intrinsics are estimated from {len(points)} of the same images "
                f"(f = {lens.camera.fx:.1f}, {lens.camera.fy:.1f} px, {lens.rms_px:.2f} px rms)",
            )
        )
        return lens.camera, lens, lens.free
    if intrinsics == "estimate":
        return lens.camera, lens, lens.free
    own = np.concatenate([_reprojection(given, p, q) for p, q in zip(points, pixels, strict=True)])
    rms = float(np.sqrt(np.mean(np.sum(own**2, axis=1))))
    floor = max(lens.rms_px, 0.05)
    if rms < 1.3 * floor + 0.05 or intrinsics == "given":
        level = "note" if rms < 1.3 * floor + 0.05 else "warning"
        recording.findings.append(
            Finding(
                level,  # type: ignore[arg-type]
                f"the given intrinsics leave {rms:.2f} px rms, the best for these images "
                f"{lens.rms_px:.2f} px",
                "" if level == "note" else "calibrate the lens, or give --intrinsics estimate",
            )
        )
        return given, lens, ()
    recording.findings.append(
        Finding(
            "warning",
            f"the given intrinsics do not fit the images: {rms:.2f} px rms with f = {given.fx:.1f} px, "
            f"{lens.rms_px:.2f} px with f = {lens.camera.fx:.1f} px from them, which is used",
            "check that they belong to this camera, stream and resolution (--intrinsics given keeps them)",
        )
    )
    return lens.camera, lens, lens.free


def _reprojection(camera: LensModel, points: Array, pixels: Array) -> Array:
    T = target_pose(camera, points, pixels).T_camera_target
    return np.asarray(project(camera, points @ T[:3, :3].T + T[:3, 3])[0] - pixels)


def depth_ratio(
    recording: Recording, views: Views, scaled: Views, T_camera_target: Array
) -> float | None:
    """Median of measured depth at the corners over the depth of the fitted target; None without depth."""
    by_name = {e.name: e.depth for e in recording.entries}
    ratios = []
    for i, name in enumerate(views.names):
        if (path := by_name.get(name)) is None:
            continue
        depth = read_depth(path)
        if depth.shape != (views.camera.height, views.camera.width):
            continue
        at = views.pixels[i][None].astype(np.float32)
        holes = cv2.remap((depth <= 0).astype(np.float32), at, None, cv2.INTER_LINEAR)[0]
        measured = cv2.remap(depth, at, None, cv2.INTER_LINEAR)[0]
        T = T_camera_target[i]
        expected = scaled.points_m[i] @ T[2, :3] + T[2, 3]
        ok = (holes == 0) & (expected > 0.05)
        ratios += list(measured[ok] / expected[ok])
    return float(np.median(ratios)) if len(ratios) >= LEAST_POINTS else None
