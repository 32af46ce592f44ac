"""The field network in plain NumPy float64, with its gradient in the action: the oracle.

The map is the float32 one of rt.distance.metric_map, which every backend has bit by bit; all that follows
is computed in double precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import Contract, Weights
from rt.distance.field_shapes import CONVOLUTIONS
from rt.distance.metric_map import metric_map

_CHUNK = 8192  # candidates at a time

Array = NDArray[np.float64]


class FieldReference:
    """Distance, probability, spread and gradient. Arguments must have passed rt.distance's check."""

    outputs = ("distance", "probability", "spread")

    def __init__(self, contract: Contract, weights: Weights):
        self._w = {name: array.astype(np.float64) for name, array in weights.items()}
        self._contract = contract
        self._slope = contract.leaky_slope

    def __call__(
        self,
        depth: NDArray[np.float32],
        actions: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        distance = self.predict(depth, actions)[0]
        if out is None:
            return distance
        out[:] = distance
        return out

    def predict(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Distance [m], probability and spread [m], (N,) each."""
        out, _ = self._outputs(depth, actions)
        distance = self._contract.distance_scale_m * np.sinh(out[:, 0])
        probability, spread = 1 / (1 + np.exp(-out[:, 1])), np.exp(out[:, 2])
        return (
            distance.astype(np.float32),
            probability.astype(np.float32),
            spread.astype(np.float32),
        )

    def gradient(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """d (N,) m, and dd/da (N, 3) in m/m, m/m, m/rad.

        At a kink of a rectifier it is the slope of the side below; on a line between cells' centres, where
        the look-up has one, of the side of larger x or y.
        """
        out, slope = self._outputs(depth, actions)
        scale = self._contract.distance_scale_m
        gradient = scale * np.cosh(out[:, :1]) * slope
        return (scale * np.sinh(out[:, 0])).astype(np.float32), gradient.astype(np.float32)

    def features(self, depth: NDArray[np.float32]) -> Array:
        """(C, G/2, G/2): everything that the candidates of an image share."""
        c = self._contract
        image = metric_map(depth, c.cells, c.cell_m, c.view).astype(np.float64)

        def act(layer: str, x: Array) -> Array:
            return self._leaky(self._convolve(layer, x))

        def twice(x: Array) -> Array:
            return x.repeat(2, axis=1).repeat(2, axis=2)

        x1 = act("in2", act("in1", image))
        x2 = act("same2", act("down2", x1))
        x3 = act("same3", act("down3", x2))
        x4 = act("same4", act("down4", x3))
        whole = self._w["whole.weight"] @ x4.mean(axis=(1, 2)) + self._w["whole.bias"]
        y = x4 + whole[:, None, None]
        y = act("mix3", twice(self._convolve("up3", y)) + x3)
        y = act("mix2", twice(self._convolve("up2", y)) + x2)
        y = act("mix1", twice(self._convolve("up1", y)) + x1)
        return self._convolve("out", y)

    def _outputs(
        self, depth: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> tuple[Array, Array]:
        """The network's three numbers (N, 3), and the slope of the first along x, y, theta (N, 3)."""
        features = self.features(depth)
        out, slope = np.empty((len(actions), 3)), np.empty((len(actions), 3))
        for start in range(0, len(actions), _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part], slope[part] = self._head(features, actions[part].astype(np.float64))
        return out, slope

    def _head(self, features: Array, actions: Array) -> tuple[Array, Array]:
        w, slope = self._w, self._slope
        found, along_x, along_y = look_up(features, actions[:, :2], 2 * self._contract.cell_m)
        two, four = 2 * actions[:, 2:], 4 * actions[:, 2:]
        turn = np.concatenate([np.cos(two), np.sin(two), np.cos(four), np.sin(four)], axis=1)
        turned = [-2 * np.sin(two), 2 * np.cos(two), -4 * np.sin(four), 4 * np.cos(four)]
        count = found.shape[1]
        z1 = np.concatenate([found, turn], axis=1) @ w["head1.weight"].T + w["head1.bias"]
        z2 = self._leaky(z1) @ w["head2.weight"].T + w["head2.bias"]
        out = self._leaky(z2) @ w["head3.weight"].T + w["head3.bias"]
        by_z2 = w["head3.weight"][0] * np.where(z2 > 0, 1.0, slope)
        by_z1 = (by_z2 @ w["head2.weight"]) * np.where(z1 > 0, 1.0, slope)
        by_input = by_z1 @ w["head1.weight"]
        by_features, by_turn = by_input[:, :count], by_input[:, count:]
        gradient = np.stack(
            [
                (by_features * along_x).sum(axis=1),
                (by_features * along_y).sum(axis=1),
                (by_turn * np.concatenate(turned, axis=1)).sum(axis=1),
            ],
            axis=1,
        )
        return out, gradient

    def _convolve(self, layer: str, image: Array) -> Array:
        kernel, stride = CONVOLUTIONS[layer]
        padded = np.pad(image, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
        weight, bias = self._w[f"{layer}.weight"], self._w[f"{layer}.bias"]
        result: Array = np.tensordot(
            weight, windows[:, ::stride, ::stride], axes=((1, 2, 3), (0, 3, 4))
        )
        return result + bias[:, None, None]

    def _leaky(self, z: Array) -> Array:
        return np.where(z > 0, z, self._slope * z)


def look_up(features: Array, xy: Array, cell_m: float) -> tuple[Array, Array, Array]:
    """Features (C, H, W) bilinear at places (N, 2) [m] about the middle, zero outside: (N, C).

    Also their slopes along x and y, (N, C) each, per metre. The middle of the map is a corner of its cells.
    """
    height, width = features.shape[1:]
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1)))  # outside is zero
    at = xy / cell_m + np.array([width / 2 - 0.5, height / 2 - 0.5])
    at = np.clip(at, -1.0, [width, height])  # beyond: zeros, and no slope
    low = np.minimum(np.floor(at), np.array([width - 1, height - 1])).astype(np.int64)
    part = at - low
    column, row = (low + 1).T
    corners = [padded[:, row + i, column + j].T for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
    a, b = part[:, :1], part[:, 1:]
    top, bottom = (
        corners[0] + a * (corners[1] - corners[0]),
        corners[2] + a * (corners[3] - corners[2]),
    )
    along_x = (1 - b) * (corners[1] - corners[0]) + b * (corners[3] - corners[2])
    beyond = np.abs(xy / cell_m) >= np.array([width, height]) / 2 + 0.5
    outside = beyond[:, :1] | beyond[:, 1:]
    return (
        np.where(outside, 0.0, top + b * (bottom - top)),
        np.where(outside, 0.0, along_x / cell_m),
        np.where(outside, 0.0, (bottom - top) / cell_m),
    )
