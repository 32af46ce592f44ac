"""The end of a run, as data: Outcome, ScoredView, GraspResult, Report. Nothing here draws or moves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rt.tools.command import DONE, NOT_DONE, NOTHING_GRASPED

if TYPE_CHECKING:
    from pathlib import Path

    from rt.cell.cell import Cell
    from rt.distance.contract import Contract
    from rt.grasp.height import GraspHeight
    from rt.guard.rows import Guard
    from rt.tools.clock import Clock, Stopwatch


class Outcome(StrEnum):
    """End of a run, or of its last centimetres. The reason is a text of its own."""

    ARRIVED = "arrived"
    """The hand reached the end height; no grasp was wanted."""
    GRASPED = "grasped"
    """The object is held up."""
    NO_GRASP = "no_grasp"
    """The hand reached the end height, but nothing is held."""
    CLEARED = "cleared"
    """Nothing that can be grasped is left on the table (rt.clear)."""
    LEFT = "left"
    """The job is over, and something is left that was tried in vain (rt.clear)."""
    STOPPED = "stopped"
    """The guard or a device's fault ended the run; or its user left it before its end."""
    INTERRUPTED = "interrupted"
    """A signal ended the run: Ctrl-C or SIGTERM."""

    @property
    def reached(self) -> bool:
        """True if the hand came to the end height."""
        return self in (Outcome.ARRIVED, Outcome.GRASPED, Outcome.NO_GRASP)

    def exit_code(self, signal_number: int = 0) -> int:
        """The command's exit code (rt.tools.command); signal_number: the signal that interrupted it."""
        if self is Outcome.INTERRUPTED and signal_number:
            return 128 + signal_number
        if self in (Outcome.NO_GRASP, Outcome.LEFT):
            return NOTHING_GRASPED
        return DONE if self.reached or self is Outcome.CLEARED else NOT_DONE

    def text(self, reason: str = "") -> str:
        """For people: `arrived`, `no grasp: why`, `stopped: why`, `interrupted by SIGINT`."""
        words = self.value.replace("_", " ")
        if not reason:
            return words
        return f"{words} by {reason}" if self is Outcome.INTERRUPTED else f"{words}: {reason}"


@dataclass(frozen=True)
class ScoredView:
    """One view (64, 64) [m], its candidates (N, 3) [m, m, rad] and their distances (N,) [m]."""

    view: NDArray[np.float32]
    actions: NDArray[np.float32]
    distances: NDArray[np.float32]


@dataclass(frozen=True)
class GraspResult:
    """End of the last centimetres."""

    outcome: Outcome
    """GRASPED or NO_GRASP."""
    phase: str
    """The last one: look, descend, close, lift, done."""
    reason: str = ""
    """Why nothing is held; empty if something is."""
    height: GraspHeight | None = None
    contact_N: float | None = None
    """Greatest force on the way down, beyond the force at rest; None for an arm without a force sensor."""
    touched: bool = False
    """True if contact ended the descent."""
    closed_at_m: float | None = None
    """Height of the fingertips when they closed."""
    width_m: float | None = None
    """Between the pads once closed."""
    lifted_m: float = 0.0
    drift_m_s: float = 0.0
    """Speed with which the hand went on with the object; 0 for one that stands."""
    true_m: float | None = None
    """True distance when the fingers closed; None if it is not known."""

    @property
    def text(self) -> str:
        """Outcome and reason, for people."""
        return self.outcome.text(self.reason)


@dataclass(frozen=True)
class Report:
    """Everything about one run."""

    config: Any
    """The ServoOptions."""
    outcome: Outcome
    reason: str
    """Why it ended so; empty for ARRIVED and GRASPED."""
    exit_code: int
    cell: Cell
    contract: Contract
    backend: str
    candidates: int
    cycles: int
    held: int
    clock: Clock
    watch: Stopwatch
    guard: Guard
    refused: list[str]
    """Real-time privileges that the operating system refused, one line each."""
    trace: list[dict[str, Any]]
    true_start_m: float | None
    true_end_m: float | None
    standing: bool
    """True if the arm was seen to stand still at the end."""
    first: ScoredView | None
    last: ScoredView | None
    grasp: GraspResult | None = None
    """The last centimetres; None without them."""
    record: Path | None = None
    """The flight record; None without one."""
    dropped: int = 0
    """Cycles that are missing in the record."""
    record_error: str = ""
    """Why the record ended early, or empty."""

    @property
    def reached(self) -> bool:
        """True if the hand came to the end height."""
        return self.outcome.reached

    @property
    def text(self) -> str:
        """Outcome and reason, for people."""
        return self.outcome.text(self.reason)
