"""The 3-D half of the page: hand, table, what the camera saw, the way ahead, the goal.

Everything is drawn in `base`. viser takes poses as (wxyz, position).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from rt.controller import RATIO
from rt.hand import Hand
from rt.page.arm import ArmLinks, mounting, wxyz
from rt.pose import top_down
from rt.robot import PoseHistory, RobotState
from rt.view import END_HEIGHT_M, VIEW, View

_STEEL, _PADS, _GOAL = (104, 116, 132), (82, 90, 102), (24, 168, 84)
_FLANGE = (150, 158, 168)
_WAY, _TRAIL, _VIEW_EDGE = (38, 103, 201), (150, 158, 168), (255, 149, 0)
_PALM_HEIGHT_M, _FLANGE_M = 0.055, 0.05
"""Not in the hand file, and drawn only: how far palm and flange reach behind the fingers."""
_TRAIL_LENGTH, _WAY_LENGTH = 150, 60
CLOUDS_HZ = 5.0
"""The scene stands still: its points need not come as often as the hand's pose."""
_TABLE_M = 1.0
_FIELD_OF_VIEW_DEG = 42.0
_HEIGHTS_M = np.array([-0.01, 0.004, 0.02, 0.06, 0.12])
_HEIGHT_COLOURS = np.array(
    [[202, 207, 213], [198, 203, 210], [240, 180, 92], [226, 112, 58], [160, 48, 72]], np.float64
)
"""Of points by their height above the table: the table grey, what stands on it warm."""
_COLOURS: NDArray[np.uint8] = np.stack(
    [
        np.interp(np.linspace(_HEIGHTS_M[0], _HEIGHTS_M[-1], 256), _HEIGHTS_M, c)
        for c in _HEIGHT_COLOURS.T
    ],
    axis=1,
).astype(np.uint8)
"""(256, 3): the lowest to the highest."""


