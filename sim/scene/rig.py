"""A depth camera on the hand, as training meets it: a sensor, a mount, a calibration with its error.

Its images go through rt.view exactly as on the robot, so the view has what reprojection leaves: holes
behind objects and behind the fingers, edges a little wide, a surface a little off.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rt.camera import Intrinsics
from rt.camera.own_hand import hand_depth
from rt.hand import Hand
from rt.pose import top_down
from rt.view import END_HEIGHT_M, START_HEIGHT_M, VIEW, Reprojector, View
from sim.scene.material import MaterialScene
from sim.scene.render import DepthRenderer
from sim.scene.sensor import Sensor, observe, sensor

IDEAL = "ideal"
"""The sensor that stands for no rig at all: the view itself, traced exactly."""

TRACED_FOCAL_PX = 105.0
"""Focal length [px] of the images that are traced: well above the view's 46 and below the modes' 250, for a
pixel costs a ray. Edges come out a little wide for it, as block matching makes them too."""


@dataclass(frozen=True)
class MountRange:
    """Range of camera poses on the hand. Nominally at one of the hand's four sides, behind the fingertips,
    looking at the middle of what the hand needs to see over its travel; its image rows run along the hand's
    outline, as a long camera is mounted. No side is special, so turning or mirroring a view is another
    view as good."""

    clear_m: float = 0.033
    """From the palm's outline to the camera's axis."""
    behind_m: float = 0.10
    """From the fingertips back to the camera."""
    aim_m: float = 0.22
    """Below the fingertips, on the hand's axis."""
    clear_spread_m: float = 0.015
    """Uniform, to either side of nominal; so are the others."""
    behind_spread_m: float = 0.03
    azimuth_spread_deg: float = 20.0
    tilt_spread_deg: float = 4.0
    """About each of the camera's axes."""
    calibration_m: float = 0.001
    """Standard deviation of each coordinate of the calibrated place."""
    calibration_deg: float = 0.3
    """Standard deviation of each angle of the calibrated attitude."""


MOUNT = MountRange()


@dataclass(frozen=True)
class CameraRig:
    """A camera and its mount. The depth that it gives is in `intrinsics`, a window of the sensor's mode."""

    sensor: Sensor
    intrinsics: Intrinsics
    first_column: int
    """First column of the window, in the whole image at this resolution."""
    T_hand_camera: NDArray[np.float64]
    """As calibrated: what reprojection uses."""
    T_hand_true: NDArray[np.float64]
    """True pose of the camera."""
    scale: float
    """The sensor's own relative error of depth."""


