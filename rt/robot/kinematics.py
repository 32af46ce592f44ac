"""The arms of Universal Robots as chains of six joints: frames, Jacobian, joints for a pose, singularities.

Lengths are the maker's nominal Denavit-Hartenberg parameters ("DH Parameters for calculations of
kinematics and dynamics", universal-robots.com, articles); an arm's own, which its controller
calibrates, differ by up to some millimetres. Joint ranges and speeds are the user manuals'. Frames:
`base` is the arm's own base, `flange` its tool flange without any tool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.robot.ur_pose import difference, pose_vector

Array = NDArray[np.float64]
Six = tuple[float, float, float, float, float, float]

JOINTS = ("base", "shoulder", "elbow", "wrist 1", "wrist 2", "wrist 3")
ALPHA = (math.pi / 2, 0.0, 0.0, math.pi / 2, -math.pi / 2, 0.0)
RANGE_DEG = 360.0
"""Every joint of every model goes so far to either side (wrist 3 of a UR3 and UR3e has no end)."""


@dataclass(frozen=True)
class ArmModel:
    """One model of arm."""

    name: str
    a_m: Six
    """Denavit-Hartenberg a of each joint."""
    d_m: Six
    max_speed_deg_s: Six
    """Fastest that each joint turns."""

    @property
    def reach_m(self) -> float:
        """Farthest that the middle of the wrist can be from the shoulder, in the plane of the arm."""
        return abs(self.a_m[1]) + abs(self.a_m[2]) + self.d_m[4]


def _arm(
    name: str, d1: float, a2: float, a3: float, d4: float, d5: float, d6: float, speeds: Six
) -> ArmModel:
    return ArmModel(name, (0.0, a2, a3, 0.0, 0.0, 0.0), (d1, 0.0, 0.0, d4, d5, d6), speeds)


_SMALL: Six = (180.0, 180.0, 180.0, 360.0, 360.0, 360.0)
_MIDDLE: Six = (180.0,) * 6
_LARGE: Six = (120.0, 120.0, 180.0, 180.0, 180.0, 180.0)
_HEAVY: Six = (120.0, 120.0, 150.0, 210.0, 210.0, 210.0)

# fmt: off
ARMS: dict[str, ArmModel] = {arm.name: arm for arm in (
    #     name    d1        a2        a3        d4        d5       d6
    _arm("UR3",   0.1519,   -0.24365, -0.21325, 0.11235,  0.08535, 0.0819, _SMALL),
    _arm("UR5",   0.089159, -0.425,   -0.39225, 0.10915,  0.09465, 0.0823, _MIDDLE),
    _arm("UR10",  0.1273,   -0.612,   -0.5723,  0.163941, 0.1157,  0.0922, _LARGE),
    _arm("UR3e",  0.15185,  -0.24355, -0.2132,  0.13105,  0.08535, 0.0921, _SMALL),
    _arm("UR5e",  0.1625,   -0.425,   -0.3922,  0.1333,   0.0997,  0.0996, _MIDDLE),
    _arm("UR10e", 0.1807,   -0.6127,  -0.57155, 0.17415,  0.11985, 0.11655, _LARGE),
    _arm("UR16e", 0.1807,   -0.4784,  -0.36,    0.17415,  0.11985, 0.11655, _LARGE),
    _arm("UR20",  0.2363,   -0.8620,  -0.7287,  0.2010,   0.1593,  0.1543, _HEAVY),
    _arm("UR30",  0.2363,   -0.6370,  -0.5037,  0.2010,   0.1593,  0.1543, _HEAVY),
)}
# fmt: on
_RENAMED = {"UR7e": "UR5e", "UR12e": "UR10e"}
"""The same lengths under a newer name."""
_NAMED_WITHIN_M, _FOUND_WITHIN_M = 0.03, 0.01


def model_name(decision: str, major_version: int) -> str:
    """The model of an arm whose dashboard calls it `told`: an e-Series (PolyScope 5 on) says UR5 too."""
    name = decision.strip().upper().removesuffix("E")
    name = next((known for known in (name + "e", name) if known in {**ARMS, **_RENAMED}), name)
    if major_version < 5:
        name = name.removesuffix("e")
    return _RENAMED.get(name, name)


def recognise(name: str, q: Array, T_base_flange: Array) -> tuple[ArmModel | None, float]:
    """The model of that name if it puts the flange, at joints (6,), where the controller says (4, 4); else
    the one that does; else None. And how far off it is [m]."""

    def off_m(arm: ArmModel) -> float:
        return float(np.linalg.norm(joint_frames(arm, q)[6, :3, 3] - T_base_flange[:3, 3]))

    if name in ARMS and (error_m := off_m(ARMS[name])) < _NAMED_WITHIN_M:
        return ARMS[name], error_m
    best = min(ARMS.values(), key=off_m)
    return (best if off_m(best) < _FOUND_WITHIN_M else None), off_m(best)


def joint_frames(arm: ArmModel, q: Array) -> Array:
    """(7, 4, 4): T_base_k of the base and of the link behind each joint, the last is the flange.

    q: (6,) joint angles [rad]. Joint k (0 to 5) turns about z of frame k, at its origin.
    """
    frames = np.empty((7, 4, 4))
    frames[0] = T = np.eye(4)
    for k, angle in enumerate(q.tolist()):
        c, s = math.cos(angle), math.sin(angle)
        ca, sa, a, d = math.cos(ALPHA[k]), math.sin(ALPHA[k]), arm.a_m[k], arm.d_m[k]
        T = T @ np.array(
            [
                [c, -s * ca, s * sa, a * c],
                [s, c * ca, -c * sa, a * s],
                [0.0, sa, ca, d],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
        frames[k + 1] = T
    return frames


def tool(arm: ArmModel, q: Array, T_flange_tcp: Array) -> tuple[Array, Array]:
    """T_base_tcp (4, 4) and the Jacobian (6, 6): joint speeds to linear and angular velocity in base."""
    frames = joint_frames(arm, q)
    T = frames[6] @ T_flange_tcp
    axes = frames[:6, :3, 2]
    lever = T[:3, 3] - frames[:6, :3, 3]
    J = np.empty((6, 6))
    # axis x lever, written out: np.cross costs ten times as much
    J[0] = axes[:, 1] * lever[:, 2] - axes[:, 2] * lever[:, 1]
    J[1] = axes[:, 2] * lever[:, 0] - axes[:, 0] * lever[:, 2]
    J[2] = axes[:, 0] * lever[:, 1] - axes[:, 1] * lever[:, 0]
    J[3:] = axes.T
    return T, J


def solve(J: Array, twist: Array) -> Array:
    """Joint speeds (6,) for a twist (6,); damped, so that a singular arm is slow and not wild."""
    return np.asarray(np.linalg.solve(J.T @ J + 1e-8 * np.eye(6), J.T @ twist))


def joints_at(
    arm: ArmModel, T_base_tcp: Array, T_flange_tcp: Array, near: Array, tries: int = 200
) -> Array:
    """Joints (6,) that hold the tool there, by Newton's method from `near`; raises ValueError."""
    q = near.copy()
    for _ in range(tries):
        T, J = tool(arm, q, T_flange_tcp)
        error = difference(T, T_base_tcp)
        if np.abs(error).max() < 1e-10:
            return q
        step = solve(J, error)
        q = q + step * min(1.0, 0.3 / max(np.abs(step).max(), 1e-12))
    raise ValueError(f"no joints found for the pose {pose_vector(T_base_tcp).round(4).tolist()}")


