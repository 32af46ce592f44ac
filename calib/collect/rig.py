"""A simulated rig: an arm with errors, a lens that distorts, a target, a table and a box."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calib.collect.protocol import CalibrationCell, ImageFrame
from calib.solve.model import LensModel, Unknowns, Views, project
from calib.solve.motions import Viewpoint, hand_pose, middle_of, random_viewpoints, seen_fraction
from calib.solve.noise import Noise
from calib.solve.se3 import from_vector, inverse, to_vector, transform
from calib.target.targets import Target
from rt.pose import Array

LENS = LensModel(640, 480, 610.0, 608.0, 324.0, 237.0, (-0.11, 0.09, 0.0006, -0.0004, 0.0))
"""A wrist camera in VGA: 55 by 43 degrees, some barrel distortion."""

SPEED_M_S, TURN_RAD_S = 0.25, 1.0


@dataclass(frozen=True)
class Box:
    """A box on the table, for the check by depth."""

    T_base_box: Array
    size_m: tuple[float, float, float] = (0.08, 0.05, 0.04)


@dataclass
class SimulatedRig:
    """Arm and camera in one simulated world; implements protocol.PoseSource and protocol.ImageCamera.

    The arm reports its pose with an error that stays while it stands and differs from pose to pose.
    """

    truth: Unknowns
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
    things: tuple[Box, ...] = ()
    """More boxes, for calibration without a target."""
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
        self._blurred: dict[int, NDArray[np.uint8]] = {}
        self._rays = self.truth.camera.rays()
        self._reported: tuple[Array, Array] | None = None
        k = 64
        self._frequency = self.rng.normal(size=(k, 12)) / np.repeat([0.05, 0.2], [3, 9])
        self._phase = self.rng.uniform(0, 2 * np.pi, k)
        self._amplitude = self.rng.normal(size=(6, k)) * np.sqrt(2 / k)

    def error(self, T_base_hand: Array) -> Array:
        """The arm's error at a pose: a smooth random field, as from joints and links slightly off."""
        v = np.concatenate([T_base_hand[:3, 3], T_base_hand[:3, :3].ravel()])
        field_ = self._amplitude @ np.cos(self._frequency @ v + self._phase)
        return from_vector(field_ * np.sqrt(self.noise.robot_variance))

    # the arm

    def now_ns(self) -> int:
        return self.time_ns

    def state(self) -> SimulatedState:
        if self._reported is None or self._reported[0] is not self._pose:
            self._reported = self._pose, self._pose @ self.error(self._pose)
        return SimulatedState(self.time_ns, self._reported[1])

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
        there = self._goal @ inverse(self.error(self._goal))
        step = to_vector(inverse(self._pose) @ there)
        if np.abs(step).max() < 1e-9:
            return
        speed = np.array(
            [np.linalg.norm(step[3:]) / SPEED_M_S, np.linalg.norm(step[:3]) / TURN_RAD_S]
        )
        late = float(speed.max()) / (period_ns * 1e-9)
        self._pose = self._pose @ from_vector(step / late) if late > 1 else there
        if late <= 1 and self._guided:
            self._goal, self._rest_until_ns = None, self.time_ns + 1_500_000_000

    def knock(self, T_camera_knocked: Array) -> None:
        """Move the camera on its bracket by a motion (4, 4) in its own frame."""
        self.truth = replace(
            self.truth, T_mount_camera=self.truth.T_mount_camera @ T_camera_knocked
        )

    # the camera

    def true_camera(self) -> Array:
        """T_base_camera (4, 4), the arm's error left out."""
        return np.asarray(self._pose @ self.truth.T_mount_camera)

    @property
    def intrinsics(self) -> LensModel:
        return self.truth.camera

    def read_latest(self, max_age_s: float) -> ImageFrame:
        self._frames += 1
        T = self._pose @ self.truth.T_mount_camera
        return ImageFrame(
            self.time_ns - round(self.dt_s * 1e9), self._frames, self.picture(T), self.depth(T)
        )

    def picture(self, T_base_camera: Array) -> NDArray[np.uint8]:
        """The camera's picture (H, W): the target on a grey table under uneven light."""
        camera = self.truth.camera
        T = inverse(T_base_camera) @ self.truth.T_fixed_target
        scale = np.diag([self.truth.scale, self.truth.scale, 1.0])
        plane = np.stack([T[:3, 0], T[:3, 1], T[:3, 3]], axis=1) @ scale
        H = self._to_texture @ np.linalg.inv(plane)
        x, y, w = np.moveaxis(self._rays @ H.T.astype(np.float32), -1, 0)
        # behind the camera nothing is drawn
        w = np.where(w > 1e-6, w, np.float32(np.nan))
        u, v = np.nan_to_num(x / w, nan=-1e4), np.nan_to_num(y / w, nan=-1e4)
        # optics and pixels blur by about half a pixel: so many texels, as far away as the target is
        texels = 0.6 * float(np.linalg.norm(T[:3, 3])) / camera.fx * self._to_texture[0, 0]
        image = cv2.remap(
            self._texture_blurred(texels),
            u,
            v,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=150,
        ).astype(np.float32)
        down, right = np.ogrid[-1 : 1 : camera.height * 1j, -1 : 1 : camera.width * 1j]
        light = 0.8 + 0.12 * right - 0.08 * down - 0.12 * (right**2 + down**2)
        image = 20 + image * light.astype(np.float32) * 0.85
        image += self.rng.standard_normal(image.shape, dtype=np.float32) * self.grey_noise
        return np.asarray(np.clip(np.round(image), 0, 255), dtype=np.uint8)

    def _texture_blurred(self, texels: float) -> NDArray[np.uint8]:
        step = max(1, round(2 * texels))
        if step not in self._blurred:
            self._blurred[step] = cv2.GaussianBlur(self._texture, (0, 0), step / 2)
        return self._blurred[step]

    def depth(self, T_base_camera: Array) -> NDArray[np.float32]:
        """Depth (H, W) of table and box [m]; the table is the target's plane."""
        rays = self._rays
        table = inverse(T_base_camera) @ self.truth.T_fixed_target
        normal = table[:3, 2].astype(np.float32)
        with np.errstate(divide="ignore"):
            z = np.float32(table[:3, 2] @ table[:3, 3]) / (rays @ normal)
        z[~((z > 0) & (z < 3))] = 0
        for box in (*self.things, *([self.box] if self.box else [])):
            self._add_box(z, inverse(box.T_base_box) @ T_base_camera, box)
        sd = np.float32(self.depth_noise) * z**2
        z += self.rng.standard_normal(z.shape, dtype=np.float32) * sd
        return np.asarray(z, dtype=np.float32)

    def _add_box(self, z: NDArray[np.float32], T_box_camera: Array, box: Box) -> None:
        half = np.array(box.size_m) / 2
        corners = np.array([[x, y, h] for x in (-1, 1) for y in (-1, 1) for h in (-1, 1)]) * half
        T = inverse(T_box_camera)
        p = corners @ T[:3, :3].T + T[:3, 3]
        if np.any(p[:, 2] < 0.05):
            return
        uv, _ = project(self.truth.camera, p)
        (u0, v0), (u1, v1) = np.floor(uv.min(axis=0)) - 1, np.ceil(uv.max(axis=0)) + 2
        rows = slice(max(0, int(v0)), max(0, int(v1)))
        columns = slice(max(0, int(u0)), max(0, int(u1)))
        direction = self._rays[rows, columns] @ T_box_camera[:3, :3].T
        if direction.size == 0:
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (s * half - T_box_camera[:3, 3] for s in (-1, 1))
            a, b = a / direction, b / direction
        near, far = np.minimum(a, b).max(axis=-1), np.maximum(a, b).min(axis=-1)
        part = z[rows, columns]
        hit = (near < far) & (near > 0) & ((near < part) | (part == 0))
        part[hit] = near[hit]


