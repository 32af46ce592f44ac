"""bench.clear: figures and bars from tables, and the command on a table of one object."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from needs import needed

needed("physics", "mujoco")

from bench import clear
from bench.clear import ClearedTable, sums

DONE = ClearedTable(
    scene=0,
    objects=10,
    binned=10,
    wrong=0,
    pushed=0,
    left=[],
    outcome="cleared",
    reason="",
    seconds=80.0,
    picks={"placed": 10, "missed": 1},
    reasons={"declined": 1},
)


def test_sums_and_bars() -> None:
    found = sums([DONE, replace(DONE, binned=9, wrong=1, left=["mug/1"], outcome="left")])
    assert found["cleared"] == 0.95 and found["wrong_drops"] == 1
    assert found["picks_per_hour"] == pytest.approx(19 * 3600 / 160)
    assert found["bars"]["cleared"] == "met (bar 0.95), aim 0.98 missed"
    assert found["bars"]["picks_per_hour"].startswith("met (bar 300)")
    assert found["picks"] == {"placed": 20, "missed": 2} and found["reasons"] == {"declined": 2}


def test_a_missed_bar_is_called_missed() -> None:
    found = sums([replace(DONE, binned=5, seconds=200.0)])
    assert found["bars"]["cleared"] == "missed: 0.5, the bar is 0.95"
    assert found["bars"]["picks_per_hour"] == "missed: 90, the bar is 300"
    low, high = found["cleared_ci95"]
    assert low < 0.5 < high


def test_the_command_writes_its_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def instead(config: Any, scene: int) -> ClearedTable:
        return replace(DONE, scene=scene)

    monkeypatch.setattr(clear, "clear_table", instead)
    assert clear.main(["--tables", "2", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "clear_tables.json").read_text())
    assert [t["scene"] for t in told["tables"]] == [0, 1] and told["sums"]["cleared"] == 1.0
    assert "100.0% of 20" in capsys.readouterr().out
    monkeypatch.setattr(clear, "clear_table", lambda c, s: replace(DONE, binned=1))
    assert clear.main(["--tables", "1", "--out", str(tmp_path)]) == 1
    assert clear.main(["--tables", "0", "--out", str(tmp_path)]) == 2
