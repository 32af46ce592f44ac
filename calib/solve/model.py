"""Measurement model: predicted pixels of the target, and their derivatives by every unknown.

Both set-ups are one: with the camera in the hand the mount is the hand and the fixed frame the base,
with a fixed camera the mount is the base and the "fixed" frame is the hand that holds the target. So

    T_camera_target = inv(T_mount_camera) inv(T_fixed_mount) T_fixed_target

where T_mount_camera and T_fixed_target are sought and T_fixed_mount comes from the robot.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from calib.errors import CalibrationError
from calib.solve.se3 import adjoint, from_vector, inverse, right_jacobian, to_vector, transform
from rt.camera.intrinsics import Intrinsics
from rt.pose import Array


@dataclass(frozen=True)
class LensModel:
    """A pinhole with Brown-Conrady distortion, as OpenCV has it."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    dist: tuple[float, ...] = (0.0,) * 5
    """k1, k2, p1, p2, k3, and more as in cv2.projectPoints."""

    @classmethod
    def of(cls, camera: Intrinsics) -> LensModel:
        """The lens of a camera of rt; raises CalibrationError if its distortion is not OpenCV's."""
        if any(camera.distortion) and camera.distortion_model != "brown_conrady":
            raise CalibrationError(
                f"the camera's distortion model is {camera.distortion_model}, OpenCV's is "
                "brown_conrady; choose another --stream"
            )
        return cls(
            camera.width_px,
            camera.height_px,
            camera.fx_px,
            camera.fy_px,
            camera.cx_px,
            camera.cy_px,
            (*camera.distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5],
        )

    def rays(self) -> NDArray[np.float32]:
        """True direction of every pixel, (height, width, 3) float32, z = 1.

        Undistorted by rt.camera.Intrinsics. Raises CameraError if the distortion has no inverse, and
        CalibrationError if it has more than the five coefficients of Brown and Conrady.
        """
        if any(self.dist[5:]):
            raise CalibrationError(
                f"a lens of {len(self.dist)} distortion coefficients; rays need 5 at most (k1 k2 p1 p2 k3)"
            )
        numbers = (self.width, self.height, self.fx, self.fy, self.cx, self.cy)
        return Intrinsics(*numbers, self.dist[:5]).rays()

    @property
    def K(self) -> Array:
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def vector(self) -> Array:
        return np.array([self.fx, self.fy, self.cx, self.cy, *self.dist])

    def with_vector(self, v: Array) -> LensModel:
        fx, fy, cx, cy, *dist = (float(x) for x in v)
        return replace(self, fx=fx, fy=fy, cx=cx, cy=cy, dist=tuple(dist))


@dataclass(frozen=True)
class Trajectory:
    """The hand's stamped path, for images taken on the move."""

    stamp_s: Array
    """(M,) increasing."""
    T_base_hand: Array
    """(M, 4, 4)."""

    def __post_init__(self) -> None:
        if len(self.stamp_s) < 2 or np.any(np.diff(self.stamp_s) <= 0):
            raise CalibrationError("the robot's trajectory needs at least two increasing stamps")

    def at(self, t_s: Array) -> Array:
        """T_base_hand (N, 4, 4) at times (N,), interpolated; the ends are held outside."""
        t = np.clip(t_s, self.stamp_s[0], self.stamp_s[-1])
        R = Slerp(self.stamp_s, Rotation.from_matrix(self.T_base_hand[:, :3, :3]))(t).as_matrix()
        p = [np.interp(t, self.stamp_s, self.T_base_hand[:, k, 3]) for k in range(3)]
        return transform(R, np.stack(p, axis=-1))

    def twist(self, t_s: Array, half_s: float = 0.02) -> Array:
        """Velocity (N, 6) of the hand in its own frame (rad/s, m/s), a central difference."""
        before, after = self.at(t_s - half_s), self.at(t_s + half_s)
        return np.asarray(to_vector(inverse(before) @ after) / (2 * half_s))


