"""Calibration without a target and the check for a knock, on the simulated rig's depth."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from calib.collect.collect import Collector
from calib.collect.protocol import CalibrationCell
from calib.collect.rig import make_rig, open_rig
from calib.data.readers import read
from calib.errors import CalibrationError
from calib.handeye import main
from calib.scene.check import Knock, check_scene
from calib.scene.clouds import cloud, flattened, table_plane
from calib.scene.look import FIFTEEN, FIVE, QUICK, about, look_at_scene
from calib.scene.solve import solve_scene, summary
from calib.scene.start import start_from_planes
from calib.scene.still import SceneFit, _derivatives
from calib.solve.se3 import angle_deg, from_vector, inverse, to_vector
from calib.solve.verdict import GOOD, NO, USABLE


def collected(folder, views, seed=0, twist=None):
    """A rig over boxes, and the recording of its views; it moves by what it believes of the camera."""
    cell = open_rig(seed, None)
    X = cell.robot.truth.T_mount_camera
    collector = Collector(cell, None, folder, QUICK, lambda line: None)
    assert look_at_scene(collector, X if twist is None else X @ from_vector(twist), views) == len(
        views
    )
    return cell.robot, read(folder)


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("five") / "data", FIVE)


@pytest.fixture(scope="module")
def fifteen(tmp_path_factory):
    guessed = np.r_[np.radians([4.0, -3.0, 6.0]), 0.01, -0.02, 0.015]
    return collected(tmp_path_factory.mktemp("fifteen") / "data", FIFTEEN, 1, guessed)


def off(X, true):
    return to_vector(inverse(true) @ X)


def test_without_a_target_the_transform_is_found_and_its_error_claimed(fifteen):
    rig, recording = fifteen
    result = solve_scene(recording, None, None, 0.3, 1e-3)
    error = off(result.fit.T_hand_camera, rig.truth.T_mount_camera)
    half = result.fit.factor * np.sqrt(np.diag(result.fit.cov))
    assert np.linalg.norm(error[3:]) < 2e-3 and np.degrees(np.linalg.norm(error[:3])) < 0.1
    assert np.all(np.abs(error) < 1.7 * half) and half[3:].max() < 3e-3
    verdict, reason, _ = result.judge()
    assert verdict in (GOOD, USABLE) and "by the still scene" in reason
    s = summary(result)
    json.dumps(s)
    up = np.array(s["T_fixed_target"])[:3, 2]
    assert np.degrees(np.arccos(up[2])) < 0.2


def test_views_that_do_not_belong_are_refused(fifteen):
    _, recording = fifteen
    rows = recording.rows.copy()
    recording.rows = np.roll(rows, 1, axis=0)
    try:
        result = solve_scene(recording, None, None, 0.3, 1e-3)
    except CalibrationError as error:
        assert "tilts do not follow" in str(error) or "in common" in str(error)
    else:
        assert result.judge()[0] == NO
    finally:
        recording.rows = rows


def test_a_still_camera_is_still_true_and_a_knocked_one_is_named(five):
    rig, recording = five
    X, cov = rig.truth.T_mount_camera, np.diag(np.repeat([1e-8, 1e-8], 3))
    found, _ = check_scene(recording, recording.camera, X, cov, 1.0)
    word, line = found.judge(2.5)
    assert word == "true" and line.startswith("still true")
    for twist in ([0, 0, 0, 5e-3, 0, 0], [0, 0, 0, 0, 0, -6e-3], [0, np.radians(1.5), 0, 0, 0, 0]):
        before = X @ from_vector(-np.array(twist, dtype=float))
        knocked, _ = check_scene(recording, recording.camera, before, cov, 1.0)
        word, line = knocked.judge(2.0)
        true = Knock.displacement(off(X, before))
        assert word == "moved" and line.startswith("KNOCKED")
        assert np.all(np.abs(knocked.point_mm - true) < 1.6 * knocked.point_half_mm)


def test_a_bare_table_is_honest_about_what_it_cannot_tell(tmp_path):
    """Plane and tilts tell the rotation well; what depends on them only weakly has a wide interval."""
    rig = make_rig(3)
    rig.box = None
    cell = CalibrationCell(rig, rig, "rig", "infrared", rig.wait)
    collector = Collector(cell, None, tmp_path / "d", QUICK, lambda line: None)
    look_at_scene(collector, rig.truth.T_mount_camera, FIVE)
    recording = read(tmp_path / "d")
    X = rig.truth.T_mount_camera
    found, _ = check_scene(recording, recording.camera, X, np.zeros((6, 6)))
    assert found.point_half_mm[2] > 1.5 and found.turn_half_deg.max() < 0.3
    assert np.all(np.abs(found.point_mm) < 1.6 * found.point_half_mm)


def test_the_verdict_goes_by_the_worst_axis():
    def knock(point, half):
        return Knock(np.zeros(3), np.full(3, 0.1), np.array(point), np.array(half), 5)

    assert knock([0.1, 0.2, 0.5], [0.5, 0.5, 1.0]).judge(2.0)[0] == "true"
    assert knock([0.1, 3.0, 0.5], [0.5, 0.5, 1.0]).judge(2.0)[0] == "moved"
    word, line = knock([0.1, 0.2, 3.0], [0.5, 0.5, 4.0]).judge(2.0)
    assert word == "unknown" and "cannot tell" in line and "its z" in line


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_derivatives_are_those_of_the_residual(seed):
    rng = np.random.default_rng(seed)
    X, A, B = (from_vector(rng.normal(size=6) * 0.3) for _ in range(3))
    p, q = rng.normal(size=(2, 3))
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)

    def residual(theta):
        T_i = A @ from_vector(theta[7:13]) @ X @ from_vector(theta[:6])
        T_j = B @ from_vector(theta[13:]) @ X @ from_vector(theta[:6])
        s = np.exp(theta[6])
        moved = (inverse(T_j) @ T_i @ np.append(s * p, 1))[:3]
        return normal @ (moved - s * q) / s

    M = inverse(B @ X) @ A @ X
    in_j = (M @ np.append(p, 1))[:3]
    J = _derivatives(p[None], in_j[None], normal[None], M, X)[0]
    for k in range(19):
        step = np.zeros(19)
        step[k] = 1e-6
        assert J[k] == pytest.approx((residual(step) - residual(-step)) / 2e-6, abs=1e-6)


def test_the_table_alone_gives_the_start():
    rng = np.random.default_rng(0)
    X = from_vector([0.1, -0.2, 1.4, 0.02, 0.06, -0.09])
    T0 = np.diag([1.0, -1.0, -1.0, 1.0])
    T0[:3, 3] = [0.4, 0.1, 0.45]
    T = about(T0, 0.45, FIFTEEN)
    rays = make_rig(0).intrinsics.rays()
    planes = []
    for t in T:
        with np.errstate(divide="ignore"):
            z = -t[2, 3] / (rays @ t[2, :3])
        points = (rays * z[..., None])[::16, ::16].reshape(-1, 3)
        planes.append(table_plane(points[np.isfinite(points).all(axis=1)], rng))
    found = start_from_planes(planes, T @ inverse(X))
    assert np.linalg.norm(off(found, X)[3:]) < 1e-5 and angle_deg(inverse(found) @ X) < 1e-3
    with pytest.raises(CalibrationError, match="tilt the camera"):
        start_from_planes(planes[:1] * 5, np.repeat((T @ inverse(X))[:1], 5, axis=0))


def test_a_view_without_a_table_is_refused():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 3)) + np.array([0, 0, 1])
    with pytest.raises(CalibrationError, match="no plane"):
        table_plane(points, np.random.default_rng(1))


def test_normals_face_the_camera_and_edges_have_none():
    rays = make_rig(0).intrinsics.rays()
    z = np.full(rays.shape[:2], 0.4, np.float32)
    z[200:300, 200:300] = 0.35
    z[:40, :40] = 0
    one = cloud("x", z, rays)
    assert np.all(one.normals[one.smooth] @ [0, 0, -1] > 0.99)
    assert not one.smooth[:6, :6].any() and one.smooth.mean() > 0.6
    plane = table_plane(one.points_m[one.smooth], np.random.default_rng(0))
    assert plane.offset_m == pytest.approx(-0.4, abs=1e-4)
    flat = flattened(one, plane)
    assert flat.table.sum() > 0.5 * one.smooth.sum()
    assert not flat.table[45:55, 45:55].any()


def test_intervals_widen_with_the_noise_and_narrow_with_the_views():
    cov = np.eye(6) * 1e-6
    few, many = (
        SceneFit(np.eye(4), cov, 1, 0.01, 1e-4, 1e-4, 1e-3, 9, n, np.zeros((n, 6))) for n in (4, 15)
    )
    assert few.factor > many.factor > 1.9


@pytest.mark.parametrize("azimuth", [0, 90, 200])
def test_the_views_look_at_one_spot(azimuth):
    T0 = from_vector([np.pi, 0, 0, 0.3, 0.1, 0.5])
    T = about(T0, 0.4, [(azimuth, 30, 50, 1.2)])[0]
    spot = (T0 @ [0, 0, 0.4, 1])[:3]
    np.testing.assert_allclose((inverse(T) @ np.append(spot, 1))[:3], [0, 0, 0.48], atol=1e-9)
    tilt = np.degrees(np.arccos(T[:3, 2] @ T0[:3, 2]))
    assert tilt == pytest.approx(30)


def test_the_commands_end_to_end(tmp_path, capsys):
    data, solved = tmp_path / "data", tmp_path / "solved"
    assert main(["collect", "--target", "none", "--poses", "10", "--out", str(data)]) == 0
    assert json.loads((data / "dataset.json").read_text())["target"] == "none"
    code = main(["solve", str(data), "--out", str(solved), "--tolerance-mm", "3"])
    said = capsys.readouterr().out.strip().splitlines()
    assert code == 0 and said[-1].startswith(("good:", "usable:"))
    cell = solved / "cell.toml"
    assert "depth_scale" in cell.read_text()
    arguments = ["check", "--cell", str(cell), "--tolerance-mm", "4", "--out"]
    assert main([*arguments, str(tmp_path / "c")]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("still true")
    assert main([*arguments, str(tmp_path / "k"), "--knock-mm", "12"]) == 1
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("KNOCKED")
    answer = json.loads((tmp_path / "k/check.json").read_text())
    assert answer["answer"] == "moved"
    assert main(["verify", "--cell", str(cell), "--out", str(tmp_path / "v")]) == 2
    assert "use `check`" in capsys.readouterr().err


def test_rotations_of_the_views_differ_enough():
    T = about(np.eye(4), 0.4, FIVE)
    R = Rotation.from_matrix(T[:, :3, :3])
    normals = R.inv().apply([0, 0, 1])
    spread = np.degrees(np.linalg.svd(normals - normals.mean(axis=0), compute_uv=False))
    assert spread[1] / np.sqrt(len(T)) > 15
