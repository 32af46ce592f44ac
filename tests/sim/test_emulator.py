"""rt.robot.emulator: its arm against plain mathematics, and its ports with the real client libraries."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import needed

rtde_control = needed("ur", "rtde_control")
rtde_receive = needed("ur", "rtde_receive")
dashboard_client = needed("ur", "dashboard_client")

from rt.cell.file import EXAMPLE, load_cell
from rt.robot.kinematics import ARMS
from rt.robot.ur.link import safety_fault
from rt.robot.ur_pose import difference, pose_vector, transform
from sim.hardware.ur.__main__ import EmulatorOptions, of_cell
from sim.hardware.ur.arm import HOME_Q, JointArm, Motion
from sim.hardware.ur.controller import MODELS, EmulatedController
from sim.hardware.ur.process import Emulator, EmulatorError, start_emulator
from sim.hardware.ur.safety import NORMAL, PROTECTIVE, SAFETY, VIOLATION
from sim.hardware.ur.wire import Dashboard, Line, Primary, Rtde, Script

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


def servo_to(c: EmulatedController, T: np.ndarray) -> None:
    command(c, 24, [*pose_vector(T), 0.0, 0.0, 0.002, 0.03, 300.0])
    c.tick()


@pytest.mark.parametrize("jump_m", [0.25, 3.0])
def test_a_target_that_jumps_is_a_protective_stop(jump_m: float) -> None:
    c = started()
    T = c.arm.T.copy()
    T[0, 3] += jump_m
    servo_to(c, T)
    assert c.safety == PROTECTIVE and c.events[-1][1].startswith("C204: sudden change")
    for _ in range(100):
        c.tick()
    assert c.is_still()


def test_a_target_as_fast_as_the_driver_lets_it_be_is_followed() -> None:
    c = started()
    T = c.arm.T.copy()
    for _ in range(400):
        T[2, 3] -= 0.25 * 0.002
        servo_to(c, T)
    assert c.safety == NORMAL and np.abs(c.arm.T[:3, 3] - T[:3, 3]).max() < 0.012


@pytest.mark.parametrize("number", [24, 11, 10, 9, 1, 3])
def test_a_command_that_is_no_number_is_a_protective_stop(number: int) -> None:
    c = started()
    command(c, number, [np.nan] * 11)
    for _ in range(20):
        c.tick()
    assert c.safety == PROTECTIVE and np.isfinite(c.arm.q).all()


def test_a_joint_beyond_its_range_and_a_tool_too_fast_are_stopped() -> None:
    c = started()
    c.arm.q[5] = 6.29
    c.tick()
    assert c.safety == PROTECTIVE and "C158: joint 5" in c.events[-1][1]
    c = started()
    c.set_reduced(True)
    command(c, 10, [0.9, 0, 0, 0, 0, 0, 8.0, 0.0])
    for _ in range(200):
        c.tick()
    assert c.safety == VIOLATION and not c.powered and c.is_still()


@pytest.mark.parametrize("name", [n for n in SAFETY if n != NORMAL])
def test_every_safety_state_stops_the_arm_and_says_so(name: str) -> None:
    c = started()
    command(c, 10, [0.1, 0, 0, 0, 0, 0, 2.0, 0.0])
    for _ in range(100):
        c.tick()
    c.stop_safely(name, name)
    for _ in range(100):
        c.tick()
    assert c.is_still() and c.runtime != 2
    fault = safety_fault(c.safety_bits)
    assert fault is not None and fault[0].split("_")[-1] in name.replace("recovery", "mode")
    c.clear()
    c.tick()
    assert safety_fault(c.safety_bits) is None


def test_a_pause_stands_and_a_slider_slows() -> None:
    speeds = []
    for slider in (1.0, 0.4):
        c = started()
        c.speed_slider = slider
        command(c, 10, [0.1, 0, 0, 0, 0, 0, 2.0, 0.0])
        for _ in range(200):
            c.tick()
        speeds.append(c.arm.twist[0])
        c.pause()
        for _ in range(100):
            c.tick()
        assert c.is_still() and c.runtime == 4
        c.resume()
        for _ in range(100):
            c.tick()
        assert c.runtime == 2 and not c.is_still()
    assert speeds[1] == pytest.approx(0.4 * speeds[0], rel=0.01)


def test_a_wrong_payload_is_felt() -> None:
    c = started()
    c.payload_kg, c.true_payload_kg = 0.0, 1.2
    c.tick()
    assert c.wrench[2] == pytest.approx(-1.2 * 9.81)


def test_closed_fingers_touch_the_table_before_open_ones() -> None:
    c = started()
    c.table_z_m = float(c.arm.T[2, 3]) - 0.01  # the tool looks down
    c.tick()
    assert c.wrench[2] == 0
    c.tip_travel_m = lambda: 0.0139
    c.tick()
    assert c.wrench[2] == pytest.approx(5000 * 0.0039, rel=1e-6)


def ports(controller: EmulatedController) -> Any:
    return SimpleNamespace(
        controller=controller, now_s=lambda: controller.time_s, close=lambda _: None
    )


@pytest.mark.parametrize("kind", [Rtde, Script, Dashboard, Primary])
@given(data=st.lists(st.binary(max_size=64), max_size=8))
def test_nonsense_never_kills_the_emulator(kind: type[Line], data: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = kind(ports(controller()), ours)
        for some in data:
            theirs.sendall(some) if some else None
            line.readable()
            assert len(line.got) <= line.most_bytes


@pytest.mark.parametrize(
    "packet",
    [b"\0\0O", b"\0\5O\1\2", b"\0\4U\7", b"\xff\xffV", b"\0\xc8I" + b"\xff" * 197],
)
def test_a_malformed_packet_costs_its_sender_the_connection_at_most(packet: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Rtde(ports(controller()), ours)
        theirs.sendall(packet)
        line.readable()


def test_the_primary_interface_tells_the_version() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Primary(ports(controller()), ours)
        data = theirs.recv(4096)
    size, kind = struct.unpack_from(">iB", data)
    assert size == len(data) and kind == 20 and data[14] == 3
    name = data[16 : 16 + data[15]]
    assert name == b"URControl" and tuple(data[16 + data[15] :][:2]) == MODELS["e"].version[:2]


def test_the_options_of_a_cell_put_the_arm_above_its_workspace() -> None:
    config, options = of_cell(EmulatorOptions(cell=EXAMPLE))
    assert config.address == "127.0.0.2" and config.gripper and config.start is not None
    cell = load_cell(EXAMPLE)
    x, y, z = config.start[:3]
    (x0, y0), (x1, y1) = cell.limits.workspace_min_m, cell.limits.workspace_max_m
    assert x0 < x < x1 and y0 < y < y1 and 0.3 < z <= cell.limits.max_height_m
    np.testing.assert_allclose(transform(config.tcp), cell.robot.T_flange_hand, atol=1e-9)
    assert options.startswith('--host 127.0.0.2 --camera-device "')
    wrong = (0.0, 0.0, 0.168, 0.0, 0.0, 1.5708)
    assert of_cell(EmulatorOptions(cell=EXAMPLE, tcp=wrong))[0].tcp == wrong  # what is given holds


def test_a_workspace_out_of_reach_is_said(tmp_path: Path) -> None:
    text = (
        EXAMPLE.read_text()
        .replace("[-0.8, -0.4]", "[2.0, 2.0]")
        .replace("[-0.2, 0.4]", "[2.5, 2.5]")
    )
    (tmp_path / "cell.toml").write_text(text)
    with pytest.raises(ValueError, match=r"no place in the workspace .* reach of a UR5e"):
        of_cell(EmulatorOptions(cell=tmp_path / "cell.toml"))
