"""A simulated rig: an arm with errors, a lens that distorts, a target, a table and a box."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calib.devices import CalibrationCell, ImageFrame
from calib.model import Camera, State, Views, project
from calib.motions import Viewpoint, hand_pose, middle_of, random_viewpoints, seen_fraction
from calib.noise import Noise
from calib.se3 import from_vector, inverse, to_vector, transform
from calib.targets import Target
from rt.pose import Array

LENS = Camera(640, 480, 610.0, 608.0, 324.0, 237.0, (-0.11, 0.09, 0.0006, -0.0004, 0.0))
"""A wrist camera in VGA: 55 by 43 degrees, some barrel distortion."""

SPEED_M_S, TURN_RAD_S = 0.25, 1.0


@dataclass(frozen=True)
class Box:
    """A box on the table, for the check by depth."""

    T_base_box: Array
    size_m: tuple[float, float, float] = (0.08, 0.05, 0.04)


@dataclass
class Rig:
    """Arm and camera in one simulated world; implements devices.Robot and devices.ImageCamera.

    The arm reports its pose with an error that stays while it stands and differs from pose to pose.
    """

    truth: State
    """T_mount_camera is T_hand_camera."""
    target: Target
    noise: Noise
    rng: np.random.Generator
    grey_noise: float = 3.0
    depth_noise: float = 0.002
    """Standard deviation of depth, per metre, in metres."""
    dt_s: float = 0.0
    """Robot time of an image minus its stamp."""
    box: Box | None = None
    time_ns: int = 0
    route: list[Array] = field(default_factory=list)
    """Hand poses (4, 4) that an operator would guide the arm through, resting at each."""
    _pose: Array = field(init=False)
    _goal: Array | None = field(init=False, default=None)
    _guided: bool = field(init=False)
    _rest_until_ns: int = field(init=False, default=0)
    _frames: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        middle = middle_of(self.target.points())
        self._pose = hand_pose(self.truth, Viewpoint(20.0, 12.0, 0.0, 0.42).pose(middle), True)
        self._guided = bool(self.route)
        self._texture, self._to_texture = self.target.raster(4000, 0.02)
        self._texture = cv2.GaussianBlur(self._texture, (0, 0), 0.6)
        self._rays = _rays(self.truth.camera, 2)
        self._rays_depth = _rays(self.truth.camera, 1)
        k = 64
        self._frequency = self.rng.normal(size=(k, 12)) / np.repeat([0.05, 0.2], [3, 9])
        self._phase = self.rng.uniform(0, 2 * np.pi, k)
        self._amplitude = self.rng.normal(size=(6, k)) * np.sqrt(2 / k)

    def _error(self, T_base_hand: Array) -> Array:
        """What the arm is wrong by at a pose: a smooth random field, as of joints and links a bit off."""
        v = np.concatenate([T_base_hand[:3, 3], T_base_hand[:3, :3].ravel()])
        field_ = self._amplitude @ np.cos(self._frequency @ v + self._phase)
        return from_vector(field_ * np.sqrt(self.noise.robot_variance))

    # the arm

    def now_ns(self) -> int:
        return self.time_ns

    def state(self) -> SimulatedState:
        return SimulatedState(self.time_ns, self._pose @ self._error(self._pose))

    def move(self, T_base_hand: Array) -> None:
        self._goal = np.array(T_base_hand, dtype=np.float64)

    def stop(self) -> None:
        self._goal = None

    def wait(self, period_ns: int) -> None:
        """Let simulated time pass."""
        self.time_ns += period_ns
        if self.route and self._goal is None and self.time_ns >= self._rest_until_ns:
            self._goal = self.route.pop(0)
        if self._goal is None:
            return
        there = self._goal @ inverse(self._error(self._goal))
        step = to_vector(inverse(self._pose) @ there)
        speed = np.array(
            [np.linalg.norm(step[3:]) / SPEED_M_S, np.linalg.norm(step[:3]) / TURN_RAD_S]
        )
        late = float(speed.max()) / (period_ns * 1e-9)
        self._pose = self._pose @ from_vector(step / late) if late > 1 else there
        if late <= 1 and self._guided:
            self._goal, self._rest_until_ns = None, self.time_ns + 1_500_000_000

    # the camera

    @property
    def intrinsics(self) -> Camera:
        return self.truth.camera

    def read_latest(self, max_age_s: float) -> ImageFrame:
        self._frames += 1
        T = self._pose @ self.truth.T_mount_camera
        return ImageFrame(
            self.time_ns - round(self.dt_s * 1e9), self._frames, self.picture(T), self.depth(T)
        )

    def picture(self, T_base_camera: Array) -> NDArray[np.uint8]:
        """What the camera sees (H, W): the target on a grey table under uneven light."""
        camera, over = self.truth.camera, 2
        T = inverse(T_base_camera) @ self.truth.T_fixed_target
        scale = np.diag([self.truth.scale, self.truth.scale, 1.0])
        plane = np.stack([T[:3, 0], T[:3, 1], T[:3, 3]], axis=1) @ scale
        H = (self._to_texture @ np.linalg.inv(plane)).astype(np.float32)
        at = self._rays @ H.T
        at[..., :2] /= np.where(at[..., 2:] > 1e-6, at[..., 2:], np.nan)
        uv = np.nan_to_num(at[..., :2], nan=-1e4)
        image = cv2.remap(
            self._texture,
            uv,
            None,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=150,
        )
        image = cv2.resize(
            image, (camera.width, camera.height), interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        image = cv2.GaussianBlur(image, (0, 0), 0.3 * over)
        v, u = np.ogrid[-1 : 1 : camera.height * 1j, -1 : 1 : camera.width * 1j]
        light = 0.8 + 0.12 * u - 0.08 * v - 0.12 * (u**2 + v**2)
        image = 20 + image * light.astype(np.float32) * 0.85
        image += self.rng.standard_normal(image.shape, dtype=np.float32) * self.grey_noise
        return np.asarray(np.clip(np.round(image), 0, 255), dtype=np.uint8)

    def depth(self, T_base_camera: Array) -> NDArray[np.float32]:
        """Depth (H, W) of table and box [m]; the table is the target's plane."""
        rays = self._rays_depth.astype(np.float64)
        table = inverse(T_base_camera) @ self.truth.T_fixed_target
        normal = table[:3, 2]
        with np.errstate(divide="ignore"):
            z = (normal @ table[:3, 3]) / (rays @ normal)
        z[~(z > 0)] = np.inf
        if self.box is not None:
            T = inverse(self.box.T_base_box) @ T_base_camera
            half = np.array(self.box.size_m) / 2
            origin, direction = T[:3, 3], rays @ T[:3, :3].T
            with np.errstate(divide="ignore", invalid="ignore"):
                a, b = (-half - origin) / direction, (half - origin) / direction
            near = np.minimum(a, b).max(axis=-1)
            far = np.maximum(a, b).min(axis=-1)
            z = np.where((near < far) & (near > 0) & (near < z), near, z)
        z = z + self.rng.standard_normal(z.shape) * self.depth_noise * z**2
        return np.where(np.isfinite(z) & (z < 3), z, 0).astype(np.float32)


