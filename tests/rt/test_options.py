"""rt.cell.options: what the command line gives, and what it leaves to the cell file."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt.cell.open import _override
from rt.cell.options import ServoOptions, parse
from rt.guard.rows import Limits

CELL = ["--cell", "cell.toml"]
OF_CELL = Limits(max_force_N=30.0, max_missed_in_a_row=5, workspace_min_m=(-0.3, -0.3))


def limits(*arguments: str) -> Limits:
    """That a run with this cell and command line is held to."""
    config = parse("servo", [*CELL, *arguments])
    return _override(OF_CELL, config.limits, config.limits_given)


def test_a_limit_given_as_the_default_has_it_overrides_the_cell_file() -> None:
    assert limits() == OF_CELL
    assert limits("--limits.max-force-N", "50").max_force_N == 50.0 == Limits().max_force_N
    assert limits("--limits.max-missed-in-a-row", "10").max_missed_in_a_row == 10
    wide = limits("--limits.workspace-min-m", "-0.5", "-0.5")
    assert wide.workspace_min_m == (-0.5, -0.5) and wide.max_force_N == 30.0
    assert limits("--limits.max-force-N", "20").max_force_N == 20.0


def test_only_what_is_given_is_said_to_be() -> None:
    assert parse("servo", CELL).limits_given == ()
    config = parse("servo", [*CELL, "--limits.max-speed-m-s", "0.5", "--rate", "60"])
    assert config.limits_given == ("max_speed_m_s",) and config.rate == 60.0
    assert config.limits == Limits()
    assert parse("servo", ["--limits.max-speed-m-s", "0.2"]).limits.max_speed_m_s == 0.2


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([f.name for f in fields(Limits)]))
def test_every_limit_can_be_given_as_it_is(name: str) -> None:
    value = getattr(Limits(), name)
    words = [str(v) for v in value] if isinstance(value, tuple) else [str(value)]
    config = parse("servo", [*CELL, f"--limits.{name.replace('_', '-')}", *words])
    assert config.limits_given == (name,)


def test_limits_made_in_python_override_where_they_differ() -> None:
    config = ServoOptions(limits=Limits(max_force_N=10.0))
    made = _override(OF_CELL, config.limits, config.limits_given)
    assert made.max_force_N == 10.0 and made.max_missed_in_a_row == 5


def test_the_mark_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("servo", ["--limits-given", "max_force_N"])
    with pytest.raises(SystemExit):
        parse("servo", ["--help"])
    assert "limits-given" not in capsys.readouterr().out
