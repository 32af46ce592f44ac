"""The wide catalogue: 1,000 objects of twenty categories, beside the default one and apart from it.

The default catalogue's ten categories drawn anew, and ten that it lacks: thin walls, handles, tapers, sheet
metal and things of two parts. Millimetres, z up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from manifold3d import Manifold

from . import boxes, tools, toys, vessels
from .shapes import block, cylinder, ellipse, join, lathe, plate, radii, sweep, through

VERSION = 1
"""Raised whenever the shape of any instance changes."""
COUNT = 50
"""Instances of each category."""
PREFIX = "wide_"


def bowl(rng: np.random.Generator, index: int) -> Manifold:
    """A thin-walled bowl, flat or deep, round or squarish."""
    radius, height = rng.uniform(40, 75), rng.uniform(25, 55)
    foot, wall = rng.uniform(0.4, 0.75), rng.uniform(2, 4)
    power = 4.0 if index % 5 == 4 else 2.0
    z = np.linspace(0, height, 12)
    outer = radii([(0, foot * radius), (0.4 * height, 0.86 * radius), (height, radius)], z)
    inner = np.column_stack([np.maximum(outer - wall, 3), z + wall])
    return lathe(np.column_stack([outer, z]), 40, power) - lathe(inner, 40, power)


def glass(rng: np.random.Generator, index: int) -> Manifold:
    """A tapered tumbler with a thin wall."""
    low, height, wall = rng.uniform(22, 32), rng.uniform(75, 125), rng.uniform(1.6, 3)
    top = low * rng.uniform(1.0, 1.35)
    segments = 8 if index % 6 == 5 else 40
    outer = lathe([(low, 0), (top, height)], segments)
    return outer - lathe([(low - wall, 5), (top - wall, height + 1)], segments)


def jar(rng: np.random.Generator, index: int) -> Manifold:
    """A jar or a tapered bottle with a screw lid, wider above or below."""
    radius, height = rng.uniform(24, 38), rng.uniform(60, 130)
    taper, neck = rng.uniform(0.7, 1.15), rng.uniform(0.5, 0.9)
    body = [(0.9 * radius, 0), (radius, 4), (taper * radius, 0.72 * height)]
    throat = neck * min(radius, taper * radius)
    squash = rng.uniform(0.6, 0.85) if index % 4 == 3 else 1.0
    flask = lathe([*body, (throat, 0.85 * height), (throat, 0.9 * height)], 40, squash=squash)
    lid = cylinder(1.06 * throat, 0.13 * height, 40, 1.2)
    return flask + lid.translate([0, 0, 0.88 * height])


def spoon(rng: np.random.Generator, index: int) -> Manifold:
    """A spoon or a ladle: a hollow scoop at the end of a bent handle."""
    length, r = rng.uniform(110, 170), rng.uniform(16, 30)
    deep, wall = rng.uniform(0.45, 0.9) * r, rng.uniform(1.8, 3)
    stretch = rng.uniform(1.0, 1.5)
    ball = Manifold.sphere(1, 48)
    scoop = ball.scale([stretch * r, r, deep])
    scoop = scoop - ball.scale([stretch * r - wall, r - wall, deep - wall])
    scoop = scoop.trim_by_plane([0, 0, -1], 0)
    lift = rng.uniform(-5, 30)
    x = stretch * r - wall / 2
    path = through([(x, 0, -2), (x + 0.3 * length, 0, 0.4 * lift), (x + length, 0, lift)], 17)
    wide = rng.uniform(3.5, 7)
    return scoop + sweep(
        path, ellipse(wide, rng.uniform(1.6, 3), 3), scale=np.linspace(0.7, 1.2, 17)
    )


def banana(rng: np.random.Generator, index: int) -> Manifold:
    """A bent body with tapering ends and flat flanks."""
    radius, turn = rng.uniform(70, 140), rng.uniform(0.7, 1.3)
    a = np.linspace(-turn, turn, 25)
    path = np.stack([radius * np.sin(a), 0 * a, radius * (1 - np.cos(a))], axis=-1)
    thick = np.interp(np.abs(a) / turn, [0, 0.55, 0.85, 1], [1, 0.92, 0.45, 0.22])
    r = rng.uniform(14, 20)
    return sweep(path, ellipse(r, r * rng.uniform(0.9, 1.05), rng.uniform(2, 3), 20), scale=thick)


def tray(rng: np.random.Generator, index: int) -> Manifold:
    """An open box with sliver walls, sometimes with a partition."""
    x, y, z = rng.uniform(60, 150), rng.uniform(45, 95), rng.uniform(18, 60)
    wall = rng.uniform(1.5, 3)
    corner = rng.uniform(2, 12)
    inside = block((x - 2 * wall, y - 2 * wall, z), max(corner - wall, 0.5), 0.4)
    box = block((x, y, z), corner, 0.4) - inside.translate([0, 0, wall])
    if index % 3 == 2:
        inner = Manifold.cube([wall, y - wall, 0.8 * z], True).translate([x / 8, 0, 0.4 * z])
        box = box + inner
    return box


def wrench(rng: np.random.Generator, index: int) -> Manifold:
    """A ring or fork spanner: a flat handle with a head at either end."""
    length, thick = rng.uniform(100, 190), rng.uniform(4, 9)
    head, hole = rng.uniform(11, 18), rng.uniform(0.5, 0.68)
    handle = block((length, rng.uniform(0.8, 1.3) * head, thick), 3, 0.6)
    solid = handle
    for k, side in enumerate((-1, 1)):
        at = [side * length / 2, 0, 0]
        solid = solid + cylinder(head, 1.15 * thick, 32, 0.6).translate(at)
        size = hole * head
        if (index + k) % 2:
            gap = Manifold.cube([2.4 * head, 1.5 * size, 4 * thick], True)
            solid = solid - gap.translate([side * (length / 2 + 1.2 * head), 0, 0])
        else:
            solid = solid - Manifold.cylinder(4 * thick, size, size, 6, True).translate(at)
    return solid


def scissors(rng: np.random.Generator, index: int) -> Manifold:
    """Two blades on a pivot, opened by some angle, each with a ring for a finger."""
    length, thick, r = rng.uniform(70, 105), rng.uniform(2.5, 4), rng.uniform(12, 18)
    angle = rng.uniform(6, 30)
    ring = Manifold.cylinder(2.2 * thick, r, r, 32) - Manifold.cylinder(
        9 * thick, r - 4, r - 4, 32, True
    )
    solid = cylinder(5, 2.4 * thick, 24)
    for side in (-1, 1):
        tip = [
            (0, -6),
            (length, -1.2),
            (length, 1.2),
            (0, 6),
            (-0.75 * length, 5),
            (-0.75 * length, -5),
        ]
        blade = plate(tip, thick).rotate([-90, 0, 0]).translate([0, 0, thick / 2])
        arm = blade + ring.translate([-0.75 * length - r + 2, 0, -0.4 * thick])
        arm = arm.rotate([0, 0, side * angle / 2])
        solid = solid + arm.translate([0, 0, (0.9 * thick if side > 0 else 0)])
    return solid


def bracket(rng: np.random.Generator, index: int) -> Manifold:
    """A bent sheet, L, U or Z, with holes."""
    a, b, wide = rng.uniform(30, 80), rng.uniform(25, 60), rng.uniform(20, 60)
    t = rng.uniform(1.8, 4)
    shapes = {
        "L": [(0, 0), (a, 0), (a, t), (t, t), (t, b), (0, b)],
        "U": [(0, 0), (a, 0), (a, b), (a - t, b), (a - t, t), (t, t), (t, b), (0, b)],
        "Z": [
            (0, 0),
            (a, 0),
            (a, b),
            (2 * a - t, b),
            (2 * a - t, b + t),
            (a - t, b + t),
            (a - t, t),
            (0, t),
        ],
    }
    sheet = plate(shapes[tuple(shapes)[index % 3]], wide)
    for y in (-0.25, 0.25):
        drill = Manifold.cylinder(3 * t, 0.09 * wide, 0.09 * wide, 20, True)
        sheet = sheet - drill.translate([0.55 * a, y * wide, 0])
    return sheet.translate([-a / 2, 0, 0])


def pan(rng: np.random.Generator, index: int) -> Manifold:
    """A small pan or a measuring cup: a thin-walled round with a long handle at its rim."""
    r, height, wall = rng.uniform(28, 60), rng.uniform(20, 50), rng.uniform(2, 3.5)
    low = r * rng.uniform(0.75, 1.0)
    body = lathe([(low, 0), (r, height)], 40)
    body = body - lathe([(low - wall, wall), (r - wall, height + 1)], 40)
    reach, rise = rng.uniform(70, 130), rng.uniform(-5, 30)
    start = height - 8
    path = through(
        [
            (r - wall / 2, 0, start),
            (r + 0.4 * reach, 0, start + 0.6 * rise),
            (r + reach, 0, start + rise),
        ],
        15,
    )
    section = ellipse(rng.uniform(5, 10), rng.uniform(3, 6), 2.6)
    return join(body, sweep(path, section))


_DRAWN: dict[str, Callable[[np.random.Generator, int], Manifold]] = {
    "apple": toys.apple,
    "banana": banana,
    "bottle": vessels.bottle,
    "bowl": bowl,
    "bracket": bracket,
    "camera": boxes.camera,
    "can": vessels.can,
    "flashlight": tools.flashlight,
    "glass": glass,
    "hammer": tools.hammer,
    "jar": jar,
    "mug": vessels.mug,
    "pan": pan,
    "scissors": scissors,
    "screwdriver": tools.screwdriver,
    "spoon": spoon,
    "tetra_pak": boxes.tetra_pak,
    "toy_car": toys.toy_car,
    "tray": tray,
    "wrench": wrench,
}
WIDE = {PREFIX + name: (draw, COUNT) for name, draw in _DRAWN.items()}
"""The function that draws a category's instances, and how many it has."""
NEW = tuple(
    PREFIX + name
    for name in (
        "banana",
        "bowl",
        "bracket",
        "glass",
        "jar",
        "pan",
        "scissors",
        "spoon",
        "tray",
        "wrench",
    )
)
"""The categories that the default catalogue lacks."""


def instances() -> list[tuple[str, int]]:
    """Every (category, index) of the wide catalogue."""
    return [(category, index) for category, (_, count) in WIDE.items() for index in range(count)]


def instance_split(index: int) -> str:
    """Every seventh instance of a category, seven in all, is for test."""
    return "test" if index % 7 == 3 else "train"
