"""rt.robot.ur.stream without a controller: what it does with commands before the program runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from needs import needed

needed("ur", "ruckig")

from rt.robot.ur.follower import Follower, MotionLimits
from rt.robot.ur.settings import StreamSetup
from rt.robot.ur.shared import STOP, TARGET, attach, create
from rt.robot.ur.stream import ENDS_WITHIN_S, STOP_LIMITS, STUCK_S, SetpointStream
from rt.robot.ur_pose import rotation

HERE = np.array([0.4, 0.1, 0.3, np.pi, 0.0, 0.0])


class Control:
    """Of ur-rtde's control interface: what is asked of it."""

    def __init__(self) -> None:
        self.uploads, self.poses = 0, []  # type: ignore[var-annotated]

    def reuploadScript(self) -> None:
        self.uploads += 1

    def kickWatchdog(self) -> None:
        """The arm rests."""

    def servoL(self, pose: list[float], *_: Any) -> None:
        self.poses.append(pose)


@pytest.fixture
def stream() -> SetpointStream:
    _, command = attach(create())
    made = SetpointStream.__new__(SetpointStream)
    made.setup = StreamSetup(
        "",
        np.eye(4).tolist(),
        rate_hz=50.0,
        max_acceleration_m_s2=0.5,
        max_turn_deg_s=45.0,
        max_target_age_s=0.3,
        program_at_once=False,
    )
    made.command, made.over, made.control = command, threading.Event(), Control()
    made.link = SimpleNamespace(rate_hz=500.0)  # type: ignore[assignment]
    made.packet = SimpleNamespace(pose=HERE)  # type: ignore[assignment]
    made.T_tcp_hand, made.follower, made.playing = np.eye(4), None, False
    made.seen = made.target_ns = made.starting_until_ns = made.stopped_since_ns = 0
    made.resting_since_ns = made.sent_ns = made.unfed_ns = 0
    made.expired = False
    return made


def decision(stream: SetpointStream, x_m: float, now_ns: int) -> None:
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:3, 3] = [x_m, HERE[1], HERE[2]]
    stream.command.write(kind=TARGET, T_base_hand=T, stamp_ns=now_ns)


def test_targets_while_the_program_starts_do_not_make_the_arm_jump(stream: SetpointStream) -> None:
    now_ns = time.monotonic_ns()
    for k in range(50):  # a second of targets, 5 cm onward, before the program runs
        decision(stream, HERE[0] + 0.001 * k, now_ns := now_ns + 20_000_000)
        stream.step(now_ns)
    assert stream.control.uploads == 1 and stream.follower is None
    stream.playing = True
    decision(stream, HERE[0] + 0.05, now_ns)
    stream.step(now_ns)
    np.testing.assert_allclose(stream.control.poses[0][:3], HERE[:3], atol=1e-6)
    stream.step(now_ns + 20_000_000)
    assert 0 < stream.control.poses[1][0] - HERE[0] < 0.002


def test_a_command_that_is_half_written_is_taken_once_it_is_whole(stream: SetpointStream) -> None:
    stream.playing, now_ns = True, time.monotonic_ns()
    decision(stream, HERE[0] + 0.01, now_ns)
    stream.command.here["begin"] += 1
    stream.step(now_ns)
    assert stream.follower is None
    stream.command.here["begin"] -= 1
    stream.step(now_ns)
    assert stream.follower is not None
    stream.command.write(kind=STOP, stamp_ns=now_ns)
    stream.step(now_ns)
    assert stream.expired


def test_a_target_that_is_too_old_ends_in_the_hardest_stop(stream: SetpointStream) -> None:
    stream.playing, now_ns = True, time.monotonic_ns()
    for _ in range(25):  # half a second, up to the speed limit
        now_ns += 20_000_000
        decision(stream, HERE[0] + 0.4, now_ns)
        stream.step(now_ns)
    assert stream.follower is not None
    speed_m_s = np.linalg.norm(stream.follower.at(now_ns * 1e-9)[1][:3])
    assert speed_m_s > 0.2
    expiry_ns = now_ns + int(stream.setup.max_target_age_s * 1e9) + 1_000_000
    stream.step(expiry_ns)
    assert stream.expired
    a, j = STOP_LIMITS.acceleration_m_s2, STOP_LIMITS.jerk_m_s3
    needed_s = speed_m_s / a + 2 * a / j
    assert stream.follower.resting(expiry_ns * 1e-9 + needed_s) and needed_s < 0.12


