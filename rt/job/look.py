"""Looks at the table from above: places to grasp in a whole view, and if an object has left its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.camera import Frame
from rt.camera.frames import PosedFrame
from rt.cell.place import REACH_M, PlacePart
from rt.controller import DistanceFunction, place_all, symmetry
from rt.grasp.height import Grid, height_map
from rt.hand import Hand
from rt.pose import wrap_theta

Array = NDArray[np.float64]

STEP_M, TURNS = 0.0117, 12
"""Grid of a look: about the tolerance of a grasp. The approach finds the rest."""
SYMMETRIES = (0, 3, 5, 6)
"""Symmetries of a view (rt.controller.symmetry) whose mean is believed, one a cycle."""
APART_M = 0.05
"""Two places nearer than this are one spot."""
AT_HAND_M, AT_HAND_RAD = 0.03, math.radians(25)
"""A grasp this near, along x, y and in yaw, needs no further travel."""
_NO_PROBABILITY_M = 0.03
"""A network without a probability: a distance of half of this counts as 0.5."""
_LEFT_M, _LOW_M = 0.005, 0.008
"""An object has left if the ground between the jaws fell by this; lower ground tells nothing."""
_SEEN = 0.3
_ROOM_M = 0.02
"""So far above the ground of before a place is looked at; what is higher hangs in the hand."""


@dataclass(frozen=True)
class GraspTarget:
    """A place to grasp."""

    hand: Array
    """(4,) of x, y, z [m] of the look, yaw [rad] in base."""
    probability: float
    """That a good grasp lies within 15 mm."""
    distance_m: float

    def near(self, xy: Sequence[float] | Array) -> bool:
        """True if (x, y) [m] is the same spot."""
        return math.dist(self.hand[:2], xy[:2]) < APART_M

    def at_hand(self, hand: Array) -> bool:
        """True if the approach may begin at hand (4,)."""
        turn = abs(float(wrap_theta(self.hand[3] - hand[3])))
        return math.dist(self.hand[:2], hand[:2]) < AT_HAND_M and turn < AT_HAND_RAD


def look_actions() -> NDArray[np.float32]:
    """Actions (N, 3) of a whole view: x, y [m], theta [rad] on a grid."""
    side = np.arange(-REACH_M, REACH_M + 1e-9, STEP_M)
    turn = np.arange(TURNS) * np.pi / TURNS - np.pi / 2
    x, y, theta = np.meshgrid(side, side, turn, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), theta.ravel()], axis=-1).astype(np.float32)


def probabilities(
    distance: DistanceFunction, view: NDArray[np.float32], actions: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance [m] and probability of each action (N, 3) in a view."""
    predict = getattr(distance, "predict", None)
    said = None if predict is None else predict(view, actions)
    far = distance(view, actions) if said is None else said.distance
    if said is None or said.probability is None:
        return far, np.asarray(np.clip(1 - far / _NO_PROBABILITY_M, 0, 1), np.float32)
    return far, said.probability


