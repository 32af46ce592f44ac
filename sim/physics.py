"""Lifts: close the hand on a scene in MuJoCo, lift, and see whether an object is held.

The hand (rt/hand.py) is a palm and two fingers of boxes, whose lower `pad_height_m` are rubber. It comes
straight down fully open, closes with a limited force, rises by LIFT_M and waits.

Choices, where several were possible:
- Fingers: each has an actuator of its own with the grip force as its limit, and an equality constraint
  keeps them symmetric, as the gears of a parallel jaw do. Without it the place where a held object comes to
  rest would be left to chance: equal forces balance anywhere along the closing axis.
- Objects lie asleep in the scene's pose until something touches them. So those that lean (as if half
  supported, sim/scene.py) are met in the pose that the labels and views show, and fall only once pushed.
- Mass is density times the mesh's volume (its inertia too), by category: DENSITY_KG_M3. Contacts come
  from convex parts (sim/convex.py).
- Pads and table have Coulomb friction with elliptic cones; pads also resist turning about their normal,
  as a rubber patch does.
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from rt.hand import Hand, load_hand
from sim.convex import PhysicsError as PhysicsError
from sim.convex import convex_parts
from sim.grasps import FRICTION
from sim.render import Renderer
from sim.scene import Scene

try:
    import mujoco
except ImportError as error:
    raise ImportError(
        f"lifts need the extra `physics` (pip install 'grasp-servo[physics]'): {error}"
    ) from error

LIFT_M = 0.15
HOLD_S = 0.5
FORCE_N = 40.0
"""Grip force of each finger. A 2F-85 gives 20 to 235 N; this holds 4 kg at friction 0.5."""
TIME_STEP_S = 0.002

DENSITY_KG_M3 = {"mug": 2400.0, "hammer": 2000.0, "screwdriver": 1500.0}
"""Ceramic walls; steel and wood; steel and plastic. By the volume of the mesh."""
DEFAULT_DENSITY_KG_M3 = 500.0
"""Of everything else: filled shapes that stand for packages, fruit, toys and hollow cases."""
MASS_RANGE_KG = (0.01, 1.0)
"""Masses are kept within this."""

TABLE_FRICTION = 0.4
"""Of the table, and of everything on the hand that is not its pads: no rubber."""
TORSION_M = 0.004
"""Radius of a pad's contact patch as it resists turning: two thirds of the friction at 6 mm."""
PUSH_N = 30.0
"""The arm gives up on a descent that meets more than this: what arms use to sense a collision."""
APPROACH_M_S, CLOSE_M_S, LIFT_M_S = 0.25, 0.075, 0.25
"""Mean speeds of the hand, and the speed of each finger (2F-85: up to 75 mm/s)."""

_CLEARANCE_M = 0.01
"""The descent begins with the fingertips this far above everything."""
_HAND_KG, _FINGER_KG, _GEAR_KG = 1.0, 0.1, 1.0
"""Of palm, each finger, and each finger's drive as felt at the finger."""
_PALM_HEIGHT_M = 0.03
_ARM_N_M, _FINGER_N_M = 1e5, 1e4
"""Stiffness of the arm and of a finger's drive."""
_ACCELERATION_M_S2 = 3.0
"""Of the arm, at most: with the hand's mass a tenth of PUSH_N."""
_ABOVE_M = 1.0
"""Where the hand waits while the model is made, so that it touches nothing."""


@dataclass(frozen=True)
class Lift:
    """How a lift ended."""

    success: bool
    """An object is between the fingers, clear of the table, and at rest there."""
    reason: str
    """"held", or why not: "collided" (met something on the way down), "missed" (closed on nothing, or on
    one side only), "slipped" (touched by both fingers, lost on the way up), "dragged" (between the fingers
    but still on the table), "unstable" (the simulation diverged)."""
    object: int | None
    """Index into scene.placed of the object held; None if none is."""
    height_m: float
    """Rise of that object's centre of mass at the end; of the highest risen one if none is held."""
    seconds: float
    """Simulated time."""


