"""A simulated arm and wrist camera over a random scene: one robot and one camera like any other.

The world advances only in `Cell.advance`, in fixed substeps of simulated time, and frames and states are
stamped with that time. So the same seed gives the same run on any machine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError, Frame, Intrinsics, StaleFrameError
from rt.cell.cell import Cell
from rt.cell.setup import RunSetup
from rt.gripper import GripperState
from rt.hand import Hand, TipTravel, load_hand, load_tip_travel
from rt.pose import from_top_down, grasp_distance, to_view, top_down
from rt.robot import RobotError, RobotState
from rt.view import START_HEIGHT_M, VIEW
from sim.scene.rig import IDEAL, mounted
from sim.scene.sensor import SENSORS, SensorError

STILL = (0.0, 0.0)
_SUBSTEP_NS = 1_000_000
_START_NS = 1_000_000_000
_FRAMES_KEPT = 64

GRASPED_M = 0.010
"""Fingers that close nearer than this to a true grasp, in the grasp metric, hold it, without any physics."""
GRIPPER_M_S = 0.150
"""Speed of the opening: two fingers of 75 mm/s each (a 2F-85)."""

DepthImage = Callable[[NDArray[np.float64], NDArray[np.float32]], NDArray[np.float32]]
"""(T_world_camera (4, 4), rays (H, W, 3) with z = 1) -> depth (H, W) float32 m; sim.scene.render's."""

Image = Callable[[NDArray[np.float64]], NDArray[np.float32]]
"""hand (4,) of x, y, z [m], yaw [rad] -> depth (H, W) float32 m of the camera on it."""

ColourImage = Callable[[NDArray[np.float64]], NDArray[np.uint8]]
"""The same -> (H, W, 3) RGB in the depth image's pixels."""


@dataclass(frozen=True)
class ArmDynamics:
    """Dynamics of the simulated arm, whose hand always points straight down."""

    lag_s: float = 0.034
    """First-order lag behind a streamed target [s]; as measured on a UR10e with servoL at its
    shortest lookahead, communication included."""
    max_speed_m_s: float = 1.0
    max_acceleration_m_s2: float = 5.0
    max_turn_rad_s: float = math.pi
    max_turn_acceleration_rad_s2: float = 20.0


@dataclass(frozen=True)
class Mount:
    """A camera and where it sits on the hand."""

    intrinsics: Intrinsics
    T_hand_camera: NDArray[np.float64]


MOUNTS = {
    "ideal": Mount(VIEW.intrinsics, np.eye(4)),
    "wrist": Mount(SENSORS[IDEAL].intrinsics, mounted(load_hand())),
}
"""`ideal` is the canonical view itself, which the hand's own fingers never hide; `wrist` is beside the hand
(sim.scene.rig), with the field of view of a D405."""


class TwinArm:
    """The hand tracks the streamed target with a first-order lag and bounded speed, acceleration,
    turn rate and turn acceleration."""

    def __init__(self, start: NDArray[np.float64], arm: ArmDynamics | None = None) -> None:
        """start: (4,) of x, y, z [m], yaw [rad] in the world, which is the twin's base."""
        self.arm = arm or ArmDynamics()
        self._p = [float(v) for v in start]
        self._v = [0.0, 0.0, 0.0, 0.0]
        self._target: list[float] | None = None
        self._now_ns = _START_NS

    def __enter__(self) -> TwinArm:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def now_ns(self) -> int:
        return self._now_ns

    @property
    def hand(self) -> NDArray[np.float64]:
        """(4,) of x, y, z [m], yaw [rad] in the world, now."""
        return np.array(self._p)

    def state(self) -> RobotState:
        x, y, z, yaw = self._v
        twist = np.array([x, y, z, 0.0, 0.0, yaw])
        return RobotState(self._now_ns, top_down(*self._p).astype(np.float64), twist)

    def move(self, T_base_hand: NDArray[np.float64]) -> None:
        target = from_top_down(T_base_hand)
        if not all(math.isfinite(v) for v in target) or T_base_hand[2, 2] > -0.999:
            raise RobotError(f"the twin's hand looks straight down, it cannot reach\n{T_base_hand}")
        self._target = list(target)

    def stop(self) -> None:
        self._target = None

    def substep(self, dt_ns: int) -> None:
        """Let `dt_ns` pass."""
        dt, arm = dt_ns * 1e-9, self.arm
        way = [0.0] * 4
        if self._target is not None:
            way = [t - p for t, p in zip(self._target, self._p, strict=True)]
            # A turn goes the short way to the very pose asked for: the arm knows no grasp symmetry.
            way[3] = math.remainder(way[3], 2 * math.pi)
        lag = arm.lag_s
        self._v[:3] = _follow(
            self._v[:3], way[:3], dt, lag, arm.max_speed_m_s, arm.max_acceleration_m_s2
        )
        self._v[3:] = _follow(
            self._v[3:], way[3:], dt, lag, arm.max_turn_rad_s, arm.max_turn_acceleration_rad_s2
        )
        self._p = [p + v * dt for p, v in zip(self._p, self._v, strict=True)]
        self._now_ns += dt_ns


