"""Poses about one spot of the scene, and the arm's way through them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from calib.collect.collect import CollectLimits, Collector
from calib.errors import CalibrationError
from calib.solve.se3 import inverse, transform
from rt.pose import Array

Tilted = tuple[float, float, float, float]
"""Azimuth and angle of the tilt, roll about the viewing direction [deg], distance over that at first."""

FIVE: tuple[Tilted, ...] = (
    (0, 0, -25, 1.0),
    (45, 34, 35, 1.0),
    (135, 34, 35, 1.15),
    (225, 34, 35, 1.0),
    (315, 34, 35, 1.15),
)
"""Enough to tell whether a known transform still holds, within ten seconds."""

FIFTEEN: tuple[Tilted, ...] = (
    (0, 0, 0, 1.0),
    *((40 + 51.4 * k, 22, (-60, 0, 60)[k % 3], (0.85, 1.0, 1.25)[(k // 2) % 3]) for k in range(7)),
    *((15 + 51.4 * k, 36, (45, -45, 90)[k % 3], (1.15, 1.0, 1.05)[k % 3]) for k in range(7)),
)
"""Enough to find an unknown transform: two rings of tilts, turned and at three distances."""

QUICK = CollectLimits(speed_m_s=0.2, turn_deg_s=45.0)
"""Limits of motion of the check: small motions, at twice the speed of collecting."""


def about(T_base_camera: Array, distance_m: float, views: Sequence[Tilted]) -> Array:
    """T_base_camera (N, 4, 4) that look at one spot, `distance_m` before the camera, as `views` say."""
    T_base_spot = T_base_camera @ transform(np.eye(3), [0, 0, distance_m])
    poses = []
    for azimuth, tilt, roll, zoom in views:
        a = np.radians(azimuth)
        lean = Rotation.from_rotvec(np.radians(tilt) * np.array([-np.sin(a), np.cos(a), 0]))
        R = (lean * Rotation.from_euler("z", roll, degrees=True)).as_matrix()
        back = transform(np.eye(3), [0, 0, -zoom * distance_m])
        poses.append(T_base_spot @ transform(R, np.zeros(3)) @ back)
    return np.array(poses)


def spot_distance_m(collector: Collector) -> float:
    """Median depth in the middle of the image; raises CalibrationError where there is none."""
    collector.wait_still()
    frame = collector.frame_since(collector.cell.robot.now_ns() - 200_000_000)
    if frame.depth is None:
        raise CalibrationError(
            "the camera gives no depth in the frame of its pictures; use infrared"
        )
    h, w = frame.depth.shape
    middle = frame.depth[h // 3 : -(h // 3), w // 3 : -(w // 3)]
    if np.mean(middle > 0) < 0.3:
        raise CalibrationError(
            f"the middle of the image has depth in {np.mean(middle > 0):.0%} of its pixels; start 0.25 to "
            "0.5 m above the table, looking at it"
        )
    return float(np.median(middle[middle > 0]))


def look_at_scene(collector: Collector, T_hand_camera: Array, views: Sequence[Tilted]) -> int:
    """Move through poses about what the camera sees now, and store each; returns how many are stored.

    T_hand_camera: known, or a guess. A pose outside the limits is
    looked from farther away, or tilted half as much, else left out.
    """
    robot = collector.cell.robot
    try:
        distance = spot_distance_m(collector)
        T_base_camera = collector.start @ T_hand_camera
        stored, left = len(collector.poses), list(views[len(collector.poses) :])
        if not collector.confirm(
            f"The arm will tilt and turn the camera about the spot {distance * 1e3:.0f} mm before it, "
            f"{len(left)} poses within {collector.limits.travel_m:g} m at "
            f"{collector.limits.speed_m_s:g} m/s."
        ):
            raise CalibrationError("stopped by the operator before any motion")
        for k, view in enumerate(left):
            label = f"view {stored + k + 1}/{len(views)}"
            azimuth, tilt, roll, zoom = view
            farther = (azimuth, 0.8 * tilt, roll, max(zoom, 1.15))
            for one in (view, farther, (azimuth, tilt / 2, roll, max(zoom, 1.0))):
                T = about(T_base_camera, distance, [one])[0] @ inverse(T_hand_camera)
                if (reason := collector.forbidden(T)) is None:
                    break
            if reason is not None:
                collector.say(f"{label}: left out, {reason}")
                continue
            collector.go(T)
            collector.take(label)
        collector.go(collector.start)
    finally:
        robot.stop()
        collector.finish()
    return len(collector.poses)
