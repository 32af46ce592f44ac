"""Options of `python -m rt.clear`: those of rt.servo, and those of the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from rt.cell.options import ServoOptions, parse_as
from rt.guard.limits import Limits


@dataclass(frozen=True)
class ClearOptions(ServoOptions):
    """Clear the table: look, pick, verify, carry to the cell's [place], again, until nothing that can be
    grasped is left. Without further arguments: the simulated table with physics.

    Example: python -m rt.clear --scene 3

    Example on an arm: python -m rt.clear --cell cell.toml --speed-scale 0.1

    Example after a stop: python -m rt.clear --cell cell.toml --resume runs/clear/2026-11-26_10-00-00
    """

    grasp: Literal["auto", "yes", "no"] = "yes"
    """The job grasps: yes."""
    controller: str = "ensemble"
    """See rt.servo. The job has chosen the place in its looks; ensemble goes to the grasp nearest to it."""
    objects: int = 10
    """Objects on the simulated table."""
    meshes: Path | None = None
    """Folder of your own meshes for the simulated table, in place of the test objects."""
    mesh_unit: Literal["mm", "cm", "m", "inch"] = "m"
    """Unit of the mesh files."""
    mesh_scale: float = 1.0
    """Factor on every mesh, after --mesh-unit."""
    mesh_fit: str = ""
    """MIN,MAX [m]: meshes whose longest side is outside of this are scaled into it."""
    mesh_repair: bool = False
    """Close meshes that are not watertight, which may move their surface by 1 mm."""
    split_bodies: bool = False
    """Make an object of each body of a mesh that holds several apart."""
    probability: float = 0.5
    """Least probability of a grasp in the look for a place to be tried."""
    tries: int = 3
    """Most attempts in vain at one spot (5 cm)."""
    most: int = 0
    """Most attempts in all; 0: no limit."""
    force: float = 0.0
    """Grip force of this run [N], at most the hand's; 0: the cell's."""
    resume: Path | None = None
    """Go on with the job of this folder (its --out) after a stop, a power cut or a kill."""
    if_holding: Literal["ask", "place", "open", "stop"] = "ask"
    """At the start the fingers hold something: ask at the terminal, carry it to the place, open right there,
    or refuse to start."""
    usual_iterations: ClassVar[int] = 24
    """Fewer than rt.servo's, for the hand begins above the place to grasp."""

    def __post_init__(self) -> None:
        if self.target is not None or self.target_box is not None:
            raise ValueError(
                "--target: the job takes everything; rt.servo --target takes one object"
            )
        super().__post_init__()
        if self.grasp != "yes":
            raise ValueError(f"--grasp {self.grasp}: the job grasps; rt.servo does not have to")
        for name, value, low, high in (
            ("objects", self.objects, 1, 100),
            ("probability", self.probability, 0.01, 0.999),
            ("tries", self.tries, 1, 100),
            ("most", self.most, 0, 1_000_000),
            ("force", self.force, 0.0, 1000.0),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")


def parse(prog: str, arguments: Sequence[str] | None = None) -> ClearOptions:
    """The command line of rt.clear. Raises CellError."""
    return parse_as(_ClearArguments, prog, arguments)


@dataclass(frozen=True)
class _ClearArguments(ClearOptions):
    limits: Limits = field(default_factory=Limits)  # tyro shows each limit as an option
    """Limits of the guard. Default: those of the cell file."""


_ClearArguments.__name__, _ClearArguments.__doc__ = ClearOptions.__name__, ClearOptions.__doc__
