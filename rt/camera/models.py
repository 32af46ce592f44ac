"""Known depth cameras: field of view and least depth of each mode.

D435: the D435i datasheet's table. D415 and D405: the library's and the vendor's pages. A mode that is
not listed is taken to see no nearer, for its width, than the worst of those that are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rt.camera import CameraError, Intrinsics

Size = tuple[int, int]
"""Width, height [px]."""

_MAX_DISPARITY_PX = 126
"""Of the D400's matcher: nearer things are out of its search."""
_MARGIN = 1.25
"""Nearest depths of the datasheets are 0.95 to 1.2 times what the search range alone would give."""


@dataclass(frozen=True)
class CameraModel:
    """A stereo depth camera."""

    name: str
    baseline_m: float
    hfov_deg: float
    """Of its 16:9 modes."""
    nearest_m: dict[Size, float]
    """By mode."""

    def nearest(self, size: Size) -> float:
        """Nearest depth [m] that it measures in a mode."""
        if size in self.nearest_m:
            return self.nearest_m[size]
        return max(near / width for (width, _), near in self.nearest_m.items()) * size[0]

    def intrinsics(self, size: Size) -> Intrinsics:
        """Of an ideal one. A 4:3 mode is the middle of the 16:10 sensor, which is as high as it."""
        width, height = size
        focal = 0.5 / math.tan(math.radians(self.hfov_deg) / 2)
        focal *= width if width * 3 > height * 4 else height * 1.6
        return Intrinsics(width, height, focal, focal, width / 2 - 0.5, height / 2 - 0.5)


MODELS = {
    model.name: model
    for model in (
        CameraModel(
            "D405",
            0.018,
            87.0,
            {
                (1280, 720): 0.100,
                (848, 480): 0.070,
                (640, 360): 0.055,
                (480, 270): 0.045,
                (424, 240): 0.040,
            },
        ),
        CameraModel(
            "D435",
            0.050,
            87.0,
            {
                (1280, 720): 0.280,
                (848, 480): 0.195,
                (640, 480): 0.175,
                (640, 360): 0.150,
                (480, 270): 0.120,
                (424, 240): 0.105,
            },
        ),
        CameraModel("D415", 0.055, 63.0, {(1280, 720): 0.450, (640, 360): 0.220}),
    )
}


def find_model(name: str) -> CameraModel | None:
    """The model that a device's name speaks of ("Intel RealSense D435IF" is a D435), or None."""
    return next((model for known, model in MODELS.items() if known in name.upper()), None)


def nearest_depth_m(name: str, intrinsics: Intrinsics, baseline_m: float | None) -> float | None:
    """Nearest depth of a device by its name; of one not known by its baseline; None without that."""
    if model := find_model(name):
        return model.nearest((intrinsics.width_px, intrinsics.height_px))
    if baseline_m:
        return _MARGIN * intrinsics.fx_px * baseline_m / _MAX_DISPARITY_PX
    return None


def parse_size(text: str) -> Size:
    """`480x270` -> (480, 270). Raises CameraError."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise CameraError(f"mode {text!r} must be WIDTHxHEIGHT in pixels, for example 480x270")
    return int(width), int(height)
