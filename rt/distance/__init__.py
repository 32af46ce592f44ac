"""d(I, a): the distance from the hand to the nearest good grasp once it has moved by `a`.

distance = open_model()  # the shipped model on the fastest backend here
d = distance(depth, actions)  # (64, 64) and (N, 3) float32 -> (N,) float32 m
"""

from rt.distance.budget import candidates_for
from rt.distance.contract import Contract, DistanceError, ModelError
from rt.distance.model import (
    BACKENDS,
    DEFAULT_MODEL,
    PRECISIONS,
    SHIPPED,
    SHIPPED_MODEL,
    Distance,
    Prediction,
    open_model,
)

__all__ = [
    "BACKENDS",
    "DEFAULT_MODEL",
    "PRECISIONS",
    "SHIPPED",
    "SHIPPED_MODEL",
    "Contract",
    "Distance",
    "DistanceError",
    "ModelError",
    "Prediction",
    "candidates_for",
    "open_model",
]
