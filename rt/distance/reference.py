"""Backend `reference`: the network as contract.py writes it, in plain NumPy float64. The oracle.

The field's is in field_reference.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import Contract, Weights, require_architecture
from rt.distance.field_reference import FieldReference

_CHUNK = 256  # candidates at a time: (256, 8450) float64 is 17 MB


def encode(actions: NDArray[np.float64], encoding: str) -> NDArray[np.float64]:
    """Encoded actions (N, E), the network's input, from actions (N, 3) of x, y [m], theta [rad]."""
    if encoding == "raw":
        return actions
    double = 2 * actions[:, 2:]
    return np.concatenate([actions[:, :2], np.cos(double), np.sin(double)], axis=1)


def encode_jacobian(actions: NDArray[np.float64], encoding: str) -> NDArray[np.float64]:
    """d encode / d (x, y, theta), (N, E, 3)."""
    if encoding == "raw":
        return np.broadcast_to(np.eye(3), (len(actions), 3, 3))
    jacobian = np.zeros((len(actions), 4, 3))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = 1
    jacobian[:, 2, 2] = -2 * np.sin(2 * actions[:, 2])
    jacobian[:, 3, 2] = 2 * np.cos(2 * actions[:, 2])
    return jacobian


class ReferenceDistance:
    """d(I, a) and its gradient. Arguments must have passed rt.distance's check."""

    def __init__(self, contract: Contract, weights: Weights):
        self._w = {name: array.astype(np.float64) for name, array in weights.items()}
        self._encoding = contract.action_encoding
        self._slope = contract.leaky_slope

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        distance, _ = self._evaluate(depth, actions, want_gradient=False)
        if out is None:
            return distance
        out[:] = distance
        return out

    def gradient(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """d (N,) m, and dd/da (N, 3) in m/m, m/m, m/rad (at a kink, of the side below it)."""
        return self._evaluate(depth, actions, want_gradient=True)

    def image_side(self, depth: NDArray[np.float32]) -> NDArray[np.float64]:
        """Y (50, 13, 13): everything that the candidates of an image share."""
        w = self._w
        conv1 = _convolve(depth[None].astype(np.float64), w["conv1.weight"], w["conv1.bias"])
        pool1 = _max_pool2(_leaky(conv1, self._slope))
        return _max_pool2(_convolve(pool1, w["conv2.weight"], w["conv2.bias"]))

    def _evaluate(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32], *, want_gradient: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        w, slope = self._w, self._slope
        image = self.image_side(depth)
        distance = np.empty(len(actions), np.float32)
        gradient = np.empty((len(actions) if want_gradient else 0, 3), np.float32)
        for start in range(0, len(actions), _CHUNK):
            a = actions[start : start + _CHUNK].astype(np.float64)
            u = encode(a, self._encoding) @ w["action.weight"].T + w["action.bias"]
            bias = u @ w["conv2.weight_sum"].T
            z = (image[None] + bias[:, :, None, None]).reshape(len(a), -1)
            hidden = _leaky(z, slope) @ w["fc1.weight"].T + w["fc1.bias"]
            out = _leaky(hidden, slope) @ w["fc2.weight"].T + w["fc2.bias"]
            distance[start : start + _CHUNK] = out[:, 0]
            if want_gradient:
                by_hidden = w["fc2.weight"] * np.where(hidden > 0, 1.0, slope)
                by_z = (by_hidden @ w["fc1.weight"]) * np.where(z > 0, 1.0, slope)
                by_bias = by_z.reshape(len(a), 50, -1).sum(axis=2)
                by_encoded = by_bias @ w["conv2.weight_sum"] @ w["action.weight"]
                jacobian = encode_jacobian(a, self._encoding)
                gradient[start : start + _CHUNK] = np.einsum("ne,nea->na", by_encoded, jacobian)
        return distance, gradient


def open_backend(
    path: Path, contract: Contract, weights: Weights, threads: int, precision: str
) -> ReferenceDistance | FieldReference:
    require_architecture("reference", contract)
    if contract.architecture == "field":
        return FieldReference(contract, weights)
    return ReferenceDistance(contract, weights)


def _leaky(z: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    return np.where(z > 0, z, slope * z)


def _convolve(
    image: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cross-correlation without padding: (I, H, W) with (O, I, 5, 5) to (O, H - 4, W - 4)."""
    windows = np.lib.stride_tricks.sliding_window_view(image, weight.shape[2:], axis=(1, 2))
    result: NDArray[np.float64] = np.einsum("ihwyx,oiyx->ohw", windows, weight, optimize=True)
    return result + bias[:, None, None]


def _max_pool2(image: NDArray[np.float64]) -> NDArray[np.float64]:
    channels, height, width = image.shape
    result: NDArray[np.float64] = image.reshape(channels, height // 2, 2, width // 2, 2).max((2, 4))
    return result
