"""The touch test: spots, answers, and the error at the fingers."""

import json

import numpy as np
import pytest

from calib.collect.collect import CollectLimits, Collector
from calib.collect.protocol import CalibrationCell
from calib.collect.rig import make_rig
from calib.collect.touch import (
    Spot,
    choose_spots,
    explain_touch,
    parse_offset,
    pointing_pose,
)
from calib.data.recording import pose_row
from calib.errors import CalibrationError
from calib.handeye import main
from calib.solve.se3 import from_vector, inverse
from calib.target.targets import Target

LOOKING_DOWN = from_vector([np.pi, 0, 0, 0.4, 0, 0.45])


def spots_at(*places):
    return [Spot(np.zeros(2), np.array(p, dtype=float)) for p in places]


def test_spots_are_far_apart_and_lie_on_the_target():
    rig = make_rig(2)
    frame = rig.read_latest(1.0)
    spots = choose_spots(frame, rig.intrinsics, Target(), 3)
    p = np.array([s.point_m for s in spots])
    far = np.linalg.norm(p[:, None] - p[None], axis=-1)[np.triu_indices(3, 1)]
    assert far.min() > 0.06
    table = inverse(rig.truth.T_fixed_target) @ rig.true_camera()
    on_board = (np.c_[p, np.ones(3)] @ table.T)[:, :3]
    corners = Target().points()
    for at in on_board:
        assert abs(at[2]) < 2e-3
        assert np.linalg.norm(corners - at, axis=1).min() < 1.5e-3
    anywhere = choose_spots(frame, rig.intrinsics, None, 3)
    assert len(anywhere) == 3
    frame.depth[:] = 0
    with pytest.raises(CalibrationError, match="0 marks with depth"):
        choose_spots(frame, rig.intrinsics, Target(), 3)


def test_the_tip_stops_above_the_spot():
    tip, spot = np.array([0.01, 0.02, 0.16]), np.array([0.5, 0.1, 0.02])
    T = pointing_pose(LOOKING_DOWN, spot, tip, 5e-3)
    np.testing.assert_allclose(
        (T @ np.append(tip, 1))[:3], spot + np.array([0, 0, 5e-3]), atol=1e-12
    )
    np.testing.assert_allclose(T[:3, :3], LOOKING_DOWN[:3, :3])


def test_answers_are_read_and_mistakes_told():
    np.testing.assert_allclose(parse_offset("1.5, -0.5 -5", 5e-3), [1.5e-3, -0.5e-3, 0], atol=1e-12)
    two = parse_offset("1 2", 5e-3)
    assert np.isnan(two[2]) and two[1] == pytest.approx(2e-3)
    assert parse_offset("  ", 5e-3) is None
    for text in ("1", "a b c", "1 2 3 4", "1 2 nan", "500 0 0"):
        with pytest.raises(CalibrationError, match=r"1\.5 -0\.5 -5"):
            parse_offset(text, 5e-3)


def test_a_moved_camera_explains_the_misses():
    spots = spots_at([0.1, 0.05, 0.4], [-0.1, 0.06, 0.42], [0.0, -0.1, 0.38])
    moved = np.array([0, 0, 0, 4e-3, -2e-3, 3e-3])
    error = np.array(
        [
            (LOOKING_DOWN @ (from_vector(moved) - np.eye(4)) @ np.append(s.point_m, 1))[:3]
            for s in spots
        ]
    )
    found = explain_touch(error, spots, LOOKING_DOWN)
    ok, line = found.verdict(2.0)
    assert not ok and line.startswith("MISSED") and found.rest_mm < 0.1
    np.testing.assert_allclose(found.moved_mm, moved[3:] * 1e3, atol=1.5)
    assert np.all(np.abs(found.moved_mm - moved[3:] * 1e3) < found.moved_half_mm)
    assert found.miss_mm.max() == pytest.approx(np.sqrt(29), rel=0.01)
    error[:, 2] = np.nan  # heights were not told
    assert explain_touch(error, spots, LOOKING_DOWN).miss_mm.max() == pytest.approx(
        np.sqrt(20), rel=0.01
    )
    assert explain_touch(error * 0.1, spots, LOOKING_DOWN).verdict(2.0)[0]


@pytest.mark.parametrize(("off_mm", "code"), [(0.0, 0), (6.0, 1)])
def test_the_command_on_the_simulated_rig(tmp_path, capsys, off_mm, code):
    rig = make_rig(0)
    X = rig.truth.T_mount_camera @ from_vector([0, 0, 0, off_mm * 1e-3, 0, 0])
    cell = tmp_path / "cell.toml"
    rows = "\n".join(f"[{', '.join(map(repr, r))}]," for r in np.eye(6).tolist())
    frame = "\n".join(f"[{', '.join(map(repr, r))}]," for r in rig.truth.T_fixed_target.tolist())
    quaternion = pose_row(X)
    cell.write_text(
        "[handeye]\ntransform = 'T_hand_camera'\n"
        f"translation_m = {quaternion[:3]}\nquaternion_xyzw = {quaternion[3:]}\n"
        f"covariance = [{rows}]\ntarget_matrix = [{frame}]\ntarget = '{Target().spec}'\n"
    )
    assert main(["touch", "--cell", str(cell), "--out", str(tmp_path / "t")]) == code
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("touched" if code == 0 else "MISSED")
    told = json.loads((tmp_path / "t/touch.json").read_text())
    assert len(told["miss_mm"]) == 3
    if code:
        assert told["camera_moved_mm"][0] == pytest.approx(-off_mm, abs=2.0)
    assert (tmp_path / "t/spots.png").is_file()


def test_collecting_goes_on_in_its_folder(tmp_path):
    """Also after the last line was cut off; not with another target, and not into a stranger's folder."""
    rig = make_rig(4)
    cell = CalibrationCell(rig, rig, "rig", "infrared", rig.wait)
    folder, said = tmp_path / "d", []
    first = Collector(cell, Target(), folder, CollectLimits(), said.append)
    assert first.take("a") and first.take("b")
    first.finish()
    with (folder / "poses.csv").open("a") as file:
        file.write("0002,12")
    again = Collector(cell, Target(), folder, CollectLimits(), said.append, resume=True)
    assert len(again.poses) == len(again.seen) == 2 and "2 pairs are stored already" in said[-1]
    assert again.take("c")
    again.finish()
    lines = (folder / "poses.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", "0000", "0001", "0002"]
    with pytest.raises(CalibrationError, match="another target"):
        Collector(cell, Target(columns=6), folder, CollectLimits(), said.append, resume=True)
    with pytest.raises(CalibrationError, match="not empty"):
        Collector(cell, Target(), folder, CollectLimits(), said.append)
