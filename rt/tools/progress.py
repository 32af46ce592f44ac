"""Progress of long work: a bar on a terminal, elsewhere a plain line every ten seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 10.0


class _Lines(tqdm):  # type: ignore[misc]
    """tqdm where no cursor can be moved: nothing in the first seconds, then whole lines."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        return partial(print, file=file, flush=True)

    def close(self) -> None:
        """Without the last line: what the command then prints says more."""
        self.disable = True
        self._decr_instances(self)


def progress(
    over: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str,
    title: str,
) -> Any:
    """Counts what it iterates over, or what its `update` is told; use it in a with block then."""
    unit = f" {unit}"  # tqdm puts it right behind a number
    if sys.stderr.isatty():
        return tqdm(over, title, total, initial=initial, unit=unit)
    return _Lines(
        over,
        title,
        total,
        initial=initial,
        unit=unit,
        mininterval=LINE_EVERY_S,
        delay=LINE_EVERY_S,
        miniters=1,
        bar_format="{desc}: {n_fmt} of {total_fmt}{unit}s, {rate_noinv_fmt}, {remaining} left",
    )
