"""rt.robot.emulator: its arm against plain mathematics, and its ports with the real client libraries."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from needs import needed

rtde_control = needed("ur", "rtde_control")
rtde_receive = needed("ur", "rtde_receive")
dashboard_client = needed("ur", "dashboard_client")

from rt.robot.kinematics import ARMS
from rt.robot.ur_pose import difference
from sim.hardware.ur.arm import HOME_Q, JointArm, Motion
from sim.hardware.ur.controller import MODELS, PROTECTIVE, EmulatedController
from sim.hardware.ur.process import Emulator, EmulatorError, start_emulator

HOST = "127.0.0.41"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with start_emulator(HOST, "--model", "cb3", control_port=31041) as running:
        yield running


def controller(model: str = "e") -> EmulatedController:
    return EmulatedController(MODELS[model], np.eye(4), None, 0.004, 8.0, 4.0)


def command(c: EmulatedController, number: int, doubles: list[float], ints: int = 0) -> None:
    values: dict[str, float | int] = {
        f"input_double_register_{k}": v for k, v in enumerate(doubles)
    }
    c.receive(values | {"input_int_register_0": number, "input_int_register_1": ints}, c.time_s)


def started(model: str = "e") -> EmulatedController:
    c = controller(model)
    c.upload("def rtde_control():\nend\n")
    for _ in range(60):
        c.tick()
    assert c.runtime == 2
    return c


def test_servoing_lags_by_the_delay_and_the_lookahead() -> None:
    arm = JointArm(ARMS["UR5e"], np.array(HOME_Q), np.eye(4), 2, 50.0, 0.002)
    start, speed = arm.T.copy(), 0.05
    for k in range(500):
        aim = start.copy()
        aim[0, 3] += speed * 0.002 * (k + 1)
        arm.step(Motion("servo", aim, lookahead_s=0.03))
    lag_s = (aim[0, 3] - arm.T[0, 3]) / speed
    assert lag_s == pytest.approx(0.034, abs=0.003)


def test_speed_is_limited_in_acceleration_and_goes_on_until_stopped() -> None:
    c = started()
    command(c, 10, [0.1, 0, 0, 0, 0, 0, 0.5, 0.002])  # its time does not end it
    speeds = []
    for _ in range(500):
        c.tick()
        speeds.append(c.arm.twist[0])
    assert max(np.diff(speeds)) <= 0.5 * 0.002 * 1.01
    assert speeds[-1] == pytest.approx(0.1, rel=1e-3)
    command(c, 15, [2.0])
    for _ in range(200):
        c.tick()
    assert c.is_still() and c.out_ints[0] == 2


def test_a_blocking_move_arrives_and_an_asynchronous_one_tells_its_progress() -> None:
    c = started()
    goal = c.arm.T.copy()
    goal[:3, 3] += [0.03, 0.02, -0.02]
    pose = [*goal[:3, 3], *difference(np.eye(4), goal)[3:]]
    command(c, 3, [*pose, 0.25, 1.2])
    for _ in range(1500):
        c.tick()
    assert c.out_ints[0] == 2
    np.testing.assert_allclose(c.arm.T, goal, atol=1e-4)
    command(c, 0, [])
    c.tick()
    command(c, 1, [*HOME_Q, 1.0, 2.0], 1)
    for _ in range(20):
        c.tick()
    assert c.out_ints[0] == 2 and c.out_ints[2] & 1 << 15
    for _ in range(1500):
        c.tick()
    assert not c.out_ints[2] & 1 << 15
    np.testing.assert_allclose(c.arm.q, HOME_Q, atol=1e-4)


@pytest.mark.parametrize("model", ["e", "cb3"])
def test_the_watchdog_stops_a_program_that_is_not_fed(model: str) -> None:
    c = started(model)
    command(c, 35, [10.0])
    c.tick()
    began_s = c.time_s
    while c.runtime == 2:
        command(c, 10, [0.1, 0, 0, 0, 0, 0, 1.0, 0.0]) if c.time_s < began_s + 0.5 else None
        c.tick()
        assert c.time_s < began_s + 1
    assert c.time_s - began_s == pytest.approx(0.6, abs=0.02)
    for _ in range(100):
        c.tick()
    assert c.is_still() and c.events[-1][1] == "watchdog"


def test_a_table_pushes_back_and_a_collision_is_a_protective_stop() -> None:
    c = started()
    c.table_z_m = float(c.arm.T[2, 3]) - 0.01
    command(c, 10, [0, 0, -0.02, 0, 0, 0, 1.0, 0.0])
    felt_at = None
    for _ in range(3000):
        c.tick()
        if felt_at is None and c.wrench[2] > 5:
            felt_at = c.arm.T[2, 3]
    assert felt_at is not None and c.table_z_m - felt_at < 0.002
    assert c.safety == PROTECTIVE and c.runtime != 2 and c.is_still()
    c.upload("def x():\nend\n")
    for _ in range(50):
        c.tick()
    assert c.runtime != 2  # not before it is cleared


def test_the_real_clients_read_command_and_ask(emulator: Emulator) -> None:
    emulator.tell("in_use 0")
    receive = rtde_receive.RTDEReceiveInterface(HOST)  # with all of its default variables
    control = rtde_control.RTDEControlInterface(HOST)  # which uploads its program
    try:
        pose = receive.getActualTCPPose()
        np.testing.assert_allclose(pose, emulator.tell("state")["pose"], atol=1e-9)
        assert control.getTCPOffset() == [0] * 6 and receive.getRuntimeState() == 2
        assert receive.getRobotMode() == 7 and receive.getSafetyStatusBits() == 1
        pose[0] += 0.01
        assert control.moveL(pose, 0.2, 1.0)
        np.testing.assert_allclose(emulator.tell("state")["pose"], pose, atol=1e-4)
        emulator.tell("push 0 0 7")
        time.sleep(0.1)
        assert receive.getActualTCPForce()[2] == pytest.approx(7)
        assert control.zeroFtSensor()
        time.sleep(0.1)
        assert receive.getActualTCPForce()[2] == pytest.approx(0)
        dashboard = dashboard_client.DashboardClient(HOST)
        dashboard.connect()
        assert dashboard.running() and "PLAYING" in dashboard.programState()
        dashboard.disconnect()
        control.stopScript()
        assert emulator.tell("state")["unknown_commands"] == []
    finally:
        control.disconnect()
        receive.disconnect()


def test_a_held_input_makes_the_client_throw(emulator: Emulator) -> None:
    emulator.tell("in_use 1")
    with pytest.raises(RuntimeError, match="in use"):
        rtde_control.RTDEControlInterface(HOST)


def test_the_channel_tells_the_motion_and_says_what_it_does_not_know(emulator: Emulator) -> None:
    rows = emulator.motion(0.5)
    assert rows.shape[1] == 13 and np.allclose(np.diff(rows[:, 0]), 1 / 125)
    stamp_ns, T = emulator.pose()
    assert abs(time.monotonic_ns() - stamp_ns) < 1e9 and T.shape == (4, 4)
    with pytest.raises(EmulatorError, match="see help"):
        emulator.tell("dance")
    assert set(emulator.tell("help")) >= {"protective", "freeze", "drop", "log SECONDS"}


def test_an_address_in_use_is_one_clear_line(emulator: Emulator) -> None:
    run = [sys.executable, "-m", "rt.robot.emulator", "--address", HOST, "--control-port", "31049"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "in use" in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(EmulatorError, match="did not start"), start_emulator(HOST):
        pass