def lift(
    scene: Scene,
    pose: tuple[float, float, float, float] | NDArray[np.floating],
    hand: Hand | None = None,
    *,
    friction: float = FRICTION,
    force_N: float = FORCE_N,
    time_step_s: float = TIME_STEP_S,
) -> Lift:
    """Come straight down to a pose, close, lift by LIFT_M, hold for HOLD_S.

    pose: (x, y, z, yaw) of the open fingertips in the world [m, rad]; see approach_height for z. friction
    is that of the pads. The same arguments give the same result. Raises PhysicsError on a pose that is
    not finite, a friction or time step out of range, or a force beyond the hand's.
    """
    hand = hand or load_hand()
    x, y, z, yaw = (float(v) for v in pose)
    if not all(map(math.isfinite, (x, y, z, yaw))):
        raise PhysicsError(f"pose {(x, y, z, yaw)} is not finite")
    if not 0 <= friction <= 5:
        raise PhysicsError(f"friction {friction} must be between 0 and 5")
    if not 0 < force_N <= hand.max_force_N:
        raise PhysicsError(
            f"grip force {force_N} N must be above 0 and at most the hand's {hand.max_force_N:g} N"
        )
    if not 1e-4 <= time_step_s <= 0.004:
        raise PhysicsError(f"time step {time_step_s} s must be between 0.0001 and 0.004 s")
    trial = _Trial(_model(scene, hand, friction, force_N, time_step_s), scene, hand)
    return trial.run(x, y, z, yaw)


def approach_height(
    scene: Scene, renderer: Renderer, x: float, y: float, yaw: float, hand: Hand | None = None
) -> float:
    """Fingertip height z [m] at which a hand above (x, y, yaw) [m, rad] should close.

    The pads go where both fingers would touch first when they closed: that is where the object is widest,
    as on a ball's equator. Where it is as wide over more than the pads' height the hand goes as deep as
    that allows, and never deeper than fingers and palm are free of the scene on the way down. With
    nothing between the fingers it is that depth.
    """
    hand = hand or load_hand()
    c, s = math.cos(yaw), math.sin(yaw)
    to_world = np.array([[c, s], [s, -c]], np.float32)

    def highest(x_centre: float, x_size: float, y_size: float) -> float:
        u = np.linspace(-x_size / 2, x_size / 2, round(x_size / 0.002) + 1) + x_centre
        w = np.linspace(-y_size / 2, y_size / 2, round(y_size / 0.002) + 1)
        flat = np.stack(np.meshgrid(u, w), axis=-1).reshape(-1, 2).astype(np.float32)
        top = np.float32(scene.vertices[:, 2].max() + 0.01)
        origins = np.column_stack([flat @ to_world.T + (x, y), np.full(len(flat), top)])
        down = np.tile(np.array([0, 0, -1], np.float32), (len(flat), 1))
        t, _ = renderer.cast(origins.astype(np.float32), down)
        return max(0.0, float(top - t.min()))

    offset = (hand.opening_m + hand.finger_thickness_m) / 2
    under = max(highest(k * offset, hand.finger_thickness_m, hand.finger_width_m) for k in (-1, 1))
    palm = highest(0.0, hand.palm_length_m, hand.palm_width_m)
    lowest = max(under + _FREE_M, palm + _FREE_M - hand.finger_length_m, _TABLE_GAP_M)

    heights = np.arange(0.001, hand.finger_length_m, 0.001, dtype=np.float32)
    w = np.linspace(-0.5, 0.5, 5, dtype=np.float32) * np.float32(hand.finger_width_m)
    h, w = (g.ravel() for g in np.meshgrid(heights, w, indexing="ij"))
    near = []
    for side in (-1, 1):
        flat = np.column_stack([np.full(len(w), side * hand.opening_m / 2, np.float32), w])
        origins = np.column_stack([flat @ to_world.T + (x, y), lowest + h]).astype(np.float32)
        along = np.array([-side * c, -side * s, 0], np.float32)
        t, _ = renderer.cast(origins, np.tile(along, (len(w), 1)))
        t[t > hand.opening_m] = np.inf
        reach = t.reshape(len(heights), -1).min(axis=1)
        near.append(reach <= reach.min() + _COMPLIANCE_M if np.isfinite(reach).any() else None)
    if near[0] is None or near[1] is None:
        return float(lowest)
    both = near[0] & near[1]
    band = heights[both if both.any() else near[0] | near[1]]
    middle = float(band.min() + min(float(np.ptp(band)), hand.pad_height_m) / 2)
    return float(lowest + max(0.0, middle - hand.pad_height_m / 2))


