"""Pictures and tables of docs/results.md, docs/disturbances.md and README.md: `python -m bench.figures`.

Every figure belongs to one command. The summary of the command's JSON is kept in docs/figures/NAME.json and
its PNG in docs/. The blocks of the pages between `<!-- figures:NAME -->` and `<!-- /figures -->` are written
from these summaries, with command and machine. `--check` lists the blocks that differ from their summary.
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

from bench.figure_tables import (
    bars,
    latency,
    measured,
    network,
    servo,
    study,
    summary,
    sweep,
    trials,
    validation,
)
from rt.distance.contract import DistanceError, read_model
from rt.tools.command import DONE, NOT_DONE, command
from rt.tools.files import write_json, write_text
from sim.experiment.sweep import STRENGTHS

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results.md", "docs/disturbances.md")
Json = dict[str, Any]


class FiguresError(RuntimeError):
    """A run is missing, failed or has other options, or a page's markers do not match."""


@dataclass(frozen=True)
class Figure:
    """One figure: its command, and the summary kept of the command's JSON."""

    command: str
    result: str
    """Name of its JSON in --out."""
    summary: Callable[[Json], Json]
    picture: str = ""
    """Name of its PNG in --out; in docs/ the PNG is named after the figure."""
    agrees: tuple[tuple[str, Any], ...] = ()
    """Values that the JSON must have, by dotted path; others mean that another command made it."""


MESHES = "meshes"
"""Folder of meshes, in the repository's root but not part of it, for the figures with real meshes."""


def _trials(options: str, picture: str = "", **config: Any) -> Figure:
    """400 trials of the default controller beside the paper's; config: options that the run must have."""
    wanted: Json = {"trials": 400, "seed": 0, "experiment": "figure5", "sensor": "ideal"}
    wanted |= {"meshes": None, "label": "lifted", **config}
    agrees = tuple((f"config.{key.replace('__', '.')}", value) for key, value in wanted.items())
    return Figure(f"python -m sim.trials {options}", "trials.json", trials, picture, agrees)


def _experiments(suffix: str, options: str, **config: Any) -> dict[str, Figure]:
    """The named experiments: 400 single objects, and 40 cluttered scenes of some ten picks each."""
    single = _trials(f"--experiment single --against paper{options}", experiment="single", **config)
    cleared = {
        name: _trials(
            f"--experiment {name} --trials 40 --against paper --baselines GPD TRUE{options}",
            experiment=name,
            trials=40,
            **config,
        )
        for name in ("clutter", "moved")
    }
    return {f"{name}{suffix}": figure for name, figure in {"single": single, **cleared}.items()}


def _sweep(over: str, sensor: str = "ideal") -> Figure:
    chosen = "" if sensor == "ideal" else f" --sensor {sensor}"
    if sensor == "ideal" and over in ("noise", "jump", "conveyor", "latency"):
        chosen = " --against paper"  # what its controller was made for, and what it was not
    picture = "sweep.png" if (over, sensor) == ("jump", "ideal") else ""
    return Figure(
        f"python -m sim.trials sweep --over {over}{chosen}",
        "sweep.json",
        sweep,
        picture,
        (
            *(("config.over", over), ("config.trials", 100), ("config.seed", 0)),
            *(("config.sensor", sensor), ("config.lift", True)),
        ),
    )


