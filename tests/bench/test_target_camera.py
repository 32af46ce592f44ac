"""Hand-eye calibration end to end on the emulated arm, with the drivers of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from needs import needed, needed_realsense

needed_realsense()
needed("ur", "rtde_control")

from bench.target_camera import emulated, emulated_rig
from calib.errors import CalibrationError
from calib.handeye import main
from calib.solve.noise import Noise
from sim.hardware.ur.process import start_emulator

ADDRESS, PORT = "127.0.0.93", 31093
SOURCE = f"bench.target_camera:emulated?control_port={PORT}"
DEVICES = ["--robot", "ur", "--address", ADDRESS, "--yes", "--camera"]


def test_collect_solve_verify_and_check_on_the_emulated_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, solved = str(tmp_path / "data"), tmp_path / "solved"
    cell = str(solved / "cell.toml")
    with start_emulator(ADDRESS, control_port=PORT) as emulator:
        assert main(["collect", *DEVICES, SOURCE, "--poses", "8", "--out", data]) == 0
        assert main(["solve", data, "--out", str(solved)]) == 0
        assert (
            "good:" in capsys.readouterr().out or "usable:" in (solved / "handeye.json").read_text()
        )
        true = emulated_rig(0, _target(data), False, Noise()).truth.T_mount_camera
        found = np.array(json.loads((solved / "handeye.json").read_text())["matrix"])
        assert np.linalg.norm(found[:3, 3] - true[:3, 3]) < 1e-3
        assert 'poses_of = "flange"' in Path(cell).read_text()
        assert main(["verify", *DEVICES, SOURCE, "--cell", cell, "--out", str(tmp_path / "v")]) == 0
        assert capsys.readouterr().out.strip().splitlines()[-1].startswith("verified:")
        knocked = f"{SOURCE}&things=1&knock_mm=9"
        assert main(["check", *DEVICES, knocked, "--cell", cell, "--out", str(tmp_path / "k")]) == 1
        assert "KNOCKED" in capsys.readouterr().out
        assert not emulator.tell("state")["unknown_commands"]


def _target(data: str) -> str:
    return str(json.loads((Path(data) / "dataset.json").read_text())["target"])


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(CalibrationError, match="could not convert"):
        emulated(address=ADDRESS, knock_mm="far")
    with pytest.raises(CalibrationError, match="infrared"):
        emulated(address=ADDRESS, stream="colour")