@dataclass(frozen=True)
class SimulatedState:
    stamp_ns: int
    T_base_hand: Array


def random_truth(
    rng: np.random.Generator, camera: LensModel = LENS, target: Target | None = None
) -> Unknowns:
    """A camera on a bracket beside the hand, looking along it; a target flat on the table."""
    turn = Rotation.from_euler("zyx", rng.normal([90, 0, 0], [8, 5, 5]), degrees=True)
    X = transform(turn.as_matrix(), rng.normal([0.0, 0.065, -0.09], 0.01))
    yaw = Rotation.from_euler("z", rng.uniform(-40, 40), degrees=True).as_matrix()
    down = np.diag([1.0, -1.0, -1.0])
    middle = middle_of((target or Target()).points())
    Z = transform(yaw @ down, np.array([0.45, -0.05, 0.0]) + rng.normal(0, [0.03, 0.03, 0]))
    return Unknowns(X, Z @ transform(np.eye(3), -middle), camera)


def make_rig(
    seed: int = 0,
    target: Target | None = None,
    noise: Noise | None = None,
    scale: float = 1.0,
    dt_s: float = 0.0,
) -> SimulatedRig:
    """A rig with a random hand-eye transform. scale: true size of the target over the stated one."""
    rng = np.random.default_rng(seed)
    target = target or Target()
    truth = random_truth(rng, target=target)
    truth = Unknowns(truth.T_mount_camera, truth.T_fixed_target, truth.camera, scale)
    middle = truth.T_fixed_target @ np.append(middle_of(target.points()), 1)
    spot = transform(
        Rotation.from_euler("z", rng.uniform(-80, 80), degrees=True).as_matrix(),
        np.array([middle[0] + 0.02, middle[1] + 0.15, 0.02]),
    )
    return SimulatedRig(
        truth,
        target,
        noise or Noise(0.1, 2e-4, float(np.radians(0.02))),
        rng,
        dt_s=dt_s,
        box=Box(spot),
    )


