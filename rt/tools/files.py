"""Results on disk: a file is whole or not there, whatever interrupts its writing."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def output_folder(command: str, out: Path | None = None) -> Path:
    """--out, or runs/<command>/<time>/; made. Raises OSError if it cannot be written to."""
    folder = out or Path("runs") / command / time.strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not writable; give another --out")
    return folder


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path`, of the same suffix, to write to: renamed to it at the block's end, removed
    if the block raises."""
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with whole(path) as beside:
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
