"""bench.faults: a few faults end to end in the emulated cell; `python -m bench.faults` injects all.

The time until the arm is still is judged by the command, on a quiet computer. These tests require that the
arm comes to rest, that the cause is named, and that the record is readable.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import NO_NATIVE, needed, needed_realsense

needed("ur", "rtde_control")
needed_realsense()

from flights import cycle, header

from bench.endurance import EnduranceOptions, Jerk, judged
from bench.faults import FAULTS, Fault, FaultsOptions, _result
from bench.growth import Growth, drift
from rt.native import native
from rt.record.recorder import Recorder
from rt.record.schema import BLANK
from sim.hardware.inject import FAULTS as INJECTED
from sim.hardware.inject import Late, Same, Trigger, stall, zero

END_TO_END = ("protective stop", "network returns NaN", "SIGKILL of loop and stream")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    if native is None:  # 640x480 pixels into the view take the twin most of a period
        pytest.skip(NO_NATIVE)
    out = tmp_path_factory.mktemp("faults")
    command = [sys.executable, "-m", "bench.faults", "--silence", "0.3", "--nice", "-10"]
    command += ["--rate", "15", "--number", "7", "--candidates", "64", "--out", str(out)]
    command += ["--only", *END_TO_END]
    subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    found = json.loads((out / "faults.json").read_text())["results"]
    return {result["fault"]: result for result in found}


@pytest.mark.parametrize("name", END_TO_END)
def test_a_fault_is_named_the_arm_still_and_the_record_readable(
    results: dict[str, dict[str, Any]], name: str
) -> None:
    result = results[name]
    wrong = [why for why in result["why"].split("; ") if why and not why.startswith("moved for")]
    assert not wrong, result
    assert result["cycles"] > 5 and result["still_s"] < 5


def test_every_fault_is_known_to_who_makes_it() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.inject for fault in FAULTS} == set(INJECTED)
    for fault in FAULTS:
        assert (fault.act is not None) + (fault.inject != "none") + (fault.begins == "start") == 1
    with pytest.raises(ValueError, match="no fault flood; known are: camera stalls"):
        FaultsOptions(only=("flood",))


def test_the_judge_sees_what_is_wrong(tmp_path: Path) -> None:
    fault = Fault("protective stop", ("protective_stop",), known_s=0.05)
    (tmp_path / "said.txt").write_text("rt.servo: stopped: protective_stop: look\n")
    with Recorder(tmp_path / "flight.mcap", header()) as recorder:
        for k in range(10):
            event = {"guard_name": "protective_stop", "guard_action": "stop"} if k == 9 else {}
            recorder.put(**{**cycle(k), "stamp_ns": int(1e9 * (100 + k / 30)), **event})
    good = _result(fault, tmp_path, 1, 100.25, 0.14, "")
    assert good.passed and good.cycles == 10
    assert good.told_s == pytest.approx(0.05) and good.detected.startswith("stopped: protective")
    assert "moved for 160 ms" in _result(fault, tmp_path, 1, 100.25, 0.16, "").why
    assert "exit code 0" in _result(fault, tmp_path, 0, 100.25, 0.1, "").why
    assert "ended before" in _result(fault, tmp_path, 1, None, None, "").why
    (tmp_path / "said.txt").write_text("rt.servo: stopped: something\n")
    assert "said nothing of protective_stop" in _result(fault, tmp_path, 1, 100.25, 0.1, "").why
    (tmp_path / "flight.mcap").write_bytes(b"")
    assert "record: " in _result(fault, tmp_path, 1, 100.25, 0.1, "").why


def test_injected_faults_change_frames_only_once_begun(tmp_path: Path) -> None:
    path = tmp_path / "trigger"
    sent: list[Any] = []

    def go(pixels: Any, number: int, stamp_ns: int) -> None:
        sent.append((int(pixels[0]), number))

    def frames(change: Any, begun: bool) -> list[Any]:
        sent.clear()
        path.unlink(missing_ok=True)
        trigger = Trigger(path)
        change(go, trigger, (np.full(3, 7), 1, 0))
        if begun:
            path.touch()
            trigger._looked = 0.0
        change(go, trigger, (np.full(3, 8), 2, 0))
        return list(sent)

    for change in (stall, zero, Same(), Late()):
        assert frames(change, False) == [(7, 1), (8, 2)]
    assert frames(stall, True) == [(7, 1)]
    assert frames(zero, True) == [(7, 1), (0, 2)]
    assert frames(Same(), True) == [(7, 1), (7, 2)]
    assert frames(Late(), True) == [(7, 1), (8, 2)]  # exposed long ago: late enough
    assert int(path.with_suffix(".at").read_text()) > 0


def test_endurance_is_judged_beside_the_bare_loop(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("done\n")
    with Recorder(tmp_path / "flight.mcap", header()) as recorder:
        for k in range(100):
            recorder.put(**{**cycle(k), "missed": 2 if k > 50 else 0})
    bare = {"cycles": 100, "missed": 2, "p99_ms": 0.1}
    result = judged(EnduranceOptions(), tmp_path, 0, bare, Jerk(), Growth())
    assert result["missed"] == 2 and not result["problems"]
    # hand k is 10 mm along x and 1 mm down from hand k-1, whose command was 1 mm off in each.
    assert result["tracking_mm"]["max"] == pytest.approx(np.linalg.norm([9, 1, 2]), rel=1e-6)
    result = judged(EnduranceOptions(), tmp_path, 1, {**bare, "missed": 0}, Jerk(), Growth())
    assert "the run ended with exit code 1: done" in result["problems"]
    assert "more deadlines missed than the bare loop and 0.1 %" in result["problems"]


def test_growth_and_drift_are_told() -> None:
    growth = Growth()
    flat, grows = [(100.0, 9, 3)] * 48, [(100.0 + k / 4, 9 + (k > 40), 3) for k in range(48)]
    growth.samples = {"rt.servo": flat, "rt.leaks": grows, "rt.short": flat[:5]}
    assert set(growth.summary()) == {"rt.servo", "rt.leaks"}
    memory, handles = growth.problems({})
    assert memory.startswith("rt.leaks grew by 4.8 MB")
    assert handles == "rt.leaks has 10 handles, 9 at half time"
    growth.sample()
    cycles = np.zeros(1200, BLANK.dtype)
    cycles["stamp_ns"] = np.arange(1200) * 33_343_333  # 10 us too long
    assert drift(cycles, 30.0)["drift_ms"] == pytest.approx(11.0, abs=0.1)


def test_peak_jerk_of_a_known_motion() -> None:
    time_s = np.arange(0, 2, 0.002)
    rows = np.zeros((len(time_s), 13))
    rows[:, 0], rows[:, 7] = time_s, 0.1 * np.sin(2 * np.pi * time_s)
    jerk = Jerk()
    jerk.add(rows)
    assert jerk.peaks[0] == pytest.approx(0.1 * (2 * np.pi) ** 2, rel=0.01)
    assert jerk.speeds[0] == pytest.approx(0.1, rel=1e-3)


def test_a_mistyped_fault_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "bench.faults", "--only", "flood"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "no fault flood" in done.stderr
    assert "Traceback" not in done.stderr
