"""Fresh scenes for every epoch: the same ones as a larger set has, made once and gone afterwards."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from needs import needed

needed("train", "torch")

from sim.dataset import store
from sim.dataset.options import manifest, options_of
from sim.dataset.store import DatasetError
from tests.sets import small_set
from train import endless
from train.batches import Batches
from train.checkpoint import FitError
from train.endless import EndlessBatches, EndlessOptions, FreshScenes
from train.fit import FitOptions, run
from train.team import Team

ON = EndlessOptions(endless=True, endless_workers=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endless") / "set"
    small_set(folder)
    return folder


@pytest.fixture
def scenes(data: Path, tmp_path: Path):
    made = FreshScenes(data, tmp_path / "fresh", ON, 1, Team())
    yield made
    made.close()


def batches_of(data: Path, scenes: FreshScenes) -> EndlessBatches:
    def make(split: store.Split) -> Batches:
        return Batches(split, 6, 8, 0)

    return EndlessBatches(make(store.open_split(data, "train")), scenes, make)


def test_epochs_are_those_of_a_larger_set_and_leave_nothing(data, scenes, tmp_path):
    first = store.open_split(data, "train")
    options = options_of(store.read_manifest(data))
    views = []
    for epoch in (1, 2):
        fresh = scenes(epoch)
        for number in range(4):
            scene, grasps, _ = options.scene("train", 4 * epoch + number)
            assert fresh.objects[number] == [placed.name for placed in scene.placed]
            np.testing.assert_array_equal(fresh.scene_grasps(number), grasps.poses)
        views.append(fresh.depth_m(np.arange(len(fresh))))
    views.append(first.depth_m(np.arange(len(first))))
    every = np.concatenate(views).reshape(3 * len(first), -1)
    assert len(np.unique(every, axis=0)) == len(every)
    there = sorted(path.name for path in (tmp_path / "fresh").glob("train-*"))
    assert not [name for name in there if name < "train-00008"], (
        "epoch 1 is over: its scenes are gone"
    )
    scenes.close()
    assert not (tmp_path / "fresh").exists()


def test_batches_begun_later_are_the_same(data, scenes, tmp_path):
    one = batches_of(data, scenes)
    assert one.steps_per_epoch == 2
    kept = [one(step) for step in range(4)]
    later = FreshScenes(data, tmp_path / "later", ON, 1, Team())
    other = batches_of(data, later)
    for step in (2, 3):  # of epoch 1, as a resumed run begins
        again = other(step)
        assert (again.depth == kept[step].depth).all()
        assert (again.distance == kept[step].distance).all()
    assert not (kept[0].depth == kept[2].depth).all()
    other.close()


def test_a_run_sees_every_view_once_and_says_how_long_it_waited(data, tmp_path, capsys):
    asked = FitOptions(
        data, out=tmp_path / "run", epochs=2, batch=6, fresh=ON, validation_images=3, threads=1
    )
    assert run(asked) == 0
    record = json.loads((tmp_path / "run" / "fit.json").read_text())
    assert record["endless"] and record["images_seen"] == 24 and record["waited_s"] > 0
    assert "was waited for fresh scenes" in capsys.readouterr().out
    assert not (tmp_path / "run" / "fresh").exists()


def test_a_maker_that_fails_ends_the_wait(data, scenes, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("sim.dataset.engines.ENGINES", {"local": full})
    with pytest.raises(FitError, match="no more scenes: no space left"):
        scenes(1)


def test_a_maker_that_hangs_is_not_waited_for_without_bound(data, scenes, monkeypatch):
    def silent(*_: object):
        time.sleep(0.5)
        yield from ()

    monkeypatch.setattr("sim.dataset.engines.ENGINES", {"local": silent})
    monkeypatch.setattr(endless, "PATIENCE_S", 0.2)
    with pytest.raises(FitError, match="no shard was made in"):
        scenes(1)


def test_sets_that_cannot_be_made_again_are_refused(data, tmp_path):
    about = store.read_manifest(data)
    for change, message in (
        ({"options": None}, "does not say how it was made"),
        ({"options": about["options"] | {"seed": 8}}, "makes other scenes"),
    ):
        folder = tmp_path / message.split()[0]
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps(about | change))
        with pytest.raises(FitError, match=message):
            FreshScenes(folder, tmp_path / "fresh", ON, 1, Team())


def test_options_that_need_endless():
    with pytest.raises(FitError, match="need --endless"):
        EndlessOptions(endless_workers=2)
    with pytest.raises(FitError, match="-1"):
        EndlessOptions(endless=True, endless_workers=-1)
    assert EndlessOptions(endless=True).workers(8) == 4
    assert EndlessOptions(endless=True, ray_address="auto").workers(8) == 0


def test_options_come_back_from_the_manifest(tmp_path):
    from dataclasses import replace

    from sim.dataset.options import GenerateOptions
    from sim.scene.meshes import MeshOptions

    for asked in (
        GenerateOptions(3, 1, 5, tight=0.2, bins=0.1, catalogue="both", sensors=("d405",)),
        GenerateOptions(mesh=MeshOptions(mesh_unit="mm"), odd_materials=0.3, seed=4),
    ):
        made = json.loads(json.dumps(manifest(asked)))
        back = options_of(made)
        assert replace(back, out=asked.out) == asked
        assert manifest(back)["id"] == made["id"]
    made["options"].pop("piles")  # of a version before these
    assert options_of(made) == back
    with pytest.raises(DatasetError, match=r"does not know \(gravity"):
        options_of(made | {"options": made["options"] | {"gravity": 1.62}})
