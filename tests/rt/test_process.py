"""rt.tools.process: children are awaited and ended within bounds, and their last words are kept."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from rt.tools.process import STOP_SIGNALS, Child, children, is_sleeping, signals_caught


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that does what its argument says."""
    (tmp_path / "made_for_test.py").write_text(
        "import signal, sys, time\n"
        "how = sys.argv[1]\n"
        "if how == 'deaf':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if how == 'fails':\n"
        "    print('no such cable', file=sys.stderr); sys.exit(3)\n"
        "print('ready', flush=True)\n"
        "if how == 'echo':\n"
        "    print(sys.stdin.readline().strip()[::-1], flush=True)\n"
        "if how == 'reads':\n"
        "    sys.stdin.read(); sys.exit(0)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "made_for_test"


def test_the_first_line_comes_and_a_line_is_answered(program: str) -> None:
    child = Child(program, ["echo"], writes=True, reads=True)
    try:
        assert child.first_line(30.0) == "ready"
        child.write_line("abc")
        assert (
            child.first_line(30.0) == "cba"
            and child.code is None
            and child.end_text == "still runs"
        )
        assert child.pid in children(os.getpid(), program)
        assert child.wait_until(lambda: is_sleeping(child.pid), 10.0)
    finally:
        assert child.end(10.0)
    assert child.end_text == "was killed by SIGTERM" and not is_sleeping(child.pid)


def test_one_that_fails_is_not_waited_for_and_its_last_words_are_told(program: str) -> None:
    child = Child(program, ["fails"], keeps=True)
    began = time.monotonic()
    assert not child.wait_until(lambda: "ready" in child.output, 60.0)
    assert time.monotonic() - began < 50
    assert child.end_text == "ended with exit code 3: no such cable"
    assert child.end(1.0)


def test_one_that_says_nothing_is_waited_for_so_long(program: str) -> None:
    child = Child(program, ["deaf"], keeps=True)
    assert not child.wait_until(lambda: False, 0.1)
    assert child.wait_until(lambda: "ready" in child.output, 30.0)
    assert not child.end(0.2) and child.code == -signal.SIGKILL


def test_one_that_ends_with_its_input_needs_no_signal(program: str) -> None:
    child = Child(program, ["reads"], writes=True, keeps=True)
    assert child.wait_until(lambda: "ready" in child.output, 30.0)
    assert child.end(30.0, terminate=False) and child.code == 0


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_noted_and_the_second_is_not(number: signal.Signals) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda n, _: heard.append(n))
    try:
        with signals_caught() as caught:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        assert caught == [number] and heard == [number]
        os.kill(os.getpid(), number)
        assert heard == [number, number]
    finally:
        signal.signal(number, before)


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_caught() as caught:
            os.kill(os.getpid(), signal.SIGHUP)
            assert caught == []
    finally:
        signal.signal(signal.SIGHUP, before)
