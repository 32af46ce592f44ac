"""train.export: the file equals the network, says what it was made for, and is not written otherwise."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import pickle
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from needs import no
from synthetic import make_dataset, random_actions, random_views

import rt.distance.engine
import train.export
from rt.distance import open_model
from rt.distance.contract import DistanceError, read_model
from rt.hand import load_hand
from rt.view import VIEW
from sim.dataset.store import open_split, read_manifest
from train.checkpoint import (
    FitError,
    TrainingState,
    begin_from,
    load_checkpoint,
    network_of,
    save_checkpoint,
)
from train.export import main
from train.field import FieldNetwork, FieldShape, field_predictor
from train.network import DistanceNetwork
from train.presets import PRESETS, make_optimizer
from train.validation import draw_validation_set


def export(*arguments: object) -> tuple[int, str, str]:
    """Exit code and what the command prints."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main(["--check-images", "2", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module", params=["double_angle", "raw"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: a checkpoint of a random network, and the dataset beside it."""
    folder = tmp_path_factory.mktemp("run")
    manifest = make_dataset(folder / "set", train_scenes=2, test_scenes=2, views=2)
    torch.manual_seed(0)
    network = DistanceNetwork(request.param)
    torch.nn.init.normal_(network.fc2.weight, std=0.1)
    state = TrainingState(
        network, make_optimizer(network, PRESETS["modern"]), step=7, elapsed_s=3.0
    )
    plan = {"data_id": manifest["id"], "seed": 0}
    save_checkpoint(folder / "checkpoint.pt", state, plan, manifest, folder / "set")
    return folder


def test_the_file_is_the_network(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    code, text, errors = export(run / "checkpoint.pt", "--out", out)
    assert code == 0, errors
    assert "random views" in text and "real views" in text
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["model.json", "model.onnx"]
    assert out.stat().st_size < 20e6
    network = network_of(load_checkpoint(run / "checkpoint.pt"))
    rng = np.random.default_rng(1)
    depth, actions = random_views(1, rng), random_actions((1, 33), rng)
    with torch.no_grad():
        expected = network(depth, actions)[0].numpy()
    found = open_model(out, backend="onnx")(depth[0].numpy(), actions[0].numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def field_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a small field network, with random weights that spread its answers."""
    folder = tmp_path_factory.mktemp("field-run")
    manifest = make_dataset(folder / "set", train_scenes=2, test_scenes=2, views=2)
    torch.manual_seed(0)
    network = FieldNetwork(FieldShape(32, 0.01, (4, 5, 6, 7, 8), features=3, hidden=8))
    torch.nn.init.normal_(network.head3.weight, std=0.2)
    state = TrainingState(network, make_optimizer(network, PRESETS["field"]), step=7, elapsed_s=3.0)
    plan = {"data_id": manifest["id"], "seed": 0}
    save_checkpoint(folder / "checkpoint.pt", state, plan, manifest, folder / "set")
    return folder


def test_the_file_is_the_field_network_with_its_spread_calibrated(
    field_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "field.onnx"
    code, text, errors = export(field_run, "--out", out)
    assert code == 0, errors
    assert "random views" in text and "real views" in text and "in its probability by" in text
    contract, _ = read_model(out)
    contract.require(architecture="field", cells=32, cell_m=0.01, distance_scale_m=0.05)
    test = open_split(field_run / "set", "test")
    questions = draw_validation_set(test, 4096, 0)
    model = open_model(out, backend="onnx")
    said = [model.predict(*asked) for asked in zip(questions.depth, questions.actions, strict=True)]
    error = np.abs(np.stack([s.distance for s in said]) - questions.distance)
    assert (error <= np.stack([s.spread for s in said])).mean() == pytest.approx(0.95, abs=0.02)
    network = network_of(load_checkpoint(field_run / "checkpoint.pt"))
    assert isinstance(network, FieldNetwork)
    depth, actions = questions.depth[:1], questions.actions[:1]
    expected = field_predictor(network)(depth, actions)
    assert expected.probability is not None
    np.testing.assert_allclose(said[0].distance, expected.distance[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(said[0].probability, expected.probability[0], rtol=0, atol=1e-4)
    factor = json.loads(out.with_suffix(".json").read_text())["spread_factor"]
    assert factor > 0


def test_a_training_begins_from_a_field_networks_file(
    field_run: Path, run: Path, tmp_path: Path
) -> None:
    assert export(field_run, "--out", tmp_path / "field.onnx")[0] == 0
    kept = network_of(load_checkpoint(field_run / "checkpoint.pt"))
    network = FieldNetwork(FieldShape(32, 0.01, (4, 5, 6, 7, 8), features=3, hidden=8))
    began = begin_from(tmp_path / "field.onnx", network)
    contract, _ = read_model(tmp_path / "field.onnx")
    assert began["weights_sha256"] == contract.weights_sha256
    rng = np.random.default_rng(0)
    depth, actions = random_views(1, rng), random_actions((1, 9), rng)
    found, expected = (field_predictor(n)(depth.numpy(), actions.numpy()) for n in (network, kept))
    np.testing.assert_array_equal(found.distance, expected.distance)
    with pytest.raises(FitError, match="cells is 32, here 80"):
        begin_from(tmp_path / "field.onnx", FieldNetwork())
    assert export(run, "--out", tmp_path / "paper.onnx")[0] == 0
    with pytest.raises(FitError, match=r"give the checkpoint\.pt"):
        begin_from(tmp_path / "paper.onnx", DistanceNetwork())


def test_a_field_network_is_not_exported_without_views_to_calibrate_on(
    field_run: Path, tmp_path: Path
) -> None:
    saved = load_checkpoint(field_run / "checkpoint.pt")
    saved["data"] = str(tmp_path / "gone")
    torch.save(saved, tmp_path / "checkpoint.pt")
    code, _, errors = export(tmp_path)
    assert code == 2 and "calibrated" in errors and not (tmp_path / "field.onnx").exists()


def test_the_contract_is_that_of_the_training_set(run: Path, tmp_path: Path) -> None:
    assert export(run, "--out", tmp_path / "model.onnx")[0] == 0
    contract, _ = read_model(tmp_path / "model.onnx")
    contract.require(
        hand=load_hand(), view=VIEW, training_set=read_manifest(run / "set")["id"], leaky_slope=0.1
    )
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["steps"] == 7 and record["finished"] is False
    assert contract.record["steps"] == 7


def test_a_file_that_disagrees_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folded weights that are wrong in one bias are caught, and what was there stays."""
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the model before")
    right = train.export.folded_weights

    def wrong(network: DistanceNetwork) -> dict[str, np.ndarray]:
        weights = right(network)
        weights["fc2.bias"] = weights["fc2.bias"] + np.float32(5e-5)
        return weights

    monkeypatch.setattr(train.export, "folded_weights", wrong)
    code, _, errors = export(run, "--out", out)
    assert code == 1 and "e-05 m on random views" in errors and "nothing was written" in errors
    assert out.read_bytes() == b"the model before" and len(list(tmp_path.iterdir())) == 1


def test_without_the_dataset_only_random_views_are_compared(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    saved = load_checkpoint(run / "checkpoint.pt")
    saved["data"] = str(tmp_path / "gone")
    torch.save(saved, moved / "checkpoint.pt")
    code, text, errors = export(moved)
    assert code == 0 and "real views" not in text and "no real views" in errors
    code, _, errors = export(moved, "--data", tmp_path / "gone")
    assert code == 2 and "not a dataset" in errors
    make_dataset(tmp_path / "other", train_scenes=1, test_scenes=1, views=1)
    code, _, errors = export(moved, "--data", tmp_path / "other")
    assert code == 2 and "not the set" in errors


def test_what_is_no_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    for path, message in ((tmp_path, "no checkpoint"), (run / "set/manifest.json", "not a check")):
        code, _, errors = export(path)
        assert code == 2 and message in errors and "Traceback" not in errors
    code, _, errors = export(run, "--out", tmp_path / "model.pt")
    assert code == 2 and ".onnx" in errors
    saved = load_checkpoint(run / "checkpoint.pt")
    del saved["manifest"]["params"]["hand"]
    shutil.rmtree(tmp_path / "no-hand", ignore_errors=True)
    (tmp_path / "no-hand").mkdir()
    torch.save(saved, tmp_path / "no-hand/checkpoint.pt")
    code, _, errors = export(tmp_path / "no-hand")
    assert code == 2 and "sim.generate" in errors


def test_no_advice_to_load_a_foreign_file_unsafely(run: Path, tmp_path: Path) -> None:
    """torch's own words propose weights_only=False; a pickle of anything, and a file cut short."""
    (tmp_path / "other.pt").write_bytes(pickle.dumps({"a": Path("x")}))
    whole = (run / "checkpoint.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"odd": Path("x")}, tmp_path / "odd.pt")
    for name in ("other.pt", "short.pt", "odd.pt"):
        code, _, errors = export(tmp_path / name)
        assert code == 2 and "is not a checkpoint" in errors and errors.count("\n") == 1
        assert "weights_only" not in errors and "unpickl" not in errors.lower()


def test_a_full_disk_is_told_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    code, _, errors = export(run, "--out", tmp_path / "new" / "model.onnx")
    assert code == 1 and "the model needs" in errors and "0.0 MB are free there" in errors
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_the_targets_are_named_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gpu() -> str:
        raise DistanceError("no CUDA GPU")

    class Library:
        class ComputeCapability:
            __members__: ClassVar = {"SM89": 1, "SM120": 2, "kNONE": 3}

    monkeypatch.setattr(rt.distance.engine, "gpu_name", no_gpu)
    monkeypatch.setattr(rt.distance.engine, "import_library", Library)
    where = ("--out", tmp_path / "model.onnx", "--tensorrt")
    code, _, errors = export(run, *where)
    assert code == 2 and "--target with one of SM89, SM120" in errors
    code, _, errors = export(run, *where, "--target", "SM10")
    assert code == 2 and "'SM10' is not one of SM89, SM120" in errors
    code, _, errors = export(run, "--out", tmp_path / "model.onnx", "--target", "SM89")
    assert code == 2 and "--target needs --tensorrt" in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason=no("tensorrt-rtx"))
def test_an_engine_is_built_beside_the_file(run: Path, tmp_path: Path) -> None:
    where = ("--out", tmp_path / "model.onnx", "--engines", tmp_path / "engines")
    code, text, errors = export(
        run, *where, "--tensorrt", "--precision", "fp16", "--target", "SM89"
    )
    assert code == 0, errors
    (engine,) = (tmp_path / "engines").glob("*.engine")
    assert str(engine) in text
    record = json.loads(engine.with_suffix(".json").read_text())["key"]
    contract, _ = read_model(tmp_path / "model.onnx")
    assert record["weights_sha256"] == contract.weights_sha256 and record["precision"] == "fp16"
    code, _, errors = export(run, *where, "--tensorrt", "--target", "SM10")
    assert code == 2 and "'SM10' is not one of" in errors and errors.count("\n") == 1
