"""The whole calibration on a simulated rig, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from calib.collect.collect import CollectLimits, Collector, Say, automatic, moving
from calib.collect.protocol import CalibrationCell
from calib.collect.rig import SimulatedRig, make_rig
from calib.data.readers import read
from calib.data.recording import Recording
from calib.solve.model import Unknowns
from calib.solve.noise import Noise
from calib.solve.se3 import angle_deg
from calib.solve.solver import HandEyeResult
from calib.target.targets import Target
from rt.pose import Array

QUICK = CollectLimits(speed_m_s=0.25, turn_deg_s=60.0)
"""Simulated time is cheap but not free."""


@dataclass(frozen=True)
class Simulated:
    """A recording of a rig and the rig itself."""

    recording: Recording
    rig: SimulatedRig
    cell: CalibrationCell


def record(
    folder: Path,
    target: Target,
    noise: Noise,
    seed: int,
    poses: int,
    say: Say,
    scale: float = 1.0,
    dt_s: float = 0.0,
    on_the_move: bool = False,
) -> Simulated:
    """Collect on a simulated rig, as on a real one. scale: true size of the target over the stated."""
    rig = make_rig(seed, target, noise, scale, dt_s)
    cell = CalibrationCell(rig, rig, f"simulated rig {seed}", "infrared", rig.wait)
    collector = Collector(cell, target, folder, QUICK, say)
    rng = np.random.default_rng([seed, 1])
    (moving if on_the_move else automatic)(collector, poses, rng)
    return Simulated(read(folder), rig, cell)


def compare(result: HandEyeResult, truth: Unknowns) -> dict[str, Any]:
    """The true errors: of the joint result along the mount's axes, of a point, of every method."""
    X, T = result.T_mount_camera, truth.T_mount_camera
    turn = Rotation.from_matrix(X[:3, :3] @ T[:3, :3].T).as_rotvec(degrees=True)
    p = np.array([0, 0, result.settings.working_m, 1])

    def text(M: Array) -> tuple[str, str]:
        return (
            f"{np.linalg.norm(M[:3, 3] - T[:3, 3]) * 1e3:.3f}",
            f"{float(angle_deg(T[:3, :3].T @ M[:3, :3])):.4f}",
        )

    return {
        "error": [*turn.tolist(), *((X[:3, 3] - T[:3, 3]) * 1e3).tolist()],
        "translation_error_mm": float(np.linalg.norm(X[:3, 3] - T[:3, 3]) * 1e3),
        "rotation_error_deg": float(np.linalg.norm(turn)),
        "point_error_mm": float(np.linalg.norm((X @ p - T @ p)[:3]) * 1e3),
        "methods": {
            **{m: text(M) for m, M in result.methods.items()},
            "joint": text(X),
        },
        "matrix": T.tolist(),
    }
