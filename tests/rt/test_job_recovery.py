"""rt.job.recovery: what is held meets something; it is put back, and the job goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_clear import OPTIONS, SPOTS, boxes, go, world_of

from rt.cell.cell import Cell
from rt.cycle import Step
from rt.distance import Distance, open_model
from rt.gripper import GripperState
from rt.gripper.held import REGRIP_S, HeldObject
from rt.job.job import Job
from rt.job.state import DROPPED, MISSED, PLACED
from sim import table
from sim.physics.table import DropBin


@pytest.fixture(scope="module")
def network() -> Distance:
    return open_model()


def pushed(
    cell: Cell, phase: str, force_N: float, seconds: float
) -> tuple[Callable[[Job, Step], None], dict[str, Any]]:
    """Something presses on the hand from above for some time, once, from when that phase is under way."""
    told: dict[str, Any] = {"phases": []}
    world, palm = world_of(cell), world_of(cell).model.body("hand").id
    follow = world.follow

    def pressed(hand: Any, velocity: Any, step_s: float) -> None:
        past_s = (cell.robot.now_ns() - told.get("from", cell.robot.now_ns())) * 1e-9
        world.data.xfrc_applied[palm][2] = -force_N if 0 < past_s < seconds else 0.0
        follow(hand, velocity, step_s)

    world.follow = pressed

    def begin(job: Job, step: Step) -> None:
        told["phases"].append(step.phase)
        away_m = float(np.hypot(*step.hand[:2] - np.array(SPOTS[0][:2])))
        if step.phase == phase and (phase != "carry" or away_m > 0.15):
            told.setdefault("from", cell.robot.now_ns())

    return begin, told


@pytest.mark.parametrize("force_N", [40.0, 80.0])
def test_what_meets_something_is_put_back_and_carried_later(
    network: Distance, force_N: float
) -> None:
    """Below the guard's limit, and beyond it: the guard then stops the arm."""
    cell = table.build(boxes(SPOTS[:1]))
    before = world_of(cell).place(0).copy()
    press, told = pushed(cell, "carry", force_N, 0.4)
    where: list[np.ndarray] = []

    def watch(job: Job, step: Step) -> None:
        press(job, step)
        if step.phase == "retreat" and not where:
            where.append(world_of(cell).place(0).copy())

    report = go(cell, network, hook=watch)
    first, second = report.state.attempts[:2]
    assert first.outcome == DROPPED and first.reason.endswith("put back where it was taken")
    assert ("met something" in first.reason) == (force_N < 50)
    assert ("force" in report.guard) == (force_N > 50)
    assert {"back off", "set down"} <= set(told["phases"])
    assert np.linalg.norm(where[0] - before) < 0.01
    assert second.outcome == PLACED and report.outcome == "cleared"


def test_a_force_that_stays_is_a_stop_with_its_name(network: Distance) -> None:
    cell = table.build(boxes(SPOTS[:1]))
    press, _ = pushed(cell, "carry", 40.0, 60.0)
    report = go(cell, network, hook=press)
    assert report.outcome == "stopped" and report.reason.startswith("contact: on the way back")
    assert "during: back off" in report.reason and report.state.carrying
    assert np.linalg.norm(cell.robot.state().twist) < 1e-3 and world_of(cell).holding


def test_what_presses_on_the_hand_that_stands_is_eased_by_the_way_back(network: Distance) -> None:
    """A bin's wall: the force stays beyond the guard's limit until the hand has moved away from it."""
    cell = table.build(boxes(SPOTS[:1]))
    world, palm = world_of(cell), world_of(cell).model.body("hand").id
    met: dict[str, Any] = {}
    follow = world.follow

    def pressed(hand: Any, velocity: Any, step_s: float) -> None:
        if "far" in met:
            met["far"] = max(met["far"], hand[1])
            met["free"] = met["free"] or hand[1] < met["far"] - 0.015
        beyond = "far" in met and not met["free"]
        world.data.xfrc_applied[palm][1] = -90.0 if beyond else 0.0
        follow(hand, velocity, step_s)

    def begin(job: Job, step: Step) -> None:
        if step.phase == "carry" and step.hand[1] > 0.25:
            met.setdefault("free", False)
            met.setdefault("far", step.hand[1])

    world.follow = pressed
    report = go(cell, network, hook=begin)
    assert report.state.attempts[0].reason.endswith("put back where it was taken")
    assert report.outcome == "cleared" and met["free"] and report.guard["force"] == 1