FIGURES = {
    "servo": Figure(
        "python -m rt.servo --rate 30",
        "servo.json",
        servo,
        "servo.png",
        (("config.rate", 30.0), ("config.seed", 0), ("config.fast", False)),
    ),
    "trials": _trials("--noise 0.4 --against paper", "trials.png", disturbance__noise=0.4),
    "trials_d405": _trials("--noise 0.4 --against paper --sensor d405", sensor="d405"),
    "trials_meshes": _trials(f"--noise 0.4 --against paper --meshes {MESHES}", meshes=MESHES),
    **_experiments("", ""),
    **_experiments("_d405", " --sensor d405", sensor="d405"),
    **_experiments("_meshes", f" --meshes {MESHES}", meshes=MESHES),
    "bin": _trials(
        "--experiment clutter --trials 200 --bin --max-height 0.25 --baselines GPD",
        experiment="clutter",
        trials=200,
        bin=True,
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
    **{f"sweep_{over}": _sweep(over) for over in STRENGTHS},
    **{f"sweep_{over}_d405": _sweep(over, "d405") for over in STRENGTHS if over != "sensor"},
    "sweep_dropout_wrist": Figure(
        "python -m sim.trials sweep --over dropout --camera wrist --values 0 0.02 0.05 0.1 0.2 0.4",
        "sweep.json",
        sweep,
        agrees=(("config.over", "dropout"), ("config.camera", "wrist"), ("config.trials", 100)),
    ),
}
"""One more summary, `network`, is read from the shipped network's training record."""


@dataclass(frozen=True)
class FiguresOptions:
    """Write the pictures and tables of README and docs from finished runs; run the missing ones.

    Example: python -m bench.figures --runs runs/figures
    """

    only: tuple[str, ...] = ()
    """Names of figures. Default: all."""
    runs: Path | None = None
    """Folder of finished runs, one folder per figure, by name; nothing is run, and a figure without a run
    keeps its stored summary. Default: run the figures that runs/figures lacks."""
    machine: str = ""
    """Machine of the runs, in words. Default: this machine."""
    check: bool = False
    """Only list the pages that differ from the stored figures; exit code 1 if there is one."""
    pages: bool = False
    """Only write the pages from the stored figures; run nothing."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in FIGURES:
                raise ValueError(f"no figure {name!r}; known are {', '.join(FIGURES)}")


def this_machine() -> str:
    """Processor model and number of cores."""
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def summarise(figure: Figure, folder: Path, machine: str) -> Json:
    """Summary of a finished run. Raises FiguresError if another command made it."""
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
                f"{path} has {key} = {value!r}, the figure needs {wanted!r}: run `{figure.command}`"
            )
    try:
        kept = figure.summary(result)
    except (KeyError, IndexError, TypeError, StopIteration) as error:
        raise FiguresError(f"{path} lacks a value of the figure ({error!r})") from error
    model = result.get("model")
    weights = (
        model.get("weights_sha256") if isinstance(model, dict) else result.get("weights_sha256")
    )
    made_with = {"weights_sha256": weights} if weights else {}
    return {"command": figure.command, "machine": machine, **made_with, **kept}


def run_command(figure: Figure, folder: Path) -> None:
    """Run a figure's command with --out FOLDER. Raises FiguresError if it fails."""
    print(f"{figure.command} --out {folder}", flush=True)
    module = figure.command.split()[1:]
    code = subprocess.run([sys.executable, *module, "--out", str(folder)], cwd=ROOT).returncode
    if code:
        raise FiguresError(f"`{figure.command}` ended with {code}; its figure was not made")


def blocks(stored: dict[str, Json], page: str = "docs/results.md") -> dict[str, str]:
    """Markdown of every block, with links relative to the page; without a stored summary its command."""
    made = {
        name: f"Not measured with the shipped files yet: `{figure.command}`."
        for name, figure in FIGURES.items()
    }
    made |= {
        name: _block(name, kept, Path(page).parent)
        for name, kept in stored.items()
        if "table" in kept
    }
    quantities = "| quantity | figure | command |"
    for name, head, rows in (
        ("measured", quantities, measured(stored)),
        ("summary", quantities, summary(stored)),
        ("bars", "| lifted by the loop | found [95 %] | asked | aim | |", bars(stored)),
    ):
        if rows:
            made[name] = "\n".join([head, "| --- " * (head.count("|") - 1) + "|", *rows])
    return made


def _block(name: str, kept: Json, folder: Path) -> str:
    link = Path(f"docs/{name}.png").relative_to(folder)
    picture = [f"![{kept['title']}]({link})", ""] if FIGURES[name].picture else []
    said = f"`{kept['command']}` ({kept['machine']}):"
    return "\n".join([*picture, said, "", *kept["table"]])


def fill(text: str, made: dict[str, str]) -> str:
    """The page with its blocks replaced. Raises FiguresError for a block without a stored summary."""

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
    """Summaries of docs/figures by name, and `network` from the shipped network's training record."""
    stored = {p.stem: json.loads(p.read_text()) for p in (root / "docs/figures").glob("*.json")}
    record = root / "rt/models/distance.json"
    return {**stored, "network": network(json.loads(record.read_text()))}


def stale(root: Path) -> list[str]:
    """Pages and pictures that differ from the stored figures, and figures of another network.

    Raises FiguresError.
    """
    stored = read_stored(root)
    shipped = {read_model(path)[0].weights_sha256 for path in (root / "rt/models").glob("*.onnx")}
    found = []
    for page in PAGES:
        text = (root / page).read_text()
        if fill(text, blocks(stored, page)) != text:
            found.append(f"{page}: its blocks differ from docs/figures")
    for name, kept in stored.items():
        if "weights_sha256" in kept and kept["weights_sha256"] not in shipped:
            found.append(
                f"docs/figures/{name}.json: measured with another network than the shipped ones"
            )
        picture = root / f"docs/{name}.png"
        if "picture_sha256" in kept and kept["picture_sha256"] != _sha256(picture):
            found.append(f"docs/{name}.png: not the picture of the run in docs/figures/{name}.json")
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def make(config: FiguresOptions, root: Path = ROOT) -> int:
    """Carry out the options in a repository; returns the exit code. Raises FiguresError."""
    if config.check:
        for line in (found := stale(root)):
            print(line)
        print(
            "stale figures: run `python -m bench.figures`, or with --pages if only a page differs"
            if found
            else "all figures are up to date"
        )
        return NOT_DONE if found else DONE
    folder = config.runs or Path("runs/figures")
    machine = config.machine or this_machine()
    (root / "docs/figures").mkdir(parents=True, exist_ok=True)
    for name in () if config.pages else config.only or FIGURES:
        figure = FIGURES[name]
        if not (folder / name / figure.result).is_file():
            if config.runs is not None:
                print(f"{name}: no run in {folder}, the stored summary is kept")
                continue
            if f"--meshes {MESHES}" in figure.command and not (root / MESHES).is_dir():
                print(f"{name}: no folder {MESHES}/ of real meshes, left out")
                continue
            run_command(figure, (folder / name).absolute())
        kept = summarise(figure, folder / name, machine)
        if figure.picture:
            shutil.copyfile(folder / name / figure.picture, root / f"docs/{name}.png")
            kept["picture_sha256"] = _sha256(root / f"docs/{name}.png")
        write_json(root / f"docs/figures/{name}.json", kept)
        print(f"{name}: docs/figures/{name}.json")
    for page in PAGES:
        made = blocks(read_stored(root), page)
        write_text(root / page, fill((root / page).read_text(), made))
        print(f"{page}: written")
    return DONE


@command(
    "bench.figures",
    FiguresOptions,
    failures=(FiguresError, DistanceError),
    interrupted="finished runs are kept",
)
def main(config: FiguresOptions) -> int:
    """Run the command; returns its exit code."""
    return make(config)


if __name__ == "__main__":
    sys.exit(main())
