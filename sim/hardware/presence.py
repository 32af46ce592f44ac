"""Objects that the emulated gripper takes from the emulated camera's scene, by rule and without physics.

Something is between the fingers if rays from both pads meet the same object; the gripper's server is told its
width, so that the fingers stop on it. An object that is held is no longer drawn; one that is let go above the
bin stays away, elsewhere it lies below the hand. The gripper's own socket is asked, by a second client.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rt.gripper.robotiq import PORT
from rt.hand import Hand, load_hand
from rt.robot.target import xyz_yaw
from rt.tools.files import write_json
from sim.scene.render import Renderer
from sim.scene.scene import Placed, Scene

_LOW_M = 0.145
"""Only a hand lower than this is looked at: objects are lower than 0.13 m."""
_BIN_M = 0.15
"""An object let go this near to the place, along x and y, falls into the bin."""


class GripperClient:
    """Questions to the gripper's server."""

    def __init__(self, host: str, port: int = PORT) -> None:
        self._socket = socket.create_connection((host, port), timeout=2.0)
        self._file = self._socket.makefile("rb")

    def get(self, name: str) -> int:
        self._socket.sendall(f"GET {name}\n".encode())
        answer = self._file.readline().split()
        return int(answer[1]) if len(answer) == 2 and answer[1].isdigit() else -1


class Presence:
    """The scene as it is after all that the hand has taken and put down."""

    def __init__(
        self,
        scene: Scene,
        place: NDArray[np.float64],
        get: Callable[[str], int],
        tell: Callable[[str], object],
        file: Path | None = None,
        hand: Hand | None = None,
    ) -> None:
        """place: (2,) of the bin in the scene [m]. get: asks the gripper. tell: sends a line to the emulator.
        file: keeps what is gone and what is held from one process to the next; None: nothing is kept."""
        self._whole, self._place, self._get, self._tell = scene, place, get, tell
        self._file, self._hand = file, hand or load_hand()
        self.gone: list[int] = []
        """Indices into `scene.placed` of what lies in the bin."""
        self._moved: dict[int, NDArray[np.float64]] = {}
        self.held: int | None = None
        if file is not None and file.is_file():
            kept = json.loads(file.read_text())
            self.gone, self.held = list(kept["gone"]), kept["held"]
        self._told: str | None = None
        self._draw()

    def _draw(self) -> None:
        hidden = [*self.gone, *([] if self.held is None else [self.held])]
        faces = ~np.isin(self._whole.face_object, hidden)
        vertices = self._whole.vertices.copy()
        for k, shift in self._moved.items():
            own = np.unique(self._whole.faces[self._whole.face_object == k])
            vertices[own, :2] += shift.astype(np.float32)
        placed: tuple[Placed, ...] = self._whole.placed
        if not faces.any():  # a table with nothing on it: a speck far away
            vertices = np.array([[9, 9, 0], [9.001, 9, 0], [9, 9.001, 0]], np.float32)
            shown = Scene(placed, vertices, np.array([[0, 1, 2]], np.int32), np.zeros(1, np.int16))
        else:
            shown = Scene(
                placed, vertices, self._whole.faces[faces], self._whole.face_object[faces]
            )
        self._scene, self.renderer = shown, Renderer(shown)

    def update(self, T_scene_hand: NDArray[np.float64]) -> None:
        """Once a frame: see what is between the fingers, taken, and let go."""
        hand = xyz_yaw(T_scene_hand)
        holds = self._get("OBJ") == 2 and self._get("PRE") > 128
        if self.held is not None:
            if not holds:
                self._let_go(hand)
            return
        if hand[2] > _LOW_M:
            return
        found, width_m = self._between(hand)
        if holds and found is not None:
            self.held = found
            self._keep()
            self._draw()
            return
        self._say("" if found is None else f"object={width_m:.4f}")

    def _let_go(self, hand: NDArray[np.float64]) -> None:
        assert self.held is not None
        if np.abs(hand[:2] - self._place).max() < _BIN_M:
            self.gone.append(self.held)
        else:
            own = self._whole.vertices[
                np.unique(self._whole.faces[self._whole.face_object == self.held])
            ]
            self._moved[self.held] = hand[:2] - own[:, :2].mean(axis=0)
        self.held = None
        self._keep()
        self._say("")
        self._draw()

    def _keep(self) -> None:
        if self._file is not None:
            write_json(self._file, {"gone": self.gone, "held": self.held})

    def _say(self, fault: str) -> None:
        if fault != self._told:
            self._tell(f"gripper {fault}".strip())
            self._told = fault

    def _between(self, hand: NDArray[np.float64]) -> tuple[int | None, float]:
        """The object that both pads would meet, and its width [m]."""
        x, y, z, yaw = hand
        c, s = math.cos(yaw), math.sin(yaw)
        heights = np.linspace(0.002, self._hand.pad_height_m, 8)
        sides = np.linspace(-0.4, 0.4, 5) * self._hand.finger_width_m
        h, w = (g.ravel() for g in np.meshgrid(heights, sides, indexing="ij"))
        reach, met = [], []
        for side in (-1, 1):
            u = side * self._hand.opening_m / 2
            origins = np.column_stack([x + c * u - s * w, y + s * u + c * w, z + h])
            along = np.tile(np.array([-side * c, -side * s, 0.0], np.float32), (len(w), 1))
            t, face = self.renderer.cast(origins.astype(np.float32), along)
            first = int(np.argmin(t))
            if not t[first] < self._hand.opening_m:
                return None, 0.0
            reach.append(float(t[first]))
            met.append(int(self._scene.face_object[face[first]]))
        width_m = self._hand.opening_m - sum(reach)
        return (met[0], width_m) if met[0] == met[1] and width_m > 0.001 else (None, 0.0)
