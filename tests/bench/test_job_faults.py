"""bench.job_faults: one fault in a whole job on the emulated arm, and a judgement that can fail."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from needs import needed

needed("ur", "ruckig")

from bench.job_faults import FAULTS, PHASES, JobFault, JobFaultsOptions, _Run, table

FAULT = {fault.name: fault for fault in FAULTS}


def test_a_killed_job_stands_and_is_resumed(tmp_path: Path) -> None:
    """At a slow rate and with patient limits, as many tests share the processor."""
    done = _Run(FAULT["SIGKILL"], "approach", JobFaultsOptions(rate=8), tmp_path)()
    assert done.exit_code == -9 and "exit code 0" in done.resumed, done
    assert done.still_s is not None and done.cycles
    assert not [p for p in done.why.split("; ") if p and not p.startswith("moved for")], done.why


def test_the_judgement_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    judged = _Run(FAULT["protective stop"], "carry", JobFaultsOptions(), tmp_path)
    judged.result.exit_code, judged.result.said = 3, "connection_lost: gone"
    judged._judge(0.4, time.monotonic())
    told = "; ".join(judged.problems)
    for part in (
        "exit code 3, not 1",
        "record:",
        "said nothing of protective_stop",
        "moved for 400 ms",
    ):
        assert part in told
    assert table([judged.result]).row_count == 1


def test_faults_name_phases_and_the_command_refuses_others() -> None:
    assert all(set(fault.phases) | set(fault.goes_on) <= set(PHASES) for fault in FAULTS)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    with pytest.raises(ValueError, match="no fault flood"):
        JobFaultsOptions(only=("flood",))
    assert JobFault("x", ()).known_s == 0
