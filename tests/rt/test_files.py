import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rt.tools.files import (
    DiskFullError,
    output_folder,
    plain,
    read_bounded,
    require_room,
    shown,
    whole,
    write_figure,
    write_json,
    write_text,
)


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "result.txt"
    write_text(path, "first")
    with pytest.raises(RuntimeError), whole(path) as beside:
        beside.write_text("half of the sec")
        assert beside.suffix == path.suffix and path.read_text() == "first"
        raise RuntimeError
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]
    write_text(path, "second")
    assert path.read_text() == "second" and list(tmp_path.iterdir()) == [path]


def test_hidden_files_are_not_shown(tmp_path):
    for name in ("b.PNG", "a.png", "._a.png", ".git/c.png", "deep/d.png", "deep/.d.png", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in shown(tmp_path, {".png"})] == ["a.png", "b.PNG"]
    below = shown(tmp_path, (".png",), below=True)
    assert [p.name for p in below] == ["a.png", "b.PNG", "d.png"]
    with whole(tmp_path / "f.png") as beside:
        beside.touch()
        assert beside not in shown(tmp_path, {".png"})


def test_json_is_for_every_reader(tmp_path):
    content = {
        "path": Path("a/b"),
        "numbers": np.array([1.5, np.nan]),
        "one": np.float32(0.5),
        "far": (float("inf"), 2),
        "none": None,
        "true": np.bool_(True),
    }
    write_json(tmp_path / "x.json", content)

    def refused(word):
        raise AssertionError(f"{word} is no JSON")

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refused)
    assert found == {
        "path": "a/b",
        "numbers": [1.5, None],
        "one": 0.5,
        "far": [None, 2],
        "none": None,
        "true": True,
    }
    assert plain(found) == found


def test_a_figure_keeps_its_own_dpi_or_takes_another(tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    for dpi, wide in ((None, 200), (50, 100)):
        figure = plt.figure(figsize=(2, 1), dpi=100)
        write_figure(figure, tmp_path / "x.png", dpi)
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.width == wide
        assert figure.number not in plt.get_fignums()


def test_an_output_folder_is_named_by_command_and_time_and_can_be_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = output_folder("trials")
    assert made.is_dir() and made.parent == Path("runs/trials")
    assert output_folder("trials", tmp_path / "a" / "b").is_dir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="--out"):
        output_folder("trials", tmp_path / "a")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("file write failed")]
)
def test_a_full_disk_says_the_room_needed_and_free(tmp_path, monkeypatch, error):
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with (
        pytest.raises(DiskFullError, match=r"needs 5\.0 MB, 2\.0 MB are free; free some") as said,
        whole(tmp_path / "x.bin", 5_000_000) as beside,
    ):
        beside.write_bytes(b"half")
        raise error
    assert list(tmp_path.iterdir()) == [] and "\n" not in str(said.value)


def test_other_errors_stay_themselves(tmp_path):
    with pytest.raises(RuntimeError, match="another"), whole(tmp_path / "x.bin", 5):
        raise RuntimeError("another")


def test_no_folder_of_results_on_a_full_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFullError, match=r"needs 1\.0 MB, 0\.0 MB are free there"):
        output_folder("verify", tmp_path / "out" / "here")
    with pytest.raises(DiskFullError, match=r"new: the set needs 3\.0 GB"):
        require_room(tmp_path / "new", 3_000_000_000, "the set")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_or_a_long_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a file"):
        read_bounded(tmp_path / "pipe")
    (tmp_path / "long").write_text("x" * 11)
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        read_bounded(tmp_path / "long", 10)
    assert read_bounded(tmp_path / "long", 11) == "x" * 11
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "nothing")
    with pytest.raises(NotADirectoryError, match="give another --out"):
        output_folder("any", tmp_path / "long")
