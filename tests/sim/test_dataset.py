"""The format on disk: written whole or not at all, read back as written."""

import errno
import json
import shutil

import numpy as np
import pytest

from rt.tools.files import DiskFullError, write_text
from sim.dataset import store
from sim.dataset.claim import locked
from sim.dataset.store import DatasetError


def arrays(rng, images, scenes):
    counts = rng.integers(1, 5, scenes)
    return {
        "depth": rng.integers(0, 6000, (images, 64, 64)).astype(np.uint16),
        "camera": rng.random((images, 4)).astype(np.float32),
        "grasps": rng.random((counts.sum(), 5)).astype(np.float32),
        "grasp_object": np.zeros(counts.sum(), np.int16),
        "grasp_start": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    }


PLACE = store.ShardIdentity("abc", "train", 0)


@pytest.fixture
def made(tmp_path):
    """Three train scenes of four views in shards of two scenes."""
    rng = np.random.default_rng(0)
    params = {"train_scenes": 3, "test_scenes": 0, "views": 4, "scenes_per_shard": 2}
    manifest = {"format": store.FORMAT, "id": store.dataset_id(params), "params": params}
    write_text(tmp_path / "manifest.json", json.dumps(manifest))
    shards = [arrays(rng, 8, 2), arrays(rng, 4, 1)]
    for k, (shard, names) in enumerate(zip(shards, ([["a"], ["b", "c"]], [["d"]]), strict=True)):
        store.write_shard(
            store.shard_path(tmp_path, "train", k),
            shard,
            names,
            ["ideal"] * len(names),
            store.ShardIdentity(manifest["id"], "train", k),
        )
    return tmp_path, shards


def test_images_and_grasps_come_back_across_shards(made):
    folder, shards = made
    split = store.open_split(folder, "train")
    assert len(split) == 12 and split.objects == [["a"], ["b", "c"], ["d"]]
    images = np.array([9, 0, 7, 8, 0])
    raw = np.concatenate([s["depth"] for s in shards])
    np.testing.assert_allclose(split.depth_m(images), raw[images] * 1e-4, rtol=1e-6)
    assert split.depth_m(images).dtype == np.float32
    np.testing.assert_array_equal(split.scene_grasps(2), shards[1]["grasps"])
    first = shards[0]["grasp_start"]
    np.testing.assert_array_equal(split.scene_grasps(1), shards[0]["grasps"][first[1] :])


def test_a_missing_shard_is_named(made):
    folder, _ = made
    (folder / "train-00001").rename(folder / "gone")
    with pytest.raises(DatasetError, match=r"train-00001 is missing.*sim\.generate"):
        store.open_split(folder, "train")


def test_an_absent_split_and_a_foreign_folder_are_refused(made, tmp_path):
    folder, _ = made
    with pytest.raises(DatasetError, match="no test scenes"):
        store.open_split(folder, "test")
    with pytest.raises(DatasetError, match=r"no manifest\.json"):
        store.open_split(tmp_path / "train-00000", "train")
    (folder / "manifest.json").write_text('{"format": "other/1"}')
    with pytest.raises(DatasetError, match="grasp-dataset/1"):
        store.open_split(folder, "train")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DatasetError, match="damaged"):
        store.open_split(folder, "train")


def test_a_shard_is_never_half_there(tmp_path):
    """A writer that dies leaves only a hidden folder, which the next one clears away."""
    rng = np.random.default_rng(0)
    bad = arrays(rng, 4, 1) | {"grasp_start": object}
    bad.pop("grasp_object")
    with pytest.raises(KeyError):
        store.write_shard(tmp_path / "train-00000", bad, [["a"]], ["ideal"], PLACE)
    assert not (tmp_path / "train-00000").exists()
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def save(file, array):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    shard = arrays(np.random.default_rng(0), 8, 2)
    with pytest.raises(DiskFullError, match=r"needs 0\.1 MB, .* are free; free some") as error:
        store.write_shard(tmp_path / "train-00000", shard, [["a"], ["b"]], ["ideal"] * 2, PLACE)
    assert list(tmp_path.iterdir()) == [] and "\n" not in str(error.value)


def test_a_set_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    from sim.dataset.options import GenerateOptions
    from sim.generate import generate

    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFullError, match=r"8,200 images needs 67\.2 MB, 1\.0 MB are free"):
        generate(GenerateOptions(200, 5, 40, tmp_path / "set"))
    assert list(tmp_path.iterdir()) == []


def test_exchanged_and_foreign_shards_are_named(made):
    folder, _ = made
    first, second = folder / "train-00000", folder / "train-00001"
    about = json.loads((first / "shard.json").read_text())
    manifest = store.read_manifest(folder)
    assert store.identity_of(about) == store.ShardIdentity(manifest["id"], "train", 0)
    (first / "shard.json").write_text(json.dumps(about | {"number": 7}))
    with pytest.raises(DatasetError, match=r"train-00000 holds train-00007 of set .*sim\.verify"):
        store.open_split(folder, "train")
    (first / "shard.json").write_text(json.dumps(about | {"set": "0123456789ab"}))
    with pytest.raises(DatasetError, match="holds train-00000 of set 0123456789ab, not"):
        store.open_split(folder, "train")
    assert second.is_dir()


def test_a_set_from_before_shards_said_where_they_belong_is_read_with_a_note(made, capsys):
    folder, _ = made
    store.open_split(folder, "train")
    assert capsys.readouterr().err == ""
    for shard in folder.glob("train-*"):
        about = json.loads((shard / "shard.json").read_text())
        for name in ("set", "split", "number"):
            del about[name]
        (shard / "shard.json").write_text(json.dumps(about))
    assert len(store.open_split(folder, "train")) == 12
    assert capsys.readouterr().err.count("made by an older version") == 1
