"""A made-up flight, for tests of its record: numbers that can be told apart."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from rt.distance import Distance, open_model
from rt.guard.rows import ROWS
from rt.pose import top_down
from rt.record.recorder import flight_header
from rt.record.schema import best_candidates

STAGES = ("camera", "view", "distance", "whole")


def header(distance: Distance | None = None, **changes: Any) -> dict[str, Any]:
    distance = distance or open_model()
    return {
        **flight_header(
            config={"rate": 30.0, "controller": "paper"},
            cell={"name": "made up"},
            contract=distance.contract,
            model=str(distance.path),
            backend=distance.backend,
            candidates=100,
            stages=STAGES,
            guard=ROWS,
            robot_now_ns=time.monotonic_ns(),
        ),
        **changes,
    }


def cycle(k: int, distance: Distance | None = None, seed: int = 0) -> dict[str, Any]:
    """The fields of cycle k; with `distance`, its candidates' distances are the network's."""
    rng = np.random.default_rng([seed, k])
    view = (0.25 + 0.05 * rng.random((64, 64))).astype(np.float32)
    view[20:30, 20 : 30 + k % 8] -= 0.06
    actions = (rng.random((100, 3)) * 0.1 - 0.05).astype(np.float32)
    actions[0] = 0
    distances = rng.random(100).astype(np.float32) if distance is None else distance(view, actions)
    kept, of = best_candidates(actions, distances)
    best = int(np.argmin(distances))
    hand = np.array([0.01 * k, -0.01, 0.3 - 0.001 * k, 0.1])
    stamp_ns = time.monotonic_ns()
    return {
        "cycle": k,
        "stamp_ns": stamp_ns,
        "phase": "approach",
        "hand": hand,
        "T_base_hand": top_down(*hand),
        "q": np.arange(6) + k,
        "twist": np.full(6, 0.5),
        "goal": hand + 0.01,
        "command": hand + 0.001,
        "frame": 1000 + k,
        "frame_stamp_ns": stamp_ns - 12_345_678,
        "frame_age_s": 0.0123,
        "state_age_s": 0.004,
        "view": view,
        "candidates": kept,
        "distances": of,
        "weighed": 100,
        "action": actions[best],
        "predicted_m": distances[0],
        "predicted_best_m": distances[best],
        "stage_ms": np.r_[1.0, 2.0, 3.0, 6.0 + k, np.full(12, np.nan)],
        "slack_s": 0.02,
        "missed": k // 10,
        "held": 0,
    }
