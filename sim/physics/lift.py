"""Lifts: close the hand on a scene in MuJoCo, lift, and see whether an object is held.

The hand comes straight down fully open, closes with a limited force, rises by LIFT_M and waits
(sim/physics/model.py says what it and the objects are made of).

Objects lie asleep in the scene's pose until something touches them. So those that lean, as if half
supported (sim/scene/scene.py), are met in the pose that the labels and views show, and fall only once pushed.
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand, TipTravel, load_hand
from sim.physics.approach import approach_height as approach_height
from sim.physics.convex import PhysicsError as PhysicsError
from sim.physics.model import ABOVE_M, build_model, mujoco
from sim.scene.grasps import FRICTION
from sim.scene.scene import Scene

LIFT_M = 0.15
HOLD_S = 0.5
FORCE_N = 40.0
"""Grip force of each finger. A 2F-85 gives 20 to 235 N; this holds 4 kg at friction 0.5."""
TIME_STEP_S = 0.002
SETTLE_S = 1.5
"""Longest wait until objects lie still after a failed grasp."""
_STILL = 0.02
"""Speed [m/s, rad/s] of an object that lies still."""

PUSH_N = 30.0
"""The arm gives up on a descent that meets more than this: what arms use to sense a collision."""
APPROACH_M_S, CLOSE_M_S, LIFT_M_S = 0.25, 0.075, 0.25
"""Mean speeds of the hand, and the speed of each finger (2F-85: up to 75 mm/s)."""

_AWAY_M = 20.0
"""Place of what is taken out of a scene: beyond all objects."""
_MOVED_M = 1e-4
"""Change of a pose from which an object counts as touched."""
_CLEARANCE_M = 0.01
"""The descent begins with the fingertips this far above everything."""
_ACCELERATION_M_S2 = 3.0
"""Largest acceleration of the arm: with the hand's mass a tenth of PUSH_N."""


@dataclass(frozen=True)
class Lift:
    """Result of a lift."""

    success: bool
    """After HOLD_S up there an object is between the fingers, touched by both, and clear of the table."""
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
    objects: tuple[int, ...]
    """All objects held, where two came up together."""
    T_world_object: NDArray[np.float64]
    """(K, 4, 4) of every object at the end: in the air if held; with `settle` the others at rest again."""


