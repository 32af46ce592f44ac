"""Write a trained network as the one model file: `python -m train.export CHECKPOINT`.

Before the file is put in its place it is run by ONNX Runtime and compared with the PyTorch module, and the
paper's network with its plain tiled form, on random and on real views; it is not written if they disagree.
A field network's spread is calibrated first, on test views of the training set: multiplied so that it holds
95 % of their errors. The training record is written beside the file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import torch
except ImportError as error:
    if __name__ != "__main__":
        raise
    raise SystemExit(
        f"train.export needs PyTorch ({error}): pip install 'grasp-servo[train]'"
    ) from None

import numpy as np
import onnxruntime
import tyro
from numpy.typing import NDArray

from rt.distance.contract import Contract, read_model
from rt.distance.engine import build_engine, require_buildable
from rt.distance.graph import write_model
from rt.hand import Hand
from rt.tools.command import command
from rt.tools.files import RESULTS_BYTES, require_room, whole, write_json
from rt.view import View
from sim.dataset.store import DatasetError, Split, open_split, read_manifest
from train.calibration import spread_factor
from train.checkpoint import load_checkpoint, network_of
from train.field import SLOPE, FieldNetwork, field_predictor
from train.network import DistanceNetwork, folded_weights, tiled_forward
from train.offsets import uniform_offsets
from train.validation import draw_validation_set

TOLERANCE_M = 1e-5
PROBABILITY_TOLERANCE = 1e-4
CALIBRATION_IMAGES = 4096
"""Test views of the training set that a spread is calibrated on."""
CHECK_ACTIONS = 16


class ExportError(ValueError):
    """A checkpoint that cannot become a model file."""


class MismatchError(RuntimeError):
    """The exported graph computes other values than the network."""


@dataclass(frozen=True)
class ExportOptions:
    """Turn a checkpoint of train.fit into a model file."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint.pt of a training run, or its folder."""
    out: Path | None = None
    """The file to write; default distance.onnx, or field.onnx, beside the checkpoint."""
    data: Path | None = None
    """Dataset whose test views are used in the comparison; default the one trained on, if still there."""
    tensorrt: bool = False
    """Also build a TensorRT engine of the file, into the cache that backend `tensorrt` opens."""
    precision: Literal["fp32", "tf32", "fp16"] = "fp32"
    """Arithmetic of the engine; rt.distance names them float32, tf32 and half."""
    target: str | None = None
    """With tensorrt_rtx on a machine without a GPU: the compute capability to build for, such as SM89."""
    engines: Path | None = None
    """Folder of the engine; default ~/.cache/grasp-servo, where backend `tensorrt` looks."""
    check_images: int = 16
    """Views of each kind, random and real, in the comparison."""
    seed: int = 0
    """Seed of the random views and actions of the comparison."""

    def __post_init__(self) -> None:
        if self.check_images < 1:
            raise ExportError(f"--check-images {self.check_images} must be 1 or more")


def contract_of(
    saved: dict[str, Any], record: dict[str, Any], network: DistanceNetwork | FieldNetwork
) -> Contract:
    """Contract of the model: hand, view and training set from the manifest, architecture from the network."""
    manifest = saved["manifest"]
    try:
        hand, view = Hand(**manifest["params"]["hand"]), View(**manifest["params"]["view"])
    except (KeyError, TypeError) as error:
        raise ExportError(
            f"the manifest of the training set does not describe hand and view ({error}); "
            "generate the set again with sim.generate and train on it"
        ) from error
    short = {
        k: v for k, v in record.items() if k not in ("curve", "validation_curve", "validation")
    }
    about: dict[str, Any] = {
        "hand": hand,
        "training_set": manifest["id"],
        "view": view,
        "record": short,
        "architecture": network.architecture,
    }
    if isinstance(network, FieldNetwork):
        shape = network.shape
        about |= {"cells": shape.cells, "cell_m": shape.cell_m, "distance_scale_m": shape.scale_m}
        return Contract(**about, leaky_slope=SLOPE)
    return Contract(**about, **network.settings)


