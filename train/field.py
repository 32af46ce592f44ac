"""The field network: a metric map in, features over the plane out, and a light head for each action.

The map (rt.distance.metric_map) shows every return where it is, so a displacement of the hand is a shift,
and a convolution is equivariant to it. A convolutional encoder-decoder turns one view's map into features
at half of its resolution, once for all actions. The head looks the features up where an action leads,
bilinearly, zeros outside the map (outside is unknown), and joins the angle as cos 2t, sin 2t, cos 4t,
sin 4t. Three numbers come out: the distance on a scale that is linear near grasps and logarithmic far
away, the logit of "a grasp lies within GRASP_WITHIN_M", and the logarithm of the spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rt.distance.metric_map import CHANNELS, metric_map
from train.calibration import COVERAGE, GRASP_WITHIN_M, Answers

SLOPE = 0.1
"""Of every leaky ReLU."""

GRASP_WEIGHT, SPREAD_WEIGHT = 0.3, 0.1
"""Of the cross-entropy and of the spread's loss, beside the distance's loss."""

LEAST_ERROR_M = 1e-4
"""An error below this, a tenth of a sensor's noise, counts as this in the spread's logarithm."""


@dataclass(frozen=True)
class FieldShape:
    """Sizes of a field network; the defaults are those of the shipped one."""

    cells: int = 80
    """Cells of the map a side, a multiple of 16."""
    cell_m: float = 0.0042
    """A cell's side, m."""
    channels: tuple[int, int, int, int, int] = (24, 32, 64, 128, 192)
    """Of the first convolution, then at 1/2, 1/4, 1/8 and 1/16 of the map."""
    features: int = 32
    """Channels that the head looks up."""
    hidden: int = 64
    """Width of the head's two hidden layers."""
    scale_m: float = 0.05
    """The distance is scale * sinh(output): linear well below this, logarithmic well above."""

    def __post_init__(self) -> None:
        if self.cells < 16 or self.cells % 16:
            raise ValueError(f"field cells = {self.cells} must be a multiple of 16, at least 16")
        if not 1e-4 <= self.cell_m <= 0.1:
            raise ValueError(f"field cell_m = {self.cell_m:g} must be from 0.0001 to 0.1 m")
        if not 1e-3 <= self.scale_m <= 1.0:
            raise ValueError(f"field scale_m = {self.scale_m:g} must be from 0.001 to 1 m")
        if len(self.channels) != 5 or min(*self.channels, self.features, self.hidden) < 1:
            raise ValueError(f"field channels = {self.channels} must be five numbers of 1 or more")

    @property
    def half_side_m(self) -> float:
        """From the map's middle to its edge."""
        return self.cells * self.cell_m / 2


@dataclass(frozen=True)
class FieldOutput:
    """Numbers of each action (B, K) as they leave the network."""

    scaled: Tensor
    """asinh(distance / scale)."""
    logit: Tensor
    """Of "a grasp lies within GRASP_WITHIN_M"."""
    log_spread: Tensor
    """Logarithm of the COVERAGE of the distance's absolute error in metres."""


