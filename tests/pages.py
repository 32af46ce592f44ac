"""A synthetic approach for the tests of the live page: its header, its cycles, and a ring that is fed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.guard.rows import ROWS
from rt.pose import top_down
from rt.record.ring import Ring
from rt.record.schema import BLANK, CYCLE, best_candidates
from rt.view import VIEW

STAGES = ("camera", "view", "distance", "whole")
HEADER: dict[str, Any] = {
    "cell": {"name": "twin"},
    "stages": STAGES,
    "guard": [{"name": r.name, "action": r.action.value, "unit": r.unit} for r in ROWS],
}
GOAL = np.array([0.05, -0.03, 0.15, 0.4])


def view_of_a_box(hand: NDArray[np.float64]) -> NDArray[np.float32]:
    """A box of 6 by 3 cm, 5 cm high, that lies at GOAL on the table, seen by a hand at x, y, z, yaw."""
    rays = VIEW.rays().astype(np.float64)
    T = top_down(*hand)
    view = np.zeros((64, 64), np.float32)
    for depth, half in ((hand[2], None), (hand[2] - 0.05, (0.03, 0.015))):
        points = rays * depth @ T[:3, :3].T + T[:3, 3]
        c, s = np.cos(GOAL[3]), np.sin(GOAL[3])
        x, y = points[..., 0] - GOAL[0], points[..., 1] - GOAL[1]
        inside = np.ones(x.shape, bool)
        if half is not None:
            inside = (abs(x * c + y * s) < half[0]) & (abs(y * c - x * s) < half[1])
        view[inside] = depth
    return view


def record(k: int, of: int = 60) -> NDArray[np.void]:
    """Cycle k of a synthetic approach, (1,) of CYCLE: the hand goes to GOAL and down."""
    row = BLANK.copy()
    done = min(k / of, 1.0)
    hand = np.array([-0.04, 0.04, 0.30, 0.0]) * (1 - done) + GOAL * done
    rng = np.random.default_rng(k)
    actions = rng.normal(0, 0.02, (200, 3)).astype(np.float32)
    away = np.linalg.norm(GOAL[:2] - hand[:2])
    values = {
        "cycle": k,
        "stamp_ns": 10**9 + k * 33_333_333,
        "phase": "approach",
        "hand": hand,
        "T_base_hand": top_down(*hand),
        "goal": GOAL,
        "command": hand,
        "frame": k,
        "frame_stamp_ns": 10**9 + k * 33_333_333,
        "frame_age_s": 0.03,
        "view": view_of_a_box(hand),
        "weighed": 200,
        "action": [0.01, 0.005, 0.2],
        "predicted_m": away + 0.004,
        "predicted_best_m": away * 0.5,
        "true_m": away,
        "slack_s": 0.028,
        "missed": 0,
        "held": 0,
    }
    for name, value in values.items():
        row[name] = value
    row["candidates"], row["distances"] = best_candidates(
        actions, np.linalg.norm(actions, axis=1).astype(np.float32)
    )
    row["stage_ms"][0, : len(STAGES)] = (0.3, 0.2, 2.0 + rng.random(), 3.0)
    return row


@contextmanager
def fed(header: dict[str, Any] = HEADER, rate_hz: float = 30.0) -> Iterator[tuple[Ring, Any]]:
    """A loop of sorts: a ring with a cycle every period, until a stop is asked for."""
    over, stopped = threading.Event(), threading.Event()
    rows = [record(k) for k in range(60)]
    names = [name for name in CYCLE.names or () if name != "cycle"]

    def feed(ring: Ring) -> None:
        k = 0
        while not over.wait(1 / rate_hz):
            if ring.asked("stop"):
                stopped.set()
                return
            row = rows[k % len(rows)][0]
            fields = {name: row[name] for name in names} | {"cycle": k}
            fields["stamp_ns"] = 10**9 + k * 33_333_333
            fields["frame"], fields["frame_stamp_ns"] = k, fields["stamp_ns"]
            ring.put(**fields)
            k += 1

    with Ring(header, 64) as ring:
        thread = threading.Thread(target=feed, args=(ring,), daemon=True)
        thread.start()
        try:
            yield ring, stopped
        finally:
            over.set()
            thread.join(5)
