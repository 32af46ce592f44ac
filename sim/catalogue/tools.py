"""Objects with a handle or a barrel that lie along x: hammers, screwdrivers, flashlights. Millimetres."""

from __future__ import annotations

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
    pick,
    plate,
    prism,
    radii,
    skin,
    sweep,
    through,
)


def _bar(
    stations: Array | list[tuple[float, float, float]], power: float, segments: int
) -> Manifold:
    """A bar along x through stations (x, half width in y, half height in z) of superelliptic section."""
    rings = []
    for x, a, b in stations:
        section = ellipse(a, b, power, segments)
        rings.append(np.column_stack([np.full(segments, x), section]))
    return skin(np.array(rings))


def _hammer_handle(rng: np.random.Generator, index: int, length: float, thick: float) -> Manifold:
    """Along +x from the head at x = 0; sized so that a hand holds its far half."""
    kind = ("taper", "grip", "oval", "axe", "octagon")[index % 5]
    a, b = 0.5 * thick, 0.5 * thick * rng.uniform(0.68, 0.95)
    n = 16
    x = np.linspace(-6, length, 15)
    t = np.clip(x / length, 0, 1)
    if kind == "taper":
        size = np.interp(t, [0, 0.25, 0.8, 1], [0.72, 0.66, 1.05, 0.95])
        power = 2.0
    elif kind == "grip":  # a thin shaft and a rubber grip with a flange
        start = rng.uniform(0.42, 0.58)
        shaft = rng.uniform(0.5, 0.62)
        grip_x = np.linspace(start * length, length, 13)
        waves = 1 + 0.06 * np.cos(np.linspace(0, rng.uniform(4, 9) * np.pi, 13))
        waves[[0, -1]] = [0.85, 0.9]
        waves[-2] = 1.15
        grip = _bar(np.column_stack([grip_x, 1.08 * a * waves, 1.1 * b * waves]), 2.4, 18)
        return grip + _bar(
            [(-6, shaft * a, shaft * b), (length * 0.6, shaft * a, shaft * b)], 2.4, 14
        )
    elif kind == "oval":
        size = 1 + 0.14 * np.sin(2 * np.pi * t + rng.uniform(0, 1))
        power = 2.6
    elif kind == "axe":
        size = np.interp(t, [0, 0.2, 0.55, 0.85, 1], [0.85, 0.7, 0.78, 0.95, 1.2])
        power = 2.2
    else:
        size, power, n = np.interp(t, [0, 1], [0.75, 1.0]), 2.0, 8
    size = np.r_[size, size[-1] * 0.8]
    x = np.r_[x, length + 3]
    return _bar(np.column_stack([x, a * size, b * size]), power, n)


def _spindle(points: Profile, segments: int = 24, power: float = 2.0) -> Manifold:
    """A lathe along +y."""
    return lathe(points, segments, power, turn_deg=180 / segments).rotate([-90, 0, 0])


