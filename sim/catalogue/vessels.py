"""Round vessels: mugs, bottles, cans. Millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from manifold3d import Manifold

from .shapes import (
    Array,
    Profile,
    block,
    cylinder,
    ellipse,
    fillet,
    join,
    lathe,
    radii,
    sweep,
    through,
)

# Profiles as knots of (height, radius), both as a share of the whole.
_MUGS: dict[str, Profile] = {
    "straight": [(0, 1), (1, 1)],
    "tapered": [(0, 0.72), (1, 1)],
    "bellied": [(0, 0.72), (0.4, 1), (0.75, 0.88), (1, 0.84)],
    "cup": [(0, 0.48), (0.18, 0.74), (0.55, 0.93), (1, 1)],
    "barrel": [(0, 0.84), (0.5, 1), (1, 0.86)],
    "flared": [(0, 0.8), (0.35, 0.74), (0.7, 0.82), (1, 1)],
    "wide foot": [(0, 1), (0.12, 0.98), (0.5, 0.84), (1, 0.78)],
}


@dataclass(frozen=True)
class MugBody:
    """The wall of a mug: its horizontal thickness is `wall` between `floor` and the rim. Millimetres."""

    style: str
    height: float
    radius: float
    wall: float
    floor: float
    power: float
    segments: int

    def outer(self, z: Array | float) -> Array:
        knots = [(self.height * h, self.radius * r) for h, r in _MUGS[self.style]]
        return radii(knots, z)


def mug_body(rng: np.random.Generator, index: int) -> MugBody:
    style = list(_MUGS)[(index + index // 7) % len(_MUGS)]
    espresso = rng.random() < 0.15
    height = rng.uniform(52, 64) if espresso else rng.uniform(76, 122)
    radius = rng.uniform(28, 33) if espresso else rng.uniform(34, 46)
    if style == "cup":
        height, radius = 0.72 * height, 1.06 * radius
    odd = rng.random()
    return MugBody(
        style=style,
        height=height,
        radius=radius,
        wall=rng.uniform(3, 5),
        floor=rng.uniform(4, 8),
        power=3.2 if odd < 0.1 else 2.0,
        segments=10 if odd > 0.93 else 40,
    )


def _mug_handle(rng: np.random.Generator, index: int, body: MugBody) -> Manifold:
    """A handle toward +x whose ends lie inside the wall."""
    h, reach = body.height, rng.uniform(24, 36) * min(1.0, body.height / 75)
    top, low = h * rng.uniform(0.78, 0.88), h * rng.uniform(0.14, 0.26)
    middle = (top + low) / 2
    shape = ("C", "D", "ear", "ring", "seven", "drop")[(index + index // 6) % 6]
    if shape == "C":
        path = through(
            [(0, top), (0.7 * reach, top + 1), (reach, middle), (0.7 * reach, low - 1), (0, low)],
            17,
        )
    elif shape == "D":
        far = 0.98 * reach
        path = fillet([(0, top), (far, top), (far, low), (0, low)], 0.45 * reach, 5)
    elif shape == "ear":
        out = [(0, top - 4), (0.55, top + 3), (0.97, top - 9), (0.85, middle), (0.32, low + 2)]
        path = through([(x * reach, z) for x, z in [*out, (0, low - 3)]], 19)
    elif shape == "ring":
        a = np.linspace(0.75 * np.pi, -0.75 * np.pi, 21)
        size = min(0.36 * h, 0.6 * reach)
        path = np.stack([size * (0.75 + np.cos(a)), middle + size * np.sin(a)], axis=-1)
    elif shape == "seven":
        path = fillet([(0, top), (1.05 * reach, top), (0.7 * reach, middle), (0, low)], 9, 4)
    else:
        out = [(0, top), (0.8, top - 3), (0.95, top - 0.3 * h), (0.6, low + 0.1 * h), (0, low)]
        path = through([(x * reach, z) for x, z in out], 17)
    # Near its ends the handle starts from the wall at that height, further out from the middle's.
    wall_at = body.outer(path[:, 1])
    near = np.clip(1 - path[:, 0] / (0.8 * reach), 0, 1)
    anchor = near * wall_at + (1 - near) * body.outer(middle)
    x = anchor - 0.6 * body.wall + path[:, 0]
    along = np.column_stack([x, np.zeros(len(x)), path[:, 1]])
    thick, wide = rng.uniform(3.2, 4.6), rng.uniform(4.5, 9.5)
    if rng.random() < 0.3:
        wide = thick
    swell = 1 + rng.uniform(0, 0.35) * np.abs(np.linspace(-1, 1, len(x))) ** 3
    return sweep(along, ellipse(wide, thick, rng.uniform(2, 3.5), 12), scale=swell)


def mug(rng: np.random.Generator, index: int) -> Manifold:
    body = mug_body(rng, index)
    h, w = body.height, body.wall
    rows = 2 if body.style == "straight" else 9
    z = np.linspace(0, h - 0.45 * w, rows)
    r, rim = body.outer(z), float(body.outer(h))
    outer = [(r[0] - 1.5, 0), *zip(r, np.maximum(z, 1.5), strict=True)]
    outer += [(rim - 0.13 * w, h - 0.12 * w), (rim - 0.4 * w, h)]
    z = np.linspace(body.floor, h - 0.45 * w, rows)
    r = body.outer(z) - w
    inner = [(0.8 * r[0], body.floor - 0.5), (0.96 * r[0], body.floor + 0.4)]
    inner += [(radius, max(level, body.floor + 2)) for radius, level in zip(r, z, strict=True)]
    inner += [(rim - 0.87 * w, h - 0.12 * w), (rim - 0.6 * w, h), (rim - 0.6 * w, h + 9)]
    shell = lathe(outer, body.segments, body.power)
    solid = shell + _mug_handle(rng, index, body)
    if rng.random() < 0.08:
        solid = solid + _mug_handle(rng, index, body).rotate([0, 0, 180])
    if rng.random() < 0.5:  # a foot ring
        solid = solid - lathe([(0.72 * outer[0][0], -1), (0.68 * outer[0][0], 1.5)], 32)
    return solid - lathe(inner, body.segments, body.power)


# (height share, radius share) to the mouth; then height, widest radius, ring sections, squash, caps.
_BOTTLES = {
    "beer": [(0, 0.96), (0.02, 1), (0.52, 1), (0.66, 0.8), (0.78, 0.5), (0.97, 0.42)],
    "wine": [(0, 0.97), (0.02, 1), (0.58, 1), (0.67, 0.82), (0.74, 0.44), (0.97, 0.38)],
    "burgundy": [(0, 0.97), (0.02, 1), (0.42, 1), (0.6, 0.72), (0.74, 0.42), (0.97, 0.36)],
    "soda": [(0, 0.8), (0.05, 1), (0.3, 1), (0.42, 0.84), (0.55, 1), (0.72, 0.9), (0.9, 0.42)],
    "water": [(0, 0.92), (0.04, 1), (0.7, 1), (0.8, 0.88), (0.9, 0.42), (0.97, 0.42)],
    "sauce": [(0, 0.96), (0.03, 1), (0.5, 0.97), (0.62, 0.85), (0.85, 0.5), (0.97, 0.42)],
    "whisky": [(0, 0.97), (0.02, 1), (0.66, 1), (0.74, 0.9), (0.8, 0.42), (0.97, 0.38)],
    "shampoo": [(0, 0.93), (0.03, 1), (0.35, 1), (0.75, 0.86), (0.88, 0.62), (0.97, 0.38)],
    "jar": [(0, 0.94), (0.03, 1), (0.74, 1), (0.85, 0.9), (0.9, 0.74), (0.97, 0.74)],
    "squeeze": [(0, 0.92), (0.05, 1), (0.4, 0.94), (0.6, 0.84), (0.8, 0.95), (0.92, 0.5)],
    "pill": [(0, 0.97), (0.03, 1), (0.72, 1), (0.8, 0.82), (0.84, 0.72), (0.97, 0.72)],
}
_BOTTLE_SIZE = {  # height mm, radius mm
    "beer": ((185, 245), (28, 34)),
    "wine": ((225, 290), (33, 39)),
    "burgundy": ((220, 280), (34, 41)),
    "soda": ((170, 235), (29, 37)),
    "water": ((160, 240), (28, 38)),
    "sauce": ((140, 210), (24, 34)),
    "whisky": ((170, 240), (30, 39)),
    "shampoo": ((140, 220), (30, 42)),
    "jar": ((95, 160), (29, 39)),
    "squeeze": ((140, 200), (26, 34)),
    "pill": ((65, 115), (20, 32)),
}


def _cap(rng: np.random.Generator, kind: str, r: float) -> Manifold:
    """A cap on a mouth of radius r at z = 0."""
    if kind == "crown":
        return lathe([(r + 3.5, -3), (r + 3, -1), (r + 1, 2.5), (r - 1, 3.2)], 24)
    if kind == "cork":
        return lathe([(r - 2, -4), (r - 2, 6), (r - 1.5, 13), (r - 2.5, 14)], 24)
    if kind == "pump":
        stem = cylinder(4, 26, 16)
        head = block((16, 14, 8), 4, 1.5).translate([2, 0, 22])
        spout = block((34, 8, 5), 2, 1.5).translate([16, 0, 24])
        return join(lathe([(r + 2, -14), (r + 2, 3), (7, 8)], 28), stem, head, spout)
    if kind == "sport":
        return lathe(
            fillet([(r + 2, -14), (r + 2, 0), (r - 1, 9), (7, 14), (7, 24), (5, 26)], 2, 2), 28
        )
    tall = {"screw": rng.uniform(9, 16), "flip": rng.uniform(18, 28)}[kind]
    wide = r + (2 if kind == "screw" else rng.uniform(3, 8))
    cap = lathe([(wide, 3 - tall), (wide, 2), (wide - 1.2, 3.2)], 32)
    if kind == "screw" and rng.random() < 0.4:  # a security ring below
        cap = cap + lathe([(wide + 0.6, -tall - 1), (wide + 0.6, 2 - tall)], 32)
    return cap


def bottle(rng: np.random.Generator, index: int) -> Manifold:
    style = list(_BOTTLES)[index % len(_BOTTLES)]
    (h0, h1), (r0, r1) = _BOTTLE_SIZE[style]
    height, radius = rng.uniform(h0, h1), rng.uniform(r0, r1)
    bend = rng.uniform(-0.05, 0.05, size=len(_BOTTLES[style]))
    bend[:3] = bend[-1] = 0
    knots = [
        (h * height, max(r + b, 0.3) * radius)
        for (h, r), b in zip(_BOTTLES[style], bend, strict=True)
    ]
    top = 0.97 * height
    z = np.unique(np.r_[[k[0] for k in knots], np.linspace(0.45 * height, top, 11)])
    r = radii(knots, z)
    mouth = float(r[-1])
    # Square and flat bodies turn into round necks where the shoulder ends.
    neck = np.clip((np.abs(r) - 1.05 * mouth) / (0.45 * radius), 0, 1)
    square = {"whisky": 5.0, "sauce": 4.0, "shampoo": 2.6}.get(style, 2.0)
    square = square if style != "sauce" or index % 2 else 2.0
    squash = {"whisky": rng.uniform(0.55, 1), "shampoo": rng.uniform(0.5, 0.7)}.get(style, 1.0)
    if style == "squeeze":
        squash = rng.uniform(0.7, 1)
    if style == "jar" and index % 3 == 0:
        square = 5.0
    solid = lathe(np.column_stack([r, z]), 40, 2 + (square - 2) * neck, 1 + (squash - 1) * neck)
    solid = solid + lathe([(mouth, top - 1), (mouth, height)], 32)
    if style in ("beer", "wine", "burgundy", "whisky"):
        lip = height - rng.uniform(4, 9)
        solid = solid + lathe(
            [(mouth, lip - 2), (mouth + 1.8, lip), (mouth + 1.8, height - 1), (mouth, height)], 32
        )
    caps = {
        "beer": ("crown", "none", "none"),
        "wine": ("cork", "none", "screw"),
        "burgundy": ("none", "cork", "none"),
        "soda": ("screw", "none", "screw"),
        "water": ("screw", "sport", "none"),
        "sauce": ("screw", "screw", "none"),
        "whisky": ("screw", "cork", "none"),
        "shampoo": ("flip", "pump", "flip"),
        "jar": ("screw", "screw", "none"),
        "squeeze": ("sport", "flip", "sport"),
        "pill": ("screw", "flip", "screw"),
    }[style]
    cap = caps[(index // len(_BOTTLES)) % 3]
    if cap == "none":
        depth = min(0.3 * height, 60.0) if style != "jar" else 0.85 * height
        bore = [(mouth - 3, height - depth), (mouth - 2.5, height - 6), (mouth - 2, height + 1)]
        return solid - lathe(bore, 32)
    return solid + _cap(rng, cap, mouth).translate([0, 0, height])


_CANS = {  # height mm, radius mm
    "soda": ((108, 124), (31, 34)),
    "slim": ((128, 160), (25, 29)),
    "soup": ((92, 118), (31, 39)),
    "tuna": ((30, 46), (33, 41.5)),
    "tall": ((140, 175), (33, 40)),
    "sardine": ((22, 34), (48, 56)),
    "tin": ((55, 85), (28, 40)),
    "spray": ((140, 200), (22, 30)),
}


def can(rng: np.random.Generator, index: int) -> Manifold:
    style = list(_CANS)[index % len(_CANS)]
    (h0, h1), (r0, r1) = _CANS[style]
    h, r = rng.uniform(h0, h1), rng.uniform(r0, r1)
    seam, deep = rng.uniform(1.0, 2.0), rng.uniform(2.5, 5)
    profile: Profile = []
    if style in ("soda", "slim"):
        neck = r - rng.uniform(3, 6)
        waist = rng.uniform(8, 16)
        profile += [(neck - 8, 5), (neck - 5, 0), (neck - 3, 0), (neck - 1, 2), (r, 9)]
        profile += [(r, h - waist - 4), (r - 1, h - waist), (neck, h - 4)]
        profile += [(neck + seam, h - 2), (neck + seam, h), (neck - 0.5, h), (neck - 2, h - deep)]
    elif style == "spray":
        profile += [(r - 3, 2), (r - 2, 0), (r, 1), (r, h - 26), (r + seam, h - 25)]
        profile += [(r + seam, h - 23), (r - 4, h - 18), (r - 9, h - 16)]
    else:
        profile += [(r - 2, deep), (r - 1, 0), (r + seam, 0), (r + seam, 3), (r, 4.5)]
        ribs = int(rng.integers(0, 8)) if style in ("soup", "tall", "tin") else 0
        if ribs:
            start, step = 0.28 * h, 0.46 * h / ribs
            for k in range(ribs):
                base = start + k * step
                profile += [(r, base), (r - 1.5, base + 0.5 * step)]
            profile += [(r, start + ribs * step)]
        profile += [(r, h - 4.5), (r + seam, h - 3), (r + seam, h), (r - 1, h), (r - 2, h - deep)]
    power, squash = 2.0, 1.0
    if style == "sardine":
        power, squash = rng.uniform(2.4, 4.5), rng.uniform(0.55, 0.72)
    elif style == "tin" and index % 3 == 0:
        power, squash = 5.0, rng.uniform(0.6, 0.95)
    solid = lathe(profile, 40, power, squash)
    if style == "spray":
        tall = rng.uniform(14, 24)
        if index % 2:
            cap: Profile = [(r - 2, h - 22), (r - 2, h - 18 + tall), (r - 4, h - 15 + tall)]
        else:
            cap = [(7, h - 18), (7, h - 8), (5.5, h - 7), (5.5, h), (4, h + 1)]
        return solid + lathe(cap, 28)
    lid = h - deep
    extra = rng.random()
    if extra < 0.55:  # a pull tab
        width = rng.uniform(7, 10)
        tab = block((26, 2 * width, 1.6), width - 1, 0.5, 3).translate([0, 0, lid - 0.3])
        hole = block((9, 1.1 * width, 4), 3, 0.5, 3).translate([6, 0, lid - 1])
        boss = cylinder(3.5, 2.6, 12).translate([-5, 0, lid - 0.5])
        solid = join(solid, (tab - hole).translate([r * 0.15, 0, 0]), boss)
    elif extra < 0.75 and style in ("soup", "tuna", "tall", "tin"):  # opened and empty
        inner = [(r - 2.4, 4 + deep), (r - 2.2, h + 1)]
        solid = solid - lathe(inner, 40, power, squash)
    elif style in ("soup", "tall", "tin"):  # a pressed ring in the lid
        solid = solid + (
            lathe([(0.6 * r, lid - 1), (0.58 * r, lid + 1)], 32, power, squash)
            - lathe([(0.5 * r, lid - 2), (0.52 * r, lid + 2)], 32, power, squash)
        )
    return solid
