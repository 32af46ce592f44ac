"""rt.guard.reach: a way that the joints cannot follow is seen before anything moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rt.guard.reach import ReachQuery, survey
from rt.guard.rows import Limits
from rt.pose import inverse, top_down
from rt.robot.kinematics import ARMS, joint_frames, joints_at
from rt.robot.ur_pose import transform

T_FLANGE_HAND = transform((0, 0, 0.163, 0, 0, 0))
DOWN_Q = np.array([0.0, -1.5708, -1.5708, -1.5708, 1.5708, 0.0])
LIMITS = Limits(workspace_min_m=(-0.9, -0.6), workspace_max_m=(0.9, 0.6))


def way(x: float, y: float, z: float = 0.36, yaw: float = 0.0, arm: str = "UR5e") -> ReachQuery:
    model = ARMS[arm]
    T = top_down(x, y, z, yaw)
    near = DOWN_Q.copy()
    here = joint_frames(model, near)[6]
    near[0] += np.arctan2(y, x) - np.arctan2(here[1, 3], here[0, 3])
    q = joints_at(model, T, T_FLANGE_HAND, near)
    return ReachQuery(model, q, T, np.eye(4), 0.30, 0.002)


def test_a_usual_cell_has_nothing_wrong() -> None:
    assert survey(way(-0.45, -0.1), LIMITS) == ("", "")


def test_a_table_that_is_too_far_below_or_away_is_seen() -> None:
    below, aside = survey(way(-0.72, 0.0), LIMITS)
    assert below == "" and ("elbow" in aside or "does not reach" in aside)
    # The same place over a table 80 cm lower: what is reached up here is not reached down there.
    low = way(-0.72, 0.0)
    table = transform((0, 0, -0.8, 0, 0, 0))
    there = replace(low, T_robot_base=table, T_base_hand=inverse(table) @ low.T_base_hand)
    below, _ = survey(there, LIMITS)
    assert "elbow" in below or "does not reach" in below


def test_above_the_base_is_seen() -> None:
    below, aside = survey(way(-0.24, 0.0), LIMITS)
    assert below == "" and ("shoulder" in aside or "does not reach x -0.09" in aside)
    # A workspace that keeps the hand away has nothing wrong with it.
    narrow = replace(LIMITS, workspace_max_m=(-0.24, 0.6))
    assert survey(way(-0.40, 0.0), narrow) == ("", "")


def test_a_joint_near_its_end_is_seen_before_it_turns_there() -> None:
    wound = way(-0.45, -0.1)
    q = wound.q.copy()
    q[5] += np.radians(300)  # a hand turned by a whole turn less a little: in range as it is
    q[5] -= np.radians(360) if q[5] > np.radians(340) else 0.0
    turned = joint_frames(wound.arm, q)[6] @ T_FLANGE_HAND
    wound = replace(wound, q=q, T_base_hand=turned)
    room = 360 - abs(np.degrees(q[5]))
    below, aside = survey(wound, LIMITS)
    assert below == ""
    assert ("joint_limit: wrist 3" in aside) == (room < 100), (room, aside)
    below, _ = survey(wound, replace(LIMITS, joint_max_deg=(360,) * 5 + (np.degrees(q[5]) + 5,)))
    assert below.startswith("joint_limit: wrist 3 would be at")


@pytest.mark.parametrize("arm", ["UR3e", "UR10", "UR16e", "UR20"])
def test_every_model_has_a_place_where_all_is_well(arm: str) -> None:
    model = ARMS[arm]
    out_m = 0.5 * (abs(model.a_m[1]) + abs(model.a_m[2])) + 0.05
    limits = replace(LIMITS, workspace_min_m=(-2.0, -2.0), workspace_max_m=(2.0, 2.0))
    below, _ = survey(way(-out_m, -0.05, 0.30, arm=arm), limits)
    assert below == ""
