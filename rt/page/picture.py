"""The depth view as a picture: relief, the distance field over it, candidates, the hand and its goal.

Pure functions of arrays; rt.page draws with them, live and from a flight record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rt.controller import RADIUS_M, DistanceFunction
from rt.hand import Hand
from rt.view import VIEW, View

CELLS = 36
"""The field is computed on this many by this many cells of the view."""
SIDE_PX, _DRAFT_PX = 372, 186
"""The finished picture, and what the relief is computed at: a quarter of the work."""
FULL_SCALE_M = 0.08
"""Distances from here on have the colour of the farthest."""
_CONTOUR_M = 0.01
_NO_RETURN = (58, 62, 70)
HAND, CHOSEN, TARGET = (255, 59, 48), (43, 217, 107), (38, 103, 201)

_NEAR_TO_FAR = np.array(
    [[253, 231, 37], [110, 206, 88], [31, 158, 137], [49, 104, 142], [68, 40, 110]], np.float64
)
"""Anchors of the viridis map, reversed: it reads the same in grey and to colour-blind eyes."""
COLOURS: NDArray[np.uint8] = np.stack(
    [np.interp(np.linspace(0, 4, 256), np.arange(5), channel) for channel in _NEAR_TO_FAR.T], axis=1
).astype(np.uint8)
"""(256, 3): 0 to FULL_SCALE_M."""


def _veil_colours() -> bytes:
    """A palette of RGBA: 128 of the field by its distance, then 128 of its contours, which are a quarter
    darker than what they lie on, field and view."""
    opacity = np.linspace(158, 82, 128)[:, None] / 256
    covers = 1 - 0.75 * (1 - opacity)
    colours = COLOURS[np.linspace(0, 255, 128).astype(int)]
    field = np.hstack([colours, opacity * 255])
    contour = np.hstack([colours * 0.75 * opacity / covers, covers * 255])
    return np.round([field, contour]).astype(np.uint8).tobytes()


_VEIL = _veil_colours()


def surface_depth(
    view_m: NDArray[np.float32], at: NDArray[np.floating], view: View = VIEW
) -> float:
    """Depth [m] of what lies under a hand displaced by x, y [m] (2,): the plane that the field and the
    glyphs of one picture are drawn on. The median of the view where nothing was seen there."""
    seen = view_m[view_m > 0]
    depth = float(np.median(seen)) if seen.size else view.far_m
    for _ in range(3):
        u, v = np.clip(np.round(_pixel(at, depth, view)), 0, view.size_px - 1).astype(int)
        around = view_m[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
        before, known = depth, around[around > 0]
        depth = float(np.median(known)) if known.size else depth
        if depth == before:
            break
    return depth


def _pixel(xy: NDArray[np.floating], depth_m: float, view: View) -> NDArray[np.float64]:
    return np.asarray(xy[..., :2] * (view.focal_px / depth_m) + view.size_px / 2 - 0.5, np.float64)


def field(
    distance: DistanceFunction,
    view_m: NDArray[np.float32],
    theta: float,
    depth_m: float,
    cells: int = CELLS,
    view: View = VIEW,
) -> NDArray[np.float32]:
    """d(I, (x, y, theta)) [m] over the view, (cells, cells) float32, rows down as the view's.

    x, y are the places that the view's pixels see at `depth_m`; theta [rad] is the same for all.
    """
    edge = view.size_px / 2 / view.focal_px * depth_m
    centres = ((np.arange(cells) + 0.5) / cells * 2 - 1) * edge
    actions = np.empty((cells, cells, 3), np.float32)
    actions[..., 0], actions[..., 1], actions[..., 2] = centres[None, :], centres[:, None], theta
    return np.asarray(distance(view_m, actions.reshape(-1, 3)), np.float32).reshape(cells, cells)


def relief(view_m: NDArray[np.float32]) -> Image.Image:
    """The depth view (S, S) [m] lit from the upper left, RGB, SIDE_PX wide; no return is dark."""
    seen = view_m > 0
    low, high = np.percentile(view_m[seen], (2, 98)) if seen.any() else (0.0, 1.0)
    filled = np.where(seen, view_m, np.float32(high))
    draft = (_DRAFT_PX, _DRAFT_PX)
    big = np.asarray(Image.fromarray(filled).resize(draft, Image.Resampling.BICUBIC))
    dv, du = np.gradient(big)
    grey = np.tanh((du + dv) * np.float32(_DRAFT_PX * 1.6)) * np.float32(50)
    grey += np.clip((np.float32(high) - big) * np.float32(62 / max(high - low, 0.01)), 0, 62)
    grey += 132
    shaded = Image.fromarray(np.clip(grey, 0, 255, out=grey).astype(np.uint8))
    image = shaded.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR).convert("RGB")
    if not seen.all():
        unseen = Image.fromarray(np.where(seen, np.uint8(0), np.uint8(255)))
        image.paste(_NO_RETURN, mask=unseen.resize(image.size, Image.Resampling.NEAREST))
    return image


def veil(field_m: NDArray[np.float32]) -> Image.Image:
    """The distance field in colour, with a contour every centimetre, RGBA, SIDE_PX wide, to be laid over
    the relief. It lets the relief through where no grasp is near: there one wants to see the objects."""
    safe = np.nan_to_num(field_m, nan=FULL_SCALE_M, posinf=FULL_SCALE_M)
    big = np.asarray(Image.fromarray(safe).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))
    index = np.clip(big * (127 / FULL_SCALE_M), 0, 127).astype(np.uint8)
    band = (np.clip(big, 0, FULL_SCALE_M) / _CONTOUR_M).astype(np.int8)
    across, along = band[:, 1:] != band[:, :-1], band[1:] != band[:-1]
    for part, change in ((index[:, 1:], across), (index[:, :-1], across), (index[1:], along)):
        part |= change.view(np.uint8) << 7
    image = Image.fromarray(index).convert("P")
    image.putpalette(_VEIL, "RGBA")
    return image.convert("RGBA")


def draw(
    image: Image.Image,
    depth_m: float,
    candidates: NDArray[np.floating],
    distances: NDArray[np.floating],
    action: NDArray[np.floating],
    hand: Hand,
    view: View = VIEW,
    target: NDArray[np.floating] | None = None,
) -> NDArray[np.uint8]:
    """Onto the image, SIDE_PX wide: candidates (N, 3) as ticks along their closing axes, coloured by
    their distances (N,) as the field is; the hand now in red and the chosen action in green, fingers
    to scale; the wanted object at target (2,) m as a blue ring. Numbers that are not finite are left out. The
    result is (SIDE_PX, SIDE_PX, 3)."""
    pen = ImageDraw.Draw(image, "RGBA")
    scale = SIDE_PX / view.size_px

    def at(xy: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray((_pixel(xy, depth_m, view) + 0.5) * scale)

    metre = view.focal_px / depth_m * scale
    centre, reach = at(np.zeros(2)), RADIUS_M * metre
    box = (centre - reach).tolist() + (centre + reach).tolist()
    pen.ellipse(box, outline=(255, 255, 255, 110), width=1)
    known = np.isfinite(distances) & np.isfinite(candidates).all(axis=1)
    centres, theta = at(candidates[known]), candidates[known, 2]
    ends = np.stack([np.cos(theta), np.sin(theta)], axis=-1) * 4.5
    ticks = np.concatenate([centres - ends, centres + ends], axis=-1).tolist()
    shades = COLOURS[np.clip(distances[known] * 255 / FULL_SCALE_M, 0, 255).astype(np.uint8)]
    for tick, shade in zip(ticks[::-1], shades.tolist()[::-1], strict=True):
        pen.line(tick, fill=(20, 22, 26, 150), width=4)
        pen.line(tick, fill=tuple(shade), width=2)
    _glyph(pen, at(np.zeros(2)), 0.0, metre, hand, HAND, 5)
    if np.isfinite(action).all():
        pen.line([*centre, *at(action)], fill=(255, 255, 255, 220), width=2)
        _glyph(pen, at(action), float(action[2]), metre, hand, CHOSEN, 3)
    if target is not None and np.isfinite(target).all():
        middle = at(target)
        for colour, width in (((255, 255, 255), 5), (TARGET, 3)):
            box = (middle - 13).tolist() + (middle + 13).tolist()
            pen.ellipse(box, outline=(*colour, 255), width=width)
        pen.ellipse((middle - 3).tolist() + (middle + 3).tolist(), fill=(*TARGET, 255))
    return np.asarray(image)


def pixels_at(
    across: float, down: float, view_m: NDArray[np.float32], view: View = VIEW
) -> NDArray[np.bool_]:
    """The pixels (S, S) of a view at and about a point of its picture; across, down: 0 to 1 of its sides."""
    u, v = (int(np.clip(part * view.size_px, 0, view.size_px - 1)) for part in (across, down))
    where = np.zeros(view_m.shape, bool)
    where[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2] = True
    return where


def _glyph(
    pen: ImageDraw.ImageDraw,
    at: NDArray[np.float64],
    theta: float,
    metre: float,
    hand: Hand,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    """A parallel hand from above: its closing axis, and both fingers as bars across it."""
    along = np.array([np.cos(theta), np.sin(theta)]) * metre
    across = np.array([-along[1], along[0]])
    lines = [(at - along * hand.opening_m / 2, at + along * hand.opening_m / 2)]
    for side in (-1, 1):
        finger = at + side * along * (hand.opening_m + hand.finger_thickness_m) / 2
        half = across * hand.finger_width_m / 2
        lines.append((finger - half, finger + half))
    for edge in (True, False):
        for k, (a, b) in enumerate(lines):
            thick = max(2, width - 2) if k == 0 else width + 2
            fill = (16, 18, 22, 190) if edge else (*colour, 255)
            pen.line([*a, *b], fill=fill, width=thick + 3 * edge)


def scale_bar(width_px: int = SIDE_PX, height_px: int = 12) -> NDArray[np.uint8]:
    """The colours from 0 to FULL_SCALE_M, left to right, (height, width, 3)."""
    row = COLOURS[(np.arange(width_px) * 255 // max(width_px - 1, 1))]
    return np.repeat(row[None], height_px, axis=0)
