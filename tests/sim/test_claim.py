"""Locks of a dataset's folder."""

import fcntl
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.dataset.claim import claim, locked, parse_share
from sim.dataset.store import FORMAT, DatasetError

MANIFEST = {"format": FORMAT, "id": "x", "params": {"seed": 1}}


@given(st.integers(1, 99).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_a_share_is_read(share):
    assert parse_share("{}/{}".format(*share)) == share


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3", "0/ 2"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(DatasetError, match="i/n"):
        parse_share(text)


def test_parts_write_side_by_side_and_nobody_writes_twice(tmp_path):
    with locked(tmp_path, 0, 2), locked(tmp_path, 1, 2):
        with pytest.raises(DatasetError, match="--shard 1/2"), locked(tmp_path, 1, 2):
            pass
        with pytest.raises(DatasetError, match="another"), locked(tmp_path):
            pass
    with locked(tmp_path), pytest.raises(DatasetError), locked(tmp_path, 0, 2):
        pass
    assert list(tmp_path.iterdir()) == []


def test_only_the_own_part_of_what_a_dead_writer_left_is_cleared(tmp_path):
    for k in range(4):
        (tmp_path / f".train-{k:05d}.99.partial").mkdir()
    with locked(tmp_path, 1, 2):
        left = sorted(p.name for p in tmp_path.glob("*.partial"))
        assert left == [".train-00000.99.partial", ".train-00002.99.partial"]
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_folder_is_claimed_by_as_many_as_agree(tmp_path):
    claim(tmp_path / "set", MANIFEST)
    claim(tmp_path / "set", MANIFEST)
    with pytest.raises(DatasetError, match="seed: there 1, asked 2"):
        claim(tmp_path / "set", MANIFEST | {"params": {"seed": 2}})
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(DatasetError, match="not a dataset"):
        claim(tmp_path, MANIFEST)


def test_another_command_beginning_is_no_stranger(tmp_path):
    (tmp_path / ".manifest.json.7").write_text("{")
    claim(tmp_path, MANIFEST)
    with locked(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path):
        pass
    assert "no locks" in capsys.readouterr().err