def _follow(
    velocity: list[float],
    way: list[float],
    dt: float,
    lag_s: float,
    most: float,
    acceleration: float,
) -> list[float]:
    """The next velocity on the way to a target: way / lag, but never faster than `most`, nor than
    what can still be braked, and changing by no more than the acceleration allows."""
    distance = math.hypot(*way)
    speed = min(distance / lag_s, math.sqrt(2 * acceleration * distance), most)
    wanted = [w * speed / distance if distance > 0 else 0.0 for w in way]
    change = [w - v for w, v in zip(wanted, velocity, strict=True)]
    size = math.hypot(*change)
    part = min(1.0, acceleration * dt / size) if size > 0 else 0.0
    return [v + part * c for v, c in zip(velocity, change, strict=True)]


@dataclass(frozen=True)
class Belt:
    """A conveyor that carries all objects, from where they are at the start."""

    velocity_m_s: tuple[float, float] = STILL
    """Along x and y of the world."""

    def to_objects(self, hand: NDArray[np.float64], now_ns: int) -> NDArray[np.float64]:
        """A hand (4,) in the world at a time, relative to the objects: as if these were where they began."""
        moved = hand.copy()
        moved[:2] -= np.multiply(self.velocity_m_s, (now_ns - _START_NS) * 1e-9)
        return moved


@dataclass(frozen=True)
class _Exposure:
    number: int
    stamp_ns: int
    hand: NDArray[np.float64]


class TwinCamera:
    """Exposes a frame every 1/rate; it can be read `delay_s` later. Only frames that can still be
    read are rendered, when they are first wanted: the time of a frame says where the objects were."""

    def __init__(
        self,
        arm: TwinArm,
        image: Image,
        mount: Mount,
        *,
        rate_hz: float,
        delay_s: float,
        colour: ColourImage | None = None,
        belt: Belt | None = None,
    ) -> None:
        self._colour = colour
        self._arm, self._image, self._mount = arm, image, mount
        self.period_ns, self.delay_ns = round(1e9 / rate_hz), round(delay_s * 1e9)
        self._next_ns, self._number = arm.now_ns(), 0
        self._exposures: deque[_Exposure] = deque(maxlen=_FRAMES_KEPT)
        self._rendered: Frame | None = None
        self.belt = belt or Belt()
        self.seen_from: NDArray[np.float64] | None = None
        """(4,) hand of the last frame read, relative to the objects, for those who know the truth."""

    @property
    def T_hand_camera(self) -> NDArray[np.float64]:
        return self._mount.T_hand_camera

    @property
    def intrinsics(self) -> Intrinsics:
        return self._mount.intrinsics

    @property
    def due_ns(self) -> int:
        """When the next exposure is."""
        return self._next_ns

    def expose(self) -> None:
        self._exposures.append(_Exposure(self._number, self._next_ns, self._arm.hand))
        self._next_ns += self.period_ns
        self._number += 1

    def _newest(self) -> _Exposure | None:
        ready = self._arm.now_ns() - self.delay_ns
        return next((e for e in reversed(self._exposures) if e.stamp_ns <= ready), None)

    def prepare(self) -> None:
        """Render what read_latest will hand out, so that the loop's own time is not charged for it."""
        newest = self._newest()
        if newest is None or (self._rendered and self._rendered.number == newest.number):
            return
        self.seen_from = self.belt.to_objects(newest.hand, newest.stamp_ns)
        depth = self._image(self.seen_from)
        colour = None if self._colour is None else self._colour(self.seen_from)
        self._rendered = Frame(
            newest.stamp_ns, newest.number, depth, self._mount.intrinsics, colour
        )

    def read_latest(self, max_age_s: float) -> Frame:
        self.prepare()
        if self._rendered is None:
            raise StaleFrameError(math.inf, max_age_s)
        age_s = (self._arm.now_ns() - self._rendered.stamp_ns) * 1e-9
        if age_s > max_age_s:
            raise StaleFrameError(age_s, max_age_s)
        return self._rendered


