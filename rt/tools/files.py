"""Results on disk: a file is whole or not there, whatever interrupts its writing."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


T = TypeVar("T")
MOST_BYTES = 1_000_000
"""Longest text file that is read at once."""


def parsed(parse: Callable[[str], T], text: str) -> T:
    """A text through a parser such as tomllib.loads; ValueError also for one that is nested too deep."""
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_bounded(path: Path, most_bytes: int = MOST_BYTES, errors: str = "strict") -> str:
    """A text file. Raises OSError; ValueError for one that is no file, no text, or longer."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("not a file")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"longer than {most_bytes} bytes")
    return data.decode(errors=errors)


def parsed_file(parse: Callable[[str], T], path: Path) -> T:
    """A text file through a parser. Raises OSError; ValueError for one that is no text, or longer than
    MOST_BYTES."""
    return parsed(parse, read_bounded(path))


class DiskFullError(OSError):
    """No room on the disk for what is to be written; the message says how much is needed and free."""


RESULTS_BYTES = 1_000_000
"""Room asked for before a command makes the folder of its results."""


def free_bytes(path: Path) -> int:
    """Bytes free on the disk of a path, which need not exist yet."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def require_room(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise DiskFullError if the disk of a folder (which need not exist yet) has less room than needed."""
    free = free_bytes(folder)
    if free < needed_bytes:
        raise DiskFullError(
            f"{folder}: {purpose} needs {_size(needed_bytes)}, {_size(free)} are free there; free some or "
            "give another --out"
        )


@contextmanager
def disk_full_named(path: Path, needed_bytes: int, remedy: str = "free some") -> Iterator[None]:
    """Turn a full disk within the block into a DiskFullError with the room needed and free.

    Some libraries hide the system's error: a RuntimeError is taken for one if less is free than needed.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        free = free_bytes(path.parent)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hidden = isinstance(error, RuntimeError) and free < needed_bytes
        if not (full or hidden):
            raise
        needed = f"this file needs {_size(needed_bytes)}, " if needed_bytes else ""
        raise DiskFullError(
            f"{path}: the disk is full: {needed}{_size(free)} are free; {remedy}"
        ) from None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def output_folder(command: str, out: Path | None = None) -> Path:
    """--out, or runs/<command>/<time>/; made. Raises OSError if it cannot be written to, DiskFullError if the
    disk has no room for results."""
    folder = out or Path("runs") / command / time.strftime("%Y-%m-%d_%H-%M-%S")
    require_room(folder, RESULTS_BYTES, "the folder of results")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is there and no folder; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not writable; give another --out")
    return folder


@contextmanager
def whole(path: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """A name beside `path`, of the same suffix, to write to: renamed to it at the block's end, removed
    if the block raises. A full disk is a DiskFullError, with needed_bytes in its message."""
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with disk_full_named(path, needed_bytes):
            yield beside
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def shown(folder: Path, suffixes: Collection[str], below: bool = False) -> list[Path]:
    """Sorted files of a folder, or all below it, with one of the suffixes (in small letters), but for hidden
    ones: what `whole` has not finished, and the `._name` that other systems put beside a file."""
    every = folder.rglob("*") if below else folder.iterdir()
    return sorted(
        p
        for p in every
        if p.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )


def write_text(path: Path, text: str) -> None:
    with whole(path, len(text)) as beside:
        beside.write_text(text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """As `plain` makes it."""
    write_text(path, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def write_figure(figure: Figure, path: Path, dpi: float | None = None) -> None:
    """Saved at its own dpi or this one, and closed."""
    from matplotlib import pyplot as plt

    with whole(path) as beside:
        figure.savefig(beside, dpi="figure" if dpi is None else dpi)
    plt.close(figure)


def plain(value: Any) -> Any:
    """For every JSON reader: paths become text, arrays lists, numbers that are not finite null."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
