"""One depth image, once: its canonical view, the distance all over it, the best jaws, and its faults.

seen = look_at(depth_m, Intrinsics(640, 480, 380, 380, 319.5, 239.5))
print(seen.distance_m, seen.probability, seen.warnings)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rt import controller
from rt.camera import Intrinsics, distort
from rt.camera.still_scene import TableFit, fit_table
from rt.camera.units import wrong_unit
from rt.controller import DOUBT_WEIGHT_M, DistanceFunction
from rt.controller.first_look import MAP_SIDE, MAP_TURNS
from rt.distance import open_model
from rt.hand import Hand, load_hand
from rt.page.picture import surface_depth
from rt.pose import inverse, planar, wrap_theta
from rt.view import END_HEIGHT_M, START_HEIGHT_M, VIEW, Reprojector, ViewError, close_gaps

ENOUGH_FILLED, FEW_HOLES = 0.5, 0.9
"""Parts of the view with a return: below the first the guard holds an arm, below the second it is said."""
LEVEL_DEG, STEEP_DEG = 5.0, 35.0
"""Tilts of the camera against the table: from the first on it is said, from the second on views have gaps."""
FAR_M, NEAR_M = 0.60, 0.10
"""Camera's distances from the table beyond which its depth is too coarse, or its image too small."""
MOST_HEIGHT_M = 1.5
"""Deeper images are refused: a pixel then covers as much as a finger."""
HEIGHT_OFF_M, HEIGHT_OFF = 0.02, 0.05
"""A told height is doubted if the table is seen elsewhere by more than both; the second is a part of it."""
NO_GRASP_M = 0.015
_POINTS, _MOST_M = 4000, 3.0
_REFINED, _REFINED_M, _REFINED_RAD = 512, 0.012, math.radians(12)
_UPRIGHT = np.diag([1.0, -1.0, -1.0])
"""From a camera that looks straight down to a frame with z up."""


@dataclass(frozen=True)
class Look:
    """Everything about one image."""

    depth: NDArray[np.float32]
    """(H, W) m, as given."""
    intrinsics: Intrinsics
    view: NDArray[np.float32]
    """(64, 64) m, small gaps closed: what the network was given."""
    T_camera_view: NDArray[np.float64]
    """(4, 4): the hand that looks, in the camera's frame."""
    action: NDArray[np.float64]
    """(3,) x, y [m], theta [rad] of the best jaws in the view."""
    distance_m: float
    """Predicted distance from the best jaws to the nearest good grasp."""
    probability: float | None
    """That a grasp lies within 15 mm of them; None if the network does not say."""
    spread_m: float | None
    """Half the 95 % interval of the distance."""
    staying_m: float
    """Predicted distance of the hand that looks."""
    map_m: NDArray[np.float32]
    """(33, 33) least distance over all angles, rows along the view's y, within 0.15 m of its middle."""
    filled: float
    """Part of the view with a return."""
    camera_height_m: float | None
    """Above the table; None if no table was found or told."""
    tilt_deg: float | None
    """Between the camera's axis and straight down; None if no table was found."""
    hand: Hand
    network: str
    warnings: tuple[str, ...] = field(default=())

    @property
    def T_camera_hand(self) -> NDArray[np.float64]:
        """Pose of the best jaws in the camera's frame, (4, 4), at the view's height; z is the approach."""
        return np.asarray(self.T_camera_view @ planar(self.action))

    @property
    def surface_m(self) -> float:
        """Depth in the view of what lies between the best jaws."""
        return surface_depth(self.view, self.action)

    def jaws_px(self) -> list[NDArray[np.float64]]:
        """The best jaws in the image, at true width: closing line (2, 2), outlines of both fingers (4, 2)."""
        hand, z = self.hand, self.surface_m
        half, wide = hand.opening_m / 2, hand.finger_width_m / 2
        far = half + hand.finger_thickness_m
        shapes: list[list[tuple[float, float]]] = [[(-half, 0), (half, 0)]]
        for side in (-1, 1):
            near, away = side * half, side * far
            shapes.append([(near, -wide), (near, wide), (away, wide), (away, -wide)])
        T = self.T_camera_view @ planar(self.action)
        return [
            self._seen_at(np.array([(x, y, z) for x, y in s]) @ T[:3, :3].T + T[:3, 3])
            for s in shapes
        ]

    def frame_px(self) -> NDArray[np.float64]:
        """Outline of the view on the surface below the hand, in the image: (4, 2)."""
        edge, z = VIEW.size_px / 2 / VIEW.focal_px * self.surface_m, self.surface_m
        corners = np.array([(-edge, -edge, z), (edge, -edge, z), (edge, edge, z), (-edge, edge, z)])
        return self._seen_at(corners @ self.T_camera_view[:3, :3].T + self.T_camera_view[:3, 3])

    def _seen_at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        k = self.intrinsics
        x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
        if any(k.distortion) and k.distortion_model == "brown_conrady":
            x, y = distort(x, y, k.distortion)
        return np.stack([x * k.fx_px + k.cx_px, y * k.fy_px + k.cy_px], axis=1)

    def summary(self) -> dict[str, Any]:
        """For JSON: everything but the images, which are `view` and `map_m`."""
        return {
            "distance_m": self.distance_m,
            "probability": self.probability,
            "spread_m": self.spread_m,
            "distance_of_staying_m": self.staying_m,
            "action": self.action,
            "T_camera_hand": self.T_camera_hand,
            "T_camera_view": self.T_camera_view,
            "jaws_px": self.jaws_px(),
            "view_filled": self.filled,
            "camera_height_m": self.camera_height_m,
            "tilt_deg": self.tilt_deg,
            "hand": self.hand.name,
            "network": self.network,
            "warnings": list(self.warnings),
        }


