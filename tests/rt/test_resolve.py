"""rt.tools.resolve: names, module:attribute, old places, and errors that list the known names."""

from __future__ import annotations

import math

import pytest

from rt.tools.resolve import ResolveError, resolve, split

KNOWN = {"root": math.sqrt, "power": "math:pow"}


def test_a_name_is_looked_up_and_a_text_imported() -> None:
    assert resolve("function", "root", KNOWN) is math.sqrt
    assert resolve("function", "power", KNOWN) is math.pow
    assert resolve("function", "math:floor", KNOWN) is math.floor
    assert resolve("method", "datetime:datetime.now", {})().year > 2000


def test_a_query_is_told_apart() -> None:
    text = "sim.hardware.realsense:emulated?model=d405&seed="
    assert split(text) == ("sim.hardware.realsense:emulated", {"model": "d405", "seed": ""})
    assert resolve("function", "math:floor?a=1", {}) is math.floor


def test_the_old_place_of_the_emulated_camera_still_resolves() -> None:
    from sim.hardware.realsense import emulated

    assert resolve("camera device", "sim.realsense:emulated?model=d405", {}) is emulated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cube", "no function 'cube'; known are power, root, twin, or give module:attribute"),
        ("math:cube", "function 'math:cube' cannot be imported"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        (":f", "no function ':f'"),
        ("math:", "no function 'math:'"),
    ],
)
def test_errors_list_the_known_names(text: str, message: str) -> None:
    with pytest.raises(ResolveError, match=message.replace("(", r"\(")):
        resolve("function", text, KNOWN, ("twin",))
