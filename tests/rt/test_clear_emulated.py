"""rt.clear against the emulated UR, gripper and camera, with the real clients: killed, and resumed.

The computer may be busy: ages are allowed more time than on a robot's PC. The time until an arm is still is
measured by bench.faults.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import needed, needed_realsense

needed("ur", "rtde_control")
needed_realsense()

from rt.job.state import DROPPED, PLACED, read_state
from rt.record.recorder import read_record
from sim.hardware.cell import EmulatedCell, emulated_cell, patient

SCENE = 7
"""One object."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A job that was killed while it carried the object: its folder, and the cell, which lives on."""
    folder = tmp_path_factory.mktemp("clear")
    with emulated_cell(folder, number=23, max_silence_s=1.0) as cell:
        out = folder / "out"
        process = cell.start(
            out, cell.clear(out, *patient(), scene=SCENE), module=("rt.clear",), nice=-10
        )
        until = time.monotonic() + 240
        while time.monotonic() < until and process.poll() is None:
            _, y, z = cell.emulator.tell("state")["pose"][:3]
            if y > 0.05 and z > 0.2:
                break
            time.sleep(0.02)
        said = (out / "said.txt").read_text()
        assert process.poll() is None, said
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        yield cell, out


def still(cell: EmulatedCell) -> bool:
    return bool(np.linalg.norm(cell.emulator.tell("state")["twist"][:3]) < 0.005)


def test_after_a_kill_the_arm_stands_and_the_record_is_readable(killed: Any) -> None:
    cell, out = killed
    until = time.monotonic() + 5
    since = None  # it swings back a little as it stops: one instant at rest is not the end
    while (since is None or time.monotonic() < since + 0.2) and time.monotonic() < until:
        since = (since or time.monotonic()) if still(cell) else None
        time.sleep(0.02)
    assert since is not None
    time.sleep(1.0)  # the writer's last half second
    assert still(cell)
    cycles = read_record(out / "flight.mcap").cycles
    assert b"carry" in set(np.unique(cycles["phase"]))
    state = read_state(out)
    assert state.carrying and state.ended == "" and state.attempts[-1].outcome == ""
    assert json.loads(cell.cell.with_name("gone.json").read_text()) == {"gone": [], "held": 0}


def test_the_job_is_resumed_with_the_object_in_the_fingers(killed: Any) -> None:
    cell, out = killed
    arguments = [*cell.clear(out, *patient(), scene=SCENE), "--resume", str(out)]
    refused = cell.start(out / "refused", [*arguments, "--if-holding", "stop"], ("rt.clear",))
    before = cell.emulator.tell("state")["pose"]
    assert refused.wait(timeout=240) == 1
    assert "nothing moved" in (out / "refused" / "said.txt").read_text()
    assert np.allclose(cell.emulator.tell("state")["pose"][:3], before[:3], atol=1e-3)

    again = cell.start(
        out / "again", [*arguments, "--if-holding", "place"], ("rt.clear",), nice=-10
    )
    code = again.wait(timeout=300)
    assert code == 0, (out / "again" / "said.txt").read_text()
    told = json.loads((out / "clear.json").read_text())
    assert told["outcome"] == "cleared" and told["placed"] == 1
    state = read_state(out)
    assert [a.outcome for a in state.attempts[:2]] == [DROPPED, PLACED] and not state.carrying
    assert json.loads(cell.cell.with_name("gone.json").read_text()) == {"gone": [0], "held": None}


def test_the_record_of_the_second_run_is_beside_the_first(killed: Any) -> None:
    _, out = killed
    records = sorted(path.name for path in Path(out).glob("flight*.mcap"))
    assert "flight.mcap" in records and len(records) >= 2
