"""The end of one attempt: its distance from a grasp, the lift, and whether the hand was inside anything.

Distances are to the nearest grasp of the label:
paper    the geometric true grasps (sim/scene/grasps.py), as in the paper
lifted   grasps that lift: the true grasps, and those of a more lenient sampling that hold in MuJoCo. They are
         tried in the order of their distance until one holds.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rt.view import END_HEIGHT_M
from sim.experiment.disturbance import TrialChance
from sim.experiment.trial import Approach, Hand4, TrialSetup, World, distances_m
from sim.physics.approach import approach_height
from sim.scene.grasps import Grasps, true_grasps

if TYPE_CHECKING:  # without lifts the trials need no MuJoCo
    from sim.physics.lift import Lift

LENIENT_FRICTION, LENIENT_LEVER_M, LENIENT_LINES = 1.0, 0.20, 1
"""The lenient sampling: of what it adds to the true grasps about half holds."""
_TRIED = 8
"""Most lenient grasps tried in the physics for one end; after them the nearest true grasp counts."""


class Ending:
    """Judge of the ends in one scene."""

    def __init__(self, world: World, setup: TrialSetup, fate: TrialChance) -> None:
        self.world, self.setup, self.fate = world, setup, fate
        self._holds: dict[int, bool] = {}

    def __call__(
        self, approach: Approach, settle: bool = False
    ) -> tuple[dict[str, Any], Lift | None]:
        """An end, ready for JSON, and its lift. settle: as in sim.physics.lift."""
        end, done = approach.end, None
        distance = self.world.distance_m(end)
        if self.setup.label == "lifted":
            distance = self._to_lifted_m(end, distance)
        notes: dict[str, Any] = {
            "distance_m": distance if np.isfinite(distance) else None,
            "hand": end.tolist(),
            "inside": self._inside(approach),
            **approach.notes,
        }
        if self.world.scene.bin is not None:
            notes["on_wall"] = self._on_wall(end)
        if self.setup.lift:
            done = self._lift(approach, settle)
            notes |= {"lifted": done.success, "why": done.reason}
        return notes, done

    def _lift(self, approach: Approach, settle: bool) -> Lift:
        """Down to the height found, close, lift. On a conveyor the objects go on meanwhile, and the hand with
        the velocity that its controller believes. A run that ends without a touch leaves all as it is."""
        from sim.physics.lift import APPROACH_M_S, CLOSE_M_S, Lift, lift

        if approach.notes.get("declined"):
            still = np.stack([thing.T_world_object for thing in self.world.scene.placed])
            return Lift(False, "declined", None, 0.0, 0.0, (), still)
        x, y, _, yaw = approach.end
        z = self._height(x, y, yaw)
        seconds = (
            max(END_HEIGHT_M - z, 0) / APPROACH_M_S + self.world.hand.opening_m / 4 / CLOSE_M_S
        )
        x, y = (x, y) + seconds * (approach.velocity_m_s - self.fate.velocity_m_s)
        if self.fate.disturbance.conveyor:
            z = self._height(x, y, yaw)
        return lift(self.world.scene, (x, y, z, yaw), self.world.hand, settle=settle)

    def _height(self, x: float, y: float, yaw: float) -> float:
        return approach_height(self.world.scene, self.world.renderer, x, y, yaw, self.world.hand)

    def _inside(self, approach: Approach) -> bool:
        """True if fingers or palm, fully open, were inside anything on the way."""
        path = approach.path.astype(np.float32)
        low = path[path[:, 2] < self.world.room.top]
        return bool(len(low)) and not self.world.room.clear(low, 0.0).all()

    def _on_wall(self, end: Hand4) -> bool:
        """True if a finger comes down on a wall of the bin."""
        hand, around = self.world.hand, self.world.scene.bin
        assert around is not None
        u = np.linspace(-0.5, 0.5, 8) * hand.finger_thickness_m
        w = np.linspace(-0.5, 0.5, 12) * hand.finger_width_m
        middle = (hand.opening_m + hand.finger_thickness_m) / 2
        x, y = (g.ravel() for g in np.meshgrid(np.concatenate([u - middle, u + middle]), w))
        c, s = np.cos(end[3]), np.sin(end[3])
        points = end[:2] + np.column_stack([c * x + s * y, s * x - c * y])
        return bool(around.above_wall(points).any())

    @cached_property
    def _lenient(self) -> Grasps:
        """Grasps that the label turns down and the physics may hold."""
        return true_grasps(
            self.world.scene,
            self.fate.rng("grasps"),
            self.world.hand,
            friction=LENIENT_FRICTION,
            lever_m=LENIENT_LEVER_M,
            least_lines=LENIENT_LINES,
            samples=500,
        )

    def _to_lifted_m(self, end: Hand4, most_m: float) -> float:
        """Distance to the nearest grasp that lifts; most_m is that to the nearest true one, which does."""
        away = distances_m(self._lenient, end)
        for k in np.argsort(away, kind="stable")[:_TRIED]:
            if away[k] >= most_m:
                break
            if self._held(int(k)):
                return float(away[k])
        return most_m

    def _held(self, k: int) -> bool:
        """True if lenient grasp k lifts its own object."""
        from sim.physics.lift import lift

        if k not in self._holds:
            x, y, _, yaw, _ = (float(v) for v in self._lenient.poses[k])
            done = lift(self.world.scene, (x, y, self._height(x, y, yaw), yaw), self.world.hand)
            self._holds[k] = done.success and int(self._lenient.object[k]) in done.objects
        return self._holds[k]
