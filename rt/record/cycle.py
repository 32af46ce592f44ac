"""One cycle of a run as the flight record keeps it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rt.camera import Frame
from rt.controller import Decision
from rt.guard.rows import ROWS, CycleState
from rt.record.schema import best_candidates

if TYPE_CHECKING:
    from rt.loop import Loop

GRASPING = ("descend", "close", "lift", "retreat", "carry", "back off", "set down", "release")
"""Phases of the last centimetres, and those with something between the fingers."""
_ROW_NUMBER = {row.name: i for i, row in enumerate(ROWS)}


def record_cycle(
    loop: Loop,
    s: CycleState | None,
    frame: Frame | None = None,
    view: NDArray[np.float32] | None = None,
    decision: Decision | None = None,
) -> None:
    """Write this cycle, as far as it came, to the flight record. Costs some tens of microseconds."""
    if loop.record is None:
        return
    known: dict[str, Any] = {**loop.tally}
    if s is not None:
        known.update(hand=s.hand, command=loop.commanded, state_age_s=s.state_age_s)
        state = s.state
        if state is not None:
            known.update(T_base_hand=state.T_base_hand, twist=state.twist)
            known.update(
                {k: v for k in ("q", "wrench", "settings") if (v := getattr(state, k)) is not None}
            )
    if frame is not None and s is not None:
        known.update(frame_stamp_ns=frame.stamp_ns, frame_age_s=s.frame_age_s)
        if view is not None:
            known.update(frame=frame.number, view=view)
    if (wanted := loop.wanted_now) is not None:
        known["target"] = wanted.xy_m
    if decision is not None:
        actions, distances = best_candidates(decision.actions, decision.distances)
        known.update(candidates=actions, distances=distances, weighed=len(decision.actions))
        known.update(symmetry=decision.symmetry)
        known.update(action=decision.actions[decision.best], goal=decision.goal)
        known.update(
            predicted_m=decision.distances[0], predicted_best_m=decision.distances[decision.best]
        )
    true = loop.cell.true_distance_m
    if true is not None:
        known["true_m"] = true()
    if loop.cell.gripper is not None and loop.phase in GRASPING:
        with suppress(Exception):  # the code that closes it reports a fault
            grip = loop.cell.gripper.state()
            known["gripper_m"] = grip.width_m
            known["gripper"] = b"moving" if grip.moving else b"object" if grip.holding else b"idle"
    events = loop.guard.events
    if events and events[-1]["cycle"] == loop.number:
        event = events[-1]
        known.update(guard_name=event["name"].encode(), guard_action=event["action"].encode())
        known.update(guard_value=event["value"], guard_limit=event["limit"])
    counts = np.zeros(64, np.uint32)
    for name, count in loop.guard.counts.items():
        if name in _ROW_NUMBER:
            counts[_ROW_NUMBER[name]] = count
    stages, took_ms = np.full(16, np.nan, np.float32), loop.watch.take_ms()
    stages[: len(took_ms)] = took_ms
    loop.record.put(
        cycle=loop.number,
        stamp_ns=loop.robot.now_ns(),
        phase=loop.phase.encode(),
        slack_s=loop.clock.slack_s,
        missed=loop.clock.missed,
        held=loop.held,
        guard_counts=counts,
        stage_ms=stages,
        **known,
    )
