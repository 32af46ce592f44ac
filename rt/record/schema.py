"""Record of one cycle of the loop: the dtype CYCLE of the ring, the flight record and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

K = 64
"""Candidates that a record keeps."""
STAGES = 16
"""Stage times that a record can hold; their names are in the header, under `stages`."""
GUARD_ROWS = 64
"""Counters that a record can hold; their rows are in the header, under `guard`."""

# fmt: off
CYCLE = np.dtype([
    ("cycle", "i8"),             # number of the period, from 0
    ("stamp_ns", "i8"),          # its beginning, on the robot's clock (Robot.now_ns)
    ("phase", "S16"),            # approach, descend, grasp, lift, ...: what the loop is doing
    ("hand", "f8", (4,)),        # measured: x, y, z [m], yaw [rad] in base
    ("T_base_hand", "f8", (4, 4)),  # measured
    ("q", "f8", (6,)),           # joint angles [rad]
    ("twist", "f8", (6,)),       # of the hand in base [m/s, rad/s]
    ("wrench", "f8", (6,)),      # at the hand in base [N, N m]
    ("goal", "f8", (4,)),        # of the controller, like `hand`
    ("command", "f8", (4,)),     # target of the arm now, like `hand`
    ("frame", "i8"),             # number of the camera's frame; -1: no frame in this cycle, no view
    ("frame_stamp_ns", "i8"),    # middle of its exposure, on the robot's clock
    ("frame_age_s", "f8"),
    ("state_age_s", "f8"),
    ("view", "f4", (64, 64)),    # depth [m] as the network saw it (close_gaps), 0 = none
    ("candidates", "f4", (K, 3)),  # x, y [m], theta [rad] in the view: staying, then the best others
    ("distances", "f4", (K,)),   # of each [m]; NaN beyond the last
    ("weighed", "i4"),           # candidates that were weighed in this cycle
    ("symmetry", "i4"),          # of the view in which they were (rt.controller.symmetry)
    ("action", "f4", (3,)),      # the chosen one
    ("predicted_m", "f4"),       # distance for staying
    ("predicted_best_m", "f4"),  # distance of the chosen one
    ("true_m", "f4"),            # true distance, where it is known
    ("stage_ms", "f4", (STAGES,)),
    ("slack_s", "f8"),           # left of the period when the cycle before was done (negative: late)
    ("missed", "i8"),            # deadlines missed so far
    ("held", "i8"),              # cycles held so far
    ("guard_counts", "u4", (GUARD_ROWS,)),  # how often each row has interfered so far
    ("guard_name", "S32"),       # the row that interfered in this cycle (the last of several); empty: none
    ("guard_action", "S8"),      # warn, clamp, hold or stop
    ("guard_value", "f8"),
    ("guard_limit", "f8"),
    ("gripper", "S16"),          # open, closing, object, closed, ...; empty: none
    ("gripper_m", "f8"),         # its opening
    ("settings", "f8", (3,)),    # of the controller: speed slider, speed scaling, payload [kg]
    ("target", "f8", (2,)),      # the wanted object, x, y [m] in base; NaN: any object
    ("tried", "i4"),             # picks begun by a job so far (rt.clear)
    ("placed", "i4"),            # objects put down by it so far
], align=True)
# fmt: on
"""One cycle. Numbers that are not known are NaN."""


def _blank() -> NDArray[np.void]:
    blank = np.zeros(1, CYCLE)
    for name in CYCLE.names or ():
        if CYCLE[name].base.kind == "f" and name != "view":
            blank[name] = np.nan
    blank["frame"] = -1
    return blank


BLANK = _blank()
"""(1,) of CYCLE: a record of which nothing is known."""


def best_candidates(
    actions: NDArray[np.float32], distances: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kept part of (N, 3) actions and their (N,) distances: the first (staying), then the best of the others,
    best first; (K, 3) and (K,), NaN beyond the last."""
    kept_actions, kept = np.full((K, 3), np.nan, np.float32), np.full(K, np.nan, np.float32)
    n = len(distances)
    others = distances[1:]
    best = np.argpartition(others, K - 2)[: K - 1] if n > K else np.arange(n - 1)
    order = 1 + best[np.argsort(others[best], kind="stable")]
    kept_actions[0], kept[0] = actions[0], distances[0]
    kept_actions[1 : 1 + len(order)], kept[1 : 1 + len(order)] = actions[order], distances[order]
    return kept_actions, kept


def simulated(header: Mapping[str, Any]) -> bool:
    """True if a flight's header says that its cell was simulated (older ones say only its name)."""
    cell = header.get("cell") or {}
    return bool(cell.get("simulated", cell.get("name") == "twin"))