SINGULAR = (
    "wrist: wrist 2 is near 0 or 180 deg",
    "elbow: the arm is nearly stretched, or folded",
    "shoulder: the wrist is nearly above the base",
)


def singularity(arm: ArmModel | None, q: Array) -> tuple[float, str]:
    """Distance of joints (6,) to a singular posture, 0 to 90 deg, and the nearest one's name (of SINGULAR).

    The determinant of this kind of arm's Jacobian is a product of three factors (and lengths): sin q5,
    sin q3, and the way from the base's axis to the middle of the wrist in the plane of the arm. It is
    singular where one of them is 0, and nowhere else, whatever the tool; so each is told as an angle,
    the arc sine, the last as a part of the reach. The least singular value of the Jacobian says as
    much, but depends on the tool and on how a metre is weighed against a radian, costs more, and does not
    say what to change. Without a model the shoulder is not looked at.
    """
    _, q2, q3, q4, q5, _ = q.tolist()
    factors = [abs(math.sin(q5)), abs(math.sin(q3))]
    if arm is not None:
        out_m = (
            arm.a_m[1] * math.cos(q2)
            + arm.a_m[2] * math.cos(q2 + q3)
            + arm.d_m[4] * math.sin(q2 + q3 + q4)
        )
        factors.append(min(abs(out_m) / arm.reach_m, 1.0))
    least = min(range(len(factors)), key=factors.__getitem__)
    return math.degrees(math.asin(factors[least])), SINGULAR[least]
