"""rt.robot.ur.shared: what is half written is never taken for whole, and nobody waits for it for ever."""

from __future__ import annotations

import numpy as np

from rt.robot.ur.shared import STOP, TARGET, attach, create


def test_a_record_comes_whole() -> None:
    memory = create()
    _, command = attach(memory)
    _, same = attach(memory)
    command.write(kind=TARGET, stamp_ns=7, T_base_hand=np.eye(4))
    record = same.read()
    assert record["kind"] == TARGET and record["stamp_ns"] == 7 and same.number == 1


def test_a_writer_that_died_halfway_is_not_waited_for() -> None:
    _, command = attach(create())
    command.write(kind=TARGET, stamp_ns=7)
    command.here["begin"] += 1  # as a writer that is killed here leaves it
    command.here["kind"] = STOP
    assert command.read() is None and command.read(within_s=0.01) is None
