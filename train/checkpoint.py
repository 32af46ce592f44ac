"""Checkpoints of a training run: all that a run is, written so that a kill at any instant loses none."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel

from rt.distance.contract import ModelError, read_model
from rt.tools.files import whole
from train.architectures import build
from train.field import FieldNetwork, FieldShape
from train.network import DistanceNetwork

CHECKPOINT_FORMAT = "grasp-checkpoint/1"
CHECKPOINT = "checkpoint.pt"

_BEFORE = {
    "batches": "host",
    "init": None,
    "model": "paper",
    "field": None,
    "average": 0.0,
    "endless": False,
}
"""Values of a run whose checkpoint is older than these entries."""


class FitError(ValueError):
    """A training run that cannot start or go on."""


@dataclass
class TrainingState:
    """A run in progress; all of it is in a checkpoint."""

    network: DistanceNetwork | FieldNetwork
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None = None
    """Moving average of the weights, where the preset asks for one."""
    step: int = 0
    elapsed_s: float = 0.0
    """Seconds of training, over all sessions of this run."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """step, loss_m (mean since the point before), rate."""
    losses: list[float] = field(default_factory=list)
    """Losses in metres since the last point of the curve."""
    validations: list[dict[str, float]] = field(default_factory=list)
    """step, all_m, near_m."""

    @property
    def result(self) -> DistanceNetwork | FieldNetwork:
        """The network that the run has come to."""
        if self.average is None:
            return self.network
        return cast(DistanceNetwork | FieldNetwork, self.average.module)


def save_checkpoint(
    path: Path, state: TrainingState, run: dict[str, Any], manifest: dict[str, Any], data: Path
) -> None:
    """Write a checkpoint beside and rename it, so that the one before stands until this is whole.

    run: what its weights depend on; manifest and data: the training set and where it was.
    """
    with whole(path, checkpoint_bytes(state)) as beside:
        torch.save(
            {
                "format": CHECKPOINT_FORMAT,
                "run": run,
                "manifest": manifest,
                "data": str(data.resolve()),
                "network": state.network.state_dict(),
                "average": None if state.average is None else state.average.state_dict(),
                "architecture": state.network.architecture,
                "settings": state.network.settings,
                "optimizer": state.optimizer.state_dict(),
                "step": state.step,
                "elapsed_s": state.elapsed_s,
                "curve": state.curve,
                "losses": state.losses,
                "validations": state.validations,
            },
            beside,
        )
        with beside.open("rb") as file:
            os.fsync(file.fileno())


def checkpoint_bytes(state: TrainingState) -> int:
    """Size of a checkpoint, nearly: the weights, their average, and two moments of each in the optimizer."""
    weights = sum(p.numel() * p.element_size() for p in state.network.parameters())
    return weights * (3 + (state.average is not None))


def load_checkpoint(path: Path, device: torch.device | None = None) -> dict[str, Any]:
    """The contents of a checkpoint; raises FitError if it is missing, damaged or foreign."""
    if not path.is_file():
        raise FitError(f"no checkpoint {path}; train.fit makes one")
    try:
        saved = torch.load(path, map_location=device or "cpu", weights_only=True)
    except Exception as error:  # torch's own words advise to load it unsafely
        damaged = " (a damaged one, perhaps cut short)" if zipfile.is_zipfile(path) else ""
        raise FitError(
            f"{path} is not a checkpoint{damaged}; give the checkpoint.pt of a train.fit run"
        ) from error
    if not isinstance(saved, dict) or saved.get("format") != CHECKPOINT_FORMAT:
        raise FitError(f"{path} is not a {CHECKPOINT_FORMAT} file; train again")
    return saved


def kind_of(saved: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Architecture and settings of a checkpoint's network, also of one written before there were two."""
    if "architecture" in saved:
        return saved["architecture"], saved["settings"]
    return "paper", {name: saved[name] for name in ("action_encoding", "leaky_slope")}


def network_of(saved: dict[str, Any]) -> DistanceNetwork | FieldNetwork:
    """The float32 network that the run of a checkpoint has come to."""
    network = build(*kind_of(saved))
    if saved.get("average") is None:
        network.load_state_dict(saved["network"])
    else:
        average = AveragedModel(network)
        average.load_state_dict(saved["average"])
        network = cast(DistanceNetwork | FieldNetwork, average.module)
    return network.float().eval()


def _exported(path: Path) -> tuple[FieldNetwork, dict[str, Any]]:
    """The field network of a model file, and its training set and hash. Raises FitError for another kind."""
    try:
        contract, weights = read_model(path)
    except ModelError as error:
        raise FitError(f"--init: {error}") from error
    if contract.architecture != "field":
        raise FitError(
            f"--init {path}: a model file of the {contract.architecture} network holds its normalisation "
            "folded in; give the checkpoint.pt that it was exported from"
        )
    widths = tuple(
        len(weights[f"{name}.bias"]) for name in ("in1", "in2", "down2", "down3", "down4")
    )
    shape = FieldShape(
        contract.cells,
        contract.cell_m,
        cast(tuple[int, int, int, int, int], widths),
        len(weights["out.bias"]),
        len(weights["head1.bias"]),
        contract.distance_scale_m,
    )
    network = FieldNetwork(shape)
    network.load_state_dict({name: torch.from_numpy(w.copy()) for name, w in weights.items()})
    return network, {"data_id": contract.training_set, "weights_sha256": contract.weights_sha256}


def begin_from(path: Path, network: DistanceNetwork | FieldNetwork) -> dict[str, Any]:
    """Give a new network the weights of a checkpoint, of any run, or of a field network's model file.

    Returns where they came from. Raises FitError if the networks are not of one kind.
    """
    other: DistanceNetwork | FieldNetwork
    if path.suffix == ".onnx":
        other, began = _exported(path)
    else:
        saved = load_checkpoint(path)
        other, run = network_of(saved), saved["run"]
        images = saved["step"] * run["batch"]
        began = {"data_id": run["data_id"], "steps": saved["step"], "images_seen": images}
        if run.get("init") is not None:
            began["init"] = run["init"]
    was = {"architecture": other.architecture, **other.settings}
    now: dict[str, Any] = {"architecture": network.architecture, **network.settings}
    for name in {**now, **was}:
        if was.get(name) != now.get(name):
            raise FitError(
                f"{path}: {name} is {was.get(name)}, here {now.get(name)}; "
                "begin from a network of the same kind, or without --init"
            )
    network.load_state_dict(other.state_dict())
    return began


def resume(path: Path, state: TrainingState, run: dict[str, Any], device: torch.device) -> None:
    """Fill the state from a checkpoint of the same run; raises FitError naming what differs."""
    saved = load_checkpoint(path, device)
    was: dict[str, Any] = {**_BEFORE, **saved["run"]}
    differences = [
        f"{name}: was {was.get(name)!r}, now {run.get(name)!r}"
        for name in sorted(was.keys() | run.keys())
        if was.get(name) != run.get(name)
    ]
    if differences:
        raise FitError(
            f"{path} is of another run ({'; '.join(differences)}); "
            "resume with its options, or train anew in another --out"
        )
    state.network.load_state_dict(saved["network"])
    if state.average is not None:
        state.average.load_state_dict(saved["average"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step, state.elapsed_s = saved["step"], saved["elapsed_s"]
    state.curve, state.losses = saved["curve"], saved["losses"]
    state.validations = saved["validations"]
