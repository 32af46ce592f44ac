"""The twin with physics: a table whose objects can be gripped, carried and dropped, as one cell (rt.clear).

Arm and camera are the twin's (sim.twin): simulated time, the same seed gives the same run. Objects, fingers
and bin are MuJoCo's (sim.physics.table), and the camera sees where they lie now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rt.cell.cell import Cell
from rt.cell.file import Grasping
from rt.cell.place import PlacePart
from rt.cell.setup import RunSetup, SpeedBound
from rt.gripper import GripperState
from rt.guard.limits import Limits
from rt.hand import load_hand
from rt.pose import top_down
from rt.robot import RobotState
from sim.physics.table import DropBin, TableWorld
from sim.scene.arrange import make_scene
from sim.scene.meshes import PLAIN, MeshOptions
from sim.scene.objects import object_set
from sim.scene.rig import IDEAL, RigView, make_rig
from sim.scene.scene import Scene
from sim.scene.sensor import sensor as preset
from sim.twin import MOUNTS, ArmDynamics, Image, Mount, TwinArm, TwinCamera

PLACE = PlacePart(
    pose=(0.0, 0.45, 0.20, 0.0),
    home=(0.0, 0.0, 0.30),
    look_m=(0.44, 0.44),
    carry_m=0.25,
    speed_m_s=0.85,
    acceleration_m_s2=3.5,
    turn_deg_s=170.0,
)
ARM = ArmDynamics(
    max_speed_m_s=1.0,
    max_acceleration_m_s2=4.0,
    max_turn_rad_s=float(np.radians(180.0)),
    max_turn_acceleration_rad_s2=12.0,
)
"""A UR5e: 1 m/s is its maker's typical speed of the tool, 180 deg/s that of a joint."""
LIMITS = Limits(
    max_speed_m_s=1.0,
    max_following_error_m=0.15,
    workspace_min_m=(-0.6, -0.6),
    workspace_max_m=(0.6, 0.6),
)
"""At 1 m/s the arm is 0.1 m behind its target, and more where the target turns back."""
GRASPING = Grasping(speed_m_s=0.20, lift_speed_m_s=0.40, lift_m=0.12, hold_s=0.1)
_SUBSTEP_NS = 1_000_000
_BESIDE_M = 0.1
"""The workspace reaches so far beyond the place and what is to be cleared."""


class TableArm(TwinArm):
    """The twin's arm, which moves the hand of a world and feels what it touches."""

    def __init__(self, start: NDArray[np.float64], world: TableWorld, arm: ArmDynamics) -> None:
        super().__init__(start, arm)
        self.world = world

    def state(self) -> RobotState:
        s = super().state()
        return RobotState(s.stamp_ns, s.T_base_hand, s.twist, self.world.wrench)

    def substep(self, dt_ns: int) -> None:
        super().substep(dt_ns)
        self.world.follow(np.array(self._p), np.array(self._v), dt_ns * 1e-9)


class TableGripper:
    """The fingers of a world as a gripper."""

    def __init__(self, arm: TableArm) -> None:
        self._arm = arm

    def __enter__(self) -> TableGripper:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        self._arm.world.open()

    def close(self) -> None:
        self._arm.world.close()

    def state(self) -> GripperState:
        world = self._arm.world
        return GripperState(self._arm.now_ns(), world.width_m, world.moving, world.holding)


