"""The final approach: the height at which a hand at a given x, y and yaw should close."""

from __future__ import annotations

import math

import numpy as np

from rt.hand import Hand, load_hand
from sim.scene.closing import COMPLIANCE_M
from sim.scene.grasps import MARGIN_M, TABLE_GAP_M
from sim.scene.render import Renderer
from sim.scene.scene import Scene


def approach_height(
    scene: Scene, renderer: Renderer, x: float, y: float, yaw: float, hand: Hand | None = None
) -> float:
    """Fingertip height z [m] at which a hand above (x, y, yaw) [m, rad] should close.

    The pads go where both fingers would touch first when they closed: that is where the object is widest,
    as on a ball's equator. If it is as wide over more than the pads' height the hand goes as deep as
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
    lowest = max(under + MARGIN_M, palm + MARGIN_M - hand.finger_length_m, TABLE_GAP_M)

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
        near.append(reach <= reach.min() + COMPLIANCE_M if np.isfinite(reach).any() else None)
    if near[0] is None or near[1] is None:
        return float(lowest)
    both = near[0] & near[1]
    band = heights[both if both.any() else near[0] | near[1]]
    middle = float(band.min() + min(float(np.ptp(band)), hand.pad_height_m) / 2)
    return float(lowest + max(0.0, middle - hand.pad_height_m / 2))
