"""Objects with flat sides: tetra paks and cameras. Millimetres."""

from __future__ import annotations

import numpy as np
from manifold3d import Manifold

from .shapes import block, cylinder, fillet, join, lathe, pick, plate, skin, sweep


def _screw_cap(rng: np.random.Generator, radius: float) -> Manifold:
    tall = rng.uniform(7, 13)
    return join(
        lathe([(radius + 2, -3), (radius + 2, 1.2), (radius, 1.6)], 24),
        lathe([(radius, -3), (radius, tall - 1), (radius - 1.2, tall)], 24),
    )


def _gable(w: float, d: float, h: float, rise: float, fin: float) -> Manifold:
    """A carton whose roof is a ridge along x with its ends folded in, and a fin on it."""
    body = block((w, d, h), 2, 1.5)
    ridge = h + rise
    roof = plate([(-d / 2, h - 3), (d / 2, h - 3), (d / 2, h), (0, ridge), (-d / 2, h)], w)
    roof = roof.rotate([0, 0, 90])
    solid = body + roof
    for side in (-1.0, 1.0):
        x = side * (w / 2 + 0.6)
        fold = [(x, -d / 2 + 2, h + 0.5), (x, d / 2 - 2, h + 0.5), (x, 0, ridge + 4)]
        fold += [(side * (w / 2 - 0.42 * d), 0, ridge), (side * (w / 2 - 0.42 * d), 0, ridge + 4)]
        solid = solid - Manifold.hull_points(np.array(fold))
    return solid + block((w, 2.6, fin + 3), 1, 0.6).translate([0, 0, ridge - 3])


