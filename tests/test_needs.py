"""Skips: every one names its remedy, and the run's last line tells them all."""

from __future__ import annotations

import ast
from pathlib import Path

import needs
import pytest
from conftest import SLOW, skipped_line

TESTS = Path(__file__).parent
SKIPS = {"skip", "skipif", "importorskip"}


def reason_of(call: ast.Call) -> ast.expr:
    """The reason of a call of pytest.skip, pytest.mark.skipif or pytest.importorskip."""
    named = [word.value for word in call.keywords if word.arg == "reason"]
    return named[0] if named else call.args[0]


def text_of(reason: ast.expr) -> str:
    """The reason as a test run would print it; a call or a name is one of needs.py."""
    return str(
        eval(compile(ast.Expression(reason), "reason", "eval"), vars(needs) | {"extra": "x"})
    )


def test_every_skip_names_its_remedy() -> None:
    """A reason reads `no something: its remedy`."""
    calls = [
        (path.name, node)
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SKIPS
    ]
    assert len(calls) > 8
    assert [
        (name, node.lineno) for name, node in calls if ": " not in text_of(reason_of(node))
    ] == []


def test_a_package_that_does_not_exist_skips_and_names_its_extra() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"pip install -e '\.\[view\]'"):
        needs.needed("view", "no_such_module")
    assert needs.needed("view", "json", "math").__name__ == "math"


def test_skips_are_told_in_one_line_by_reason() -> None:
    def skipped(reason: str) -> pytest.TestReport:
        return pytest.TestReport(
            "a::b", ("a", 1, "b"), {}, "skipped", ("a", 1, f"Skipped: {reason}"), "call"
        )

    line = skipped_line([skipped("no A: get A"), skipped("no B: get B"), skipped("no A: get A")])
    assert line == "skipped: 2 x no A: get A; 1 x no B: get B"
    assert skipped_line([]) == ""


def test_slow_files_exist() -> None:
    """A renamed file must not fall out of the list unseen."""
    assert set(SLOW) - {path.stem for path in TESTS.rglob("test_*.py")} == set()
