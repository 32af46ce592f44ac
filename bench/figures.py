"""Make the pictures and tables of the README and docs from finished runs: `python -m bench.figures`.

Every figure belongs to one command. Its JSON is boiled down to docs/figures/NAME.json, its PNG goes to
docs/, and the pages' blocks between `<!-- figures:NAME -->` and `<!-- /figures -->` are written anew from
those summaries, each with its command and machine. `--check` says which blocks are not what they would be.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from bench.figure_tables import (
    latency,
    measured,
    network,
    sensor,
    servo,
    study,
    sweep,
    trials,
    validation,
)
from rt.distance.contract import DistanceError, read_model
from rt.tools.files import write_json, write_text
from sim.experiment.sweep import STRENGTHS

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/disturbances.md")
Json = dict[str, Any]


class FiguresError(ValueError):
    """A run that is missing, failed, or was made with other options; a page without its markers."""


@dataclass(frozen=True)
class Figure:
    """One figure: the command that makes it, and what is kept of its JSON."""

    command: str
    result: str
    """Its JSON in --out."""
    summary: Callable[[Json], Json]
    picture: str = ""
    """Its PNG in --out; in docs/ it is named after the figure."""
    agrees: tuple[tuple[str, Any], ...] = ()
    """Values (by dotted path) that the JSON must have, or it was made by another command."""


FIGURES = {
    "servo": Figure(
        "python -m rt.servo --rate 30",
        "servo.json",
        servo,
        "servo.png",
        (("config.rate", 30.0), ("config.seed", 0), ("config.fast", False)),
    ),
    "trials": Figure(
        "python -m sim.trials --noise 0.4 --against ensemble --lift",
        "trials.json",
        trials,
        "trials.png",
        (("config.trials", 400), ("config.disturbance.noise", 0.4), ("config.seed", 0)),
    ),
    "sensor": Figure(
        "python -m sim.trials --trials 200 --sensor d405 --against ensemble",
        "trials.json",
        sensor,
        agrees=(("config.trials", 200), ("config.sensor", "d405"), ("config.seed", 0)),
    ),
    "latency": Figure(
        "python -m bench.latency --load 0 2",
        "latency.json",
        latency,
        agrees=(
            ("options.quick", False),
            ("options.rate", 30.0),
            ("options.model", None),
            ("options.load", [0, 2]),
        ),
    ),
    "study": Figure("python -m calib.study", "study.json", study),
    "validation": Figure(
        "python -m train.validation",
        "validation.json",
        validation,
        agrees=(("fresh", True), ("seed", 1)),
    ),
    **{
        f"sweep_{over}": Figure(
            f"python -m sim.trials sweep --over {over} --against ensemble",
            "sweep.json",
            sweep,
            "sweep.png" if over == "jump" else "",
            (("config.over", over), ("config.trials", 100), ("config.seed", 0)),
        )
        for over in STRENGTHS
    },
    "sweep_dropout_wrist": Figure(
        "python -m sim.trials sweep --over dropout --against ensemble --camera wrist "
        "--values 0 0.02 0.05 0.1 0.2 0.4",
        "sweep.json",
        sweep,
        agrees=(("config.over", "dropout"), ("config.camera", "wrist"), ("config.trials", 100)),
    ),
}
"""`network` is one more summary, of the shipped network's own training record."""


@dataclass(frozen=True)
class FiguresOptions:
    """Make the pictures and tables of README and docs anew: run what is missing, or take finished runs.

    Example: python -m bench.figures --runs runs/figures
    """

    only: tuple[str, ...] = ()
    """Names of figures. Default: all."""
    runs: Path | None = None
    """Take the finished runs of this folder (a folder for each figure, by name) and run nothing; a
    figure that is not there keeps what was stored. Default: run what runs/figures lacks, and keep it."""
    machine: str = ""
    """What the runs ran on, in words. Default: this machine."""
    check: bool = False
    """Run and write nothing: exit 1 if a page is not what the stored figures make it."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in FIGURES:
                raise FiguresError(f"no figure {name!r}; known are {', '.join(FIGURES)}")


def this_machine() -> str:
    """Processor and cores, in words."""
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def summarise(figure: Figure, folder: Path, machine: str) -> Json:
    """What is kept of a finished run. Raises FiguresError if another command made it."""
    path = folder / figure.result
    try:
        result = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise FiguresError(f"{path}: {error}; run `{figure.command}` again") from error
    for key, wanted in figure.agrees:
        value: Any = result
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value != wanted:
            raise FiguresError(
                f"{path} has {key} = {value!r}, the figure needs {wanted!r}: `{figure.command}`"
            )
    try:
        kept = figure.summary(result)
    except (KeyError, IndexError, TypeError, StopIteration) as error:
        raise FiguresError(f"{path} lacks what the figure shows ({error!r})") from error
    model = result.get("model")
    weights = (
        model.get("weights_sha256") if isinstance(model, dict) else result.get("weights_sha256")
    )
    made_with = {"weights_sha256": weights} if weights else {}
    return {"command": figure.command, "machine": machine, **made_with, **kept}


def run_command(figure: Figure, folder: Path) -> None:
    """Run a figure's command into a folder. Raises FiguresError if it fails."""
    print(f"{figure.command} --out {folder}", flush=True)
    module = figure.command.split()[1:]
    code = subprocess.run([sys.executable, *module, "--out", str(folder)], cwd=ROOT).returncode
    if code:
        raise FiguresError(f"`{figure.command}` ended with {code}; its figure was not made")


