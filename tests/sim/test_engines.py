"""The same bytes wherever shards are made, and whatever dies meanwhile."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from needs import needed
from sets import SMALL, small_set

from sim.dataset import store
from sim.dataset.engines import ENGINES, place_shard
from sim.dataset.options import GenerateOptions
from sim.dataset.store import DatasetError
from sim.generate import generate


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines") / "set"
    small_set(folder)
    return folder


def command(out, *options):
    return [sys.executable, "-m", "sim.generate", "--out", str(out), *SMALL, *options]


def run(out, *options):
    return subprocess.run(command(out, *options), capture_output=True, text=True, timeout=400)


def test_four_workers_give_the_same_bytes(whole, tmp_path):
    """`whole` was made in one process without any engine; one and two workers: test_generate.py."""
    done = run(tmp_path / "set", "--workers", "4")
    assert done.returncode == 0, done.stderr
    peak = re.search(r"peak memory (\d+) MB, the largest worker (\d+) MB", done.stdout)
    assert peak and all(20 < int(mb) < 2000 for mb in peak.groups())
    assert bytes_of(tmp_path / "set") == bytes_of(whole)


def test_jobs_of_a_batch_scheduler_share_one_folder(whole, tmp_path):
    out = tmp_path / "set"
    jobs = [subprocess.Popen(command(out, "--shard", f"{i}/2", "--workers", "1")) for i in range(2)]
    assert [job.wait(timeout=200) for job in jobs] == [0, 0]
    assert bytes_of(out) == bytes_of(whole)


def children(parent: int) -> dict[int, str]:
    """Every process below this one, and its command line."""
    parents, lines = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue
    below, more = set(), {parent}
    while more:
        below |= more
        more = {p for p, q in parents.items() if q in more} - below
    return {p: lines[p] for p in below - {parent}}


def test_a_ray_cluster_that_loses_a_worker_gives_the_same_bytes(whole, tmp_path):
    """Two workers; one of them is killed while it makes a shard."""
    needed("cluster", "ray")
    out = tmp_path / "set"
    process = subprocess.Popen(
        command(out, "--engine", "ray", "--workers", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killed, deadline = None, time.monotonic() + 420
    while killed is None and process.poll() is None and time.monotonic() < deadline:
        for pid, line in children(process.pid).items():
            if line.startswith("ray::_shard_files"):
                os.kill(pid, signal.SIGKILL)
                killed = pid
                break
        time.sleep(0.01)
    try:
        said, _ = process.communicate(timeout=150)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert killed is not None
    assert bytes_of(out) == bytes_of(whole)


def test_a_cluster_that_is_not_there_is_said_in_a_line(tmp_path, monkeypatch):
    needed("cluster", "ray")
    import ray

    def init(**_):
        raise ConnectionError("nobody at 192.0.2.1:6379")

    monkeypatch.setattr(ray, "init", init)
    config = replace(small_config(tmp_path), engine="ray", ray_address="192.0.2.1:6379")
    with pytest.raises(DatasetError, match=r"no Ray cluster at 192\.0\.2\.1"):
        generate(config)


def small_config(tmp_path) -> GenerateOptions:
    return GenerateOptions(4, 1, 3, tmp_path / "set", seed=7, grasp_samples=200, scenes_per_shard=1)


def test_ray_that_is_not_installed_is_said_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DatasetError, match="extra `cluster`"):
        generate(replace(small_config(tmp_path), engine="ray"))


def test_a_node_that_would_make_another_set_is_refused(tmp_path):
    from sim.dataset.engines import _shard_files

    with pytest.raises(DatasetError, match="would make set"):
        _shard_files(small_config(tmp_path), "0" * 12, "train", 0, range(1))


def test_options_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    for options in ({"shard": "3/2"}, {"ray_address": "auto"}):
        with pytest.raises(DatasetError):
            generate(replace(small_config(tmp_path), **options))
    assert list(tmp_path.iterdir()) == [] and set(ENGINES) == {"local", "ray"}


def test_a_shard_that_is_there_already_stays(tmp_path):
    path = store.shard_path(tmp_path, "train", 0)
    place_shard(path, {"shard.json": b"first"})
    place_shard(path, {"shard.json": b"second"})
    assert (path / "shard.json").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["train-00000"]
