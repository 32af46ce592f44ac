"""bench.page: the command runs its cases for two seconds; no figure of time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("viser", reason="viser is not installed: pip install '.[view]'")

from bench.page import cpu_s
from bench.page_viewers import Seen
from rt.page_panel import banner


def test_the_viewer_reads_what_the_page_says_of_itself() -> None:
    seen = Seen()
    seen.look(banner("APPROACH", "green", "", None, {"page": "17/s", "dropped": "3"}))
    seen.look("")
    assert seen.rates_hz == [17.0] and seen.dropped == 3


def test_the_time_of_a_process_counts_what_it_started() -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass\n"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {work!r}])"
    with subprocess.Popen([sys.executable, "-c", f"{parent}; time.sleep(60)"]) as process:
        try:
            until = time.monotonic() + 60
            while cpu_s(process.pid) < 0.3 and time.monotonic() < until:
                time.sleep(0.05)
            assert cpu_s(process.pid) >= 0.3
        finally:
            process.kill()
    assert cpu_s(process.pid) == 0.0


def test_the_command_runs_its_cases(tmp_path: Path) -> None:
    """A browser's is in test_page.py."""
    command = [sys.executable, "-m", "bench.page", "--seconds", "2", "--turns", "1"]
    command += ["--cases", "without", "nobody", "elsewhere"]
    command += ["--rate", "20", "--candidates", "32", "--port", "8841", "--out", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "page.json").read_text())
    rows = {row["case"]: row for row in result["cases"]}
    assert list(rows) == ["without", "nobody", "elsewhere"]
    for row in rows.values():
        assert 0 < row["cycles"] <= 40 and row["bare_cycles"] > 0
    assert rows["without"]["page_cores"] is None and rows["nobody"]["updates_hz"] is None
    assert rows["elsewhere"]["updates_hz"] > 0 and rows["elsewhere"]["sent_kB_s"] > 1
    assert rows["nobody"]["page_cores"] > 0 and rows["elsewhere"]["page_ms_per_update"] > 0
    assert "without the page" in done.stdout and "page.json" in done.stdout


def test_nonsense_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "bench.page", "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2) and "seconds = 0" in said and "Traceback" not in said