class TwinGripper:
    """Fingers without physics: they hold an object if they close within GRASPED_M of a true grasp, and stop
    at that grasp's width."""

    def __init__(
        self,
        arm: TwinArm,
        grasps: NDArray[np.float64],
        hand: Hand | None = None,
        tips: TipTravel | None = None,
        belt: Belt | None = None,
    ) -> None:
        """grasps: (G, 5) of x, y, z [m] of the tips as they hold, yaw [rad], width [m]."""
        self._belt = belt or Belt()
        self._tips = tips or TipTravel()
        self._arm, self._grasps, self._hand = arm, grasps, hand or load_hand()
        self._opening_m = self._hand.opening_m
        self._from_m = self._goal_m = self._opening_m
        self._began_ns = arm.now_ns()
        self._holding = False

    def __enter__(self) -> TwinGripper:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        self._start(self._opening_m, False)

    def close(self) -> None:
        hand = self._belt.to_objects(self._arm.hand, self._arm.now_ns())
        away = grasp_distance(to_view(self._grasps[:, :4], hand), np.zeros(3))
        best = int(away.argmin())
        # Below the top of the pads, or there is only air between them.
        tip_m = self._arm.hand[2] - self._tips(float(self._grasps[best, 4]))
        deep = tip_m < self._grasps[best, 2] + self._hand.pad_height_m
        found = bool(away[best] < GRASPED_M and deep)
        self._start(float(self._grasps[best, 4]) if found else 0.0, found)

    def _start(self, goal_m: float, holds: bool) -> None:
        self._from_m = self.state().width_m
        self._goal_m, self._began_ns, self._holding = goal_m, self._arm.now_ns(), holds

    def state(self) -> GripperState:
        way = self._goal_m - self._from_m
        gone = GRIPPER_M_S * (self._arm.now_ns() - self._began_ns) * 1e-9
        moving = gone < abs(way)
        width = self._from_m + math.copysign(gone, way) if moving else self._goal_m
        return GripperState(self._arm.now_ns(), width, moving, self._holding and not moving)


def build(
    depth: DepthImage,
    grasps: NDArray[np.floating],
    start: NDArray[np.floating],
    *,
    mount: str | Mount = "ideal",
    image: Image | None = None,
    colour: ColourImage | None = None,
    arm: ArmDynamics | None = None,
    hand: Hand | None = None,
    tips: TipTravel | None = None,
    camera_rate_hz: float = 60.0,
    camera_delay_s: float = 0.030,
    conveyor_m_s: tuple[float, float] = STILL,
    info: dict[str, Any] | None = None,
) -> Cell:
    """A twin over any world: what can be seen of it, and its grasps (G, 4) of x, y, z [m], yaw
    [rad], and in a fifth column their widths [m], if the gripper shall work.

    start: (4,) of x, y, z [m], yaw [rad]. mount: of the camera, or its name; image: what it gives, if
    not the exact `depth` from there; colour: its colour images, None for none. tips: travel of the
    fingertips, None for none. conveyor_m_s: velocity of all objects along x and y. Raises CameraError for a
    mount that is not known.
    """
    if isinstance(mount, str):
        if mount not in MOUNTS:
            raise CameraError(f"no mount {mount!r}; known are: {', '.join(MOUNTS)}")
        mount = MOUNTS[mount]
    T_hand_camera, rays = mount.T_hand_camera, mount.intrinsics.rays()

    def exact(hand: NDArray[np.float64]) -> NDArray[np.float32]:
        return depth(top_down(*hand) @ T_hand_camera, rays)

    robot = TwinArm(np.asarray(start, dtype=np.float64), arm)
    belt = Belt(conveyor_m_s)
    camera = TwinCamera(
        robot,
        image or exact,
        mount,
        rate_hz=camera_rate_hz,
        delay_s=camera_delay_s,
        colour=colour,
        belt=belt,
    )
    wide = np.asarray(grasps, dtype=np.float64)
    targets = wide[:, :4]
    gripper = TwinGripper(robot, wide, hand, tips, belt) if wide.shape[1] > 4 else None

    def advance(period_ns: int) -> None:
        end = robot.now_ns() + period_ns
        while robot.now_ns() < end:
            if robot.now_ns() == camera.due_ns:
                camera.expose()
            robot.substep(min(_SUBSTEP_NS, end - robot.now_ns(), camera.due_ns - robot.now_ns()))
        camera.prepare()

    def true_distance_m() -> float:
        hand = belt.to_objects(robot.hand, robot.now_ns())
        return float(grasp_distance(to_view(targets, hand), np.zeros(3)).min())

    return Cell(
        robot,
        camera,
        "twin",
        dict(info or {}),
        advance,
        true_distance_m,
        gripper,
        simulated=True,
        setup=None if tips is None else RunSetup(tips=tips),
    )


