"""The command `python -m rt.cell`: check a cell file, or print an example."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rt.cell.file import EXAMPLE, describe, load_cell
from rt.cell.transform import CellError


@dataclass(frozen=True)
class CheckOptions:
    """Read a cell file and print what it says.

    Example: python -m rt.cell check cell.toml
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The cell file."""


@dataclass(frozen=True)
class ExampleOptions:
    """Print an example to begin with.

    Example: python -m rt.cell example > cell.toml
    """


def main() -> int:
    from rich.console import Console
    from rich.table import Table

    command = tyro.cli(
        Annotated[CheckOptions, tyro.conf.subcommand("check")]
        | Annotated[ExampleOptions, tyro.conf.subcommand("example")],
        prog="python -m rt.cell",
    )
    if isinstance(command, ExampleOptions):
        print(EXAMPLE.read_text(), end="")
        return 0
    try:
        cell = load_cell(command.file)
        from rt.hand import load_hand

        load_hand(cell.hand)
    except (CellError, ValueError, OSError) as error:
        print(f"rt.cell: {error}", file=sys.stderr)
        return 1
    table = Table(title=str(command.file), title_style="bold", min_width=76)
    for name in ("section", "key", "value"):
        table.add_column(name, overflow="fold")
    last = ""
    for section, key, value in describe(cell):
        if section != last:
            table.add_section()
        table.add_row("" if section == last else section, key, value)
        last = section
    Console(width=None if sys.stdout.isatty() else 110).print(table, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
