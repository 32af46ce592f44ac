"""Piles: objects poured into a bin in MuJoCo, where they come to rest on each other and against the walls.

Each object falls as its convex hull: nothing lies in a cup or hooks into a handle, and no two objects meet.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from sim.physics.convex import PhysicsError
from sim.physics.model import DEFAULT_DENSITY_KG_M3, NO_RUBBER, mujoco, quaternion
from sim.scene.bin import OpenBin
from sim.scene.objects import Object

TIME_STEP_S = 0.002
POUR_M_S2 = 2.0
"""Gravity while objects fall: slow enough that none passes through another or the table in a step."""
LONGEST_S = 6.0
"""Simulated time after which objects that still move are left where they are."""
_STILL, _STILL_S = 0.02, 0.1
"""Speed [m/s, rad/s] of an object at rest, and for how long."""
_FUNNEL_M = 3.0
"""Height of the walls while objects fall: none misses the bin."""


def pour(things: list[tuple[Object, NDArray[np.float64]]], around: OpenBin) -> NDArray[np.float64]:
    """Let objects fall from their poses T_world_object (4, 4) into a bin; returns those at rest (K, 4, 4).

    An object that hangs over the rim may fall out of the bin. The same arguments give the same result on the
    same kind of processor. Raises PhysicsError if MuJoCo refuses an object.
    """
    model = _model(things, around)
    data = mujoco.MjData(model)
    mujoco.set_mju_user_warning(lambda _: None)  # else it writes a file where the user is
    funnel = model.geom_group == 1
    model.opt.gravity[:] = 0.0, 0.0, -POUR_M_S2
    _run(model, data, LONGEST_S / 2)
    model.geom_contype[funnel] = model.geom_conaffinity[funnel] = 0
    model.opt.gravity[:] = 0.0, 0.0, -9.81
    _run(model, data, LONGEST_S / 2)
    result = np.tile(np.eye(4), (len(things), 1, 1))
    for k in range(len(things)):
        body = data.body(f"object{k}")
        result[k, :3, :3], result[k, :3, 3] = body.xmat.reshape(3, 3), body.xpos
    return result


def _run(model: Any, data: Any, longest_s: float) -> None:
    still_s = 0.0
    for _ in range(round(longest_s / TIME_STEP_S)):
        mujoco.mj_step(model, data)
        still_s = still_s + TIME_STEP_S if np.abs(data.qvel).max() < _STILL else 0.0
        if still_s >= _STILL_S:
            return


def _model(things: list[tuple[Object, NDArray[np.float64]]], around: OpenBin) -> Any:
    spec = mujoco.MjSpec()
    spec.option.timestep = TIME_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(type=plane, size=[2, 2, 0.1], friction=NO_RUBBER)
    half = around.yaw_rad / 2
    turned = [math.cos(half), 0, 0, math.sin(half)]
    for middle, sides in around.walls():
        for group, low, high in ((0, 0.0, around.height_m), (1, around.height_m, _FUNNEL_M)):
            spec.worldbody.add_geom(
                type=box,
                pos=[middle[0], middle[1], (low + high) / 2],
                quat=turned,
                size=[sides[0] / 2, sides[1] / 2, (high - low) / 2],
                friction=NO_RUBBER,
                group=group,
            )
    for k, (thing, T) in enumerate(things):
        body = spec.worldbody.add_body(name=f"object{k}", pos=T[:3, 3], quat=quaternion(T[:3, :3]))
        body.add_freejoint()
        spec.add_mesh(
            name=f"hull{k}",
            uservert=_hull(thing).ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX,
        )
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=f"hull{k}",
            density=DEFAULT_DENSITY_KG_M3,
            friction=NO_RUBBER,
        )
    try:
        return spec.compile()
    except ValueError as error:
        raise PhysicsError(f"MuJoCo refuses the pile: {error}") from error


@lru_cache(maxsize=2000)
def _hull(thing: Object) -> NDArray[np.float64]:
    """Corners (N, 3) of the convex hull."""
    points = thing.vertices.astype(np.float64)
    return np.asarray(points[ConvexHull(points).vertices])
