"""The command `python -m bench.fuzz`: nonsense for every parser; no crash, no hang, no growth."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.fuzz.child import keep
from bench.fuzz.targets import TARGETS
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, write_json

_STARTS_S = 600.0
"""For the imports of a target and its last input, beside twice its time: a busy computer takes long."""


@dataclass(frozen=True)
class FuzzOptions:
    """Feed mutated inputs to each parser, guided by coverage where atheris is installed.

    Example: python -m bench.fuzz --only rtde cell --seconds 60
    """

    only: tuple[str, ...] = ()
    """Targets. Default: all."""
    inputs: int = 10_000_000
    """Inputs for each target, at most."""
    seconds: float = 60.0
    """Time for each target, at most [s]."""
    seed: int = 0
    """Of the mutations."""
    plain: bool = False
    """Use the mutator of bench.fuzz.child although atheris is there."""
    keep: bool = False
    """Keep in tests/corpus the inputs that reached something new; later runs and the tests begin with them.
    Needs atheris."""
    out: Path | None = None
    """Folder for fuzz.json and the findings. Default: runs/fuzz/<time>/."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.only if name not in TARGETS]:
            raise ValueError(f"no target {', '.join(unknown)}; known are: {', '.join(TARGETS)}")
        if self.inputs < 1 or not 0 < self.seconds <= 1e6:
            raise ValueError(f"inputs = {self.inputs}, seconds = {self.seconds:g} must be above 0")
        if self.keep and not self.guided:
            raise ValueError(
                "--keep needs atheris, which tells what reached something new: pip install atheris"
            )

    @property
    def guided(self) -> bool:
        """True if atheris chooses what is mutated."""
        return not self.plain and importlib.util.find_spec("atheris") is not None


def fuzz(target: str, config: FuzzOptions, folder: Path) -> dict[str, Any]:
    """One target in a child; inputs, seconds and, if there is one, the finding."""
    guided = config.guided
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        arguments = [target, str(config.inputs), str(config.seconds), str(config.seed)]
        program = [sys.executable, "-m", "bench.fuzz.child", *arguments, corpus if guided else ""]
        try:
            done = subprocess.run(
                program,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=2 * config.seconds + _STARTS_S,
            )
            code, said = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            parts = [p.decode(errors="replace") for p in (error.stdout, error.stderr) if p]
            code, said = -1, "".join(parts) + f"\nError: did not end within {error.timeout:g} s"
        (folder / f"{target}.txt").write_text(said)
        for finding in Path(corpus).parent.glob(Path(corpus).name + "-finding-*"):
            finding.rename(folder / f"{target}-{finding.name.rsplit('-finding-')[-1]}")
        inputs = (
            re.search(r"number_of_executed_units: (\d+)", said)
            or re.search(r'"runs": (\d+)', said)
            or re.search(r"(?s).*^#(\d+)\s", said, re.MULTILINE)
        )
        if config.keep and code == 0:
            keep(target, Path(corpus))
        seen = re.findall(r"cov: (\d+)", said)
        result = {
            "target": target,
            "engine": "atheris" if guided else "plain",
            "inputs": int(inputs[1]) if inputs else 0,
            "covered": int(seen[-1]) if seen else None,
            "finding": "" if code == 0 else _finding(said),
        }
    return result


def _finding(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [
        line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|Warning)\b|==\d+==", line)
    ]
    return (errors or lines or ["ended without a word"])[-1][:200]


@command("bench.fuzz", FuzzOptions, interrupted="finished targets are kept")
def main(config: FuzzOptions) -> int:
    """Run the command; returns NOT_DONE if there is a finding."""
    folder = output_folder("fuzz", config.out)
    results = []
    table = Table(title="fuzzing", title_style="bold")
    for name in ("target", "engine", "inputs", "edges covered", "finding"):
        table.add_column(name, overflow="fold")
    for target in config.only or TARGETS:
        print(f"{target} ...", file=sys.stderr, flush=True)
        r = fuzz(target, config, folder)
        results.append(r)
        table.add_row(
            target,
            r["engine"],
            f"{r['inputs']:,}",
            str(r["covered"] or "-"),
            r["finding"] or "none",
        )
        write_json(
            folder / "fuzz.json", {"command": "bench.fuzz", "seed": config.seed, "results": results}
        )
    screen(150).print(table)
    found = [r for r in results if r["finding"]]
    print(
        f"{sum(r['inputs'] for r in results):,} inputs, {len(found)} findings; {folder}/: fuzz.json"
    )
    return NOT_DONE if found else DONE


if __name__ == "__main__":
    sys.exit(main())