def open_cell(
    *,
    seed: int = 0,
    scene: int = 0,
    mount: Literal["ideal", "wrist"] = "ideal",
    sensor: str = IDEAL,
    hand: str = "robotiq_2f85",
    camera_rate_hz: float = 60.0,
    camera_delay_s: float = 0.030,
    colour: bool = False,
    conveyor_m_s: tuple[float, float] = STILL,
) -> Cell:
    """The twin over scene number `scene` of test objects; the hand starts above one of them, at the
    height and anywhere in the region that the network's training views come from.

    sensor: a name of sim.scene.sensor. A real one needs a mount (`wrist`), sees the hand's fingers, and gives
    the part of its image that the view can need, at the resolution of training. hand: whose grasps are
    the truth, a name or a file (rt.hand). conveyor_m_s: velocity of all objects along x and y of the world.
    colour: frames have a colour image too, each object in a colour of its own (sim.scene.render.COLOURS).
    Raises CameraError or HandError.
    """
    from sim.scene.grasps import numbered_scene
    from sim.scene.objects import object_set
    from sim.scene.render import Renderer
    from sim.scene.rig import RigView, make_rig
    from sim.scene.scene import camera_poses
    from sim.scene.sensor import sensor as preset

    if sensor != IDEAL and mount == "ideal":
        raise CameraError(
            f"sensor {sensor!r} cannot sit in the hand's own place; use mount 'wrist'"
        )
    try:
        kind = preset(sensor)
    except SensorError as error:
        raise CameraError(str(error)) from error
    described = load_hand(hand)
    world, grasps, rng = numbered_scene(object_set("test"), seed, "test", scene, described)
    start = camera_poses(world, 1, rng)[0]
    start[2] = START_HEIGHT_M
    info = {
        "seed": seed,
        "scene": scene,
        "mount": mount,
        "sensor": sensor,
        "objects": [thing.name for thing in world.placed],
        "grasps": len(grasps),
        "camera_rate_hz": camera_rate_hz,
        "camera_delay_s": camera_delay_s,
        "conveyor_m_s": list(conveyor_m_s),
    }
    renderer = Renderer(world)
    camera = MOUNTS[mount]
    image: Image | None = None
    if sensor != IDEAL:
        rig = make_rig(kind, camera.T_hand_camera)
        camera = Mount(rig.intrinsics, rig.T_hand_camera)
        image = partial(RigView(renderer, rig, described).image, rng=rng)
    rays = camera.intrinsics.rays()

    def painted(at: NDArray[np.float64]) -> NDArray[np.uint8]:
        return renderer.colour(top_down(*at) @ camera.T_hand_camera, rays)

    return build(
        renderer.depth,
        grasps.poses,
        start,
        mount=camera,
        image=image,
        hand=described,
        tips=load_tip_travel(hand),
        camera_rate_hz=camera_rate_hz,
        camera_delay_s=camera_delay_s,
        colour=painted if colour else None,
        conveyor_m_s=conveyor_m_s,
        info=info,
    )
