"""A table with physics: objects that a moving hand can push, grip, carry and drop, and a bin beside them.

The hand follows the simulated arm by stiff servos (sim/physics/model.py). While it is far above everything
that lies still, nothing can change, and no step is computed. The bin has walls but no bottom: what falls into
it below the rim is taken out of the world and counted in `binned`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand
from rt.robot import RobotError
from sim.physics.model import ABOVE_M, Wall, build_model, mujoco, object_mesh
from sim.scene.grasps import FRICTION
from sim.scene.render import Renderer
from sim.scene.scene import Placed, Scene

FINGER_M_S = 0.075
"""Speed of each finger (2F-85: up to 75 mm/s)."""
TIME_STEP_S = 0.002
AXES = ("x", "y", "z", "yaw")

_CLEAR_M = 0.02
"""A hand higher than this above everything touches nothing."""
_STILL_M_S, _STILL_S = 2e-3, 0.1
_GRIPPED_S = 0.05
"""So long the fingers must stand still and press, until they count as stopped."""
_LEAST_WIDTH_M, _SLIP_M = 0.0015, 0.003
"""Thinnest thing that the gripper feels, and the motion by which it knows that it has lost it."""
_SMOOTH_STEPS = 10
"""Steps that the force on the hand is averaged over: 20 ms."""
_DRAWN_M = 1e-4
_AWAY_M = 10.0


@dataclass(frozen=True)
class DropBin:
    """A box without a bottom, open above, wider than the longest object, which would lie on its rim."""

    x_m: float
    y_m: float
    size_x_m: float = 0.32
    size_y_m: float = 0.32
    rim_m: float = 0.10
    wall_m: float = 0.004

    def walls(self) -> tuple[Wall, ...]:
        half_x, half_y, z = self.size_x_m / 2, self.size_y_m / 2, self.rim_m / 2
        along_x = (self.size_x_m + self.wall_m, self.wall_m, self.rim_m)
        along_y = (self.wall_m, self.size_y_m + self.wall_m, self.rim_m)
        return tuple(
            [((self.x_m, self.y_m + s * half_y, z), along_x) for s in (-1, 1)]
            + [((self.x_m + s * half_x, self.y_m, z), along_y) for s in (-1, 1)]
        )

    def holds(self, place: NDArray[np.float64]) -> bool:
        """True if a point (3,) is inside, below the rim."""
        inside_x = abs(place[0] - self.x_m) < self.size_x_m / 2
        inside_y = abs(place[1] - self.y_m) < self.size_y_m / 2
        return bool(inside_x and inside_y and place[2] < self.rim_m)


class TableWorld:
    """Objects, hand and bin in MuJoCo. `follow` lets time pass; `depth` draws what is to be seen now."""

    def __init__(
        self,
        scene: Scene,
        hand: Hand,
        bin_: DropBin,
        start: NDArray[np.float64],
        force_N: float,
        friction: float = FRICTION,
    ) -> None:
        """start: (4,) of x, y, z [m], yaw [rad] of the fingertips. Raises PhysicsError."""
        self.hand, self.bin, self.placed = hand, bin_, scene.placed
        self.model = build_model(scene, hand, friction, force_N, TIME_STEP_S, AXES, bin_.walls())
        self.data = mujoco.MjData(self.model)
        mujoco.set_mju_user_warning(lambda _: None)  # else it writes a file where the user is
        count = range(len(scene.placed))
        self._meshes = [object_mesh(scene, k) for k in count]
        self._bodies = np.array([self.model.body(f"object{k}").id for k in count])
        joints = [int(self.model.body_jntadr[b]) for b in self._bodies]
        self._dofs = [slice(d, d + 6) for d in self.model.jnt_dofadr[joints]]
        self._qpos = [slice(a, a + 7) for a in self.model.jnt_qposadr[joints]]
        self._axes = [self.model.actuator(name).id for name in AXES]
        self._fingers = [self.model.actuator(name).id for name in ("left", "right")]
        self._full_N = 2 * float(self.model.actuator_forcerange[self._fingers[0], 1])
        self.binned: list[int] = []
        """Indices into `placed` of what has fallen into the bin, in that order."""
        self.steps = 0
        """Steps that were computed."""
        self._closing, self._stopped, self._still_s = False, True, 0.0
        self._gripped_m: float | None = None
        self._goal_m = 0.0
        self._due_s, self._quiet_s = 0.0, _STILL_S
        self._forces = np.zeros((_SMOOTH_STEPS, 4))
        self._asleep = False
        self._pose(start, np.zeros(4))
        mujoco.mj_forward(self.model, self.data)
        self._drawn: NDArray[np.float64] | None = None
        self._renderer: Renderer | None = None
        self._top_m = self._top()

    # The gripper.

    def close(self) -> None:
        """Begin to close with the grip force."""
        self._tell(True)

    def open(self) -> None:
        """Begin to open fully."""
        self._tell(False)

    def _tell(self, closing: bool) -> None:
        self._closing, self._stopped, self._still_s, self._gripped_m = closing, False, 0.0, None
        self._goal_m = float(self.data.joint("left").qpos[0])

    @property
    def width_m(self) -> float:
        """Between the pads."""
        travel = float(self.data.joint("left").qpos[0] + self.data.joint("right").qpos[0])
        return max(self.hand.opening_m - travel, 0.0)

    @property
    def moving(self) -> bool:
        """True until the fingers have come to the end of the motion told, or stopped on something."""
        return not self._stopped

    @property
    def holding(self) -> bool:
        """True if the fingers stopped on something while they closed, and still press on it."""
        return self._gripped_m is not None

    @property
    def wrench(self) -> NDArray[np.float64]:
        """(6,) on the hand in the world [N, N m], the mean over 20 ms; of the torque only that about z."""
        x, y, z, yaw = -self._forces.mean(axis=0)
        return np.array([x, y, z, 0.0, 0.0, yaw])

    # Time.

    def follow(
        self, hand: NDArray[np.float64], velocity: NDArray[np.float64], seconds: float
    ) -> None:
        """Let time pass while the arm's hand comes to (4,) at a velocity (4,). Raises RobotError if the
        simulation diverges."""
        if self._at_rest(float(hand[2])):
            self._asleep, self._due_s = True, 0.0
            self._forces[:] = 0.0
            self._hand, self._velocity = hand, velocity
            return
        if self._asleep:
            self._pose(self._hand, self._velocity)
            self._asleep = False
        self._due_s += seconds
        while self._due_s >= TIME_STEP_S - 1e-9:
            self._due_s -= TIME_STEP_S
            self._step(hand)

    def _at_rest(self, hand_m: float) -> bool:
        return (
            self._stopped
            and self._gripped_m is None
            and self._quiet_s >= _STILL_S
            and hand_m > self._top_m + _CLEAR_M
        )

    def _pose(self, hand: NDArray[np.float64], velocity: NDArray[np.float64]) -> None:
        """The hand at a pose, without a way there: behind its goal, as after a way at that velocity, else
        it would feel a jerk."""
        self._hand, self._velocity = hand, velocity
        goal = hand - [0.0, 0.0, ABOVE_M, 0.0]
        bias = self.model.actuator_biasprm[self._axes]
        behind = bias[:, 2] / bias[:, 1] * velocity
        for k, name in enumerate(AXES):
            self.data.joint(name).qpos = goal[k] - behind[k]
            self.data.joint(name).qvel = velocity[k]
        self.data.ctrl[self._axes] = goal

    def _step(self, hand: NDArray[np.float64]) -> None:
        data = self.data
        data.ctrl[self._axes] = hand - [0.0, 0.0, ABOVE_M, 0.0]
        most = self.hand.opening_m / 2 + 0.02  # past the middle: full force on the thinnest wall
        way = FINGER_M_S * TIME_STEP_S * (1 if self._closing else -1)
        self._goal_m = float(np.clip(self._goal_m + way, 0.0, most))
        data.ctrl[self._fingers] = self._goal_m
        mujoco.mj_step(self.model, data)
        self.steps += 1
        if any(data.warning[int(w)].number for w in _DIVERGED):
            raise RobotError(
                "the simulated objects diverged: report this scene; another --scene or --seed goes on"
            )
        self._forces[self.steps % _SMOOTH_STEPS] = data.actuator_force[self._axes]
        self._judge_fingers()
        speeds = np.abs(np.concatenate([data.qvel[d][:3] for d in self._dofs]))
        self._quiet_s = self._quiet_s + TIME_STEP_S if speeds.max() < _STILL_M_S else 0.0
        if self.steps % 10 == 0:
            self._empty_bin()
            if self._quiet_s >= _STILL_S:
                self._top_m = self._top()

    def _judge_fingers(self) -> None:
        speed = abs(float(self.data.joint("left").qvel[0]))
        if not self._closing:
            self._stopped = self.width_m > self.hand.opening_m - 0.002
        elif self._gripped_m is not None:
            if self.width_m < self._gripped_m - _SLIP_M:
                self._gripped_m, self._stopped, self._still_s = None, False, 0.0
        else:
            presses = self.data.actuator_force[self._fingers].sum() > 0.99 * self._full_N
            still = presses and speed < 1e-3
            self._still_s = self._still_s + TIME_STEP_S if still else 0.0
            if self._still_s >= _GRIPPED_S and not self._stopped:
                self._stopped = True
                self._gripped_m = self.width_m if self.width_m > _LEAST_WIDTH_M else None

    def _empty_bin(self) -> None:
        for k in self.present():
            if self.bin.holds(self.place(k)):
                body = int(self._bodies[k])
                geoms = self.model.geom_bodyid == body
                self.model.geom_contype[geoms] = self.model.geom_conaffinity[geoms] = 0
                self.model.body_gravcomp[body] = 1.0
                self.data.qpos[self._qpos[k]] = [_AWAY_M + k, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
                self.data.qvel[self._dofs[k]] = 0.0
                self.binned.append(k)

    # The truth, and its picture.

    def present(self) -> list[int]:
        """Indices of the objects that are not in the bin."""
        return [k for k in range(len(self.placed)) if k not in self.binned]

    def place(self, k: int) -> NDArray[np.float64]:
        """(3,) centre of mass of an object in the world [m]."""
        return np.asarray(self.data.xipos[self._bodies[k]])

    def _poses(self) -> NDArray[np.float64]:
        return np.concatenate([self.data.qpos[q] for q in self._qpos])

    def _corners(self, k: int) -> NDArray[np.float32]:
        """(V, 3) of an object in the world."""
        R = self.data.xmat[self._bodies[k]].reshape(3, 3)
        return (self._meshes[k][0] @ R.T + self.data.xpos[self._bodies[k]]).astype(np.float32)

    def _top(self) -> float:
        """Height of the highest point of anything."""
        return max([self.bin.rim_m, *(float(self._corners(k)[:, 2].max()) for k in self.present())])

    def scene(self) -> Scene:
        """Objects and bin as they are now; `placed` are the objects that are not in the bin."""
        vertices, faces, owner, placed, begin = [], [], [], [], 0
        for k in self.present():
            corners = self._corners(k)
            T = np.eye(4)
            T[:3, :3] = self.data.xmat[self._bodies[k]].reshape(3, 3)
            T[:3, 3] = self.data.xpos[self._bodies[k]]
            placed.append(Placed(self.placed[k].name, self.placed[k].category, T))
            vertices.append(corners)
            faces.append(self._meshes[k][1] + begin)
            owner.append(np.full(len(faces[-1]), len(placed) - 1, np.int16))
            begin += len(corners)
        for centre, size in self.bin.walls():
            vertices.append((_CUBE * size + centre).astype(np.float32))
            faces.append(_CUBE_FACES + begin)
            owner.append(np.full(len(_CUBE_FACES), -1, np.int16))
            begin += len(_CUBE)
        return Scene(
            tuple(placed),
            np.concatenate(vertices),
            np.concatenate(faces).astype(np.int32),
            np.concatenate(owner),
        )

    def depth(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Depth (H, W) [m] of the world as it is now (sim.scene.render)."""
        poses = self._poses()
        if (
            self._drawn is None
            or self._renderer is None
            or np.abs(poses - self._drawn).max() > _DRAWN_M
        ):
            self._renderer, self._drawn = Renderer(self.scene()), poses
        return self._renderer.depth(T_world_camera, rays)


_DIVERGED = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)
_CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_CUBE_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]],
    np.int32,
)  # fmt: skip
