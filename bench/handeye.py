"""Claims against truth: the errors of many simulated rigs beside the claimed intervals.

`python -m calib.study` prints one table for each question and writes study.json.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from bench import handeye_scenes
from calib.collect.rig import random_truth, simulated_views
from calib.data.poses import PoseFormat
from calib.data.recording import RecordedPair, Recording, pose_row
from calib.errors import CalibrationError, require_opencv
from calib.solve.closed_form import METHODS, closed_form, target_poses, with_target
from calib.solve.model import Free, Trajectory, Unknowns, Views
from calib.solve.motions import (
    Viewpoint,
    advise,
    greedy,
    hand_pose,
    invert,
    middle_of,
    pose_information,
    random_viewpoints,
    seen_fraction,
    working_matrix,
)
from calib.solve.noise import Noise, information
from calib.solve.outliers import Judged, consensus, corners, explain, judge
from calib.solve.refine import refine
from calib.solve.se3 import angle_deg, from_vector, inverse, to_vector
from calib.solve.solver import Settings, calibrate
from calib.solve.verdict import claim
from calib.target.targets import Target, tag_of
from rt.pose import Array
from rt.tools.command import command, screen
from rt.tools.files import write_json
from rt.tools.progress import progress


@dataclass(frozen=True)
class StudyOptions:
    """Rigs to simulate, and their number."""

    rigs: int = 200
    """Rigs for accuracy and for each kind of corruption."""
    poses: tuple[int, ...] = (15,)
    """Numbers of poses for the accuracy; the other questions use the largest."""
    tags: int = 50
    """Rigs whose data are poses of a single tag instead of images."""
    scenes: int = 20
    """Scenes for the calibration without a target and for the check for a knock; 0 leaves both out."""
    pixel_px: float = 0.1
    """Corner noise, px."""
    robot_mm: float = 0.2
    """Robot noise per axis, mm."""
    robot_deg: float = 0.02
    """Robot noise per axis, deg."""
    advised: int = 100
    """Rigs for the next pose."""
    timed: int = 50
    """Rigs for the time offset."""
    seed: int = 0
    """First rig."""
    out: Path = Path("runs/study")
    """Folder of study.json."""


TARGET = Target()


def planned(rng: np.random.Generator, truth: Unknowns, count: int, noise: Noise) -> list[Viewpoint]:
    """Viewpoints as `collect` chooses them: the most telling of many."""
    points = TARGET.points()
    middle = middle_of(points)
    options = [
        v
        for v in random_viewpoints(rng, 150, (0.22, 0.5))
        if seen_fraction(truth.camera, points, inverse(v.pose(middle))) > 0.99
    ]
    poses = np.array([hand_pose(truth, v.pose(middle), True) for v in options])
    info = pose_information(truth, noise, poses, points, True)
    return [options[k] for k in greedy(info, working_matrix(truth.T_mount_camera, 0.3), count)]


def rig(
    seed: int, o: StudyOptions, poses: int = 0
) -> tuple[np.random.Generator, Unknowns, Views, Noise]:
    rng = np.random.default_rng(seed)
    truth = random_truth(rng)
    noise = Noise(o.pixel_px, o.robot_mm * 1e-3, float(np.radians(o.robot_deg)))
    poses = poses or max(o.poses)
    # three or four poses as people take them, not as the most telling ones
    viewpoints = planned(rng, truth, poses, noise) if poses >= 5 else None
    return (
        rng,
        truth,
        simulated_views(rng, truth, TARGET.points(), poses, noise, viewpoints=viewpoints),
        noise,
    )


def solved(views: Views, rng: np.random.Generator, free: Free | None = None) -> Judged:
    start = consensus(views.fixed_mount(), target_poses(views), corners(views), views.camera, rng)
    assert start is not None
    return judge(views, start, free or Free())


def accuracy(o: StudyOptions, poses: int) -> dict[str, Any]:
    """Errors of the joint result and of every closed form; how often intervals hold the truth."""
    errors: dict[str, list[tuple[float, float]]] = {m: [] for m in (*METHODS, "joint")}
    inside, inside_point, blamed = [], [], 0
    for k in progress(range(o.rigs), unit="rig", title=f"accuracy of {poses} poses"):
        rng, truth, views, _ = rig(o.seed + k, o, poses)
        A, C = views.fixed_mount(), target_poses(views)
        j = solved(views, rng)
        blamed += bool((~j.keep).any())
        X, T = j.fit.state.T_mount_camera, truth.T_mount_camera
        found = {m: closed_form(A, C, m) for m in METHODS} | {"joint": X}
        for m, M in found.items():
            if M is not None:
                errors[m].append(
                    (
                        float(np.linalg.norm(M[:3, 3] - T[:3, 3]) * 1e3),
                        float(angle_deg(T[:3, :3].T @ M[:3, :3])),
                    )
                )
        factor = student.ppf(0.975, j.fit.interval_dof)
        error = np.concatenate([to_vector(X @ inverse(T))[:3], X[:3, 3] - T[:3, 3]])
        inside.append(np.abs(error) <= factor * np.sqrt(np.diag(j.fit.hand_eye_cov)))
        p = np.array([0, 0, 0.3])
        miss = (X[:3, :3] - T[:3, :3]) @ p + X[:3, 3] - T[:3, 3]
        inside_point.append(np.abs(miss) <= factor * np.sqrt(np.diag(j.fit.point_cov(p))))
    return {
        "poses": poses,
        "median": {m: np.median(e, axis=0).tolist() for m, e in errors.items()},
        "p95": {m: np.quantile(e, 0.95, axis=0).tolist() for m, e in errors.items()},
        "coverage": np.mean(inside, axis=0).tolist(),
        "coverage_all": float(np.mean(inside)),
        "coverage_point": float(np.mean(inside_point)),
        "clean_rigs_with_a_pair_blamed": blamed / o.rigs,
    }


def tags(o: StudyOptions) -> dict[str, Any]:
    """Poses of a 50 mm tag with 0.3 px of corner noise, no images: joint result, closed forms, intervals."""
    tag, noise = tag_of(0.05), Noise(0.3, o.robot_mm * 1e-3, float(np.radians(o.robot_deg)))
    errors: dict[str, list[float]] = {m: [] for m in ("joint", *METHODS)}
    inside, claimed = [], []
    for k in progress(range(o.tags), unit="rig", title="single tags"):
        rng = np.random.default_rng(o.seed + 400_000 + k)
        truth = random_truth(rng)
        views = simulated_views(rng, truth, tag.points(), max(o.poses), noise)
        C = target_poses(views)
        recording = Recording(
            Path("samples"),
            "simulated tags",
            [RecordedPair(n, T_camera_target=T) for n, T in zip(views.names, C, strict=True)],
            np.array([pose_row(T) for T in views.T_base_hand]),
            PoseFormat("quat_xyzw"),
            "samples",
            eye_in_hand=True,
        )
        result = calibrate(recording, Settings())
        T = truth.T_mount_camera[:3, 3]
        half = claim(result).half_width[3:]
        off = (result.T_mount_camera[:3, 3] - T) * 1e3
        errors["joint"].append(float(np.linalg.norm(off)))
        for m in METHODS:
            X = closed_form(views.T_base_hand, C, m)
            errors[m].append(np.inf if X is None else float(np.linalg.norm(X[:3, 3] - T) * 1e3))
        inside.append(np.abs(off) <= half)
        claimed.append(float(np.linalg.norm(half)))
    quantiles = {
        f"{m}_mm": np.quantile(e, [0.5, 0.95], method="lower").tolist() for m, e in errors.items()
    }
    return {
        **quantiles,
        "best_closed_form": min(METHODS, key=lambda m: quantiles[f"{m}_mm"][0]),
        "poses": max(o.poses),
        "claimed_mm": float(np.median(claimed)),
        "coverage": float(np.mean(inside)),
    }


CORRUPTIONS: dict[str, tuple[float, float] | None] = {
    "image of another pose": None,
    "pose off by 10 mm, 1 deg": (10.0, 1.0),
    "pose off by 3 mm, 0.3 deg": (3.0, 0.3),
    "pose off by 2 mm, 0.2 deg": (2.0, 0.2),
}


def corruption(o: StudyOptions) -> dict[str, Any]:
    """One pair of each rig is spoilt: is it found, is another blamed, is the reason right?"""
    result = {}
    for name, off in CORRUPTIONS.items():
        found = others = named = 0
        for k in progress(range(o.rigs), unit="rig", title=name):
            rng, _, views, _ = rig(o.seed + 100_000 + k, o)
            bad = int(rng.integers(len(views)))
            T = views.T_base_hand.copy()
            if off is None:
                T[bad] = T[(bad + 1 + rng.integers(len(views) - 1)) % len(views)]
            else:
                e = rng.normal(size=6)
                e[:3] *= np.radians(off[1]) / np.linalg.norm(e[:3])
                e[3:] *= off[0] * 1e-3 / np.linalg.norm(e[3:])
                T[bad] = T[bad] @ from_vector(e)
            spoilt = views.with_poses(T)
            j = solved(spoilt, rng)
            out = set(np.flatnonzero(~j.keep).tolist())
            found += bad in out
            others += bool(out - {bad})
            named += (
                "off by" in explain(spoilt, j).get(bad, "") if off else bad in explain(spoilt, j)
            )
        result[name] = {
            "found": found / o.rigs,
            "clean_pair_blamed": others / o.rigs,
            "explained": named / o.rigs,
        }
    return result


def next_pose(o: StudyOptions) -> dict[str, Any]:
    """After six random poses: the error at the working point with the advised pose, or a random one."""
    advised, rand, promised = [], [], []
    points = TARGET.points()
    M = working_matrix(np.eye(4), 0.3)
    for k in progress(range(o.advised), unit="rig", title="next pose"):
        rng = np.random.default_rng(o.seed + 200_000 + k)
        truth = random_truth(rng)
        noise = Noise(o.pixel_px, o.robot_mm * 1e-3, float(np.radians(o.robot_deg)))
        views = simulated_views(rng, truth, points, 6, noise)
        fit = refine(
            views,
            with_target(_first(views), views.fixed_mount(), target_poses(views), views.camera),
        )
        advice = advise(fit, points, 0.3, rng)
        assert advice.next_T_base_hand is not None
        other = simulated_views(rng, truth, points, 1, noise).T_base_hand
        H = information(fit.level, fit.noise).sum(axis=0)

        def rms(T: Array | None, H: Array = H, fit: Any = fit) -> float:
            more = 0 if T is None else pose_information(fit.state, fit.noise, T, points, True)[0]
            return float(np.sqrt(np.trace(M @ invert(H + more)[:6, :6])))

        advised.append(rms(advice.next_T_base_hand[None]) / rms(None))
        rand.append(rms(other) / rms(None))
        promised.append(advice.gain)
    return {
        "error_ratio_advised": float(np.median(advised)),
        "error_ratio_random": float(np.median(rand)),
        "advised_better": float(np.mean(np.array(advised) < np.array(rand))),
    }


def _first(views: Views) -> Array:
    X = closed_form(views.fixed_mount(), target_poses(views), "Park")
    assert X is not None
    return X


def time_offset(o: StudyOptions, dt_s: float = 0.03, images: int = 25) -> dict[str, Any]:
    """Images on the move at up to 0.1 m/s, stamps dt_s early: how well dt_s is recovered."""
    errors, inside = [], []
    points = TARGET.points()
    for k in progress(range(o.timed), unit="rig", title="time offset"):
        rng = np.random.default_rng(o.seed + 300_000 + k)
        truth = random_truth(rng)
        noise = Noise(o.pixel_px, o.robot_mm * 1e-3, float(np.radians(o.robot_deg)))
        way = simulated_views(rng, truth, points, 9, Noise(0.0, 0.0, 0.0)).T_base_hand
        legs = [to_vector(inverse(a) @ b) for a, b in pairwise(way)]
        took = [max(np.linalg.norm(s[3:]) / 0.1, np.linalg.norm(s[:3]) / 0.4) for s in legs]
        true_path = Trajectory(np.concatenate([[0], np.cumsum(took)]), way)
        stamps = np.arange(0, true_path.stamp_s[-1], 0.008)
        clean = true_path.at(stamps)
        reported = clean @ from_vector(
            rng.normal(size=(len(stamps), 6)) * np.sqrt(noise.robot_variance)
        )
        t = np.sort(rng.uniform(0.2, stamps[-1] - 0.2, images))
        still = simulated_at(rng, truth, points, true_path.at(t), noise.pixel_px)
        views = Views(
            still.names, reported[np.searchsorted(stamps, t)], still.points_m, still.pixels, still.camera,
            True, True, Trajectory(stamps, reported), t - dt_s,
        )  # fmt: skip
        fit = solved(views, rng, Free(dt=True)).fit
        errors.append((fit.state.dt_s - dt_s) * 1e3)
        inside.append(
            abs(fit.state.dt_s - dt_s) <= student.ppf(0.975, fit.interval_dof) * fit.dt_sd_s
        )
    e = np.abs(errors)
    return {
        "true_ms": dt_s * 1e3,
        "median_error_ms": float(np.median(e)),
        "worst_error_ms": float(np.max(e)),
        "coverage": float(np.mean(inside)),
    }


def simulated_at(
    rng: np.random.Generator, truth: Unknowns, points: Array, T_base_hand: Array, pixel_px: float
) -> Views:
    """Noisy corners seen from given true hand poses; points outside the image are not seen."""
    from calib.solve.model import project

    kept_points, pixels = [], []
    for T in T_base_hand:
        C = inverse(T @ truth.T_mount_camera) @ truth.T_fixed_target
        uv, _ = project(truth.camera, points @ C[:3, :3].T + C[:3, 3])
        ok = np.all((uv > 0) & (uv < [truth.camera.width, truth.camera.height]), axis=1)
        ok = ok if ok.sum() >= 6 else np.ones(len(points), dtype=bool)
        kept_points.append(points[ok])
        pixels.append(uv[ok] + rng.normal(0, pixel_px, (int(ok.sum()), 2)))
    names = tuple(f"{k:03d}" for k in range(len(T_base_hand)))
    return Views(names, T_base_hand, tuple(kept_points), tuple(pixels), truth.camera)


def show(console: Console, s: dict[str, Any]) -> None:
    for a in s["accuracy"].values():
        table = Table(title=f"error of T_hand_camera, {a['poses']} poses")
        for heading in ("method", "median mm", "median deg", "95 % mm", "95 % deg"):
            table.add_column(heading, justify="left" if heading == "method" else "right")
        for m, (mm, deg) in a["median"].items():
            far = a["p95"][m]
            table.add_row(m, f"{mm:.3f}", f"{deg:.4f}", f"{far[0]:.3f}", f"{far[1]:.4f}")
        console.print(table)
        per = ", ".join(f"{c:.1%}" for c in a["coverage"])
        console.print(
            f"{a['poses']} poses: 95 % intervals that hold the truth: {a['coverage_all']:.1%} "
            f"(rx ry rz tx ty tz: {per}; point at 300 mm: {a['coverage_point']:.1%}); "
            f"clean rigs with a pair blamed: {a['clean_rigs_with_a_pair_blamed']:.1%}",
            soft_wrap=True,
        )
    t = s["tags"]
    best = t[f"{t['best_closed_form']}_mm"]
    console.print(
        f"{t['poses']} poses of a single tag, no images: joint {t['joint_mm'][0]:.2f} mm in median, "
        f"{t['joint_mm'][1]:.2f} mm at 95 % (Park {t['Park_mm'][0]:.2f} and {t['Park_mm'][1]:.2f}; "
        f"the best closed form, {t['best_closed_form']}, {best[0]:.2f} and {best[1]:.2f}); "
        f"intervals hold the truth in {t['coverage']:.1%}",
        soft_wrap=True,
    )
    table = Table(title="one corrupted pair")
    for heading in ("kind", "found", "clean pair blamed", "explained"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind, c in s["corruption"].items():
        table.add_row(kind, *(f"{c[k]:.1%}" for k in ("found", "clean_pair_blamed", "explained")))
    console.print(table)
    n, t = s["next_pose"], s["time_offset"]
    console.print(
        f"next pose, error at 300 mm against none added: advised x {n['error_ratio_advised']:.3f}, random "
        f"x {n['error_ratio_random']:.3f}; advised better in {n['advised_better']:.0%}",
        soft_wrap=True,
    )
    console.print(
        f"time offset of {t['true_ms']:.0f} ms: median error {t['median_error_ms']:.2f} ms, worst "
        f"{t['worst_error_ms']:.2f} ms, interval holds it in {t['coverage']:.0%}",
        soft_wrap=True,
    )


@command("calib.study", StudyOptions, mistakes=(CalibrationError,), description=__doc__)
def main(options: StudyOptions) -> int:
    """Run the study; returns the exit code."""
    require_opencv()
    if min(options.rigs, options.tags, options.advised, options.timed) < 1:
        raise CalibrationError("give at least one rig of each kind")
    if min(options.poses) < 3 or max(options.poses) < 5:
        raise CalibrationError(
            f"--poses {options.poses}: each must be 3 or more, and the largest 5 or more"
        )
    result: dict[str, Any] = {
        "accuracy": {str(n): accuracy(options, n) for n in options.poses},
        "tags": tags(options),
        "corruption": corruption(options),
        "next_pose": next_pose(options),
        "time_offset": time_offset(options),
    }
    if options.scenes:
        noise = Noise(0.1, options.robot_mm * 1e-3, float(np.radians(options.robot_deg)))
        result["without_target"] = handeye_scenes.without_target(
            options.scenes, noise, options.seed
        )
        result["knocked"] = handeye_scenes.knocked(options.scenes, noise, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "study.json", result)
    console = screen(highlight=False)
    show(console, result)
    if options.scenes:
        handeye_scenes.show(console, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
