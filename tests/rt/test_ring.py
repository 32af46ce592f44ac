"""rt.record.ring: records come in order and whole, losses are counted, nobody's death hurts the others."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt.record.ring import DONE, FAILED, READERS, Reader, Ring, RingError
from rt.record.schema import CYCLE, K, best_candidates

HEADER = {"stages": ["camera"], "note": "ü"}

PRODUCER = """
import sys, time
from rt.record.ring import Ring
ring = Ring({"stages": []}, 64)
for k in range(10):
    ring.put(cycle=k)
print(ring.name, flush=True)
time.sleep(60)
"""


def test_records_come_in_order_with_their_fields() -> None:
    with Ring(HEADER, 8) as ring, Reader(ring.name) as reader:
        view = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
        ring.put(cycle=5, phase="approach", view=view, hand=[1, 2, 3, 4], frame=7)
        ring.put(cycle=6)
        first, second = reader.read()
        assert reader.header == HEADER
        assert (first["cycle"], first["phase"], first["frame"]) == (5, b"approach", 7)
        assert np.array_equal(first["view"], view) and first["hand"].tolist() == [1, 2, 3, 4]
        # What was not said is not known, and nothing of the record before shows through.
        assert second["frame"] == -1 and np.isnan(second["hand"]).all()
        assert np.isnan(second["q"]).all() and not second["view"].any()
        assert len(reader.read()) == 0 and reader.lost == 0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(2, 6))
def test_every_record_is_read_in_order_or_counted_as_lost(puts: list[int], slots: int) -> None:
    with Ring(HEADER, slots) as ring, Reader(ring.name, "page") as reader:
        seen: list[int] = []
        for count in puts:
            for _ in range(count):
                ring.put(cycle=ring.written)
            seen += reader.read()["cycle"].tolist()
        while len(more := reader.read()):
            seen += more["cycle"].tolist()
        assert seen == sorted(set(seen))
        assert len(seen) + reader.lost == ring.written == sum(puts)
        assert ring.fare("page").lost == reader.lost
        if max(puts) < slots:
            assert reader.lost == 0


def test_the_newest_record_alone_is_no_loss() -> None:
    with Ring(HEADER, 8) as ring, Reader(ring.name) as reader:
        assert reader.latest() is None
        for k in range(5):
            ring.put(cycle=k)
        latest = reader.latest()
        assert latest is not None and latest["cycle"] == 4
        assert reader.latest() is None and reader.lost == 0


def test_no_record_is_torn_by_a_writer_that_laps_the_reader() -> None:
    done = threading.Event()
    with Ring(HEADER, 2) as ring, Reader(ring.name) as reader:

        def produce() -> None:
            for k in range(4000):
                ring.put(cycle=k, view=np.float32(k), hand=float(k))
            done.set()

        thread = threading.Thread(target=produce)
        thread.start()
        seen = 0
        while not done.is_set() or len(reader.read(0)):
            for record in reader.read():
                seen += 1
                assert (record["view"] == record["cycle"]).all()
                assert (record["hand"] == record["cycle"]).all()
        thread.join(10)
        seen += len(reader.read())
        assert seen + reader.lost == 4000


def test_a_half_written_record_is_not_read() -> None:
    with Ring(HEADER, 4) as ring, Reader(ring.name) as reader:
        ring.put(cycle=0)
        ring.put(cycle=1)
        ring._mapping.lock.begin[1] = 6  # its slot is being overwritten
        assert reader.read()["cycle"].tolist() == [0]
        assert reader.lost == 1


def test_readers_ask_the_loop_and_say_how_they_fare() -> None:
    with Ring(HEADER, 4) as ring, Reader(ring.name, "recorder") as reader:
        assert ring.asked("stop") == 0
        reader.ask("stop")
        reader.ask("slow", 50)
        assert (ring.asked("stop"), ring.asked("slow"), ring.asked("pause")) == (1, 50, 0)
        ring.answer("stop")
        assert ring.asked("stop") == 0
        reader.say(FAILED, "disk full")
        assert (ring.fare("recorder").state, ring.fare("recorder").error) == (FAILED, "disk full")
        assert ring.fare("page").state == 0
        with pytest.raises(RingError, match="nobody"):
            Reader(ring.name, "nobody")


def test_the_last_to_leave_removes_the_memory() -> None:
    ring = Ring(HEADER, 4)
    path = Path("/dev/shm") / ring.name
    reader = Reader(ring.name)
    ring.put(cycle=3)
    assert not reader.over
    ring.close()
    ring.close()
    assert path.exists() and reader.over
    assert reader.read()["cycle"].tolist() == [3]
    reader.close()
    assert not path.exists()
    with pytest.raises(RingError, match="is the loop running"):
        Reader(ring.name)


def test_a_reader_that_exits_leaves_the_memory_to_the_others() -> None:
    with Ring(HEADER, 4) as ring:
        ring.put(cycle=1)
        program = f"from rt.record.ring import Reader; print(Reader({ring.name!r}).read()['cycle'])"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.strip() == "[1]" and done.stderr == ""
        with Reader(ring.name) as reader:
            assert reader.read()["cycle"].tolist() == [1]


def test_what_a_killed_producer_put_is_read_and_its_memory_removed() -> None:
    producer = subprocess.Popen([sys.executable, "-c", PRODUCER], stdout=subprocess.PIPE, text=True)
    assert producer.stdout is not None
    name = producer.stdout.readline().strip()
    with Reader(name) as reader:
        assert not reader.over
        os.kill(producer.pid, signal.SIGKILL)
        read = [c for batch in reader.follow(0.01) for c in batch["cycle"].tolist()]
        assert read == list(range(10)) and reader.over and not reader.closed
        producer.wait(10)
    producer.stdout.close()
    assert not (Path("/dev/shm") / name).exists()


def test_memory_that_all_were_killed_with_is_swept_by_the_next() -> None:
    producer = subprocess.Popen([sys.executable, "-c", PRODUCER], stdout=subprocess.PIPE, text=True)
    assert producer.stdout is not None
    path = Path("/dev/shm") / producer.stdout.readline().strip()
    with Ring(HEADER, 4):
        assert path.exists()  # somebody has it
    producer.kill()
    producer.wait(10)
    producer.stdout.close()
    with Ring(HEADER, 4):
        assert not path.exists()


def test_what_does_not_fit_is_refused() -> None:
    with Ring(HEADER, 4) as ring, Reader(ring.name) as reader:
        with pytest.raises(RingError, match="no field 'hnad'"):
            ring.put(hnad=0)
        with pytest.raises(ValueError, match="shape"):
            ring.put(hand=[1, 2, 3])
        ring.put(cycle=9)
        assert reader.read()["cycle"].tolist() == [9]
    with pytest.raises(RingError, match="slots = 1 "):
        Ring(HEADER, 1)
    with pytest.raises(RingError, match="slots = 1000000 "):
        Ring(HEADER, 1_000_000)


def test_shared_memory_that_is_full_is_refused_and_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = set(Path("/dev/shm").iterdir())
    with pytest.raises(RingError, match=r"no shared memory of .*No space left.*--shm-size"):
        Ring(HEADER, 4)
    assert not [p for p in set(Path("/dev/shm").iterdir()) - before if str(os.getpid()) in p.name]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_a_record_keeps_staying_and_the_best(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    actions = rng.random((n, 3), dtype=np.float32)
    distances = rng.permutation(n).astype(np.float32)
    kept, of = best_candidates(actions, distances)
    assert kept.shape == (K, 3) and of.shape == (K,)
    order = [0, *(1 + np.argsort(distances[1:])[: K - 1])]
    assert np.array_equal(kept[: len(order)], actions[order])
    assert np.array_equal(of[: len(order)], distances[order])
    assert np.isnan(of[len(order) :]).all() and np.isnan(kept[len(order) :]).all()


def test_states_and_readers_have_places() -> None:
    assert CYCLE.itemsize % 8 == 0 and len(READERS) == 3 and DONE != FAILED
