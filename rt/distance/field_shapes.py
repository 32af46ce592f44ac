"""Names and shapes of the field network's weights; every size follows from the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

MAP_CHANNELS = 2
TURN_INPUTS = 4
"""cos 2t, sin 2t, cos 4t, sin 4t of an action's angle t."""
OUTPUTS = 3
"""Scaled distance, logit of the probability, logarithm of the spread."""

CONVOLUTIONS = {
    "in1": (5, 2), "in2": (3, 1), "down2": (3, 2), "same2": (3, 1), "down3": (3, 2), "same3": (3, 1),
    "down4": (3, 2), "same4": (3, 1), "up3": (1, 1), "mix3": (3, 1), "up2": (1, 1), "mix2": (3, 1),
    "up1": (1, 1), "mix1": (3, 1), "out": (1, 1),
}  # fmt: skip
"""Kernel size and stride of each; zeros are padded so that stride 1 keeps the size."""

LAYERS = (*tuple(CONVOLUTIONS)[:8], "whole", *tuple(CONVOLUTIONS)[8:], "head1", "head2", "head3")
FIELD_WEIGHTS = tuple(f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias"))
"""In the order in which the hash of a file goes over them."""


def field_shapes(weights: Mapping[str, NDArray[np.generic]]) -> dict[str, tuple[int, ...]]:
    """The shape that each of FIELD_WEIGHTS must have, given the widths of the layers that set them.

    Raises KeyError, naming the weight, if one of those is missing, and ValueError if it has no axes.
    """

    def width(layer: str) -> int:
        shape = weights[f"{layer}.weight"].shape
        if not shape:
            raise ValueError(f"{layer}.weight is a number")
        return int(shape[0])

    a, b, c, d, e = (width(layer) for layer in ("in1", "in2", "down2", "down3", "down4"))
    features, hidden = width("out"), width("head1")
    ends = {
        "in1": (a, MAP_CHANNELS), "in2": (b, a), "down2": (c, b), "same2": (c, c), "down3": (d, c),
        "same3": (d, d), "down4": (e, d), "same4": (e, e), "whole": (e, e), "up3": (d, e), "mix3": (d, d),
        "up2": (c, d), "mix2": (c, c), "up1": (b, c), "mix1": (b, b), "out": (features, b),
        "head1": (hidden, features + TURN_INPUTS), "head2": (hidden, hidden), "head3": (OUTPUTS, hidden),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in LAYERS:
        kernel = (CONVOLUTIONS[layer][0],) * 2 if layer in CONVOLUTIONS else ()
        shapes[f"{layer}.weight"] = (*ends[layer], *kernel)
        shapes[f"{layer}.bias"] = (ends[layer][0],)
    return shapes
