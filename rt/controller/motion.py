"""Motion of what stands on the table, from one view to the next: objects on a conveyor, pushed ones, a hand
that is not where it was told to be.

Two height maps of the same place are brought onto each other by Gauss-Newton steps (Lucas and Kanade 1981):
the shift and turn for which the newer map, sampled there, equals the older one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from rt.distance.metric_map import metric_map
from rt.view import VIEW, View

CELLS, CELL_M = 64, 0.005
"""The height map of a view: 0.32 m."""
WINDOW_M = 0.08
"""Radius about the goal within which the scene counts: one object and its neighbours."""
BLUR_CELLS = 2.0
"""Standard deviation of the blur, as wide as a view's pixel on the table: edges become slopes to follow."""
ROBUST_M = 0.004
"""Differences of height above this weigh less: shadows, and what another object does."""
LOST_M = 0.010
"""Median difference of height after the best shift: above it the maps do not show the same."""
JUMP_M, JUMP_RAD = 0.002, np.radians(3.0)
"""A shift that differs by more than this from what the velocity foretells is believed as it is; most of a
smaller difference is the error of one registration (0.4 to 0.8 mm with the sensors of sim.scene.sensor)."""
BELIEF = 0.3
"""Part of a smaller difference that is believed."""
VIEWS = 7
"""Shifts that the velocity is the median of: one jump is no motion."""
LAST, OVER = 3, 0.3
"""Shifts that tell that a motion is over, if they are less than this part of it: single ones lean on it."""
SURE = 1.5
"""A velocity must be this many times the median distance of the shifts from it: an arm that does not go where
it is told makes shifts of all directions."""
STILL_M_S = 0.012
"""Slower than this is still."""
FASTEST_M_S = 0.6
"""No arm of this kind follows anything faster: such a velocity is a registration that errs."""
SLOW_BELOW_M_S, LIKE_LONG = 0.04, 0.5
"""With a velocity below the first the scene must have gone this part of the way over the longest memory, too:
what the views of a hand close above a tall object lose at their borders looks like 20 mm/s."""
LONG_VIEWS = (8, 24)
"""Least and most views that a velocity is measured over, beside that of single ones: many times as exact."""
SLOW_M_S, SLOW_ALIKE = 0.008, 0.33
"""Least speed of a motion that only the longest memory tells, and the greatest difference between the
velocities in its halves, as a part of it."""
SLOW_WAY = 0.6
"""The scene has moved by this part of the hand's own way at least."""
ALIKE_M_S = 0.015
"""The two velocities of a steady motion differ by less."""
FARTHEST_M, MOST_RAD = CELLS * CELL_M / 2, np.pi / 2
"""A scene moves no further from where it is foretold than half of its map, nor turns more: the last step of a
search on flat ground may lead anywhere."""
_STEPS = 6
_DONE_M = 5e-5
_FORETOLD = np.diag([100.0, 100.0, 0.1])
"""Weight of the shift that the velocity foretells, beside the squared slopes of the cells in the window,
whose sum is _SMALL_BOX for a small box: it decides along a lying bottle and where the map is flat. It falls
with the way from there on the scale JUMP_M, JUMP_RAD."""
_SMALL_BOX, _FLAT = 150.0, 0.01
"""For lower things the weight is less in proportion, down to this part of it: else a screwdriver that was
pushed seems to go on by itself."""


@dataclass(frozen=True)
class Shift:
    """Displacement of the scene between two views, in base."""

    centre_m: NDArray[np.float64]
    """(2,) that the turn is about."""
    xy_m: NDArray[np.float64]
    """(2,)."""
    turn_rad: float

    def carry(self, hands: NDArray[np.float64]) -> NDArray[np.float64]:
        """Hands (N, 4) of x, y, z [m], yaw [rad] that stay with the scene."""
        c, s = np.cos(self.turn_rad), np.sin(self.turn_rad)
        moved = hands.copy()
        way = hands[..., :2] - self.centre_m
        moved[..., :2] = way @ np.array([[c, s], [-s, c]]) + self.centre_m + self.xy_m
        moved[..., 3] += self.turn_rad
        return moved


