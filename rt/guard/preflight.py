"""Checks before anything moves, as rows of the guard: the model's contract, the reach of the joints."""

from __future__ import annotations

import sys

import numpy as np

from rt.cell.open import Devices
from rt.cell.plausible import check_limits
from rt.distance import Distance, ModelError
from rt.guard.reach import ReachQuery, survey
from rt.guard.rows import CycleState, Guard, Limits
from rt.hand import load_hand
from rt.loop import Loop
from rt.pose import METRES_PER_DEGREE
from rt.view import START_HEIGHT_M, VIEW


def check_model(distance: Distance, devices: Devices) -> None:
    """Refuse a model that was made for something else, or to whose end height the limits let no hand come,
    before anything is opened. Raises Stop, CellError."""
    wanted = {k: v for k, v in devices.contract.items() if v}
    nowhere, limits = np.zeros(4), devices.setup.limits or Limits()
    check_limits(limits, distance.contract.end_height_m)
    s = CycleState(limits, 1.0, nowhere, nowhere)
    try:
        distance.contract.require(
            hand=load_hand(devices.hand), view=VIEW, metres_per_degree=METRES_PER_DEGREE, **wanted
        )
    except ModelError as error:
        s.wrong_model, s.details["wrong_model"] = 1, str(error)
    Guard(limits).check("start", 0, s)


def check_reach(loop: Loop, to_start: bool, grasps: bool) -> None:
    """Refuse to begin where the joints cannot follow straight down to the end of this run; say so where
    they could not farther aside. Raises Stop. Of an arm that is not known nothing can be said."""
    state = loop.robot.state()
    if loop.arm is None or state.q is None:
        return
    here_m = float(loop.commanded[2])
    way = ReachQuery(
        arm=loop.arm,
        q=state.q,
        T_base_hand=state.T_base_hand,
        T_robot_base=getattr(loop.robot, "T_robot_base", np.eye(4)),
        start_m=START_HEIGHT_M if to_start else here_m,
        lowest_m=loop.limits.min_grasp_height_m if grasps else min(loop.end_m, here_m),
    )
    below, aside = survey(way, loop.limits)
    if aside:
        loop.cell.info["reach"] = aside
        print(f"rt.servo: if the hand is led there, it will be stopped: {aside}", file=sys.stderr)
    s = CycleState(loop.limits, loop.period_s, loop.commanded, loop.commanded, state=state)
    if below:
        s.out_of_reach, s.details["reach"] = 1, below
    loop.guard.check("start", 0, s)
