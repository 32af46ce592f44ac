"""Algorithm 1 (Viereck et al. 2017), one period at a time: from a depth image to a streamed command."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt import controller
from rt.controller import Decision
from rt.controller.motion import scene_velocity_m_s
from rt.guard.rows import CycleState, Hold
from rt.loop import (
    Loop,
    brake,
    hold,
    newest_frame,
    operator_request,
    send,
    sense,
)
from rt.outcome import ScoredView
from rt.record.cycle import record_cycle
from rt.robot.target import xyz_yaw
from rt.view import close_gaps

_SLOW = 0.25
"""Part of each move that is made while the page asks for slow motion."""


@dataclass(frozen=True)
class Step:
    """One period, as `for step in servo` yields it."""

    number: int
    """Of the period, from 1."""
    phase: str
    """start, choose, approach, paused, look, descend, close, lift or retreat."""
    hand: NDArray[np.float64]
    """(4,) measured: x, y, z [m], yaw [rad] in base."""
    command: NDArray[np.float64]
    """(4,) the arm's target, like `hand`."""
    decision: Decision | None = None
    """The controller's choice; None in a held cycle and in other phases than approach."""
    held: str = ""
    """Why the guard held the arm in this cycle, or empty."""

    @property
    def distances(self) -> NDArray[np.float32] | None:
        """(N,) of the candidates [m]; the first is that of staying."""
        return None if self.decision is None else self.decision.distances


def cycle(loop: Loop) -> Decision:
    """One period of Algorithm 1, from a depth image to a streamed command.

    Raises Hold (nothing is sent: the arm keeps its target) or Stop, as the guard decides.
    """
    config, guard, watch = loop.config, loop.guard, loop.watch
    frame = view = decision = s = None
    try:
        # The hand's pose now, and at the exposure of the newest frame.
        s = sense(loop, "approach")
        frame = newest_frame(loop, s)
        guard.check("frame", loop.number, s)
        assert frame is not None  # or the guard would have held
        T_base_hand = loop.history.at(frame.stamp_ns)
        watch.lap("camera")

        # I: the depth image, in the view that the network knows.
        view = loop.reproject(frame.depth)
        s.view_filled = float(np.count_nonzero(view)) / view.size
        s.same_views = loop.repeated.count(frame, view, xyz_yaw(T_base_hand))
        closed = close_gaps(view)
        if loop.camera_watch is not None:
            still = not scene_velocity_m_s(loop.controller).any()
            s.place = loop.camera_watch.look(
                frame.depth, closed, T_base_hand, frame.stamp_ns, still
            )
        guard.check("view", loop.number, s)
        loop.keep(frame, T_base_hand)
        loop.look_around(view, s, frame)
        view = closed
        watch.lap("view")

        # d(I, a) for candidates a around the hand, the best of them, and part of the way there from the
        # arm's target. The goal is a place in base, so the arm may have moved on since the exposure.
        loop.refresh(frame.stamp_ns)
        decision = loop.controller(loop.distance, view, xyz_yaw(T_base_hand), loop.commanded)
        s.distances = decision.distances
        loop.score(ScoredView(view, decision.actions, decision.distances))
        guard.check("answer", loop.number, s)
        loop.trust(frame.stamp_ns)
        loop.probability = decision.probability
        watch.lap("distance")

        # The move, bounded and perhaps disturbed, and one step down.
        slow = _SLOW if operator_request(loop, "slow") else 1.0
        move = loop.pace.bound(decision.move * slow, s.period_s)
        if config.noise:
            move = controller.disturb(loop.noise_rng, move, config.noise)
        command = loop.commanded + np.array([move[0], move[1], 0, move[2]])
        command[2] = controller.descend(loop.commanded[2], loop.descent_m * slow, loop.end_m)
        send(loop, s, command)
        loop.end_above(s, move)
        watch.whole("whole")
        trace(loop, s, frame.number, decision)
        return decision
    finally:
        record_cycle(loop, s, frame, view, decision)


def trace(loop: Loop, s: CycleState, frame: int, decision: controller.Decision) -> None:
    """Add one entry of servo.json; nothing in it comes from the wall clock, so the same seed repeats it."""
    true = loop.cell.true_distance_m
    loop.trace.append(
        {
            "cycle": loop.done + loop.held,
            "time_s": loop.robot.now_ns() * 1e-9,
            "frame": frame,
            "frame_age_s": s.frame_age_s,
            "hand": s.hand.tolist(),
            "goal": decision.goal.tolist(),
            "command": s.command.tolist(),
            "action": decision.actions[decision.best].tolist(),
            "predicted_m": float(s.distances[0]),
            "predicted_best_m": float(s.distances[decision.best]),
            "probability": decision.probability,
            "true_m": true() if true else None,
        }
    )


def cycle_or_hold(loop: Loop) -> Step:
    """One cycle. If the guard holds it: the last target again, since one held cycle alone need not jerk the
    arm; from the second in a row on the arm brakes."""
    try:
        decision = cycle(loop)
    except Hold as reason:
        (brake if loop.held_in_a_row else hold)(loop)
        loop.count(held=True)
        return step_of(loop, held=str(reason))
    loop.count(held=False)
    return step_of(loop, decision)


def pause(loop: Loop) -> Step:
    """One cycle in which the arm keeps its target at the live page's request."""
    s = sense(loop, "paused")
    loop.count_pause()
    hold(loop)
    loop.wanted.hear(loop.record)
    record_cycle(loop, s)
    return step_of(loop)


def choose(loop: Loop) -> Step:
    """One cycle in which the arm keeps its target and the live page is shown what the camera sees, for a
    click on the wanted object."""
    s = sense(loop, "choose")
    loop.count_pause()
    hold(loop)
    loop.wanted.hear(loop.record)
    frame = newest_frame(loop, s)
    view = None if frame is None or s.other_intrinsics else close_gaps(loop.reproject(frame.depth))
    record_cycle(loop, s, frame, view)
    return step_of(loop)


def step_of(loop: Loop, decision: Decision | None = None, held: str = "") -> Step:
    return Step(loop.number, loop.phase, loop.hand, loop.commanded, decision, held)
