"""Budgets: what latency.json must keep to. A budget that was not measured counts as broken."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


class BudgetError(ValueError):
    """A budget file that cannot be read or says something unknown."""


_KEYS: dict[str, set[str]] = {
    "percentile": {"backend", "candidates", "threads", "of", "at_most_ms"},
    "ratio": {"fast", "slow", "candidates", "threads", "at_least"},
    "error": {"backend", "at_most_m"},
    "per_candidate": {"backend", "threads", "between", "at_most_us"},
    "cycle": {"load", "of", "at_most"},
}


def read_budgets(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables of a budget file. Raises BudgetError, naming the key."""
    try:
        budgets = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BudgetError(f"{path}: {error}") from error
    for kind, rows in budgets.items():
        if kind not in _KEYS:
            raise BudgetError(f"{path}: unknown [[{kind}]]; known are {', '.join(_KEYS)}")
        for row in rows:
            if set(row) != _KEYS[kind]:
                has, needs = ", ".join(sorted(row)), ", ".join(sorted(_KEYS[kind]))
                raise BudgetError(f"{path}: a [[{kind}]] has {has}; it needs {needs}")
    return budgets


def check(result: dict[str, Any], budgets: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One {budget, found, limit, kept} per row; `found` is None where nothing was measured."""
    verdicts = []
    for kind, rows in budgets.items():
        for row in rows:
            name, found, limit, at_least = _FIND[kind](result, row)
            kept = found is not None and (found >= limit if at_least else found <= limit)
            verdicts.append({"budget": name, "found": found, "limit": limit, "kept": kept})
    return verdicts


def find(
    result: dict[str, Any], backend: str, candidates: int, threads: str | int
) -> dict[str, Any] | None:
    """The entry of `inference`; threads may be "all"."""
    wanted = result["machine"]["threads"] if threads == "all" else threads
    for entry in result["inference"]:
        if (entry["backend"], entry["candidates"], entry["threads"]) == (
            backend,
            candidates,
            wanted,
        ):
            return dict(entry)
    return None


Found = tuple[str, float | None, float, bool]


def _percentile(result: dict[str, Any], row: dict[str, Any]) -> Found:
    entry = find(result, row["backend"], row["candidates"], row["threads"])
    name = f"{row['backend']}, {_size(row)}: {row['of']} in ms"
    return name, entry[f"{row['of']}_ms"] if entry else None, row["at_most_ms"], False


def _ratio(result: dict[str, Any], row: dict[str, Any]) -> Found:
    fast, slow = (
        find(result, row[which], row["candidates"], row["threads"]) for which in ("fast", "slow")
    )
    name = f"{row['fast']} faster than {row['slow']}, {_size(row)}"
    ratio = slow["p50_ms"] / fast["p50_ms"] if fast and slow else None
    return name, ratio, row["at_least"], True


def _size(row: dict[str, Any]) -> str:
    return f"{row['candidates']} candidates, {row['threads']} threads"


def _error(result: dict[str, Any], row: dict[str, Any]) -> Found:
    errors = [e["max_abs_error_m"] for e in result["inference"] if e["backend"] == row["backend"]]
    worst = max(errors, default=None)
    return f"{row['backend']}: error in m", worst, row["at_most_m"], False


def _per_candidate(result: dict[str, Any], row: dict[str, Any]) -> Found:
    low, high = row["between"]
    a, b = (find(result, row["backend"], n, row["threads"]) for n in (low, high))
    slope = (b["p50_ms"] - a["p50_ms"]) / (high - low) * 1e3 if a and b else None
    name = f"{row['backend']}: each candidate from {low} to {high} in us"
    return name, slope, row["at_most_us"], False


def _cycle(result: dict[str, Any], row: dict[str, Any]) -> Found:
    name = f"cycle, load {row['load']}: {row['of']}"
    for entry in result["cycle"]:
        if entry["load"] == row["load"]:
            value: Any = entry
            for key in row["of"].split("."):
                value = value.get(key) if isinstance(value, dict) else None
            return name, value, row["at_most"], False
    return name, None, row["at_most"], False


_FIND = {
    "percentile": _percentile,
    "ratio": _ratio,
    "error": _error,
    "per_candidate": _per_candidate,
    "cycle": _cycle,
}
