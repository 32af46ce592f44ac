"""sim.twin: the arm's limits and lag, the camera's times, and the same run from the same seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rt.camera import CameraError, StaleFrameError
from rt.cell.cell import Cell
from rt.cell.open import open_cell
from rt.pose import grasp_distance, to_view, top_down
from rt.robot import RobotError
from rt.view import VIEW, Reprojector
from sim.twin import MOUNTS, ArmDynamics, TwinArm, build

MS = 1_000_000
START = np.array([0.02, -0.03, 0.30, 0.4])
GRASPS = np.array([[0.05, 0.02, 0.03, 1.0, 0.04], [-0.08, 0.0, 0.02, -0.5, 0.03]])
metres = st.floats(-0.4, 0.4)
targets = st.tuples(metres, metres, st.floats(0.1, 0.5), st.floats(-9, 9))


def table(T: NDArray[np.float64], rays: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth of the plane z = 0."""
    down = rays.astype(np.float64) @ T[2, :3]
    depth: NDArray[np.float32] = np.where(down < 0, -T[2, 3] / down, 0).astype(np.float32)
    return depth


def cell(**options: object) -> Cell:
    return build(table, GRASPS, START, **options)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(targets, st.integers(1, 120)), min_size=1, max_size=6), st.booleans())
def test_the_arm_keeps_its_limits_whatever_it_is_told(
    orders: list[tuple[tuple[float, float, float, float], int]], stop: bool
) -> None:
    arm = ArmDynamics()
    robot = TwinArm(START, arm)
    before, at = robot.state().twist, robot.hand
    for target, substeps in orders:
        robot.move(top_down(*target))
        for k in range(substeps):
            if stop and k == substeps // 2:
                robot.stop()
            robot.substep(MS)
            twist = robot.state().twist
            change = twist - before
            assert np.linalg.norm(twist[:3]) <= arm.max_speed_m_s + 1e-9
            assert abs(twist[5]) <= arm.max_turn_rad_s + 1e-9
            assert np.linalg.norm(change[:3]) <= arm.max_acceleration_m_s2 * 1e-3 + 1e-9
            assert abs(change[5]) <= arm.max_turn_acceleration_rad_s2 * 1e-3 + 1e-9
            np.testing.assert_allclose(robot.hand[:3] - at[:3], twist[:3] * 1e-3, atol=1e-12)
            before, at = twist, robot.hand


@settings(deadline=None, max_examples=40)
@given(targets)
def test_the_arm_arrives_and_does_not_overshoot(target: tuple[float, float, float, float]) -> None:
    robot = TwinArm(START)
    robot.move(top_down(*target))
    way = np.array(target[:3]) - START[:3]
    length = float(np.linalg.norm(way))
    furthest = 0.0
    for _ in range(3000):
        robot.substep(MS)
        if length > 0:
            furthest = max(furthest, float((robot.hand[:3] - START[:3]) @ way / length))
    np.testing.assert_allclose(robot.hand[:3], target[:3], atol=1e-6)
    assert abs(math.remainder(robot.hand[3] - target[3], 2 * math.pi)) < 1e-6
    assert furthest <= length + 0.003


def test_a_steady_target_is_followed_with_the_lag() -> None:
    robot, speed = TwinArm(START), 0.1
    for k in range(1000):
        robot.move(top_down(START[0] + speed * 1e-3 * (k + 1), *START[1:]))
        robot.substep(MS)
    behind = START[0] + speed * 1.0 - robot.hand[0]
    assert behind / speed == pytest.approx(ArmDynamics().lag_s, abs=0.0015)


def test_a_stop_brings_the_hand_to_rest_and_it_stays() -> None:
    robot = TwinArm(START)
    robot.move(top_down(0.4, 0.4, 0.2, 2.0))
    for _ in range(300):
        robot.substep(MS)
    assert np.linalg.norm(robot.state().twist[:3]) > 0.1
    with robot:
        pass  # leaving the context stops it
    for _ in range(250):
        robot.substep(MS)
    np.testing.assert_allclose(robot.state().twist, 0, atol=1e-12)
    at = robot.hand
    robot.substep(MS)
    np.testing.assert_array_equal(robot.hand, at)


def test_a_tilted_or_broken_target_is_refused() -> None:
    robot = TwinArm(START)
    with pytest.raises(RobotError, match="straight down"):
        robot.move(np.eye(4))
    with pytest.raises(RobotError):
        robot.move(top_down(math.nan, 0, 0.3, 0))


@given(st.integers(1, 100 * MS))
def test_time_advances_by_exactly_what_is_asked(period_ns: int) -> None:
    twin = cell()
    began = twin.robot.now_ns()
    for k in range(3):
        twin.advance(period_ns)
        assert twin.robot.now_ns() == began + (k + 1) * period_ns