def test_a_fast_turn_does_not_stretch_the_way_that_a_stop_takes() -> None:
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    follower = Follower(T, MotionLimits(0.25, 1.0, 40.0, 1.6, 6.4, 250.0), 1 / 15)
    there = T.copy()
    there[:3, :3] = rotation((0, 0, 1.5)) @ T[:3, :3]
    there[:3, 3] = [0.1, 0.05, -0.1]
    follower.go(there, 0.0)
    twist = follower.at(0.3)[1]
    speed_m_s, turn_rad_s = np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])
    assert speed_m_s > 0.1 and turn_rad_s > 1.2
    follower.stop(0.3, STOP_LIMITS)
    a, j = STOP_LIMITS.acceleration_m_s2, STOP_LIMITS.jerk_m_s3
    assert np.linalg.norm(follower.at(0.3 + speed_m_s / a + 3 * a / j)[1][:3]) < 1e-6
    assert follower.resting(0.3 + turn_rad_s / STOP_LIMITS.turn_rad_s2 + 0.03)


HANGING = """
import ctypes, sys, threading, types
from rt.robot.ur import stream as ur_stream

def hang(*_, **__):
    print("hangs", flush=True)
    ctypes.PyDLL(None).sleep(60)  # with the interpreter lock in its hand

if sys.argv[3] == "connect":
    ur_stream.connect = hang
else:
    class Stuck:
        starting_until_ns, ticks = 0, 0
        def __init__(self, *_):
            self.link = types.SimpleNamespace(about={}, rate_hz=500.0)
        def tick(self):
            self.ticks += 1
            if self.ticks > 20 and sys.argv[3] == "tick":
                hang()
            if self.ticks == 20 and sys.argv[3] == "finish":
                print("hangs soon", flush=True)
        finish = hang
    ur_stream.SetpointStream = Stuck
ur_stream.end(ur_stream.main())
"""
LOOP = """
import json, subprocess, sys, time
from rt.robot.ur.shared import create
memory = create()
child = subprocess.Popen(
    [sys.executable, sys.argv[1], str(memory), sys.argv[2], sys.argv[3]],
    stdin=subprocess.PIPE, pass_fds=(memory,), start_new_session=True,
)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("where", ["connect", "tick", "finish"])
def test_a_process_that_hangs_does_not_outlive_its_loop(where: str, tmp_path: Path) -> None:
    """With the interpreter lock held in foreign code, so that no handler and no thread of its own runs."""
    import json
    from dataclasses import asdict

    (tmp_path / "stream.py").write_text(HANGING)
    (tmp_path / "loop.py").write_text(LOOP)
    setup = StreamSetup(
        "",
        np.eye(4).tolist(),
        rate_hz=50.0,
        max_acceleration_m_s2=0.5,
        max_turn_deg_s=45.0,
        max_target_age_s=0.3,
        program_at_once=False,
    )
    words = [tmp_path / "loop.py", tmp_path / "stream.py", json.dumps(asdict(setup)), where]
    loop = subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert loop.stdout is not None
    pid = int(loop.stdout.readline())
    try:
        assert loop.stdout.readline().startswith("hangs")
        loop.send_signal(signal.SIGKILL)
        loop.wait()
        killed_s = time.monotonic()
        while alive(pid) and time.monotonic() < killed_s + 30:
            time.sleep(0.02)
        gone_s = time.monotonic() - killed_s
        assert gone_s < STUCK_S + ENDS_WITHIN_S + 5, where  # what a busy computer adds
        assert not alive(pid)
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