class PageScene:
    """Drawn objects, with the state that drawing needs. `show` takes a record of rt.record.schema.CYCLE."""

    def __init__(
        self,
        server: viser.ViserServer,
        hand: Hand,
        ratio: float = RATIO,
        header: Mapping[str, Any] | None = None,
    ) -> None:
        """header: the flight's, which may tell of an arm."""
        self._server, self._hand, self._ratio = server, hand, ratio
        self._header, self._armless = header or {}, False
        self._arm: ArmLinks | None = None
        self._history = PoseHistory()
        self._trail: deque[NDArray[np.float64]] = deque(maxlen=_TRAIL_LENGTH)
        self._descent_m, self._frame, self._command_z = 0.0, -1, np.nan
        self._aimed, self._next_cloud_s, self._turn = False, 0.0, False
        self._framed: Any = None
        """The last record with a view."""
        scene = server.scene
        scene.set_up_direction("+z")
        # No environment map: it fades in slowly, and a software renderer pays for it.
        scene.configure_environment_map(None)
        scene.configure_default_lights(cast_shadow=False)
        scene.add_light_ambient("/light", color=(255, 255, 255), intensity=1.4)
        scene.add_frame("/base", axes_length=0.08, axes_radius=0.002, origin_radius=0.004)
        scene.add_label("/base/name", "base", font_screen_scale=0.8)
        self._table = scene.add_grid(
            "/table",
            _TABLE_M,
            _TABLE_M,
            cell_size=0.05,
            section_size=0.25,
            cell_color=(222, 226, 231),
            section_color=(184, 190, 198),
            plane_color=(247, 248, 250),
            plane_opacity=0.6,
            shadow_opacity=0.0,
            position=(0.0, 0.0, -0.002),
        )
        self._here = scene.add_frame("/hand", axes_length=0.03, axes_radius=0.0012)
        self._fingers = _hand_boxes(scene, "/hand", hand, None)
        self._flange = _flange_box(scene, hand)
        self._goal = scene.add_frame("/goal", show_axes=False, visible=False)
        _hand_boxes(scene, "/goal", hand, 0.28)
        self._view = scene.add_frame("/view", show_axes=False, visible=False)
        nothing = np.zeros((1, 3), np.float32)  # the client wants at least one point
        self._cloud = scene.add_point_cloud(
            "/view/cloud",
            nothing,
            nothing.astype(np.uint8),
            point_size=0.0032,
            point_shape="circle",
        )
        # What the camera covers goes with the hand, whose frame is the view's.
        self._edges = scene.add_line_segments(
            "/hand/view", np.zeros((0, 2, 3), np.float32), _VIEW_EDGE, thickness=0.0008
        )
        self._way = _line(scene, "/way", _WAY, 0.0028)
        self._past = _line(scene, "/trail", _TRAIL, 0.0018)
        self._target = scene.add_frame("/target", show_axes=False, visible=False)
        scene.add_line_segments("/target/ring", _ring(), _WAY, thickness=0.003)

    def seen_from(self, record: Any) -> NDArray[np.float64]:
        """T_base_hand (4, 4) at the exposure of a record's view; that of the record where it is not known."""
        stamp_ns = int(record["frame_stamp_ns"])
        known = self._history.gap_s(stamp_ns) == 0
        return self._history.at(stamp_ns) if known else T_base_hand(record)

    def forget(self) -> None:
        """A new approach begins: another scene, or another moment of a recording."""
        self._history = PoseHistory()
        self._trail.clear()
        self._descent_m, self._frame, self._command_z, self._aimed = 0.0, -1, np.nan, False
        self._next_cloud_s, self._framed = 0.0, None

    def remember(self, record: Any) -> None:
        """Every record, shown or not: where the hand was, for the clouds and the trail."""
        T = T_base_hand(record)
        if np.isfinite(T).all():
            self._history.append(RobotState(int(record["stamp_ns"]), T, record["twist"]))
            self._trail.append(T[:3, 3])
            if int(record["frame"]) >= 0:
                self._framed = record
        z = float(record["command"][2])
        if np.isfinite(z):
            if np.isfinite(self._command_z) and self._command_z > z:
                self._descent_m = self._command_z - z
            self._command_z = z

    def show(self, record: Any, everything: bool = False) -> None:
        """Draw one cycle, without its unknown (NaN) parts. A new cloud is drawn CLOUDS_HZ times a
        second at most, or with `everything`."""
        T = T_base_hand(record)
        if np.isfinite(T).all():
            _place(self._here, T)
            self._show_arm(np.array(record["q"]), T)
            self._aim(T)
        opening = float(record["gripper_m"])
        for side, finger in zip((-1, 1), self._fingers, strict=True):
            wide = opening if np.isfinite(opening) else self._hand.opening_m
            x = side * (wide + self._hand.finger_thickness_m) / 2
            finger.position = (x, 0.0, -self._hand.finger_length_m / 2)
        goal = np.array(record["goal"])
        self._goal.visible = bool(np.isfinite(goal).all())
        if self._goal.visible:
            _place(self._goal, top_down(goal[0], goal[1], min(goal[2], END_HEIGHT_M), goal[3]))
        wanted = np.array(record["target"])
        self._target.visible = bool(np.isfinite(wanted).all())
        if self._target.visible:
            self._target.position = (wanted[0], wanted[1], 0.001)
        self._edges.visible = int(record["frame"]) >= 0
        self._turn = not self._turn
        if self._turn or everything:
            self._way.points = way_ahead(record["command"], goal, self._ratio, self._descent_m)
        if not self._turn or everything:
            self._past.points = _segments(np.array(self._trail))
        self._show_view(everything)

    def _show_arm(self, q: NDArray[np.float64], T: NDArray[np.float64]) -> None:
        if self._arm is None and not self._armless and np.isfinite(q).all():
            mounted = mounting(self._header, q, T)
            self._armless = mounted is None
            if mounted is not None:
                self._arm = ArmLinks(self._server.scene, mounted)
                self._arm.tool(self._server.scene, self._hand.finger_length_m + _PALM_HEIGHT_M)
                self._flange.visible = False
        if self._arm is not None:
            self._arm.show(q)

    def _show_view(self, at_once: bool) -> None:
        record, now = self._framed, time.monotonic()
        if record is None or int(record["frame"]) == self._frame:
            return
        if not at_once and now < self._next_cloud_s:
            return
        self._frame, self._next_cloud_s = int(record["frame"]), now + 1 / CLOUDS_HZ
        T_base_view = self.seen_from(record)
        points, far = cloud(record["view"])
        height = points @ T_base_view[2, :3].astype(np.float32) + np.float32(T_base_view[2, 3])
        low, high = _HEIGHTS_M[[0, -1]]
        shade = np.clip((height - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
        self._view.visible = True
        _place(self._view, T_base_view)
        self._cloud.points = points
        self._cloud.colors = _COLOURS[shade]
        self._edges.points = _pyramid(far)

    def _aim(self, T: NDArray[np.float64]) -> None:
        """The first pose decides where one looks from; afterwards the user does."""
        if self._aimed:
            return
        self._aimed = True
        at, away = np.array([T[0, 3], T[1, 3], 0.17]), np.array([0.50, -0.62, 0.36])
        self._table.position = (round(at[0], 1), round(at[1], 1), -0.002)
        if self._arm is not None:
            at, away = self._arm.look_from(T)
        camera = self._server.initial_camera
        camera.look_at, camera.position = at, at + away
        camera.fov = np.radians(_FIELD_OF_VIEW_DEG)
        for client in self._server.get_clients().values():
            client.camera.position, client.camera.look_at = camera.position, camera.look_at
            client.camera.fov = camera.fov


def T_base_hand(record: Any) -> NDArray[np.float64]:
    """(4, 4) of a record; a producer that gives only `hand` means one that looks straight down."""
    T = np.array(record["T_base_hand"], np.float64)
    return T if np.isfinite(T).all() else top_down(*np.array(record["hand"], np.float64))


def cloud(view_m: NDArray[np.float32], view: View = VIEW) -> tuple[NDArray[np.float32], float]:
    """Points (N, 3) [m] of a depth view in the frame `view`, and the greatest depth seen [m]."""
    seen = view_m > 0
    points = (view.rays() * view_m[..., None])[seen]
    return points, float(view_m.max(initial=0.0))


def way_ahead(
    command: NDArray[np.float64],
    goal: NDArray[np.float64],
    ratio: float,
    descent_m: float,
    end_m: float = END_HEIGHT_M,
) -> NDArray[np.float32]:
    """(N, 2, 3) line segments [m] of where the controller will lead the hand if it goes on to see what
    it sees now: `ratio` of the rest of the way each cycle, `descent_m` lower, down to `end_m`."""
    command, goal = np.asarray(command, np.float64), np.asarray(goal, np.float64)
    if not (np.isfinite(command).all() and np.isfinite(goal).all()):
        return np.zeros((0, 2, 3), np.float32)
    k = np.arange(_WAY_LENGTH)
    rest = (1 - ratio) ** k
    points = np.empty((len(k), 3))
    points[:, :2] = goal[:2] + rest[:, None] * (command[:2] - goal[:2])
    points[:, 2] = np.maximum(command[2] - descent_m * k, min(end_m, command[2]))
    return _segments(points)


def _segments(points: NDArray[np.float64]) -> NDArray[np.float32]:
    if len(points) < 2:
        return np.zeros((0, 2, 3), np.float32)
    return np.stack([points[:-1], points[1:]], axis=1).astype(np.float32)


def _ring(radius_m: float = 0.02, corners: int = 24) -> NDArray[np.float32]:
    """(N, 2, 3) a circle on the table, and a line straight up from its middle."""
    turn = np.linspace(0, 2 * np.pi, corners + 1)
    circle = radius_m * np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=-1)
    up = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.15]]], np.float32)
    return np.concatenate([_segments(circle), up])