def build(
    scene: Scene,
    *,
    place: PlacePart = PLACE,
    bin_: DropBin | None = None,
    arm: ArmDynamics = ARM,
    grasping: Grasping = GRASPING,
    limits: Limits = LIMITS,
    mount: str = "wrist",
    sensor: str = IDEAL,
    hand: str = "robotiq_2f85",
    force_N: float = 40.0,
    seed: int = 0,
    camera_rate_hz: float = 60.0,
    camera_delay_s: float = 0.030,
) -> Cell:
    """A cell over any scene; its world is `cell.robot.world`. Raises PhysicsError and SensorError.

    bin_: by default below the place. force_N: grip force of each finger.
    """
    described = load_hand(hand)
    home = np.array([*place.home, 0.0])
    x, y = place.pose[:2]
    world = TableWorld(scene, described, bin_ or DropBin(x, y), home, force_N)
    robot = TableArm(home, world, arm)
    image: Image
    if mount == "wrist":
        rig = make_rig(preset(sensor), MOUNTS["wrist"].T_hand_camera)
        camera_mount = Mount(rig.intrinsics, rig.T_hand_camera)
        noise = np.random.default_rng(seed)
        image = partial(RigView(world, rig, described).image, rng=noise)
    else:
        camera_mount = MOUNTS[mount]
        rays = camera_mount.intrinsics.rays()

        def image(at: NDArray[np.float64]) -> NDArray[np.float32]:
            return world.depth(top_down(*at) @ camera_mount.T_hand_camera, rays)

    camera = TwinCamera(robot, image, camera_mount, rate_hz=camera_rate_hz, delay_s=camera_delay_s)

    def advance(period_ns: int) -> None:
        end = robot.now_ns() + period_ns
        while robot.now_ns() < end:
            if robot.now_ns() == camera.due_ns:
                camera.expose()
            robot.substep(min(_SUBSTEP_NS, end - robot.now_ns(), camera.due_ns - robot.now_ns()))

    info = {
        "objects": [thing.name for thing in scene.placed],
        "mount": mount,
        "sensor": sensor,
        "force_N": force_N,
        "max_speed_m_s": arm.max_speed_m_s,
        "max_acceleration_m_s2": arm.max_acceleration_m_s2,
    }
    setup = RunSetup(
        limits,
        SpeedBound(0.9 * min(limits.max_speed_m_s, arm.max_speed_m_s)),
        grasping,
        place=place,
    )
    return Cell(
        robot,
        camera,
        "table",
        info,
        advance,
        gripper=TableGripper(robot),
        simulated=True,
        setup=setup,
    )


def open_cell(
    *,
    seed: int = 0,
    scene: int = 0,
    objects: int = 10,
    mount: Literal["ideal", "wrist"] = "wrist",
    sensor: str = IDEAL,
    hand: str = "robotiq_2f85",
    force_N: float = 40.0,
    meshes: Path | None = None,
    mesh: MeshOptions | Mapping[str, Any] = PLAIN,
) -> Cell:
    """The twin with physics over table number `scene` of `objects` test objects, or of the user's own meshes
    (a folder); the hand starts at home.

    Raises SceneError, ObjectError, PhysicsError, SensorError or HandError.
    """
    options = mesh if isinstance(mesh, MeshOptions) else MeshOptions(**mesh)
    laid = table_scene(seed, scene, objects, meshes, options)
    place = around(laid)
    cell = build(
        laid,
        place=place,
        limits=wide_enough(place),
        mount=mount,
        sensor=sensor,
        hand=hand,
        force_N=force_N,
        seed=seed,
    )
    cell.info.update(seed=seed, scene=scene, meshes=None if meshes is None else str(meshes))
    return cell


def wide_enough(place: PlacePart) -> Limits:
    """LIMITS, with a workspace that holds the place and all that is to be cleared."""
    half = [
        max(0.6, abs(at) + _BESIDE_M, size / 2 + _BESIDE_M)
        for at, size in zip(place.pose[:2], place.look_m, strict=True)
    ]
    x, y = half
    return replace(LIMITS, workspace_min_m=(-x, -y), workspace_max_m=(x, y))


def around(scene: Scene) -> PlacePart:
    """PLACE, with a look as wide as the scene and the bin beside it."""
    centres = np.abs([thing.T_world_object[:2, 3] for thing in scene.placed])
    half_x, half_y = (max(0.20, float(v) + 0.04) for v in centres.max(axis=0))
    pose = (PLACE.pose[0], max(PLACE.pose[1], half_y + 0.20), *PLACE.pose[2:])
    return replace(PLACE, look_m=(2 * half_x, 2 * half_y), pose=pose)


def table_scene(
    seed: int,
    scene: int,
    objects: int,
    meshes: Path | None = None,
    mesh: MeshOptions = PLAIN,
) -> Scene:
    """Table number `scene`: that many test objects, or of the meshes in a folder, at rest, not touching.
    Raises SceneError and ObjectError."""
    rng = np.random.default_rng([seed, scene, objects])
    drawn = object_set("test") if meshes is None else object_set("all", meshes, True, mesh)
    return make_scene(drawn, rng, objects)
