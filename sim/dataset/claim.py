"""Locks of a dataset's folder: one command may write, or several with different --shard i/n."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rt.tools.files import write_text
from sim.dataset import store
from sim.dataset.store import DatasetError


def differences(there: dict[str, Any], here: dict[str, Any], asked: str = "asked") -> list[str]:
    """Differences between two sets' parameters, one phrase each."""
    return [
        f"{k}: there {there.get(k)!r}, {asked} {here.get(k)!r}"
        for k in sorted({*there, *here})
        if there.get(k) != here.get(k)
    ]


def claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the folder this set's, or refuse: it holds something else, or a set made otherwise.

    Any number of commands may do so at the same time: all write the same manifest.
    """
    path = folder / "manifest.json"
    others = folder.exists() and (
        not folder.is_dir() or any(not _beginning(p) for p in folder.iterdir())
    )
    if path.exists():  # asked after looking into the folder: another command may be beginning there
        differ = differences(store.read_manifest(folder)["params"], manifest["params"])
        if differ:
            raise DatasetError(
                f"{folder} holds a set made with other parameters ({'; '.join(differ)}); "
                "give another --out, or the same parameters to go on"
            )
        return
    if others:
        raise DatasetError(f"{folder} exists and is not a dataset; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _beginning(path: Path) -> bool:
    """True for a manifest that is being written, here or by a run that was killed."""
    return path.name.startswith(".manifest.json.")


@contextmanager
def locked(folder: Path, part: int = 0, parts: int = 1) -> Iterator[None]:
    """Lock the folder, or one part of it, against a second writer, and remove what a killed writer left.

    The kernel releases the lock however this process ends. Raises DatasetError if another holds it.
    """
    with ExitStack() as held:
        handle = os.open(folder, os.O_RDONLY)
        held.callback(os.close, handle)
        _lock(handle, fcntl.LOCK_EX if parts == 1 else fcntl.LOCK_SH, folder, "")
        if parts > 1:
            own = folder / f".part-{part}-of-{parts}.lock"
            handle = os.open(own, os.O_RDWR | os.O_CREAT)
            held.callback(os.close, handle)
            _lock(handle, fcntl.LOCK_EX, folder, f" its --shard {part}/{parts}")
            held.callback(own.unlink, missing_ok=True)
        _clear(folder, part, parts)
        yield


def _lock(handle: int, kind: int, folder: Path, what: str) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatasetError(f"{folder}: another sim.generate is writing there{what}") from None
    except OSError as error:  # some network file systems
        print(
            f"{folder}: no locks there ({error}); run one command for each shard", file=sys.stderr
        )


def _clear(folder: Path, part: int, parts: int) -> None:
    """Remove half-written shards of this part, whose writer must be dead."""
    for beside in folder.glob(".*.partial"):
        number = beside.name.split(".")[1].rpartition("-")[2]
        if number.isdigit() and int(number) % parts == part:
            shutil.rmtree(beside)
    if parts == 1:
        for half in (*folder.glob(".manifest.json.*"), *folder.glob(".part-*.lock")):
            half.unlink()


def parse_share(text: str) -> tuple[int, int]:
    """(i, n) of "i/n", i from 0; raises DatasetError."""
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit()) or not int(first) < int(last):
        raise DatasetError(
            f"--shard {text!r} must be i/n with i from 0 to n - 1, such as 0/8 to 7/8"
        )
    return int(first), int(last)
