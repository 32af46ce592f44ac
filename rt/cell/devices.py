"""The settled choice of devices and network, made before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rt.cell.file import CellFile
from rt.cell.setup import RunSetup


@dataclass(frozen=True)
class Devices:
    """All that is settled before anything is opened."""

    robot: str
    hand: str
    cell: CellFile | None = None
    gripper: str = "none"
    model: str | Path | None = None
    """The network; None: the shipped one."""
    contract: dict[str, str] = field(default_factory=dict)
    """Values that the cell demands of the model's contract."""
    setup: RunSetup = field(default_factory=RunSetup)
