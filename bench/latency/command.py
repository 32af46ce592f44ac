"""Time the network and the loop: `python -m bench.latency` writes latency.json and latency.png.

Every backend at every number of candidates, on one thread and on all, taking turns within one run so
that their ratios hold on a noisy machine; then the whole cycle of rt.servo on the twin beside a loop
that does nothing, without load and with it.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich import box
from rich.console import Console
from rich.table import Table

from bench.latency import inference
from bench.latency.budgets import check, read_budgets
from bench.latency.callgrind import CallgrindError, count_instructions
from bench.latency.cycle import time_cycle
from bench.latency.plot import draw
from rt.distance import candidates_for, open_model
from rt.distance.native import available_isas
from rt.tools.clock import ClockError
from rt.tools.command import DONE, NOT_DONE, command, screen
from rt.tools.files import output_folder, write_json


class LatencyError(ValueError):
    """An option that cannot be served."""


@dataclass(frozen=True)
class LatencyOptions:
    """Time every backend and the whole cycle on this machine."""

    model: Path | None = None
    """Model file, as train.export makes it. Default: the shipped one."""
    backends: tuple[str, ...] = ()
    """Of reference, tiled, onnx, native, native-half, tensorrt, field-reference, field-onnx, field-native,
    or module:attribute of your own (rt.distance); default all that run here."""
    candidates: tuple[int, ...] = (1, 16, 64, 256, 1024, 4096, inference.FULL_MAP)
    """Numbers of candidates in a call."""
    threads: tuple[int, ...] = ()
    """Numbers of threads; default one, and one per core."""
    seconds: float = 1.0
    """Time that each backend gets at each number of candidates [s]; at least 5 calls."""
    longest: float = 5.0
    """Leave out what would take longer than this a call [s]."""
    rate: float = 30.0
    """Rate of the cycle [Hz]."""
    cycles: int = 600
    """Cycles of the loop for each load; 0 for none."""
    cycle_candidates: int = 0
    """Candidates of each cycle; 0 for as many as fit half the period here, at most 1024."""
    load: tuple[int, ...] = (0,)
    """Busy background processes: the cycle is timed with each of these. Alone: none, and one per core."""
    callgrind: bool = False
    """Also count the native backend's instructions under valgrind (a minute or two)."""
    check: Path | None = None
    """Budget file; budgets.toml is the one that ships. Exit code 1 if one is broken or was not measured."""
    quick: bool = False
    """A tenth of the time and few sizes, to see that everything runs; its figures mean little."""
    seed: int = 0
    """Seed of views, candidates and scenes."""
    out: Path | None = None
    """Folder for latency.json and latency.png. Default: runs/latency/<time>/."""


@command(
    "bench.latency",
    LatencyOptions,
    failures=(CallgrindError, ClockError),
    description=__doc__,
)
def main(options: LatencyOptions) -> int:
    """Run the command; returns NOT_DONE if a budget is broken."""
    return run(prepared(options))


def prepared(options: LatencyOptions) -> LatencyOptions:
    """Defaults filled in for this machine; raises LatencyError for what cannot be."""
    values = asdict(options)
    known = inference.available()
    values["backends"] = options.backends or known
    if unknown := [b for b in values["backends"] if b not in known and ":" not in b]:
        raise LatencyError(f"backends {', '.join(unknown)}: only {', '.join(known)} run here")
    values["load"] = options.load or (0, inference.all_threads())
    shipped = Path(__file__).with_name("budgets.toml")
    if options.check == Path(shipped.name) and not options.check.exists():
        values["check"] = shipped
    values["threads"] = options.threads or tuple(sorted({1, inference.all_threads()}))
    if options.quick:
        values["candidates"] = tuple(n for n in options.candidates if n <= 1024)[:3] or (1,)
        values["seconds"], values["cycles"] = options.seconds / 10, min(options.cycles, 20)
    for name, least in (("candidates", 1), ("threads", 1), ("load", 0)):
        if not values[name] or min(values[name]) < least:
            raise LatencyError(f"--{name} {values[name]} must be numbers from {least}")
    for name in ("seconds", "longest", "rate"):
        if not values[name] > 0:
            raise LatencyError(f"--{name} {values[name]} must be above 0")
    if options.cycles < 0 or options.cycle_candidates < 0:
        raise LatencyError("--cycles and --cycle-candidates must not be negative")
    return LatencyOptions(**values)