def look_at(
    depth_m: NDArray[np.floating],
    intrinsics: Intrinsics,
    *,
    height_m: float | None = None,
    T_view_camera: ArrayLike | None = None,
    at_px: tuple[float, float] | None = None,
    distance: DistanceFunction | None = None,
    hand: Hand | None = None,
) -> Look:
    """A depth image (H, W) in metres (0 or not finite: no return) of a camera that looks down at a table.

    The hand that looks is put 0.30 m or less above the table, straight above `at_px` (u, v; default: the
    image's middle). Its place comes from one of three: T_view_camera (4, 4), a camera mounted on a hand;
    height_m, of a camera that looks straight down; neither: the table's plane is fitted. distance: default
    open_model(). hand: drawn; default the network's. Raises ViewError for depths in another unit, for an
    image that does not fit the intrinsics, and for one of which nothing is in the view.
    """
    depth = np.asarray(depth_m, np.float32)
    shape = (intrinsics.height_px, intrinsics.width_px)
    if depth.shape != shape:
        raise ViewError(
            f"depth is {depth.shape}, the intrinsics are of {shape}; give those of this mode"
        )
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
    if not depth.any():
        raise ViewError("the image has no return at all: every depth is 0")
    if doubt := wrong_unit(depth):
        raise ViewError(doubt)
    if height_m is not None and T_view_camera is not None:
        raise ViewError(
            "height_m and T_view_camera are both given; the camera's place comes from one"
        )
    if height_m is not None and not 0.02 <= height_m <= 5.0:
        raise ViewError(f"height_m = {height_m:g} must be from 0.02 to 5 m; give metres")
    if at_px is not None and not (0 <= at_px[0] < shape[1] and 0 <= at_px[1] < shape[0]):
        raise ViewError(
            f"at = {at_px[0]:g},{at_px[1]:g} px lies outside the image, {shape[1]}x{shape[0]}; give u,v in it"
        )
    T_camera_view, height, tilt, warnings = _place(
        depth, intrinsics, height_m, T_view_camera, at_px
    )
    seen = Reprojector(intrinsics, inverse(T_camera_view))(depth)
    filled = float(np.count_nonzero(seen)) / seen.size
    if not filled:
        raise ViewError(
            f"nothing of the image is in the view, which reaches {VIEW.far_m:g} m from the fingertips: check "
            "the height and the mount"
        )
    network = distance or open_model()
    hand = hand or getattr(getattr(network, "contract", None), "hand", None) or load_hand()
    found = _search(network, close_gaps(seen))
    result = Look(
        depth=depth,
        intrinsics=intrinsics,
        view=close_gaps(seen),
        T_camera_view=T_camera_view,
        filled=filled,
        camera_height_m=height,
        tilt_deg=tilt,
        hand=hand,
        network=str(getattr(network, "path", type(network).__name__)).rsplit("/", 1)[-1],
        **found,
    )
    return replace(result, warnings=(*warnings, *_warnings(result)))


