"""The shared network equals the paper's tiled one, in value and in slope, and folds into the contract."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import random_actions, random_views

from rt.distance.contract import ENCODED, SHAPES
from train.network import DistanceNetwork, folded_weights, tiled_forward


@cache
def network(encoding: str = "double_angle") -> DistanceNetwork:
    torch.manual_seed(0)
    net = DistanceNetwork(encoding)
    for p in net.parameters():  # biases of zero would hide a bias in a wrong place
        if p.ndim == 1:
            torch.nn.init.normal_(p, std=0.1)
    torch.nn.init.normal_(net.fc2.weight, std=0.1)
    return net


@pytest.mark.parametrize("encoding", ENCODED)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), B=st.integers(1, 3), K=st.integers(1, 4))
def test_forward_equals_the_tiled_network(encoding: str, seed: int, B: int, K: int) -> None:
    net, rng = network(encoding), np.random.default_rng(seed)
    depth, actions = random_views(B, rng), random_actions((B, K), rng)
    with torch.no_grad():
        d = net(depth, actions)
        assert d.shape == (B, K)
        torch.testing.assert_close(d, tiled_forward(net, depth, actions), rtol=0, atol=2e-6)


def test_gradients_equal_those_of_the_tiled_network() -> None:
    rng = np.random.default_rng(0)
    depth, actions = random_views(2, rng), random_actions((2, 3), rng)
    gradients = []
    for forward in (DistanceNetwork.forward, tiled_forward):
        net = deepcopy(network()).double()  # in float32 near-equal inputs of a pool may swap
        (forward(net, depth.double(), actions.double()) - 0.05).abs().mean().backward()
        gradients.append({n: p.grad for n, p in net.named_parameters()})
    for name, expected in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-5, atol=1e-9, msg=name)


def test_channels_last_weights_change_nothing() -> None:
    rng = np.random.default_rng(1)
    depth, actions = random_views(2, rng), random_actions((2, 3), rng)
    with torch.no_grad():
        plain = network()(depth, actions)
        moved = deepcopy(network()).to(memory_format=torch.channels_last)(depth, actions)
    torch.testing.assert_close(plain, moved, rtol=0, atol=1e-6)


def test_bfloat16_is_close_and_trains_float32_weights() -> None:
    rng = np.random.default_rng(2)
    depth, actions = random_views(4, rng), random_actions((4, 8), rng)
    net = deepcopy(network())
    exact = net(depth, actions)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(depth, actions)
    assert rough.dtype == torch.float32
    spread = float(exact.detach().std())
    assert float((rough - exact).abs().max().detach()) < 0.1 * spread
    rough.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_double_angle_does_not_see_half_turns_and_raw_does() -> None:
    rng = np.random.default_rng(3)
    depth, actions = random_views(1, rng), random_actions((1, 4), rng)
    turned = actions + torch.tensor([0, 0, torch.pi])
    with torch.no_grad():
        same, net = network("double_angle"), network("raw")
        torch.testing.assert_close(same(depth, actions), same(depth, turned), rtol=0, atol=1e-6)
        assert float((net(depth, actions) - net(depth, turned)).abs().min()) > 1e-6


@pytest.mark.parametrize("encoding", ENCODED)
def test_folded_weights_are_the_same_function_of_metres(encoding: str) -> None:
    net, rng = network(encoding), np.random.default_rng(4)
    w = {name: array.astype(np.float64) for name, array in folded_weights(net).items()}
    assert list(w.keys() - SHAPES.keys()) == [] and w.keys() == SHAPES.keys()
    depth, actions = random_views(1, rng), random_actions((1, 5), rng)

    def lrelu(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, net.leaky_slope * x)

    def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
        return np.einsum("ihwkl,oikl->ohw", windows, kernel) + bias[:, None, None]

    def pool(x: np.ndarray) -> np.ndarray:
        c, h, v = x.shape
        return x.reshape(c, h // 2, 2, v // 2, 2).max((2, 4))

    image = depth[0].double().numpy()[None]
    pool1 = pool(lrelu(conv(image, w["conv1.weight"], w["conv1.bias"])))
    Y = pool(conv(pool1, w["conv2.weight"], w["conv2.bias"]))
    x, y, theta = actions[0].double().numpy().T
    columns = (x, y, theta) if encoding == "raw" else (x, y, np.cos(2 * theta), np.sin(2 * theta))
    u = np.stack(columns, 1) @ w["action.weight"].T + w["action.bias"]
    b = u @ w["conv2.weight_sum"].T
    hidden = lrelu(Y[None] + b[:, :, None, None]).reshape(5, -1)  # channels, rows, columns
    hidden = lrelu(hidden @ w["fc1.weight"].T + w["fc1.bias"])
    expected = (hidden @ w["fc2.weight"].T + w["fc2.bias"])[:, 0]
    with torch.no_grad():
        found = net(depth, actions)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="double_angle"):
        DistanceNetwork("quaternion")
