"""Apples and toy cars. Millimetres."""

from __future__ import annotations

import numpy as np
from manifold3d import Manifold

from .shapes import (
    Array,
    block,
    cylinder,
    ellipse,
    fillet,
    join,
    lathe,
    plate,
    prism,
    skin,
    sweep,
    through,
)


def apple(rng: np.random.Generator, index: int) -> Manifold:
    """A body of revolution with dimples, made lopsided and lobed; often a stem, a leaf, or a bite."""
    r = rng.uniform(29, 42)
    tall = rng.uniform(0.78, 1.08)
    n, rows = 36, 22
    t = np.linspace(0.02, np.pi - 0.02, rows)[:, None]
    a = (2 * np.pi * np.arange(n) / n)[None]
    # Widest above the middle, as apples are: the equator moves up by `high`.
    high = rng.uniform(0.02, 0.22)
    rho = np.sin(t) ** rng.uniform(0.72, 0.95) * (1 - high * np.cos(t) * np.sin(t))
    z = -np.cos(t) * tall
    dimple = np.exp(-((rho / rng.uniform(0.28, 0.42)) ** 2))
    z = z - np.sign(z) * dimple * np.where(z > 0, rng.uniform(0.22, 0.42), rng.uniform(0.1, 0.28))
    lobes, strength = int(rng.integers(3, 6)), rng.uniform(0.0, 0.06)
    wobble = 1 + strength * np.cos(lobes * a + rng.uniform(0, 6)) * np.clip(
        0.4 + 0.6 * np.cos(t), 0.1, 1
    )
    for k in (1, 2, 3):  # gentle lumps
        wobble = wobble + rng.normal(0, 0.018) * np.cos(k * a + rng.uniform(0, 6)) * np.sin(
            t * rng.uniform(0.8, 2)
        )
    x, y = r * rho * wobble * np.cos(a), r * rho * wobble * np.sin(a) * rng.uniform(0.93, 1.0)
    z = np.broadcast_to(r * z, x.shape) + rng.uniform(-0.14, 0.14) * x
    lean = rng.uniform(-0.1, 0.1)
    solid = skin(np.stack([x + lean * z, y, z], axis=-1))
    hollow = float(z[-1].mean())
    kind = rng.random()
    if kind < 0.72:
        up = rng.uniform(9, 24)
        bend = rng.uniform(-7, 7)
        base = lean * hollow
        path = through(
            [
                (base, 0, hollow - 4),
                (base + 0.2 * bend, 0, hollow + 0.5 * up),
                (base + bend, 0, hollow + up),
            ],
            7,
        )
        size = np.interp(np.linspace(0, 1, 7), [0, 0.7, 1], [1.0, 0.85, 1.35])
        thick = rng.uniform(1.2, 2.2)
        solid = solid + sweep(path, ellipse(thick, thick, 2, 8), scale=size)
        if kind < 0.2:
            turn = rng.uniform(0, 360)
            size_mm = rng.uniform(22, 36)
            s = np.linspace(0, 1, 9)
            mid = np.column_stack([size_mm * s, 0 * s, size_mm * (0.5 * s - 0.55 * s**2)])
            width = np.column_stack([np.sin(np.pi * np.clip(s, 0.08, 0.93)) ** 0.8, np.ones(9)])
            leaf = sweep(mid, ellipse(0.28 * size_mm, 0.9, 2, 12), scale=width)
            solid = solid + leaf.rotate([0, 0, turn]).translate(
                [base + 0.2 * bend, 0, hollow + 0.45 * up]
            )
    if kind > 0.88:  # a bite
        turn = rng.uniform(0, 2 * np.pi)
        for k in (-1, 0, 1):
            at = turn + 0.35 * k
            reach = 1.12 * r
            tooth = Manifold.sphere(0.42 * r, 16)
            solid = solid - tooth.translate([reach * np.cos(at), reach * np.sin(at), 0.12 * r * k])
    return solid


def _wheel(radius: float, width: float, side: float, hub: float) -> Manifold:
    """About the y axis, its outer face toward `side`; the hub is sunk (hub < 1) into the tyre."""
    points = [(radius - 1, -width / 2), (radius, 1 - width / 2), (radius, width / 2 - 1)]
    points += [
        (radius - 1, width / 2),
        (hub * radius, width / 2),
        (0.92 * hub * radius, width / 2 - 1.5),
    ]
    points += [(0.3 * radius, width / 2 - 0.6)]
    return lathe(points, 20).rotate([-90 * side, 0, 0])


