"""The distance network d(I, a) of Viereck et al. 2017, with the image side shared by all actions.

The action's 20 numbers are added to Pool1, tiled, before Conv2, with no nonlinearity between; so
Conv2(Pool1 + tile(u)) = Conv2(Pool1) + S u, S[o, i] the sum of a 5x5 kernel, and max pooling commutes
with a bias and a leaky ReLU. One image costs its convolutions once; an action costs lrelu(Y + S u)
and the inner products. `tiled_forward` is the paper's plain form of the same function, the oracle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rt.distance.contract import ENCODED, Contract

DEPTH_CENTRE_M, DEPTH_SCALE_M = 0.20, 0.10
"""The network sees (depth - centre) / scale: hands work 0.15 to 0.30 m above the table."""

LENGTH_SCALE_M = 0.10
"""Offsets enter and distances leave the network in units of this, so that both are of order one."""

THETA_SCALE_RAD = math.pi / 2
"""The raw encoding divides theta by this."""


class _Linear(torch.autograd.Function):
    """x W^T + b whose weight gradient is a product of contiguous rows.

    The same numbers as F.linear; on AMX in bfloat16 the product of torch's own backward, which reads
    the gradient transposed, takes 1.6 times as long, and it is a fifth of a training step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        rows = g.flatten(0, -2)
        return g @ weight, rows.t().contiguous() @ x.flatten(0, -2), rows.sum(0)


