"""bench.fuzz: a short run of every target in the tests, with the kept inputs; what a finding looks like."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from needs import needed

needed("ur", "ruckig")

from bench.fuzz import child
from bench.fuzz.__main__ import FuzzOptions, fuzz
from bench.fuzz.targets import HANDS, TARGETS, Fuzzed, Peer
from rt.record.recorder import read_record


@pytest.mark.parametrize("name", TARGETS)
def test_nonsense_is_refused_and_nothing_grows(name: str) -> None:
    done = child.run_plain(name, runs=60, seconds=20.0, seed=1)
    assert done["runs"] == 60 or float(done["seconds"]) >= 20.0
    assert float(done["grown_mb"]) < 100


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_what_the_parser_expects(name: str) -> None:
    """A target whose seeds are refused would fuzz nothing but its first line."""
    seeds = TARGETS[name].seeds()
    assert seeds and all(0 < len(seed) <= TARGETS[name].longest for seed in seeds)


def test_mutations_differ_and_keep_their_length() -> None:
    made = child.mutated(np.random.default_rng(0), [b"abcdef 123", b"xyz"], 12)
    some = [next(made) for _ in range(200)]
    assert len(set(some)) > 150 and max(map(len, some)) <= 12


def test_a_crash_and_a_hang_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(data: bytes) -> None:
        if len(data) != 6:
            raise ZeroDivisionError("fragile")

    monkeypatch.setitem(TARGETS, "fragile", Fuzzed(lambda: fragile, lambda: [b"abcdef"]))
    with pytest.raises(ZeroDivisionError):
        child.run_plain("fragile", 1000, 5.0, 0)
    monkeypatch.setattr(child, "SLOW_S", -1)
    monkeypatch.setitem(TARGETS, "slow", Fuzzed(lambda: lambda _: None, lambda: [b"abcdef"]))
    with pytest.raises(RuntimeError, match="hangs"):
        child.run_plain("slow", 10, 5.0, 0)


def test_the_command_runs_a_target_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = fuzz("hand", FuzzOptions(inputs=20, seconds=30.0, plain=True), tmp_path)
    assert done["inputs"] == 20 and done["finding"] == "" and done["engine"] == "plain"
    assert json.loads((tmp_path / "hand.txt").read_text())["runs"] == 20


def test_what_reaches_something_new_is_kept_and_seeds_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "CORPUS", tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    (tmp_path / "run").mkdir()
    text, unit = (HANDS / "robotiq_2f85.toml").read_bytes(), b"# the same lines\n"
    new = text.replace(b"0.085", b"85.0")  # the line that refuses it
    assert new != text and child.kept("hand") == []
    for k, data in enumerate([text, unit + text, new, unit + new]):
        (tmp_path / "run" / str(k)).write_bytes(data)
    child.keep("hand", tmp_path / "run")
    assert child.kept("hand") == [new]
    first = (tmp_path / "kept" / "hand.tar.xz").read_bytes()
    child.keep("hand", tmp_path / "run")
    assert (tmp_path / "kept" / "hand.tar.xz").read_bytes() == first


def test_a_target_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no target nothing; known are: rtde"):
        FuzzOptions(only=("nothing",))


def test_a_peer_sends_its_bytes_and_closes() -> None:
    peer = Peer(b"abc")
    assert (peer.recv(2), peer.recv(2), peer.recv(2)) == (b"ab", b"c", b"")


@pytest.mark.parametrize("name", ["cell", "hand", "contract", "model", "record"])
def test_the_first_seed_is_accepted(name: str) -> None:
    """A target that refuses its own seed fuzzes nothing behind the refusal."""
    fuzzed = TARGETS[name]
    assert fuzzed.run()(fuzzed.seeds()[0]) is True


NESTED = b"a = " + b"[" * 20_000
DIGITS = b"a = " + b"9" * 5000


@pytest.mark.parametrize("name", ["cell", "hand", "contract", "channel"])
@pytest.mark.parametrize(
    "data",
    [NESTED, DIGITS, NESTED[4:], b"push 1 2 3 4 5 6 7", b"log 1e308", b"joints nan 0 0 0 0 0"],
)
def test_what_crashed_a_parser_once_is_refused(name: str, data: bytes) -> None:
    assert not TARGETS[name].run()(data)


def test_a_damaged_end_of_a_record_is_a_record_that_was_broken_off(tmp_path: Path) -> None:
    data = TARGETS["record"].seeds()[0]
    at = data.index(b"lost") + 8
    (tmp_path / "flight.mcap").write_bytes(data[:at] + b"x" + data[at + 1 :])
    assert not read_record(tmp_path / "flight.mcap").whole


def test_an_endless_input_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "SLOW_S", 0.2)

    def endless(data: bytes) -> None:
        while data:
            pass

    before = signal.getsignal(signal.SIGPROF)
    try:
        run = child.bounded(endless)
        run(b"")
        with pytest.raises(RuntimeError, match="hangs"):
            run(b"x")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
