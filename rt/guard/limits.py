"""Limits of the guard's table, with their defaults and meanings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt.robot.kinematics import JOINTS, RANGE_DEG, Six

CAMERA_MOVED = ("auto", "warn", "hold", "stop", "off")
"""Actions of the row `camera_moved`."""


@dataclass(frozen=True)
class Limits:
    """Limits of the guard's table."""

    max_frame_age_s: float = 0.15
    """Oldest frame to act on, from the middle of its exposure [s]."""
    max_exposure_gap_s: float = 0.02
    """Largest time between a frame's exposure and the known poses of the hand [s]."""
    max_same_views: int = 2
    """New frames in a row that may show the very same picture though the hand has moved."""
    max_state_age_s: float = 0.10
    """Oldest robot state to act on [s]."""
    max_target_age_s: float = 0.10
    """Largest delay of a new target after its period [s]; also the limit in the arm's process."""
    min_view_filled: float = 0.5
    """Least fraction of the view's pixels with a return."""
    camera_moved: str = "auto"
    """Action of the row `camera_moved`: warn, hold, stop, off; auto: warn on the twin, hold on an arm."""
    max_camera_tilt_deg: float = 0.6
    """Tilt of the table as the camera sees it, against the cell's, beyond what is uncertain [deg]."""
    max_camera_height_m: float = 0.003
    """The same for the table's height [m]."""
    max_camera_shift_m: float = 0.0005
    """The same for the camera's place beside its axis, and for a jump of the scene between two views [m]."""
    min_spread_m: float = 0.002
    """Least difference between the best and the worst candidate's distance [m]."""
    max_distance_m: float = 1.0
    """Greatest distance, and least negative one times -10, that a network can mean [m]."""
    max_speed_m_s: float = 0.5
    """Fastest commanded motion [m/s]: a cycle's step is shortened to it."""
    max_acceleration_m_s2: float = 20.0
    """Greatest change of the commanded motion [m/s^2]; the driver smooths the arm's own far below."""
    max_turn_deg_s: float = 180.0
    """Fastest commanded turn [deg/s]: a UR wrist's own limit."""
    max_step_m: float = 0.20
    """Farther than this from the last command is a fault, not a motion [m]."""
    max_step_deg: float = 180.0
    """The same for a turn [deg]."""
    workspace_min_m: tuple[float, float] = (-0.5, -0.5)
    """Least x, y of the hand in base [m]."""
    workspace_max_m: tuple[float, float] = (0.5, 0.5)
    """Greatest x, y of the hand in base [m]."""
    min_height_m: float = 0.10
    """Least height of the fingertips above the table during the approach [m]."""
    path_clearance_m: float = 0.01
    """Least height of fingertips and palm above all that the views have shown below them [m], during the
    approach."""
    min_grasp_height_m: float = 0.002
    """Least height of the fingertips above the table in the last centimetres [m]."""
    max_height_m: float = 0.60
    """Greatest height of the fingertips above the table [m]."""
    margin_m: float = 0.02
    """Distance outside workspace and heights at which the arm is stopped [m]; in the last centimetres the
    arm is stopped below the table."""
    max_tilt_deg: float = 5.0
    """Largest angle between the hand's approach and straight down [deg]."""
    max_following_error_m: float = 0.10
    """Farthest that the arm may be from where it is commanded [m]."""
    max_force_N: float = 50.0
    """Greatest force on the hand, beyond what it felt at the start [N]."""
    max_torque_Nm: float = 10.0
    """Greatest torque on the hand, beyond what it felt at the start [N m]."""
    joint_min_deg: Six = (-RANGE_DEG,) * 6
    """Least angle of each joint, base to wrist 3 [deg]; the arm's own range, or less for cables and hoses."""
    joint_max_deg: Six = (RANGE_DEG,) * 6
    """Greatest angle of each joint [deg]."""
    joint_margin_deg: float = 10.0
    """Least distance of a joint to either limit [deg]: the joint brakes within it."""
    max_joint_speed: float = 0.9
    """Fastest turn of a joint, as a part of the fastest that its maker gives."""
    min_singular_deg: float = 10.0
    """Least distance of the arm to a singular posture (rt.robot.kinematics.singularity) [deg]."""
    max_missed_in_a_row: int = 10
    """Deadlines missed one after another."""
    max_held_s: float = 2.0
    """Longest hold of the arm before the run ends [s]."""
    max_clamped_s: float = 2.0
    """Longest time in a row that commands are clamped to the workspace, the floor or the ceiling, or to no
    motion at all, before the run ends [s]."""
    max_paused_s: float = 600.0
    """Longest pause, and longest wait for START, before the run ends [s]."""

    def __post_init__(self) -> None:
        if self.camera_moved not in CAMERA_MOVED:
            known = ", ".join(CAMERA_MOVED)
            raise ValueError(f"limit camera_moved = {self.camera_moved!r} must be one of {known}")
        for name, value in asdict(self).items():
            if isinstance(value, str):
                continue
            if not np.isfinite(value).all():
                raise ValueError(f"limit {name} = {value} must be finite")
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"limit {name} = {value} must not be negative")
        for k, joint in enumerate(JOINTS):
            low, high = self.joint_min_deg[k], self.joint_max_deg[k]
            if not low + 2 * self.joint_margin_deg < high:
                radians = max(abs(low), abs(high)) < 2 * math.pi + 0.05
                raise ValueError(
                    f"limits joint_min_deg and joint_max_deg leave the joint {joint!r} no room: "
                    f"{low:g} to {high:g} deg with joint_margin_deg = {self.joint_margin_deg:g}"
                    + ("; are they meant in radians? Give degrees" if radians else "")
                )


def joint_rooms_deg(q: ArrayLike | None, limits: Limits) -> NDArray[np.float64]:
    """(6,) of what joints (6,) [rad] have left to their limits [deg]; below 0 beyond."""
    q_deg = np.degrees(np.asarray(q, dtype=np.float64))
    return np.asarray(np.minimum(q_deg - limits.joint_min_deg, limits.joint_max_deg - q_deg))


def outside_m(xy: ArrayLike, limits: Limits) -> float:
    """Distance [m] of a hand at x, y [m] from the workspace; 0 inside."""
    at = np.asarray(xy, dtype=np.float64)[:2]
    return float(np.linalg.norm(at - np.clip(at, limits.workspace_min_m, limits.workspace_max_m)))


def outside(hand: NDArray[np.float64], limits: Limits) -> str:
    """Reason why a hand at x, y, z [m] is outside the workspace, too low or too high; else empty."""
    for axis, value, low, high in zip(
        "xy", hand[:2], limits.workspace_min_m, limits.workspace_max_m, strict=True
    ):
        if not low <= value <= high:
            return (
                f"workspace: {axis} = {value:.3f} m must be from {low:g} to {high:g} m; move the place, or "
                "widen the workspace"
            )
    if not limits.min_grasp_height_m <= hand[2] <= limits.max_height_m:
        return (
            f"height: z = {hand[2]:.3f} m must be from {limits.min_grasp_height_m:g} to "
            f"{limits.max_height_m:g} m"
        )
    return ""
