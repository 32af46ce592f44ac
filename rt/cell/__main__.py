"""The command `python -m rt.cell`: check a cell file, or print an example."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rt.camera import CameraError
from rt.cell.check import live, options_of, validate
from rt.cell.file import EXAMPLE, describe
from rt.gripper import GripperError
from rt.guard.rows import Stop
from rt.robot import RobotError
from rt.tools.command import DONE, command, screen


@dataclass(frozen=True)
class CheckOptions:
    """Read a cell file, refuse what a run would refuse, and print what it says.

    Example: python -m rt.cell check cell.toml
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The cell file."""
    live: bool = False
    """Connect to the devices too, and compare: tool centre point, payload, speed slider, safety mode, camera,
    gripper. Nothing moves."""
    host: str = ""
    """Address of the robot's controller, in place of the cell's."""
    camera_device: str = ""
    """Another source of the camera's frames, as in rt.servo."""


@dataclass(frozen=True)
class ExampleOptions:
    """Print an example to begin with.

    Example: python -m rt.cell example > cell.toml
    """


COMMANDS: Any = (
    Annotated[CheckOptions, tyro.conf.subcommand("check")]
    | Annotated[ExampleOptions, tyro.conf.subcommand("example")]
)


@command("rt.cell", COMMANDS, failures=(Stop, RobotError, CameraError, GripperError))
def main(options: CheckOptions | ExampleOptions) -> int:
    if isinstance(options, ExampleOptions):
        print(EXAMPLE.read_text(), end="")
        return DONE
    config = options_of(options.file, options.host, options.camera_device)
    devices = validate(config)
    assert devices.cell is not None
    cell = devices.cell
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
    screen(110).print(table, highlight=False)
    if cell.place is not None and (why := cell.place.trouble(cell.limits)):
        print(f"{why}; rt.clear will refuse this cell, rt.servo needs no place")
    if options.live:
        for device, line in live(config, devices):
            print(f"{device}: {line}", flush=True)
        print("the devices fit the cell; nothing moved")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
