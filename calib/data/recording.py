"""A folder of images and robot poses: what `collect` writes, and everything `solve` needs to know.

    DIR/dataset.json      format, set-up, target, camera, stream
    DIR/poses.csv         name, image and robot stamps [ns], T_base_hand as position [m] and quaternion
    DIR/trajectory.csv    the hand's stamped path, for captures on the move
    DIR/images/NAME.png   8-bit grey
    DIR/depth/NAME.png    uint16, 0.1 mm, 0 = no return, in the image's frame

A line of poses.csv is written after its image, so a folder is whole whenever collecting stops.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calib.data.poses import PoseError, PoseFormat
from calib.errors import CalibrationError, Finding, listed
from calib.solve.model import LensModel, Trajectory
from calib.solve.se3 import transform
from calib.target.targets import Target, parse
from rt.pose import Array
from rt.tools.files import DiskFullError, plain, whole, write_json, write_text

FORMAT = "handeye-dataset/1"
NO_TARGET = "none"
"""Target of a folder without one: depth of a still scene (calib.scene)."""
POSE_COLUMNS = ("x_m", "y_m", "z_m", "qx", "qy", "qz", "qw")
DEPTH_UNIT_M = 1e-4


@dataclass
class RecordedPair:
    """One image-pose pair, as found on disk."""

    name: str
    image: Path | None = None
    depth: Path | None = None
    T_camera_target: Array | None = None
    """(4, 4), if a program gave the target's pose instead of an image."""
    image_stamp_s: float | None = None
    robot_stamp_s: float | None = None


@dataclass
class Recording:
    """A folder or file read, not yet looked at."""

    source: Path
    kind: str
    """The reader that understood it."""
    entries: list[RecordedPair]
    rows: Array
    """(N, k) robot poses as they are written."""
    format: PoseFormat | None
    """Format of `rows`; None if the file does not say."""
    pose_files: str
    target: Target | None = None
    camera: LensModel | None = None
    eye_in_hand: bool | None = None
    trajectory: Trajectory | None = None
    rows_are_fixed_mount: bool = False
    """True if a fixed camera's rows are T_hand_base, as easy_handeye stores them."""
    poses_of: str = "hand"
    """hand, or flange if the poses are known to be the flange's."""
    certain: bool = False
    """True if this program wrote the data: format and mount are then beyond doubt."""
    findings: list[Finding] = field(default_factory=list)

    def read_poses(self, form: PoseFormat) -> Array:
        """T_base_hand (N, 4, 4); raises CalibrationError that names the file and the image."""
        try:
            return form.read(self.rows)
        except PoseError as error:
            name = self.entries[error.row].name
            raise CalibrationError(f"{self.pose_files}, pose of {name}: {error.what}") from error
        except CalibrationError as error:
            raise CalibrationError(f"{self.pose_files}: {error}") from error

    def digest(self) -> str:
        """SHA-256 of the poses and every image: names the data a result came from."""
        sha = hashlib.sha256(np.ascontiguousarray(self.rows, dtype="<f8").tobytes())
        for entry in self.entries:
            sha.update(entry.name.encode())
            for path in (entry.image, entry.depth):
                if path is not None:
                    sha.update(path.read_bytes())
            if entry.T_camera_target is not None:
                sha.update(np.ascontiguousarray(entry.T_camera_target, dtype="<f8").tobytes())
        return sha.hexdigest()


def pose_row(T: Array) -> list[float]:
    """Position [m] and quaternion x, y, z, w of T (4, 4)."""
    return [*map(float, T[:3, 3]), *map(float, Rotation.from_matrix(T[:3, :3]).as_quat())]