@pytest.mark.parametrize(("rate_hz", "delay_s"), [(60.0, 0.030), (30.0, 0.050), (90.0, 0.0)])
def test_frames_come_after_their_delay_with_the_time_of_exposure(
    rate_hz: float, delay_s: float
) -> None:
    twin = cell(camera_rate_hz=rate_hz, camera_delay_s=delay_s)
    seen = []
    for _ in range(400):
        twin.advance(MS)
        try:
            frame = twin.camera.read_latest(1.0)
        except StaleFrameError as error:
            assert error.age_s == math.inf and not seen
            continue
        age = (twin.robot.now_ns() - frame.stamp_ns) * 1e-9
        assert delay_s <= age <= delay_s + 1 / rate_hz + 0.0015
        if not seen or seen[-1].number != frame.number:
            seen.append(frame)
    stamps = np.diff([frame.stamp_ns for frame in seen])
    np.testing.assert_array_equal(stamps, round(1e9 / rate_hz))
    np.testing.assert_array_equal(np.diff([frame.number for frame in seen]), 1)


def test_a_frame_shows_what_was_there_when_it_was_exposed() -> None:
    twin = cell()
    twin.robot.move(top_down(*START[:2], 0.15, START[3]))
    heights: dict[int, float] = {}
    for _ in range(300):
        heights[twin.robot.now_ns()] = float(twin.robot.state().T_base_hand[2, 3])
        twin.advance(MS)
        if twin.robot.now_ns() > 1_100 * MS:
            frame = twin.camera.read_latest(1.0)
            near = min(heights, key=lambda t: abs(t - frame.stamp_ns))
            assert frame.depth[32, 32] == pytest.approx(heights[near], abs=1e-3)


def test_an_old_frame_is_refused_with_its_age() -> None:
    twin = cell()
    for _ in range(10):
        twin.advance(10 * MS)
    with pytest.raises(StaleFrameError) as caught:
        twin.camera.read_latest(0.01)
    assert 0.03 <= caught.value.age_s <= 0.05


def test_the_truth_is_the_nearest_grasp() -> None:
    twin = cell()
    assert twin.true_distance_m is not None
    expected = grasp_distance(to_view(GRASPS[:, :4], START), np.zeros(3)).min()
    assert twin.true_distance_m() == pytest.approx(float(expected))
    twin.robot.move(top_down(0.05, 0.02, 0.2, 1.0 + math.pi))
    for _ in range(3000):
        twin.advance(MS)
    assert twin.true_distance_m() < 1e-6


def test_an_unknown_mount_lists_the_known_ones() -> None:
    with pytest.raises(CameraError, match="ideal, wrist"):
        cell(mount="head")


def test_a_seed_makes_the_same_world_and_another_another() -> None:
    worlds = [open_cell("twin", seed=s, scene=n) for s, n in ((3, 1), (3, 1), (4, 1), (3, 2))]
    for world in worlds:
        for _ in range(5):
            world.advance(20 * MS)
    depth = [world.camera.read_latest(1.0).depth for world in worlds]
    np.testing.assert_array_equal(depth[0], depth[1])
    assert worlds[0].info == worlds[1].info
    assert (depth[0] != depth[2]).any() and (depth[0] != depth[3]).any()


def test_a_real_sensor_has_noise_and_repeats_with_its_seed() -> None:
    worlds = [
        open_cell("twin", seed=1, mount="wrist", sensor=sensor)
        for sensor in ("ideal", "d405", "d405")
    ]
    views = []
    for world in worlds:
        for _ in range(5):
            world.advance(20 * MS)
        assert world.info["sensor"] in ("ideal", "d405")
        camera = world.camera
        frame = camera.read_latest(1.0)
        views.append(Reprojector(frame.intrinsics, camera.T_hand_camera)(frame.depth))
    exact, noisy, again = views
    np.testing.assert_array_equal(noisy, again)
    off = np.abs(noisy - exact)[(noisy > 0) & (exact > 0)]
    assert 1e-4 < np.median(off) < 0.004
    for mount, sensor, word in (("ideal", "d405", "wrist"), ("wrist", "kinect", "sr300")):
        with pytest.raises(CameraError, match=word):
            open_cell("twin", mount=mount, sensor=sensor)


def test_the_wrist_camera_shows_the_view_that_the_ideal_one_does() -> None:
    """The wrist camera's reprojected depth is the ideal camera's at every pixel that it sees."""
    ideal, wrist = (open_cell("twin", seed=1, scene=0, mount=m) for m in ("ideal", "wrist"))
    for world in (ideal, wrist):
        for _ in range(5):
            world.advance(20 * MS)
    mount = MOUNTS["wrist"]
    seen = Reprojector(mount.intrinsics, mount.T_hand_camera)(wrist.camera.read_latest(1.0).depth)
    true = ideal.camera.read_latest(1.0).depth
    assert true.shape == (VIEW.size_px, VIEW.size_px)
    assert (seen > 0).mean() > 0.85
    off = np.abs(seen - true)[seen > 0]
    assert np.quantile(off, 0.9) < 0.002
