"""Disturbances of a trial: of the motion, the image, the calibration, the timing and the objects.

All random numbers of a trial come from (seed, number), so every scenario of a trial gets the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial.transform import Rotation

from rt.camera.own_hand import hand_depth
from rt.controller import disturb
from rt.hand import Hand, load_hand
from rt.pose import METRES_PER_RADIAN, top_down
from rt.view import VIEW, Reprojector, close_gaps
from sim.gpd.detector import FINE
from sim.scene.render import Renderer
from sim.scene.rig import IDEAL, RigView, make_rig
from sim.scene.sensor import sensor as preset
from sim.twin import MOUNTS

CONTROL_HZ = 30.0
"""Iterations in a second, for a conveyor's speed: 75 of them take 2.5 s."""
_SELF_PX = 3
"""Pixels around the hand's own outline in a mounted camera's image that are masked with it."""
_JUMP_BETWEEN = (0.2, 0.8)
"""Part of the approach in which objects jump."""
PUSH_M, PUSH_M_S = (0.02, 0.08), 0.2
"""Range of the way that objects are pushed in the experiment `moved`, and the speed of the push."""
_STREAMS = ("world", "candidates", "noise", "sensor", "push", "grasps", "start", "target")


@dataclass(frozen=True)
class Disturbance:
    """Strength of each disturbance. Zeros are the paper's clean scenarios; `noise` acts in the *_noise
    scenarios alone, everything else in all of them."""

    noise: float = 0.4
    """Kinematic noise: displacements are off by this times their length times N(0, 1)."""
    correlated: float = 0.0
    """Cross-correlated velocity: the motion is (1 + M) times the commanded one, M of N(0, this^2) drawn once
    a trial, over x, y, z and turn (as GG-CNN's authors disturbed their arm: 0.05, 0.10, 0.15)."""
    depth_noise: float = 0.0
    """Standard deviation of every depth [m]."""
    dropout: float = 0.0
    """Share of pixels without a return."""
    hand_eye: float = 0.0
    """Error of the camera's calibrated place on the hand [m], in a random direction."""
    hand_eye_deg: float = 0.0
    """Error of its calibrated attitude [deg], about a random axis."""
    latency: int = 0
    """Age of the frames that a closed loop sees [iterations]."""
    jump: float = 0.0
    """Objects jump this far [m] at a random time in the approach."""
    conveyor: float = 0.0
    """Objects move at this speed [m/s] in a random direction, at 30 iterations a second."""

    def __post_init__(self) -> None:
        most = {
            "noise": 10.0,
            "correlated": 1.0,
            "depth_noise": 0.1,
            "dropout": 0.99,
            "hand_eye": 0.2,
            "hand_eye_deg": 45.0,
            "latency": 1000,
            "jump": 0.5,
            "conveyor": 0.5,
        }
        for f in fields(self):
            value = getattr(self, f.name)
            if not 0 <= value <= most[f.name]:
                raise ValueError(f"{f.name} = {value} must be from 0 to {most[f.name]:g}")


class TrialChance:
    """Random draws of one trial, or of one pick of it. With pushed the objects move by PUSH_M on the way."""

    def __init__(
        self,
        disturbance: Disturbance,
        seed: int,
        number: int,
        iterations: int,
        *,
        pick: int = 0,
        pushed: bool = False,
    ) -> None:
        self.disturbance, self.iterations = disturbance, iterations
        self._key = (seed, number, pick) if pick else (seed, number)
        rng = self.rng("world")
        # Drawn in this order whatever is disturbed, so that one disturbance does not change another.
        self.velocity = disturbance.correlated * rng.standard_normal((4, 4))
        self.T_camera_error = _small_motion(rng, disturbance.hand_eye, disturbance.hand_eye_deg)
        self.jump_at = int(iterations * rng.uniform(*_JUMP_BETWEEN))
        angle = rng.uniform(-np.pi, np.pi)
        self.direction = np.array([np.cos(angle), np.sin(angle)])
        self.sensor_scale = float(rng.standard_normal())
        """Error of the sensor's own calibration, in its standard deviations."""

        self.push_m = float(self.rng("push").uniform(*PUSH_M)) if pushed else 0.0

    @property
    def velocity_m_s(self) -> NDArray[np.float64]:
        """Velocity (2,) of the conveyor in the world."""
        return np.asarray(self.disturbance.conveyor * self.direction)

    def rng(self, stream: str) -> np.random.Generator:
        """A stream of this trial, from its beginning."""
        return np.random.default_rng([*self._key, 1 + _STREAMS.index(stream)])

    def to_objects(self, hand: NDArray[np.float64], iteration: int) -> NDArray[np.float64]:
        """The hand's pose (4,) relative to the (moved) objects, in the objects' initial frame."""
        d = self.disturbance
        way = d.conveyor * iteration / CONTROL_HZ + d.jump * (iteration > self.jump_at)
        since_s = max(iteration - self.jump_at, 0) / CONTROL_HZ
        way += min(self.push_m, PUSH_M_S * since_s)
        moved = hand.copy()
        moved[:2] -= way * self.direction
        return moved

    def disturbed(
        self, rng: np.random.Generator, move: NDArray[np.float64], noisy: bool
    ) -> NDArray[np.float64]:
        """The displacement (4,) of x, y, z [m], yaw [rad] that the arm makes instead of `move`."""
        metric = np.array([1.0, 1.0, 1.0, METRES_PER_RADIAN])
        moved = move + (self.velocity @ (move * metric)) / metric
        if noisy:
            planar = disturb(rng, moved[[0, 1, 3]], self.disturbance.noise)
            moved = np.array([planar[0], planar[1], moved[2], planar[2]])
        return np.asarray(moved)