def scene_velocity_m_s(controller: object) -> NDArray[np.float64]:
    """(2,) velocity of the scene in base as a controller believes it; zeros from one without an opinion."""
    motion = getattr(controller, "motion", None)
    return np.zeros(2) if motion is None else np.array(motion.velocity_m_s, np.float64)


class SceneMotion:
    """Follows the scene about a place, view by view."""

    def __init__(self, view: View = VIEW) -> None:
        self._view = view
        self.forget()

    def forget(self) -> None:
        """Begin anew with the next view."""
        self._before: _HeightImage | None = None
        self._rates: deque[NDArray[np.float64]] = deque(maxlen=VIEWS)
        self._seen: deque[_HeightImage] = deque(maxlen=LONG_VIEWS[1])
        self._stopped = False
        """True after a motion that is over: what is left of it in the next shifts is none."""
        self.velocity_m_s = np.zeros(2)
        """(2,) of x, y in base; zeros while the scene stands."""

    def see(
        self,
        view: NDArray[np.float32],
        seen_from: NDArray[np.float64],
        centre_m: NDArray[np.float64],
        exposed_s: float,
    ) -> Shift | None:
        """Displacement of the scene since the view before; None if there was none, if it is the same view, or
        if the two do not show the same scene (then also `lost`).

        view (64, 64) m from the hand (4,) in base; centre_m (2,) in base, of the place to follow.
        """
        before, now = self._before, _HeightImage(view, seen_from, exposed_s, self._view)
        self.lost = False
        if before is None:
            self._before = now
            return None
        passed_s = exposed_s - before.exposed_s
        if passed_s <= 0:
            return None
        self._before = now
        foretold = self.velocity_m_s * passed_s
        found, left_m = register(before, now, centre_m, foretold)
        if left_m > LOST_M:
            found, left_m = register(before, now, centre_m, foretold, coarse=True)
        if left_m > LOST_M:
            self.lost = True
            self._rates.clear()
            self._seen.clear()
            self.velocity_m_s = np.zeros(2)
            return None
        self._rates.append(found[:2] / passed_s)
        self._forget_what_is_over()
        typical, apart = self._usual()
        speed = float(np.linalg.norm(typical))
        moving = len(self._rates) >= 3 and max(STILL_M_S, SURE * apart) < speed < FASTEST_M_S
        if moving and speed < SLOW_BELOW_M_S:
            moving = self._like_long(typical, now, centre_m)
        # A steady motion goes on although a few views do not tell; if they tell of another, it is over.
        off_m_s = np.linalg.norm(self.velocity_m_s - typical)
        goes_on = moving or off_m_s < max(ALIKE_M_S, SURE * apart)
        likely = typical if moving else self.velocity_m_s * goes_on
        steady = self._steady(likely, now, centre_m) if likely.any() else None
        if steady is None and not moving:
            steady = self._slow(typical, now, centre_m)
        self.velocity_m_s = steady if steady is not None else typical * moving
        self._seen.append(now)
        off, turn = found[:2] - foretold, float(found[2])
        if np.linalg.norm(off) < JUMP_M and abs(turn) < JUMP_RAD:
            off, turn = BELIEF * off, BELIEF * turn
        return Shift(centre_m, foretold + off, turn)

    def _usual(self) -> tuple[NDArray[np.float64], float]:
        """The median (2,) of the last rates [m/s], and the median of their distances from it."""
        rates = np.array(self._rates)
        typical = np.median(rates, axis=0)
        return typical, float(np.median(np.linalg.norm(rates - typical, axis=1)))

    def _forget_what_is_over(self) -> None:
        """Keep only the last rates, and no view, if the motion before them is over."""
        typical, apart = self._usual()
        latest = list(self._rates)[-LAST:]
        last = np.median(latest, axis=0)
        unlike = np.linalg.norm(last - typical) > max(ALIKE_M_S, SURE * apart)
        if unlike and np.linalg.norm(last) < max(STILL_M_S, OVER * float(np.linalg.norm(typical))):
            self._rates = deque(latest, maxlen=VIEWS)
            self._seen.clear()
            self._stopped = True

    def _like_long(
        self, typical_m_s: NDArray[np.float64], now: _HeightImage, centre_m: NDArray[np.float64]
    ) -> bool:
        """True if a slow velocity tells the way since the oldest view better than a standstill does; in the
        first views, too, but not in the first after a stop."""
        if len(self._seen) < LONG_VIEWS[0]:
            return not self._stopped
        stood = self._since(self._seen[0], now, centre_m)
        moved = self._since(self._seen[0], now, centre_m, typical_m_s)
        way_m, passed_s, left_m = min(stood, moved, key=lambda found: found[2])
        # It may well be longer: single shifts lean on the velocity believed so far.
        least_m = LIKE_LONG * passed_s * typical_m_s
        return bool(left_m <= LOST_M and way_m @ typical_m_s > least_m @ typical_m_s)

    def _steady(
        self, likely_m_s: NDArray[np.float64], now: _HeightImage, centre_m: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """The velocity from the oldest view to this one, if it is like the likely one and no standstill."""
        if len(self._seen) < LONG_VIEWS[0]:
            return None
        way_m, passed_s, left_m = self._since(self._seen[0], now, centre_m, likely_m_s, 0.1)
        long_m_s = way_m / passed_s
        alike = left_m <= LOST_M and np.linalg.norm(long_m_s - likely_m_s) < ALIKE_M_S
        return long_m_s if alike and np.linalg.norm(long_m_s) > STILL_M_S else None

    def _slow(
        self, typical_m_s: NDArray[np.float64], now: _HeightImage, centre_m: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """A velocity that single views cannot tell from their errors, but the longest memory can: it is the
        same in both halves of it, like that of the last views, and takes the scene further than an arm that
        does not go where it is told may be off."""
        if len(self._seen) < LONG_VIEWS[1]:
            return None
        whole, whole_s, left_m = self._since(self._seen[0], now, centre_m)
        velocity = whole / whole_s
        speed = np.linalg.norm(velocity)
        hands = np.array([image.hand[:2] for image in (*self._seen, now)])
        way_m = np.linalg.norm(np.diff(hands, axis=0), axis=1).sum()
        far = speed > SLOW_M_S and np.linalg.norm(whole) > SLOW_WAY * way_m
        like = np.linalg.norm(velocity - typical_m_s) < ALIKE_M_S
        if left_m > LOST_M or not (far and like):  # a still scene needs no second registration
            return None
        late, late_s, left_m = self._since(self._seen[LONG_VIEWS[1] // 2], now, centre_m)
        halves = np.linalg.norm(late / late_s - (whole - late) / (whole_s - late_s))
        return velocity if left_m <= LOST_M and halves < SLOW_ALIKE * speed else None

    @staticmethod
    def _since(
        old: _HeightImage,
        now: _HeightImage,
        centre_m: NDArray[np.float64],
        likely_m_s: NDArray[np.float64] | float = 0.0,
        trust: float = 0.01,
    ) -> tuple[NDArray[np.float64], float, float]:
        """The scene's shift (2,) [m] since an old view, searched from a likely velocity; the time passed [s];
        the difference left [m]."""
        passed_s = now.exposed_s - old.exposed_s
        way_m = likely_m_s * passed_s * np.ones(2)
        found, left_m = register(old, now, centre_m - way_m, way_m, trust=trust)
        return found[:2], passed_s, left_m

    lost = False
    """True after a view that does not show the scene of the one before."""


class _HeightImage:
    """A view's heights along base's axes, about the hand, blurred."""

    def __init__(
        self, view: NDArray[np.float32], hand: NDArray[np.float64], exposed_s: float, kind: View
    ) -> None:
        self.exposed_s, self.hand = exposed_s, hand.copy()
        turned = metric_map(view, CELLS, CELL_M, kind, turn_rad=float(hand[3]), mirror=True)
        seen = turned[1]
        self._heights = seen * (
            np.float32(hand[2]) - (turned[0] * np.float32(0.1) + np.float32(0.2))
        )
        self._seen = seen
        self._blurred: dict[float, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def blurred(self, cells: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Heights [m] and weights (CELLS, CELLS) after a blur of that many cells."""
        if cells not in self._blurred:
            weight = gaussian_filter(self._seen, cells, truncate=2.5)
            heights = gaussian_filter(self._heights, cells, truncate=2.5)
            self._blurred[cells] = heights / np.maximum(weight, np.float32(1e-3)), weight
        return self._blurred[cells]

    def cell(self, xy_m: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Columns and rows of points (N, 2) in base."""
        at = (xy_m - self.hand[:2]) / CELL_M + (CELLS / 2 - 0.5)
        return at[:, 0], at[:, 1]


def register(
    before: _HeightImage,
    now: _HeightImage,
    centre_m: NDArray[np.float64],
    foretold_m: NDArray[np.float64],
    coarse: bool = False,
    trust: float = 1.0,
) -> tuple[NDArray[np.float64], float]:
    """(3,) of x, y [m], turn [rad] about the centre that bring `before` onto `now`, and the median difference
    of height that is left [m]; infinite if too little of the window is seen in both. trust: in the shift that
    is foretold, beside that of one view to the next."""
    blur = 3 * BLUR_CELLS if coarse else BLUR_CELLS
    old, old_weight = before.blurred(blur)
    new, new_weight = now.blurred(blur)
    column, row = np.meshgrid(np.arange(CELLS), np.arange(CELLS))
    points = (np.stack([column, row], axis=-1) - (CELLS / 2 - 0.5)) * CELL_M + before.hand[:2]
    way = points - centre_m
    near = (np.hypot(way[..., 0], way[..., 1]) < (2 if coarse else 1) * WINDOW_M) & (
        old_weight > 0.3
    )
    near[[0, -1], :] = near[:, [0, -1]] = False
    way, height = way[near], old[near].astype(np.float64)
    along_y, along_x = (np.asarray(np.gradient(old, CELL_M, axis=k)) for k in (0, 1))
    slope = np.stack([along_x[near], along_y[near]], axis=-1).astype(np.float64)
    J = np.column_stack([slope, slope[:, 1] * way[:, 0] - slope[:, 0] * way[:, 1]])
    foretold = np.array([foretold_m[0], foretold_m[1], 0.0])
    found, left_m = foretold.copy(), np.inf
    if len(way) < 50:
        return found, left_m
    steepest = float(np.linalg.eigvalsh(slope.T @ slope)[-1])
    foretells = trust * np.clip(steepest / _SMALL_BOX, _FLAT, 1) * _FORETOLD
    for _ in range(_STEPS):
        c, s = np.cos(found[2]), np.sin(found[2])
        at = way @ np.array([[c, s], [-s, c]]) + centre_m + found[:2]
        u, v = now.cell(at)
        i, j = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
        inside = (i >= 0) & (j >= 0) & (i < CELLS - 1) & (j < CELLS - 1)
        i, j = np.where(inside, i, 0), np.where(inside, j, 0)
        p, q = u - i, v - j
        sampled = (new[j, i] * (1 - p) + new[j, i + 1] * p) * (1 - q) + (
            new[j + 1, i] * (1 - p) + new[j + 1, i + 1] * p
        ) * q
        inside &= new_weight[j, i] > 0.3
        if inside.sum() < 50:
            return found, np.inf
        error = height - sampled
        left_m = float(np.median(np.abs(error[inside])))
        weight = inside / np.maximum(1.0, np.abs(error) / ROBUST_M)
        # The slopes are the older map's: they turn with it.
        G = J @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        WG = G * weight[:, None]
        off = (found - foretold) / (JUMP_M, JUMP_M, JUMP_RAD)
        prior = foretells / (1 + off @ off)
        step = np.linalg.solve(WG.T @ G + prior, WG.T @ error + prior @ (foretold - found))
        found += step
        if np.abs(step[:2]).max() < _DONE_M:
            break
    if np.linalg.norm((found - foretold)[:2]) > FARTHEST_M or abs(found[2]) > MOST_RAD:
        return foretold, np.inf
    return found, left_m
