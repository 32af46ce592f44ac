"""The commands end to end on a simulated rig, and what they say about bad input."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bench import figure_tables
from calib.collect.cell import read_handeye, write_handeye
from calib.collect.collect import CollectLimits, Collector, free_drive
from calib.collect.devices import open_cell
from calib.collect.protocol import CalibrationCell
from calib.collect.rig import guided_route, make_rig
from calib.collect.verify import check_depth, check_target, correction
from calib.data.readers import read
from calib.data.recording import read_dataset
from calib.errors import CalibrationError
from calib.solve.observe import look
from calib.solve.se3 import angle_deg, from_vector, inverse, to_vector
from calib.solve.solver import Settings, calibrate
from calib.solve.verdict import GOOD, NO, USABLE, judge_result, summary
from calib.target.targets import Target, parse
from rt.robot.kinematics import ARMS, joint_frames


def command(*arguments, folder=None):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "calib.handeye", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=env,
        timeout=300,
    )


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A bare run of the command, as a user types it."""
    folder = tmp_path_factory.mktemp("simulated")
    done = command(folder=folder)
    assert done.returncode == 0, done.stderr
    (out,) = (folder / "runs/handeye").iterdir()
    return done.stdout, out


def test_bare_command_calibrates_and_claims_rightly(simulated):
    text, out = simulated
    s = json.loads((out / "handeye.json").read_text())
    assert s["verdict"] == GOOD
    assert text.strip().splitlines()[-1].startswith("good: a point at 300 mm is known to")
    error, half = (
        np.abs(s["truth"]["error"]),
        s["interval95_rotation_deg"] + s["interval95_translation_mm"],
    )
    assert np.all(error < 1.6 * np.array(half))
    assert s["truth"]["translation_error_mm"] < 0.4
    names = {"Tsai", "Park", "Horaud", "Andreff", "Daniilidis", "Shah", "Li"}
    assert set(s["methods"]) == names
    best = min(m["held_out_mm"] for m in s["methods"].values())
    assert 0 < s["held_out_rms"]["mm"] < 1.05 * best
    for name in ("parameters", "residuals", "coverage", "scene", "detections"):
        image = cv2.imread(str(out / f"{name}.png"))
        assert image is not None and image.std() > 5
    page = (out / "handeye.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and 'src="http' not in page


def test_cell_file_holds_the_transform(simulated):
    _, out = simulated
    cell = tomllib.loads((out / "cell.toml").read_text())["handeye"]
    s = json.loads((out / "handeye.json").read_text())
    assert cell["transform"] == "T_hand_camera" and cell["verdict"] == GOOD
    assert np.array(cell["covariance"]).shape == (6, 6)
    section = read_handeye(out / "cell.toml")
    np.testing.assert_allclose(section["T_mount_camera"], s["matrix"], atol=1e-8)
    np.testing.assert_allclose(section["covariance"], s["covariance"], rtol=1e-6)
    assert cell["data_sha256"] == read(out / "data").digest()


def test_cell_file_keeps_what_else_is_in_it(simulated, tmp_path):
    _, out = simulated
    s = json.loads((out / "handeye.json").read_text())
    path = tmp_path / "cell.toml"
    before = '# the cell at the window\n[robot]\naddress = "10.0.0.2" # fixed\n\n'
    before += "[handeye]\nold = 1\n\n[limits]\nspeed = 0.2\n"
    path.write_text(before)
    write_handeye(path, s)
    text = path.read_text()
    assert "# the cell at the window" in text and 'address = "10.0.0.2" # fixed' in text
    read_back = tomllib.loads(text)
    assert read_back["limits"] == {"speed": 0.2} and "old" not in read_back["handeye"]
    path.write_text("[broken")
    with pytest.raises(CalibrationError, match="not a TOML file"):
        write_handeye(path, s)
    assert path.read_text() == "[broken"


def test_solve_and_verify_from_the_folder(simulated, tmp_path):
    _, out = simulated
    done = command(
        "solve", out / "data", "--out", tmp_path / "solved", "--cell", tmp_path / "cell.toml"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith("good:")
    again = command(
        "verify", out / "verify", "--cell", tmp_path / "cell.toml", "--out", tmp_path / "v"
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads((tmp_path / "v/verify.json").read_text())["checks"][0]["rms_mm"] < 1


def test_wrong_transform_fails_verification(simulated):
    _, out = simulated
    recording = read_dataset(out / "verify")
    X = np.array(json.loads((out / "handeye.json").read_text())["matrix"])
    sights = look(recording, recording.target)
    camera = recording.camera
    good = check_target(recording, sights, recording.target, camera, X, True)
    X[:3, 3] += [0.0, 0.005, 0.0]
    bad = check_target(recording, sights, recording.target, camera, X, True)
    assert bad.rms_mm > 2 > 3 * good.rms_mm or bad.rms_mm > 4 * good.rms_mm
    tables = [check_depth(recording, camera, M)[0] for M in (inverse(inverse(X)), X)]
    assert tables[0].rms_mm < 3


@pytest.mark.parametrize("axis", range(3))
def test_verify_finds_an_error_along_any_axis(simulated, axis):
    """5 mm along each of the camera's axes, tz included, from poses beside those of the calibration."""
    _, out = simulated
    recording = read_dataset(out / "verify")
    X = np.array(json.loads((out / "handeye.json").read_text())["matrix"])
    sights, camera = look(recording, recording.target), recording.camera
    good = correction(recording, sights, recording.target, camera, X, True)
    assert good.verdict(2.0)[0] and np.all(good.bound_mm < 2)
    off = np.zeros(3)
    off[axis] = 5e-3
    X[:3, 3] += X[:3, :3] @ off
    ok, line = correction(recording, sights, recording.target, camera, X, True).verdict(2.0)
    assert not ok and f"along its {'xyz'[axis]}" in line and "calibrate again" in line


def test_verify_looks_from_poses_beside_those_of_the_calibration(simulated):
    _, out = simulated
    known, new = (poses_of_folder(out / k) for k in ("data", "verify"))
    for T in new:
        away = np.linalg.norm(known[:, :3, 3] - T[:3, 3], axis=1) > 0.04
        turned = angle_deg(np.swapaxes(known[:, :3, :3], 1, 2) @ T[:3, :3]) > 11
        assert np.all(away | turned)


def test_depth_check_sees_a_tilted_camera(simulated):
    _, out = simulated
    recording = read_dataset(out / "verify")
    X = np.array(json.loads((out / "handeye.json").read_text())["matrix"])
    straight = check_depth(recording, recording.camera, X)[0].as_dict()
    X[:3, :3] = X[:3, :3] @ Rotation.from_euler("x", 1, degrees=True).as_matrix()
    tilted = check_depth(recording, recording.camera, X)[0].as_dict()
    assert straight["rms_deg"] < 0.1 and straight["rms_mm"] < 0.6
    assert tilted["rms_deg"] > 5 * straight["rms_deg"]


def test_a_wrong_board_size_is_caught_and_not_written(simulated, tmp_path):
    _, out = simulated
    cell = tmp_path / "cell.toml"
    done = command(
        "solve", out / "data", "--target", "charuco:7x5:31:22.7333:DICT_5X5_1000",
        "--out", tmp_path / "o", "--cell", cell,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    assert (
        last.startswith("do not use:")
        and "not the stated 31 mm" in last
        and "depth images say" in last
    )
    assert not cell.exists()
    recording = read(out / "data")
    wrong = parse("charuco:7x5:31:22.7333:DICT_5X5_1000")
    freed = calibrate(recording, Settings(target=wrong, free_scale=True))
    assert freed.fit.state.scale * 31 == pytest.approx(30, abs=0.12)
    truth = np.array(json.loads((out / "handeye.json").read_text())["truth"]["matrix"])
    assert np.linalg.norm(freed.fit.state.T_mount_camera[:3, 3] - truth[:3, 3]) < 1e-3


def foreign(out, folder, rows, count=15):
    """The simulated images beside a plain table of poses, without intrinsics or target."""
    folder.mkdir()
    for k in range(count):
        shutil.copy(out / "data/images" / f"{k:04d}.png", folder / f"shot{k}.png")
    np.savetxt(folder / "poses.txt", rows)
    return folder


def poses_of(out):
    return poses_of_folder(out / "data")


def poses_of_folder(folder):
    recording = read_dataset(folder)
    return recording.read_poses(recording.format)


def test_foreign_data_without_conventions_or_intrinsics(simulated, tmp_path):
    _, out = simulated
    T = poses_of(out)
    angles = Rotation.from_matrix(T[:, :3, :3]).as_euler("ZYX", degrees=True)
    folder = foreign(out, tmp_path / "kuka", np.c_[T[:, :3, 3] * 1e3, angles])
    done = command("solve", folder, "--target", Target().spec, "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "euler_ZYX:deg:mm, camera in the hand" in done.stdout
    s = json.loads((tmp_path / "o/handeye.json").read_text())
    truth = json.loads((out / "handeye.json").read_text())["truth"]["matrix"]
    assert np.linalg.norm(np.array(s["translation_m"]) - np.array(truth)[:3, 3]) < 1.5e-3
    assert s["camera"]["estimated"]


def test_corrupted_pairs_are_named_in_the_verdict(simulated, tmp_path):
    _, out = simulated
    T = poses_of(out)
    T[3] = inverse(T[3])
    T[9, 0, 3] = np.nan
    folder = foreign(out, tmp_path / "bad", T.reshape(-1, 16))
    shutil.copy(folder / "shot5.png", folder / "shot6.png")
    result = calibrate(read(folder), Settings(target=Target(), eye_in_hand=True))
    verdict, _, findings = judge_result(result)
    text = "\n".join(map(str, findings))
    assert verdict == USABLE
    assert "shot3 does not belong" in text and "inverted" in text
    assert "NaN" in text and "shot9" in text
    assert "shot5, shot6 are the same image" in text


def test_inverted_poses_are_explained_and_refused(simulated, tmp_path):
    _, out = simulated
    folder = foreign(out, tmp_path / "inv", inverse(poses_of(out)).reshape(-1, 16))
    result = calibrate(read(folder), Settings(target=Target(), eye_in_hand=True))
    verdict, reason, _ = judge_result(result)
    assert verdict == NO and "inverted" in reason
    # by default the camera is in the hand, and the data that speak for another mount are named
    with pytest.raises(CalibrationError, match="fit a fixed camera and not one in the hand"):
        calibrate(read(folder), Settings(target=Target()))
    # left to the images, it is a fixed camera, which is the same equation: the dual is named
    free = calibrate(read(folder), Settings(target=Target(), either_mount=True))
    assert summary(free)["transform"] == "T_base_camera"
    assert any("dual reading" in f.text and ":inverse" in f.remedy for f in free.findings)


def unturned(T):
    T = T.copy()
    T[:, :3, :3] = T[0, :3, :3]
    return T


BAD = {
    "two poses": (lambda T: T[:2], "at least 3"),
    "pure translation": (unturned, "pure translation"),
    "left-handed": (lambda T: T * np.array([1, -1, 1, 1.0]), "mirrors"),
}


@pytest.mark.parametrize("kind", BAD)
def test_hopeless_poses_are_refused_with_a_remedy(simulated, tmp_path, kind):
    _, out = simulated
    spoil, words = BAD[kind]
    T = spoil(poses_of(out))
    folder = foreign(out, tmp_path / "bad", T.reshape(-1, 16), len(T))
    with pytest.raises(CalibrationError, match=words):
        calibrate(read(folder), Settings(target=Target(), eye_in_hand=True))


def test_parallel_axes_are_refused(simulated, tmp_path):
    _, out = simulated
    T = poses_of(out)
    for k in range(len(T)):
        T[k, :3, :3] = T[0, :3, :3] @ Rotation.from_euler("z", 6 * k, degrees=True).as_matrix()
    folder = foreign(out, tmp_path / "bad", T.reshape(-1, 16))
    with pytest.raises(CalibrationError, match="parallel axes"):
        calibrate(read(folder), Settings(target=Target(), eye_in_hand=True))


def test_images_of_two_sizes_and_without_target_are_refused(simulated, tmp_path):
    _, out = simulated
    folder = foreign(out, tmp_path / "sizes", poses_of(out).reshape(-1, 16))
    cv2.imwrite(str(folder / "shot4.png"), cv2.imread(str(folder / "shot4.png"))[:300])
    with pytest.raises(CalibrationError, match="shot4 is 640x300"):
        calibrate(read(folder), Settings(target=Target()))
    for k in range(15):
        cv2.imwrite(str(folder / f"shot{k}.png"), np.full((48, 64), k, np.uint8))
    with pytest.raises(CalibrationError, match="no charuco"):
        calibrate(read(folder), Settings(target=Target()))


def test_given_intrinsics_that_are_wrong_are_noticed(simulated, tmp_path):
    _, out = simulated
    folder = foreign(out, tmp_path / "lens", poses_of(out).reshape(-1, 16))
    (folder / "camera.json").write_text(json.dumps({"fx": 640, "fy": 640, "cx": 320, "cy": 240}))
    result = calibrate(read(folder), Settings(target=Target()))
    assert any("do not fit the images" in f.text for f in result.findings)
    assert result.fit.state.camera.fx == pytest.approx(610, rel=0.01)


def test_errors_are_one_line_with_exit_code_2(tmp_path):
    for arguments, words in (
        (("solve", tmp_path / "none"), "does not exist"),
        (("collect", "--robot", "kuka", "--camera", "realsense"), "no robot driver 'kuka'"),
        (("collect", "--robot", "ur", "--camera", "realsense"), "give --address"),
        (("print-target", "chess:3"), "KIND:COLUMNSxROWS"),
    ):
        done = command(*arguments, folder=tmp_path)
        assert done.returncode == (1 if "ur" in arguments else 2)
        assert done.stderr.startswith("calib.handeye: ") and done.stderr.count("\n") == 1
        assert words in done.stderr
    assert not any(tmp_path.iterdir())


def test_print_target_writes_a_pdf(tmp_path):
    done = command("print-target", "aprilgrid:4x3:40:12", "--out", tmp_path / "a.pdf")
    assert done.returncode == 0 and (tmp_path / "a.pdf").read_bytes()[:4] == b"%PDF"


def cell_of(rig):
    return CalibrationCell(rig, rig, "rig", "infrared", rig.wait)


def test_free_drive_stores_each_rest_once(tmp_path):
    rig = make_rig(5)
    guided_route(rig, 3)
    lines = []
    collector = Collector(cell_of(rig), Target(), tmp_path / "d", CollectLimits(), lines.append)
    assert free_drive(collector, 4, timeout_s=60) == 4
    recording = read(tmp_path / "d")
    T = recording.read_poses(recording.format)
    apart = [
        np.linalg.norm(a[:3, 3] - b[:3, 3]) > 0.02 or angle_deg(a[:3, :3].T @ b[:3, :3]) > 4
        for i, a in enumerate(T)
        for b in T[:i]
    ]
    assert len(T) == 4 and all(apart)


def test_a_target_that_is_never_seen_has_a_message(tmp_path):
    collector = Collector(cell_of(make_rig(0)), Target(), tmp_path / "d", CollectLimits(), print)
    with pytest.raises(CalibrationError, match=r"after 0 first samples .*never seen"):
        collector.estimate()


def test_the_arm_stays_within_its_limits(tmp_path):
    rig = make_rig(6)
    collector = Collector(
        cell_of(rig), Target(), tmp_path / "d", CollectLimits(travel_m=0.1), print
    )
    far = collector.start.copy()
    far[0, 3] += 0.15
    with pytest.raises(CalibrationError, match=r"the limit is 0\.1 m"):
        collector.go(far)
    low = collector.start.copy()
    low[2, 3] -= 0.12
    assert collector.forbidden(low) is not None
    np.testing.assert_array_equal(rig.state().T_base_hand, collector.start)


def test_data_are_never_overwritten(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/mine.txt").write_text("keep")
    with pytest.raises(CalibrationError, match="not empty"):
        Collector(cell_of(make_rig(0)), Target(), tmp_path / "d", CollectLimits(), print)
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["mine.txt"]


def test_simulated_arm_and_camera_go_together():
    with pytest.raises(CalibrationError, match="go together"):
        open_cell("sim", "realsense")


def test_study_compares_claims_with_truth(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "calib.study", "--rigs", "1", "--tags", "3", "--advised", "2"),
            *("--timed", "1", "--poses", "5", "6", "15", "--out", tmp_path),
        ],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    s = json.loads((tmp_path / "study.json").read_text())
    assert s["accuracy"]["5"]["median"]["joint"][0] < 2
    assert s["accuracy"]["6"]["poses"] == 6
    assert figure_tables.study(s)["poses"] == 15  # bench.figures understands it
    assert s["tags"]["joint_mm"][0] < s["tags"]["Park_mm"][0]
    assert all(c["found"] == 1 for c in s["corruption"].values())
    assert s["next_pose"]["error_ratio_advised"] < s["next_pose"]["error_ratio_random"]
    assert s["time_offset"]["worst_error_ms"] < 3


def arm_at(q: np.ndarray) -> SimpleNamespace:
    """A collector whose arm, a UR5e with a bare flange, stands in joints (6,) [rad]."""
    arm = ARMS["UR5e"]
    state = SimpleNamespace(T_base_hand=joint_frames(arm, q)[6], q=q)
    robot = SimpleNamespace(state=lambda: state, arm_model=arm)
    return SimpleNamespace(cell=SimpleNamespace(robot=robot), limits=CollectLimits())


HOME_Q = np.radians([0.0, -90, -90, -90, 90, 0])


def test_a_path_unwinds_the_last_joint_and_ends_in_the_same_pose():
    for wound_deg, turn_deg, more in (
        (0, 150, 0),
        (150, 100, -360),
        (-170, -30, 360),
        (170, -80, 0),
    ):
        collector = arm_at(HOME_Q + np.radians([0, 0, 0, 0, 0, wound_deg]))
        here = collector.cell.robot.state().T_base_hand
        goal = here @ from_vector(np.array([0, 0, np.radians(turn_deg), 0.02, 0, 0.01]))
        poses = [here, *Collector.way(collector, goal)]
        np.testing.assert_allclose(poses[-1], goal, atol=1e-9)
        steps = [to_vector(inverse(a) @ b)[2] for a, b in pairwise(poses)]
        assert np.degrees(np.sum(steps)) == pytest.approx(turn_deg + more, abs=1e-6)
        assert np.degrees(np.abs(steps).max()) * 50 <= collector.limits.turn_deg_s + 1e-6


def test_a_pose_that_the_joints_cannot_hold_is_out_of_reach():
    collector = arm_at(HOME_Q)
    here = collector.cell.robot.state().T_base_hand
    assert Collector.out_of_reach(collector, here) is None
    away = here.copy()
    away[0, 3] += 0.5
    assert "no joints found" in (Collector.out_of_reach(collector, away) or "")
    stretched = joint_frames(ARMS["UR5e"], np.radians([0.0, -150, -3, -160, 87, 95]))[6]
    found = Collector.out_of_reach(arm_at(np.radians([0.0, -140, -25, -150, 87, 95])), stretched)
    assert "elbow" in (found or "")
    # A whole turn of the last joint is no reason: the way there turns back.
    wound = arm_at(HOME_Q + np.radians([0, 0, 0, 0, 0, 355]))
    assert Collector.out_of_reach(wound, here) is None