def hammer(rng: np.random.Generator, index: int) -> Manifold:
    style = ("claw", "ball", "sledge", "mallet", "rip", "cross", "rubber", "brick", "tack")[
        index % 9
    ]
    length = rng.uniform(190, 300)
    s = rng.uniform(0.8, 1.12)
    thick = rng.uniform(25, 36)
    face = rng.uniform(12, 15.5) * s
    reach = rng.uniform(38, 52) * s
    eye = block((27 * s, 30 * s, 24 * s), 5, 2).translate([0, 0, -12 * s])
    poll = [(0.72 * face, 5.0), (0.68 * face, 0.55 * reach), (face, 0.68 * reach)]
    poll += [(face, reach - 1.5), (face - 1.5, reach)]
    if style in ("claw", "rip"):
        drop = rng.uniform(24, 36) if style == "claw" else rng.uniform(4, 12)
        tip = -(58 if style == "claw" else 72) * s
        path = through([(0, -6.0), (-1, 0.4 * tip), (0.3 * drop, 0.75 * tip), (drop, tip)], 11)
        path3 = np.column_stack([path[:, 0], path[:, 1], np.zeros(len(path))])
        t = np.linspace(0, 1, len(path))
        section = ellipse(14 * s, 9 * s, 3.0, 14)
        scale = np.column_stack([1 + 0.25 * np.sin(2.2 * t), 1 - 0.82 * t])
        claw = sweep(path3, section, (0, 0, 1), scale)
        gap = rng.uniform(3, 5)
        slot = Manifold.hull_points(
            np.array(
                [
                    (x, y, z)
                    for x in (-40, 80)
                    for y, half in ((0.32 * tip, 0.4), (1.2 * tip, gap + 2))
                    for z in (-half, half)
                ],
                dtype=np.float64,
            )
        )
        head = join(eye, _spindle(poll, 20), claw - slot)
    elif style == "ball":
        ball = rng.uniform(0.82, 1.05) * face
        neck = Manifold.sphere(ball, 20).translate([0, -reach * 0.85, 0])
        link = _spindle([(0.85 * face, 0), (0.6 * face, 0.5 * reach), (0.6 * ball, 0.8 * reach)])
        head = join(eye, _spindle(poll), link.mirror([0, 1, 0]), neck)
    elif style == "sledge":
        half, r = rng.uniform(38, 56), rng.uniform(18, 27)
        points = [(r - 4, -half), (r, 4 - half), (r, half - 4), (r - 4, half)]
        n, p = ((8, 2.0), (24, 5.0), (24, 2.0))[int(rng.integers(3))]
        head = _spindle(points, n, p)
    elif style == "mallet":  # wooden, its block wider at the top
        w, d, h = rng.uniform(48, 66), rng.uniform(90, 130), rng.uniform(44, 62)
        points = [(-w / 2, -0.43 * d), (w / 2, -0.5 * d), (w / 2, 0.5 * d), (-w / 2, 0.43 * d)]
        if index % 2:
            head = _spindle(
                [
                    (w / 2 - 3, -d / 2),
                    (w / 2, 4 - d / 2),
                    (0.46 * w, 0),
                    (w / 2, d / 2 - 4),
                    (w / 2 - 3, d / 2),
                ],
                28,
            )
        else:
            head = prism(fillet(points[::-1], 4, 2, True), h).translate([0, 0, -h / 2])
            if head.volume() <= 0:
                head = prism(fillet(points, 4, 2, True), h).translate([0, 0, -h / 2])
    elif style == "rubber":
        r, d = rng.uniform(25, 37), rng.uniform(70, 110)
        points = [(0.85 * r, -d / 2), (r, 5 - d / 2), (0.94 * r, -d / 4), (0.94 * r, d / 4)]
        points += [(r, d / 2 - 5), (0.85 * r, d / 2)]
        head = _spindle(points, 28)
        if rng.random() < 0.5:  # soft faces on a metal body
            head = head + _spindle([(1.12 * r, -d / 2), (1.12 * r, 0.28 * d - d / 2)], 28)
    else:
        far = rng.uniform(42, 62) * s if style != "brick" else rng.uniform(75, 105) * s
        wide = rng.uniform(10, 17) * s
        flat = rng.random() < 0.5  # the peen lies along the handle, or across it
        edge = (wide, 2.2) if flat else (2.2, wide)
        curve = rng.uniform(0, 14) if style != "cross" else 0.0
        body = 8.5 * s if style == "tack" else 12 * s
        taper = [(-4.0, body, body), (0.45 * far, 0.8 * body, 0.8 * body), (far, *edge)]
        peen = _bar(taper, 3.5, 16).rotate([0, 0, -90])
        peen = peen.refine_to_length(30).warp_batch(
            lambda p: p + np.column_stack([curve * (p[:, 1] / far) ** 2, 0 * p[:, 0], 0 * p[:, 0]])
        )
        thin = 0.66 if style == "tack" else 1.0
        head = join(
            eye.scale([thin, thin, thin]),
            _spindle([(r * thin, z) for r, z in poll], *_face(rng)),
            peen,
        )
    handle = _hammer_handle(rng, index, length, thick)
    solid = head + handle
    if rng.random() < 0.25:  # a hole to hang it by
        hole = cylinder(3.5, 80, 12).translate([length - 14, 0, -40])
        solid = solid - hole
    return solid