def blocks(stored: dict[str, Json], page: str = "README.md") -> dict[str, str]:
    """Markdown of every block that the stored summaries can make, for a page."""
    made = {
        name: _block(name, kept, Path(page).parent)
        for name, kept in stored.items()
        if "table" in kept
    }
    rows = measured(stored)
    if rows:
        made["measured"] = "\n".join(["| what | figure | command |", "| --- | --- | --- |", *rows])
    return made


def _block(name: str, summary: Json, folder: Path) -> str:
    link = Path(f"docs/{name}.png").relative_to(folder)
    picture = [f"![{summary['title']}]({link})", ""] if FIGURES[name].picture else []
    said = f"`{summary['command']}` ({summary['machine']}):"
    return "\n".join([*picture, said, "", *summary["table"]])


def fill(text: str, made: dict[str, str]) -> str:
    """A page with its blocks written anew. Raises FiguresError for a block that cannot be made."""

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name not in made:
            raise FiguresError(f"a page has a block {name!r}, and docs/figures has nothing for it")
        return f"<!-- figures:{name} -->\n{made[name]}\n<!-- /figures -->"

    opened, closed = text.count("<!-- figures:"), text.count("<!-- /figures -->")
    if opened != closed:
        raise FiguresError(f"a page opens {opened} blocks of figures and closes {closed}")
    return re.sub(r"<!-- figures:(\w+) -->\n.*?<!-- /figures -->", one, text, flags=re.DOTALL)


def read_stored(root: Path) -> dict[str, Json]:
    """docs/figures, and the shipped network's record as it is now."""
    stored = {p.stem: json.loads(p.read_text()) for p in (root / "docs/figures").glob("*.json")}
    record = root / "rt/models/distance.json"
    return {**stored, "network": network(json.loads(record.read_text()))}


def stale(root: Path) -> list[str]:
    """What is not as the stored figures make it, or of another network. Raises FiguresError."""
    stored = read_stored(root)
    shipped = read_model(root / "rt/models/distance.onnx")[0].weights_sha256
    found = []
    for page in PAGES:
        text = (root / page).read_text()
        if fill(text, blocks(stored, page)) != text:
            found.append(f"{page}: its blocks are not what docs/figures makes them")
    for name, summary in stored.items():
        if summary.get("weights_sha256", shipped) != shipped:
            found.append(
                f"docs/figures/{name}.json: measured with another network than the shipped one"
            )
        picture = root / f"docs/{name}.png"
        if "picture_sha256" in summary and summary["picture_sha256"] != _sha256(picture):
            found.append(f"docs/{name}.png: not the picture of the run in docs/figures/{name}.json")
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def make(config: FiguresOptions, root: Path = ROOT) -> int:
    """Do what the options say; returns the exit code."""
    if config.check:
        for line in (found := stale(root)):
            print(line)
        print(
            "figures are stale: run `python -m bench.figures`" if found else "figures are as stored"
        )
        return 1 if found else 0
    folder = config.runs or Path("runs/figures")
    machine = config.machine or this_machine()
    (root / "docs/figures").mkdir(parents=True, exist_ok=True)
    for name in config.only or FIGURES:
        figure = FIGURES[name]
        if not (folder / name / figure.result).is_file():
            if config.runs is not None:
                print(f"{name}: not in {folder}, left as it was")
                continue
            run_command(figure, (folder / name).absolute())
        summary = summarise(figure, folder / name, machine)
        if figure.picture:
            shutil.copyfile(folder / name / figure.picture, root / f"docs/{name}.png")
            summary["picture_sha256"] = _sha256(root / f"docs/{name}.png")
        write_json(root / f"docs/figures/{name}.json", summary)
        print(f"{name}: docs/figures/{name}.json")
    for page in PAGES:
        made = blocks(read_stored(root), page)
        write_text(root / page, fill((root / page).read_text(), made))
        print(f"{page}: written")
    return 0


def main() -> int:
    try:
        return make(tyro.cli(FiguresOptions, prog="python -m bench.figures"))
    except (FiguresError, DistanceError, OSError) as error:
        print(f"bench.figures: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench.figures: interrupted; finished runs are kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