class DistanceNetwork(nn.Module):
    """Distances in metres to the nearest good grasp after each of K actions on each of B images.

    Under bfloat16 autocast the convolutions and the 8450 -> 500 inner product run in bfloat16 (the
    weights stay float32); the sum over the last 500 and the loss stay float32.
    """

    architecture = "paper"

    def __init__(
        self,
        action_encoding: str = "double_angle",
        leaky_slope: float = Contract.leaky_slope,
    ) -> None:
        if action_encoding not in ENCODED:
            raise ValueError(
                f"action encoding {action_encoding!r}: must be one of {', '.join(ENCODED)}"
            )
        super().__init__()
        self.action_encoding = action_encoding
        self.leaky_slope = leaky_slope
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.action = nn.Linear(ENCODED[action_encoding], 20)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 13 * 13, 500)
        self.fc2 = nn.Linear(500, 1)
        for layer in (self.conv1, self.conv2, self.fc1):
            nn.init.kaiming_normal_(layer.weight, a=leaky_slope, nonlinearity="leaky_relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.fc2.weight, std=0.01)
        nn.init.constant_(self.fc2.bias, 0.5)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments that make a network of this kind, for a checkpoint."""
        return {"action_encoding": self.action_encoding, "leaky_slope": self.leaky_slope}

    def image_features(self, depth: Tensor) -> Tensor:
        """Y (B, 50, 13, 13) of depth (B, 64, 64) float32 metres: all that an image contributes."""
        x = ((depth - DEPTH_CENTRE_M) / DEPTH_SCALE_M)[:, None]
        # Channels last is the layout of the fast bfloat16 kernels; pooling first is exact and cheaper.
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(F.max_pool2d(self.conv1(x), 2), self.leaky_slope)
        Y: Tensor = F.max_pool2d(self.conv2(x), 2)
        return Y.contiguous()

    def encode(self, actions: Tensor) -> Tensor:
        """(..., 3) of x [m], y [m], theta [rad] to the numbers the network sees (..., E)."""
        xy = actions[..., :2] / LENGTH_SCALE_M
        theta = actions[..., 2:]
        if self.action_encoding == "raw":
            return torch.cat([xy, theta / THETA_SCALE_RAD], dim=-1)
        return torch.cat([xy, torch.cos(2 * theta), torch.sin(2 * theta)], dim=-1)

    def action_bias(self, actions: Tensor) -> Tensor:
        """b (..., 50): what each action adds to the channels of Y."""
        with torch.autocast(actions.device.type, enabled=False):
            u: Tensor = self.action(self.encode(actions))
            return F.linear(u, self.conv2.weight.sum((2, 3)))

    def head(self, Y: Tensor, b: Tensor) -> Tensor:
        """Distances (B, K) in metres from Y (B, 50, 13, 13) and b (B, K, 50)."""
        # The one large tensor: (B, K, 8450). In place, so that only its result is kept for backward.
        hidden = Y[:, None] + b.to(Y.dtype)[..., None, None]
        hidden = F.leaky_relu_(hidden, self.leaky_slope).flatten(2)
        weight, bias = self.fc1.weight.to(hidden.dtype), self.fc1.bias.to(hidden.dtype)
        hidden = F.leaky_relu(
            _Linear.apply(hidden, weight, bias),  # type: ignore[no-untyped-call]
            self.leaky_slope,
        )
        with torch.autocast(Y.device.type, enabled=False):
            d: Tensor = self.fc2(hidden.to(self.fc2.weight.dtype))
            return d.squeeze(-1) * LENGTH_SCALE_M

    def forward(self, depth: Tensor, actions: Tensor) -> Tensor:
        """depth (B, 64, 64) float32 [m, 0 = no return], actions (B, K, 3) -> distances (B, K) [m]."""
        return self.head(self.image_features(depth), self.action_bias(actions))


def predictor(
    network: DistanceNetwork, dtype: torch.dtype = torch.float32, samples: int = 2048
) -> Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    """The network as a function of arrays: depth (B, 64, 64) m, actions (B, K, 3) -> (B, K) m.

    Computes about `samples` actions at a time, to bound memory.
    """

    @torch.no_grad()
    def predict(depth: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
        device = next(network.parameters()).device
        step = max(1, samples // actions.shape[1])
        parts = []
        for i in range(0, len(depth), step):
            d, a = (torch.from_numpy(x[i : i + step]).to(device) for x in (depth, actions))
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                parts.append(network(d, a).float().cpu())
        return torch.cat(parts).numpy()

    return predict


def tiled_forward(network: DistanceNetwork, depth: Tensor, actions: Tensor) -> Tensor:
    """The paper's form, layer by layer, for every (image, action) pair; the oracle of `forward`."""
    B, K = actions.shape[:2]
    slope = network.leaky_slope
    x = ((depth - DEPTH_CENTRE_M) / DEPTH_SCALE_M)[:, None].repeat_interleave(K, dim=0)
    pool1 = F.max_pool2d(F.leaky_relu(network.conv1(x), slope), 2)
    u = network.action(network.encode(actions)).reshape(B * K, 20, 1, 1)
    pool2 = F.max_pool2d(F.leaky_relu(network.conv2(pool1 + u), slope), 2)
    hidden = F.leaky_relu(network.fc1(pool2.flatten(1)), slope)
    d: Tensor = network.fc2(hidden)
    return d.reshape(B, K) * LENGTH_SCALE_M


def folded_weights(network: DistanceNetwork) -> dict[str, NDArray[np.float32]]:
    """Weights by the names of rt.distance.contract, every normalisation folded in (in float64)."""
    w: dict[str, Any] = {
        name: p.detach().cpu().double().numpy() for name, p in network.named_parameters()
    }
    scale = np.full(ENCODED[network.action_encoding], 1.0)
    scale[:2] = 1 / LENGTH_SCALE_M
    if network.action_encoding == "raw":
        scale[2] = 1 / THETA_SCALE_RAD
    w["conv1.bias"] = w["conv1.bias"] - w["conv1.weight"].sum((1, 2, 3)) * (
        DEPTH_CENTRE_M / DEPTH_SCALE_M
    )
    w["conv1.weight"] = w["conv1.weight"] / DEPTH_SCALE_M
    w["action.weight"] = w["action.weight"] * scale
    w["conv2.weight_sum"] = w["conv2.weight"].sum((2, 3))
    w["fc2.weight"] = w["fc2.weight"] * LENGTH_SCALE_M
    w["fc2.bias"] = w["fc2.bias"] * LENGTH_SCALE_M
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in w.items()}
