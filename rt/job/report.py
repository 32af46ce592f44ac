"""Output of a job: clear.json and a table of the picks."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rt.job.job import Job
from rt.job.state import DROPPED, MISSED, PLACED, SKIPPED, JobState
from rt.outcome import Outcome
from rt.tools.command import screen
from rt.tools.files import write_json


@dataclass(frozen=True)
class JobReport:
    """The end of a job, and all that led there."""

    outcome: Outcome
    reason: str
    exit_code: int
    state: JobState
    left: list[tuple[float, float, float]]
    """x, y [m] and probability of the places that are no longer tried."""
    looks: int
    """Looks over the whole table, in this run."""
    seconds: float
    """Of the robot's clock, in this run."""
    cell: dict[str, Any]
    guard: dict[str, int]
    missed_deadlines: int

    @property
    def text(self) -> str:
        """Outcome and reason, for people."""
        return self.outcome.text(self.reason)

    @property
    def picks_per_hour(self) -> float:
        """Objects put down an hour, over all runs of the job; 0 if none was."""
        return 3600 * self.state.placed / self.state.seconds if self.state.seconds else 0.0

    def summary(self) -> dict[str, Any]:
        """The content of clear.json."""
        state = self.state
        return {
            "command": "rt.clear",
            "outcome": self.outcome.value,
            "reason": self.reason,
            "tried": len(state.attempts),
            "held": sum(a.held for a in state.attempts),
            **{name: state.count(name) for name in (PLACED, DROPPED, MISSED, SKIPPED)},
            "seconds": state.seconds,
            "seconds_a_pick": state.seconds / state.placed if state.placed else None,
            "picks_per_hour": self.picks_per_hour,
            "runs": state.runs,
            "fingers_may_hold": state.carrying,
            "left": [{"x_m": x, "y_m": y, "probability": p} for x, y, p in self.left],
            "looks": self.looks,
            "guard": self.guard,
            "missed_deadlines": self.missed_deadlines,
            "cell": self.cell,
            "attempts": [asdict(a) for a in state.attempts],
        }


def report_of(job: Job, signal_number: int = 0) -> JobReport:
    """The report of a job that is over."""
    outcome = job.outcome or Outcome.STOPPED
    left = [(float(t.hand[0]), float(t.hand[1]), t.probability) for t in job.left]
    return JobReport(
        outcome=outcome,
        reason=job.reason,
        exit_code=outcome.exit_code(signal_number),
        state=job.state,
        left=left,
        looks=job.looks,
        seconds=job.state.seconds - job.seconds_before,
        cell={"name": job.cell.name, "simulated": job.cell.simulated, **job.cell.info},
        guard=dict(job.loop.guard.counts),
        missed_deadlines=job.clock.missed,
    )


def table(report: JobReport) -> Table:
    """The picks and their sums."""
    state = report.state
    result = Table(title=f"rt.clear: {report.text}", title_style="bold", min_width=70)
    for name, justify in (
        ("pick", "right"), ("x, y [mm]", "right"), ("outcome", "left"), ("width", "right"),
        ("time", "right"), ("reason", "left"),
    ):  # fmt: skip
        result.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for a in state.attempts:
        width = "-" if a.width_m is None else f"{a.width_m * 1e3:.0f} mm"
        where = f"{a.x_m * 1e3:.0f}, {a.y_m * 1e3:.0f}"
        result.add_row(
            str(a.number), where, a.outcome or "cut off", width, f"{a.seconds:.1f} s", a.reason
        )
    result.add_section()
    counts = Counter(a.outcome or "cut off" for a in state.attempts)
    sums = ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "no pick"
    each = f"{state.seconds / state.placed:.1f} s" if state.placed else "-"
    result.add_row(
        str(len(state.attempts)), "", sums, "", each, f"{report.picks_per_hour:.0f} placed an hour"
    )
    return result


def write(report: JobReport, folder: Path) -> None:
    """clear.json into the folder, and the table on screen. Raises OSError."""
    write_json(folder / "clear.json", report.summary())
    console = screen(110)
    console.print(table(report))
    if report.state.carrying:
        console.print("the fingers may still hold something: look before you go near", style="bold")
    for x, y, probability in report.left:
        console.print(f"left at ({x:.3f}, {y:.3f}) m, probability of a grasp {probability:.2f}")
    console.print(f"{folder}/: clear.json, clear.png, state.json", soft_wrap=True, highlight=False)
    if report.exit_code:
        print(f"rt.clear: {report.text}", file=sys.stderr)
