"""The commands that need no target: `collect` and `solve` with `--target none`, and `check`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from calib.collect.cell import read_handeye, write_handeye
from calib.collect.collect import CollectLimits
from calib.collect.devices import collector_for
from calib.collect.rig import SimulatedRig
from calib.data.intrinsic_files import read_camera
from calib.data.poses import parse_format
from calib.data.readers import read
from calib.errors import CalibrationError
from calib.options import Check, Collect, Solve
from calib.scene.check import check_scene
from calib.scene.look import FIFTEEN, FIVE, QUICK, look_at_scene
from calib.scene.solve import solve_scene, summary
from calib.screen import Screen, output, positive
from calib.solve.intrinsics import camera_from_dict
from calib.solve.se3 import transform
from calib.solve.verdict import NO
from rt.pose import Array
from rt.tools.files import write_json


def guess(turn_deg: float) -> Array:
    """T_hand_camera (4, 4) of a camera that looks along the hand, its image turned: only to move by."""
    return transform(Rotation.from_euler("z", turn_deg, degrees=True).as_matrix(), np.zeros(3))


def collect_scene(options: Collect, limits: CollectLimits, folder: Path, screen: Screen) -> int:
    """Look at whatever lies on the table from tilted poses; depth and poses are stored."""
    if options.moving or options.free_drive:
        raise CalibrationError(
            "--target none needs the arm to move and to rest; leave out --moving, --free-drive"
        )
    collector = collector_for(options, None, folder, limits, screen, resume=True)
    count = look_at_scene(collector, guess(0.0), FIFTEEN[: max(options.poses, 6)])
    screen.say(
        f"{count} views in {folder}; next: python -m calib.handeye solve {folder} --target none"
    )
    return 0 if count >= 6 else 1


def solve_bare(options: Solve, screen: Screen) -> int:
    """Solve depth images without a target, judge, write."""
    positive(working_mm=options.working_mm, tolerance_mm=options.tolerance_mm)
    if options.camera_is == "fixed":
        raise CalibrationError("--target none needs the camera in the hand")
    out = output(options.out)
    recording = read(options.data, options.poses)
    screen.say(
        f"{recording.kind}: {len(recording.entries)} pairs from {options.data} ({recording.pose_files}); no "
        "target, by depth"
    )
    result = solve_scene(
        recording,
        parse_format(options.pose_format) if options.pose_format else None,
        read_camera(options.camera) if options.camera else None,
        options.working_mm * 1e-3,
        options.tolerance_mm * 1e-3,
    )
    s = summary(result)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "handeye.json", s)
    cell, written = options.cell or out / "cell.toml", s["verdict"] != NO or options.force
    if written:
        write_handeye(cell, s)
    for f in s["findings"]:
        screen.say(f"{f['level']}: {f['text']}" + (f". {f['remedy']}" if f["remedy"] else ""))
    table = ", ".join(f"{v:.2f}" for v in s["from_table_alone"])
    screen.say(
        f"the table alone is away by {table} (deg deg deg mm mm mm, along the camera's axes)"
    )
    x, half = s["translation_m"], s["interval95_translation_mm"]
    along = ", ".join(f"{1e3 * a:.2f} ± {b:.2f}" for a, b in zip(x, half, strict=True))
    screen.say(f"T_hand_camera, x y z [mm]: {along}")
    screen.say(
        f"report: {out / 'handeye.json'}; "
        + (f"[handeye] written to {cell}" if written else f"{cell} not written (see --force)")
    )
    screen.say(f"{s['verdict']}: {s['reason']}")
    return 0 if s["verdict"] != NO else 1


def check(options: Check, screen: Screen) -> int:
    """Does the cell's transform still hold? From five poses over anything, or from a folder of them."""
    positive(tolerance_mm=options.tolerance_mm)
    section = read_handeye(options.cell)
    if section["transform"] != "T_hand_camera":
        raise CalibrationError(
            "the check needs the camera in the hand; use `verify` with a folder of images"
        )
    out, folder, X = output(options.out), options.data, section["T_mount_camera"]
    began = time.monotonic()
    if folder is None:
        folder = out / "data"
        collector = collector_for(options, None, folder, QUICK, screen)
        began_ns = collector.cell.robot.now_ns()
        if isinstance(collector.cell.robot, SimulatedRig) and options.knock_mm:
            knock = transform(np.eye(3), np.array([0.6, 0.0, 0.8]) * options.knock_mm * 1e-3)
            collector.cell.robot.knock(knock)
        look_at_scene(collector, X, FIVE)
        took = (collector.cell.robot.now_ns() - began_ns) * 1e-9
        screen.say(f"{len(collector.poses)} views in {took:.1f} s of the arm's time")
    recording = read(folder)
    if options.pose_format:
        recording.format = parse_format(options.pose_format)
    camera = recording.camera or camera_from_dict(section["camera"])
    scale = section.get("depth_scale")
    found, fit = check_scene(recording, camera, X, section["covariance"], scale)
    word, line = found.judge(options.tolerance_mm)
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "check.json",
        {
            "cell": str(options.cell),
            "answer": word,
            "verdict": line,
            **found.as_dict(),
            "depth_scale": fit.scale,
            "robot_mm": fit.robot_m * 1e3,
            "seconds": time.monotonic() - began,
        },
    )
    for f in recording.findings:
        screen.say(str(f))
    screen.say(line)
    return 0 if word == "true" else 1
