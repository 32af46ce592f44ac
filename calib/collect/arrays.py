"""A hand-eye set from arrays: images or target poses, and robot poses, without files of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.data.poses import PoseFormat
from calib.data.recording import RecordedPair, Recording, Writer, pose_row, read_dataset
from calib.errors import CalibrationError
from calib.solve.model import LensModel
from calib.solve.solver import HandEyeResult, Settings, calibrate
from calib.solve.verdict import judge_result
from calib.target.targets import parse
from rt.camera import Intrinsics
from rt.pose import Array


@dataclass(frozen=True)
class HandEye:
    """A solved set."""

    T_mount_camera: Array
    """(4, 4): T_hand_camera of a camera in the hand, T_base_camera of a fixed one."""
    verdict: str
    """`good`, `usable` or `do not use` (docs/handeye.md)."""
    reason: str
    result: HandEyeResult
    """Everything else: errors of each view, views left out, advice."""


def solve_arrays(
    T_base_hand: ArrayLike,
    *,
    images: Sequence[NDArray[np.uint8]] | None = None,
    target: str = "",
    camera: Intrinsics | None = None,
    T_camera_target: ArrayLike | None = None,
    eye_in_hand: bool = True,
    seed: int = 0,
) -> HandEye:
    """Solve a hand-eye set and judge the solution.

    T_base_hand: (N, 4, 4), the hand at each image, N at least 3 (15 are good). Then either images: N grey
    images (H, W) of the target (`charuco:7x5:30:22`, see docs/handeye.md), with the
    camera's intrinsics; or T_camera_target: (N, 4, 4), if another program has detected the target.
    eye_in_hand: False for a fixed camera that looks at a target on the hand.

    Raises CalibrationError if the arrays do not fit together or there is no solution.
    """
    poses = _poses("T_base_hand", T_base_hand)
    if (images is None) == (T_camera_target is None):
        raise CalibrationError("give either images or T_camera_target, not both")
    settings = Settings(eye_in_hand=eye_in_hand, seed=seed)
    if T_camera_target is not None:
        seen = _poses("T_camera_target", T_camera_target, len(poses))
        pairs = [RecordedPair(f"{i:04d}", T_camera_target=T) for i, T in enumerate(seen)]
        rows = np.array([pose_row(T) for T in poses])
        recording = Recording(
            Path("arrays"), "arrays", pairs, rows, PoseFormat("quat_xyzw"), "T_base_hand"
        )
        recording.eye_in_hand = eye_in_hand
        return _judged(calibrate(recording, settings))
    assert images is not None
    if not target or camera is None:
        raise CalibrationError("images need target, its specification, and camera, its intrinsics")
    if len(images) != len(poses):
        raise CalibrationError(f"{len(images)} images but {len(poses)} poses; give one pose each")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "set"
        writer = Writer(place, parse(target), LensModel.of(camera), eye_in_hand, "infrared")
        for i, (image, T) in enumerate(zip(images, poses, strict=True)):
            writer.add(np.asarray(image, dtype=np.uint8), None, T, i, i)
        writer.close()
        return _judged(calibrate(read_dataset(place), settings))


def _poses(name: str, value: ArrayLike, count: int | None = None) -> Array:
    poses = np.asarray(value, dtype=np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) < 3:
        raise CalibrationError(f"{name} has shape {poses.shape}, must be (N, 4, 4) with N >= 3")
    if count is not None and len(poses) != count:
        raise CalibrationError(f"{name} has {len(poses)} poses, T_base_hand has {count}")
    return poses


def _judged(result: HandEyeResult) -> HandEye:
    verdict, reason, _ = judge_result(result)
    return HandEye(result.T_mount_camera, verdict, reason, result)