class Writer:
    """Appends samples to a dataset folder; refuses a folder that holds something else."""

    def __init__(
        self,
        folder: Path,
        target: Target | None,
        camera: LensModel,
        eye_in_hand: bool,
        stream: str,
        resume: bool = False,
        poses_of: str = "hand",
    ) -> None:
        """resume: go on in a folder that this class wrote, with the same target, camera and stream."""
        self.folder = folder
        description = {
            "format": FORMAT,
            "eye_in_hand": eye_in_hand,
            "target": target.spec if target else NO_TARGET,
            "camera": asdict(camera),
            "stream": stream,
            "poses_of": poses_of,
        }
        self.count = 0
        if resume and is_dataset(folder):
            self.count = _resumed(folder, description)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CalibrationError(f"{folder} is not empty; give a new folder")
        else:
            (folder / "images").mkdir(parents=True)
            write_json(folder / "dataset.json", description)
        self._poses = (folder / "poses.csv").open("a", newline="")
        self._csv = csv.writer(self._poses)
        if not self.count:
            self._poses.truncate(0)
            self._csv.writerow(["name", "image_stamp_ns", "robot_stamp_ns", *POSE_COLUMNS])
            self._poses.flush()

    def add(
        self,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32] | None,
        T_base_hand: Array,
        image_stamp_ns: int,
        robot_stamp_ns: int,
    ) -> str:
        """Store one sample; returns its name."""
        name = f"{self.count:04d}"
        _write_png(self.folder / "images" / f"{name}.png", image)
        if depth is not None:
            (self.folder / "depth").mkdir(exist_ok=True)
            units = np.clip(np.round(depth / DEPTH_UNIT_M), 0, 65535).astype(np.uint16)
            _write_png(self.folder / "depth" / f"{name}.png", units)
        row = [f"{x:.10g}" for x in pose_row(T_base_hand)]
        self._csv.writerow([name, image_stamp_ns, robot_stamp_ns, *row])
        self._poses.flush()
        os.fsync(self._poses.fileno())
        self.count += 1
        return name

    def add_trajectory(self, stamps_ns: list[int], T_base_hand: list[Array]) -> None:
        with (self.folder / "trajectory.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["stamp_ns", *POSE_COLUMNS])
            for stamp, T in zip(stamps_ns, T_base_hand, strict=True):
                out.writerow([stamp, *(f"{x:.10g}" for x in pose_row(T))])

    def close(self) -> None:
        self._poses.close()


def _resumed(folder: Path, description: dict[str, Any]) -> int:
    """Number of samples in a folder to go on in; raises CalibrationError if it is of another set-up."""
    before = {"poses_of": "hand", **json.loads((folder / "dataset.json").read_text())}
    after = plain(description)
    if other := [k for k in after if before.get(k) != after[k]]:
        raise CalibrationError(
            f"{folder} was collected with another {' and '.join(other)} "
            f"({', '.join(str(before.get(k)) for k in other)}); give a new folder as --out"
        )
    if (folder / "trajectory.csv").exists():
        raise CalibrationError(f"{folder} was collected on the move; give a new folder as --out")
    path = folder / "poses.csv"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    # the last line may be cut off: it ends without a line break then
    whole_lines = [line for line in lines if line.endswith("\n")]
    if len(whole_lines) < len(lines):
        write_text(path, "".join(whole_lines))
    return max(len(whole_lines) - 1, 0)


def _write_png(path: Path, image: NDArray[Any]) -> None:
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise CalibrationError(f"{path} cannot be encoded as PNG")
    try:
        with whole(path) as beside:
            beside.write_bytes(data.tobytes())
    except DiskFullError as error:
        raise DiskFullError(f"{error}; what was stored before is whole") from error


def read_depth(path: Path) -> NDArray[np.float32]:
    """A depth image of a dataset: (H, W) float32 metres; PNG in 0.1 mm or .npy in metres."""
    if path.suffix == ".npy":
        return np.asarray(np.load(path), dtype=np.float32)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        raise CalibrationError(f"{path} is no 16-bit depth image")
    return np.asarray(image.astype(np.float32) * np.float32(DEPTH_UNIT_M))


def is_dataset(folder: Path) -> bool:
    return (folder / "dataset.json").is_file()


def read_dataset(folder: Path) -> Recording:
    """A folder written by Writer."""
    path = folder / "dataset.json"
    try:
        about = json.loads(path.read_text())
        if about.get("format") != FORMAT:
            raise CalibrationError(f"{path} is not a {FORMAT}; it says {about.get('format')!r}")
        camera = dict(about["camera"])
        camera["dist"] = tuple(camera["dist"])
        recording = Recording(
            folder,
            FORMAT,
            [],
            np.empty((0, 7)),
            PoseFormat("quat_xyzw"),
            "poses.csv",
            None if about["target"] == NO_TARGET else parse(about["target"]),
            LensModel(**camera),
            bool(about["eye_in_hand"]),
            poses_of=about.get("poses_of", "hand"),
            certain=True,
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CalibrationError(f"{path} is damaged: {error!r}; collect again") from error
    missing: list[str] = []
    rows, table = [], _read_table(folder / "poses.csv", ("name", *POSE_COLUMNS))
    for line in table:
        image, depth = (folder / k / f"{line['name']}.png" for k in ("images", "depth"))
        if not image.is_file():
            missing.append(image.name)
            continue
        recording.entries.append(
            RecordedPair(
                line["name"],
                image,
                depth if depth.is_file() else None,
                image_stamp_s=float(line["image_stamp_ns"]) * 1e-9,
                robot_stamp_s=float(line["robot_stamp_ns"]) * 1e-9,
            )
        )
        rows.append([float(line[c]) for c in POSE_COLUMNS])
    recording.rows = np.array(rows).reshape(-1, 7)
    if missing:
        text = f"{len(missing)} poses have no image and are left out: {listed(missing)}"
        recording.findings.append(Finding("warning", text))
    path = folder / "trajectory.csv"
    if path.is_file():
        lines = _read_table(path, ("stamp_ns", *POSE_COLUMNS))
        data = np.array([[float(line[c]) for c in POSE_COLUMNS] for line in lines])
        stamps = np.array([float(line["stamp_ns"]) * 1e-9 for line in lines])
        R = Rotation.from_quat(data[:, 3:]).as_matrix()
        recording.trajectory = Trajectory(stamps, transform(R, data[:, :3]))
    return recording


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        raise CalibrationError(f"{path} is missing")
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    if lines and (missing := [c for c in columns if lines[0].get(c) is None]):
        raise CalibrationError(f"{path}: columns {', '.join(missing)} are missing")
    return lines
