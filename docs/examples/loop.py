"""The loop as a library: `python docs/examples/loop.py [cell.toml]`, without a file on the simulated twin.

Each step is one period: paced, guarded and recorded. Leaving the context stops the arm.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rt import Outcome, Servo, ServoOptions, open_cell, open_model

NEAR_M = 0.002


def approach(source: str = "twin", record: Path | None = None, fast: bool = False) -> Outcome:
    """One approach; ends early when the network sees a grasp within 2 mm of the hand, ten times in a row.

    source: `twin` or a cell file. record: where to write the flight record. fast: do not pace (twin only).
    """
    options = ServoOptions(candidates=256, fast=fast)
    near = 0
    with open_cell(source) as cell, Servo(cell, open_model(), options, record=record) as servo:
        for step in servo:
            if step.held:
                print(f"held: {step.held}")
            if step.distances is None:
                continue
            near = near + 1 if float(step.distances[0]) < NEAR_M else 0
            if step.number % 15 == 0:
                x, y, z, _ = step.hand
                print(f"hand {x:+.3f} {y:+.3f} {z:.3f} m, distance {step.distances[0]:.3f} m")
            if near == 10:
                break
    assert servo.outcome is not None
    print(servo.outcome.text(servo.reason))
    return servo.outcome


if __name__ == "__main__":
    sys.exit(approach(*sys.argv[1:2]).exit_code())
