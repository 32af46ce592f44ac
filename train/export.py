"""Write a trained network as the one model file: `python -m train.export CHECKPOINT`.

Before the file is put in its place it is run by ONNX Runtime and compared with the PyTorch module and
with the paper's plain tiled network, on random and on real views; it is not written if they disagree.
The training record is written beside it.
"""

from __future__ import annotations

import json
import os
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

from rt.distance.contract import Contract, DistanceError, read_model
from rt.distance.engine import build_engine
from rt.distance.graph import write_model
from rt.hand import Hand
from rt.tools.files import write_json
from rt.view import View
from sim.dataset.store import DatasetError, open_split, read_manifest
from train.checkpoint import FitError, load_checkpoint
from train.network import DistanceNetwork, folded_weights, tiled_forward
from train.offsets import uniform_offsets

TOLERANCE_M = 1e-5
CHECK_ACTIONS = 16


class ExportError(ValueError):
    """A checkpoint that cannot become a model file."""


@dataclass(frozen=True)
class ExportOptions:
    """Turn a checkpoint of train.fit into a model file."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint.pt of a training run, or its folder."""
    out: Path | None = None
    """The file to write; default distance.onnx beside the checkpoint."""
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


def load_network(saved: dict[str, Any]) -> DistanceNetwork:
    """The float32 network of a checkpoint's contents."""
    network = DistanceNetwork(saved["action_encoding"], saved["leaky_slope"])
    network.load_state_dict(saved["network"])
    return network.float().eval()


def contract_of(saved: dict[str, Any], record: dict[str, Any]) -> Contract:
    """What the model was made for, from the manifest of its training set."""
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
    return Contract(
        hand=hand,
        training_set=manifest["id"],
        view=view,
        action_encoding=saved["action_encoding"],
        leaky_slope=saved["leaky_slope"],
        record=short,
    )


def random_views(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Views (count, 64, 64) m that stress a comparison: noise, holes; the first empty, then near, far."""
    depth = rng.uniform(0.05, 0.35, (count, 64, 64)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    for i, value in enumerate((0.0, 0.01, 0.6)[:count]):
        depth[i] = value
    return depth


@torch.no_grad()
def compare(
    path: Path, network: DistanceNetwork, depth: NDArray[np.float32], rng: np.random.Generator
) -> dict[str, float]:
    """Largest differences in metres of the file's output from the module's and the tiled network's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    worst = {"module": 0.0, "tiled": 0.0}
    for view in depth:
        actions = uniform_offsets((CHECK_ACTIONS,), rng)
        actions[0] = 0
        actions[1, 2], actions[2, 2] = -np.pi / 2, np.pi / 2
        (onnx_d,) = session.run(["distance"], {"depth": view[None, None], "actions": actions})
        d, a = torch.from_numpy(view)[None], torch.from_numpy(actions)[None]
        for name, other in (("module", network(d, a)), ("tiled", tiled_forward(network, d, a))):
            difference = float(np.abs(onnx_d - other[0].numpy()).max())
            # Not max(): a difference that is not a number must not be lost.
            worst[name] = difference if not difference <= worst[name] else worst[name]
    return worst


def run(options: ExportOptions) -> int:
    checkpoint = options.checkpoint
    if checkpoint.is_dir():
        checkpoint = checkpoint / "checkpoint.pt"
    saved = load_checkpoint(checkpoint)
    network = load_network(saved)
    record = read_record(checkpoint, saved)
    out = options.out or checkpoint.with_name("distance.onnx")
    if out.suffix != ".onnx":
        raise ExportError(f"--out {out} must end in .onnx")
    rng = np.random.default_rng(options.seed)
    views = {"random": random_views(options.check_images, rng)}
    if (real := real_views(options, saved)) is not None:
        views["real"] = real

    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.stem}.{os.getpid()}.onnx")
    try:
        write_model(beside, contract_of(saved, record), folded_weights(network))
        read_model(beside)
        for kind, depth in views.items():
            worst = compare(beside, network, depth, rng)
            print(
                f"{len(depth)} {kind} views x {CHECK_ACTIONS} actions: ONNX Runtime differs from the "
                f"PyTorch module by at most {worst['module']:.1e} m, from the plain tiled network by "
                f"{worst['tiled']:.1e} m"
            )
            if not max(worst.values()) <= TOLERANCE_M or not np.isfinite(sum(worst.values())):
                raise ExportError(
                    f"the exported graph and the network differ by {max(worst.values()):.1e} m on {kind} "
                    f"views, more than {TOLERANCE_M:.0e} m; nothing was written"
                )
        os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
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


def real_views(options: ExportOptions, saved: dict[str, Any]) -> NDArray[np.float32] | None:
    """Test views of the training set, spread over the split; None (said on screen) if it is not there."""
    folder = options.data or Path(saved["data"])
    try:
        if read_manifest(folder)["id"] != saved["manifest"]["id"]:
            raise DatasetError(f"{folder} is not the set that the network was trained on")
        test = open_split(folder, "test")
    except DatasetError as error:
        if options.data is not None:
            raise
        print(f"no real views in the comparison: {error}", file=sys.stderr)
        return None
    return test.depth_m(np.linspace(0, len(test) - 1, options.check_images).astype(np.int64))


def main() -> None:
    try:
        code = run(tyro.cli(ExportOptions, prog="python -m train.export", description=__doc__))
    except (ExportError, FitError, DatasetError, DistanceError) as error:
        print(f"train.export: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
