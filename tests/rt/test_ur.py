"""rt.robot.ur against an emulated controller in a process of its own, through the real ur-rtde.

Times are read on the emulator's clock. The computer may be busy: its share is allowed for by bounds
that are generous, yet far from what a missing stop would give (an arm that runs on).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from needs import needed
from numpy.typing import NDArray

needed("ur", "rtde_control", "ruckig")

from rt.robot import RobotError
from rt.robot.ur.driver import UR, open_calibration, open_robot
from rt.robot.ur.link import ClockMap, UrError
from rt.robot.ur_pose import pose_vector, rotation, transform
from sim.hardware.ur.process import Emulator, start_emulator

HOST = "127.0.0.31"
TCP = (0.0, 0.0, 0.16, 0.0, 0.0, 0.0)
T_FLANGE_HAND = transform(TCP) @ np.diag([-1.0, -1.0, 1.0, 1.0])
"""The hand where the tool centre point is, but turned by half a turn about it."""
START = (0.45, -0.13, 0.35, np.pi, 0.0, 0.0)
PERIOD_S = 1 / 30


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    options = ["--tcp", *map(str, TCP), "--start", *map(str, START)]
    with start_emulator(HOST, *options, control_port=31031) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Iterator[Emulator]:
    """In order, at the start, and left so for the next test."""
    yield running
    for line in (
        "thaw",
        "listen",
        "remote",
        "in_use 0",
        "push 0 0 0",
        "table none",
        "stop",
        "clear",
    ):
        running.tell(line)
    running.wait_still()
    running.tell("place " + " ".join(map(str, START)))


def connect(**options: Any) -> UR:
    # a busy computer may keep the streaming process waiting; an arm would not
    given = {"watchdog_hz": 5.0, "max_silence_s": 0.06, "max_target_age_s": 0.3, **options}
    return open_robot(HOST, **{"T_flange_hand": T_FLANGE_HAND, **given})


def drive(robot: UR, seconds: float, speed_m_s: float = 0.06) -> NDArray[np.float64]:
    """Stream targets along x; the last one."""
    T = robot.state().T_base_hand
    for _ in range(round(seconds / PERIOD_S)):
        T = T.copy()
        T[0, 3] += speed_m_s * PERIOD_S
        robot.move(T)
        time.sleep(PERIOD_S)
    return T


def until_fault(robot: UR, timeout_s: float = 5.0) -> UrError:
    """Drive on until the driver raises."""
    deadline = time.monotonic() + timeout_s
    try:
        T = robot.state().T_base_hand
        while time.monotonic() < deadline:
            T = T.copy()
            T[0, 3] += 0.06 * PERIOD_S
            robot.move(T)
            time.sleep(PERIOD_S)
            robot.state()
    except UrError as error:
        return error
    raise AssertionError("no fault was raised")


def wait_program_ended(emulator: Emulator, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while emulator.tell("state")["runtime_state"] == 2:
        assert time.monotonic() < deadline, "the program still runs"
        time.sleep(0.01)


def test_state_is_the_hands_in_base_with_the_time_it_was_measured(emulator: Emulator) -> None:
    emulator.tell("push 1 2 -3 0.1 0.2 0.3")
    with connect() as robot:
        time.sleep(0.3)
        state = robot.state()
        true = emulator.tell("state")
        np.testing.assert_allclose(
            state.T_base_hand, transform(START) @ np.diag([-1.0, -1.0, 1.0, 1.0]), atol=1e-6
        )
        np.testing.assert_allclose(state.twist, 0, atol=1e-9)
        assert state.wrench is not None and state.q is not None and state.qd is not None
        np.testing.assert_allclose(state.wrench, [1, 2, -3, 0.1, 0.2, 0.3])
        np.testing.assert_allclose(state.q, true["q"], atol=1e-9)
        assert robot.about["version"] == [5, 11, 0]
        # The emulator's clock is this computer's: a stamp must not be earlier than the packet was made,
        # nor later than the shortest delay that the connection has shown.
        record = robot._state.read()
        now = emulator.tell("state")
        made_ns = now["monotonic_ns"] - round((now["time_s"] - record["timestamp_s"]) * 1e9)
        assert -2_000_000 < record["stamp_ns"] - made_ns < 20_000_000


def test_it_follows_a_stream_smoothly_and_stops_cleanly(emulator: Emulator) -> None:
    with connect() as robot:
        T = drive(robot, 1.5)
        lag_m = T[0, 3] - robot.state().T_base_hand[0, 3]
        assert 0 < lag_m < 0.06 * 0.4
        twist = robot.state().twist
        assert 0.02 < twist[0] < 0.1
        robot.stop()
        robot.stop()
        emulator.wait_still()
    rows = emulator.motion(5)
    path = rows[rows[:, 7] > 1e-3]
    assert np.ptp(path[:, 2]) < 1e-3 and np.ptp(path[:, 3]) < 1e-3  # straight
    assert rows[:, 7].max() < 0.25 * 1.1  # whatever the stream did, the limits hold
    what = [w for _, w in emulator.events()]
    assert what[-1] == "script stopped"
    assert emulator.tell("state")["unknown_commands"] == []


def test_turns_are_followed_about_the_hand(emulator: Emulator) -> None:
    with connect() as robot:
        start, begun = robot.state().T_base_hand, time.monotonic()
        goal = start.copy()
        goal[:3, :3] = rotation([0.1, -0.15, 0.4]) @ start[:3, :3]
        for _ in range(60):
            robot.move(goal)
            time.sleep(PERIOD_S)
        np.testing.assert_allclose(robot.state().T_base_hand, goal, atol=2e-4)
    # Not before: the test before this one moved the same arm.
    rows = emulator.motion(time.monotonic() - begun)
    assert np.abs(rows[:, 1:4] - START[:3]).max() < 2e-3  # turned in place


def test_speed_scale_slows_the_same_targets(emulator: Emulator) -> None:
    with connect(speed_scale=0.1, max_speed_m_s=0.2) as robot:
        drive(robot, 1.0, speed_m_s=0.1)
        robot.stop()
        emulator.wait_still()
    assert 0.01 < np.linalg.norm(emulator.motion(2)[:, 7:10], axis=1).max() < 0.02 * 1.3


def test_a_target_that_is_not_renewed_expires(emulator: Emulator) -> None:
    with connect(max_target_age_s=0.1, max_speed_m_s=0.08) as robot:
        far = robot.state().T_base_hand.copy()
        far[0, 3] += 0.15
        for _ in range(10):
            robot.move(far)
            time.sleep(PERIOD_S)
        given_s = emulator.tell("state")["time_s"]
        time.sleep(1.0)
        robot.state()  # no fault: it just stands, and goes on when told to
        reached = robot.state().T_base_hand[0, 3]
        assert reached < far[0, 3] - 0.02
        # 0.1 s to expire, then from 0.08 m/s at 1 m/s^2
        assert emulator.moved_until_s(given_s) < 0.1 + 0.25 + 0.3
        drive(robot, 0.5)
        assert robot.state().T_base_hand[0, 3] > reached + 0.005


def test_nonsense_targets_are_refused(emulator: Emulator) -> None:
    with connect() as robot:
        for bad in (np.full((4, 4), np.nan), np.diag([1.0, 1, -1, 1]), np.eye(3)):
            with pytest.raises(ValueError, match="no rigid transform"):
                robot.move(bad)
        robot.stop()
    assert not emulator.tell("state")["twist"][0]


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("protective", "protective_stop"),
        ("emergency", "emergency_stop"),
        ("stop", "program_stopped"),
        ("freeze", "frozen"),
        ("freeze_time", "frozen"),
        ("drop", "connection_lost"),
    ],
)
def test_every_fault_is_named_stops_the_arm_and_is_not_resumed(
    emulator: Emulator, fault: str, name: str
) -> None:
    with connect() as robot:
        drive(robot, 0.4)
        since_s = emulator.tell(fault)["time_s"]
        error = until_fault(robot)
        told_s = emulator.tell("state")["time_s"] - since_s
        assert error.name == name and name in str(error), str(error)
        # two cycles at 30 Hz (and the 60 ms of silence asked for here); the rest is a busy computer's
        assert told_s < 2 * PERIOD_S + 0.06 + 0.15
        with pytest.raises(UrError, match=name):
            robot.move(np.eye(4))
        robot.stop()
        wait_program_ended(emulator)
        emulator.tell("thaw")
        emulator.tell("clear")
        time.sleep(0.4)
        with pytest.raises(UrError, match=name):
            robot.state()
    moved_s = emulator.moved_until_s(since_s)
    assert moved_s < 0.06 + 0.2 + 0.2, moved_s
    ended = [t for t, what in emulator.events() if what == "program started"]
    assert ended[-1] < since_s  # nothing started again


@pytest.mark.parametrize("own", [True, False])
def test_a_stopped_program_says_whether_this_computer_was_too_busy(
    emulator: Emulator, own: bool
) -> None:
    with connect() as robot:
        drive(robot, 0.2)
        if own:
            robot._child.process.send_signal(signal.SIGSTOP)
            time.sleep(0.35)  # at 5 Hz the watchdog waits 0.2 s
            robot._child.process.send_signal(signal.SIGCONT)
        else:
            emulator.tell("stop")
        deadline = time.monotonic() + 5.0
        while robot._child.code is None and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(UrError, match="program_stopped") as fault:
            robot.state()
    wanted = (
        "ended: by its watchdog (5 Hz; longest" if own else "not by its watchdog (5 Hz; longest"
    )
    assert wanted in str(fault.value)


def test_a_killed_loop_stops_the_arm(emulator: Emulator) -> None:
    code = (
        "import time, numpy as np\n"
        "from rt.robot.ur.driver import open_robot\n"
        f"r = open_robot({HOST!r}, T_flange_hand=np.array({T_FLANGE_HAND.tolist()}), watchdog_hz=5.0)\n"
        "T = r.state().T_base_hand.copy()\n"
        "print('driving', r._child.pid, flush=True)\n"
        "while True:\n"
        "    T = T.copy(); T[0, 3] += 0.002; r.move(T); time.sleep(1 / 30)\n"
    )
    for victim in ("loop", "both"):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = process.stdout.readline().split()
        assert said[:1] == ["driving"]
        time.sleep(0.5)
        since_s = emulator.tell("state")["time_s"]
        if victim == "both":  # as when the computer dies: only the watchdog is left
            os.kill(int(said[1]), signal.SIGKILL)
        process.kill()
        process.wait()
        wait_program_ended(emulator)
        emulator.wait_still()
        assert emulator.moved_until_s(since_s) < 0.2 + 0.3
        assert [w for _, w in emulator.events()][-1] == (
            "script stopped" if victim == "loop" else "watchdog"
        )
        emulator.tell("place " + " ".join(map(str, START)))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("local", "not_remote"),
        ("in_use 1", "in_use"),
        ("refuse", "unreachable"),
        ("protective", "protective_stop"),
        ("emergency", "emergency_stop"),
        ("freeze_time", "frozen"),
    ],
)
def test_an_arm_that_is_not_ready_is_refused_with_the_remedy(
    emulator: Emulator, line: str, name: str
) -> None:
    emulator.tell(line)
    before = len(emulator.events())
    with pytest.raises(RobotError) as caught:
        connect()
    assert caught.value.name == name, str(caught.value)
    assert len(str(caught.value)) > 40
    assert "program started" not in [w for _, w in emulator.events()[before:]]


def test_a_tool_centre_point_that_disagrees_is_refused(emulator: Emulator) -> None:
    with pytest.raises(UrError, match=r"wrong_tcp.*0\.0500 m") as caught:
        connect(T_flange_hand=transform((0, 0, 0.21, 0, 0, 0)))
    assert caught.value.name == "wrong_tcp"
    wait_program_ended(emulator)


def test_a_second_driver_does_not_take_the_arm_from_the_first(emulator: Emulator) -> None:
    with connect() as robot:
        with pytest.raises(UrError, match="program_running"):
            connect()
        drive(robot, 0.2)


def test_limits_that_make_no_sense_are_refused_before_connecting() -> None:
    for bad in ({"speed_scale": 0.0}, {"max_speed_m_s": 9.0}, {"max_target_age_s": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            open_robot("127.0.0.99", T_flange_hand=np.eye(4), **bad)
    with pytest.raises(ValueError, match="T_flange_hand"):
        open_robot("127.0.0.99", T_flange_hand=np.eye(3))


def test_calibration_leaves_the_arm_free_until_it_moves_and_speaks_of_the_flange(
    emulator: Emulator,
) -> None:
    with open_calibration(address=HOST, stream="ignored") as robot:
        wait_program_ended(emulator)
        flange = transform(emulator.tell("flange")["pose"])
        np.testing.assert_allclose(robot.state().T_base_hand, flange, atol=1e-6)
        goal = flange.copy()
        goal[2, 3] += 0.01
        for _ in range(100):
            robot.move(goal)
            robot.state()
            time.sleep(0.02)
        np.testing.assert_allclose(robot.state().T_base_hand, goal, atol=2e-4)


def test_clock_map_takes_the_shortest_delay_and_follows_drift() -> None:
    clock, rng = ClockMap(), np.random.default_rng(0)
    for k in range(20_000):  # 40 s at 500 Hz; the controller's clock runs 50 ppm slow
        made_ns = 7_000_000_000 + 2_000_000 * k
        timestamp_s = 100.0 + 0.002 * k * (1 - 50e-6)
        delay_ns = 300_000 + int(rng.exponential(2e6))
        error_ns = clock.stamp_ns(timestamp_s, made_ns + delay_ns) - made_ns
        if k > 100:
            assert -300_000 < error_ns < 700_000


def test_pose_vectors_are_exact_at_half_a_turn() -> None:
    rng = np.random.default_rng(1)
    for angle in (0.0, 1e-13, 1e-6, 1.0, np.pi - 1e-9, np.pi):
        axis = rng.normal(size=3)
        T = transform(np.concatenate([rng.normal(size=3), axis / np.linalg.norm(axis) * angle]))
        np.testing.assert_allclose(transform(pose_vector(T)), T, atol=1e-14)
