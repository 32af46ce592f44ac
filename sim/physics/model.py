"""The MuJoCo model of a scene and a hand, for lifts (sim/physics/lift.py): masses, contacts, drives.

- The hand (rt/hand.py) is a palm and two fingers of boxes, whose lower `pad_height_m` are rubber. Each
  finger has a drive of its own with the grip force as its limit, and an equality constraint keeps the two
  symmetric, as the gears of a parallel jaw do. Without it the place where a held object comes to rest
  would be left to chance: equal forces balance anywhere along the closing axis.
- Mass is density times the mesh's volume, and so is its inertia. Contacts come from convex parts
  (sim/physics/convex.py).
- Friction is Coulomb's, with elliptic cones; pads also resist turning about their normal, as a patch of
  rubber does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from rt.hand import Hand, TipTravel
from sim.physics.convex import PhysicsError, convex_parts
from sim.scene.scene import Placed, Scene

try:
    import mujoco as mujoco
except ImportError as error:
    raise ImportError(
        f"lifts need the extra `physics` (pip install 'grasp-servo[physics]'): {error}"
    ) from error

DENSITY_KG_M3 = {"mug": 2400.0, "hammer": 2000.0, "screwdriver": 1500.0}
"""Ceramic walls; steel and wood; steel and plastic. By the volume of the mesh."""
DEFAULT_DENSITY_KG_M3 = 500.0
"""Density of everything else: filled shapes that stand for packages, fruit, toys and hollow cases."""
MASS_RANGE_KG = (0.01, 1.0)
"""Masses are kept within this."""

TABLE_FRICTION = 0.4
"""Friction of the table, and of everything on the hand but its pads: no rubber."""
TORSION_M = 0.004
"""Radius of a pad's contact patch as it resists turning: two thirds of the friction at 6 mm."""
_HAND_KG, _FINGER_KG, _GEAR_KG = 1.0, 0.1, 1.0
"""Masses of the palm, of each finger, and of each finger's drive as felt at the finger."""
_PALM_HEIGHT_M = 0.03
_ARM_N_M, _FINGER_N_M = 1e5, 1e4
"""Stiffness of the arm and of a finger's drive."""
_ARM_NM_RAD, _HAND_KG_M2 = 500.0, 0.005
"""Stiffness of the arm's turn about the vertical, and the inertia that its damping is made for."""
Wall = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Centre and size [m] of a box."""

ABOVE_M = 1.0
"""Height of the hand in the model as made, so that it touches nothing."""
_SOLREF = (0.01, 1.0)
"""Time constant [s] and damping ratio of contacts: at least two of the longest time steps."""
NO_RUBBER = (TABLE_FRICTION, 0.001, 1e-4)


def build_model(
    scene: Scene,
    hand: Hand,
    friction: float,
    force_N: float,
    time_step_s: float,
    axes: tuple[str, ...] = ("z",),
    walls: tuple[Wall, ...] = (),
    tips: TipTravel | None = None,
) -> Any:
    """The compiled model (mujoco.MjModel) of a scene with the hand ABOVE_M over the table's origin.

    Bodies: "hand", "left", "right" and "object<k>" for scene.placed[k], asleep in its pose; a geom
    "table" and the walls of the scene's bin, if it has one; an actuator for each of the hand's axes, of "x",
    "y", "z" [m] (fingertip height less ABOVE_M) and "yaw" [rad], and "left", "right" (each finger's travel).
    walls: (centre (3,), size (3,)) [m] of boxes that stand fast. tips: the fingers then also slide along z as
    they close, each coupled to its own travel.
    """
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
        friction=NO_RUBBER,
        solref=_SOLREF,
    )
    if scene.bin is not None:
        for middle, sides in scene.bin.walls():
            yaw = scene.bin.yaw_rad
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=middle,
                quat=[math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)],
                size=sides / 2,
                friction=NO_RUBBER,
                solref=_SOLREF,
            )
    for centre, size in walls:
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=list(centre),
            size=[v / 2 for v in size],
            friction=NO_RUBBER,
            solref=_SOLREF,
        )
    for k, placed in enumerate(scene.placed):
        _add_object(spec, k, placed, *object_mesh(scene, k))
    _add_hand(spec, hand, friction, force_N, axes)
    if tips is not None and tips.moves:
        _add_travel(spec, hand, tips)
    try:
        return spec.compile()
    except ValueError as error:
        raise PhysicsError(f"MuJoCo refuses the scene: {error}") from error


def object_mesh(scene: Scene, k: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Object k's vertices in its own frame and its faces."""
    faces = scene.faces[scene.face_object == k]
    used, faces = np.unique(faces, return_inverse=True)
    T = scene.placed[k].T_world_object
    return (scene.vertices[used] - T[:3, 3]) @ T[:3, :3], faces.reshape(-1, 3).astype(np.int32)


def _add_object(
    spec: Any, k: int, placed: Placed, vertices: NDArray[np.float64], faces: NDArray[np.int32]
) -> None:
    solid = trimesh.triangles.mass_properties(vertices[faces], skip_inertia=False)
    density = DENSITY_KG_M3.get(placed.category, DEFAULT_DENSITY_KG_M3)
    mass = float(np.clip(density * solid.volume, *MASS_RANGE_KG))
    inertia = np.asarray(solid.inertia) * mass / solid.volume
    body = spec.worldbody.add_body(
        name=f"object{k}",
        pos=placed.T_world_object[:3, 3],
        quat=quaternion(placed.T_world_object[:3, :3]),
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
            friction=NO_RUBBER,
            solref=_SOLREF,
        )


def _add_hand(
    spec: Any, hand: Hand, friction: float, force_N: float, axes: tuple[str, ...]
) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    palm = spec.worldbody.add_body(name="hand", pos=[0, 0, ABOVE_M], gravcomp=1)
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    directions = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1], "yaw": [0, 0, 1]}
    for name in axes:
        palm.add_joint(name=name, type=hinge if name == "yaw" else slide, axis=directions[name])
    palm.add_geom(
        name="palm",
        type=box,
        pos=[0, 0, hand.finger_length_m + _PALM_HEIGHT_M / 2],
        size=[hand.palm_length_m / 2, hand.palm_width_m / 2, _PALM_HEIGHT_M / 2],
        mass=_HAND_KG,
        friction=NO_RUBBER,
        solref=_SOLREF,
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
                friction=NO_RUBBER,
                solref=_SOLREF,
            )
            if part == "pad":
                # The pads' values hold whatever they touch.
                geom.priority = 1
                geom.condim = 4
                geom.friction = [friction, friction * TORSION_M, 1e-4]
        _add_servo(spec, name, _FINGER_N_M, _FINGER_KG + _GEAR_KG, force_N)
    for name in axes:
        if name == "yaw":
            _add_servo(spec, name, _ARM_NM_RAD, _HAND_KG_M2, None)
        else:
            _add_servo(spec, name, _ARM_N_M, _HAND_KG + 2 * _FINGER_KG, None)
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


def _add_travel(spec: Any, hand: Hand, tips: TipTravel) -> None:
    """Joints "left.z", "right.z" along -z, coupled to the closing ones by a quartic through the tips' travel
    (within 0.2 mm of a 2F-85's)."""
    closing = np.linspace(0.0, hand.opening_m / 2, 60)
    travel = np.array([tips(hand.opening_m - 2 * x) for x in closing])
    powers = closing[:, None] ** np.arange(1, 5)
    quartic = np.linalg.lstsq(powers, travel, rcond=None)[0]
    for name in ("left", "right"):
        spec.body(name).add_joint(
            name=f"{name}.z", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -1], armature=_GEAR_KG
        )
        linkage = spec.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT,
            name1=f"{name}.z",
            name2=name,
            objtype=mujoco.mjtObj.mjOBJ_JOINT,
            solref=[0.008, 1],
        )
        linkage.data[:5] = [0.0, *quartic]


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


def quaternion(R: NDArray[np.float64]) -> NDArray[np.float64]:
    """(w, x, y, z) of a rotation."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(R, np.float64).ravel())
    return quat
