"""Rate of training against a plain loop, in the same run: `python -m bench.training`.

Fast: train.fit's own step, batches made beside it, the image side shared by all offsets. Plain: the
paper's tiled network (train.network.tiled_forward) on one sample after the other in float32, gradients
added up over as many samples as a fast step holds, one optimiser step. The two take turns, so that
whatever else the machine does slows both.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

try:
    import torch
except ImportError as error:
    if __name__ != "__main__":
        raise
    raise SystemExit(
        f"bench.training needs PyTorch ({error}): pip install 'grasp-servo[train]'"
    ) from None

from rich.table import Table

from rt.tools.command import command, screen
from rt.tools.files import output_folder, write_json
from rt.tools.plots import panels, save
from sim.dataset.store import DatasetError, Split, open_split
from train.batches import Batches
from train.fit import train_step
from train.machine import describe_machine, fast_dtype, keep_freed_memory
from train.network import LENGTH_SCALE_M, DistanceNetwork, tiled_forward
from train.presets import PRESETS, make_optimizer
from train.validation import fresh_set


@dataclass(frozen=True)
class TrainingRates:
    """Measured rates; a sample is one offset on one image."""

    images_per_s: float
    samples_per_s: float
    plain_samples_per_s: float
    ratio: float
    """Fast samples a second over plain ones."""
    batch: int
    offsets_per_image: int
    dtype: str
    threads: int
    rounds: int


def measure(split: Split, rounds: int = 5, round_s: float = 2.0, threads: int = 0) -> TrainingRates:
    """Rates of training on a split: `rounds` times `round_s` seconds of each, taking turns, after one
    step of each to warm up. Sums over the rounds, so a round that was disturbed counts as it was."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    keep_freed_memory()
    preset, dtype = PRESETS["modern"], fast_dtype(torch.device("cpu"))
    batches = Batches(split, preset.batch, preset.offsets_per_image, seed=0)
    torch.manual_seed(0)
    fast, plain = DistanceNetwork(), DistanceNetwork()
    fast = fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(fast, preset)
    plain_optimizer = make_optimizer(plain, preset)
    samples = batches.batch_size * preset.offsets_per_image
    fast_steps = plain_samples = step = 0
    fast_s = plain_s = 0.0
    train_step(fast, optimizer, batches(0), dtype, preset.clip)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(rounds):
            following = pool.submit(batches, step + 1)
            begun = time.perf_counter()
            while time.perf_counter() - begun < round_s:
                step += 1
                batch, following = following.result(), pool.submit(batches, step + 1)
                train_step(fast, optimizer, batch, dtype, preset.clip)
                fast_steps += 1
            fast_s += time.perf_counter() - begun
            batch = following.result()
            every = [(i, k) for i in range(len(batch.depth)) for k in range(batch.actions.shape[1])]
            begun = time.perf_counter()
            for done, (i, k) in enumerate(every, 1):
                here = slice(i, i + 1), slice(k, k + 1)
                predicted = tiled_forward(plain, batch.depth[here[0]], batch.actions[here])
                loss = (predicted - batch.distance[here]).abs().mean() / LENGTH_SCALE_M
                torch.autograd.backward(loss / samples)
                plain_samples += 1
                if time.perf_counter() - begun > round_s or done == len(every):
                    break
            plain_optimizer.step()
            plain_optimizer.zero_grad(set_to_none=True)
            plain_s += time.perf_counter() - begun
    fast_rate = fast_steps * samples / fast_s
    return TrainingRates(
        images_per_s=fast_steps * batches.batch_size / fast_s,
        samples_per_s=fast_rate,
        plain_samples_per_s=plain_samples / plain_s,
        ratio=fast_rate / (plain_samples / plain_s),
        batch=batches.batch_size,
        offsets_per_image=preset.offsets_per_image,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        rounds=rounds,
    )


@dataclass(frozen=True)
class TrainingBenchOptions:
    """Images and samples a second of train.fit against a plain per-sample loop, on the CPU.

    Example: python -m bench.training --rounds 3
    """

    data: Path | None = None
    """Dataset to train on. Default: a small fresh one."""
    rounds: int = 5
    """Turns of each."""
    round_s: float = 2.0
    """Length of a turn, seconds."""
    threads: int = 0
    """CPU threads, 0 for all cores."""
    out: Path | None = None
    """Folder of training.json and training.png; default runs/training/<time>/."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 < self.round_s <= 600 or self.threads < 0:
            raise DatasetError(
                f"--rounds {self.rounds} and --round-s {self.round_s} must be above 0 (600 s at most), "
                f"--threads {self.threads} 0 or more"
            )


def run(options: TrainingBenchOptions) -> int:
    out = output_folder("training", options.out)
    with tempfile.TemporaryDirectory(prefix="training-") as temporary:
        data = options.data
        if data is None:
            print("making a small training set", flush=True)
            data = fresh_set(Path(temporary) / "set", 0, views=20, seed=0, train_scenes=8)
        print(f"{2 * options.rounds * options.round_s:.0f} s of training", flush=True)
        rates = measure(open_split(data, "train"), options.rounds, options.round_s, options.threads)
    record = {**asdict(rates), "machine": describe_machine(torch.device("cpu"))}
    write_json(out / "training.json", record)
    _plot(out / "training.png", rates)
    table = Table("", "images/s", "samples/s", title=f"training, {rates.threads} threads")
    fast = f"train.fit, {rates.batch} images x {rates.offsets_per_image} offsets, {rates.dtype}"
    table.add_row(fast, f"{rates.images_per_s:.0f}", f"{rates.samples_per_s:.0f}")
    plain = f"{rates.plain_samples_per_s:.0f}"
    table.add_row("plain loop, one sample at a time, float32", "", plain)
    table.add_row("ratio", "", f"{rates.ratio:.1f}")
    screen().print(table)
    print(f"wrote {out / 'training.json'} and {out / 'training.png'}")
    return 0


def _plot(path: Path, rates: TrainingRates) -> None:
    figure, ax = panels(size_in=(6, 2.4))
    names = ["plain loop", "train.fit"]
    bars = ax.barh(names, [rates.plain_samples_per_s, rates.samples_per_s])
    ax.bar_label(bars, fmt="%.0f", padding=3)
    ax.set(xlabel="samples/s", title=f"Training, same run: {rates.ratio:.1f} times")
    ax.margins(x=0.15)
    save(figure, path, dpi=110)


main = command("bench.training", TrainingBenchOptions, description=__doc__)(run)


if __name__ == "__main__":
    sys.exit(main())
