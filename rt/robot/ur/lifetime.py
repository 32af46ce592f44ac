"""Priority and lifetime of the streaming process: real-time, tied to its parent, killed if it hangs.

The library that it drives the arm with may hang in a call: ur-rtde waits up to 3 s for a controller to take a
command and up to 300 s for it to be done, and its constructors keep the interpreter lock. Python's signal
handlers run in between calls only, so SIGTERM does nothing then: what must end it is the kernel's to do.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

from rt.tools.process import killed_with_parent


def privileges() -> None:
    """Real-time priority for every thread of this process, ur-rtde's too, where it is permitted."""
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(55))
    gc.freeze()
    gc.disable()


def give_up_in(seconds: float) -> None:
    """This process is ended by the kernel if it does not say so again (0: never).

    By a signal whose default action is to end it: no handler, no thread and no interpreter lock is
    needed, so it also ends one that hangs inside ur-rtde, be it with the lock in its hand.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)


def die_with_the_loop(yes: bool) -> None:
    """Let the kernel kill this process at once with the thread that started it, or not.

    Only while no program runs on the controller: later the end must stop the arm, and `give_up_in` bounds it.
    """
    killed_with_parent(yes)
    if yes and select.select([0], [], [], 0)[0]:  # it had gone before
        raise OSError("the loop has ended while its arm was opened")


def until_told(over: threading.Event) -> None:
    """Waits for the end of the pipe that the loop's process holds."""
    while os.read(0, 1):
        pass
    over.set()


def end(code: Any) -> None:
    """Without destructors: those of ur-rtde wait, and until then it would connect again."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