@dataclass(frozen=True)
class SimulatedState:
    stamp_ns: int
    T_base_hand: Array


def _rays(camera: Camera, over: int) -> NDArray[np.float32]:
    """(over H, over W, 3): directions through subpixels, z = 1."""
    u = (np.arange(camera.width * over) + 0.5) / over - 0.5
    v = (np.arange(camera.height * over) + 0.5) / over - 0.5
    grid = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-9)
    xy = cv2.undistortPointsIter(
        grid, camera.K, np.array(camera.dist), np.eye(3), np.eye(3), criteria
    )
    xy = xy.reshape(len(v), len(u), 2)
    return np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1).astype(np.float32)


def random_truth(
    rng: np.random.Generator, camera: Camera = LENS, target: Target | None = None
) -> State:
    """A camera on a bracket beside the hand, looking along it; a target flat on the table."""
    turn = Rotation.from_euler("zyx", rng.normal([90, 0, 0], [8, 5, 5]), degrees=True)
    X = transform(turn.as_matrix(), rng.normal([0.0, 0.065, -0.09], 0.01))
    yaw = Rotation.from_euler("z", rng.uniform(-40, 40), degrees=True).as_matrix()
    down = np.diag([1.0, -1.0, -1.0])
    middle = middle_of((target or Target()).points())
    Z = transform(yaw @ down, np.array([0.45, -0.05, 0.0]) + rng.normal(0, [0.03, 0.03, 0]))
    return State(X, Z @ transform(np.eye(3), -middle), camera)


def make_rig(
    seed: int = 0,
    target: Target | None = None,
    noise: Noise | None = None,
    scale: float = 1.0,
    dt_s: float = 0.0,
) -> Rig:
    """A rig with a random hand-eye transform. scale: true size of the target over the stated one."""
    rng = np.random.default_rng(seed)
    target = target or Target()
    truth = random_truth(rng, target=target)
    truth = State(truth.T_mount_camera, truth.T_fixed_target, truth.camera, scale)
    middle = truth.T_fixed_target @ np.append(middle_of(target.points()), 1)
    spot = transform(
        Rotation.from_euler("z", rng.uniform(-80, 80), degrees=True).as_matrix(),
        np.array([middle[0] + 0.02, middle[1] + 0.2, 0.02]),
    )
    return Rig(
        truth,
        target,
        noise or Noise(0.1, 2e-4, float(np.radians(0.02))),
        rng,
        dt_s=dt_s,
        box=Box(spot),
    )


def open_calibration(seed: int = 0, target: Target | None = None, **_: object) -> CalibrationCell:
    rig = make_rig(seed, target)
    return CalibrationCell(rig, rig, f"simulated rig {seed}", "infrared", rig.wait)


def simulated_views(
    rng: np.random.Generator,
    truth: State,
    points: Array,
    count: int,
    noise: Noise,
    eye_in_hand: bool = True,
    viewpoints: list[Viewpoint] | None = None,
) -> Views:
    """Corner positions and robot poses with noise, without drawing images. `truth.scale` applies."""
    middle = middle_of(points) * truth.scale
    chosen: list[Viewpoint] = list(viewpoints or [])
    while len(chosen) < count:
        candidate = random_viewpoints(rng, 1, (0.28, 0.45))[0]
        if seen_fraction(truth.camera, points, inverse(candidate.pose(middle))) > 0.9:
            chosen.append(candidate)
    poses, pixels = [], []
    for v in chosen[:count]:
        T_target_camera = v.pose(middle)
        T = inverse(T_target_camera)
        p = truth.scale * points @ T[:3, :3].T + T[:3, 3]
        pixels.append(project(truth.camera, p)[0] + rng.normal(0, noise.pixel_px, (len(p), 2)))
        error = from_vector(rng.normal(size=6) * np.sqrt(noise.robot_variance))
        poses.append(hand_pose(truth, T_target_camera, eye_in_hand) @ error)
    return Views(
        tuple(f"{k:03d}" for k in range(count)),
        np.array(poses),
        (points,) * count,
        tuple(pixels),
        truth.camera,
        eye_in_hand,
    )