@dataclass(frozen=True)
class Views:
    """N images of one target with the robot pose of each: all that the solver needs."""

    names: tuple[str, ...]
    T_base_hand: Array
    """(N, 4, 4)."""
    points_m: tuple[Array, ...]
    """Target points (m_i, 3) seen in each image, in the target's frame."""
    pixels: tuple[Array, ...]
    """Detected pixels (m_i, 2) of these points."""
    camera: LensModel
    eye_in_hand: bool = True
    pixels_are_real: bool = True
    """False where target poses were given instead of images; pixels then stand for them."""
    trajectory: Trajectory | None = None
    stamp_s: Array | None = None
    """(N,) image times on the trajectory's clock."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, which: NDArray[Any] | list[int]) -> Views:
        """The views of an index or mask array."""
        index = np.arange(len(self))[which]
        return replace(
            self,
            names=tuple(self.names[i] for i in index),
            T_base_hand=self.T_base_hand[index],
            points_m=tuple(self.points_m[i] for i in index),
            pixels=tuple(self.pixels[i] for i in index),
            stamp_s=None if self.stamp_s is None else self.stamp_s[index],
        )

    def with_poses(self, T_base_hand: Array) -> Views:
        return replace(self, T_base_hand=T_base_hand, trajectory=None, stamp_s=None)

    def hand_poses(self, dt_s: float = 0.0) -> Array:
        """T_base_hand (N, 4, 4) at the images, if the camera's stamps are dt_s early."""
        if self.trajectory is None or self.stamp_s is None:
            return self.T_base_hand
        return self.trajectory.at(self.stamp_s + dt_s)

    def fixed_mount(self, dt_s: float = 0.0) -> Array:
        """T_fixed_mount (N, 4, 4)."""
        T = self.hand_poses(dt_s)
        return T if self.eye_in_hand else inverse(T)


@dataclass(frozen=True)
class Unknowns:
    """Values of every unknown."""

    T_mount_camera: Array
    T_fixed_target: Array
    camera: LensModel
    scale: float = 1.0
    """True size of the target over its stated size."""
    dt_s: float = 0.0
    """Robot time of an image minus its stamp."""


@dataclass(frozen=True)
class Free:
    """Selection of the unknowns that are estimated besides the two transforms."""

    scale: bool = False
    dt: bool = False
    intrinsics: tuple[int, ...] = ()
    """Indices into Camera.vector."""

    @property
    def extras(self) -> int:
        """Unknowns that act on the target's pose, besides the twelve of the transforms."""
        return int(self.scale) + int(self.dt)

    @property
    def size(self) -> int:
        return 12 + self.extras + len(self.intrinsics)


@dataclass(frozen=True)
class Linearised:
    """Residuals and derivatives at a state; rows are u, v of every point, view after view."""

    residual_px: Array
    """(2M,), predicted minus seen."""
    J: Array
    """(2M, Free.size)."""
    D: Array
    """(2M, 6): derivative by a motion of the hand in its own frame (rad, m), of each row's view."""
    start: NDArray[np.intp]
    """(N + 1,): rows of view i are start[i]:start[i + 1]."""


def moved(state: Unknowns, theta: Array, free: Free) -> Unknowns:
    """The state after an increment theta (Free.size,).

    Order: T_mount_camera's rotation and translation, both along the camera's axes; T_fixed_target's
    likewise along the target's; log of the scale; dt; intrinsics.
    """
    new = replace(
        state,
        T_mount_camera=state.T_mount_camera @ from_vector(theta[:6]),
        T_fixed_target=state.T_fixed_target @ from_vector(theta[6:12]),
    )
    k = 12
    if free.scale:
        new, k = replace(new, scale=state.scale * float(np.exp(theta[k]))), k + 1
    if free.dt:
        new, k = replace(new, dt_s=state.dt_s + float(theta[k])), k + 1
    if free.intrinsics:
        v = state.camera.vector
        v[list(free.intrinsics)] += theta[k:]
        new = replace(new, camera=state.camera.with_vector(v))
    return new


def target_in_camera(views: Views, state: Unknowns) -> Array:
    """T_camera_target (N, 4, 4) that the state predicts."""
    mount = views.fixed_mount(state.dt_s) @ state.T_mount_camera
    return inverse(mount) @ state.T_fixed_target