def scattered(rng: np.random.Generator, T_base_table: Array, count: int = 8) -> tuple[Box, ...]:
    """Boxes of several heights around the origin of a table whose z looks down, turned and leaning."""
    boxes = []
    for k in range(count):
        size = (*rng.uniform(0.03, 0.07, 2), rng.uniform(0.02, 0.06))
        way, far = 2.4 * k, 0.05 + 0.1 * np.sqrt(k / count)
        turn = Rotation.from_euler("zyx", [rng.uniform(0, 90), *rng.normal(0, 12, 2)], degrees=True)
        at = [far * np.cos(way), far * np.sin(way), -size[2] / 3]
        boxes.append(Box(T_base_table @ transform(turn.as_matrix(), at), size))
    return tuple(boxes)


def open_rig(seed: int = 0, target: Target | None = None, **_: object) -> CalibrationCell:
    """The rig as a cell; target None puts boxes on the table."""
    rig = make_rig(seed, target)
    if target is None:
        middle = transform(np.eye(3), middle_of(rig.target.points()))
        rig.things = scattered(np.random.default_rng(seed), rig.truth.T_fixed_target @ middle)
    return CalibrationCell(rig, rig, f"simulated rig {seed}", "infrared", rig.wait)


def simulated_views(
    rng: np.random.Generator,
    truth: Unknowns,
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


def guided_route(rig: SimulatedRig, count: int) -> None:
    """Give the rig a person who guides the arm through `count` poses and some more."""
    points = rig.target.points()
    middle = middle_of(points)
    while len(rig.route) < count + 3:
        v = random_viewpoints(rig.rng, 1, (0.3, 0.48))[0]
        if seen_fraction(rig.truth.camera, points, inverse(v.pose(middle))) > 0.99:
            rig.route.append(hand_pose(rig.truth, v.pose(middle), True))
    rig._guided = True
