"""Train the distance network on a dataset: `python -m train.fit DIR`.

Each step draws images, fresh offsets and their true distances (train.batches) and lowers the L1 loss.
A length is given in epochs, steps or minutes; the learning rate is a function of the fraction done, so
a run of so many minutes anneals fully by its deadline whatever the speed of the machine. A run of
epochs or steps is a pure function of its options, and one that was stopped goes on as if it had not
been (`--resume`). Written to the out directory: checkpoint.pt, fit.json (the record), fit.png and
TensorBoard curves.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from sim.dataset import DatasetError, open_split, read_manifest, write_text
from train.batches import Batch, Batches, BatchOptions, Offsets
from train.checkpoint import (
    CHECKPOINT,
    FitError,
    State,
    begin_from,
    resume,
    save_checkpoint,
)
from train.machine import describe_machine, fast_dtype, keep_freed_memory
from train.network import LENGTH_SCALE_M, DistanceNetwork
from train.report import Progress, plot_fit, print_report
from train.validation import ValidationSet, draw_validation_set, full_report, quick_errors

QUICK_IMAGES = 512
"""Test images of the validations during training."""
CURVE_POINTS = 400
"""Points of the training curve kept in the record, at most."""


@dataclass(frozen=True)
class Preset:
    """How the weights move. Rates are for the loss in units of LENGTH_SCALE_M."""

    optimizer: Literal["adamw", "sgd"]
    rate: float
    batch: int
    """Images a step."""
    offsets_per_image: int
    offsets: Offsets
    constant: bool
    """Keep the rate; else warm up linearly, then a cosine to zero."""
    weight_decay: float = 0.0
    momentum: float = 0.9
    clip: float = math.inf
    """Largest norm of a gradient."""


PRESETS = {
    # 64 images: after 64,000 images of 1,500 scenes the error on test objects was 22.2 mm, against
    # 27.6 mm with 256. A step of 64 costs a sixth more time per image.
    "modern": Preset("adamw", 1e-3, 64, 16, "mixed", constant=False, weight_decay=0.01, clip=1.0),
    # Viereck et al. 2017: rate 0.001, momentum 0.9, batches of 1k samples, 10 fixed offsets an image.
    "paper": Preset("sgd", 1e-3, 100, 10, "fixed", constant=True),
}
WARM_UP = 0.02
"""Fraction of a run during which the modern rate rises linearly."""


@dataclass(frozen=True)
class FitOptions:
    """Train the distance network on a dataset made by sim.generate."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder of the dataset."""
    out: Path | None = None
    """Folder of checkpoint, record, plot and curves; default runs/fit/<time>/."""
    epochs: float | None = None
    """Length as passes over all training images; 10 if no length is given."""
    steps: int | None = None
    """Length as optimiser steps."""
    minutes: float | None = None
    """Length as minutes of training; reading the data and the last validation come on top."""
    preset: Literal["modern", "paper"] = "modern"
    """modern: AdamW, warm-up and cosine, mixed offsets; paper: SGD at 0.001, fixed offsets."""
    batch: int | None = None
    """Images a step, instead of the preset's."""
    offsets_per_image: int | None = None
    """Offsets on each image of a step, instead of the preset's."""
    offsets: Offsets | None = None
    """mixed: part uniform in the view, part near the hand and near true grasps; uniform: uniform in
    the view; fixed: uniform, drawn once for each image (the paper). Instead of the preset's."""
    rate: float | None = None
    """Learning rate, instead of the preset's."""
    action_encoding: Literal["double_angle", "raw"] = "double_angle"
    """How theta enters the network."""
    draw: Annotated[BatchOptions, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(
        default_factory=BatchOptions
    )
    seed: int = 0
    """Seed of weights, order, offsets and noise."""
    init: Path | None = None
    """Begin with the weights of this checkpoint (another run's) instead of random ones."""
    resume: bool = False
    """Go on from the checkpoint in --out; every other option must be as it was."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints."""
    validate_minutes: float = 3.0
    """Minutes between quick validations on 512 test images."""
    validation_images: int = 4096
    """Test images of the validation at the end."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the large products in training; auto: bfloat16 where the machine has instructions for it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: cuda if there is a GPU."""
    threads: int = 0
    """CPU threads, 0 for all cores. Bitwise repetition needs the same number."""

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.epochs, self.steps, self.minutes)) > 1:
            raise FitError("give one length only: --epochs, --steps or --minutes")
        for name in (
            "epochs",
            "steps",
            "minutes",
            "batch",
            "offsets_per_image",
            "rate",
            "checkpoint_minutes",
            "validate_minutes",
            "validation_images",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise FitError(f"--{name.replace('_', '-')} {value} must be above 0")
        if self.threads < 0:
            raise FitError(f"--threads {self.threads} must be 0 (all cores) or more")
        if self.resume and self.out is None:
            raise FitError("--resume goes on from a checkpoint: name its folder with --out")

    def resolved(self) -> Preset:
        """The preset with what the options override."""
        values = asdict(PRESETS[self.preset])
        for name in ("batch", "offsets_per_image", "offsets", "rate"):
            if (value := getattr(self, name)) is not None:
                values[name] = value
        return Preset(**values)


def make_optimizer(network: nn.Module, preset: Preset) -> torch.optim.Optimizer:
    """The preset's optimiser; weight decay acts on weights, not on biases."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    biases = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    if preset.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=preset.rate, momentum=preset.momentum)
    return torch.optim.AdamW(
        groups, lr=preset.rate, weight_decay=preset.weight_decay, betas=(0.9, 0.99), fused=True
    )


def learning_rate(preset: Preset, fraction: float) -> float:
    """The rate when a fraction of the run is done."""
    if preset.constant:
        return preset.rate
    if fraction < WARM_UP:
        return preset.rate * max(fraction / WARM_UP, 0.01)
    return preset.rate * 0.5 * (1 + math.cos(math.pi * (fraction - WARM_UP) / (1 - WARM_UP)))


def train_step(
    network: DistanceNetwork,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    dtype: torch.dtype = torch.float32,
    clip: float = math.inf,
) -> float:
    """One step down the L1 loss; returns the loss in metres. Raises FitError if it is not finite."""
    device = batch.depth.device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        predicted = network(batch.depth, batch.actions)
    loss = (predicted - batch.distance).abs().mean() / LENGTH_SCALE_M
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), clip)
    value, norm_value = float(loss.detach()), float(norm)
    if not (math.isfinite(value) and math.isfinite(norm_value)):
        raise FitError(
            f"the loss is {value * LENGTH_SCALE_M} m with a gradient of norm {norm_value}: not finite; "
            "the last checkpoint is kept. Lower --rate, or check the dataset"
        )
    optimizer.step()
    return value * LENGTH_SCALE_M


def identity(
    options: FitOptions, data_id: str, dtype: torch.dtype, init: dict[str, Any] | None
) -> dict[str, Any]:
    """What must agree for a run to be resumed: everything that its weights depend on."""
    names = ("epochs", "steps", "minutes", "preset", "action_encoding", "draw", "seed")
    values = {name: value for name, value in asdict(options).items() if name in names}
    return {
        "data_id": data_id,
        **values,
        **asdict(options.resolved()),
        "dtype": str(dtype),
        "init": init,
    }


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM add themselves to, so that a step is never cut in half."""
    received: list[int] = []
    previous = {
        s: signal.signal(s, lambda number, _frame: received.append(number))
        for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


def train(
    state: State,
    batches: Batches,
    questions: ValidationSet,
    options: FitOptions,
    preset: Preset,
    dtype: torch.dtype,
    out: Path,
    save: Callable[[], None],
) -> int:
    """Run from state.step to the end of the plan; returns the signal that stopped it, or 0."""
    device = next(state.network.parameters()).device
    total_s = math.inf if options.minutes is None else options.minutes * 60
    total = total_steps(options, batches)
    interval = 1 if total is None else max(1, total // CURVE_POINTS)
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=state.step)
    bar = Progress(state, total, total_s, batches)
    begun, elapsed_before = time.perf_counter(), state.elapsed_s
    saved_s = validated_s = state.elapsed_s
    with stop_signals() as signals, ThreadPoolExecutor(1) as pool, contextlib.closing(writer):
        following = pool.submit(batches, state.step)
        while state.elapsed_s < total_s if total is None else state.step < total:
            fraction = state.elapsed_s / total_s if total is None else state.step / total
            rate = learning_rate(preset, fraction)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            batch, following = following.result(), pool.submit(batches, state.step + 1)
            state.losses.append(
                train_step(state.network, state.optimizer, batch.to(device), dtype, preset.clip)
            )
            state.step += 1
            state.elapsed_s = elapsed_before + time.perf_counter() - begun
            if total is None:
                interval = max(1, math.ceil(state.step / state.elapsed_s * total_s / CURVE_POINTS))
            if state.step % interval == 0:
                point = {
                    "step": state.step,
                    "loss_m": sum(state.losses) / len(state.losses),
                    "rate": rate,
                }
                state.curve.append(point)
                state.losses.clear()
                writer.add_scalar("loss_m", point["loss_m"], state.step)
                writer.add_scalar("rate", rate, state.step)
            if state.elapsed_s - validated_s > options.validate_minutes * 60:
                validated_s = state.elapsed_s
                errors = quick_errors(state.network, questions, dtype)
                state.validations.append({"step": state.step, **errors})
                for name, value in errors.items():
                    writer.add_scalar(f"validation/{name}", value, state.step)
            if signals or state.elapsed_s - saved_s > options.checkpoint_minutes * 60:
                saved_s = state.elapsed_s
                save()
            bar.update()
            if signals:
                bar.close()
                return signals[0]
        following.cancel()
    bar.close()
    save()
    return 0


def total_steps(options: FitOptions, batches: Batches) -> int | None:
    """Steps of the plan; None for a plan in minutes."""
    if options.minutes is not None:
        return None
    if options.steps is not None:
        return options.steps
    return max(1, round((options.epochs or 10) * batches.steps_per_epoch))


def run(options: FitOptions) -> int:
    """Train, validate and write the results; returns the exit code."""
    manifest = read_manifest(options.data)
    split, test = open_split(options.data, "train"), open_split(options.data, "test")
    device = torch.device(options.device if options.device != "auto" else _best_device())
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FitError("--device cuda: torch sees no GPU here; use --device cpu")
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32; on a CPU float32 stays exact
    keep_freed_memory()
    dtype = fast_dtype(device) if options.precision == "auto" else getattr(torch, options.precision)
    preset = options.resolved()
    out = options.out or Path("runs/fit") / time.strftime("%Y%m%d-%H%M%S")
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not options.resume:
        raise FitError(f"{checkpoint} exists: --resume goes on with it, or give another --out")

    batches = Batches(
        split, preset.batch, preset.offsets_per_image, options.seed, preset.offsets, options.draw
    )
    torch.manual_seed(options.seed)
    network = DistanceNetwork(options.action_encoding)
    init = begin_from(options.init, network) if options.init else None
    network = network.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]
    state = State(network, make_optimizer(network, preset))
    plan = identity(options, manifest["id"], dtype, init)
    if options.resume:
        resume(checkpoint, state, plan, device)
    out.mkdir(parents=True, exist_ok=True)
    print(
        f"{len(split)} training and {len(test)} test images, {batches.batch_size} images x "
        f"{preset.offsets_per_image} offsets a step, {str(dtype).removeprefix('torch.')} on {device}, "
        f"from step {state.step}, to {out}",
        flush=True,
    )
    questions = draw_validation_set(test, QUICK_IMAGES, options.seed)

    def save() -> None:
        save_checkpoint(checkpoint, state, plan, manifest, options.data)

    stopped_by = train(state, batches, questions, options, preset, dtype, out, save)
    if stopped_by:
        print(f"stopped at step {state.step}; go on with --resume --out {out}", file=sys.stderr)
        return 128 + stopped_by
    print("validating on test objects", flush=True)
    report, true, predicted = full_report(network, test, options.validation_images, options.seed)
    images = state.step * batches.batch_size
    record = {
        **plan,
        "training_images": len(split),
        "test_images": len(test),
        "steps": state.step,
        "images_seen": images,
        "samples_seen": images * preset.offsets_per_image,
        "epochs_done": state.step / batches.steps_per_epoch,
        "training_s": state.elapsed_s,
        "images_per_s": images / state.elapsed_s,
        "samples_per_s": images * preset.offsets_per_image / state.elapsed_s,
        "machine": describe_machine(device),
        "validation": report,
        "curve": state.curve,
        "validation_curve": state.validations,
    }
    write_text(out / "fit.json", json.dumps(record, indent=1) + "\n")
    plot_fit(out / "fit.png", record, true, predicted)
    print_report(record)
    print(f"wrote {checkpoint}, {out / 'fit.json'}, {out / 'fit.png'}")
    return 0


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    try:
        code = run(tyro.cli(FitOptions, prog="python -m train.fit", description=__doc__))
    except (FitError, DatasetError, ValueError) as error:
        print(f"train.fit: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:  # outside the training loop, which ends by itself
        print("train.fit: interrupted; a checkpoint that was written is whole", file=sys.stderr)
        code = 128 + signal.SIGINT
    sys.exit(code)


if __name__ == "__main__":
    main()