_FREE_M, _TABLE_GAP_M, _COMPLIANCE_M = 0.002, 0.003, 0.001
"""As for true grasps (sim/grasps.py): free space on the way down, lowest fingertips, the pads' give."""


_models: OrderedDict[tuple[Any, ...], tuple[weakref.ref[Scene], Any]] = OrderedDict()
_MODELS_KEPT = 4


def _model(scene: Scene, hand: Hand, friction: float, force_N: float, time_step_s: float) -> Any:
    """The scene's model, made once for a run of lifts."""
    key = (id(scene), hand, friction, force_N, time_step_s)
    if key in _models and _models[key][0]() is scene:
        _models.move_to_end(key)
        return _models[key][1]
    model = _build(scene, hand, friction, force_N, time_step_s)
    _models[key] = (weakref.ref(scene), model)
    while len(_models) > _MODELS_KEPT:
        _models.popitem(last=False)
    return model


def _build(scene: Scene, hand: Hand, friction: float, force_N: float, time_step_s: float) -> Any:
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep = time_step_s
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 20  # stiff friction: a held object must not creep
    option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1, 1, 0.1],
        friction=[TABLE_FRICTION, 0.001, 1e-4],
        solref=[0.01, 1],
    )
    for k, placed in enumerate(scene.placed):
        _add_object(spec, k, placed, *_mesh(scene, k))
    _add_hand(spec, hand, friction, force_N)
    try:
        return spec.compile()
    except ValueError as error:
        raise PhysicsError(f"MuJoCo refuses the scene: {error}") from error


def _mesh(scene: Scene, k: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Object k's vertices in its own frame and its faces."""
    faces = scene.faces[scene.face_object == k]
    used, faces = np.unique(faces, return_inverse=True)
    T = scene.placed[k].T_world_object
    return (scene.vertices[used] - T[:3, 3]) @ T[:3, :3], faces.reshape(-1, 3).astype(np.int32)


def _add_object(
    spec: Any, k: int, placed: Any, vertices: NDArray[np.float64], faces: NDArray[np.int32]
) -> None:
    solid = trimesh.triangles.mass_properties(vertices[faces], skip_inertia=False)
    density = DENSITY_KG_M3.get(placed.category, DEFAULT_DENSITY_KG_M3)
    mass = float(np.clip(density * solid.volume, *MASS_RANGE_KG))
    inertia = np.asarray(solid.inertia) * mass / solid.volume
    body = spec.worldbody.add_body(
        name=f"object{k}",
        pos=placed.T_world_object[:3, 3],
        quat=_quaternion(placed.T_world_object[:3, :3]),
        mass=mass,
        ipos=solid.center_mass,
        fullinertia=[*np.diag(inertia), inertia[0, 1], inertia[0, 2], inertia[1, 2]],
        explicitinertial=True,
        sleep=mujoco.mjtSleepPolicy.mjSLEEP_INIT,
    )
    body.add_freejoint()
    for i, points in enumerate(convex_parts(vertices, faces, placed.name)):
        name = f"object{k}.{i}"
        spec.add_mesh(
            name=name, uservert=points.ravel(), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        )
        body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            mass=0,
            friction=[TABLE_FRICTION, 0.001, 1e-4],
            solref=[0.01, 1],
        )


