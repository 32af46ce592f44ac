"""Errors of a network's distances on objects outside its training: `python -m train.validation`.

Runs a model file through rt.distance, as the robot does (no torch), on a set given with --data or made
anew of test objects. The errors, by true distance and by category, are for offsets uniform in the view
(all) and within 5 cm of the hand (near); the choice is one decision of a controller.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.distance import open_model
from rt.hand import Hand
from rt.tools.command import command
from rt.tools.files import output_folder, write_json
from rt.tools.progress import progress
from rt.view import View
from sim.dataset.store import DatasetError, Split, open_split, read_manifest
from train.calibration import (
    HEIGHT_EDGES_M,
    Answers,
    Floats,
    bins,
    probability_report,
    spread_report,
)
from train.graspable import graspable_report
from train.offsets import NEAR_M, OFFSETS, REACH_M, near_offsets, nearest_grasp, uniform_offsets

Groups = dict[str, NDArray[np.str_]]
"""`categories` and `sensors`: names, one for each offset."""
Predict = Callable[[Floats, Floats], Floats | Answers]
"""Distances (B, K) m, or all answers, of depth (B, 64, 64) m and actions (B, K, 3): whatever computes the
network."""

BIN_EDGES_M = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.10, 0.15, np.inf)
CANDIDATES, CANDIDATE_REACH_M = 256, 0.06
"""One decision of a controller: this many candidates on a disc about the hand."""
CHOICE_IMAGES = 512


@dataclass(frozen=True)
class ValidationSet:
    """Fixed questions about test images, and their answers, drawn once from a seed."""

    images: NDArray[np.int64]
    depth: Floats
    """(B, 64, 64) m, as stored: no noise is added."""
    actions: Floats
    """(B, 2 * OFFSETS, 3): first uniform in the view, then near the hand."""
    distance: Floats
    """(B, 2 * OFFSETS) m."""
    height_m: Floats
    """(B,) of the hand above the table."""
    groups: Groups
    """(B, 2 * OFFSETS) each: the category of the object that the nearest grasp holds, the sensor."""


def draw_validation_set(split: Split, images: int, seed: int) -> ValidationSet:
    """Questions about `images` views (all if there are fewer), spread evenly over the split."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(images, len(split))).astype(np.int64))
    rng = np.random.default_rng([seed, len(chosen)])
    shape = (len(chosen), OFFSETS)
    actions = np.concatenate([uniform_offsets(shape, rng), near_offsets(shape, rng)], axis=1)
    distance, grasp = nearest_grasp(split, chosen, actions)
    return ValidationSet(
        chosen,
        split.depth_m(chosen),
        actions,
        distance,
        split.camera[chosen, 2],
        _groups(split, chosen, grasp),
    )


def _answers(found: Floats | Answers) -> Answers:
    return found if isinstance(found, Answers) else Answers(found)