def _face(rng: np.random.Generator) -> tuple[int, float]:
    """Segments and power of a striking face: round, octagonal or square."""
    return ((24, 2.0), (8, 2.0), (24, 5.0))[int(rng.integers(3))]


def screwdriver(rng: np.random.Generator, index: int) -> Manifold:
    style = (
        "fluted",
        "trilobe",
        "hex",
        "stubby",
        "pear",
        "tee",
        "ball",
        "precision",
        "square",
        "swell",
    )[index % 10]
    length, r = rng.uniform(88, 120), rng.uniform(13, 18)
    shaft, shaft_r = rng.uniform(75, 160), rng.uniform(2.5, 4.5)
    if style == "stubby":
        length, shaft, r = rng.uniform(48, 62), rng.uniform(28, 45), rng.uniform(14, 18.5)
    elif style == "precision":
        length, shaft, r, shaft_r = (
            rng.uniform(75, 100),
            rng.uniform(40, 70),
            rng.uniform(5.5, 8),
            1.6,
        )
    t = np.linspace(0, 1, 15)
    handles: dict[str, Profile] = {
        "fluted": [(0, 0.7), (0.08, 0.95), (0.5, 1), (0.78, 0.8), (0.88, 0.62), (1, 0.72)],
        "trilobe": [(0, 0.75), (0.1, 1), (0.55, 0.95), (0.8, 0.72), (0.9, 0.85), (1, 0.6)],
        "hex": [(0, 0.8), (0.06, 1), (0.7, 0.95), (0.85, 0.7), (1, 0.68)],
        "stubby": [(0, 0.75), (0.15, 1), (0.6, 1), (0.85, 0.75), (1, 0.9)],
        "pear": [(0, 0.6), (0.12, 1.05), (0.35, 1.12), (0.7, 0.62), (0.88, 0.6), (1, 0.85)],
        "ball": [(0, 0.55), (0.1, 1.1), (0.25, 1.2), (0.42, 0.72), (0.75, 0.72), (1, 0.65)],
        "precision": [(0, 0.95), (0.1, 1), (0.12, 0.7), (0.18, 0.7), (0.2, 1), (0.85, 1), (1, 0.5)],
        "square": [(0, 0.85), (0.05, 1), (0.6, 1), (0.85, 0.72), (1, 0.75)],
        "swell": [(0, 0.7), (0.1, 0.95), (0.35, 0.8), (0.6, 1.02), (0.85, 0.66), (1, 0.8)],
        "tee": [(0, 0.5), (1, 0.5)],
    }
    size = r * radii(handles[style], t)
    n = 6 if style == "hex" else 36
    angle = 2 * np.pi * np.arange(n) / n
    ripple = np.ones((len(t), n))
    grip = np.clip(np.minimum(t - 0.03, 0.8 - t) * 12, 0, 1)[:, None]  # ends are left round
    if style in ("fluted", "stubby", "pear", "ball", "swell"):
        flutes = int(pick(rng, 4, 6, 6, 8))
        deep = rng.uniform(0.03, 0.11)
        ripple = 1 - deep * grip * (1 + np.cos(flutes * angle)[None])
    elif style == "trilobe":
        ripple = 1 + rng.uniform(0.06, 0.12) * grip * np.cos(3 * angle)[None]
    elif style == "square":
        c, s = np.abs(np.cos(angle)), np.abs(np.sin(angle))
        ripple = 1 + grip * ((c**4 + s**4) ** (-0.25) - 1)[None]
    along = np.repeat((-length * (1 - t))[:, None], n, axis=1)
    radius = size[:, None] * ripple
    handle = skin(np.stack([along, radius * np.cos(angle), radius * np.sin(angle)], axis=-1))
    if style == "tee":
        bar = rng.uniform(70, 105)
        points = fillet(
            [
                (5, -bar / 2),
                (r * 0.85, 5 - bar / 2),
                (0.75 * r, 0),
                (r * 0.85, bar / 2 - 5),
                (5, bar / 2),
            ],
            6,
            3,
        )
        handle = lathe(points, 20, 2.6).rotate([90, 0, 0])
    hexagonal = rng.random() < 0.35
    rod_n = 6 if hexagonal else 14
    tip = ("flat", "cross", "flat", "cross", "socket")[int(rng.integers(5))]
    end = 0.7 if tip == "cross" else 1.0
    stations = [(-8, shaft_r, shaft_r), (shaft - 8, shaft_r, shaft_r)]
    if tip == "flat":
        stations = [
            (-8, shaft_r, shaft_r),
            (shaft - 14, shaft_r, shaft_r),
            (shaft - 6, 1.35 * shaft_r, 0.45 * shaft_r),
            (shaft, 1.3 * shaft_r, 0.3),
        ]
    elif tip == "cross":
        stations += [(shaft - 3, 0.45 * shaft_r, 0.45 * shaft_r), (shaft, 0.35 * end, 0.35 * end)]
    rod = _bar(stations, 2.0, rod_n)
    if tip == "socket":
        wide = shaft_r * rng.uniform(1.6, 2.3)
        socket = cylinder(wide, 18, 20, 0.6) - cylinder(0.7 * wide, 9, 6).translate([0, 0, 10])
        rod = rod + socket.rotate([0, 90, 0]).translate([shaft - 16, 0, 0])
    collar = (
        cylinder(min(0.55 * r, 2.2 * shaft_r), 7, 18, 0.8).rotate([0, 90, 0]).translate([-2, 0, 0])
    )
    return join(handle, rod, collar)


