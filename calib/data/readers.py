"""Data of other programs: folders of images with poses, and samples of other calibration programs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from calib.data.intrinsic_files import find_camera
from calib.data.pose_files import STAMP, load_any, one_pose, pose_rows
from calib.data.poses import PoseFormat
from calib.data.recording import RecordedPair, Recording, is_dataset, read_dataset
from calib.data.robot_text import Row
from calib.errors import CalibrationError, Finding, listed
from rt.tools.files import shown

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")
DATA = (
    ".csv", ".txt", ".json", ".yaml", ".yml", ".samples", ".npy", ".npz", ".xml", ".dat", ".src", ".ls",
    ".mod", ".script", ".log", ".tum", ".py",
)  # fmt: skip


def natural(text: str) -> list[Any]:
    """Sort key that puts image2 before image10."""
    return [int(p) if p.isdigit() else p.lower() for p in re.split(r"(\d+)", text)]


def last_number(path: Path) -> int | None:
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else None


def read(path: Path, poses: Path | None = None) -> Recording:
    """The recording at `path`: a dataset of `collect`, a folder of images and poses, or a file of samples.

    poses: the file or folder of robot poses, where it is not found by itself. Raises CalibrationError.
    """
    if not path.exists():
        raise CalibrationError(f"{path} does not exist")
    if path.is_file():
        samples = pose_pairs(path, load_any(path))
        if samples is None:
            raise CalibrationError(
                f"{path} holds no samples of moveit_calibration or easy_handeye; "
                "for images give the folder that holds them"
            )
        return samples
    if is_dataset(path):
        return read_dataset(path)
    images = sorted(
        (p for p in shown(path, IMAGES, below=True) if "depth" not in _tail(p, path)),
        key=lambda p: natural(str(p.relative_to(path))),
    )
    candidates = [poses] if poses else _pose_candidates(path)
    if not images:
        for file in candidates:
            if file.is_file() and (samples := pose_pairs(file, load_any(file))):
                return samples
        raise CalibrationError(f"{path} holds no images ({', '.join(IMAGES)}) and no known samples")
    per_image = _one_file_each(path if poses is None or poses.is_file() else poses, images)
    problems = []
    if per_image and (poses is None or poses.is_dir()):
        kept, rows, label = per_image
        return _with_partners(_recording(path, kept, rows, label), images)
    for file in candidates:
        try:
            rows = pose_rows(file, load_any(file))
            kept, used = _pair(file, images, rows)
            recording = _recording(path, kept, used, file.name)
            paired = {id(r) for r in used}
            return _with_partners(recording, images, [r for r in rows if id(r) not in paired])
        except CalibrationError as error:
            problems.append(str(error))
    raise CalibrationError(
        f"no robot poses found for the {len(images)} images in {path}; give their file with --poses"
        + "".join(f"\n  {p}" for p in problems)
    )


def _with_partners(
    recording: Recording, images: list[Path], poses: list[Row] | None = None
) -> Recording:
    """Add which images and which poses (rows left over) have no partner."""
    used = {e.image for e in recording.entries}
    alone = [p.name for p in images if p not in used]
    if alone:
        recording.findings.append(
            Finding(
                "warning", f"{len(alone)} images have no pose and are left out: {listed(alone)}"
            )
        )
    if poses:
        names = [str(r[0]).removeprefix(STAMP) for r in poses if r[0]]
        recording.findings.append(
            Finding(
                "warning",
                f"{len(poses)} poses have no image and are left out"
                + (f": {listed(names)}" if names else ""),
            )
        )
    return recording


def _tail(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)).lower()


def _pose_candidates(folder: Path) -> list[Path]:
    """Files that may hold poses, those whose name says so first."""
    files = shown(folder, DATA, below=True)
    words = ("pose", "robot", "hand", "gripper", "tcp", "sample", "transform", "flange", "tf")

    def rank(p: Path) -> tuple[int, int, str]:
        name = p.stem.lower()
        other = any(w in name for w in ("intrin", "camera_info", "readme", "target", "board"))
        return (other, not any(w in name for w in words), str(p))

    return sorted(files, key=rank)


def _recording(folder: Path, images: list[Path], rows: list[Row], pose_files: str) -> Recording:
    width = {len(r[1]) for r in rows}
    if len(width) != 1:
        raise CalibrationError(
            f"{pose_files}: rows of {sorted(width)} numbers; poses must be alike"
        )
    formats = {r[2] for r in rows}
    entries = [
        RecordedPair(str(p.relative_to(folder).with_suffix("")), p, _depth_of(p, folder))
        for p in images
    ]
    return Recording(
        folder,
        "images and poses",
        entries,
        np.array([r[1] for r in rows], dtype=np.float64),
        formats.pop() if len(formats) == 1 else None,
        pose_files,
        camera=find_camera(folder),
    )


def _depth_of(image: Path, folder: Path) -> Path | None:
    for place in (folder / "depth", image.parent / "depth", image.parent.parent / "depth"):
        for suffix in (".png", ".npy"):
            if (file := place / (image.stem + suffix)).is_file():
                return file
    return None


def _pair(file: Path, images: list[Path], rows: list[Row]) -> tuple[list[Path], list[Row]]:
    """Images and rows matched by name where rows have one, by order otherwise."""
    if all(str(r[0]).startswith(STAMP) for r in rows):
        by_time = _by_time(images, rows)
        if by_time is not None:
            return by_time
    elif all(r[0] for r in rows):
        by_name = {p.name.lower(): p for p in images} | {p.stem.lower(): p for p in images}
        matched = [
            (by_name.get(Path(str(r[0])).name.lower()) or by_name.get(str(r[0]).lower()), r)
            for r in rows
        ]
        pairs = [(p, r) for p, r in matched if p is not None]
        if pairs:
            return [p for p, _ in pairs], [r for _, r in pairs]
        numbered = {last_number(p): p for p in images}
        pairs = [
            (numbered[int(float(str(r[0])))], r)
            for r in rows
            if re.fullmatch(r"\d+(\.0*)?", str(r[0])) and int(float(str(r[0]))) in numbered
        ]
        if len(pairs) == min(len(rows), len(images)):
            return [p for p, _ in pairs], [r for _, r in pairs]
    if len(rows) != len(images):
        groups = Counter(_kind(p) for p in images)
        as_many = [kind for kind, n in groups.items() if n == len(rows)]
        if len(as_many) == 1:
            # another camera's images lie beside: they are left out, and named
            return [p for p in images if _kind(p) == as_many[0]], rows
        kinds = ", ".join(f"{n} of {folder}/{name}" for (folder, name), n in groups.items())
        streams = (
            f" (images of {len(groups)} kinds, as of several cameras or streams: {kinds}; keep those of one "
            "in a folder with the poses)"
        )
        raise CalibrationError(
            f"{file.name} has {len(rows)} poses for {len(images)} images and no names to match them by"
            f"{streams if 1 < len(groups) < 7 else ''}; add a column `name`, or remove what has no partner"
        )
    return images, rows


def _kind(image: Path) -> tuple[str, str]:
    """Folder and name of an image with its numbers blotted out: alike for images of one stream."""
    return str(image.parent.name), re.sub(r"\d+", "#", image.name)


def _by_time(images: list[Path], rows: list[Row]) -> tuple[list[Path], list[Row]] | None:
    """Images whose names are times, each with the row nearest in time; None if they are no times."""
    try:
        image_s = np.array([float(p.stem) for p in images])
    except ValueError:
        return None
    row_s = np.array([float(str(r[0]).removeprefix(STAMP)) for r in rows])
    if np.median(image_s) > 1e3 * np.median(row_s):
        image_s = image_s * 1e-9  # nanoseconds
    off = np.abs(image_s[:, None] - row_s[None])
    nearest = np.argmin(off, axis=1)
    near = off[np.arange(len(images)), nearest] <= MOST_APART_S
    if near.sum() < 3:
        return None
    kept = np.flatnonzero(near)
    return [images[k] for k in kept], [rows[nearest[k]] for k in kept]


MOST_APART_S = 0.05
"""An image and a pose further apart in time are no pair."""


def _one_file_each(folder: Path, images: list[Path]) -> tuple[list[Path], list[Row], str] | None:
    """Pose files that go with images one by one: pose_fPe_3.yaml with image-3.png (ViSP), 3.txt, ..."""
    files: dict[int, list[Path]] = {}
    for p in shown(folder, DATA, below=True):
        if (n := last_number(p)) is not None:
            if "cpo" in p.stem.lower() or p.stem.lower().startswith(("intrin", "camera")):
                continue
            files.setdefault(n, []).append(p)
    kept, rows, names = [], [], []
    for image in images:
        n = last_number(image)
        if n is None or n not in files:
            continue
        file = min(files[n], key=lambda p: (p.stem != image.stem, "pe_" not in p.stem, str(p)))
        found = pose_rows(file, load_any(file), single=True)
        if len(found) != 1:
            return None
        kept.append(image)
        rows.append(found[0])
        names.append(file.name)
    if len(kept) < 3 or len(kept) < len(images) / 2:
        return None
    return kept, rows, f"{names[0]} ... {names[-1]}"


def pose_pairs(path: Path, data: Any) -> Recording | None:
    """Samples of moveit_calibration or easy_handeye: robot and target poses without images."""
    pairs: list[tuple[Any, Any]] = []
    eye_in_hand, as_mount = None, False
    if isinstance(data, list) and data and isinstance(data[0], dict):
        pairs = [(s.get("effector_wrt_world"), s.get("object_wrt_sensor")) for s in data]
        kind = "moveit_calibration samples"
    elif isinstance(data, dict):
        kind = "easy_handeye samples"
        about = data.get("parameters", {}) if isinstance(data.get("parameters"), dict) else {}
        on_hand = about.get("eye_on_hand", data.get("eye_on_hand"))
        if on_hand is None and about.get("calibration_type"):
            on_hand = (
                "in_hand" in about["calibration_type"] or "on_hand" in about["calibration_type"]
            )
        if on_hand is not None:
            eye_in_hand = bool(on_hand)
        as_mount = True
        if "samples" in data and isinstance(data["samples"], list | dict):
            samples = data["samples"]
            if isinstance(samples, dict):
                data = samples
            else:
                pairs = [
                    (s.get("robot"), s.get("tracking") or s.get("optical"))
                    for s in samples
                    if isinstance(s, dict)
                ]
        if "hand_world_samples" in data and "camera_marker_samples" in data:
            hands, marks = (
                data[k]["transforms"] if isinstance(data[k], dict) else data[k]
                for k in ("hand_world_samples", "camera_marker_samples")
            )
            if len(hands) != len(marks):
                raise CalibrationError(f"{path}: {len(hands)} robot and {len(marks)} target poses")
            pairs = list(zip(hands, marks, strict=True))
    rows = [(one_pose(a), one_pose(b)) for a, b in pairs if a is not None and b is not None]
    if not rows or any(a is None or b is None for a, b in rows):
        return None
    formats = {a[1] for a, _ in rows if a}
    format_ = formats.pop() if len(formats) == 1 else None
    entries = [
        RecordedPair(
            f"sample {k}",
            T_camera_target=(b[1] or PoseFormat("quat_xyzw")).read(np.array([b[0]]))[0],
        )
        for k, (_, b) in enumerate(rows)
        if b is not None
    ]
    numbers = np.array([a[0] for a, _ in rows if a is not None])
    return Recording(
        path,
        kind,
        entries,
        numbers,
        format_,
        path.name,
        eye_in_hand=eye_in_hand,
        # easy_handeye stores T_hand_base for a fixed camera
        rows_are_fixed_mount=as_mount,
    )