def _place(
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    height_m: float | None,
    T_view_camera: ArrayLike | None,
    at_px: tuple[float, float] | None,
) -> tuple[NDArray[np.float64], float | None, float | None, list[str]]:
    """T_camera_view, the camera's height and tilt as far as they are known, and warnings."""
    middle = float(np.median(depth[depth > 0]))
    if T_view_camera is None and middle > MOST_HEIGHT_M:
        raise ViewError(
            f"the middle depth is {middle:.3g} m, the limit is {MOST_HEIGHT_M:g} m: come nearer, or the "
            f"depths are in another unit: as tenths of a millimetre (a D405's, --unit 0.1mm) it would be "
            f"{middle / 10:.2g} m"
        )
    fit = _table(depth, intrinsics)
    tilt = None if fit is None else fit.tilt_deg
    if T_view_camera is not None:
        return inverse(T_view_camera), None, None, []
    at = at_px or (intrinsics.cx_px, intrinsics.cy_px)
    ray = np.array(
        [
            (at[0] - intrinsics.cx_px) / intrinsics.fx_px,
            (at[1] - intrinsics.cy_px) / intrinsics.fy_px,
            1,
        ]
    )
    if height_m is not None:
        normal, height = np.array([0.0, 0.0, -1.0]), height_m
    elif fit is not None:
        normal = _UPRIGHT @ fit.normal
        height = -fit.height_m * float(fit.normal[2])
    else:
        far = float(np.percentile(depth[depth > 0], 90))
        line = (
            "no table was found: the view looks along the camera's axis, and its height is a guess; give "
            "--height, or --cell with the camera's mount"
        )
        return (
            _view_above(ray * far, np.array([0.0, 0.0, -1.0]), min(far, START_HEIGHT_M)),
            None,
            None,
            [line],
        )
    warnings = []
    if height_m is not None and fit is not None and tilt is not None and tilt < LEVEL_DEG:
        seen_m = -fit.height_m * float(fit.normal[2])
        if abs(seen_m - height_m) > max(HEIGHT_OFF_M, HEIGHT_OFF * height_m):
            warnings.append(
                f"height: the table is seen {seen_m:.2f} m below the camera, and {height_m:g} m were told; "
                "check --height, or leave it out and the table is found"
            )
    on_table = ray * (-height / float(ray @ normal))
    return _view_above(on_table, normal, min(height, START_HEIGHT_M)), height, tilt, warnings


