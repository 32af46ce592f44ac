"""The clocks around generation, and the command."""

import json
import subprocess
import sys

import pytest

from bench.stages import STAGES, Stages


def test_a_stage_counts_without_those_it_calls():
    now = [0.0]
    stages = Stages(lambda: now[0])

    def inner():
        now[0] += 2

    def outer():
        now[0] += 3
        stages.timed("rays", inner)()
        now[0] += 4

    stages.timed("grasps", outer)()
    now[0] += 5
    stages.timed("rays", inner)()
    assert stages.seconds["grasps"] == 7 and stages.seconds["rays"] == 4
    assert stages.seconds["the rest"] == 5


def test_a_stage_that_fails_is_closed():
    stages = Stages()
    with pytest.raises(ZeroDivisionError):
        stages.timed("rays", lambda: 1 / 0)()
    assert stages._open == ["the rest"]


def test_the_command_reports_every_stage(tmp_path):
    command = [sys.executable, "-m", "bench.throughput", "--scenes", "2", "--views", "3"]
    command += ["--whole", "0", "--training", "0", "--sensors", "ideal", "d405"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "throughput.json").read_text())["generation"]
    assert set(result["share"]) == set(STAGES)
    assert sum(result["share"].values()) == pytest.approx(1)
    assert all(result["share"][s] > 0 for s in ("scene", "grasps", "rays", "encoding, writing"))
    # Generation does the bare rays and more.
    assert result["times_bare_rays"] > 1 and result["images"] == 6
    assert (tmp_path / "throughput.png").stat().st_size > 5000
    wrong = subprocess.run([*command, "--scenes", "0"], capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
