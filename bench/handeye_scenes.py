"""Calibration without a target and the check for a knock, against truth, on scenes seen by a simulated D405.

Part of `python -m calib.study --scenes N`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from calib.collect.rig import random_truth
from calib.errors import CalibrationError
from calib.scene.check import CALIBRATED_SCALE_SD, Knock
from calib.scene.clouds import BlockCloud, cloud, flattened, planes_of
from calib.scene.look import FIFTEEN, FIVE, Tilted, about
from calib.scene.start import start_from_planes
from calib.scene.still import SceneFit, fit_scene
from calib.solve.model import LensModel
from calib.solve.noise import Noise
from calib.solve.se3 import from_vector, inverse, to_vector
from rt.pose import Array
from rt.tools.progress import progress
from sim.scene.grasps import numbered_scene
from sim.scene.objects import object_set
from sim.scene.render import Renderer
from sim.scene.sensor import Sensor, observe, sensor

KNOCKED_MM, KNOCKED_DEG = 6.0, 1.0
TOLERANCE_MM = 3.0
"""Of the command `check`."""
HEIGHT_M = 0.33
"""Of the camera above the table at first."""


def seen_scene(
    rng: np.random.Generator,
    number: int,
    noise: Noise,
    views: tuple[Tilted, ...],
    camera: Sensor,
) -> tuple[list[BlockCloud], Array, Array, float]:
    """(clouds, the poses that the arm tells (N, 4, 4), true T_hand_camera, true over measured depth) of a
    scene of 3 to 5 objects."""
    scene, _, _ = numbered_scene(
        object_set("test"), 0, "test", number, count=int(rng.integers(3, 6)), empty=True
    )
    renderer, intrinsics = Renderer(scene), camera.intrinsics
    rays, X = intrinsics.rays(), random_truth(rng).T_mount_camera
    down = np.diag([1.0, -1.0, -1.0, 1.0])
    down[:3, 3] = [*rng.uniform(-0.03, 0.03, 2), HEIGHT_M * rng.uniform(0.9, 1.1)]
    spin = from_vector([0, 0, rng.uniform(-np.pi, np.pi), 0, 0, 0])
    T = about(down @ spin, down[2, 3], views)
    scale = 1 + camera.scale_error * rng.standard_normal()
    clouds = [
        cloud(
            f"{k:04d}",
            observe(camera, renderer.depth(t, rays), intrinsics, rng, scale=scale),
            rays,
        )
        for k, t in enumerate(T)
    ]
    error = from_vector(rng.normal(size=(len(T), 6)) * np.sqrt(noise.robot_variance))
    return clouds, T @ inverse(X) @ error, X, 1 / scale


def without_target(count: int, noise: Noise, seed: int) -> dict[str, Any]:
    """Errors and intervals of 15 views of each scene, as `solve --target none` has them."""
    camera = sensor("d405")
    lens = LensModel.of(camera.intrinsics)
    errors, inside, claimed, failed = [], [], [], 0
    for k in progress(range(count), unit="scene", title="without a target"):
        rng = np.random.default_rng([seed, 500_000 + k])
        clouds, T_base_hand, X, _ = seen_scene(rng, k, noise, FIFTEEN, camera)
        try:
            planes = planes_of(clouds, rng)
            clouds = [flattened(c, p) for c, p in zip(clouds, planes, strict=True)]
            start = start_from_planes(planes, T_base_hand)
            fit = fit_scene(clouds, T_base_hand, lens, start)
        except CalibrationError:
            failed += 1
            continue
        off, half = _off(fit, X), fit.factor * np.sqrt(np.diag(fit.cov))
        errors.append([np.linalg.norm(off[3:]) * 1e3, np.degrees(np.linalg.norm(off[:3]))])
        inside.append(np.abs(off) <= half)
        claimed.append(np.linalg.norm(half[3:]) * 1e3)
    return {
        "scenes": count,
        "failed": failed,
        "median": np.median(errors, axis=0).tolist(),
        "p95": np.quantile(errors, 0.95, axis=0).tolist(),
        "coverage": np.mean(inside, axis=0).tolist(),
        "coverage_all": float(np.mean(inside)),
        "claimed_mm": float(np.median(claimed)),
    }


def knocked(count: int, noise: Noise, seed: int) -> dict[str, Any]:
    """Five views of each scene, against the true transform and against one from before a knock."""
    camera = sensor("d405")
    lens = LensModel.of(camera.intrinsics)
    words: dict[str, list[str]] = {"still": [], "knocked": []}
    inside, half = [], []
    for k in progress(range(count), unit="scene", title="was it knocked"):
        rng = np.random.default_rng([seed, 600_000 + k])
        clouds, T_base_hand, X, scale = seen_scene(rng, k, noise, FIVE, camera)
        knock = rng.normal(size=6)
        knock[:3] *= np.radians(KNOCKED_DEG) / np.linalg.norm(knock[:3])
        knock[3:] *= KNOCKED_MM * 1e-3 / np.linalg.norm(knock[3:])
        clouds = [flattened(c, p) for c, p in zip(clouds, planes_of(clouds, rng), strict=True)]
        # as the calibration before has told the depth's scale
        known = (scale + CALIBRATED_SCALE_SD * float(rng.standard_normal()), CALIBRATED_SCALE_SD)
        for kind, before in (("still", X), ("knocked", X @ from_vector(knock))):
            fit = fit_scene(clouds, T_base_hand, lens, before, known)
            found = Knock.of(fit, before, np.zeros((6, 6)))
            words[kind].append(found.judge(TOLERANCE_MM)[0])
            true = found.displacement(to_vector(inverse(before) @ X))
            inside.append(np.abs(found.point_mm - true) <= found.point_half_mm)
            half.append(found.point_half_mm.max())
    return {
        "scenes": count,
        "knock": [KNOCKED_MM, KNOCKED_DEG],
        "words": {
            kind: {w: said.count(w) / count for w in ("true", "moved", "unknown")}
            for kind, said in words.items()
        },
        "coverage": float(np.mean(inside)),
        "worst_half_mm": float(np.median(half)),
    }


def show(console: Console, s: dict[str, Any]) -> None:
    """Print what `without_target` and `knocked` found."""
    a, k = s["without_target"], s["knocked"]
    per = ", ".join(f"{c:.1%}" for c in a["coverage"])
    console.print(
        f"no target, {len(FIFTEEN)} depth views of {a['scenes']} scenes by a D405: median error "
        f"{a['median'][0]:.2f} mm, {a['median'][1]:.3f} deg, 95 % below {a['p95'][0]:.2f} mm, "
        f"{a['p95'][1]:.3f} deg; "
        f"intervals (in median {a['claimed_mm']:.2f} mm) hold the truth in {a['coverage_all']:.1%} "
        f"(rx ry rz tx ty "
        f"tz: {per}); no result in {a['failed']}",
        soft_wrap=True,
    )
    mm, deg = k["knock"]
    for kind, words in k["words"].items():
        what = f"moved by {mm:g} mm and {deg:g} deg" if kind == "knocked" else "not moved"
        console.print(
            f"check, {len(FIVE)} views, camera {what}: "
            + ", ".join(f"{w} {share:.0%}" for w, share in words.items()),
            soft_wrap=True,
        )
    console.print(
        f"check: intervals at 300 mm hold the truth in {k['coverage']:.1%}, their worst axis is "
        f"{k['worst_half_mm']:.2f} mm in median",
        soft_wrap=True,
    )


def _off(fit: SceneFit, X: Array) -> Array:
    """(6,) rotation [rad], translation [m] from the truth, along the camera's axes."""
    return to_vector(inverse(X) @ fit.T_hand_camera)
