"""rt.job.path: speed, acceleration, corners, and the judgement before a path starts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt.guard.limits import Limits
from rt.job.path import Path, PathError, PathLimits, Reachable, Retrace, around_base, planned
from rt.pose import inverse, top_down
from rt.robot.kinematics import ARMS, joint_frames, joints_at

PACE = PathLimits(0.5, 2.0, 2.0, 8.0)
ARM = ARMS["UR5e"]
T_FLANGE_HAND = np.eye(4)
T_FLANGE_HAND[2, 3] = 0.163


def hand(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*(st.floats(-0.5, 0.5) for _ in range(3)), st.floats(-3, 3)),
        min_size=2,
        max_size=5,
    )
)
def test_a_path_begins_and_ends_at_rest_and_keeps_its_limits(
    points: list[tuple[float, ...]],
) -> None:
    path = Path([hand(*p) for p in points], PACE)
    assert np.allclose(path.at(0.0), points[0]) and np.allclose(path.at(path.seconds), points[-1])
    assert np.allclose(path.at(path.seconds + 1), points[-1])
    step = 0.001
    hands = np.array([path.at(t) for t in np.arange(-0.01, path.seconds + 0.01, step)])
    speed = np.linalg.norm(np.diff(hands[:, :3], axis=0), axis=1) / step
    change = np.diff(hands[:, :3], 2, axis=0) / step**2
    # Two lines overlap in a corner: each keeps the limit by itself.
    assert speed.max(initial=0) <= 2 * PACE.speed_m_s + 1e-6
    assert np.linalg.norm(change, axis=1).max(initial=0) <= 2 * PACE.acceleration_m_s2 + 1e-3


def test_a_single_line_reaches_its_full_speed_and_no_more() -> None:
    path = Path([hand(0, 0, 0.3, 0), hand(0.4, 0, 0.3, 0)], PACE)
    assert path.seconds == pytest.approx(0.4 / 0.5 + 0.5 / 2.0)
    xs = np.array([path.at(t)[0] for t in np.arange(0, path.seconds, 0.001)])
    assert np.diff(xs).max() / 0.001 == pytest.approx(0.5, rel=1e-3)


def test_a_corner_is_rounded_and_not_stopped_in() -> None:
    corner = hand(0, 0, 0.3, 0)
    path = Path([hand(0, 0, 0, 0), corner, hand(0.4, 0, 0.3, 0)], PACE)
    hands = np.array([path.at(t) for t in np.arange(0, path.seconds, 0.002)])
    speed = np.linalg.norm(np.diff(hands[:, :3], axis=0), axis=1) / 0.002
    assert speed[50:-150].min() > 0.2
    off = np.linalg.norm(hands[:, :3] - corner[:3], axis=1).min()
    assert 0 < off < 0.5**2 / (4 * 2.0)


def test_outside_the_workspace_or_too_low_is_named_before_anything_moves() -> None:
    reachable = Reachable(Limits())
    for goal, word in ((hand(0.7, 0, 0.3, 0), "workspace"), (hand(0, 0, 0.7, 0), "height")):
        with pytest.raises(PathError, match=word):
            planned([hand(0, 0, 0.3, 0), goal], PACE, reachable)


def ur(x: float, y: float, z: float = 0.3) -> Reachable:
    T = top_down(x, y, z, 0.0)
    near = np.radians([math.degrees(math.atan2(y, x)) + 180, -90, -90, -90, 90, 0])
    q = joints_at(ARM, T, T_FLANGE_HAND, near)
    assert np.allclose(joint_frames(ARM, q)[6] @ T_FLANGE_HAND, T, atol=1e-6)
    limits = Limits(workspace_min_m=(-1.2, -1.2), workspace_max_m=(1.2, 1.2))
    return Reachable(limits, ARM, q, T, np.eye(4))


def test_out_of_reach_of_the_arm_is_named() -> None:
    with pytest.raises(PathError, match=r"does not reach|singularity"):
        planned([hand(-0.45, 0, 0.3, 0), hand(-1.1, 0, 0.3, 0)], PACE, ur(-0.45, 0))


def test_a_line_across_the_base_becomes_an_arc_around_it() -> None:
    a, b = hand(-0.5, 0.05, 0.3, 0), hand(0.45, 0.2, 0.3, 0)
    path = planned([a, b], PACE, ur(-0.5, 0.05))
    radii = [math.hypot(*path.at(t)[:2]) for t in np.linspace(0, path.seconds, 50)]
    assert min(radii) > 0.4 and np.allclose(path.end, b)
    assert not around_base([a, b], Reachable(Limits()))


def test_joints_that_would_turn_too_fast_slow_the_path_down() -> None:
    wild = PathLimits(20.0, 400.0, 30.0, 600.0)
    a, b = hand(-0.5, -0.2, 0.3, 0), hand(-0.5, 0.2, 0.3, 0)
    path = planned([a, b], wild, ur(-0.5, -0.2))
    assert path.seconds > 2 * Path([a, b], wild).seconds
    reachable = ur(-0.5, -0.2)
    why, part = reachable.trouble(path)
    assert why == "" and part == 1.0


def test_the_table_may_stand_elsewhere_than_the_base() -> None:
    """The same way, told in a table's frame that is moved and turned."""
    straight = ur(-0.5, -0.2)
    T_robot_base = np.eye(4)
    T_robot_base[:3, 3] = (0.1, 0.05, -0.02)
    assert straight.T_base_hand is not None
    moved = Reachable(
        straight.limits, ARM, straight.q, inverse(T_robot_base) @ straight.T_base_hand, T_robot_base
    )
    goal = hand(-0.5, 0.2, 0.3, 0)
    shifted = goal - [0.1, 0.05, -0.02, 0]
    begin = hand(-0.5, -0.2, 0.3, 0)
    a = planned([begin, goal], PACE, straight)
    b = planned([begin - [0.1, 0.05, -0.02, 0], shifted], PACE, moved)
    assert a.seconds == pytest.approx(b.seconds)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 1.0), st.tuples(*(st.floats(-0.02, 0.02) for _ in range(3))))
def test_the_way_back_begins_at_the_hand_and_ends_where_the_path_began(
    part: float, aside: tuple[float, ...]
) -> None:
    path = Path([hand(0, 0, 0.15, 0), hand(0, 0, 0.25, 0), hand(0.3, 0.3, 0.25, 1.0)], PACE)
    here = path.at(part * path.seconds) + hand(*aside, 0)
    back = Retrace(path, here, 0.1)
    assert np.allclose(back.at(0.0), here, atol=1e-9)
    assert np.allclose(back.at(back.seconds), path.points[0], atol=1e-9)
    assert np.array_equal(back.end, path.points[0])
    hands = np.array([back.at(t) for t in np.arange(0.0, back.seconds, 0.01)])
    # Two lines overlap in a corner, and what was aside is made up on the way.
    assert np.linalg.norm(np.diff(hands[:, :3], axis=0), axis=1).max(initial=0) / 0.01 < 0.3
