"""A part by its name, or by `module:attribute`: controllers, models, robots, cameras, grippers, backends.

The text travels, through cell files, command lines and to worker processes, not the object.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

_MOVED = {"sim.realsense": "sim.hardware.realsense"}
"""Modules that a text of an older version may name."""


class ResolveError(ValueError):
    """A name that is not known, or a `module:attribute` that cannot be imported."""


def resolve(kind: str, text: str, known: Mapping[str, Any], extra: tuple[str, ...] = ()) -> Any:
    """The object that a text names.

    kind: for messages, such as `controller`. text: a key of `known`, or `module:attribute` (dots in the
    attribute are followed; a query `?name=value` is left out, see `split`). known: objects by name; a value
    that is a text `module:attribute` is imported. extra: names for the message that the caller handles.
    Raises ResolveError.
    """
    place, _ = split(text)
    found = known.get(place, place)
    if not isinstance(found, str):
        return found
    module, colon, attribute = found.partition(":")
    if not (module and colon and attribute):
        names = ", ".join(sorted((*known, *extra)))
        listed = f"known are {names}, or " if names else ""
        raise ResolveError(f"no {kind} {text!r}; {listed}give module:attribute")
    try:
        part: Any = importlib.import_module(_MOVED.get(module, module))
        for name in attribute.split("."):
            part = getattr(part, name)
    except (ImportError, AttributeError) as error:
        raise ResolveError(f"{kind} {text!r} cannot be imported: {error}") from error
    return part


def split(text: str) -> tuple[str, dict[str, str]]:
    """`module:attribute?name=value&...` -> (`module:attribute`, {name: value, ...})."""
    place, _, query = text.partition("?")
    return place, dict(parse_qsl(query, keep_blank_values=True))
