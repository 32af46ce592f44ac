"""A tiny real dataset, made in this process."""

from pathlib import Path

from sim.dataset import store
from sim.dataset.claim import claim
from sim.dataset.make import make_shard
from sim.dataset.options import GenerateOptions, manifest

SMALL = ["--scenes", "4", "--test-scenes", "1", "--views", "3", "--scenes-per-shard", "1"]
SMALL += ["--grasp-samples", "200", "--seed", "7"]


def small_set(folder: Path, share: tuple[int, int] = (0, 1)) -> GenerateOptions:
    """The set of SMALL, or its shards k with k % share[1] == share[0], at `folder`."""
    config = GenerateOptions(4, 1, 3, folder, seed=7, grasp_samples=200, scenes_per_shard=1)
    made = manifest(config)
    claim(folder, made)
    for split in store.SPLITS:
        for k, numbers in enumerate(store.shard_scenes(made, split)):
            if k % share[1] == share[0]:
                make_shard(config, folder, split, k, numbers)
    return config