def _table(depth: NDArray[np.float32], intrinsics: Intrinsics) -> TableFit | None:
    """The table's plane below the camera, in the camera's frame turned so that z is up."""
    stride = max(1, math.isqrt(depth.size // _POINTS))
    d = depth[::stride, ::stride]
    points = (d[..., None] * intrinsics.rays()[::stride, ::stride])[(d > 0) & (d < _MOST_M)]
    fit = fit_table(points @ _UPRIGHT.astype(np.float32))
    return fit if fit is not None and fit.height_m < 0 else None


def _view_above(
    place: NDArray[np.float64], normal: NDArray[np.float64], height_m: float
) -> NDArray[np.float64]:
    """T_camera_view of a hand above a place (3,) of the table, x along the image's rows."""
    z = -normal
    x = np.array([1.0, 0.0, 0.0]) - z[0] * z
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    T[:3, 3] = place + normal * height_m
    return T


def _search(network: DistanceFunction, view: NDArray[np.float32]) -> dict[str, Any]:
    """The dense map in the mean of the view's eight symmetries, and its best action, refined."""
    actions = controller.dense_actions()
    dense = _predict(network, view, actions)
    best = actions[int(dense[0].argmin())]
    around = controller.candidates(np.random.default_rng(0), _REFINED, _REFINED_M, _REFINED_RAD)
    around += best
    around[:, 2] = wrap_theta(around[:, 2])
    near = _predict(network, view, np.concatenate([around, np.zeros((1, 3), np.float32)]))
    k = int(near[0][:-1].argmin())
    grid = dense[1].reshape(MAP_SIDE, MAP_SIDE, MAP_TURNS).min(axis=2).T  # rows along y
    return {
        "action": around[k].astype(np.float64),
        "distance_m": float(near[1][k]),
        "probability": None if near[2] is None else float(near[2][k]),
        "spread_m": None if near[3] is None else float(near[3][k]),
        "staying_m": float(near[1][-1]),
        "map_m": np.ascontiguousarray(grid),
    }


def _predict(
    network: DistanceFunction, view: NDArray[np.float32], actions: NDArray[np.float32]
) -> tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None
]:
    """Scores, distances, probabilities and spreads (N,), each the mean over eight symmetries."""
    sums: list[Any] = [0.0, None, None]
    predict = getattr(network, "predict", None)
    for k in range(8):
        turned = controller.symmetry(k, view, actions)
        said = predict(*turned) if predict is not None else None
        parts = (
            (network(*turned), None, None)
            if said is None
            else (said.distance, said.probability, said.spread)
        )
        for i, part in enumerate(parts):
            if part is not None:
                sums[i] = (0.0 if sums[i] is None else sums[i]) + part / 8
    distance, probability, spread = sums
    doubt = 0.0 if probability is None else np.float32(DOUBT_WEIGHT_M) * (1 - probability)
    return distance + doubt, distance, probability, spread


def _warnings(look: Look) -> list[str]:
    """Faults of the image that make the answer worse."""
    lines = []
    height, tilt = look.camera_height_m, look.tilt_deg
    if tilt is not None and tilt > STEEP_DEG:
        lines.append(
            f"the camera is tilted by {tilt:.0f} deg: behind objects it sees nothing, and the view has gaps; "
            f"look down within {STEEP_DEG:g} deg"
        )
    elif tilt is not None and tilt > LEVEL_DEG:
        lines.append(
            f"the table is tilted by {tilt:.0f} deg in the image; the view is turned upright"
        )
    if height is not None and height > FAR_M:
        lines.append(
            f"too high: {height:.2f} m above the table the samples are coarse; come to {FAR_M:g} m or "
            "nearer (or is the unit wrong? a D405 counts 0.1 mm)"
        )
    if height is not None and height < NEAR_M + END_HEIGHT_M / 3:
        lines.append(
            f"too near: {height:.2f} m above the table; networks know {END_HEIGHT_M:g} to "
            f"{START_HEIGHT_M:g} m, and stereo cameras see nothing near"
        )
    if look.filled < ENOUGH_FILLED:
        lines.append(
            f"holes: only {look.filled:.0%} of the view has depth, the guard would hold the arm below "
            f"{ENOUGH_FILLED:.0%}; the answer is worth little"
        )
    elif look.filled < FEW_HOLES:
        lines.append(f"holes: {1 - look.filled:.0%} of the view has no depth")
    if look.distance_m > NO_GRASP_M or (look.probability is not None and look.probability < 0.5):
        lines.append("no good grasp is near: the network is not sure of any in this view")
    return lines
