"""rt.clear: the whole job on the simulated table with physics; slips, stops, resuming; the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from rt import clear
from rt.cell.cell import Cell
from rt.cell.file import EXAMPLE, load_cell
from rt.cell.place import PlacePart
from rt.cell.transform import CellError
from rt.cycle import Step
from rt.distance import Distance, open_model
from rt.gripper import GripperState
from rt.job.job import Job
from rt.job.options import ClearOptions
from rt.job.report import JobReport, report_of
from rt.job.state import DROPPED, MISSED, PLACED, SKIPPED, read_state
from rt.record.recorder import read_record
from sim import table
from sim.scene.objects import make_object
from sim.scene.scene import Scene, assemble

OPTIONS = ClearOptions(fast=True, candidates=256)
SPOTS = ((-0.08, 0.05, 0.4), (0.10, -0.06, -0.9))


def boxes(spots: tuple[tuple[float, float, float], ...] = SPOTS) -> Scene:
    """Equal boxes that lie at x, y [m], yaw [rad]."""
    mesh = trimesh.creation.box((0.05, 0.09, 0.04))
    thing = make_object("box", "box", mesh.vertices, mesh.faces)
    placed = []
    for x, y, yaw in spots:
        T = np.eye(4)
        T[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        T[:3, 3] = x, y, 0.02
        placed.append((thing, T))
    return assemble(placed)


@pytest.fixture(scope="module")
def network() -> Distance:
    return open_model()


def go(
    cell: Cell,
    network: Distance,
    options: ClearOptions = OPTIONS,
    hook: Callable[[Job, Step], None] | None = None,
    **more: Any,
) -> JobReport:
    with Job(cell, network, options, **more) as job:
        for step in job:
            if hook is not None:
                hook(job, step)
    return report_of(job)


def world_of(cell: Cell) -> Any:
    robot: Any = cell.robot
    return robot.world


def test_a_table_is_cleared_and_the_report_tells_it(network: Distance, tmp_path: Path) -> None:
    cell = table.build(boxes())
    state_file, record = tmp_path / "state.json", tmp_path / "flight.mcap"
    report = go(cell, network, save=state_file, record=record)
    assert report.outcome == "cleared" and report.exit_code == 0 and not report.left
    assert sorted(world_of(cell).binned) == [0, 1]
    placed = [a for a in report.state.attempts if a.outcome == PLACED]
    assert len(placed) == 2 and all(a.held for a in placed)
    # None if the box, taken in its middle, hides the place that it has left.
    assert all(a.seen_left is not False for a in placed)
    for a in placed:
        assert a.width_m == pytest.approx(0.05, abs=0.004) and 3 < a.seconds < 20
        # Anywhere along the box, which is 90 mm long.
        assert min(np.hypot(a.x_m - x, a.y_m - y) for x, y, _ in SPOTS) < 0.045
    assert read_state(state_file) == report.state and report.state.ended == "cleared"
    summary = report.summary()
    assert summary["placed"] == 2 and summary["picks_per_hour"] > 150
    cycles = read_record(record).cycles
    phases = {bytes(p).decode() for p in np.unique(cycles["phase"])}
    assert {"look around", "travel", "approach", "descend", "lift", "carry", "release"} <= phases


def test_the_same_seed_is_the_same_job(network: Distance) -> None:
    a, b = (go(table.build(boxes()), network).state.attempts for _ in range(2))
    assert a == b


def test_a_slip_while_carrying_is_noticed_and_the_job_goes_on(network: Distance) -> None:
    """Something pulls the object out of the fingers: they are told to open within 0.2 s."""
    cell = table.build(boxes(SPOTS[:1]))
    world = world_of(cell)
    when: dict[str, int] = {}

    def pull(job: Job, step: Step) -> None:
        now = cell.robot.now_ns()
        if step.phase == "carry" and step.hand[1] > 0.15 and "pulled" not in when:
            world.data.xfrc_applied[world.model.body("object0").id][2] = -60.0
            when["pulled"] = now
        if "pulled" in when:
            if world.place(0)[2] < step.hand[2] - 0.03:  # below the fingers
                when.setdefault("lost", now)
                world.data.xfrc_applied[:] = 0.0
            if step.phase == "release":
                when.setdefault("opened", now)

    report = go(cell, network, hook=pull)
    assert when["pulled"] < when["lost"] and (when["opened"] - when["lost"]) * 1e-9 <= 0.2
    first = report.state.attempts[0]
    assert first.outcome == DROPPED and first.held and "slipped while carried" in first.reason
    assert report.outcome in ("cleared", "left") and not report.state.carrying


def test_a_stop_while_carrying_and_the_way_on(network: Distance, tmp_path: Path) -> None:
    """The arm stands, the state says that the fingers may hold something; the next run carries it on."""
    cell = table.build(boxes())
    save = tmp_path / "state.json"

    def stop(job: Job, step: Step) -> None:
        if step.phase == "carry" and step.hand[2] > 0.24:
            job.control.ask("stop")

    report = go(cell, network, hook=stop, save=save)
    assert report.outcome == "stopped" and "operator_stop" in report.reason
    assert "during: carry" in report.reason and report.exit_code == 1
    state = read_state(save)
    assert state.carrying and state.attempts[-1].outcome == "" and state.ended.startswith("stopped")
    assert np.linalg.norm(cell.robot.state().twist) < 1e-3 and world_of(cell).holding

    refused = Job(cell, network, replace(OPTIONS, if_holding="stop"), state=read_state(save))
    with pytest.raises(Exception, match="nothing moved"):
        refused.__enter__()
    assert world_of(cell).holding

    report = go(cell, network, replace(OPTIONS, if_holding="place"), state=state, save=save)
    assert report.outcome == "cleared" and report.state.runs == 2
    assert sorted(world_of(cell).binned) == [0, 1] and not report.state.carrying
    assert [a.outcome for a in report.state.attempts[:2]] == [DROPPED, PLACED]
    assert report.state.attempts[1].reason == "held at the start"


def test_if_told_so_the_fingers_open_where_they_are(network: Distance) -> None:
    cell = table.build(boxes(SPOTS[:1]))

    def stop(job: Job, step: Step) -> None:
        if step.phase == "lift" and step.hand[2] > 0.06:
            job.control.ask("stop")

    first = go(cell, network, hook=stop)
    assert first.state.carrying
    report = go(cell, network, replace(OPTIONS, if_holding="open"), state=first.state)
    assert report.outcome == "cleared" and report.state.placed == 1


def test_a_spot_is_tried_so_often_and_no_more(network: Distance) -> None:
    cell = table.build(boxes(SPOTS[:1]))
    world = world_of(cell)
    world.model.geom_friction[:] = 0.0  # nothing can be lifted
    report = go(cell, network, replace(OPTIONS, tries=2, most=8))
    assert report.outcome == "left" and report.exit_code == 3 and not world.binned
    vain = [a for a in report.state.attempts if a.outcome in (MISSED, DROPPED)]
    assert 2 <= len(vain) <= 8 and all(a.reason for a in vain)
    assert "in vain" in report.reason or "--most" in report.reason


def test_pause_step_and_skip(network: Distance) -> None:
    cell = table.build(boxes())
    seen: dict[str, Any] = {"paused": 0}

    def user(job: Job, step: Step) -> None:
        tried = len(job.state.attempts)
        if step.phase == "approach" and tried == 1:
            job.control.ask("skip")
        if step.phase == "approach" and tried == 2 and "stepped" not in seen:
            seen["stepped"] = True
            job.control.ask("step")
        if step.phase == "paused":
            seen["paused"] += 1
            seen["placed"] = seen.get("placed", job.state.placed)
            if seen["paused"] == 20:
                job.control.ask("pause")

    report = go(cell, network, hook=user)
    assert report.state.attempts[0].outcome == SKIPPED
    assert seen["paused"] == 20 and seen["placed"] == 1
    assert report.outcome == "cleared" and report.state.placed == 2


@pytest.mark.parametrize("phase", ["travel", "approach", "carry"])
def test_a_table_that_is_bumped_is_cleared_all_the_same(network: Distance, phase: str) -> None:
    """All that lies on it slides by 40 mm, at once."""
    cell = table.build(boxes())
    world, bumped = world_of(cell), []

    def bump(job: Job, step: Step) -> None:
        if step.phase == phase and step.hand[2] > 0.2 and not bumped:
            bumped.append(step.number)
            for k in world.present():
                if world.place(k)[2] < 0.05:
                    world.data.qpos[world._qpos[k].start : world._qpos[k].start + 2] += (
                        0.03,
                        -0.026,
                    )
            world._quiet_s = 0.0

    report = go(cell, network, hook=bump)
    assert bumped and report.outcome == "cleared" and sorted(world.binned) == [0, 1]


def test_a_fault_of_the_gripper_stops_the_arm(network: Distance, tmp_path: Path) -> None:
    from rt.gripper import GripperError

    cell = table.build(boxes())
    gripper: Any = cell.gripper

    def fail(job: Job, step: Step) -> None:
        if step.phase == "carry":
            gripper.state = lambda: (_ for _ in ()).throw(GripperError("the gripper is silent"))

    report = go(cell, network, hook=fail, save=tmp_path / "state.json")
    assert report.outcome == "stopped" and "silent" in report.reason
    assert read_state(tmp_path / "state.json").carrying
    assert np.linalg.norm(cell.robot.state().twist) < 1e-3


@pytest.mark.parametrize(
    ("pose", "why"), [((0.0, 0.8, 0.2, 0.0), "workspace: y"), ((0.0, 0.4, -0.05, 0.0), "height: z")]
)
def test_a_way_that_the_limits_forbid_is_refused_before_anything_moves(
    network: Distance, pose: tuple[float, float, float, float], why: str
) -> None:
    far = replace(table.PLACE, pose=pose)
    cell = table.build(boxes(SPOTS[:1]), place=far)
    before = cell.robot.state().T_base_hand
    with pytest.raises(Exception, match=rf"{why} = .* must be from .*nothing moved"):
        go(cell, network)
    assert np.array_equal(before, cell.robot.state().T_base_hand)


def test_a_cell_without_a_place_is_refused(network: Distance, tmp_path: Path) -> None:
    cell = table.build(boxes(SPOTS[:1]))
    assert cell.setup is not None
    with pytest.raises(CellError, match="section \\[place\\]"):
        Job(cell, network, OPTIONS, setup=replace(cell.setup, place=None))
    path = tmp_path / "cell.toml"
    path.write_text(EXAMPLE.read_text().replace("[place]", "[nowhere]"))
    assert clear.main(["--cell", str(path)]) == 2


def test_the_place_of_a_cell_file(tmp_path: Path) -> None:
    place = load_cell(EXAMPLE).place
    assert isinstance(place, PlacePart) and place.look_m == (0.3, 0.3)
    text = EXAMPLE.read_text()
    for old, new, said in (
        ("home = [", "hom = [", "place.hom is not known"),
        ("# rows = 1", "rows = 0", "place.rows = 0 must be above 0"),
        ("# look_m = [0.3, 0.3]", "look_m = [0.0, 0.3]", "look_m = "),
    ):
        assert old in text
        path = tmp_path / "cell.toml"
        path.write_text(text.replace(old, new))
        with pytest.raises(CellError, match=said.replace("[", "\\[")):
            load_cell(path)


def test_the_command_end_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "table_scene", lambda *_: boxes())
    out = tmp_path / "out"
    assert clear.main(["--out", str(out), "--candidates", "256"]) == 0
    told = json.loads((out / "clear.json").read_text())
    assert told["outcome"] == "cleared" and told["placed"] == 2 == told["held"]
    assert told["cell"]["name"] == "table" and told["fingers_may_hold"] is False
    assert len(read_record(out / "flight.mcap").cycles) > 200
    assert "2 placed" in capsys.readouterr().out
    assert read_state(out).told == "2 tried, 2 placed; it ended: cleared"
    # Again, as a job that goes on: the table is laid anew, the counts are not.
    assert clear.main(["--resume", str(out), "--candidates", "256", "--most", "3"]) in (0, 3)
    assert json.loads((out / "clear.json").read_text())["runs"] == 2
    assert (out / "flight-2.mcap").is_file()
    assert f"goes on with {out}: 2 tried, 2 placed; it ended: cleared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tries", "0"], "tries = 0"),
        (["--grasp", "no"], "the job grasps"),
        (["--force", "500"], "more than the hand gives"),
        (["--resume", "nowhere"], "no job to resume"),
        (["--probability", "2"], "probability = 2"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = clear.main(arguments)
    except SystemExit as error:  # options that tyro refuses
        code = int(str(error.code))
    assert code == 2 and said in capsys.readouterr().err


def test_a_place_that_the_object_hid_is_looked_at_on_the_way_back(network: Distance) -> None:
    """A gripper that feels an object which lies on the table: on the way back it is seen, and tried again."""
    cell = table.build(boxes(SPOTS[:1]))
    world: Any = world_of(cell)
    gripper: Any = cell.gripper
    there, felt = world.data.qpos[world._qpos[0]].copy(), gripper.state
    lie = lambda: GripperState(cell.robot.now_ns(), 0.05, False, True)  # noqa: E731

    def deceive(job: Job, step: Step) -> None:
        attempts = job.state.attempts
        if len(attempts) == 1 and step.phase == "carry":
            attempts[0].seen_left = None  # as if it hid the place
            gripper.state = lie
            world.data.qpos[world._qpos[0]] = there
        elif gripper.state is lie:
            gripper.state = felt

    report = go(cell, network, hook=deceive)
    first, second = report.state.attempts
    assert first.outcome == MISSED and not first.held and "on the way back" in first.reason
    assert second.outcome == PLACED and second.seen_left and world.binned == [0]
