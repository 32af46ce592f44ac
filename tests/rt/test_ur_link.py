"""rt.robot.ur before the control program: versions, a dashboard of any kind, and a death while connecting."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import needed

needed("ur", "rtde_control", "ruckig")

from rt.robot.ur import driver, link
from rt.robot.ur.driver import open_robot
from rt.robot.ur.link import UrError
from rt.tools.process import Child
from sim.hardware.ur.process import start_emulator

DIES = """
import os, signal, sys
from rt.robot.ur.shared import STARTS_PROGRAM, attach
state, _ = attach(int(sys.argv[1]))
state.write(message=STARTS_PROGRAM)
os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ((5, 3, 9), "too_old"),
        ((5, 0, 0), "too_old"),
        ((3, 3, 4), "too_old"),
        ((1, 8, 0), "too_old"),
        ((10, 7, 0), "not_supported"),
    ],
)
def test_a_version_that_ur_rtde_cannot_talk_to_is_refused(version: Any, name: str) -> None:
    with pytest.raises(UrError, match=".".join(map(str, version))) as caught:
        link._check_version("arm", version)
    assert caught.value.name == name


@pytest.mark.parametrize("version", [(3, 4, 0), (3, 15, 8), (5, 4, 0), (5, 11, 0), (5, 23, 0)])
def test_other_versions_are_not(version: Any) -> None:
    link._check_version("arm", version)


def test_an_old_controller_is_refused_before_a_program_is_started() -> None:
    with start_emulator("127.0.0.33", "--polyscope", "5.3.0", control_port=31033) as emulator:
        with pytest.raises(UrError, match=r"too_old.*5\.3\.0; 5\.4 or later"):
            open_robot("127.0.0.33", T_flange_hand=np.eye(4))
        assert "program started" not in [what for _, what in emulator.events()]


def test_a_death_while_connecting_is_no_lost_connection_and_leaves_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies_for_test.py").write_text(DIES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(driver, "Child", lambda _, *a, **k: Child("dies_for_test", *a, **k))
    with start_emulator("127.0.0.34", control_port=31034) as emulator:
        with socket.create_connection(("127.0.0.34", 30003)) as sock:
            sock.sendall(b"def rtde_control():\nend\n")
        until = time.monotonic() + 10
        while emulator.tell("state")["runtime_state"] != 2 and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(UrError, match=r"connection_failed.*SIGSEGV.*program was stopped"):
            open_robot("127.0.0.34", T_flange_hand=np.eye(4))
        assert emulator.tell("state")["runtime_state"] != 2


@pytest.mark.parametrize(("answer", "error"), [(b"x" * 1000, UrError), (b"", TimeoutError)])
def test_a_line_without_end_is_not_read_for_ever(answer: bytes, error: type[Exception]) -> None:
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def flood() -> None:
        while answer and not over.is_set():
            try:
                theirs.sendall(answer)
            except OSError:
                return

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    began = time.monotonic()
    with pytest.raises(error):
        link._read_line(ours, 0.3)
    assert time.monotonic() - began < 5
    over.set()
    ours.close()
    thread.join(5)
    theirs.close()


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        (b"", "wrong_device", "answers b''"),
        (bytes(100), "wrong_device", "is this the address of a UR"),
        (
            b"\xff\xffU" + bytes(65532),
            "wrong_device",
            "to the request for data by protocol version 2",
        ),
        (b"\0\4V\0", "wrong_device", "protocol version 2"),
        (b"\0\4V\1\xff\xffO" + bytes(65532), "wrong_device", "is this the address of a UR"),
        (b"\0\4V\1" + bytes(100), "wrong_device", "is this the address of a UR"),
        (b"\0\4V\1" + 99 * b"\0\3M", "wrong_device", "is this the address of a UR"),
        (b"\0\4V\1\0\4O\1\0\4S\0", "wrong_device", "is this the address of a UR"),
        (b"\0\4V\1\0\3M\0\4O\1\0\4S\1", "wrong_device", "answers b''"),
        (b"\0\4V\1\0\4O\1\0\4S\1\0\4U\1", None, ""),
        (None, "frozen", "does not answer within 0.3 s"),
    ],
)
def test_an_rtde_port_of_something_else_has_a_cause_at_once(
    answer: bytes | None, name: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(link, "RTDE_PORT", listener.getsockname()[1])

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                if answer is None:
                    time.sleep(1.0)
                else:
                    sock.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        began = time.monotonic()
        with nullcontext() if name is None else pytest.raises(UrError, match=words) as caught:
            link._probe_rtde("127.0.0.1", 0.3 if answer is None else 2.0)
        assert name is None or (caught is not None and caught.value.name == name)
        assert time.monotonic() - began < 5
        thread.join(2)