def tetra_pak(rng: np.random.Generator, index: int) -> Manifold:
    style = ("brick", "gable", "slim", "prisma", "gable", "brick", "top", "wedge", "edge")[
        index % 9
    ]
    w, d = rng.uniform(58, 92), rng.uniform(45, 72)
    bulge = 1 + rng.uniform(0, 0.03)
    if style == "gable":
        h = rng.uniform(95, 185)
        rise = d * rng.uniform(0.28, 0.45)
        solid = _gable(w, d, h, rise, rng.uniform(9, 16))
        if rng.random() < 0.55:  # a cap on the slope
            tilt = float(np.degrees(np.arctan2(rise, d / 2)))
            cap = _screw_cap(rng, rng.uniform(9, 13)).rotate([tilt, 0, 0])
            solid = solid + cap.translate([0, -d / 4, h + rise / 2])
        return solid
    if style == "top":  # a carton body under a rounded plastic top with a wide lid
        r, h = rng.uniform(27, 37), rng.uniform(95, 190)
        shoulder = rng.uniform(0.3, 0.9) * r
        z = np.array([0, 1.5, h - shoulder - 2, h - shoulder, h - 0.3 * shoulder, h])
        wide = r * np.array([0.97, 1, 1, 0.99, 0.9, 0.72])
        power = np.array([7, 7, 7, 5.5, 3.2, 2.2])
        body = lathe(np.column_stack([wide, z]), 40, power, rng.uniform(0.8, 1), turn_deg=4.5)
        lid = rng.uniform(0.42, 0.62) * r
        tall = rng.uniform(9, 15)
        profile = [(lid, -4.0), (lid, tall - 1.2), (lid - 1.2, tall)]
        return body + lathe(profile, 28).translate([0, 0, h])
    if style == "prisma":
        h, cut = rng.uniform(120, 190), rng.uniform(0.14, 0.24)
        x, y, c = w * 0.9 / 2, d / 2, cut * w
        octagon = [(x, y - c), (x - c, y), (c - x, y), (-x, y - c)]
        octagon += [(-a, -b) for a, b in octagon]
        waist = rng.uniform(0.93, 1.0)
        z = np.linspace(0, h, 7)
        size = 1 - (1 - waist) * np.sin(np.pi * z / h)
        rings = [
            np.column_stack([np.array(octagon) * k, np.full(8, level)])
            for k, level in zip(size, z, strict=True)
        ]
        solid = skin(np.array(rings))
    elif style == "wedge":
        w, d, h = rng.uniform(75, 95), rng.uniform(50, 75), rng.uniform(95, 140)
        points = [(-d / 2, 0), (d / 2, 0), (d / 2, 6), (2, h), (-2, h), (-d / 2, 6)]
        solid = plate(points, w, 3).rotate([0, 0, 90])
        solid = solid + block((w, 2.4, 10), 1, 0.6).translate([0, 0, h - 3])
        return solid
    elif style == "edge":  # a brick with a slanting top
        h = rng.uniform(150, 215)
        slope = d * rng.uniform(0.3, 0.6)
        points = [(-d / 2, 0), (d / 2, 0), (d / 2, h), (-d / 2, h - slope)]
        solid = plate(points, w, 1.5).rotate([0, 0, 90])
        tilt = float(np.degrees(np.arctan2(slope, d)))
        cap = _screw_cap(rng, rng.uniform(10, 15)).rotate([tilt, 0, 0])
        return solid + cap.translate([0, 0, h - slope / 2])
    else:
        small = index % 2 == 0
        if style == "slim":
            w, d, h = rng.uniform(44, 58), rng.uniform(32, 44), rng.uniform(105, 150)
        elif small:
            w, d, h = rng.uniform(44, 64), rng.uniform(34, 48), rng.uniform(78, 110)
        else:
            h = rng.uniform(140, 200)
        solid = block((w * bulge, d * bulge, h), 2.5, 1.5)
    # The flaps of a brick: triangles folded against its sides, and the seam across the top.
    if style in ("brick", "slim"):
        drop = 0.5 * d
        flap = plate([(-d / 2 + 1, 0), (d / 2 - 1, 0), (0, -drop)], 1.6).rotate([0, 0, 90])
        for side in (-1, 1):
            solid = solid + flap.translate([side * (w * bulge / 2 + 0.3), 0, h - 1.5])
        solid = solid + block((w, rng.uniform(4, 8), 2), 0.5, 0.6).translate([0, 0, h - 1])
    extra = rng.random()
    if extra < 0.4:
        cap = _screw_cap(rng, rng.uniform(9, min(15, 0.3 * d)))
        solid = solid + cap.translate([rng.uniform(-0.2, 0.2) * w, -0.16 * d, h])
    elif extra < 0.65 and style != "prisma":  # a drinking straw with a bend
        lift, lean = rng.uniform(22, 34), rng.uniform(14, 26)
        path = fillet([(0, 0, -6), (0, 0, lift), (lean, 0, lift + 12)], 7, 3)
        angle = np.arange(8) * np.pi / 4
        straw = sweep(path, 2.6 * np.column_stack([np.cos(angle), np.sin(angle)]))
        solid = solid + straw.translate([-0.3 * w, 0.2 * d, h])
    return solid


def _lens(rng: np.random.Generator, radius: float, length: float, rings: int) -> Manifold:
    """A barrel along -y from y = 0, stepped by its rings, with a hollow front."""
    points = [(radius, -4.0)]
    r = radius
    for k in range(rings):
        z = length * (k + 1) / rings
        points += [(r, z - 0.4)]
        if k + 1 < rings:
            r *= rng.uniform(0.88, 1.05)
            points += [(r, z + 0.4)]
    points += [(r - 1.5, length), (0.78 * r, length), (0.66 * r, length - min(6, 0.4 * length))]
    dome = 0.3 * r
    points += [(0.3 * r, length - min(6, 0.4 * length) + 0.25 * dome)]
    return lathe(points, 32).rotate([90, 0, 0])


