"""Hand-eye calibration that says whether to trust it: collect, solve, verify, check, touch and more.

Without a command: simulate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Small matrices: threads of the linear algebra only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Complaints of OpenCV's methods are reported in our own words.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import numpy as np
from rich.table import Table

from calib.errors import CalibrationError, require_opencv
from calib.options import Check, Collect, Command, PrintTarget, Simulate, Solve, Touch, Verify
from calib.screen import ProgressBar, Screen, output, positive
from rt.camera import CameraError
from rt.robot import RobotError
from rt.tools.command import command
from rt.tools.files import write_json


def simulate(options: Simulate, screen: Screen) -> int:
    from calib.collect import simulate as simulation
    from calib.collect.collect import Collector, look_elsewhere
    from calib.collect.verify import check_depth, check_target, correction
    from calib.data.readers import read
    from calib.solve.noise import Noise
    from calib.solve.observe import look
    from calib.solve.solver import Settings, calibrate
    from calib.target.targets import parse

    positive(
        working_mm=options.working_mm,
        tolerance_mm=options.tolerance_mm,
        true_size=options.true_size,
    )
    positive(robot_noise_mm=options.robot_noise_mm, robot_noise_deg=options.robot_noise_deg)
    if options.poses < 6:
        raise CalibrationError(f"--poses {options.poses} is too few to simulate; give 6 or more")
    out, target = output(options.out), parse(options.target)
    noise = Noise(0.1, options.robot_noise_mm * 1e-3, float(np.radians(options.robot_noise_deg)))
    lines: list[str] = []
    done = simulation.record(
        out / "data",
        target,
        noise,
        options.seed,
        options.poses,
        lines.append,
        options.true_size,
        options.time_offset_ms * 1e-3,
        options.moving,
    )
    screen.say(
        f"simulated rig {options.seed}: {len(done.recording.entries)} pairs in {out / 'data'}"
    )
    settings = Settings(
        working_m=options.working_mm * 1e-3, tolerance_m=options.tolerance_mm * 1e-3
    )
    result = calibrate(done.recording, settings)
    truth = simulation.compare(result, done.rig.truth)
    if options.moving:
        screen.say(
            f"time offset {result.fit.state.dt_s * 1e3:.2f} ± {2 * result.fit.dt_sd_s * 1e3:.2f} ms, "
            f"true {options.time_offset_ms:.2f} ms"
        )
    else:
        folder = out / "verify"
        collector = Collector(done.cell, target, folder, simulation.QUICK, lines.append)
        state = result.fit.state
        rng = np.random.default_rng([options.seed, 2])
        look_elsewhere(collector, state, result.views.T_base_hand, 6, rng)
        again = read(folder)
        sights, camera, X = look(again, target), state.camera, state.T_mount_camera
        checks = [check_target(again, sights, target, camera, X, True, state.T_fixed_target)]
        checks += check_depth(again, camera, X)
        _print_checks(checks, screen)
        _, line = correction(again, sights, target, camera, X, True).verdict(2.0)
        screen.say(line)
    return _finish(result, out, out / "cell.toml", False, screen, truth, done.rig.truth)


def _finish(
    result: Any,
    out: Path,
    cell: Path,
    force: bool,
    screen: Screen,
    truth: dict[str, Any] | None = None,
    true_state: Any = None,
) -> int:
    """Print, draw and write a result; 0 unless it must not be used."""
    from calib.collect.cell import write_handeye
    from calib.report.pictures import all_pictures
    from calib.report.report import print_result, write_html
    from calib.solve.verdict import NO, summary

    s = summary(result)
    pictures = all_pictures(result, out, true_state)
    write_json(out / "handeye.json", {**s, "truth": truth} if truth else s)
    write_html(out / "handeye.html", s, pictures, truth)
    usable = s["verdict"] != NO
    if usable or force:
        write_handeye(cell, s)
    screen.say(
        f"report: {out / 'handeye.html'}; "
        + (
            f"[handeye] written to {cell}"
            if usable or force
            else f"{cell} not written (see --force)"
        )
    )
    print_result(screen.console, s, truth)
    return 0 if usable or truth is not None else 1


def _stored_target(data: Path) -> str:
    """Target of a folder of `collect`; empty for anything else."""
    from calib.data.recording import NO_TARGET, is_dataset, read_dataset

    return NO_TARGET if is_dataset(data) and read_dataset(data).target is None else ""


def solve(options: Solve, screen: Screen) -> int:
    from calib.data.intrinsic_files import read_camera
    from calib.data.poses import parse_format
    from calib.data.readers import read
    from calib.data.recording import NO_TARGET
    from calib.solve.solver import Settings, calibrate
    from calib.target.targets import parse

    positive(working_mm=options.working_mm, tolerance_mm=options.tolerance_mm)
    if (options.target or _stored_target(options.data)) == NO_TARGET:
        from calib.scene.commands import solve_bare

        return solve_bare(options, screen)
    out = output(options.out)
    settings = Settings(
        parse(options.target) if options.target else None,
        {"hand": True, "in-hand": True, "fixed": False}.get(options.camera_is or ""),
        parse_format(options.pose_format) if options.pose_format else None,
        read_camera(options.camera) if options.camera else None,
        options.intrinsics,
        options.free_scale,
        options.working_mm * 1e-3,
        options.tolerance_mm * 1e-3,
        options.seed,
        options.camera_is == "auto",
    )
    recording = read(options.data, options.poses)
    screen.say(
        f"{recording.kind}: {len(recording.entries)} pairs from {options.data} ({recording.pose_files})"
    )
    with ProgressBar(screen) as progress:
        result = calibrate(recording, settings, progress)
    return _finish(result, out, options.cell or out / "cell.toml", options.force, screen)


def collect(options: Collect, screen: Screen) -> int:
    from calib.collect.collect import CollectLimits, automatic, free_drive, moving
    from calib.collect.devices import collector_for
    from calib.data.recording import NO_TARGET
    from calib.target.targets import parse

    positive(
        travel_mm=options.travel_mm, speed_mm_s=options.speed_mm_s, turn_deg_s=options.turn_deg_s
    )
    if options.poses < 3:
        raise CalibrationError(f"--poses {options.poses}: at least 3 are needed, 15 are good")
    folder = options.out if options.out is not None else output(None) / "data"
    limits = CollectLimits(
        options.travel_mm * 1e-3,
        options.down_mm * 1e-3,
        speed_m_s=options.speed_mm_s * 1e-3,
        turn_deg_s=options.turn_deg_s,
    )
    if options.target == NO_TARGET:
        from calib.scene.commands import collect_scene

        return collect_scene(options, limits, folder, screen)
    target = parse(options.target)
    resume = not options.moving
    collector = collector_for(options, target, folder, limits, screen, resume)
    rng = np.random.default_rng(options.seed)
    if options.free_drive:
        from calib.collect.rig import SimulatedRig, guided_route

        if isinstance(collector.cell.robot, SimulatedRig):
            guided_route(collector.cell.robot, options.poses)
        count = free_drive(collector, options.poses)
    elif options.moving:
        count = moving(collector, options.poses, rng)
    else:
        count = automatic(collector, options.poses, rng)
    screen.say(f"{count} pairs in {folder}; next: python -m calib.handeye solve {folder}")
    return 0 if count >= min(options.poses, 3) else 1


def verify(options: Verify, screen: Screen) -> int:
    from calib.collect.cell import read_handeye
    from calib.collect.collect import CollectLimits, look_elsewhere
    from calib.collect.devices import collector_for
    from calib.collect.verify import check_depth, check_target, correction
    from calib.data.poses import parse_format
    from calib.data.readers import read
    from calib.data.recording import NO_TARGET
    from calib.solve.intrinsics import camera_from_dict
    from calib.solve.model import Unknowns
    from calib.solve.observe import look
    from calib.target.targets import parse

    positive(tolerance_mm=options.tolerance_mm)
    section = read_handeye(options.cell)
    if (options.target or section["target"]) == NO_TARGET and options.data is None:
        raise CalibrationError(
            "the cell was calibrated without a target; give --target, or use `check`, which needs none"
        )
    spec = options.target or section["target"]
    target = None if spec == NO_TARGET else parse(spec)
    hand = section["transform"] == "T_hand_camera"
    out = output(options.out)
    folder = options.data
    if folder is None:
        if not hand:
            raise CalibrationError(
                "a fixed camera is verified from a folder of new images; give it"
            )
        folder = out / "data"
        collector = collector_for(options, target, folder, CollectLimits(), screen)
        state = Unknowns(section["T_mount_camera"], section["T_fixed_target"], collector.camera)
        rng = np.random.default_rng([options.seed, 3])
        look_elsewhere(collector, state, section["hand_poses"], options.poses, rng)
    recording = read(folder)
    if options.pose_format:
        recording.format = parse_format(options.pose_format)
    camera = camera_from_dict(section["camera"])
    X = section["T_mount_camera"]
    if options.depth_only:
        if not hand:
            raise CalibrationError("the check by depth needs the camera in the hand")
        checks = check_depth(recording, camera, X)
    else:
        if target is None:
            raise CalibrationError(
                "the cell was calibrated without a target; give --target or --depth-only"
            )
        sights = look(recording, target)
        checks = [
            check_target(recording, sights, target, camera, X, hand, section["T_fixed_target"])
        ]
    _print_checks(checks, screen)
    worst = max(c.rms_mm for c in checks)
    ok, line = (
        worst <= options.tolerance_mm,
        (
            f"by depth the views agree to {worst:.2f} mm rms in the robot's frame (height and tilts only), "
            f"the tolerance is {options.tolerance_mm:g} mm"
        ),
    )
    written: dict[str, Any] = {"cell": str(options.cell), "checks": [c.as_dict() for c in checks]}
    if options.depth_only:
        line = f"{'verified' if ok else 'NOT verified'}: {line}"
    else:
        assert target is not None  # without one the look is at the depth alone
        found = correction(recording, sights, target, camera, X, hand)
        ok, line = found.verdict(options.tolerance_mm)
        written["correction"] = found.as_dict()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "verify.json", {**written, "verified": ok, "verdict": line})
    screen.say(line)
    return 0 if ok else 1


def _print_checks(checks: list[Any], screen: Screen) -> None:
    table = Table(title="verification from new poses, in the robot's frame")
    for heading in ("what", "rms mm", "worst mm", "rms deg", "from calibration mm"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for c in checks:
        d = c.as_dict()
        moved = "" if c.moved_mm is None else f"{c.moved_mm:.2f}"
        table.add_row(c.what, f"{c.rms_mm:.2f}", f"{c.worst_mm:.2f}", f"{d['rms_deg']:.3f}", moved)
    screen.console.print(table)


def print_target_command(options: PrintTarget, screen: Screen) -> int:
    from calib.target.printing import print_target
    from calib.target.targets import parse

    target = parse(options.target)
    path = options.out or Path(target.spec.replace(":", "_") + ".pdf")
    if path.is_dir() or path.suffix.lower() != ".pdf":
        raise CalibrationError(f"--out {path} must be the name of a .pdf file")
    paper = print_target(target, path, options.paper)
    screen.say(
        f"{path} ({paper}): print at 100 %, measure the ruler, then use --target {target.spec}"
    )
    return 0


def check(options: Check, screen: Screen) -> int:
    from calib.scene import commands

    return commands.check(options, screen)


def touch(options: Touch, screen: Screen) -> int:
    from calib.collect import pointing

    return pointing.touch(options, screen)


RUN: dict[type, Callable[[Any, Screen], int]] = {
    Simulate: simulate,
    Collect: collect,
    Solve: solve,
    Verify: verify,
    Check: check,
    Touch: touch,
    PrintTarget: print_target_command,
}


@command(
    "calib.handeye",
    Command,  # type: ignore[arg-type]  # a union of subcommands
    mistakes=(CalibrationError,),
    failures=(RobotError, CameraError),
    interrupted="what was stored before stays",
    description=__doc__,
)
def _run(options: Any) -> int:
    require_opencv()
    return RUN[type(options)](options, Screen())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    names = ("simulate", "collect", "solve", "verify", "check", "touch", "print-target")
    if not any(a in (*names, "-h", "--help") for a in arguments[:1]):
        arguments = ["simulate", *arguments]
    return _run(arguments)


if __name__ == "__main__":
    sys.exit(main())