def _knurl(x0: float, x1: float, r: float, count: int) -> Profile:
    """A run of shallow grooves as a profile."""
    step = (x1 - x0) / max(count, 1)
    points = []
    for k in range(count):
        a = x0 + k * step
        points += [
            (r, a),
            (r, a + 0.45 * step),
            (r - 1.1, a + 0.55 * step),
            (r - 1.1, a + 0.9 * step),
        ]
    return [*points, (r, x1)]


def _lantern(rng: np.random.Generator) -> Manifold:
    """A box with a handle on top and a lamp in front."""
    w, d, h = rng.uniform(95, 125), rng.uniform(58, 78), rng.uniform(62, 82)
    r = 0.5 * min(d, h) * rng.uniform(0.98, 1.08)
    top = h + rng.uniform(30, 40)
    path = fillet(
        [(-0.36 * w, 0, h - 6), (-0.4 * w, 0, top), (0.4 * w, 0, top), (0.3 * w, 0, h - 6)],
        22,
        5,
    )
    lamp: Profile = [(0.6 * r, -24), (0.8 * r, 0), (r, 12), (r, 26), (0.86 * r, 26), (0.4 * r, 10)]
    return join(
        block((w, d, h), rng.uniform(6, 20), 5),
        sweep(path, ellipse(11, 7, 2.6, 14)),
        lathe(lamp, 36).rotate([0, 90, 0]).translate([w / 2, 0, 0.52 * h]),
    )