def _groups(split: Split, images: NDArray[np.int64], grasp: NDArray[np.int64]) -> Groups:
    """Of grasps (B, K), rows of split.grasps, of images (B,)."""
    sensors = np.array(split.sensors)[images // split.views, None]
    objects = split.grasp_object[grasp]
    names = [
        [split.objects[image // split.views][k].split("/") for k in row.ravel()]
        for image, row in zip(images, objects, strict=True)
    ]
    # "mug/3" of the catalogue; "meshes/tools/wrench" and "meshes/wrench" of a user's folder
    found = [[parts[max(0, len(parts) - 2)] for parts in row] for row in names]
    return {
        "categories": np.array(found).reshape(grasp.shape),
        "sensors": np.broadcast_to(sensors, grasp.shape),
    }


def quick_errors(predict: Predict, questions: ValidationSet) -> dict[str, float]:
    """Mean absolute error in metres over offsets uniform in the view (`all_m`) and near ones (`near_m`)."""
    found = _answers(predict(questions.depth, questions.actions)).distance
    error = np.abs(found - questions.distance)
    return {
        "all_m": float(error[:, :OFFSETS].mean()),
        "near_m": float(error[:, OFFSETS:].mean()),
    }


def full_report(
    predict: Predict, split: Split, images: int, seed: int
) -> tuple[dict[str, Any], Floats, Floats]:
    """Everything about a trained network; also true and predicted distances for a plot.

    Errors for all and near offsets beside those of the best constant, by bins of true distance and by
    the category of the nearest grasp's object, by the sensor and by the hand's height, and the true
    distance after one choice among candidates about the hand. Where the network says probabilities and
    spreads, how well they hold.
    """
    questions = draw_validation_set(split, images, seed)
    answers = _answers(predict(questions.depth, questions.actions))
    true, predicted = questions.distance, answers.distance
    report: dict[str, Any] = {
        "images": len(questions.images),
        "scenes": len(np.unique(questions.images // split.views)),
        "offsets_per_image": OFFSETS,
        "reach_m": REACH_M,
        "near_reach_m": NEAR_M,
    }
    for name, part in (("all", np.s_[:, :OFFSETS]), ("near", np.s_[:, OFFSETS:])):
        t, p = true[part], predicted[part]
        report[name] = {
            "mean_absolute_error_m": float(np.abs(p - t).mean()),
            "median_absolute_error_m": float(np.median(np.abs(p - t))),
            "bias_m": float((p - t).mean()),
            "correlation": float(np.corrcoef(p.ravel(), t.ravel())[0, 1]),
            "trivial_error_m": float(np.abs(np.median(t) - t).mean()),
            "bins": _by_bin(t, p, t, BIN_EDGES_M),
            "heights": _by_bin(t, p, questions.height_m[:, None], HEIGHT_EDGES_M),
            **{name: _by_group(t, p, group[part]) for name, group in questions.groups.items()},
        }
    if answers.probability is not None:
        report["probability"] = probability_report(true, answers)
    if answers.spread is not None:
        report["spread"] = spread_report(true, answers, questions.height_m, BIN_EDGES_M)
    report["choice"] = _choice(
        predict, split, questions.images[:: max(1, images // CHOICE_IMAGES)], seed
    )
    return report, true, predicted


def _errors(true: Floats, predicted: Floats) -> dict[str, Any]:
    error = predicted - true
    return {
        "samples": int(error.size),
        "mean_absolute_error_m": float(np.abs(error).mean()),
        "bias_m": float(error.mean()),
    }


def _by_bin(
    true: Floats, predicted: Floats, values: Floats, edges: Sequence[float]
) -> list[dict[str, Any]]:
    """Errors of distances (B, K) by bins of values, (B, K) or (B, 1)."""
    values = np.broadcast_to(values, true.shape)
    rows = []
    for part in bins(edges):
        here = part.holds(values)
        if here.any():
            rows.append({**part.ends, **_errors(true[here], predicted[here])})
    return rows


def _by_group(true: Floats, predicted: Floats, group: NDArray[np.str_]) -> dict[str, Any]:
    return {
        str(name): _errors(true[group == name], predicted[group == name])
        for name in np.unique(group)
    }


def _choice(predict: Predict, split: Split, images: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Median true distance before and after the move that the network likes best, in one view."""
    rng = np.random.default_rng([seed, CANDIDATES])
    actions = near_offsets((len(images), CANDIDATES), rng)
    actions[..., :2] *= CANDIDATE_REACH_M / NEAR_M
    actions[:, 0] = 0  # staying is a candidate, and the start
    true, grasp = nearest_grasp(split, images, actions)
    predicted = _answers(predict(split.depth_m(images), actions)).distance
    chosen = np.take_along_axis(true, predicted.argmin(1)[:, None], axis=1)[:, 0]
    groups = _groups(split, images, grasp[:, :1])
    return {
        "images": len(images),
        "candidates": CANDIDATES,
        "reach_m": CANDIDATE_REACH_M,
        "start_median_m": float(np.median(true[:, 0])),
        "chosen_median_m": float(np.median(chosen)),
        "chosen_mean_m": float(chosen.mean()),
        "best_median_m": float(np.median(true.min(1))),
        **{
            kind: {
                str(name): {
                    "images": int((group == name).sum()),
                    "chosen_median_m": float(np.median(chosen[group[:, 0] == name])),
                }
                for name in np.unique(group)
            }
            for kind, group in groups.items()
        },
    }


@dataclass(frozen=True)
class ValidationOptions:
    """Errors of a model file on objects it never saw, by true distance and by category.

    Example: python -m train.validation --scenes 50 --seed 1
    """

    model: str | None = None
    """Network: paper, field, or a file as train.export makes it. Default: the shipped one."""
    data: Path | None = None
    """Dataset whose test scenes to use. Default: a fresh one, made for this run and not kept."""
    scenes: int = 50
    """Scenes of test objects in a fresh set."""
    views: int = 40
    """Views of each scene in a fresh set."""
    sensors: tuple[str, ...] = ()
    """Depth cameras of a fresh set, one drawn for each scene. Default: all that sim.generate has."""
    images: int = 4096
    """Views to ask about, spread over the test scenes; all if there are fewer."""
    object_scenes: int = 200
    """Scenes of test objects for the test, for each object, of whether it can be grasped. 0 skips it."""
    backend: str = "auto"
    """Backend of the network: auto, tensorrt, native, onnx or reference."""
    threads: int = 0
    """CPU threads, 0 for one per core."""
    seed: int = 1
    """Seed of the fresh scenes and of the offsets. The shipped network's set was made with 0."""
    out: Path | None = None
    """Folder of validation.json and validation.png; default runs/validation/<time>/."""

    def __post_init__(self) -> None:
        for name in ("scenes", "views", "images"):
            if getattr(self, name) < 1:
                raise DatasetError(f"--{name} {getattr(self, name)} must be 1 or more")
        if self.object_scenes < 0:
            raise DatasetError(f"--object-scenes {self.object_scenes} must be 0 or more")
        if self.seed < 0:
            raise DatasetError(f"--seed {self.seed} must be 0 or more")


def fresh_set(
    folder: Path,
    test_scenes: int,
    views: int,
    seed: int,
    train_scenes: int = 1,
    sensors: tuple[str, ...] = (),
) -> Path:
    """Make a small set in the folder, which is returned; the generator wants a scene to train on."""
    # A second of imports, which training need not wait for.
    from sim.dataset.options import GenerateOptions
    from sim.generate import generate

    config = GenerateOptions(
        scenes=train_scenes,
        test_scenes=test_scenes,
        views=views,
        out=folder,
        seed=seed,
        sensors=sensors or GenerateOptions.sensors,
        scenes_per_shard=5,
    )
    generate(config)
    return folder


def validate(options: ValidationOptions) -> tuple[dict[str, Any], Floats, Floats]:
    """Open the model, make or open the set, and ask; see full_report."""
    model = open_model(options.model, options.backend, threads=options.threads)
    contract = model.contract

    def ask(view: Floats, actions: Floats) -> Answers:
        found = model.predict(view, actions)
        return Answers(found.distance, found.probability, found.spread)

    def predict(depth: Floats, actions: Floats) -> Answers:
        views = zip(progress(depth, unit="view", title="asked"), actions, strict=True)
        every = [ask(view, asked) for view, asked in views]
        probability = [a.probability for a in every if a.probability is not None]
        spread = [a.spread for a in every if a.spread is not None]
        return Answers(
            np.stack([a.distance for a in every]),
            np.stack(probability) if probability else None,
            np.stack(spread) if spread else None,
        )

    with tempfile.TemporaryDirectory(prefix="validation-") as temporary:
        folder = options.data
        if folder is None:
            folder = Path(temporary) / "set"
            print(
                f"making {options.scenes} scenes of test objects, seed {options.seed}", flush=True
            )
            fresh_set(folder, options.scenes, options.views, options.seed, sensors=options.sensors)
        manifest = read_manifest(folder)
        try:
            hand = Hand(**manifest["params"]["hand"])
            view = View(**manifest["params"]["view"])
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{folder}: its manifest lacks hand or view ({error})") from error
        contract.require(hand=hand, view=view)
        split = open_split(folder, "test")
        report, true, predicted = full_report(predict, split, options.images, options.seed)
    if options.object_scenes:
        report["graspable"] = graspable_report(ask, hand, options.object_scenes, options.seed)
    record = {
        "model": str(model.path),
        "weights_sha256": contract.weights_sha256,
        "backend": model.backend,
        "trained_on": contract.training_set,
        "data_id": manifest["id"],
        "data_params": manifest["params"],
        "fresh": options.data is None,
        "seed": options.seed,
        "validation": report,
    }
    return record, true, predicted


def run(options: ValidationOptions) -> int:
    from train.report import plot_validation, print_validation

    record, true, predicted = validate(options)
    out = output_folder("validation", options.out)
    write_json(out / "validation.json", record)
    plot_validation(out / "validation.png", record["validation"], true, predicted)
    print_validation(record["validation"])
    print(f"wrote {out / 'validation.json'} and {out / 'validation.png'}")
    return 0


main = command("train.validation", ValidationOptions, description=__doc__)(run)


if __name__ == "__main__":
    sys.exit(main())