def _add_hand(spec: Any, hand: Hand, friction: float, force_N: float) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    palm = spec.worldbody.add_body(name="hand", pos=[0, 0, _ABOVE_M], gravcomp=1)
    palm.add_joint(name="z", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1])
    palm.add_geom(
        name="palm",
        type=box,
        pos=[0, 0, hand.finger_length_m + _PALM_HEIGHT_M / 2],
        size=[hand.palm_length_m / 2, hand.palm_width_m / 2, _PALM_HEIGHT_M / 2],
        mass=_HAND_KG,
        friction=[TABLE_FRICTION, 0.001, 1e-4],
        solref=[0.01, 1],
    )
    pad = min(hand.pad_height_m, hand.finger_length_m)
    for name, side in (("left", -1), ("right", 1)):
        finger = palm.add_body(
            name=name, pos=[side * (hand.opening_m + hand.finger_thickness_m) / 2, 0, 0], gravcomp=1
        )
        finger.add_joint(
            name=name,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[-side, 0, 0],
            armature=_GEAR_KG,
            range=[-0.001, hand.opening_m / 2],
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        )
        for part, low, high in (("pad", 0.0, pad), ("finger", pad, hand.finger_length_m)):
            if high <= low:
                continue
            geom = finger.add_geom(
                name=f"{name}.{part}",
                type=box,
                pos=[0, 0, (low + high) / 2],
                size=[hand.finger_thickness_m / 2, hand.finger_width_m / 2, (high - low) / 2],
                mass=_FINGER_KG / 2,
                friction=[TABLE_FRICTION, 0.001, 1e-4],
                solref=[0.01, 1],
            )
            if part == "pad":
                # The pads' values hold whatever they touch.
                geom.priority = 1
                geom.condim = 4
                geom.friction = [friction, friction * TORSION_M, 1e-4]
        _add_servo(spec, name, _FINGER_N_M, _FINGER_KG + _GEAR_KG, force_N)
    _add_servo(spec, "z", _ARM_N_M, _HAND_KG + 2 * _FINGER_KG, None)
    gears = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT,
        name1="left",
        name2="right",
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        solref=[0.008, 1],
    )
    gears.data[:5] = [0, 1, 0, 0, 0]  # left = 0 + 1 * right
    # The fingers slide inside the palm and, empty, meet in the middle: neither is a collision.
    spec.add_exclude(bodyname1="left", bodyname2="right")


def _add_servo(spec: Any, joint: str, stiffness: float, mass: float, force: float | None) -> None:
    """A critically damped position servo on a joint."""
    actuator = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
    )
    actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    actuator.gainprm[0] = stiffness
    actuator.biasprm[1:3] = [-stiffness, -2 * math.sqrt(stiffness * mass)]
    if force is not None:
        actuator.forcerange = [-force, force]
        actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE


