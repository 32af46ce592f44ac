"""sim.verify finds what is broken, names it, and a repair makes just that again."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sets import SMALL, small_set

from sim.dataset import store
from sim.verify import repair, verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "set"
    small_set(folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def rewrite(shard, name, change):
    """Change an array and put its new hash into shard.json: only the values can give it away."""
    array = np.load(shard / f"{name}.npy")
    change(array)
    np.save(shard / f"{name}.npy", array)
    about = json.loads((shard / "shard.json").read_text())
    about["sha256"][name] = hashlib.sha256((shard / f"{name}.npy").read_bytes()).hexdigest()
    (shard / "shard.json").write_text(json.dumps(about))


def problems(folder):
    shards, strays = verify(folder)
    return {f"{s.split}-{s.number}": s.problems for s in shards if s.problems}, strays


def test_a_whole_set_is_sound(whole):
    shards, strays = verify(whole)
    assert [s.problems for s in shards] == [[]] * 5 and strays == []
    assert sum(s.images for s in shards) == 15 and all(s.grasps > 0 for s in shards)


def test_a_flipped_bit_is_found(copy):
    file = copy / "train-00002" / "depth.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found, _ = problems(copy)
    assert list(found) == ["train-2"] and "depth.npy: SHA-256" in found["train-2"][0]


@pytest.mark.parametrize("harm", ["cut", "file", "shard", "json", "extra"])
def test_missing_and_foreign_files_are_found(copy, harm):
    shard = copy / "train-00001"
    if harm == "cut":
        file = shard / "camera.npy"
        file.write_bytes(file.read_bytes()[:-5])
    elif harm == "file":
        (shard / "grasps.npy").unlink()
    elif harm == "shard":
        shutil.rmtree(shard)
    elif harm == "json":
        (shard / "shard.json").write_text("{")
    else:
        (shard / "notes.txt").write_text("mine")
    found, _ = problems(copy)
    assert list(found) == ["train-1"]
    named = {
        "cut": "camera.npy",
        "file": "grasps.npy",
        "shard": "is missing",
        "json": "shard.json",
        "extra": "notes.txt",
    }
    assert named[harm] in found["train-1"][0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("depth", 6500, "depth"),
        ("camera", np.nan, "camera z"),
        ("grasps", 4.0, "grasp"),
        ("grasp_object", 9, "objects that the scene does not have"),
        ("grasp_start", 1, "at least one"),
    ],
)
def test_values_out_of_range_are_found(copy, name, value, said):
    def change(array):
        array.reshape(len(array), -1)[0] = value

    rewrite(copy / "test-00000", name, change)
    found, _ = problems(copy)
    assert list(found) == ["test-0"] and said in " ".join(found["test-0"])


def test_counts_and_names_that_disagree_with_the_manifest_are_found(copy):
    shard = copy / "train-00000"
    about = json.loads((shard / "shard.json").read_text())
    about["objects"] = [["mug/999"]]
    (shard / "shard.json").write_text(json.dumps(about))
    other = copy / "train-00001"
    shutil.rmtree(other)
    shutil.copytree(copy / "train-00002", other)
    np.save(other / "depth.npy", np.load(other / "depth.npy")[:2])
    found, _ = problems(copy)
    assert "mug/999" in found["train-0"][0]
    assert any("should be uint16 (3, 64, 64)" in p for p in found["train-1"])


def test_repair_moves_the_broken_aside(copy):
    (copy / "train-00003" / "camera.npy").unlink()
    (copy / "train-00099").mkdir()
    shards, strays = verify(copy)
    moved = repair(copy, shards, strays)
    assert sorted(p.name for p in moved) == ["train-00003", "train-00099"]
    found, strays = problems(copy)
    assert found == {"train-3": ["is missing"]} and strays == []


def test_the_command_and_generating_again_repair_just_the_broken(whole, copy, tmp_path):
    (copy / "train-00000" / "grasps.npy").write_bytes(b"")
    kept = (copy / "train-00001").stat().st_mtime_ns
    command = [sys.executable, "-m", "sim.verify", str(copy), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--repair"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "train-00000: grasps.npy" in done.stdout
    assert "4 of 5 shards sound" in done.stdout
    assert list(json.loads((tmp_path / "out" / "verify.json").read_text())["broken"]) == [
        "train-00000"
    ]
    again = [sys.executable, "-m", "sim.generate", "--out", str(copy), *SMALL, "--workers", "1"]
    assert subprocess.run(again, capture_output=True, timeout=120).returncode == 0
    assert (copy / "train-00001").stat().st_mtime_ns == kept
    assert problems(copy) == ({}, [])
    for name in store.ARRAYS:
        made, first = (f / "train-00000" / f"{name}.npy" for f in (copy, whole))
        assert made.read_bytes() == first.read_bytes()


def test_what_is_no_dataset_is_refused(tmp_path):
    command = [sys.executable, "-m", "sim.verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "not a dataset" in done.stderr
    assert "Traceback" not in done.stderr


def exchange(first: Path, second: Path) -> None:
    kept = first.with_name("kept")
    first.rename(kept)
    second.rename(first)
    kept.rename(second)


def test_exchanged_shards_are_found_by_what_they_say(copy):
    exchange(copy / "train-00000", copy / "train-00002")
    found, _ = problems(copy)
    assert sorted(found) == ["train-0", "train-2"]
    assert "holds train-00002 of set" in found["train-0"][0]


def test_exchanged_shards_of_older_sets_are_found_by_their_objects(copy, tmp_path):
    """Their bytes are sound: only the scenes that the seed gives tell."""
    for shard in copy.glob("t*-*"):
        about = json.loads((shard / "shard.json").read_text())
        for name in ("set", "split", "number"):
            del about[name]
        (shard / "shard.json").write_text(json.dumps(about))
    exchange(copy / "train-00000", copy / "train-00002")
    found, _ = problems(copy)
    assert sorted(found) == ["train-0", "train-2"]
    assert "a shard of another set, split or number" in found["train-0"][0]
    command = [sys.executable, "-m", "sim.verify", str(copy), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "5 shards were made by an older version" in done.stdout


def test_a_copy_in_another_shards_place_is_found_on_opening(copy):
    shutil.rmtree(copy / "train-00001")
    shutil.copytree(copy / "train-00000", copy / "train-00001")
    with pytest.raises(store.DatasetError, match=r"train-00001 holds train-00000 of set"):
        store.open_split(copy, "train")
    assert list(problems(copy)[0]) == ["train-1"]
