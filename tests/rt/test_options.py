"""rt.cell.options: limits of the command line over those of the cell file over the defaults."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt.cell.file import EXAMPLE, load_cell
from rt.cell.open import settle
from rt.cell.options import ServoOptions, parse
from rt.guard.limits import Limits
from rt.tools.resolve import ResolveError


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's cell file with two limits of its own."""
    path = tmp_path_factory.mktemp("cell") / "cell.toml"
    text = EXAMPLE.read_text()
    head, mark, tail = text.partition("\n[limits]")
    assert mark, "the example has a section [limits]"
    tail = tail.partition("\n")[2]  # without the rest of its line
    lines = [
        line for line in tail.splitlines() if not line.startswith(("max_force_N", "max_missed"))
    ]
    path.write_text(
        "\n".join([head, "[limits]", "max_force_N = 30.0", "max_missed_in_a_row = 5", *lines])
    )
    return path


def limits(cell: Path, *arguments: str) -> Limits:
    """Limits of a run with this cell and command line, before the arm's own speeds are applied."""
    config = parse("servo", ["--cell", str(cell), *arguments])
    assert config.limits is not None
    return config.limits


def test_without_options_the_cell_file_holds(cell: Path) -> None:
    assert limits(cell) == load_cell(cell).limits
    assert limits(cell).max_force_N == 30.0 != Limits().max_force_N


def test_a_limit_given_as_the_default_has_it_overrides_the_cell_file(cell: Path) -> None:
    default = Limits()
    given = limits(cell, "--limits.max-force-N", str(default.max_force_N))
    assert given == replace(load_cell(cell).limits, max_force_N=default.max_force_N)
    missed = str(default.max_missed_in_a_row)
    assert limits(cell, "--limits.max-missed-in-a-row", missed).max_missed_in_a_row == int(missed)
    wide = limits(cell, "--limits.workspace-min-m", "-0.5", "-0.5")
    assert wide.workspace_min_m == (-0.5, -0.5) and wide.max_force_N == 30.0
    assert limits(cell, "--limits.max-force-N", "20").max_force_N == 20.0


def test_the_guard_gets_them(cell: Path) -> None:
    config = parse("servo", ["--cell", str(cell), "--limits.max-force-N", "50"])
    guarded = settle(config).setup.limits
    assert guarded is not None and guarded.max_force_N == 50.0 and guarded.max_missed_in_a_row == 5


def test_other_options_are_unchanged_by_the_cell_file(cell: Path) -> None:
    config = parse("servo", ["--cell", str(cell), "--rate", "60", "--limits.max-speed-m-s", "0.5"])
    plain = ServoOptions(rate=60.0)
    assert (config.rate, config.iterations, config.ratio) == (60.0, plain.iterations, plain.ratio)
    assert parse("servo", ["--limits.max-speed-m-s", "0.2"]).limits == Limits(max_speed_m_s=0.2)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([f.name for f in fields(Limits)]))
def test_every_limit_can_be_given_as_it_is(name: str) -> None:
    value = getattr(Limits(), name)
    words = [str(v) for v in value] if isinstance(value, tuple) else [str(value)]
    config = parse("servo", [f"--limits.{name.replace('_', '-')}", *words])
    assert config.limits == Limits()


def test_limits_made_in_python_hold_whole(cell: Path) -> None:
    own = replace(load_cell(cell).limits, max_force_N=10.0)
    made = settle(ServoOptions(cell=cell, limits=own)).setup.limits
    assert made is not None and made.max_force_N == 10.0 and made.max_missed_in_a_row == 5
    default = settle(ServoOptions(cell=cell)).setup.limits
    assert default is not None and default.max_force_N == 30.0


def test_a_controller_is_a_name_or_module_attribute() -> None:
    assert ServoOptions(controller="rt.controller:Paper").controller == "rt.controller:Paper"
    with pytest.raises(ResolveError, match="no controller 'mine'; known are ensemble"):
        ServoOptions(controller="mine")


@pytest.mark.parametrize("rate", ["inf", "nan", "1e9", "0", "-30"])
def test_a_rate_that_cannot_be_is_one_line(rate: str) -> None:
    with pytest.raises(ValueError, match=r"must be from 0\.5 to 1000 Hz"):
        ServoOptions(rate=float(rate))


@pytest.mark.parametrize("command", ["rt.servo", "rt.clear"])
def test_an_error_names_the_options_as_the_documentation_does(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        import_module(command).main(["--rate", "inf"])
    said = " ".join(capsys.readouterr().err.split())
    assert "Options: rate = inf Hz must be from 0.5 to 1000 Hz" in said and "_" not in said