def project(camera: LensModel, points_camera: Array) -> tuple[Array, Array]:
    """Pixels (M, 2) of points (M, 3) in the camera, and derivatives (M, 2, 6 + 4 + d).

    Derivatives are by a motion (rotation, translation) of the points in the camera's frame, then by
    fx, fy, cx, cy and the distortion.
    """
    zero = np.zeros(3)
    pixels, jac = cv2.projectPoints(
        np.ascontiguousarray(points_camera, dtype=np.float64),
        zero,
        zero,
        camera.K,
        np.array(camera.dist),
    )
    return pixels[:, 0], jac.reshape(len(points_camera), 2, -1)


@dataclass(frozen=True)
class Problem:
    """Views laid out flat."""

    views: Views
    free: Free
    points: Array = field(init=False)
    pixels: Array = field(init=False)
    index: NDArray[np.intp] = field(init=False)
    """(M,): the view of every point."""
    start: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        count = [len(p) for p in self.views.points_m]
        set_ = object.__setattr__
        set_(self, "points", np.concatenate(self.views.points_m))
        set_(self, "pixels", np.concatenate(self.views.pixels))
        set_(self, "index", np.repeat(np.arange(len(count)), count))
        set_(self, "start", 2 * np.concatenate([[0], np.cumsum(count)]).astype(np.intp))

    def residual(self, state: Unknowns) -> Array:
        """(2M,) predicted minus seen pixels."""
        points, _ = self._in_camera(state)
        return np.asarray((project(state.camera, points)[0] - self.pixels).ravel())

    def linearise(self, state: Unknowns, theta: Array | None = None) -> Linearised:
        """Residuals and derivatives at `state`, which lies `theta` away from where theta counts from."""
        free, points_and_poses = self.free, self._in_camera(state)
        points, T_camera_target = points_and_poses
        pixels, jac = project(state.camera, points)
        motion = jac[..., :6]
        at_target = adjoint(T_camera_target)[self.index]
        T_camera_mount = inverse(state.T_mount_camera)
        if self.views.eye_in_hand:
            at_hand = np.broadcast_to(-adjoint(T_camera_mount), (len(self.index), 6, 6))
        else:
            T_base_hand = self.views.hand_poses(state.dt_s)
            at_hand = adjoint(T_camera_mount @ T_base_hand)[self.index]
        D = motion @ at_hand
        blocks = [-motion, motion @ at_target]
        if theta is not None:  # derivatives by theta itself, not by a fresh increment
            blocks = [
                b @ _increment_map(theta[k : k + 6]) for b, k in zip(blocks, (0, 6), strict=True)
            ]
        if free.scale:
            arm = np.einsum("nij,nj->ni", T_camera_target[self.index, :3, :3], self.points)
            blocks.append(np.einsum("nij,nj->ni", motion[..., 3:], state.scale * arm)[..., None])
        if free.dt:
            assert self.views.trajectory is not None and self.views.stamp_s is not None
            twist = self.views.trajectory.twist(self.views.stamp_s + state.dt_s)
            blocks.append(np.einsum("nij,nj->ni", D, twist[self.index])[..., None])
        if free.intrinsics:
            blocks.append(jac[..., [6 + i for i in free.intrinsics]])
        J = np.concatenate(blocks, axis=-1).reshape(-1, free.size)
        return Linearised((pixels - self.pixels).ravel(), J, D.reshape(-1, 6), self.start)

    def _in_camera(self, state: Unknowns) -> tuple[Array, Array]:
        T = target_in_camera(self.views, state)
        points = np.einsum("nij,nj->ni", T[self.index, :3, :3], state.scale * self.points)
        return points + T[self.index, :3, 3], T


def _increment_map(theta: Array) -> Array:
    """(6, 6): a change of theta as an increment at the moved transform."""
    M = np.zeros((6, 6))
    M[:3, :3] = right_jacobian(theta[:3])
    M[3:, 3:] = Rotation.from_rotvec(theta[:3]).as_matrix().T
    return M
