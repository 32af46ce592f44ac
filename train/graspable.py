"""Which objects can be grasped, by a network's word: one look at each from straight above.

An object with fewer than FEW true grasps counts as one that cannot be grasped. A network's score of an
object is the least distance (the greatest probability) that it gives to any hand over the object's pixels,
at any of TURNS angles. `separation` of the two kinds of objects is the area under the ROC curve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.hand import Hand
from rt.pose import top_down
from rt.tools.progress import progress
from rt.view import VIEW
from sim.scene.grasps import numbered_scene
from sim.scene.objects import object_set
from sim.scene.render import Renderer
from train.calibration import Answers, Floats, separation

FEW = 5
HEIGHTS_M = (0.20, 0.30)
TURNS = 12
DOUBT_M = 0.04
"""The score of both together is distance + DOUBT_M * (1 - probability), as the controllers have it."""


def graspable_report(
    ask: Callable[[Floats, Floats], Answers], hand: Hand, scenes: int, seed: int
) -> dict[str, Any]:
    """Separation of objects with FEW true grasps or more from the others, at each of HEIGHTS_M.

    ask: distance (N,) and, where there are, probability of a depth view (64, 64) and actions (N, 3).
    Scenes are those of `sim.generate --seed` with test objects.
    """
    objects = object_set("test")
    counts: list[int] = []
    scores: dict[float, list[list[float]]] = {height: [] for height in HEIGHTS_M}
    for number in progress(range(scenes), unit="scene", title="objects"):
        scene, grasps, _ = numbered_scene(objects, seed, "test", number, hand)
        renderer = Renderer(scene)
        for k, placed in enumerate(scene.placed):
            counts.append(int((grasps.object == k).sum()))
            for height in HEIGHTS_M:
                x, y = placed.T_world_object[:2, 3]
                pose = top_down(float(x), float(y), height, 0.0)
                view, actions = _over(renderer, scene.face_object == k, pose)
                scores[height].append(_scores(ask(view, actions)) if len(actions) else [1.0] * 3)
    good = np.array(counts) >= FEW
    report: dict[str, Any] = {
        "objects": len(good),
        "with_few": int((~good).sum()),
        "few": FEW,
        "heights": [],
    }
    for height in HEIGHTS_M:
        column = np.array(scores[height]).T
        row = {"height_m": height, "distance": separation(column[0], good)}
        if not np.isnan(column[1]).any():
            row |= {
                "probability": separation(column[1], good),
                "both": separation(column[2], good),
            }
        report["heights"].append(row)
    return report


def _over(
    renderer: Renderer, own: NDArray[np.bool_], T_world_hand: NDArray[np.float64]
) -> tuple[Floats, Floats]:
    """A view and the actions (N, 3) that lead over those of its pixels whose face is one of `own`."""
    rays = VIEW.rays()
    depth = renderer.depth(T_world_hand, rays)
    directions = np.ascontiguousarray(rays.reshape(-1, 3) @ T_world_hand[:3, :3].T, np.float32)
    origins = np.ascontiguousarray(
        np.broadcast_to(T_world_hand[:3, 3], directions.shape), np.float32
    )
    face = renderer.face(origins, directions)
    on = (face >= 0) & (depth.ravel() > 0)
    on[on] = own[face[on]]
    xy = (rays.reshape(-1, 3)[on] * depth.ravel()[on, None])[:, :2]
    turn = np.arange(TURNS, dtype=np.float32) * np.float32(np.pi / TURNS) - np.float32(np.pi / 2)
    actions = np.empty((len(xy), TURNS, 3), np.float32)
    actions[..., :2], actions[..., 2] = xy[:, None], turn
    return depth, actions.reshape(-1, 3)


def _scores(answers: Answers) -> list[float]:
    """Least distance, doubt, and both together: the lower the better; NaN without a probability."""
    distance, probability = answers.distance, answers.probability
    if probability is None:
        return [float(distance.min()), np.nan, np.nan]
    both = distance + DOUBT_M * (1 - probability)
    return [float(distance.min()), float(1 - probability.max()), float(both.min())]