def mounted(
    hand: Hand,
    azimuth_rad: float = -np.pi / 2,
    clear_m: float = MOUNT.clear_m,
    behind_m: float = MOUNT.behind_m,
    tilt_rad: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """T_hand_camera (4, 4) of a camera at that azimuth around the hand (-pi/2: along -y_hand), aimed.

    tilt_rad (3,): turned from there about its own x, y, z.
    """
    c, s = np.cos(azimuth_rad), np.sin(azimuth_rad)
    beside = clear_m + (abs(c) * hand.palm_length_m + abs(s) * hand.palm_width_m) / 2
    place = np.array([beside * c, beside * s, -behind_m])
    z = np.array([0.0, 0.0, MOUNT.aim_m]) - place
    z /= np.linalg.norm(z)
    x = np.array([-s, c, 0.0])
    R = np.stack([x, np.cross(z, x), z], axis=1)
    if tilt_rad is not None:
        R = R @ Rotation.from_rotvec(tilt_rad).as_matrix()
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, place
    return T


def random_rig(sensors: tuple[str, ...], hand: Hand, rng: np.random.Generator) -> CameraRig | None:
    """One of these sensors somewhere on the hand; None for the ideal one."""
    kind = sensor(sensors[rng.integers(len(sensors))])
    # Drawn whatever the kind, so that a scene's other chances do not depend on it.
    side, away = rng.integers(4), rng.uniform(-1, 1, 6)
    error, scale = rng.standard_normal(6), 1 + kind.scale_error * rng.standard_normal()
    if kind.name == IDEAL:
        return None
    T_true = mounted(
        hand,
        np.pi / 2 * side + np.radians(MOUNT.azimuth_spread_deg) * away[0],
        MOUNT.clear_m + MOUNT.clear_spread_m * away[1],
        MOUNT.behind_m + MOUNT.behind_spread_m * away[2],
        np.radians(MOUNT.tilt_spread_deg) * away[3:],
    )
    T_error = np.eye(4)
    turn = Rotation.from_rotvec(np.radians(MOUNT.calibration_deg) * error[:3])
    T_error[:3, :3], T_error[:3, 3] = turn.as_matrix(), MOUNT.calibration_m * error[3:]
    return make_rig(kind, T_true @ T_error, T_true, float(scale))


def make_rig(
    kind: Sensor,
    T_hand_camera: NDArray[np.float64],
    T_hand_true: NDArray[np.float64] | None = None,
    scale: float = 1.0,
    focal_px: float = TRACED_FOCAL_PX,
    view: View = VIEW,
    whole_image: bool = False,
) -> CameraRig:
    """A rig whose window is what the view can need of the sensor's image over the hand's travel, or all."""
    whole = _resized(kind.intrinsics, min(focal_px / kind.focal_px, 1.0))
    u0, v0, u1, v1 = 0, 0, whole.width_px, whole.height_px
    if not whole_image:
        u0, v0, u1, v1 = _window(whole, T_hand_camera, view)
    window = Intrinsics(
        u1 - u0, v1 - v0, whole.fx_px, whole.fy_px, whole.cx_px - u0, whole.cy_px - v0
    )
    true = T_hand_camera if T_hand_true is None else T_hand_true
    return CameraRig(kind, window, u0, T_hand_camera, true, scale)


def settings(sensors: tuple[str, ...]) -> dict[str, Any]:
    """All that decides what rigs see, for a data set's identity; raises SensorError."""
    return {
        "sensors": [asdict(sensor(name)) for name in sensors],
        "mount": asdict(MOUNT),
        "traced_focal_px": TRACED_FOCAL_PX,
    }


class RigView:
    """Views of one scene as a rig gives them to the controller."""

    def __init__(
        self,
        renderer: DepthRenderer,
        rig: CameraRig,
        hand: Hand,
        view: View = VIEW,
        materials: MaterialScene | None = None,
    ) -> None:
        """materials: the scene with shiny, black or transparent objects, in place of the renderer's."""
        self._renderer, self._rig, self._materials = renderer, rig, materials
        self._rays = rig.intrinsics.rays()
        hand_m = hand_depth(rig.T_hand_true, self._rays, hand)
        self._hand_m = np.where(hand_m > 0, hand_m, np.float32(np.inf))
        self._reproject = Reprojector(rig.intrinsics, rig.T_hand_camera, view)

    def image(self, hand: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float32]:
        """The sensor's depth (H, W) from a hand (4,) of x, y, z [m], yaw [rad] that looks straight down."""
        rig = self._rig
        T_world_camera = top_down(*hand) @ rig.T_hand_true
        if self._materials is None:
            exact = self._renderer.depth(T_world_camera, self._rays)
        else:
            exact = self._materials.depth(T_world_camera, self._rays, rng)
        exact[exact <= 0] = np.inf
        np.minimum(exact, self._hand_m, out=exact)
        exact[np.isinf(exact)] = 0
        return observe(
            rig.sensor,
            exact,
            rig.intrinsics,
            rng,
            scale=rig.scale,
            first_column=rig.first_column,
        )

    def __call__(self, hand: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float32]:
        """The view (64, 64) float32 metres from there, 0 = no return."""
        return self._reproject(self.image(hand, rng))


def _resized(mode: Intrinsics, part: float) -> Intrinsics:
    """The same camera with pixels 1/part as large."""
    width_px, height_px = round(mode.width_px * part), round(mode.height_px * part)
    return Intrinsics(
        width_px,
        height_px,
        mode.fx_px * part,
        mode.fy_px * part,
        (mode.cx_px + 0.5) * part - 0.5,
        (mode.cy_px + 0.5) * part - 0.5,
    )


def _window(
    whole: Intrinsics, T_hand_camera: NDArray[np.float64], view: View
) -> tuple[int, int, int, int]:
    """First and end column and row (u0, v0, u1, v1) of what the view sees between the hand's end height
    less the highest object and the table at its start height, with a margin."""
    edge = view.size_px / 2 / view.focal_px
    corners = [
        (sx * edge * z, sy * edge * z, z)
        for z in (END_HEIGHT_M / 4, END_HEIGHT_M, START_HEIGHT_M + 0.01)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    p = (np.array(corners) - T_hand_camera[:3, 3]) @ T_hand_camera[:3, :3]
    u = p[:, 0] / p[:, 2] * whole.fx_px + whole.cx_px
    v = p[:, 1] / p[:, 2] * whole.fy_px + whole.cy_px
    margin = 3
    u0, v0 = max(0, int(u.min()) - margin), max(0, int(v.min()) - margin)
    u1 = min(whole.width_px, int(u.max()) + margin + 1)
    v1 = min(whole.height_px, int(v.max()) + margin + 1)
    return u0, v0, u1, v1
