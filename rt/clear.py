"""The whole job: `python -m rt.clear` picks from the table and puts down above a bin until nothing is left.

rt.job.job.Job is the job; this module opens devices, record, page and keys around it. A single approach is
rt.servo. See docs/clear.md.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rt.camera import CameraError
from rt.cell.cell import Cell
from rt.cell.devices import Devices
from rt.cell.file import CellFile
from rt.cell.open import open_cell, open_devices, settle
from rt.cell.setup import slower
from rt.cell.transform import CellError
from rt.distance import Distance, open_model
from rt.gripper import GripperError
from rt.guard.limits import Limits
from rt.guard.preflight import check_model
from rt.guard.rows import Stop
from rt.hand import load_hand
from rt.job.control import Control
from rt.job.job import Job
from rt.job.keys import HELP, Keys
from rt.job.options import ClearOptions, parse
from rt.job.picture import draw
from rt.job.report import JobReport, report_of, write
from rt.job.state import JobState, read_state
from rt.loop import operator_request
from rt.page import PageError
from rt.record.recorder import Recorder, RecordError
from rt.record.report import Status
from rt.record.ring import RingError
from rt.robot import RobotError
from rt.servo import candidate_count, header_of
from rt.tools.command import command
from rt.tools.files import output_folder

MESH_WORDS = ("mesh_unit", "mesh_scale", "mesh_fit", "mesh_repair", "split_bodies")
"""Options of the simulated table's meshes (sim.scene.meshes.MeshOptions)."""
SIMULATED = "table"
"""Name of the simulated cell with physics (rt.cell.open.CELLS)."""


def settle_job(config: ClearOptions) -> tuple[ClearOptions, Devices]:
    """The options and devices of a job. A simulated table is hurried unless it is
    watched. Raises CellError."""
    if config.cell is not None or config.robot not in ("", "twin", SIMULATED):
        devices = settle(config)
        if devices.cell is None:
            raise CellError(
                "--robot twin: the twin's objects cannot be taken; leave --robot and --cell out for the "
                "simulated table, or run the cell against its emulator (python -m rt.robot.emulator --cell)"
            )
        if devices.setup.place is None:
            raise CellError(
                f"{config.cell}: section [place] is missing: rt.clear must know where to put things down "
                "(docs/clear.md)"
            )
        if why := devices.setup.place.trouble(devices.setup.limits or Limits()):
            raise CellError(f"{config.cell}: {why}")
        if config.force:
            devices = replace(devices, cell=_with_force(devices.cell, devices.hand, config.force))
        return config, devices
    hand = config.hand or "robotiq_2f85"
    if config.force > load_hand(hand).max_force_N:
        raise CellError(_too_strong(config.force, hand))
    return replace(config, fast=not config.view), Devices(SIMULATED, hand, model=config.model)


def _with_force(cell: CellFile, hand: str, force_N: float) -> CellFile:
    if force_N > load_hand(hand).max_force_N:
        raise CellError(_too_strong(force_N, hand))
    return replace(cell, gripper=replace(cell.gripper, force_N=force_N))


def _too_strong(force_N: float, hand: str) -> str:
    most = load_hand(hand).max_force_N
    return f"--force {force_N:g} N is more than the hand gives, {most:g} N; lower it"


def open_job_cell(config: ClearOptions, devices: Devices) -> Cell:
    """The cell of a job; nothing moves. Raises the devices' errors."""
    if devices.robot != SIMULATED:
        return open_devices(config, devices)
    cell = open_cell(
        SIMULATED,
        seed=config.seed,
        scene=config.scene,
        objects=config.objects,
        sensor=config.sensor,
        hand=devices.hand,
        force_N=config.force or 40.0,
        meshes=config.meshes,
        mesh={name: getattr(config, name) for name in MESH_WORDS},
    )
    assert cell.setup is not None and cell.setup.limits is not None
    limits = config.limits or cell.setup.limits
    if limits == Limits():  # what the command line shows as its defaults
        limits = cell.setup.limits
    if config.speed_scale != 1:
        limits = slower(limits, config.speed_scale, limits.max_speed_m_s, limits.max_turn_deg_s)
    return replace(cell, setup=replace(cell.setup, limits=limits))


def run(job: Job, keys: Keys | None = None) -> JobReport:
    """A job from its start to its end, with a line of progress on stderr. Raises Stop and the devices'
    errors only before anything moves."""
    with Status() as status, job:
        job.control = Control(job.loop, keys)
        for _ in job:
            placed, tried = job.state.placed, len(job.state.attempts)
            phase = "paused" if operator_request(job.loop, "pause") else job.loop.phase
            status.note = f"{placed} placed of {tried} tried  {phase}  {job.note}"
        signals = job.loop.signals
    return report_of(job, signals[0] if signals else 0)


@command(
    "rt.clear",
    ClearOptions,
    failures=(Stop, RobotError, CameraError, GripperError, RecordError, RingError, PageError),
    interrupted="the arm did not move, or its run was over",
    parse=parse,
)
def main(config: ClearOptions) -> int:
    state = None if config.resume is None else read_state(config.resume)
    if state is not None:
        print(f"rt.clear: goes on with {config.resume}: {state.told}", file=sys.stderr)
    folder = output_folder("clear", config.out or config.resume)
    config, devices = settle_job(config)
    distance = open_model(devices.model, config.backend)
    check_model(distance, devices)
    n = candidate_count(config, distance)
    with ExitStack() as pages:
        page = None
        if config.view:
            from rt.page.flight import LivePage

            page = LivePage(config, pages, "rt.clear")
        with ExitStack() as stack:
            keys = stack.enter_context(Keys())
            if keys.live:
                print(f"rt.clear: {HELP}", file=sys.stderr)
            cell = stack.enter_context(open_job_cell(config, devices))
            setup = cell.setup or devices.setup
            recorder = _recorder(config, folder, cell, distance, n, state)
            if recorder is not None:
                stack.enter_context(recorder)
                if page is not None:
                    page.show(recorder, cell.simulated)
            job = Job(
                cell,
                distance,
                config,
                candidates=n,
                setup=replace(setup, record=recorder),
                state=state,
                save=folder / "state.json",
            )
            report = run(job, keys)
        write(report, folder)
        draw(report, job.place, job.track, folder / "clear.png")
        if recorder is not None and recorder.error:
            print(f"rt.clear: no whole flight record: {recorder.error}", file=sys.stderr)
        if page is not None:
            page.again(simulated=False)  # a job has no next scene
    return report.exit_code


def _recorder(
    config: ClearOptions,
    folder: Path,
    cell: Cell,
    distance: Distance,
    n: int,
    state: JobState | None,
) -> Recorder | None:
    """The flight record of this run, `flight.mcap`, or `flight-2.mcap` of a job's second run."""
    if config.record == "off" and not config.view:
        return None
    path = None
    if config.record != "off":
        number = 1 if state is None else state.runs + 1
        name = "flight.mcap" if number == 1 else f"flight-{number}.mcap"
        path = folder / name if config.record == "auto" else Path(config.record)
    return Recorder(path, header_of(config, cell, distance, n))


if __name__ == "__main__":
    sys.exit(main())