class FieldNetwork(nn.Module):
    """Distance, grasp logit and spread of K actions on each of B maps.

    Under bfloat16 autocast the convolutions run in bfloat16; the look-up, the head and the losses stay
    float32, because a bfloat16 place is off by a millimetre.
    """

    architecture = "field"

    def __init__(self, shape: FieldShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or FieldShape()
        a, b, c, d, e = shape.channels

        def conv(i: int, o: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
            return nn.Conv2d(i, o, kernel, stride, kernel // 2)

        self.in1, self.in2 = conv(CHANNELS, a, 2, 5), conv(a, b)  # 1/2 of the map
        self.down2, self.same2 = conv(b, c, 2), conv(c, c)  # 1/4
        self.down3, self.same3 = conv(c, d, 2), conv(d, d)  # 1/8
        self.down4, self.same4 = conv(d, e, 2), conv(e, e)  # 1/16
        self.whole = nn.Linear(e, e)  # of the mean over the map, added everywhere
        self.up3, self.mix3 = conv(e, d, 1, 1), conv(d, d)
        self.up2, self.mix2 = conv(d, c, 1, 1), conv(c, c)
        self.up1, self.mix1 = conv(c, b, 1, 1), conv(b, b)
        self.out = conv(b, shape.features, 1, 1)
        self.head1 = nn.Linear(shape.features + 4, shape.hidden)
        self.head2 = nn.Linear(shape.hidden, shape.hidden)
        self.head3 = nn.Linear(shape.hidden, 3)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.head3.weight, std=0.01)
        with torch.no_grad():  # a distance of 5 cm, seldom a grasp, a spread of 5 cm
            self.head3.bias.copy_(torch.tensor([0.9, -2.0, -3.0]))

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments that make a network of this kind, for a checkpoint."""
        return asdict(self.shape)

    def features(self, maps: Tensor) -> Tensor:
        """(B, features, G/2, G/2) of maps (B, 2, G, G): all that an image contributes."""

        def act(t: Tensor) -> Tensor:
            return F.leaky_relu(t, SLOPE, inplace=True)

        def twice(t: Tensor) -> Tensor:
            return F.interpolate(t, scale_factor=2, mode="nearest")

        maps = maps.contiguous(memory_format=torch.channels_last)
        x1 = act(self.in2(act(self.in1(maps))))
        x2 = act(self.same2(act(self.down2(x1))))
        x3 = act(self.same3(act(self.down3(x2))))
        x4 = act(self.same4(act(self.down4(x3))))
        x4 = x4 + self.whole(x4.mean((2, 3)))[:, :, None, None]
        y = act(self.mix3(twice(self.up3(x4)) + x3))
        y = act(self.mix2(twice(self.up2(y)) + x2))
        y = act(self.mix1(twice(self.up1(y)) + x1))
        found: Tensor = self.out(y)
        return found

    def head(self, features: Tensor, actions: Tensor) -> FieldOutput:
        """Outputs (B, K) from features (B, C, G/2, G/2) and actions (B, K, 3) of x, y [m], theta [rad]."""
        with torch.autocast(features.device.type, enabled=False):
            at = looked_up(features, actions[..., :2] / self.shape.half_side_m)
            t = actions[..., 2:]
            turn = [torch.cos(2 * t), torch.sin(2 * t), torch.cos(4 * t), torch.sin(4 * t)]
            h = torch.cat([at, *turn], -1)
            h = F.leaky_relu(self.head1(h), SLOPE)
            scaled, logit, log_spread = self.head3(F.leaky_relu(self.head2(h), SLOPE)).unbind(-1)
        return FieldOutput(scaled, logit, log_spread)

    def forward(self, maps: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """maps (B, 2, G, G), actions (B, K, 3) -> scaled distance, logit, log of the spread, (B, K) each."""
        out = self.head(self.features(maps), actions)
        return out.scaled, out.logit, out.log_spread

    def distance(self, scaled: Tensor) -> Tensor:
        """Metres of the first output."""
        return self.shape.scale_m * torch.sinh(scaled)


def looked_up(features: Tensor, places: Tensor) -> Tensor:
    """Features (B, C, S, S) bilinear at places (B, K, 2) of x, y in half sides: (B, K, C) float32.

    As F.grid_sample with zeros outside and align_corners=False, on channels-last features: four rows of C
    contiguous numbers for each place, where grid_sample's layout costs a tenth of a training step.
    """
    count, channels, side, _ = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels).float()
    at = (places + 1) * (side / 2) - 0.5
    low = at.floor()
    part = at - low
    low = low.clamp(-2, side).long()  # further out is no different, and would not fit an integer
    column = low[..., :1] + torch.tensor([0, 1, 0, 1], device=low.device)
    row = low[..., 1:] + torch.tensor([0, 0, 1, 1], device=low.device)
    x, y = part.unbind(-1)
    weight = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], -1)
    weight = weight * ((column >= 0) & (column < side) & (row >= 0) & (row < side))
    view = torch.arange(count, device=low.device)[:, None, None] * (side * side)
    index = view + row.clamp(0, side - 1) * side + column.clamp(0, side - 1)
    found = rows.index_select(0, index.flatten()).view(*index.shape, channels)
    return torch.einsum("bkic,bki->bkc", found, weight)


def field_loss(
    network: FieldNetwork, outputs: tuple[Tensor, Tensor, Tensor], distance: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of outputs of `network` where the truth is `distance` (B, K) [m], and the mean error [m].

    L1 of the distance on its own scale, whose fit is a median on any monotone scale, so far distances
    weigh less without a bias; cross-entropy of the grasp logit; pinball loss of the spread's logarithm,
    whose fit is the quantile. The spread's loss does not move the distance.
    """
    scaled, logit, log_spread = outputs
    scaled_error = (scaled - torch.asinh(distance / network.shape.scale_m)).abs().mean()
    entropy = F.binary_cross_entropy_with_logits(logit, (distance < GRASP_WITHIN_M).float())
    error = (network.distance(scaled.detach()) - distance).abs()
    beyond = error.clamp_min(LEAST_ERROR_M).log() - log_spread
    pinball = torch.maximum(COVERAGE * beyond, (COVERAGE - 1) * beyond).mean()
    return scaled_error + GRASP_WEIGHT * entropy + SPREAD_WEIGHT * pinball, error.mean()


def field_predictor(
    network: FieldNetwork, dtype: torch.dtype = torch.float32, views: int = 32
) -> Callable[[NDArray[np.float32], NDArray[np.float32]], Answers]:
    """The network as a function of arrays: depth (B, 64, 64) m, actions (B, K, 3) -> answers (B, K).

    Computes `views` views at a time, to bound memory.
    """

    @torch.no_grad()
    def predict(depth: NDArray[np.float32], actions: NDArray[np.float32]) -> Answers:
        device, shape = next(network.parameters()).device, network.shape
        parts = []
        for i in range(0, len(depth), views):
            maps = torch.from_numpy(metric_map(depth[i : i + views], shape.cells, shape.cell_m))
            asked = torch.from_numpy(actions[i : i + views]).to(device)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                scaled, logit, log_spread = network(maps.to(device), asked)
            found = (network.distance(scaled), logit.sigmoid(), log_spread.exp())
            parts.append([t.cpu().numpy() for t in found])
        return Answers(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    return predict