def _pyramid(far_m: float, view: View = VIEW) -> NDArray[np.float32]:
    """(8, 2, 3) edges of what the view covers down to `far_m`, in the frame `view`."""
    edge = view.size_px / 2 / view.focal_px * far_m
    corners = np.array([[-edge, -edge, far_m], [edge, -edge, far_m], [edge, edge, far_m]])
    corners = np.vstack([corners, [[-edge, edge, far_m]]])
    around = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    down = np.stack([np.zeros_like(corners), corners], axis=1)
    return np.concatenate([down, around]).astype(np.float32)


def _hand_boxes(
    scene: viser.SceneApi, parent: str, hand: Hand, opacity: float | None
) -> list[viser.BoxHandle]:
    """Palm and both fingers, open; returns the fingers."""
    ghost = opacity is not None
    back = -hand.finger_length_m - _PALM_HEIGHT_M / 2
    steel, pads = (_GOAL, _GOAL) if ghost else (_STEEL, _PADS)
    size = (hand.palm_length_m, hand.palm_width_m, _PALM_HEIGHT_M)
    scene.add_box(f"{parent}/palm", steel, size, position=(0, 0, back), opacity=opacity)
    size = (hand.finger_thickness_m, hand.finger_width_m, hand.finger_length_m)
    x, z = (hand.opening_m + hand.finger_thickness_m) / 2, -hand.finger_length_m / 2
    return [
        scene.add_box(f"{parent}/finger{k}", pads, size, position=(s * x, 0, z), opacity=opacity)
        for k, s in enumerate((-1, 1))
    ]


def _flange_box(scene: viser.SceneApi, hand: Hand) -> viser.BoxHandle:
    """Box in place of the flange, for a hand without an arm."""
    back = -hand.finger_length_m - _PALM_HEIGHT_M - _FLANGE_M / 2
    size = (hand.palm_width_m, hand.palm_width_m, _FLANGE_M)
    return scene.add_box("/hand/flange", _FLANGE, size, position=(0, 0, back))


def _line(
    scene: viser.SceneApi, name: str, colour: tuple[int, int, int], thickness: float
) -> viser.LineSegmentsHandle:
    nothing = np.zeros((0, 2, 3), np.float32)
    return scene.add_line_segments(name, nothing, colour, thickness=thickness)


def _place(node: viser.SceneNodeHandle, T: NDArray[np.float64]) -> None:
    node.wxyz = wxyz(T[:3, :3])
    node.position = T[:3, 3]
