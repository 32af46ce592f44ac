"""rt.robot.kinematics: published arms, their Jacobians, and how near a posture is to a singular one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt.robot.kinematics import (
    ARMS,
    SINGULAR,
    joint_frames,
    joints_at,
    model_name,
    recognise,
    singularity,
    tool,
)
from rt.robot.ur_pose import difference, transform

DOWN_Q = np.array([0.0, -1.5708, -1.5708, -1.5708, 1.5708, 0.0])
T_FLANGE_TCP = transform((0.01, 0.02, 0.16, 0.1, 0.2, 0.3))

arms = st.sampled_from(list(ARMS.values()))
joints = st.lists(st.floats(-6.3, 6.3), min_size=6, max_size=6).map(np.array)


@pytest.mark.parametrize("name", ARMS)
def test_at_zero_it_lies_along_minus_x_and_upright_it_stands(name: str) -> None:
    """As on the pendant; lengths and offsets add up."""
    arm = ARMS[name]
    (_, a2, a3, *_), (d1, _, _, d4, d5, d6) = arm.a_m, arm.d_m
    np.testing.assert_allclose(
        joint_frames(arm, np.zeros(6))[6, :3, 3], [a2 + a3, -d4 - d6, d1 - d5], atol=1e-12
    )
    upright = joint_frames(arm, np.radians([0.0, -90, 0, -90, 0, 0]))
    np.testing.assert_allclose(upright[6, :3, 3], [0, -d4 - d6, d1 - a2 - a3 + d5], atol=1e-12)
    np.testing.assert_allclose(upright[3, :3, 3], [0, 0, d1 - a2 - a3], atol=1e-12)


def test_the_flange_of_a_ur5e_is_where_the_maker_says() -> None:
    T = joint_frames(ARMS["UR5e"], np.zeros(6))[6]
    np.testing.assert_allclose(T[:3, 3], [-0.8172, -0.2329, 0.0628], atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(arms, joints)
def test_frames_are_rigid_and_joints_turn_about_their_z(arm, q: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    frames = joint_frames(arm, q)
    assert frames.shape == (7, 4, 4)
    np.testing.assert_array_equal(frames[0], np.eye(4))
    np.testing.assert_allclose(
        frames[:, :3, :3] @ frames[:, :3, :3].transpose(0, 2, 1),
        np.tile(np.eye(3), (7, 1, 1)),
        atol=1e-12,
    )
    np.testing.assert_allclose(np.linalg.det(frames), 1, atol=1e-12)
    for k in range(6):
        turned = joint_frames(arm, q + 0.3 * np.eye(6)[k])
        axis, origin = frames[k, :3, 2], frames[k, :3, 3]
        turn = transform((0, 0, 0, *(0.3 * axis)))
        turn[:3, 3] = origin - turn[:3, :3] @ origin
        np.testing.assert_allclose(turned[k + 1 :], turn @ frames[k + 1 :], atol=1e-12)
        np.testing.assert_allclose(turned[: k + 1], frames[: k + 1], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(arms, st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6))
def test_the_jacobian_is_the_derivative_and_joints_are_found_again(arm, turn: list[float]) -> None:  # type: ignore[no-untyped-def]
    q = DOWN_Q + turn
    T, J = tool(arm, q, T_FLANGE_TCP)
    for k in range(6):
        moved, _ = tool(arm, q + 1e-6 * np.eye(6)[k], T_FLANGE_TCP)
        np.testing.assert_allclose(difference(T, moved) / 1e-6, J[:, k], atol=1e-5)
    if singularity(arm, q)[0] > 10:
        there = joints_at(arm, T, T_FLANGE_TCP, DOWN_Q)
        np.testing.assert_allclose(tool(arm, there, T_FLANGE_TCP)[0], T, atol=1e-8)


@settings(max_examples=100, deadline=None)
@given(arms, joints)
def test_the_determinant_is_the_product_of_what_is_told(arm, q: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """|det J| = |sin q5 sin q3 a2 a3 out|, whatever the tool: so what is told is 0 where the arm is singular,
    and only there."""
    det = abs(np.linalg.det(tool(arm, q, T_FLANGE_TCP)[1]))
    wrist = abs(np.sin(q[4]))
    elbow = abs(np.sin(q[2]))
    frames = joint_frames(arm, q)
    forward = np.array([np.cos(q[0]), np.sin(q[0]), 0.0])
    out_m = abs(frames[5, :3, 3] @ forward)
    assert det == pytest.approx(wrist * elbow * arm.a_m[1] * arm.a_m[2] * out_m, abs=1e-9)
    told_deg, which = singularity(arm, q)
    assert 0 <= told_deg <= 90 and which in SINGULAR
    least = min(wrist, elbow, out_m / arm.reach_m)
    assert np.sin(np.radians(told_deg)) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize(
    ("q_deg", "which", "angle_deg"),
    [
        ([10, -100, -90, -80, 4, 0], "wrist", 4),
        ([10, -100, -5, -80, 80, 0], "elbow", 5),
        ([10, -100, -5, -80, -178, 0], "wrist", 2),
    ],
)
def test_the_nearest_singularity_is_named(q_deg: list[float], which: str, angle_deg: float) -> None:
    for arm in (ARMS["UR10"], None):
        told_deg, said = singularity(arm, np.radians(q_deg))
        assert said.startswith(which) and told_deg == pytest.approx(angle_deg)


def test_a_wrist_above_the_base_is_singular_too() -> None:
    q = np.radians([30.0, -135, 90, 45, 90, 0])  # upper arm back, forearm forward again, as much
    told_deg, said = singularity(ARMS["UR5e"], q)
    assert said.startswith("shoulder")
    assert np.sin(np.radians(told_deg)) == pytest.approx((0.425 - 0.3922) * np.sqrt(0.5) / 0.9169)
    assert singularity(None, q)[0] > 40  # which takes a model


def test_the_model_is_known_by_its_name_or_by_where_its_flange_is() -> None:
    assert [model_name(n, 5) for n in ("UR5", "UR16", "UR20", "UR7e", "ur12")] == [
        *("UR5e", "UR16e", "UR20", "UR5e"),
        "UR10e",
    ]
    assert model_name("UR5", 3) == "UR5" and model_name("could not", 5) == "COULD NOT"
    for name, arm in ARMS.items():
        T = joint_frames(arm, DOWN_Q)[6]
        T[:3, 3] += [0.004, -0.003, 0.005]  # as calibrated
        found, error_m = recognise(name, DOWN_Q, T)
        assert found is arm and error_m == pytest.approx(np.sqrt(50e-6))
        assert recognise("COULD NOT", DOWN_Q, T)[0] is arm
        other = "UR20" if name != "UR20" else "UR10"
        assert recognise(other, DOWN_Q, T)[0] is arm
    T[:3, 3] += 0.5
    assert recognise("UR5e", DOWN_Q, T)[0] is None
