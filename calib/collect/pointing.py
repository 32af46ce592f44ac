"""The command `touch`: look, choose spots, point at each, ask how far off it is, judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import tomlkit

from calib.collect.cell import read_handeye
from calib.collect.collect import CollectLimits, Collector
from calib.collect.devices import collector_for
from calib.collect.rig import SimulatedRig
from calib.collect.touch import (
    Spot,
    choose_spots,
    explain_touch,
    marked,
    parse_offset,
    pointing_pose,
    simulated_operator,
)
from calib.data.recording import NO_TARGET
from calib.errors import CalibrationError
from calib.options import Touch
from calib.screen import Screen, output, positive
from calib.target.targets import parse
from rt.pose import Array
from rt.tools.files import write_json

TRIES = 3
"""So often a line that is no offset is asked for again."""
CLEAR_M = 0.05
"""The tip goes from spot to spot at this height above them."""


def tip_of(options: Touch) -> Array:
    """(3,) [m] of the fingers' point in the hand's frame: --tip-mm, else the cell's T_flange_hand.

    Raises CalibrationError where neither tells it.
    """
    if options.tip_mm is not None:
        return np.array(options.tip_mm) * 1e-3
    if options.robot == "sim":
        return np.array([0.0, 0.0, 0.12])
    section: Any = tomlkit.parse(options.cell.read_text()).unwrap().get("robot", {})
    try:
        return np.array(section["T_flange_hand"]["xyz_m"], dtype=np.float64).reshape(3)
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(
            f"{options.cell} has no [robot] T_flange_hand; give the point between the fingers in the "
            "flange's frame as --tip-mm X Y Z"
        ) from error


def touch(options: Touch, screen: Screen) -> int:
    """Point at spots that the camera chose; 0 if the fingers miss none by more than the tolerance."""
    positive(tolerance_mm=options.tolerance_mm, above_mm=options.above_mm)
    if not 3 <= options.spots <= 10:
        raise CalibrationError(f"--spots {options.spots}: give 3 to 10")
    section = read_handeye(options.cell)
    if section["transform"] != "T_hand_camera":
        raise CalibrationError("the touch test needs the camera in the hand")
    spec = options.target or section["target"]
    target = None if spec == NO_TARGET else parse(spec)
    tip, above, out = tip_of(options), options.above_mm * 1e-3, output(options.out)
    limits = CollectLimits(travel_m=0.6, down_m=0.6, speed_m_s=0.05, turn_deg_s=15.0)
    collector = collector_for(options, target, out / "data", limits, screen)
    robot, X = collector.cell.robot, section["T_mount_camera"]
    try:
        before = collector.wait_still()
        frame = collector.frame_since(robot.now_ns() - 200_000_000)
        spots = choose_spots(frame, collector.camera, target, options.spots)
        cv2.imwrite(str(out / "spots.png"), marked(frame, spots))
        screen.say(f"{len(spots)} spots, numbered in {out / 'spots.png'}")
        T_base_camera = before @ X
        operator: Callable[[Spot], str] | None = None
        if isinstance(robot, SimulatedRig):
            operator = simulated_operator(robot, tip, robot.true_camera())
        told, errors = [], []
        for k, spot in enumerate(spots):
            at = (T_base_camera @ np.append(spot.point_m, 1))[:3]
            error = _point_at(collector, k, spot, at, tip, above, operator, screen)
            if error is not None:
                told.append(spot)
                errors.append(error)
    finally:
        robot.stop()
        collector.finish()
    if len(told) < 3:
        raise CalibrationError(f"{len(told)} spots were told; three are needed")
    result = explain_touch(np.array(errors), told, T_base_camera)
    ok, line = result.verdict(options.tolerance_mm)
    write_json(
        out / "touch.json",
        {"cell": str(options.cell), **result.as_dict(), "touched": ok, "verdict": line},
    )
    screen.say(line)
    return 0 if ok else 1


def _point_at(
    collector: Collector,
    k: int,
    spot: Spot,
    at: Array,
    tip: Array,
    above_m: float,
    operator: Callable[[Spot], str] | None,
    screen: Screen,
) -> Array | None:
    """Go over a spot, down to `above_m`, ask, and go up again; the error (3,) or None where it is skipped."""
    high = pointing_pose(collector.start, at, tip, CLEAR_M)
    low = pointing_pose(collector.start, at, tip, above_m)
    where = " ".join(f"{x * 1e3:.0f}" for x in at)
    if not collector.confirm(
        f"spot {k + 1} at {where} mm in base: the fingers go to {CLEAR_M * 1e3:.0f} mm above it, then down "
        f"to {above_m * 1e3:g} mm."
    ):
        raise CalibrationError("stopped by the operator")
    collector.go(high)
    collector.wait_still()
    collector.go(low)
    collector.wait_still()
    error = None
    if operator is not None:
        text = operator(spot)
        screen.say(f"spot {k + 1}: the simulated operator reads {text} mm")
        error = parse_offset(text, above_m)
    else:
        for _ in range(TRIES):
            try:
                error = parse_offset(
                    screen.ask(
                        f"spot {k + 1}: way from the fingers' point to the spot along the base's axes, x y "
                        f"[z] in mm (z near -{above_m * 1e3:g}); empty: skip"
                    ),
                    above_m,
                )
                break
            except CalibrationError as problem:
                screen.say(str(problem))
    collector.go(high)
    return error