def lift(
    scene: Scene,
    pose: tuple[float, float, float, float] | NDArray[np.floating],
    hand: Hand | None = None,
    *,
    friction: float = FRICTION,
    force_N: float = FORCE_N,
    time_step_s: float = TIME_STEP_S,
    settle: bool = False,
    tips: TipTravel | None = None,
    width_m: float = 0.0,
) -> Lift:
    """Come straight down to a pose, close, lift by LIFT_M, hold for HOLD_S.

    pose: (x, y, z, yaw) of the open fingertips in the world [m, rad]; see approach_height for z. friction
    is that of the pads. tips: fingers whose tips travel along z as they close; z is then of the tips as they
    hold something width_m wide, and the open hand stands higher by their travel. With settle the hand goes
    away, with all that it holds, and the rest (such as an object that lay on another) falls and comes to
    rest, in SETTLE_S at most. The same arguments give the same result. Raises PhysicsError on a pose that is
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
    trial = _Trial(_model(scene, hand, friction, force_N, time_step_s, tips), scene, hand)
    return trial.run(x, y, z + (0.0 if tips is None else tips(width_m)), yaw, settle)


_models: OrderedDict[tuple[Any, ...], tuple[weakref.ref[Scene], Any]] = OrderedDict()
_MODELS_KEPT = 4


def _model(
    scene: Scene,
    hand: Hand,
    friction: float,
    force_N: float,
    time_step_s: float,
    tips: TipTravel | None = None,
) -> Any:
    """The scene's model, made once for a run of lifts."""
    key = (id(scene), hand, friction, force_N, time_step_s, tips)
    if key in _models and _models[key][0]() is scene:
        _models.move_to_end(key)
        return _models[key][1]
    model = build_model(scene, hand, friction, force_N, time_step_s, tips=tips)
    _models[key] = (weakref.ref(scene), model)
    while len(_models) > _MODELS_KEPT:
        _models.popitem(last=False)
    return model


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

    def run(self, x: float, y: float, z: float, yaw: float, settle: bool = False) -> Lift:
        model, data = self.model, self.data
        model.body("hand").pos = (x, y, ABOVE_M)
        model.body("hand").quat = (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))
        mujoco.mj_resetData(model, data)
        self.arm, self.fingers = (
            model.actuator("z").id,
            [model.actuator(n).id for n in ("left", "right")],
        )
        self.level = max(z, self.top + _CLEARANCE_M)
        data.joint("z").qpos = self.level - ABOVE_M
        data.ctrl[self.arm] = self.level - ABOVE_M
        mujoco.mj_forward(model, data)
        self.start = data.xipos[self.bodies, 2].copy()

        kept = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda _: None)  # else it writes a file where the user is
        self.rest = self._poses()
        try:
            done = self._attempt(z)
            if settle:
                self._retreat(list(done.objects))
                T = self._poses()
                T[list(done.objects)] = done.T_world_object[list(done.objects)]
                done = replace(done, T_world_object=T)
            return done
        except _Diverged:
            return Lift(False, "unstable", None, 0.0, float(data.time), (), self.rest)
        finally:
            mujoco.set_mju_user_warning(kept)

    def _attempt(self, z: float) -> Lift:
        if not self._move(z, APPROACH_M_S, PUSH_N):
            return self._end("collided")
        self._close()
        if not self._between().any():
            return self._end("missed")
        self._move(z + LIFT_M, LIFT_M_S, math.inf)
        self._wait(HOLD_S)
        held = np.flatnonzero(self._between())
        if not len(held):
            return self._end("slipped")
        clear = [k for k in held if not self._on_table(k)]
        return self._end("held", tuple(map(int, clear))) if clear else self._end("dragged")

    def _end(self, reason: str, held: tuple[int, ...] = ()) -> Lift:
        rise = self.data.xipos[self.bodies, 2] - self.start
        height = float(rise[held[0]] if held else rise.max())
        one = held[0] if held else None
        return Lift(
            reason == "held", reason, one, height, float(self.data.time), held, self._poses()
        )

    def _poses(self) -> NDArray[np.float64]:
        """T_world_object (K, 4, 4) now."""
        T = np.tile(np.eye(4), (self.count, 1, 1))
        T[:, :3, :3] = self.data.xmat[self.bodies].reshape(-1, 3, 3)
        T[:, :3, 3] = self.data.xpos[self.bodies]
        return T

    def _retreat(self, held: list[int]) -> None:
        """Take these objects out of the scene, or open and go up if there are none; then take the hand out of
        it, and wait until the other objects lie still."""
        for k in np.flatnonzero(np.abs(self._poses() - self.rest).max(axis=(1, 2)) > _MOVED_M):
            joint = self.model.body_jntadr[self.bodies[k]]
            if k in held:
                at = self.model.jnt_qposadr[joint]
                self.data.qpos[at : at + 3] = _AWAY_M * (k + 1), _AWAY_M, 1.0
            # A velocity wakes what fell asleep in the air; what nothing has touched sleeps on.
            self.data.qvel[self.model.jnt_dofadr[joint] + 2] -= 1e-3
        if not held:
            self.data.ctrl[self.fingers] = 0.0
            self._wait(0.2)
            self._move(max(self.level, self.top + _CLEARANCE_M), LIFT_M_S, math.inf)
        self.model.body("hand").pos = (-_AWAY_M, -_AWAY_M, ABOVE_M)
        others = np.delete(self.bodies, held)
        self._wait(0.05)
        end = self.data.time + SETTLE_S
        while self.data.time < end and (np.abs(self.data.cvel[others]) > _STILL).any():
            self._wait(0.05)

    def _move(self, level: float, speed: float, limit_N: float) -> bool:
        """Bring the fingertips to a level; False as soon as the arm pushes with more than the limit."""
        begun, way = self.data.time, level - self.level
        # Minimum jerk: its greatest acceleration is 5.8 way / seconds^2.
        seconds = max(abs(way) / speed, math.sqrt(5.8 * abs(way) / _ACCELERATION_M_S2))
        while (elapsed := self.data.time - begun) < seconds + 0.05:
            t = min(1.0, elapsed / seconds) if seconds else 1.0
            self.data.ctrl[self.arm] = self.level + way * t**3 * (10 - 15 * t + 6 * t * t) - ABOVE_M
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
        """True (K,) for objects that both fingers touch."""
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
