"""rt.outcome: words for people, a word for programs, and the exit code of the table."""

from __future__ import annotations

import signal

import pytest

from rt.outcome import GraspResult, Outcome


@pytest.mark.parametrize(
    ("outcome", "reason", "text", "code", "reached"),
    [
        (Outcome.ARRIVED, "", "arrived", 0, True),
        (Outcome.GRASPED, "", "grasped", 0, True),
        (Outcome.NO_GRASP, "missed: nothing", "no grasp: missed: nothing", 3, True),
        (Outcome.STOPPED, "force: 80 N", "stopped: force: 80 N", 1, False),
        (Outcome.INTERRUPTED, "SIGTERM", "interrupted by SIGTERM", 143, False),
    ],
)
def test_every_outcome_has_its_words_and_its_code(
    outcome: Outcome, reason: str, text: str, code: int, reached: bool
) -> None:
    assert outcome.text(reason) == text
    assert outcome.exit_code(int(signal.SIGTERM)) == code
    assert outcome.reached is reached


def test_the_table_of_codes_covers_all_outcomes() -> None:
    assert {outcome.exit_code() for outcome in Outcome} == {0, 1, 3}


def test_a_word_is_no_reason() -> None:
    """A reason that reads like another outcome changes nothing."""
    result = GraspResult(Outcome.NO_GRASP, "close", "grasped")
    assert result.outcome is Outcome.NO_GRASP and result.text == "no grasp: grasped"
