"""Train the distance network on a dataset: `python -m train.fit DIR`.

Each step draws images, fresh offsets and their true distances (train.batches) and lowers the L1 loss.
A length is given in epochs, steps or minutes; the learning rate is a function of the fraction done, so
a run of so many minutes anneals fully by its deadline whatever the speed of the machine. A run of
epochs or steps is a pure function of its options, and one that was stopped goes on as if it had not
been (`--resume`). Written to the out directory: checkpoint.pt, fit.json (the record), fit.png and
TensorBoard curves.

On a GPU images, grasps and labels stay there (train.device_batches). On several:
`torchrun --nproc-per-node 4 -m train.fit DIR`; the processes share each batch, and its gradient is that
of one process.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import torch
except ImportError as error:
    if __name__ != "__main__":
        raise
    raise SystemExit(
        f"train.fit needs PyTorch ({error}): pip install 'grasp-servo[train]'"
    ) from None

import tyro
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from rt.tools.command import command
from rt.tools.files import RESULTS_BYTES, require_room, write_json
from rt.tools.process import signals_caught
from sim.dataset.store import Split, open_split, read_manifest
from train.architectures import Architecture, asker, loss_of
from train.batches import Batch, Batches, Steps
from train.checkpoint import (
    CHECKPOINT,
    FitError,
    TrainingState,
    begin_from,
    checkpoint_bytes,
    resume,
    save_checkpoint,
)
from train.device_batches import (
    DeviceBatches,
    FieldDeviceBatches,
    ResidentSteps,
    resident_bytes,
)
from train.endless import EndlessBatches, EndlessOptions, FreshScenes
from train.field import FieldNetwork, FieldShape
from train.field_batches import FieldBatch, FieldBatches, FieldDraw
from train.machine import describe_machine, fast_dtype, keep_freed_memory
from train.network import DistanceNetwork
from train.offsets import BatchOptions, Offsets
from train.presets import PRESETS, Preset, learning_rate, make_optimizer
from train.report import Progress, plot_fit, print_report
from train.team import Team, assemble
from train.validation import draw_validation_set, full_report, quick_errors

QUICK_IMAGES = 512
"""Test images of the validations during training."""
CURVE_POINTS = 400
"""Points of the training curve kept in the record, at most."""

AnyBatches = Steps | EndlessBatches


@dataclass(frozen=True)
class FieldOptions:
    """Options of the field network and its training views, for `--model field`."""

    shape: FieldShape = field(default_factory=FieldShape)
    draw: FieldDraw = field(default_factory=FieldDraw)


@dataclass(frozen=True)
class FitOptions:
    """Train the distance network on a dataset made by sim.generate.

    Example: python -m train.fit data/small --minutes 5 --out runs/small
    """

    data: Annotated[Path, tyro.conf.Positional]
    """Folder of the dataset."""
    model: Architecture = "paper"
    """paper: the network of Viereck et al. 2017; field: the metric map's (train.field)."""
    out: Path | None = None
    """Folder of checkpoint, record, plot and curves; default runs/fit/<time>/."""
    epochs: float | None = None
    """Length as passes over all training images. No length: 10, or the paper's 900,000 steps."""
    steps: int | None = None
    """Length as optimiser steps."""
    minutes: float | None = None
    """Length as minutes of training; reading the data and the last validation come on top."""
    preset: Literal["modern", "paper"] = "modern"
    """modern: AdamW, warm-up and cosine, mixed offsets; paper: SGD at 0.001, fixed offsets (the paper's
    network only)."""
    batch: int | None = None
    """Images a step, of all processes together, instead of the preset's."""
    offsets_per_image: int | None = None
    """Offsets on each image of a step, instead of the preset's."""
    offsets: Offsets | None = None
    """mixed: part uniform in the view, part near the hand and near true grasps; uniform: uniform in
    the view; fixed: uniform, drawn once for each image (the paper). Instead of the preset's."""
    rate: float | None = None
    """Learning rate, instead of the preset's."""
    action_encoding: Literal["double_angle", "raw"] = "double_angle"
    """Encoding of theta at the input of the network."""
    draw: Annotated[BatchOptions, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(
        default_factory=BatchOptions
    )
    fresh: Annotated[EndlessOptions, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = field(
        default_factory=EndlessOptions
    )
    field: Annotated[FieldOptions, tyro.conf.AvoidSubcommands] = field(default_factory=FieldOptions)
    seed: int = 0
    """Seed of weights, order, offsets and noise."""
    init: Path | None = None
    """Begin with the weights of this checkpoint, or of this field network's model file (such as the shipped
    rt/models/field.onnx), instead of random ones."""
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
    """Device of the training; auto: cuda if there is a GPU."""
    batches: Literal["auto", "host", "device"] = "auto"
    """Maker of the batches. host: NumPy, from the files; device: torch, on the device of the training with
    all images in its memory; auto: device on a GPU with enough memory, else host."""
    threads: int = 0
    """CPU threads of each process, 0 for all cores, shared. Bitwise repetition needs the same number."""

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
        if self.model == "field":
            for name, asked in (
                ("preset paper", self.preset == "paper"),
                ("offsets", self.offsets is not None),
                ("action-encoding", self.action_encoding != "double_angle"),
            ):
                if asked:
                    raise FitError(f"--{name} is for --model paper; leave it out")
        if self.resume and self.out is None:
            raise FitError("--resume goes on from a checkpoint: name its folder with --out")

    def resolved(self) -> Preset:
        """The preset with what the options override."""
        values = asdict(PRESETS["field" if self.model == "field" else self.preset])
        for name in ("batch", "offsets_per_image", "offsets", "rate"):
            if (value := getattr(self, name)) is not None:
                values[name] = value
        return Preset(**values)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch | FieldBatch,
    dtype: torch.dtype = torch.float32,
    clip: float = math.inf,
) -> float:
    """One step down the loss; returns the mean error in metres. Raises FitError if it is not finite."""
    device = batch.image.device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        outputs = network(batch.image, batch.actions)
    loss, error_m = loss_of(getattr(network, "module", network), outputs, batch.distance)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    # Of several processes each sees its own loss and the same averaged gradient: all stop or none.
    norm = nn.utils.clip_grad_norm_(network.parameters(), clip)
    value_m, norm_value = torch.stack([error_m.detach(), norm]).tolist()
    if not math.isfinite(norm_value):
        raise FitError(
            f"the error is {value_m} m with a gradient of norm {norm_value}: not finite; "
            "the last checkpoint is kept. Lower --rate, or check the dataset"
        )
    optimizer.step()
    return float(value_m)


def identity(
    options: FitOptions,
    data_id: str,
    dtype: torch.dtype,
    sampler: str,
    init: dict[str, Any] | None,
) -> dict[str, Any]:
    """Values that must be equal for a run to be resumed: everything that its weights depend on."""
    names = ("epochs", "steps", "minutes", "preset", "action_encoding", "draw", "seed", "model")
    values = {name: value for name, value in asdict(options).items() if name in names}
    values["field"] = asdict(options.field) if options.model == "field" else None
    plan = {**asdict(options.resolved()), **values}  # `steps` as asked, over the preset's default
    about = {"data_id": data_id, "init": init, "endless": options.fresh.endless, **plan}
    return {**about, "dtype": str(dtype), "batches": sampler}


def train(
    state: TrainingState,
    batches: AnyBatches,
    validate: Callable[[], dict[str, float]],
    options: FitOptions,
    preset: Preset,
    dtype: torch.dtype,
    team: Team,
    out: Path,
    save: Callable[[], None],
) -> int:
    """Run from state.step to the end of the plan; returns the signal that stopped it, or 0."""
    device = next(state.network.parameters()).device
    network = team.share(state.network)
    total_s = math.inf if options.minutes is None else options.minutes * 60
    total = total_steps(options, preset, batches.steps_per_epoch)
    interval = 1 if total is None else max(1, total // CURVE_POINTS)
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=state.step) if team.lead else None
    bar = Progress(state, total, total_s, batches) if team.lead else None
    begun, elapsed_before = time.perf_counter(), state.elapsed_s
    saved_s = validated_s = state.elapsed_s
    with (
        signals_caught() as signals,
        ThreadPoolExecutor(1) as pool,
        contextlib.ExitStack() as stack,
    ):
        if writer is not None:
            stack.enter_context(contextlib.closing(writer))
        stack.callback(batches.close)  # else the pool would wait for a batch that nobody needs
        make: Callable[[int], Batch | FieldBatch] = batches
        following = pool.submit(make, state.step)
        while state.elapsed_s < total_s if total is None else state.step < total:
            fraction = state.elapsed_s / total_s if total is None else state.step / total
            rate = learning_rate(preset, fraction)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            batch, following = following.result(), pool.submit(make, state.step + 1)
            loss_m = train_step(network, state.optimizer, batch.to(device), dtype, preset.clip)
            if state.average is not None:
                state.average.update_parameters(state.network)
            state.step += 1
            elapsed_s = elapsed_before + time.perf_counter() - begun
            # One mean for what the processes decide by, so that they stay together.
            loss_m, state.elapsed_s, stop = team.mean(
                [loss_m, elapsed_s, float(bool(signals))], device
            )
            state.losses.append(loss_m)
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
                if writer is not None:
                    writer.add_scalar("loss_m", point["loss_m"], state.step)
                    writer.add_scalar("rate", rate, state.step)
            if state.elapsed_s - validated_s > options.validate_minutes * 60:
                validated_s = state.elapsed_s
                if writer is not None:
                    errors = validate()
                    state.validations.append({"step": state.step, **errors})
                    for name, value in errors.items():
                        writer.add_scalar(f"validation/{name}", value, state.step)
            if stop or state.elapsed_s - saved_s > options.checkpoint_minutes * 60:
                saved_s = state.elapsed_s
                if team.lead:
                    save()
            if bar is not None:
                bar.update()
            if stop:
                break
        following.cancel()
    if bar is not None:
        bar.close()
    if stop_signal := (signals[0] if signals else signal.SIGTERM) if stop else 0:
        return stop_signal
    if team.lead:
        save()
    return 0


def new_network(options: FitOptions) -> DistanceNetwork | FieldNetwork:
    """Random weights of what was asked for, from torch's generator as it stands."""
    if options.model == "field":
        return FieldNetwork(options.field.shape)
    return DistanceNetwork(options.action_encoding)


def averaged(network: nn.Module, preset: Preset) -> AveragedModel | None:
    """The moving average of a network's weights that the preset asks for, if it does."""
    if not preset.average:
        return None
    decay = preset.average

    def mix(mean: Any, new: Any, count: Any) -> None:
        # Young, the mean is over what there is: random weights do not linger in it.
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(mean, new, weight)

    return AveragedModel(network, multi_avg_fn=mix)


def total_steps(options: FitOptions, preset: Preset, steps_per_epoch: int) -> int | None:
    """Steps of the plan; None for a plan in minutes."""
    if options.minutes is not None:
        return None
    if options.steps is not None:
        return options.steps
    if options.epochs is None and preset.steps is not None:
        return preset.steps
    return max(1, round((options.epochs or 10) * steps_per_epoch))


def make_batches(
    split: Split, options: FitOptions, preset: Preset, team: Team, device: torch.device
) -> Steps:
    """The batches of this process: on the device where asked for, or where it is a GPU with room."""
    given = (split, preset.batch, preset.offsets_per_image, options.seed, preset.offsets)
    part = (team.rank, team.size)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    fits = resident_bytes(split) < 0.7 * free
    if options.batches == "device" and not fits:
        raise FitError(
            f"--batches device: the images take {resident_bytes(split) / 1e9:.1f} GB, the GPU has "
            f"{free / 1e9:.1f} GB free; use --batches host"
        )
    on_device = options.batches == "device" or (
        options.batches == "auto" and device.type == "cuda" and fits
    )
    if options.model == "field":
        field = (*given[:4], options.field.shape, options.field.draw, part)
        return FieldDeviceBatches(*field, device=device) if on_device else FieldBatches(*field)
    if on_device:
        return DeviceBatches(*given, options.draw, part, device=device)
    return Batches(*given, options.draw, part)


def run(options: FitOptions) -> int:
    """Train, validate and write the results; returns the exit code."""
    device = torch.device(options.device if options.device != "auto" else _best_device())
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FitError("--device cuda: torch sees no GPU here; use --device cpu")
    with assemble(device) as (team, device):
        return run_on(options, team, device)


def run_on(options: FitOptions, team: Team, device: torch.device) -> int:
    """`run` as one of the processes of a team; the lead alone prints, validates and writes."""
    manifest = read_manifest(options.data)
    split, test = open_split(options.data, "train"), open_split(options.data, "test")
    cores = os.cpu_count() or 1
    own = max(1, cores - options.fresh.workers(cores))
    torch.set_num_threads(options.threads or max(1, own // team.size))
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32; on a CPU float32 stays exact
    keep_freed_memory()
    dtype = fast_dtype(device) if options.precision == "auto" else getattr(torch, options.precision)
    preset = options.resolved()
    out = options.out or Path("runs/fit") / time.strftime("%Y-%m-%d_%H-%M-%S")
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not options.resume:
        raise FitError(f"{checkpoint} exists: --resume goes on with it, or give another --out")

    stored = make_batches(split, options, preset, team, device)
    sampler = "device" if isinstance(stored, ResidentSteps) else "host"
    batches: AnyBatches = stored
    if options.fresh.endless:
        scenes = FreshScenes(options.data, out / "fresh", options.fresh, cores, team)
        batches = EndlessBatches(
            stored, scenes, lambda made: make_batches(made, options, preset, team, device)
        )
    torch.manual_seed(options.seed)
    network = new_network(options)
    init = begin_from(options.init, network) if options.init else None
    network = network.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]
    state = TrainingState(network, make_optimizer(network, preset), averaged(network, preset))
    plan = identity(options, manifest["id"], dtype, sampler, init)
    if options.resume:
        resume(checkpoint, state, plan, device)
    if team.lead:
        # Two, for the one before stands until the next is whole; and the report.
        room = 2 * checkpoint_bytes(state) + RESULTS_BYTES
        require_room(out, room, "a checkpoint and the one before")
        out.mkdir(parents=True, exist_ok=True)
        print(
            f"{len(split)} training and {len(test)} test images, {batches.batch_size} images x "
            f"{preset.offsets_per_image} offsets a step, {str(dtype).removeprefix('torch.')} on "
            f"{team.size} x {device}, from step {state.step}, to {out}",
            flush=True,
        )
    questions = draw_validation_set(test, QUICK_IMAGES, options.seed)

    def validate() -> dict[str, float]:
        return quick_errors(asker(state.result, dtype), questions)

    def save() -> None:
        save_checkpoint(checkpoint, state, plan, manifest, options.data)

    stopped_by = train(state, batches, validate, options, preset, dtype, team, out, save)
    if stopped_by:
        if team.lead:
            print(f"stopped at step {state.step}; go on with --resume --out {out}", file=sys.stderr)
        return 128 + stopped_by
    if not team.lead:
        return 0
    print("validating on test objects", flush=True)
    report, true, predicted = full_report(
        asker(state.result), test, options.validation_images, options.seed
    )
    images = state.step * batches.batch_size
    record = {
        **plan,
        "training_images": len(split),
        "test_images": len(test),
        "data_params": manifest["params"],
        "steps": state.step,
        "images_seen": images,
        "samples_seen": images * preset.offsets_per_image,
        "epochs_done": state.step / batches.steps_per_epoch,
        "waited_s": batches.waited_s,
        "training_s": state.elapsed_s,
        "images_per_s": images / state.elapsed_s,
        "samples_per_s": images * preset.offsets_per_image / state.elapsed_s,
        "machine": {**describe_machine(device), "processes": team.size},
        "validation": report,
        "curve": state.curve,
        "validation_curve": state.validations,
    }
    write_json(out / "fit.json", record)
    plot_fit(out / "fit.png", record, true, predicted)
    print_report(record)
    print(f"wrote {checkpoint}, {out / 'fit.json'}, {out / 'fit.png'}")
    return 0


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# Ctrl-C within the training loop ends the loop, and is not seen here.
main = command(
    "train.fit",
    FitOptions,
    interrupted="a checkpoint that was written is complete",
    description=__doc__,
)(run)


if __name__ == "__main__":
    sys.exit(main())
