"""The command `python -m rt.cell`: check a cell file, or print an example."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rt.cell.file import EXAMPLE, describe, load_cell
from rt.hand import load_hand
from rt.tools.command import DONE, command


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


COMMANDS: Any = (
    Annotated[CheckOptions, tyro.conf.subcommand("check")]
    | Annotated[ExampleOptions, tyro.conf.subcommand("example")]
)


@command("rt.cell", COMMANDS)
def main(options: CheckOptions | ExampleOptions) -> int:
    if isinstance(options, ExampleOptions):
        print(EXAMPLE.read_text(), end="")
        return DONE
    cell = load_cell(options.file)
    load_hand(cell.hand)
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(options.file), title_style="bold", min_width=76)
    for name in ("section", "key", "value"):
        table.add_column(name, overflow="fold")
    last = ""
    for section, key, value in describe(cell):
        if section != last:
            table.add_section()
        table.add_row("" if section == last else section, key, value)
        last = section
    Console(width=None if sys.stdout.isatty() else 110).print(table, highlight=False)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