# Side views: (share of length from the rear, share of height above the sill) of body and cabin.
_CARS: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = {
    "sedan": (
        [(0, 0), (0, 0.42), (0.03, 0.55), (0.3, 0.56), (0.7, 0.54), (0.97, 0.44), (1, 0.3), (1, 0)],
        [(0.12, 0.45), (0.24, 1), (0.55, 1), (0.72, 0.45)],
    ),
    "hatch": (
        [(0, 0), (0, 0.4), (0.03, 0.56), (0.7, 0.56), (0.96, 0.46), (1, 0.34), (1, 0)],
        [(0.02, 0.45), (0.08, 1), (0.52, 1), (0.74, 0.45)],
    ),
    "pickup": (
        [(0, 0), (0, 0.52), (0.5, 0.52), (0.75, 0.54), (0.98, 0.5), (1, 0.4), (1, 0)],
        [(0.42, 0.45), (0.44, 1), (0.62, 1), (0.74, 0.45)],
    ),
    "van": (
        [(0, 0), (0, 0.5), (0.6, 0.5), (0.97, 0.42), (1, 0.3), (1, 0)],
        [(0, 0.4), (0.01, 1), (0.78, 1), (0.95, 0.4)],
    ),
    "bus": (
        [(0, 0), (0, 0.5), (1, 0.5), (1, 0)],
        [(0, 0.4), (0, 1), (0.98, 1), (1, 0.4)],
    ),
    "beetle": (
        [(0, 0), (0, 0.2), (0.1, 0.5), (0.3, 0.6), (0.65, 0.58), (0.9, 0.46), (1, 0.2), (1, 0)],
        [(0.1, 0.4), (0.22, 0.85), (0.42, 1), (0.58, 0.92), (0.72, 0.45)],
    ),
    "jeep": (
        [(0, 0), (0, 0.52), (0.68, 0.52), (0.98, 0.5), (1, 0.45), (1, 0)],
        [(0.03, 0.45), (0.03, 1), (0.6, 1), (0.66, 0.45)],
    ),
    "sports": (
        [(0, 0), (0, 0.6), (0.2, 0.66), (0.6, 0.6), (0.95, 0.42), (1, 0.24), (1, 0)],
        [(0.18, 0.5), (0.34, 1), (0.5, 1), (0.72, 0.45)],
    ),
}


def _polygon(shares: list[tuple[float, float]], length: float, tall: float, sill: float) -> Array:
    p = np.array(shares)
    return np.column_stack([(p[:, 0] - 0.5) * length, sill + p[:, 1] * tall])


def _racer(rng: np.random.Generator) -> Manifold:
    """An open-wheeled racing car."""
    length, wide = rng.uniform(95, 150), rng.uniform(44, 60)
    wheel_r, wheel_w = rng.uniform(10, 13.5), rng.uniform(9, 14)
    body_w, floor = 0.42 * wide, 4.0
    t = np.linspace(0, 1, 12)
    half = body_w / 2 * np.interp(t, [0, 0.2, 0.55, 0.8, 1], [0.6, 1, 1, 0.55, 0.3])
    tall = wheel_r * np.interp(t, [0, 0.35, 0.55, 0.7, 1], [0.55, 0.95, 0.7, 0.5, 0.2])
    rings = []
    for s, a, b in zip(t, half, tall, strict=True):
        section = ellipse(a, b, 3.0, 16)
        rings.append(
            np.column_stack(
                [np.full(16, (s - 0.5) * length), section[:, 0], floor + b + section[:, 1]]
            )
        )
    parts = [skin(np.array(rings))]
    pods = block((0.34 * length, 0.72 * wide, 0.8 * wheel_r), 5, 2).translate(
        [-0.06 * length, 0, floor]
    )
    parts.append(pods)
    for x in (-0.34, 0.3):
        axle = cylinder(2.2, wide - 4, 10).rotate([90, 0, 0])
        parts.append(axle.translate([x * length, wide / 2 - 2, wheel_r]))
        for side in (-1.0, 1.0):
            wheel = _wheel(wheel_r, wheel_w, side, 0.6)
            parts.append(wheel.translate([x * length, side * (wide - wheel_w) / 2, wheel_r]))
    wing_z = 2.0 * wheel_r + rng.uniform(0, 5)
    parts.append(block((13, 0.8 * wide, 2.6), 1, 0.8).translate([-0.45 * length, 0, wing_z]))
    post = block((7, 3, wing_z - floor), 1, 0.5)
    parts += [
        post.translate([-0.44 * length, y, floor + 1.5]) for y in (-0.14 * body_w, 0.14 * body_w)
    ]
    parts.append(block((11, 0.88 * wide, 2.6), 1, 0.8).translate([0.47 * length, 0, floor]))
    helmet = Manifold.sphere(0.3 * body_w, 16)
    parts.append(helmet.translate([-0.02 * length, 0, floor + 1.85 * wheel_r]))
    parts.append(
        block((0.2 * length, 0.3 * body_w, 0.9 * wheel_r), 2, 2).translate(
            [-0.16 * length, 0, floor + wheel_r]
        )
    )
    return join(*parts)


