"""Put together parts of one training set: `python -m sim.merge data/part-* --out data/grasps`.

The parts are what `sim.generate --shard i/n` wrote into folders of their own. Each shard is checked as
sim.verify does before it is taken.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from rt.tools.command import command
from rt.tools.progress import progress
from sim.dataset import store
from sim.dataset.claim import claim, differences, locked
from sim.dataset.store import DatasetError
from sim.verify import check_shard


@dataclass(frozen=True)
class MergeOptions:
    """Put the shards of several folders, all of the same set, into one.

    Example: python -m sim.merge data/part-0 data/part-1 --out data/grasps
    """

    parts: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of parts; they are left as they are."""
    out: Path = Path("data/grasps")
    """Folder of the whole set, new or begun."""
    link: bool = False
    """Hard links in place of copies: at once, and without more space, on one file system."""


@dataclass(frozen=True)
class Merged:
    taken: int
    """Shards put into the folder now."""
    missing: list[str]
    """Shards that no part has whole."""
    broken: list[str]
    """A line for each shard that was not taken: its path and the reason."""


def merge(parts: tuple[Path, ...], out: Path, link: bool = False) -> Merged:
    """Put every sound shard of the parts into `out`, where it is not there yet.

    Raises DatasetError, before anything is written, if a part is no dataset or of another set than the
    first, and when two parts hold different bytes for the same shard.
    """
    if not parts:
        raise DatasetError("give at least one folder to merge")
    manifest = store.read_manifest(parts[0])
    for part in parts[1:]:
        other = store.read_manifest(part)["params"]
        if differ := differences(manifest["params"], other, f"in {part}"):
            raise DatasetError(
                f"{parts[0]} and {part} are parts of different sets: " + "; ".join(differ)
            )
    claim(out, manifest)
    taken, missing, broken = 0, [], []
    with locked(out):
        jobs = [
            (split, k)
            for split in store.SPLITS
            for k in range(len(store.shard_scenes(manifest, split)))
        ]
        for split, k in progress(jobs, unit="shard", title=str(out)):
            to = store.shard_path(out, split, k)
            held = [p for p in parts if store.shard_path(p, split, k).is_dir()]
            if to.exists():
                held = []
            sound: list[Path] = []
            for part in held:
                problems = check_shard(part, manifest, split, k).problems
                path = store.shard_path(part, split, k)
                if problems:
                    broken.append(f"{path}: {'; '.join(problems)}")
                elif sound and _digests(path) != _digests(sound[0]):
                    raise DatasetError(
                        f"{path} and {sound[0]} hold different bytes: they were made by different "
                        "versions of this package or of its libraries; leave one of them out"
                    )
                else:
                    sound.append(path)
            if sound:
                _place(sound[0], to, link)
                taken += 1
            elif not to.exists():
                missing.append(to.name)
    return Merged(taken, missing, broken)


def _digests(shard: Path) -> dict[str, Any]:
    return dict(json.loads((shard / "shard.json").read_text())["sha256"])


def _place(shard: Path, to: Path, link: bool) -> None:
    size = sum(file.stat().st_size for file in shard.iterdir())
    with store.shard_beside(to, size) as beside:
        for file in shard.iterdir():
            (os.link if link else shutil.copyfile)(file, beside / file.name)


@command(
    "sim.merge",
    MergeOptions,
    mistakes=(DatasetError,),
    interrupted="the same command goes on from here",
)
def main(config: MergeOptions) -> int:
    done = merge(config.parts, config.out, config.link)
    for line in done.broken:
        print(f"not taken: {line}")
    if done.missing:
        print(f"missing: {', '.join(done.missing)}")
        print("sim.generate with the same parameters and this --out makes just those")
    print(f"{done.taken} shards put into {config.out}, {len(done.missing)} missing")
    return 1 if done.missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
