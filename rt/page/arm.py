"""The arm of the 3-D half of the page: a UR's links as round bars from joint to joint.

Simple shapes of the model's own lengths (rt.robot.kinematics), no meshes: nothing is to be fetched, and
the page stays small. Where the record holds no joints, or they are no known arm's, there is no arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
import viser
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rt.pose import inverse
from rt.robot.kinematics import ARMS, ArmModel, joint_frames, recognise

Array = NDArray[np.float64]

_TUBE, _HOUSING, _TOOL = (205, 209, 214), (112, 128, 148), (150, 158, 168)
_UR5E_TUBES_M = 0.8172
"""Upper arm and forearm of the arm whose radii are given below."""
_TOOL_RADIUS_M = 0.031


@dataclass(frozen=True)
class Mounting:
    """Which arm stands where, and where it holds the hand."""

    model: ArmModel
    T_base_robot: Array
    """(4, 4): the arm's own base in the frame that the page draws in."""
    T_flange_hand: Array


def mounting(header: Mapping[str, Any], q: Array, T_base_hand: Array) -> Mounting | None:
    """The arm of a flight: the one that its header names, else the one whose joints (6,) put the hand
    where it was; None if there is none, as on the twin."""
    cell = header.get("cell") or {}
    if "T_flange_hand" not in cell or not (np.isfinite(q).all() and np.isfinite(T_base_hand).all()):
        return None
    T_robot_base = np.array(cell.get("T_robot_table", np.eye(4)), np.float64)
    T_flange_hand = np.array(cell["T_flange_hand"], np.float64)
    model = ARMS.get(str((cell.get("controller") or {}).get("arm", "")))
    if model is None:
        model, _ = recognise("", q, T_robot_base @ T_base_hand @ inverse(T_flange_hand))
    return None if model is None else Mounting(model, inverse(T_robot_base), T_flange_hand)


class ArmLinks:
    """The links, each a node of its own that is moved; `show` takes the joints."""

    def __init__(self, scene: viser.SceneApi, mounting: Mounting) -> None:
        self._mounting = mounting
        T = mounting.T_base_robot
        self._node = scene.add_frame(
            "/arm", show_axes=False, wxyz=wxyz(T[:3, :3]), position=T[:3, 3]
        )
        self._links = []
        for k, bars in enumerate(links(mounting.model)):
            link = scene.add_frame(f"/arm/{k}", show_axes=False)
            for i, (a, b, radius, colour) in enumerate(bars):
                _bar(scene, f"/arm/{k}/{i}", a, b, radius, colour, stands=k == 0)
            self._links.append(link)

    def tool(self, scene: viser.SceneApi, back_m: float) -> None:
        """Draw the mount of the hand: from the flange to the palm's back, `back_m` behind the fingertips."""
        flange = inverse(self._mounting.T_flange_hand)[:3, 3]
        palm = np.array([0.0, 0.0, -back_m])
        if np.linalg.norm(flange - palm) > 0.005 and flange[2] < palm[2]:
            _bar(scene, "/hand/tool", flange, palm, _TOOL_RADIUS_M, _TOOL)

    def look_from(self, T_base_hand: Array) -> tuple[Array, Array]:
        """Point to look at and offset of the viewer (3,) [m]: hand in front, the arm's base behind it."""
        base, hand = self._mounting.T_base_robot[:3, 3], T_base_hand[:3, 3]
        out = hand[:2] - base[:2]
        reach = max(float(np.linalg.norm(out)), 0.3)
        out = out / reach
        at = np.array([*(0.7 * hand[:2] + 0.3 * base[:2]), base[2] + 0.24])
        beside = 0.8 * out + 1.1 * np.array([-out[1], out[0]])
        return at, (0.55 + reach) * np.array([*beside, 0.6])

    def show(self, q: Array) -> None:
        """Joint angles (6,) [rad]; not finite: they are not known, and no arm is shown."""
        self._node.visible = bool(np.isfinite(q).all())
        if not self._node.visible:
            return
        frames = joint_frames(self._mounting.model, q)[1:]
        turns = wxyz(frames[:, :3, :3])
        for link, turn, frame in zip(self._links[1:], turns, frames, strict=True):
            link.wxyz, link.position = turn, frame[:3, 3]


def links(model: ArmModel) -> list[list[tuple[Array, Array, float, tuple[int, int, int]]]]:
    """Of each of the 7 links, the base first: round bars as (from, to, radius [m], colour), the points in
    the link's own frame (rt.robot.kinematics.joint_frames).

    The upper arm runs beside the others, as far to the side as the wrist comes out again: the table of
    Denavit and Hartenberg has only the sum of both, at the wrist.
    """
    F = joint_frames(model, np.zeros(6))
    o, z = F[:, :3, 3], F[:, :3, 2]
    aside = o[4] - o[3]
    up = z[0]
    scale = float(np.sqrt((abs(model.a_m[1]) + abs(model.a_m[2])) / _UR5E_TUBES_M))
    column = model.d_m[0]
    bars = [
        [(o[0], o[0] + up * column * 0.5, 0.072, _HOUSING)],
        [
            (o[1] - up * column * 0.5, o[1], 0.060, _TUBE),
            (o[1], o[1] + aside, 0.060, _HOUSING),
        ],
        [
            (o[1] + aside, o[2] + aside, 0.053, _TUBE),
            (o[2] + aside, o[2], 0.053, _HOUSING),
        ],
        [(o[2], o[3], 0.044, _TUBE)],
        [(o[3], o[4], 0.040, _HOUSING)],
        [(o[4], o[5], 0.040, _HOUSING)],
        [(o[5], o[6], 0.034, _TUBE)],
    ]
    local = [inverse(T) for T in F]
    return [
        [
            (T[:3, :3] @ a + T[:3, 3], T[:3, :3] @ b + T[:3, 3], radius * scale, colour)
            for a, b, radius, colour in of
        ]
        for T, of in zip(local, bars, strict=True)
    ]


def _bar(
    scene: viser.SceneApi,
    name: str,
    a: Array,
    b: Array,
    radius_m: float,
    colour: tuple[int, int, int],
    stands: bool = False,
) -> None:
    """A cylinder from a to b with round ends; one that stands on the table is flat at a."""
    parts = [trimesh.creation.cylinder(radius_m, segment=[a, b], sections=28, cap=False)]
    for end in (b,) if stands else (a, b):
        ball = trimesh.creation.icosphere(subdivisions=2, radius=radius_m)
        parts.append(ball.apply_translation(end))
    mesh: Any = trimesh.util.concatenate(parts)
    scene.add_mesh_simple(
        name,
        np.asarray(mesh.vertices, np.float32),
        np.asarray(mesh.faces, np.uint32),
        color=colour,
        cast_shadow=False,
        receive_shadow=False,
    )


def wxyz(R: Array) -> Array:
    """Rotations (..., 3, 3) as viser's quaternions (..., 4)."""
    return np.asarray(Rotation.from_matrix(R).as_quat()[..., [3, 0, 1, 2]])