def toy_car(rng: np.random.Generator, index: int) -> Manifold:
    style = (
        "sedan",
        "truck",
        "hatch",
        "racer",
        "pickup",
        "van",
        "beetle",
        "dump",
        "jeep",
        "bus",
        "sports",
    )[index % 11]
    if style == "racer":
        return _racer(rng)
    length = rng.uniform(78, 145)
    wide = length * rng.uniform(0.4, 0.5)
    wheel_r, wheel_w = length * rng.uniform(0.08, 0.105), length * rng.uniform(0.055, 0.08)
    tall = length * rng.uniform(0.24, 0.31)
    axles = [-0.31 * length, 0.3 * length]
    if style in ("van", "bus", "jeep"):
        tall *= rng.uniform(1.15, 1.35)
    if style == "bus":
        length *= 1.2
        axles = [-0.33 * length, 0.32 * length]
    if style == "sports":
        tall *= 0.82
    if style not in ("van", "bus", "jeep", "truck", "dump"):
        wheel_r = min(wheel_r, 0.3 * tall)  # the arches stay below a low bonnet
    sill = 0.55 * wheel_r
    if style in ("truck", "dump"):
        cab_l = 0.26 * length
        bed_h = max(0.24 * tall, 2.25 * wheel_r - sill)  # the bed clears the wheels
        chassis = block((0.96 * length, 0.7 * wide, bed_h + 3), 2, 1).translate([0, 0, sill])
        nose = rng.uniform(0, 0.12) * length
        cab = _polygon([(0, 0), (0, 1), (0.75, 1), (1, 0.55), (1, 0)], cab_l, 0.95 * tall, sill)
        parts = [chassis, plate(cab, wide, 4).translate([0.5 * length - cab_l / 2 - nose, 0, 0])]
        if nose > 0.05 * length:
            parts.append(
                block((nose + 4, 0.8 * wide, 0.5 * tall), 4, 3).translate(
                    [0.5 * length - nose / 2 - 2, 0, sill]
                )
            )
        bed_l = 0.62 * length - 0.5 * nose
        bed_x = -0.5 * length + bed_l / 2 + 1
        high = tall * (rng.uniform(0.8, 1.2) if style == "truck" else rng.uniform(0.5, 0.7))
        load = rng.random()
        if style == "truck" and load < 0.35:  # a tanker
            tank = lathe(
                fillet(
                    [
                        (2, -bed_l / 2),
                        (0.48 * wide, -bed_l / 2),
                        (0.48 * wide, bed_l / 2),
                        (2, bed_l / 2),
                    ],
                    8,
                    3,
                ),
                24,
            ).rotate([0, 90, 0])
            parts.append(tank.translate([bed_x, 0, sill + bed_h + 0.42 * wide]))
        else:
            box = block((bed_l, wide, high), 2.5, 1.5).translate([bed_x, 0, sill + bed_h])
            if style == "dump":
                inner = block((bed_l - 8, wide - 8, high), 2, 0.5)
                box = box - inner.translate([bed_x, 0, sill + bed_h + 4])
            parts.append(box)
        axles = [-0.36 * length, -0.36 * length + 2.3 * wheel_r, 0.34 * length - nose]
        body = join(*parts)
    else:
        lower, upper = _CARS[style]
        jitter = rng.uniform(-0.025, 0.025, size=(len(upper), 2)) * [1, 0.5]
        cabin_shape = [(u + du, v + dv) for (u, v), (du, dv) in zip(upper, jitter, strict=True)]
        soft = rng.uniform(2, 6) if style not in ("jeep", "bus") else rng.uniform(1, 3)
        hull = plate(_polygon(lower, length, tall, sill), wide, soft)
        plan = fillet(
            [
                (-length / 2, -0.47 * wide),
                (0, -wide / 2),
                (length / 2, -0.44 * wide),
                (length / 2, 0.44 * wide),
                (0, wide / 2),
                (-length / 2, 0.47 * wide),
            ],
            0.16 * wide,
            4,
            closed=True,
        )
        hull = hull ^ prism(plan, 3 * tall)
        cabin_w = wide * (0.95 if style in ("van", "bus") else rng.uniform(0.82, 0.92))
        base = sill + 0.5 * tall
        narrow = rng.uniform(0.05, 0.28) if style not in ("van", "bus", "jeep") else 0.08
        cabin_side = _polygon(cabin_shape, length, tall, sill)
        cabin = plate(cabin_side, cabin_w, soft)
        glass_side = _polygon(
            [(u + 0.04 * np.sign(0.4 - u), 0.6 + 0.3 * (v > 0.7)) for u, v in cabin_shape],
            length,
            tall,
            sill,
        )
        slim = plate(cabin_side, cabin_w - 2.4, soft)
        if style != "beetle":  # side windows, sunk by 1.2 mm
            cabin = cabin - (plate(glass_side, cabin_w + 4, 2) - slim)

        def tumblehome(p: Array) -> Array:
            k = 1 - narrow * np.clip((p[:, 2] - base) / (0.5 * tall), 0, 1.2)
            return np.column_stack([p[:, 0], p[:, 1] * k, p[:, 2]])

        body = hull + cabin.warp_batch(tumblehome)
        if style == "pickup":
            bed = block((0.36 * length, wide - 2 * wheel_w - 3, tall), 2, 0.5)
            body = body - bed.translate([-0.28 * length, 0, sill + 0.26 * tall])
        extra = rng.random()
        if style in ("sports", "sedan") and extra < 0.4:  # a spoiler
            wing = block((9, 0.86 * wide, 2.6), 1, 0.8).translate(
                [-0.45 * length, 0, sill + 0.85 * tall]
            )
            posts = [
                block((5, 3, 0.4 * tall), 1, 0.4).translate([-0.45 * length, y, sill + 0.5 * tall])
                for y in (-0.3 * wide, 0.3 * wide)
            ]
            body = join(body, wing, *posts)
        elif extra > 0.8 and style not in ("sports",):  # a taxi sign or a beacon
            body = body + block((8, 16, 8), 2, 1.5).translate(
                [float(cabin_side[:, 0].mean()), 0, sill + 0.97 * tall]
            )
        if style == "jeep" and rng.random() < 0.7:  # the spare wheel
            spare = _wheel(wheel_r, wheel_w, 1.0, 0.55).rotate([0, 0, 90])
            body = body + spare.translate([-length / 2 - 0.35 * wheel_w, 0, sill + 0.5 * tall])
        bumper = block((5, 0.9 * wide, 0.16 * tall), 2, 1)
        if rng.random() < 0.5:
            body = (
                body
                + bumper.translate([length / 2, 0, sill])
                + bumper.translate([-length / 2, 0, sill])
            )
    hub = rng.uniform(0.45, 0.72)
    for x in axles:
        arch = cylinder(1.16 * wheel_r, wide, 20).rotate([90, 0, 0])
        for side in (-1.0, 1.0):
            # The wheel's inner 1.5 mm stays in the body, which is what carries it.
            body = body - arch.translate([x, side * (wide - wheel_w + 1.5) + wide / 2, wheel_r])
    for x in axles:
        for side in (-1.0, 1.0):
            wheel = _wheel(wheel_r, wheel_w, side, hub)
            body = body + wheel.translate([x, side * (wide - wheel_w) / 2, wheel_r])
        body = body + cylinder(0.3 * wheel_r, wide - wheel_w, 10).rotate([90, 0, 0]).translate(
            [x, (wide - wheel_w) / 2, wheel_r]
        )
    return body
