"""Engines that make shards: this machine's cores, or a Ray cluster. Both give the same bytes.

A Ray worker sends its shard back to the command, which writes it: nodes need no shared folder, only the
same version of this package (and of the user's meshes, at the same path; both are checked). Workers that
die, or whole nodes, are replaced by Ray and their shards made again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from rt.tools.pool import PoolError, processes
from sim.dataset import store
from sim.dataset.make import make_shard
from sim.dataset.options import GenerateOptions, parameters
from sim.dataset.store import DatasetError
from sim.scene.objects import Split

Job = tuple[Split, int, range]
"""A shard to make: its split, its number, the numbers of its scenes."""
Make = Callable[[GenerateOptions, Path, Split, int, range], Any]

_RETRIES = 10
"""Attempts at a shard whose worker or node died, before the run is given up."""


def run_local(
    config: GenerateOptions, folder: Path, jobs: Sequence[Job], make: Make
) -> Generator[Job, None, None]:
    """Make the shards in `folder` on --workers processes of this machine; yields each when it is there."""
    workers = min(config.workers or os.cpu_count() or 1, max(len(jobs), 1))
    try:
        with processes(workers) as pool:
            futures = {pool.submit(make, config, folder, *job): job for job in jobs}
            for done in as_completed(futures):
                done.result()
                yield futures.pop(done)
    except PoolError as error:
        raise PoolError(f"{error}; the same command goes on from here") from None


def run_ray(
    config: GenerateOptions, folder: Path, jobs: Sequence[Job], make: Make
) -> Generator[Job, None, None]:
    """The same on the cluster at --ray-address, or one of --workers processes started here.

    Raises DatasetError if Ray is not installed, the cluster is not reached, or a node would make
    another set than this one.
    """
    ray = _import_ray()
    identity = store.read_manifest(folder)["id"]
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if config.ray_address:
        options["address"] = config.ray_address
    else:
        options |= {"num_cpus": config.workers or os.cpu_count(), "include_dashboard": False}
        options["address"] = "local"
    _connect(ray, options)
    try:
        # make is not sent: it may be __main__'s, which a worker does not have.
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_shard_files)
        waiting = list(reversed(jobs))
        going: dict[Any, Job] = {}
        while waiting or going:
            # Few shards more than workers are under way: those that are done wait in memory.
            room = 2 * int(ray.cluster_resources().get("CPU", 1)) if waiting else 0
            while waiting and len(going) < max(room, 2):
                job = waiting.pop()
                going[remote.remote(config, identity, *job)] = job
            for done in ray.wait(list(going), num_returns=1, timeout=1.0)[0]:
                try:
                    files = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise PoolError(
                        f"the cluster lost shard {going[done][:2]} {_RETRIES} times ({error}); "
                        "the same command goes on from here"
                    ) from None
                job = going.pop(done)
                place_shard(store.shard_path(folder, *job[:2]), files)
                del files
                yield job
    finally:
        ray.shutdown()


def _connect(ray: Any, options: dict[str, Any]) -> None:
    """ray.init; a cluster begun here gets five tries, for on a busy machine Ray gives up after 30 s."""
    for left in reversed(range(5 if options["address"] == "local" else 1)):
        try:
            ray.init(**options)
            return
        except Exception as error:  # ray raises anything here
            ray.shutdown()
            if not left:
                raise DatasetError(f"no Ray cluster at {options['address']}: {error}") from None


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise DatasetError(
            f"--engine ray needs the extra `cluster` (pip install 'grasp-servo[cluster]'): {error}"
        ) from error
    return ray


def _shard_files(
    config: GenerateOptions, identity: str, split: Split, shard: int, numbers: range
) -> dict[str, bytes]:
    """A shard as made on a node: the bytes of its files. Raises DatasetError if it is not of this set."""
    found = store.dataset_id(parameters(config))
    if found != identity:
        raise DatasetError(
            f"node {os.uname().nodename} would make set {found}, not {identity}: its version of this "
            "package, its hand file or its meshes differ; install the same ones there"
        )
    with tempfile.TemporaryDirectory() as folder:
        make_shard(config, Path(folder), split, shard, numbers)
        return {f.name: f.read_bytes() for f in store.shard_path(folder, split, shard).iterdir()}


def place_shard(path: Path, files: dict[str, bytes]) -> None:
    """Write a finished shard beside its place and rename it there, synced to disk first."""
    with store.shard_beside(path, sum(map(len, files.values()))) as beside:
        for name, content in files.items():
            (beside / name).write_bytes(content)


ENGINES: dict[
    str, Callable[[GenerateOptions, Path, Sequence[Job], Make], Generator[Job, None, None]]
] = {
    "local": run_local,
    "ray": run_ray,
}
