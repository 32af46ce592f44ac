"""Fresh scenes for every epoch, made beside training and never stored: `python -m train.fit DIR --endless`.

The first epoch sees the set in DIR. Each later one sees as many scenes more, whose numbers go on where those
of the one before end, made as `sim.generate --scenes N` would with a greater N: a run is still a pure
function of its options. A scene is made once and its files are removed when the next epoch begins.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sim.dataset import store
from sim.dataset.claim import claim
from sim.dataset.options import manifest, options_of
from sim.dataset.store import Split
from train.batches import Steps
from train.checkpoint import FitError
from train.team import Team

if TYPE_CHECKING:
    from sim.dataset.engines import Job

PATIENCE_S = 600.0
"""Longest wait for one more shard: many times what it takes to make it."""
_LOOK_S, _TRIES = 0.05, 40
_AHEAD = 1
"""Epochs made ahead of the one in training."""


@dataclass(frozen=True)
class EndlessOptions:
    """Scenes of the epochs after the first."""

    endless: bool = False
    """New scenes in every epoch, made beside training and removed after it: no view is seen twice."""
    endless_workers: int = 0
    """Processes that make them here. 0: half of the cores, which --threads 0 then leaves to them."""
    ray_address: str | None = None
    """Ray cluster whose machines make them instead, host:port or auto (extra `cluster`)."""

    def __post_init__(self) -> None:
        if self.endless_workers < 0:
            raise FitError(f"--endless-workers {self.endless_workers} must be 0 (half) or more")
        if not self.endless and (self.endless_workers or self.ray_address):
            raise FitError("--endless-workers and --ray-address need --endless")

    def workers(self, cores: int) -> int:
        """Cores of this machine, out of so many, that make scenes."""
        if not self.endless or self.ray_address:
            return 0
        return self.endless_workers or max(1, cores // 2)


class FreshScenes:
    """The training scenes of each epoch. The lead of the team makes them; `close` ends that."""

    def __init__(
        self, data: Path, folder: Path, options: EndlessOptions, cores: int, team: Team
    ) -> None:
        """data: the set of the first epoch. folder: place of the scenes while they are needed, removed
        before and after. Raises FitError if this version would make another set than the one in `data`."""
        self.waited_s = 0.0
        """Time that training has waited for scenes."""
        self._folder, self._team = folder, team
        self._manifest = store.read_manifest(data)
        asked = options_of(self._manifest)
        if asked is None:
            raise FitError(
                f"--endless: {data} does not say how it was made (an older version made it); make it again"
            )
        engine: Literal["local", "ray"] = "ray" if options.ray_address else "local"
        self._config = replace(
            asked,
            workers=options.workers(cores),
            engine=engine,
            ray_address=options.ray_address,
        )
        if manifest(self._config)["id"] != self._manifest["id"]:
            raise FitError(
                f"--endless: this version, with the hand and meshes as they are now, makes other scenes than "
                f"those in {data}; make the set again"
            )
        self._epoch = threading.Condition()
        self._wanted = 0
        self._failed: Exception | None = None
        self._closed = False
        self._maker: threading.Thread | None = None

    def __call__(self, epoch: int) -> Split:
        """The scenes of an epoch, from 1; waits until they are made. Raises FitError."""
        self.begin(epoch)
        shards = self._shards(epoch)
        begun = progressed = time.monotonic()
        missing = len(shards)
        while True:
            left = sum(not self._path(job).is_dir() for job in shards)
            if not left:
                break
            if left < missing:
                missing, progressed = left, time.monotonic()
            if self._closed:
                raise FitError("--endless: no scenes are made any more")
            if self._failed is not None:
                raise FitError(f"--endless: no more scenes: {self._failed}") from self._failed
            if time.monotonic() - progressed > PATIENCE_S:
                raise FitError(
                    f"--endless: no shard was made in {PATIENCE_S:.0f} s; see the makers"
                )
            time.sleep(_LOOK_S)
        self.waited_s += time.monotonic() - begun
        made = store.open_shards(
            self._folder, self._manifest, "train", [(k, numbers) for _, k, numbers in shards]
        )
        if self._team.lead and epoch > 1:  # the maps of those who still read them stay
            for job in self._shards(epoch - 1):
                shutil.rmtree(self._path(job), ignore_errors=True)
        return made

    def close(self) -> None:
        """Stop making scenes, and remove what there is."""
        with self._epoch:
            self._closed = True
            self._epoch.notify()
        if self._maker is not None:
            self._maker.join(PATIENCE_S)
        if self._team.lead:
            for _ in range(_TRIES):  # a maker may be writing its last shard
                shutil.rmtree(self._folder, ignore_errors=True)
                if not self._folder.exists():
                    break
                time.sleep(_LOOK_S)

    def begin(self, epoch: int) -> None:
        """Let the maker go on to the epoch after this one, which training is at."""
        if not self._team.lead or self._wanted == epoch + _AHEAD:
            return
        with self._epoch:
            self._wanted = epoch + _AHEAD
            self._epoch.notify()
        if self._maker is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            claim(self._folder, self._manifest)
            self._maker = threading.Thread(
                target=self._make, args=(max(epoch, 1),), name="fresh scenes"
            )
            self._maker.start()

    def _make(self, epoch: int) -> None:
        from sim.dataset.engines import ENGINES
        from sim.dataset.make import make_shard

        try:
            while self._allowed(epoch):
                make = ENGINES[self._config.engine]
                with closing(
                    make(self._config, self._folder, self._shards(epoch), make_shard)
                ) as done:
                    for _ in done:
                        if self._closed:
                            return
                epoch += 1
        except Exception as error:  # training raises it
            self._failed = error

    def _allowed(self, epoch: int) -> bool:
        """Wait until an epoch's scenes may be made; False if the run is over."""
        with self._epoch:
            self._epoch.wait_for(lambda: self._closed or epoch <= self._wanted)
        return not self._closed

    def _shards(self, epoch: int) -> list[Job]:
        """Split, number and scenes of an epoch's shards: those of the set, moved on."""
        first = store.shard_scenes(self._manifest, "train")
        scenes = self._manifest["params"]["train_scenes"]
        return [
            (
                "train",
                epoch * len(first) + k,
                range(at.start + epoch * scenes, at.stop + epoch * scenes),
            )
            for k, at in enumerate(first)
        ]

    def _path(self, job: Job) -> Path:
        return store.shard_path(self._folder, *job[:2])


class EndlessBatches:
    """Batches by step number, of each epoch's own scenes."""

    def __init__(self, first: Steps, scenes: FreshScenes, make: Callable[[Split], Steps]) -> None:
        """first: the batches of the stored set. make: the batches of an epoch's scenes."""
        self.batch_size, self.steps_per_epoch = first.batch_size, first.steps_per_epoch
        self._scenes, self._make = scenes, make
        self._epoch, self._current = 0, first

    def __call__(self, step: int) -> Any:
        """As the batches of one set. Raises FitError if scenes can be made no more."""
        epoch = step // self.steps_per_epoch
        if epoch != self._epoch:
            self._epoch, self._current = epoch, self._make(self._scenes(epoch))
        else:
            self._scenes.begin(epoch)
        return self._current(step)

    @property
    def waited_s(self) -> float:
        return self._scenes.waited_s

    def close(self) -> None:
        """Stop making scenes."""
        self._scenes.close()
