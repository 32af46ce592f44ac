"""rt.robot.ur_stream without a controller: what it does with commands before the program runs."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ruckig")

from rt.robot.shared import STOP, TARGET, attach, create
from rt.robot.ur_stream import Setup, Stream

HERE = np.array([0.4, 0.1, 0.3, np.pi, 0.0, 0.0])


class Control:
    """Of ur-rtde's control interface: what is asked of it."""

    def __init__(self) -> None:
        self.uploads, self.poses = 0, []  # type: ignore[var-annotated]

    def reuploadScript(self) -> None:
        self.uploads += 1

    def servoL(self, pose: list[float], *_: Any) -> None:
        self.poses.append(pose)


@pytest.fixture
def stream() -> Stream:
    _, command = attach(create())
    made = Stream.__new__(Stream)
    made.setup = Setup(
        "", 50.0, np.eye(4).tolist(), 0.25, 0.5, 45.0, 0.3, 1.0, 10.0, 0.05, None, False, False
    )
    made.command, made.over, made.control = command, threading.Event(), Control()
    made.link = SimpleNamespace(rate_hz=500.0)  # type: ignore[assignment]
    made.packet = SimpleNamespace(pose=HERE)  # type: ignore[assignment]
    made.T_tcp_hand, made.follower, made.playing = np.eye(4), None, False
    made.seen = made.target_ns = made.starting_until_ns = made.stopped_since_ns = 0
    made.resting_since_ns, made.expired = 0, False
    return made


def told(stream: Stream, x_m: float, now_ns: int) -> None:
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:3, 3] = [x_m, HERE[1], HERE[2]]
    stream.command.write(kind=TARGET, T_base_hand=T, stamp_ns=now_ns)


def test_targets_while_the_program_starts_do_not_make_the_arm_jump(stream: Stream) -> None:
    now_ns = time.monotonic_ns()
    for k in range(50):  # a second of targets, 5 cm onward, before the program runs
        told(stream, HERE[0] + 0.001 * k, now_ns := now_ns + 20_000_000)
        stream._obey(now_ns)
    assert stream.control.uploads == 1 and stream.follower is None
    stream.playing = True
    told(stream, HERE[0] + 0.05, now_ns)
    stream._obey(now_ns)
    stream._send(now_ns)
    np.testing.assert_allclose(stream.control.poses[0][:3], HERE[:3], atol=1e-6)
    stream._send(now_ns + 20_000_000)
    assert 0 < stream.control.poses[1][0] - HERE[0] < 0.002


def test_a_command_that_is_half_written_is_taken_once_it_is_whole(stream: Stream) -> None:
    stream.playing, now_ns = True, time.monotonic_ns()
    told(stream, HERE[0] + 0.01, now_ns)
    stream.command.here["begin"] += 1
    stream._obey(now_ns)
    assert stream.follower is None
    stream.command.here["begin"] -= 1
    stream._obey(now_ns)
    assert stream.follower is not None
    stream.command.write(kind=STOP, stamp_ns=now_ns)
    stream._obey(now_ns)
    assert stream.expired
