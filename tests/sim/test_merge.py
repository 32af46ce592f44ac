"""Parts made by several jobs, put together."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from sets import small_set

from sim.dataset import store
from sim.dataset.store import DatasetError
from sim.merge import merge
from sim.verify import verify


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("merge")
    for part in range(2):
        small_set(root / str(part), (part, 2))
    return root / "0", root / "1"


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("link", [False, True])
def test_parts_make_the_whole_set(parts, tmp_path, link):
    done = merge(parts, tmp_path / "out", link)
    assert (done.taken, done.missing, done.broken) == (5, [], [])
    assert bytes_of(tmp_path / "out") == bytes_of(parts[0]) | bytes_of(parts[1])
    shards, strays = verify(tmp_path / "out")
    assert not any(s.problems for s in shards) and strays == []
    assert merge(parts, tmp_path / "out").taken == 0


def test_what_is_missing_or_broken_is_named_and_the_rest_is_taken(parts, tmp_path):
    half = shutil.copytree(parts[1], tmp_path / "half")
    (half / "train-00001" / "depth.npy").write_bytes(b"x")
    done = merge((parts[0], half), tmp_path / "out")
    assert done.taken == 4 and done.missing == ["train-00001"]
    assert len(done.broken) == 1 and "depth.npy" in done.broken[0]


def test_parts_of_different_sets_are_refused_before_anything_is_written(parts, tmp_path):
    other = shutil.copytree(parts[1], tmp_path / "other")
    manifest = store.read_manifest(other)
    manifest["params"]["seed"] = 8
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="seed: there 7"):
        merge((parts[0], other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_shard_with_other_bytes_is_refused(parts, tmp_path):
    other = shutil.copytree(parts[0], tmp_path / "other")
    depth = np.load(other / "train-00000/depth.npy")
    depth[depth > 0] += 1  # a tenth of a millimetre
    np.save(other / "train-00000/depth.npy", depth)
    about = json.loads((other / "train-00000/shard.json").read_text())
    content = (other / "train-00000/depth.npy").read_bytes()
    about["sha256"]["depth"] = hashlib.sha256(content).hexdigest()
    (other / "train-00000/shard.json").write_text(json.dumps(about))
    with pytest.raises(DatasetError, match="different bytes"):
        merge((parts[0], other), tmp_path / "out")