class TrialCamera:
    """The camera on the hand, disturbed by a `TrialChance`. Hand poses are as `to_objects` gives them.

    camera `ideal` is the view itself, exact; `wrist` a rig beside the hand with that sensor (sim.scene.rig),
    which sees the fingers and whose image is reprojected, as on the robot.
    """

    def __init__(
        self,
        renderer: Renderer,
        camera: str,
        fate: TrialChance,
        sensor: str = IDEAL,
        hand: Hand | None = None,
    ) -> None:
        mount, self._renderer, self._fate = MOUNTS[camera], renderer, fate
        self._T_hand_camera = mount.T_hand_camera
        self._T_hand_true = mount.T_hand_camera @ fate.T_camera_error
        self._rig: RigView | None = None
        if camera == "ideal":
            self._rays, self._fine = mount.intrinsics.rays(), FINE.rays()
        else:
            kind, fingers = preset(sensor), hand or load_hand()
            scale = 1 + kind.scale_error * fate.sensor_scale
            rig = make_rig(kind, self._T_hand_camera, self._T_hand_true, scale)
            self._rig, self._rays = RigView(renderer, rig, fingers), rig.intrinsics.rays()
            self._reproject = Reprojector(rig.intrinsics, rig.T_hand_camera)
            own = hand_depth(self._T_hand_camera, self._rays, fingers) > 0
            self._own = maximum_filter(own, size=2 * _SELF_PX + 1)
        self.restart()

    def restart(self) -> None:
        """The sensor's noise from its beginning."""
        self._rng = self._fate.rng("sensor")

    def view(self, hand: NDArray[np.float64]) -> NDArray[np.float32]:
        """The canonical view (64, 64) from a hand, as the controller gets it."""
        if self._rig is None:
            seen = self._exact(hand, self._rays)
        else:
            seen = self._reproject(self._noisy(self._rig.image(hand, self._rng)))
        return close_gaps(seen)

    def image(
        self, hand: NDArray[np.float64], believed: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """For the one-shot detector: depth (H, W), its rays (H, W, 3), and T_world_camera as the
        controller believes it. The ideal camera is seen in full resolution (FINE); what a mounted one
        sees of the hand itself is masked."""
        T_world_camera = top_down(*believed) @ self._T_hand_camera
        if self._rig is None:
            return self._exact(hand, self._fine), self._fine, T_world_camera
        depth = self._noisy(self._rig.image(hand, self._rng))
        return np.where(self._own, np.float32(0), depth), self._rays, T_world_camera

    def _exact(self, hand: NDArray[np.float64], rays: NDArray[np.float32]) -> NDArray[np.float32]:
        depth = self._noisy(self._renderer.depth(top_down(*hand) @ self._T_hand_true, rays))
        kept = (depth >= VIEW.near_m) & (depth <= VIEW.far_m)
        return np.where(kept, depth, np.float32(0)).astype(np.float32, copy=False)

    def _noisy(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        d = self._fate.disturbance
        if d.depth_noise:
            noise = self._rng.standard_normal(depth.shape, np.float32)
            depth = np.where(depth > 0, depth + np.float32(d.depth_noise) * noise, np.float32(0))
        if d.dropout:
            depth = np.where(self._rng.random(depth.shape) < d.dropout, np.float32(0), depth)
        return depth


def _small_motion(rng: np.random.Generator, metres: float, degrees: float) -> NDArray[np.float64]:
    """A rigid motion (4, 4) of that length and that angle, in random directions."""
    way, axis = rng.standard_normal((2, 3))
    T = np.eye(4)
    T[:3, 3] = metres * way / np.linalg.norm(way)
    T[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    return T