def random_views(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Views (count, 64, 64) m that stress a comparison: noise, holes; the first empty, then near, far."""
    depth = rng.uniform(0.05, 0.35, (count, 64, 64)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    for i, value in enumerate((0.0, 0.01, 0.6)[:count]):
        depth[i] = value
    return depth


@torch.no_grad()
def compare(
    path: Path,
    network: DistanceNetwork | FieldNetwork,
    depth: NDArray[np.float32],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Largest differences of the file's outputs from the module's, and of the paper's network from the
    plain tiled one's: in metres, of the probability without a unit."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    worst: dict[str, float] = {}
    for view in depth:
        actions = uniform_offsets((CHECK_ACTIONS,), rng)
        actions[0] = 0
        actions[1, 2], actions[2, 2] = -np.pi / 2, np.pi / 2
        for name, (output, other) in _expected(network, view, actions).items():
            (found,) = session.run([output], {"depth": view[None, None], "actions": actions})
            difference = float(np.abs(found - other).max())
            # Not max(): a difference that is not a number must not be lost.
            so_far = worst.get(name, 0.0)
            worst[name] = difference if not difference <= so_far else so_far
    return worst


def _expected(
    network: DistanceNetwork | FieldNetwork,
    view: NDArray[np.float32],
    actions: NDArray[np.float32],
) -> dict[str, tuple[str, NDArray[np.float32]]]:
    """Expected outputs by their label in the report: name of the file's output, and its values (N,)."""
    if isinstance(network, FieldNetwork):
        said = field_predictor(network)(view[None], actions[None])
        assert said.probability is not None and said.spread is not None
        return {
            "module": ("distance", said.distance[0]),
            "probability": ("probability", said.probability[0]),
            "spread": ("spread", said.spread[0]),
        }
    d, a = torch.from_numpy(view)[None], torch.from_numpy(actions)[None]
    return {
        "module": ("distance", network(d, a)[0].numpy()),
        "tiled": ("distance", tiled_forward(network, d, a)[0].numpy()),
    }


def calibrate(network: FieldNetwork, test: Split, seed: int) -> float:
    """Multiply the network's spread so that it holds 95 % of the errors on views of `test`; returns by how
    much."""
    questions = draw_validation_set(test, CALIBRATION_IMAGES, seed)
    factor = spread_factor(
        questions.distance, field_predictor(network)(questions.depth, questions.actions)
    )
    with torch.no_grad():
        network.head3.bias[2] += float(np.log(factor))
    return factor


def field_weights(network: FieldNetwork) -> dict[str, NDArray[np.float32]]:
    """Weights by the names of rt.distance.field_shapes."""
    return {
        name: np.ascontiguousarray(p.detach().cpu().numpy(), dtype=np.float32)
        for name, p in network.named_parameters()
    }


def run(options: ExportOptions) -> int:
    if options.tensorrt:
        require_buildable(options.target)
    elif options.target is not None:
        raise ExportError("--target needs --tensorrt")
    checkpoint = options.checkpoint
    if checkpoint.is_dir():
        checkpoint = checkpoint / "checkpoint.pt"
    saved = load_checkpoint(checkpoint)
    network = network_of(saved)
    field = isinstance(network, FieldNetwork)
    record = read_record(checkpoint, saved)
    out = options.out or checkpoint.with_name("field.onnx" if field else "distance.onnx")
    if out.suffix != ".onnx":
        raise ExportError(f"--out {out} must end in .onnx")
    rng = np.random.default_rng(options.seed)
    views = {"random": random_views(options.check_images, rng)}
    if (test := test_views(options, saved)) is not None:
        spread_out = np.linspace(0, len(test) - 1, options.check_images).astype(np.int64)
        views["real"] = test.depth_m(spread_out)
    if isinstance(network, FieldNetwork):
        if test is None:
            raise ExportError(
                "a field network's spread is calibrated on test views of its training set; give --data"
            )
        record["spread_factor"] = calibrate(network, test, options.seed)

    weights = (
        field_weights(network) if isinstance(network, FieldNetwork) else folded_weights(network)
    )
    size = sum(array.nbytes for array in weights.values())
    require_room(out.parent, size + RESULTS_BYTES, "the model")
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out, size) as beside:
        write_model(beside, contract_of(saved, record, network), weights)
        read_model(beside)
        for kind, depth in views.items():
            worst = compare(beside, network, depth, rng)
            beyond = (
                f"in its probability by {worst['probability']:.1e}, in its spread by {worst['spread']:.1e} m"
                if field
                else f"from the plain tiled network by {worst['tiled']:.1e} m"
            )
            print(
                f"{len(depth)} {kind} views x {CHECK_ACTIONS} actions: ONNX Runtime differs from the "
                f"PyTorch module by at most {worst['module']:.1e} m, {beyond}"
            )
            for name, difference in worst.items():
                most = PROBABILITY_TOLERANCE if name == "probability" else TOLERANCE_M
                if not difference <= most:  # written so that NaN is refused too
                    unit = "" if name == "probability" else " m"
                    raise MismatchError(
                        f"the exported graph differs from the network ({name}) by {difference:.1e}{unit} "
                        f"on {kind} views, more than {most:.0e}; nothing was written"
                    )
    write_json(out.with_suffix(".json"), record)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB) and {out.with_suffix('.json')}")
    if options.tensorrt:
        engine = build_engine(out, options.engines, options.precision, target=options.target)
        print(f"wrote {engine} ({engine.stat().st_size / 1e6:.1f} MB)")
    return 0


def read_record(checkpoint: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """The record of a finished run, or what the checkpoint of an unfinished one says."""
    path = checkpoint.with_name("fit.json")
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text())
        if record.get("steps") == saved["step"]:
            return record
    return {
        **saved["run"],
        "steps": saved["step"],
        "training_s": saved["elapsed_s"],
        "finished": False,
    }


def test_views(options: ExportOptions, saved: dict[str, Any]) -> Split | None:
    """The test split of the training set; None (said on screen) if it is not there."""
    folder = options.data or Path(saved["data"])
    try:
        if read_manifest(folder)["id"] != saved["manifest"]["id"]:
            raise DatasetError(f"{folder} is not the set that the network was trained on")
        return open_split(folder, "test")
    except DatasetError as error:
        if options.data is not None:
            raise
        print(f"no real views in the comparison: {error}", file=sys.stderr)
        return None


main = command("train.export", ExportOptions, failures=(MismatchError,), description=__doc__)(run)


if __name__ == "__main__":
    sys.exit(main())