def flashlight(rng: np.random.Generator, index: int) -> Manifold:
    style = ("classic", "tactical", "pen", "angled", "lantern", "heavy", "classic", "square")[
        index % 8
    ]
    if style == "lantern":
        return _lantern(rng)
    length = rng.uniform(110, 230)
    r = rng.uniform(12, 18)
    head = r * rng.uniform(1.15, 2.1)
    if style == "pen":
        length, r = rng.uniform(115, 150), rng.uniform(6, 9)
        head = r * rng.uniform(1.0, 1.2)
    elif style == "heavy":
        length, r = rng.uniform(230, 320), rng.uniform(17, 20)
        head = r * rng.uniform(1.3, 1.6)
    elif style == "tactical":
        length, head = rng.uniform(105, 160), r * rng.uniform(1.1, 1.5)
    neck = 0.66 * length if style == "classic" else 0.72 * length
    flare = rng.uniform(0.08, 0.16) * length
    profile = [
        (0.7 * r, 0),
        (0.92 * r, 1),
        (r * 1.05, 4),
        (r * 1.05, 0.09 * length),
        (0.94 * r, 0.1 * length),
    ]
    profile += _knurl(0.14 * length, neck - 0.1 * length, r, int(rng.integers(3, 9)))
    profile += [(0.94 * r, neck - 0.06 * length), (0.94 * r, neck)]
    if style == "tactical":  # steps instead of a cone
        profile += [(head, neck + 2), (head, neck + flare), (0.9 * head, neck + flare + 2)]
        profile += [(0.9 * head, neck + flare + 6), (head, neck + flare + 8)]
    else:
        mid = 0.5 * (r + head)
        profile += [(mid, neck + 0.5 * flare), (head, neck + flare)]
    deep = min(0.7 * head, 14)
    profile += [
        (head, length - 3),
        (1.04 * head, length - 2),
        (1.04 * head, length),
        (0.86 * head, length),
    ]
    profile += [(0.84 * head, length - 2), (0.3 * head, length - deep)]
    power = 3.6 if style == "square" else 2.0
    solid = lathe(profile, 32, power, turn_deg=180 / 32)
    if style == "tactical" or rng.random() < 0.15:  # a crenellated bezel
        teeth = int(pick(rng, 3, 4, 5))
        notch = block((3 * head, 0.5 * head, 6), 1, 0.5).translate([0, 0, length - 1.6])
        for k in range(teeth):
            half = notch.translate([1.5 * head + 0.3 * head, 0, 0])
            solid = solid - half.rotate([0, 0, 360 * k / teeth])
    if style == "angled":
        # The lamp looks sideways: a shorter barrel with the head across its top.
        tall = min(length, 150.0)
        lamp: Profile = [
            (0.8 * r, -1.3 * r),
            (1.2 * r, -1.2 * r),
            (1.2 * r, 1.0 * r),
            (1.45 * r, 1.5 * r),
        ]
        lamp += [(1.45 * r, 1.9 * r), (1.25 * r, 1.9 * r), (0.4 * r, 1.2 * r)]
        barrel: Profile = [(0.9 * r, 0), (1.1 * r, 2), (1.1 * r, 0.15 * tall), (r, 0.16 * tall)]
        barrel += [*_knurl(0.2 * tall, 0.7 * tall, r, int(rng.integers(3, 7))), (r, tall)]
        flat = rng.uniform(0.75, 1.0)
        clip = block((3, 0.8 * r, 0.6 * tall), 1, 0.8).translate([-r - 1.2, 0, 0.3 * tall])
        across = lathe(lamp, 32).rotate([0, 90, 0]).translate([0, 0, tall])
        root = block((6, 0.8 * r, 6), 1, 0.5).translate([1 - r, 0, 0.84 * tall])
        solid = join(lathe(barrel, 32, 2.4, flat), across, clip, root)
    switch = rng.random()
    if switch < 0.55 and style not in ("pen", "angled"):
        button = block((rng.uniform(14, 26), 0.8 * r, 3.5), 0.35 * r, 1.2)
        place = neck - 0.09 * length
        solid = solid + button.rotate([0, 90, 0]).translate([0.94 * r - 1.5, 0, place])
    elif style not in ("angled",):
        solid = solid + lathe([(0.5 * r, -2.5), (0.55 * r, -1.5), (0.55 * r, 2)], 16)
    if style == "pen" or (style == "tactical" and rng.random() < 0.4):
        clip = block((1.8, 0.6 * r, 0.42 * length), 0.6, 0.5).translate([r + 1.6, 0, 0.12 * length])
        bridge = block((4, 0.6 * r, 5), 0.6, 0.5).translate([r, 0, 0.12 * length])
        solid = join(solid, clip, bridge)
    if style == "heavy" and rng.random() < 0.5:  # an eye for the strap
        eye = plate(fillet([(-6, -9), (6, -9), (6, 3), (-6, 3)], 4, 3, True), 3)
        solid = solid + (eye - cylinder(3, 8, 12).rotate([90, 0, 0]).translate([0, 4, -4]))
    return solid.rotate([0, 90, 0])
