"""Grasps lifted while a set is generated: chosen by the seed, kept in shards, summed in the manifest."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from needs import no
from solids import box

from rt.hand import load_hand
from sim.dataset import store
from sim.dataset.lifted import rates, write_rates
from sim.dataset.options import GenerateOptions, parameters
from sim.dataset.store import DatasetError
from sim.scene.grasps import true_grasps
from sim.scene.scene import assemble

needs_mujoco = pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason=no("mujoco"))


@needs_mujoco
def test_a_bar_s_grasps_hold_and_their_choice_depends_on_the_seed() -> None:
    from sim.dataset.lifted import lifted

    scene = assemble([(thing := box((0.04, 0.08, 0.04)), thing.rest[0])])
    hand = load_hand()
    grasps = true_grasps(scene, np.random.default_rng(0), hand, samples=500)
    found = lifted(scene, grasps, 0.05, np.random.default_rng(1), hand, 0.5)
    assert 2 < len(found) < len(grasps) / 5
    assert np.mean([one["result"] == "held" for one in found]) > 0.8
    assert {one["category"] for one in found} == {scene.placed[0].category}
    assert found == lifted(scene, grasps, 0.05, np.random.default_rng(1), hand, 0.5)


def test_rates_are_summed_over_shards_into_the_manifest(tmp_path: Path) -> None:
    params = {"train_scenes": 2, "test_scenes": 0, "views": 1, "scenes_per_shard": 1}
    manifest = {"format": store.FORMAT, "id": store.dataset_id(params), "params": params}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert rates(tmp_path) == {}
    one = {"grasp": 3, "category": "mug", "result": "held"}
    for k, lifts in enumerate(([one, one | {"result": "slipped"}], [one | {"category": "box"}])):
        shard = store.shard_path(tmp_path, "train", k)
        shard.mkdir()
        (shard / "shard.json").write_text(json.dumps({"lifts": [lifts]}))
    found = write_rates(tmp_path)
    assert list(found) == ["box", "mug", "all"]
    assert (found["mug"]["n"], found["mug"]["held"], found["all"]["n"]) == (2, 1, 3)
    again = store.read_manifest(tmp_path)
    assert again["lifts"] == found and again["params"] == params and again["id"] == manifest["id"]


def test_a_share_is_part_of_the_set_and_judged() -> None:
    with pytest.raises(DatasetError, match="--lift-share 2"):
        parameters(GenerateOptions(lift_share=2))
    assert "lift_share" not in parameters(GenerateOptions())