class TableLook:
    """One view, weighed everywhere: `weigh` once for each of SYMMETRIES, then `targets`."""

    def __init__(self, view: NDArray[np.float32], seen_from: Array) -> None:
        """view: (64, 64) m; seen_from: (4,) hand in base."""
        self.view, self.seen_from = view, seen_from
        self.actions = look_actions()
        self._distance = np.zeros(len(self.actions))
        self._probability = np.zeros(len(self.actions))
        self._weighed = 0

    def weigh(self, distance: DistanceFunction) -> bool:
        """Ask the network about the next symmetry; True once all were asked."""
        k = SYMMETRIES[self._weighed]
        far, probability = probabilities(distance, *symmetry(k, self.view, self.actions))
        self._distance += far
        self._probability += probability
        self._weighed += 1
        return self.weighed

    @property
    def weighed(self) -> bool:
        """True once all symmetries were asked."""
        return self._weighed == len(SYMMETRIES)

    @property
    def best(self) -> float:
        """Greatest probability in the view."""
        return float(self._probability.max()) / max(self._weighed, 1)

    def covers(self, hand: Array) -> bool:
        """True if a place is within this look."""
        far = math.dist(hand[:2], self.seen_from[:2])
        return far < REACH_M

    def at_hand(self, hand: Array, least: float) -> GraspTarget | None:
        """The best place near a hand (4,) and its yaw, of at least that probability, so that the approach can
        begin there; None if there is none."""
        probability = self._probability / max(self._weighed, 1)
        hands = place_all(self.seen_from, self.actions)
        near = np.hypot(*(hands[:, :2] - hand[:2]).T) < AT_HAND_M
        near &= np.abs(wrap_theta(hands[:, 3] - hand[3])) < AT_HAND_RAD
        if not near.any():
            return None
        k = int(np.flatnonzero(near)[np.argmax(probability[near])])
        if probability[k] < least:
            return None
        far = self._distance[k] / max(self._weighed, 1)
        return GraspTarget(hands[k], float(probability[k]), float(far))

    def targets(self, least: float, place: PlacePart) -> list[GraspTarget]:
        """Places of at least that probability within what is to be cleared, APART_M apart, best first."""
        probability = self._probability / max(self._weighed, 1)
        far = self._distance / max(self._weighed, 1)
        hands = place_all(self.seen_from, self.actions)
        half = np.array(place.look_m) / 2
        inside = (np.abs(hands[:, :2] - place.home[:2]) <= half).all(axis=1)
        found: list[GraspTarget] = []
        good = np.flatnonzero(inside & (probability >= least))
        for k in good[np.argsort(far[good] - probability[good], kind="stable")]:
            target = GraspTarget(hands[k], float(probability[k]), float(far[k]))
            if not any(target.near(other.hand) for other in found):
                found.append(target)
        return found


def merged(targets: Sequence[GraspTarget]) -> list[GraspTarget]:
    """Targets of several looks: of those at one spot the most probable, best first."""
    kept: list[GraspTarget] = []
    for target in sorted(targets, key=lambda t: -t.probability):
        if not any(target.near(other.hand) for other in kept):
            kept.append(target)
    return kept


def ground_between(
    frames: Sequence[PosedFrame], rays: NDArray[np.float32], grasp: Array, hand: Hand
) -> float | None:
    """Median height [m] between the jaws of a grasp (4,), whose z is the lowest part of the hand in these
    frames, from depth images alone; None if too little was seen."""
    pixel_m = 0.3 * float(abs(rays[0, 1, 0] - rays[0, 0, 0]))
    grid = Grid.around(hand, pixel_m)
    maps = [height_map(f.depth, rays, f.T_base_camera, grasp, grid) for f in frames]
    between = np.ix_(
        np.abs(grid.y_m) <= hand.finger_width_m / 2, np.abs(grid.x_m) < hand.opening_m / 2
    )
    seen = np.array([m[between] for m in maps])
    if not len(seen) or np.isfinite(seen).mean() < _SEEN:
        return None
    return float(np.percentile(seen[np.isfinite(seen)], 90))


def has_left(before_m: float | None, after_m: float | None) -> bool | None:
    """True if the object between the jaws has left its place, False if it lies there as before; None if that
    cannot be told from these heights [m] of the ground before and after."""
    if before_m is None or after_m is None or before_m < _LOW_M or after_m - before_m > _LEFT_M:
        return None
    return before_m - after_m > _LEFT_M


@dataclass(frozen=True)
class TakenPlace:
    """The place that an object was taken from, and the height [m] of its ground before."""

    grasp: tuple[float, float, float]
    """x, y [m], yaw [rad]."""
    before_m: float

    def left(self, frame: Frame, T_base_camera: Array, lowest_m: float, hand: Hand) -> bool | None:
        """has_left, from one frame; lowest_m: height of the hand's tips [m]."""
        x, y, yaw = self.grasp
        posed = PosedFrame(frame.depth, T_base_camera, lowest_m)
        spot = np.array([x, y, self.before_m + _ROOM_M, yaw])
        after_m = ground_between([posed], frame.intrinsics.rays(), spot, hand)
        return has_left(self.before_m, after_m)


def turned(hand: Array, yaw: float) -> Array:
    """The same hand (4,) with another of its equal yaws, nearest to `yaw` [rad]."""
    return np.array([*hand[:3], yaw + float(wrap_theta(hand[3] - yaw))])
