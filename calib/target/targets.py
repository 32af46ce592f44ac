"""Calibration targets: what they are, where their points lie, how they are drawn.

The target's frame: origin at the first point (charuco: at the board's corner), x right, y down, z into
the paper, as one sees it when reading it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibrationError
from calib.solve.se3 import transform
from rt.pose import Array

Kind = Literal["charuco", "aprilgrid", "chessboard", "circles", "acircles"]

SPEC = (
    "KIND:COLUMNSxROWS:SIZE_MM[:SECOND_MM][:DICTIONARY]. "
    "charuco:7x5:30:22:DICT_5X5_100 (squares; square and marker side), "
    "aprilgrid:6x6:24:7.2 (tags; tag side and gap), "
    "chessboard:9x6:25 (inner corners; square side), "
    "circles:7x6:20 and acircles:4x11:20 (circles; spacing, for acircles that of its rows)"
)


@dataclass(frozen=True)
class Target:
    """A flat target. Lengths in metres."""

    kind: Kind = "charuco"
    columns: int = 7
    """Squares (charuco), tags, inner corners (chessboard) or circles in a row."""
    rows: int = 5
    size_m: float = 0.03
    """Side of a square or tag; distance of neighbouring circles (acircles: of rows)."""
    second_m: float = 0.0
    """charuco: side of the markers; aprilgrid: gap between tags."""
    dictionary: str = ""
    """ArUco dictionary of cv2.aruco, for charuco and aprilgrid."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise CalibrationError(
                f"target {self.kind!r} is not one of {', '.join(get_args(Kind))}"
            )
        least = 1 if self.kind == "aprilgrid" else 2 if self.kind != "charuco" else 3
        if min(self.columns, self.rows) < least or max(self.columns, self.rows) > 60:
            raise CalibrationError(
                f"a {self.kind} of {self.columns}x{self.rows} is not possible; "
                f"give {least} to 60 both ways"
            )
        if not 0.001 <= self.size_m <= 1.0:
            raise CalibrationError(
                f"target size {self.size_m * 1e3:g} mm is not between 1 and 1000 mm; "
                "sizes in a target's description are in millimetres"
            )
        if not self.second_m:
            ratio = {"charuco": 0.75, "aprilgrid": 0.3}.get(self.kind, 0.0)
            object.__setattr__(self, "second_m", ratio * self.size_m)
        if self.kind == "charuco" and not 0 < self.second_m < self.size_m:
            raise CalibrationError(
                f"markers of {self.second_m * 1e3:g} mm do not fit squares of "
                f"{self.size_m * 1e3:g} mm"
            )
        if self.tagged and not self.dictionary:
            name = "DICT_5X5_1000" if self.kind == "charuco" else "DICT_APRILTAG_36h11"
            object.__setattr__(self, "dictionary", name)
        if self.tagged and not hasattr(cv2.aruco, self.dictionary):
            raise CalibrationError(f"{self.dictionary!r} is no dictionary of cv2.aruco")

    @property
    def tagged(self) -> bool:
        return self.kind in ("charuco", "aprilgrid")

    @property
    def spec(self) -> str:
        """The text that `parse` reads."""
        parts = [self.kind, f"{self.columns}x{self.rows}", f"{self.size_m * 1e3:.10g}"]
        if self.tagged:
            parts += [f"{self.second_m * 1e3:.10g}", self.dictionary]
        return ":".join(parts)

    def aruco(self) -> cv2.aruco.Dictionary:
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))

    def points(self) -> Array:
        """(P, 3) all points, by id."""
        c, r = self.columns, self.rows
        if self.kind == "aprilgrid":
            pitch = self.size_m + self.second_m
            s = self.size_m
            square = np.array([[0, 0], [s, 0], [s, s], [0, s]])
            origin = [(x * pitch, (r - 1 - y) * pitch) for y in range(r) for x in range(c)]
            xy = (np.array(origin)[:, None] + square).reshape(-1, 2)
        elif self.kind == "acircles":
            y, x = np.mgrid[0:r, 0:c]
            xy = np.stack([2 * x + y % 2, y], axis=-1).reshape(-1, 2) * self.size_m
        else:
            first = int(self.kind == "charuco")
            y, x = np.mgrid[first:r, first:c]
            xy = np.stack([x, y], axis=-1).reshape(-1, 2) * self.size_m
        return np.asarray(np.c_[xy, np.zeros(len(xy))])

    def symmetries(self) -> list[Array]:
        """Motions S (4, 4) of the target onto itself that no image can tell apart, identity first."""
        n, c, r = 4, self.columns, self.rows
        if self.tagged:
            turns: list[int] = [0]
        elif self.kind == "acircles":
            turns = [0] if r % 2 else [0, 2]
        elif self.kind == "chessboard":
            turns = [0, 2] if (c + r) % 2 == 0 else [0]
            if c == r and c % 2 == 0:
                turns = list(range(n))
        else:
            turns = list(range(n)) if c == r else [0, 2]
        points = self.points()
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        result = []
        for k in turns:
            co, si = round(np.cos(k * np.pi / 2)), round(np.sin(k * np.pi / 2))
            R = np.array([[co, -si, 0], [si, co, 0], [0, 0, 1.0]])
            result.append(transform(R, middle - R @ middle))
        return result

    def shapes(self) -> list[tuple[bool, Array]]:
        """Polygons (K, 2) in the target's frame, in drawing order; True: black, False: white on top."""
        if self.kind == "charuco":
            return self._chess(0) + self._charuco_markers()
        if self.kind == "chessboard":
            return self._chess(-1)
        if self.kind == "aprilgrid":
            return self._aprilgrid()
        turn = np.linspace(0, 2 * np.pi, 65)[:-1]
        radius = self.size_m * (0.25 if self.kind == "circles" else 0.45)
        ring = radius * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        return [(True, p + ring) for p in self.points()[:, :2]]

    def _chess(self, first: int) -> list[tuple[bool, Array]]:
        """Black squares from column and row `first` on; both boards begin with a black one."""
        return [
            (True, _square(x * self.size_m, y * self.size_m, self.size_m))
            for y in range(first, self.rows)
            for x in range(first, self.columns)
            if (x + y) % 2 == 0
        ]

    def _charuco_markers(self) -> list[tuple[bool, Array]]:
        shapes, marker = [], 0
        margin = (self.size_m - self.second_m) / 2
        for y in range(self.rows):
            for x in range(self.columns):
                if (x + y) % 2:
                    at = (x * self.size_m + margin, y * self.size_m + margin)
                    shapes += self._marker(marker, at, self.second_m)
                    marker += 1
        return shapes

    def _aprilgrid(self) -> list[tuple[bool, Array]]:
        s, gap, shapes = self.size_m, self.second_m, []
        for k, corner in enumerate(self.points()[::4, :2]):
            shapes += self._marker(k, (corner[0], corner[1]), s)
            # the small squares between tags turn every tag's corner into a saddle point
            shapes += [
                (True, _square(corner[0] + dx, corner[1] + dy, gap))
                for dx in (-gap, s)
                for dy in (-gap, s)
            ]
        return shapes

    def _marker(
        self, marker: int, at: tuple[float, float], side: float
    ) -> list[tuple[bool, Array]]:
        dictionary = self.aruco()
        if marker >= len(dictionary.bytesList):
            raise CalibrationError(
                f"{self.spec} needs more markers than the {len(dictionary.bytesList)} of "
                f"{self.dictionary}; take a larger dictionary"
            )
        cells = dictionary.markerSize + 2
        bits = cv2.aruco.generateImageMarker(dictionary, marker, cells)
        cell = side / cells
        white = [
            (False, _square(at[0] + x * cell, at[1] + y * cell, cell)) for y, x in np.argwhere(bits)
        ]
        return [(True, _square(*at, side)), *white]

    def extent(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of everything drawn [m]."""
        xy = np.concatenate([p for _, p in self.shapes()])
        (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    def raster(self, pixels_per_m: float, border_m: float) -> tuple[NDArray[np.uint8], Array]:
        """Picture of the target on white paper, and A (3, 3) from target metres to its pixels."""
        x0, y0, x1, y1 = self.extent()
        over = 4
        fine = over * pixels_per_m
        origin = np.array([x0, y0]) - border_m
        width, height = np.ceil((np.array([x1, y1]) + border_m - origin) * pixels_per_m)
        image = np.full((over * int(height), over * int(width)), 255, np.uint8)
        for black, polygon in self.shapes():
            # fillPoly includes the pixels of its outline: draw a quarter pixel inside
            xy = (polygon - origin) * fine - 0.5
            xy -= 0.25 * np.sign(xy - xy.mean(axis=0))
            fixed = np.round(xy * 256).astype(np.int32)
            cv2.fillPoly(image, [fixed], 0 if black else 255, lineType=cv2.LINE_8, shift=8)
        image = cv2.resize(image, (int(width), int(height)), interpolation=cv2.INTER_AREA)
        shift = -origin * pixels_per_m - 0.5
        return image, np.array(
            [[pixels_per_m, 0, shift[0]], [0, pixels_per_m, shift[1]], [0, 0, 1]]
        )


@dataclass(frozen=True)
class SampleTarget(Target):
    """Stand-in for a target whose poses a program gave: a square tag with its origin in the middle."""

    solid: bool = False
    """True for a body of six points, seen alike from all sides (motion capture)."""

    @property
    def spec(self) -> str:
        return (
            "poses of a body" if self.solid else f"poses of a tag, about {self.size_m * 1e3:g} mm"
        )

    def points(self) -> Array:
        """(4, 3), or (6, 3) of a body [m]."""
        half = self.size_m / 2
        if self.solid:
            return np.asarray(half * np.concatenate([np.eye(3), -np.eye(3)]))
        return half * np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])


def tag_of(side_m: float, solid: bool = False) -> SampleTarget:
    """The stand-in for a tag (or a body) of this size [m]."""
    return SampleTarget("aprilgrid", 1, 1, side_m, solid=solid)


def _square(x: float, y: float, side: float) -> Array:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


def parse(spec: str) -> Target:
    """A target from its description (see SPEC); raises CalibrationError with the grammar."""
    kind, *rest = spec.strip().split(":")
    match = re.fullmatch(r"(\d+)[xX](\d+)", rest[0]) if rest else None
    try:
        if match is None:
            raise ValueError("no COLUMNSxROWS")
        numbers = [float(re.sub(r"mm$", "", p)) for p in rest[1:] if not p.startswith("DICT")]
        names = [p for p in rest[1:] if p.startswith("DICT")]
        if not 1 <= len(numbers) <= 2 or len(names) > 1:
            raise ValueError("one or two sizes in mm and at most one dictionary")
        second = numbers[1] / 1e3 if len(numbers) == 2 else 0.0
        return Target(
            kind,  # type: ignore[arg-type]  # checked by Target
            int(match[1]),
            int(match[2]),
            numbers[0] / 1e3,
            second,
            names[0] if names else "",
        )
    except CalibrationError:
        raise
    except ValueError as error:
        raise CalibrationError(f"target {spec!r} cannot be read ({error}); write {SPEC}") from None