def camera(rng: np.random.Generator, index: int) -> Manifold:
    style = (
        "compact",
        "slr",
        "rangefinder",
        "slr",
        "compact",
        "bridge",
        "instant",
        "action",
        "folding",
    )[index % 9]
    if style == "compact":
        w, d, h = rng.uniform(88, 112), rng.uniform(20, 32), rng.uniform(52, 68)
        soft = rng.uniform(3, 0.45 * d)
        solid = block((w, h, d), rng.uniform(4, 18), soft, 4).rotate([90, 0, 0])
        solid = solid.translate([0, d / 2, h / 2])
        lens_r, lens_x = rng.uniform(0.27, 0.38) * h, rng.uniform(-0.16, 0.2) * w
        lens = _lens(rng, lens_r, rng.uniform(4, 26), int(rng.integers(1, 4)))
        solid = join(
            solid,
            lens.translate([lens_x, -d / 2 + 1, 0.48 * h]),
            cylinder(rng.uniform(5, 8), 4.5, 20, 0.8).translate([-0.32 * w, 0, h - 2]),
            block((14, 7, 3.5), 2, 1).translate([-0.12 * w, 0, h - 1.5]),
        )
        if rng.random() < 0.5:  # a grip
            grip = block((13, 10, 0.7 * h), 4, 3).translate([-0.42 * w, -d / 2, 0.12 * h])
            solid = solid + grip
        if rng.random() < 0.6:
            flash = block((16, 9, 3), 2, 1).rotate([90, 0, 0])
            solid = solid + flash.translate([0.33 * w, -d / 2 + 1.5, 0.78 * h])
        return solid
    if style in ("slr", "bridge"):
        w, d, h = rng.uniform(102, 130), rng.uniform(34, 46), rng.uniform(62, 80)
        edge = rng.uniform(2, 7)
        hump_w, hump_h = rng.uniform(38, 54), rng.uniform(15, 24)
        hump = plate(
            [
                (-hump_w / 2, -8),
                (hump_w / 2, -8),
                (hump_w / 2 - 3, 3),
                (0.22 * hump_w, hump_h),
                (-0.22 * hump_w, hump_h),
                (3 - hump_w / 2, 3),
            ],
            d + 6,
            3,
        )
        grip_d = rng.uniform(8, 18)
        grip = block((rng.uniform(22, 30), d + grip_d, 0.94 * h), 9, 5)
        lens_r = rng.uniform(26, 34)
        lens = _lens(rng, lens_r, rng.uniform(22, 75), int(rng.integers(2, 6)))
        solid = join(
            block((w, d, h), rng.uniform(3, 12), edge),
            hump.translate([0, -3, h]),
            lens.translate([rng.uniform(0, 0.06) * w, -d / 2, 0.46 * h]),
            cylinder(rng.uniform(8, 11), 8, 24, 1).translate([0.34 * w, 2, h - 2]),
            cylinder(rng.uniform(4, 6), 7, 16, 1).translate([-0.42 * w, -5, h - 2]),
        )
        if (style == "slr" and index % 2 == 1 and rng.random() < 0.85) or style == "bridge":
            solid = solid + grip.translate([-0.5 * w + 9, -grip_d / 2, 0])
        if rng.random() < 0.5:  # hot shoe, or a flash on it
            solid = solid + block((20, 18, 4), 1, 0.6).translate([0, 4, h + hump_h - 2])
        elif rng.random() < 0.4:
            solid = solid + block((34, 18, 30), 3, 3).translate([0, 4, h + hump_h - 4])
        eye = block((22, 16, 8), 4, 2).rotate([90, 0, 0])
        return solid + eye.translate([0, d / 2 + 5, h + 0.3 * hump_h])
    if style == "rangefinder":
        w, d, h = rng.uniform(112, 138), rng.uniform(28, 36), rng.uniform(64, 80)
        window = block((14, 9, 4), 1.5, 0.5).rotate([90, 0, 0])
        solid = join(
            block((w, d, h - 12), min(d / 2 - 1, rng.uniform(5, 16)), 1.5, 5),
            block((0.93 * w, d - 4, 16), 5, 2).translate([0, 0, h - 16]),
            _lens(rng, rng.uniform(20, 27), rng.uniform(14, 40), 3).translate(
                [rng.uniform(-0.1, 0.04) * w, -d / 2, 0.44 * h]
            ),
            *[
                cylinder(radius, tall, 20, 0.8).translate([share * w, 0, h - 1])
                for radius, tall, share in (
                    (rng.uniform(7, 10), rng.uniform(5, 9), 0.36),
                    (rng.uniform(6, 9), rng.uniform(4, 8), -0.34),
                    (4, 5, -0.18),
                )
            ],
            block((18, 16, 3.5), 1, 0.5).translate([0.04 * w, 2, h - 1]),
        )
        hole = window.translate([0.32 * w, -d / 2 + 4, h - 10])
        return solid - hole - window.translate([-0.28 * w, -d / 2 + 4, h - 10])
    if style == "instant":
        w, d, h = rng.uniform(86, 112), rng.uniform(38, 58), rng.uniform(88, 112)
        side = [(-d / 2, 0), (d / 2, 0), (d / 2, 0.75 * h), (0.25 * d, h), (-0.3 * d, h)]
        side += [(-d / 2, 0.62 * h)]
        solid = plate(side, w, rng.uniform(4, 9)).rotate([0, 0, 90])
        return join(
            solid - block((0.8 * w, 3, 20), 1, 0.5).translate([0, -0.28 * d, h - 6]),
            _lens(rng, rng.uniform(20, 27), rng.uniform(9, 22), 2).translate(
                [0, -d / 2 + 2, 0.36 * h]
            ),
            block((22, 12, 6), 3, 1).rotate([90, 0, 0]).translate([0.28 * w, -0.4 * d, 0.83 * h]),
            cylinder(6, 8, 20, 1).rotate([90, 0, 0]).translate([-0.34 * w, -d / 2 + 4, 0.35 * h]),
        )
    if style == "action":
        if index % 2:
            w, d, h = rng.uniform(56, 72), rng.uniform(24, 34), rng.uniform(40, 50)
            solid = block((w, d, h), 5, 3)
            square = block((22, 22, 12), 4, 1.5).rotate([90, 0, 0])
            solid = solid + square.translate([0.22 * w, -d / 2 + 4, 0.62 * h])
            foot = join(
                *[
                    plate(fillet([(-8, -14), (8, -14), (8, 4), (-8, 4)], 6, 3, True), 3)
                    .rotate([0, 0, 90])
                    .translate([x, 0, 0])
                    for x in (-5, 0, 5)
                ]
            )
            return join(solid, foot, cylinder(6, 4, 16, 1).translate([-0.3 * w, 0, h - 2]))
        w, d, h = rng.uniform(52, 64), rng.uniform(100, 128), rng.uniform(56, 70)
        body = block((w, d, h), 0.3 * w, 0.25 * w, 4)
        screen = block((5, 0.55 * d, 0.7 * h), 2, 1.5).translate([w / 2 + 1, 0.05 * d, 0.15 * h])
        lens = _lens(rng, 0.38 * min(w, h), rng.uniform(16, 34), 3)
        return join(body, screen, lens.translate([0, -d / 2 + 6, 0.5 * h]))
    # A folding camera with its bellows out.
    w, d, h = rng.uniform(105, 135), rng.uniform(22, 30), rng.uniform(66, 84)
    out = rng.uniform(26, 50)
    steps = np.arange(9)
    size = (1 - 0.45 * steps / 8)[:, None] * (1 - 0.08 * (steps % 2))[:, None]
    points = np.column_stack([0.5 * 0.62 * h * size * 1.15, 2 + out * steps / 8])
    bellows = lathe(points, 32, 6).rotate([90, 0, 0]).translate([0, -d / 2 + 4, 0.47 * h])
    board = block((0.5 * w * 0.7, 4, 0.62 * h), 3, 1).translate([0, -d / 2 - out + 2, 0.14 * h])
    bed = block((0.42 * w, out + 8, 3), 2, 0.8).translate([0, -d / 2 - out / 2 + 2, 0.1 * h])
    lens = _lens(rng, rng.uniform(12, 17), 10, 2).translate([0, -d / 2 - out + 2, 0.47 * h])
    finder = block((26, 14, 12), 2, 1).translate([pick(rng, -0.2, 0, 0.2) * w, 0, h - 2])
    return join(block((w, d, h), 10, 2.5, 4), bellows, board, bed, lens, finder)