def test_a_force_on_closing_ends_the_attempt_and_not_the_job(network: Distance) -> None:
    cell = table.build(boxes(SPOTS[:1]))
    press, _ = pushed(cell, "close", 80.0, 0.3)
    report = go(cell, network, hook=press)
    first = report.state.attempts[0]
    assert first.outcome == MISSED and "met something (during: close): force" in first.reason
    assert report.outcome == "cleared" and report.guard["force"] == 1


def test_a_wall_in_the_way(network: Distance) -> None:
    """A bin higher than the way: what is carried meets it, and the job goes on."""
    cell = table.build(boxes(SPOTS[:1]), bin_=DropBin(0.0, 0.45, rim_m=0.24), place=SLOW)
    report = go(cell, network, replace(OPTIONS, tries=1, most=2))
    first = report.state.attempts[0]
    assert first.outcome == DROPPED and first.held and not report.state.carrying
    assert "while carried" in first.reason or "force" in first.reason
    assert report.outcome in ("left", "cleared") and "stopped" not in report.state.ended


SLOW = replace(table.PLACE, speed_m_s=0.25, acceleration_m_s2=1.0)


class Fingers:
    def __init__(self) -> None:
        self.holding = True

    def state(self) -> GripperState:
        return GripperState(0, 0.05, not self.holding, self.holding)


def test_fingers_that_close_on_after_an_object_have_not_lost_it() -> None:
    fingers: Any = Fingers()
    held = HeldObject(fingers)
    assert not held.lost(0)
    fingers.holding = False
    assert not held.lost(10_000_000) and not held.lost(int(10e6 + (REGRIP_S - 0.01) * 1e9))
    fingers.holding = True
    assert not held.lost(200_000_000)
    fingers.holding = False
    assert not held.lost(300_000_000) and held.lost(300_000_000 + int(REGRIP_S * 1e9))


@pytest.mark.parametrize("phase", ["carry", "close"])
def test_a_stop_is_heard_while_the_arm_comes_to_rest_after_a_contact(
    network: Distance, phase: str
) -> None:
    """The force lasts longer than the arm's patience; STOP, from the keyboard or the page, comes before."""
    cell = table.build(boxes(SPOTS[:1]))
    press, _ = pushed(cell, phase, 80.0, 60.0)
    when: dict[str, int] = {}

    def stop(job: Job, step: Step) -> None:
        press(job, step)
        if "force" in job.loop.guard.counts:
            when.setdefault("met", step.number)
            if step.number == when["met"] + 8 and phase == "carry":
                job.loop.requests["stop"] = 1
            elif step.number == when["met"] + 8:
                job.loop.signals.append(2)
        when["last"] = step.number

    report = go(cell, network, hook=stop)
    assert "operator_stop" in report.reason or report.outcome == "interrupted"
    assert when["last"] == when["met"] + 8  # the next period was the stop's
    assert np.linalg.norm(cell.robot.state().twist) < 1e-3


def test_the_keyboard_is_read_in_every_period(network: Distance) -> None:
    """Between two steps too: while the arm comes to rest above the object, nothing is yielded."""
    cell = table.build(boxes(SPOTS[:1]))
    asked: list[int] = []
    with Job(cell, network, OPTIONS) as job:
        listen = job.loop.listen
        job.loop.listen = lambda: (listen(), asked.append(job.loop.number))  # type: ignore[func-returns-value]
        for step in job:
            if step.phase == "release":
                break
    assert np.diff(asked).max() == 1
