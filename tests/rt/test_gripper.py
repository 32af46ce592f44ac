"""rt.gripper: the Robotiq driver against its emulator, well and unwell."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from rt.cell.file import GRIPPERS
from rt.gripper import GripperError
from rt.gripper.robotiq import Robotiq, open_gripper
from rt.tools.resolve import ResolveError, resolve
from sim.hardware.robotiq import parse_faults, serve


def gripper(port: int, **options: float) -> Robotiq:
    made = open_gripper(host="127.0.0.1", port=port, timeout_s=0.15, **options)
    assert isinstance(made, Robotiq)
    return made


def wait_until(done: Callable[[], bool], timeout_s: float = 3.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def test_it_is_activated_closes_on_nothing_and_opens() -> None:
    with serve(port=0) as emulator, gripper(emulator.port, speed_m_s=0.15) as g:
        assert g.state().width_m == pytest.approx(0.085, abs=0.001)
        g.close()
        assert g.state().moving  # at once: nobody takes the state before for the end of the motion
        wait_until(lambda: not g.state().moving)
        state = g.state()
        assert not state.holding and state.width_m < 0.001
        g.open()
        wait_until(lambda: not g.state().moving)
        assert g.state().width_m > 0.084 and not g.state().holding


def test_an_object_is_found_held_and_lost() -> None:
    fault = "object=0.03,slips=0.2"
    with serve(port=0, fault=fault) as emulator, gripper(emulator.port, speed_m_s=0.15) as g:
        g.close()
        wait_until(lambda: not g.state().moving)
        assert g.state().holding and g.state().width_m == pytest.approx(0.03, abs=0.001)
        wait_until(lambda: not g.state().holding)  # it slips
        wait_until(lambda: g.state().width_m < 0.001)


def test_fingers_that_are_left_while_they_move_stop() -> None:
    with serve(port=0) as emulator:
        with gripper(emulator.port, speed_m_s=0.02) as g:
            g.close()
            time.sleep(0.2)
        with gripper(emulator.port) as g:
            width_m = g.state().width_m
            assert width_m > 0.03
            time.sleep(0.3)
            assert g.state().width_m == width_m and not g.state().moving


def test_a_second_order_overtakes_the_first() -> None:
    with serve(port=0) as emulator, gripper(emulator.port, speed_m_s=0.02) as g:
        g.close()
        time.sleep(0.1)
        g.open()
        wait_until(lambda: not g.state().moving)
        assert g.state().width_m > 0.08


def test_one_that_is_active_is_not_activated_again() -> None:
    with serve(port=0, fault="object=0.03") as emulator:
        with gripper(emulator.port, speed_m_s=0.15) as g:
            g.close()
            wait_until(lambda: g.state().holding)
        assert emulator.width_m == pytest.approx(0.03, abs=0.001)  # leaving does not let go
        with gripper(emulator.port) as g:
            assert g.state().holding
        assert emulator.width_m == pytest.approx(0.03, abs=0.001)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("silent", "silent: no answer to 'GET STA'"),
        ("garbage", "answered .*garbage"),
        ("never_activates", "not activated in 0.3 s"),
        ("slow=0.5", "silent"),
    ],
)
def test_what_is_wrong_from_the_start_is_refused(fault: str, message: str) -> None:
    began = time.monotonic()
    with (
        serve(port=0, fault=fault) as emulator,
        pytest.raises(GripperError, match=message),
        gripper(emulator.port, activation_timeout_s=0.3),
    ):
        pass
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("silent_on_close", "silent"),
        ("garbage_on_close", "answered .*garbage"),
        ("unreadable_on_close", "unreadable.*emergency stop"),
        ("fault_on_close", "fault 14: too much current"),
    ],
)
def test_what_goes_wrong_later_is_raised_by_name_and_stays(fault: str, message: str) -> None:
    with serve(port=0, fault=fault) as emulator, gripper(emulator.port) as g:
        g.close()

        def failed() -> bool:
            try:
                g.state()
            except GripperError:
                return True
            return False

        wait_until(failed)
        for _ in range(2):
            with pytest.raises(GripperError, match=message):
                g.state()
        with pytest.raises(GripperError, match=message):
            g.open()


def test_slow_answers_do_not_hold_the_caller() -> None:
    with serve(port=0) as emulator, gripper(emulator.port) as g:
        emulator.faults["slow"] = 0.1
        calls = []
        for _ in range(200):
            began = time.perf_counter()
            g.state()
            calls.append(time.perf_counter() - began)
        assert sorted(calls)[100] < 0.1 / 10  # the median: the machine may be busy


def test_nobody_there_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(GripperError, match="URCap"), gripper(port):
        pass


@pytest.mark.parametrize("bad", [{"force_N": 300.0}, {"speed_m_s": 1.0}])
def test_what_it_cannot_do_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(GripperError, match=next(iter(bad))):
        gripper(1, **bad)


def test_names_that_are_not_known_are_refused() -> None:
    with pytest.raises(ResolveError, match="no gripper 'hook'; known are none, robotiq"):
        resolve("gripper", "hook", GRIPPERS, extra=("none",))
    with pytest.raises(ValueError, match="on_fire"):
        parse_faults("on_fire")
    assert parse_faults("object=0.02,slow") == {"object": 0.02, "slow": 0.2}