def _quaternion(R: NDArray[np.float64]) -> NDArray[np.float64]:
    """(w, x, y, z) of a rotation."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(R, np.float64).ravel())
    return quat


class _Diverged(Exception):
    """MuJoCo met a position, velocity or acceleration that is not finite, or huge."""


_DIVERGED = [
    int(w)
    for w in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
]


class _Trial:
    """One lift in progress."""

    def __init__(self, model: Any, scene: Scene, hand: Hand) -> None:
        self.model, self.data, self.hand = model, mujoco.MjData(model), hand
        self.count = len(scene.placed)
        self.top = float(scene.vertices[:, 2].max())
        names = [model.body(b).name for b in range(model.nbody)]
        self.bodies = np.array([names.index(f"object{k}") for k in range(self.count)])
        body_of = model.geom_bodyid
        self.finger = np.array([{"left": 1, "right": 2}.get(names[b], 0) for b in body_of])
        self.object = np.full(model.ngeom, -1)
        for k, b in enumerate(self.bodies):
            self.object[body_of == b] = k
        self.table = np.array([model.geom(g).name == "table" for g in range(model.ngeom)])

    def run(self, x: float, y: float, z: float, yaw: float) -> Lift:
        model, data = self.model, self.data
        model.body("hand").pos = (x, y, _ABOVE_M)
        model.body("hand").quat = (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))
        mujoco.mj_resetData(model, data)
        self.arm, self.fingers = (
            model.actuator("z").id,
            [model.actuator(n).id for n in ("left", "right")],
        )
        self.level = max(z, self.top + _CLEARANCE_M)
        data.joint("z").qpos = self.level - _ABOVE_M
        data.ctrl[self.arm] = self.level - _ABOVE_M
        mujoco.mj_forward(model, data)
        self.start = data.xipos[self.bodies, 2].copy()

        kept = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda _: None)  # else it writes a file where the user is
        try:
            return self._attempt(z)
        except _Diverged:
            return Lift(False, "unstable", None, 0.0, float(data.time))
        finally:
            mujoco.set_mju_user_warning(kept)

    def _attempt(self, z: float) -> Lift:
        if not self._move(z, APPROACH_M_S, PUSH_N):
            return self._end("collided", None)
        self._close()
        if not self._between().any():
            return self._end("missed", None)
        self._move(z + LIFT_M, LIFT_M_S, math.inf)
        self._wait(HOLD_S)
        held = np.flatnonzero(self._between())
        if not len(held):
            return self._end("slipped", None)
        clear = [k for k in held if not self._on_table(k)]
        return self._end("held", int(clear[0])) if clear else self._end("dragged", None)

    def _end(self, reason: str, held: int | None) -> Lift:
        rise = self.data.xipos[self.bodies, 2] - self.start
        height = float(rise[held] if held is not None else rise.max())
        return Lift(reason == "held", reason, held, height, float(self.data.time))

    def _move(self, level: float, speed: float, limit_N: float) -> bool:
        """Bring the fingertips to a level; False as soon as the arm pushes with more than the limit."""
        begun, way = self.data.time, level - self.level
        # Minimum jerk: its greatest acceleration is 5.8 way / seconds^2.
        seconds = max(abs(way) / speed, math.sqrt(5.8 * abs(way) / _ACCELERATION_M_S2))
        while (elapsed := self.data.time - begun) < seconds + 0.05:
            t = min(1.0, elapsed / seconds) if seconds else 1.0
            self.data.ctrl[self.arm] = (
                self.level + way * t**3 * (10 - 15 * t + 6 * t * t) - _ABOVE_M
            )
            self._step()
            if abs(self.data.actuator_force[self.arm]) > limit_N:
                return False
        self.level = level
        return True

    def _close(self) -> None:
        """Close until the fingers stand still with their full force, or have met."""
        begun, still = self.data.time, 0.0
        travel = self.hand.opening_m / 2
        most = travel / CLOSE_M_S + 0.2
        while (elapsed := self.data.time - begun) < most and still < 0.05:
            # Past the middle, so that the force is full on the thinnest wall.
            goal = min(elapsed * CLOSE_M_S, travel + 0.02)
            self.data.ctrl[self.fingers] = goal
            self._step()
            speed = abs(float(self.data.joint("left").qvel[0]))
            pressing = self.data.actuator_force[self.fingers].sum() > 0.99 * 2 * float(
                self.model.actuator_forcerange[self.fingers[0], 1]
            )
            still = still + self.model.opt.timestep if pressing and speed < 1e-3 else 0.0
        self.data.ctrl[self.fingers] = travel + 0.02

    def _step(self) -> None:
        mujoco.mj_step(self.model, self.data)
        if self.data.warning.number[_DIVERGED].any():
            raise _Diverged

    def _wait(self, seconds: float) -> None:
        end = self.data.time + seconds
        while self.data.time < end:
            self._step()

    def _between(self) -> NDArray[np.bool_]:
        """Which objects both fingers touch, (K,)."""
        a, b = self.data.contact.geom.reshape(-1, 2).T
        a, b = np.concatenate([a, b]), np.concatenate([b, a])
        touched = np.zeros((3, self.count), bool)
        some = self.object[b] >= 0
        touched[self.finger[a[some]], self.object[b[some]]] = True
        return np.asarray(touched[1] & touched[2])

    def _on_table(self, k: np.integer) -> bool:
        a, b = self.data.contact.geom.reshape(-1, 2).T
        return bool(
            (self.table[a] & (self.object[b] == k)).any()
            or (self.table[b] & (self.object[a] == k)).any()
        )