def run(options: LatencyOptions) -> int:
    console = Console(stderr=True)
    budgets = read_budgets(options.check) if options.check else {}
    distance = open_model(options.model)
    folder = output_folder("latency", options.out)

    result: dict[str, Any] = {"machine": machine(), "options": asdict(options)}
    with console.status("") as status:

        def progress(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                print(text, file=sys.stderr, flush=True)

        result["inference"], left_out = inference.time_backends(
            options.model,
            options.backends,
            options.threads,
            options.candidates,
            options.seconds,
            options.longest,
            np.random.default_rng(options.seed),
            progress,
        )
        result["left_out"] = left_out
        result["cycle"], histograms = [], {}
        if options.cycles:
            count = options.cycle_candidates or candidates_for(
                1 / options.rate, distance, maximum=1024
            )
            for load in options.load:
                progress(f"cycle at {options.rate:g} Hz, {count} candidates, load {load}")
                summary, histograms[load] = time_cycle(
                    *(options.model, distance, options.rate, options.cycles, count, load),
                    seed=options.seed,
                )
                result["cycle"].append(summary)
        if options.callgrind:
            progress("counting instructions under valgrind")
            rng = np.random.default_rng(options.seed)
            depth = inference.view(rng)
            result["callgrind"] = [
                count_instructions(options.model, depth, inference.some_actions(n, rng))
                for n in (1, 1024)
            ]
    result["check"] = check(result, budgets)
    write_json(folder / "latency.json", result)
    draw(result, histograms, folder / "latency.png")
    show(screen(110), result)
    print(f"wrote {folder}/latency.json, latency.png")
    return DONE if all(v["kept"] for v in result["check"]) else NOT_DONE


def machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": processor,
        "threads": inference.all_threads(),
        "instruction_sets": available_isas(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def show(console: Console, result: dict[str, Any]) -> None:
    console.print(_inference_table(result))
    for line in _stage_lines(result):
        console.print(line)
    for line in result["left_out"]:
        console.print(f"left out: {line}")
    if result["cycle"]:
        console.print(_cycle_table(result))
        for line in dict.fromkeys(x for c in result["cycle"] for x in c["refused"]):
            console.print(f"not granted: {line}")
    for count in result.get("callgrind", []):
        console.print(
            f"native {count['isa']}, {count['candidates']} candidates: "
            f"{count['instructions_per_call'] / 1e6:.2f} million instructions a call on one thread"
        )
    for verdict in result["check"]:
        mark = "[green]kept[/]" if verdict["kept"] else "[red]broken[/]"
        found = "not measured" if verdict["found"] is None else f"{verdict['found']:.4g}"
        console.print(f"{mark}: {verdict['budget']}: {found}, limit {verdict['limit']:g}")


def _inference_table(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"d(I, a), ms a call: {result['machine']['processor']}",
        title_style="bold",
        caption="M/s: million candidates a second; x: median over native's with as many threads",
        box=box.SIMPLE_HEAD,
    )
    for name in ("candidates", "backend", "threads", "p50", "p99", "p99.9", "max"):
        table.add_column(name, justify="left" if name == "backend" else "right")
    for name in ("M/s", "x", "error m"):
        table.add_column(name, justify="right")
    native = {
        (e["candidates"], e["threads"]): e["p50_ms"]
        for e in result["inference"]
        if e["backend"] == "native"
    }
    previous = None
    for e in result["inference"]:
        if previous not in (None, e["candidates"]):
            table.add_section()
        previous = e["candidates"]
        own = native.get((e["candidates"], e["threads"]))
        table.add_row(
            f"{e['candidates']:,}",
            e["backend"],
            str(e["threads"]),
            *(f"{e[k]:.3f}" for k in ("p50_ms", "p99_ms", "p999_ms", "max_ms")),
            f"{e['candidates_per_s'] / 1e6:.3g}",
            f"{e['p50_ms'] / own:.3g}" if own else "",
            f"{e['max_abs_error_m']:.0e}",
        )
    return table


def _stage_lines(result: dict[str, Any]) -> list[str]:
    """Shares of the stages in the time of a native call, at three sizes."""
    lines = []
    for e in result["inference"]:
        if "stages_ms" in e and e["candidates"] in (1, 1024, inference.FULL_MAP):
            whole = max(sum(e["stages_ms"].values()), 1e-9)
            shares = ", ".join(f"{name} {ms / whole:.0%}" for name, ms in e["stages_ms"].items())
            size = f"{e['candidates']:,} candidates, {e['threads']} threads"
            lines.append(f"{e['backend']}, {size}: {shares}")
    return lines


def _cycle_table(result: dict[str, Any]) -> Table:
    rate = result["cycle"][0]["rate_hz"]
    table = Table(title=f"rt.servo on the twin at {rate:g} Hz, ms", title_style="bold")
    for name in ("load", "", "p50", "p99", "p99.9", "max", "missed"):
        table.add_column(name, justify="left" if name == "" else "right")
    for cycle in result["cycle"]:
        rows = {"whole cycle": cycle["latency"]}
        rows |= {f"  {name}": s for name, s in cycle["stages"].items() if name != "world"}
        rows |= {"woken late": cycle["wake_up"], "bare loop woken late": cycle["bare_wake_up"]}
        for name, summary in rows.items():
            values = (summary[k] for k in ("p50_ms", "p99_ms", "p999_ms", "max_ms"))
            whole = name == "whole cycle"
            table.add_row(
                str(cycle["load"]) if whole else "",
                name,
                *("-" if v is None else f"{v:.3f}" for v in values),
                f"{cycle['missed']} of {cycle['cycles'] + cycle['missed']}" if whole else "",
            )
        table.add_section()
    return table


if __name__ == "__main__":
    sys.exit(main())
