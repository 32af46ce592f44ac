"""The ONNX graph of the field network: map, encoder-decoder, look-up and head, one file for any runtime.

    depth (1, 1, S, S), actions (N, 3) -> distance (N,) [m], probability (N,), spread (N,) [m]

The map is made inside the graph, by ScatterElements with a reduction (opset 18) and max pooling; it equals
rt.distance.metric_map's bit by bit where the runtime computes in float32. `map_graph` begins at the map, for
what draws the map itself; `features_graph` is the convolutions alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from rt.distance.contract import METADATA_KEY, Contract, ModelError, Weights
from rt.distance.field_shapes import CONVOLUTIONS, FIELD_WEIGHTS
from rt.distance.graph_builder import GraphBuilder, int64
from rt.distance.metric_map import MAX_CELLS, MAX_HALF_CELLS, growth_cells_per_m, rays_cells_per_m

OPSET = 18
"""The first whose ScatterElements takes a minimum; ONNX Runtime reads it from 1.14."""

_HALF = ("whole", *(layer for layer in CONVOLUTIONS if layer != "in1"))
_NONE = -1e30  # not infinite: runtimes pad a pooling's border with the least finite number


def check_field_contract(contract: Contract) -> None:
    """Raises ModelError for sizes that the network cannot have."""
    if contract.cells % 16 or not 16 <= contract.cells <= MAX_CELLS:
        raise ModelError(
            f"cells = {contract.cells} must be a multiple of 16 from 16 to {MAX_CELLS}"
        )
    if not 1e-4 <= contract.cell_m <= 0.1:
        raise ModelError(f"cell_m = {contract.cell_m:g} must be from 0.0001 to 0.1 m")
    if not 1e-3 <= contract.distance_scale_m <= 1.0:
        raise ModelError(
            f"distance_scale_m = {contract.distance_scale_m:g} must be from 0.001 to 1 m"
        )


def field_graph(contract: Contract, weights: Weights) -> onnx.ModelProto:
    """The graph of a model file. Metadata as `contract` is."""
    g = _begin(weights)
    features = _features(g, contract, _map(g, contract))
    _head(g, contract, weights, features)
    size = contract.view.size_px
    return g.model(
        "grasp_distance_field",
        {"depth": (1, 1, size, size), "actions": ("N", 3)},
        {"distance": ("N",), "probability": ("N",), "spread": ("N",)},
        OPSET,
        {METADATA_KEY: contract.to_json()},
    )


def map_graph(contract: Contract, weights: Weights, half: bool = False) -> onnx.ModelProto:
    """The same from a map (1, 2, G, G) as rt.distance.metric_map draws it, in place of the view.

    half: all convolutions but the first, nearly all of the arithmetic, in float16 between explicit casts.
    Look-up and head stay float32: a place in float16 would be off by a millimetre. Raises ModelError for a
    weight that float16 cannot hold.
    """
    g = _begin(_in_half(weights) if half else weights)
    _head(g, contract, weights, _features(g, contract, "map", half))
    cells = contract.cells
    return g.model(
        "grasp_distance_field_of_map",
        {"map": (1, 2, cells, cells), "actions": ("N", 3)},
        {"distance": ("N",), "probability": ("N",), "spread": ("N",)},
        OPSET,
        {METADATA_KEY: contract.to_json()},
    )


def features_graph(contract: Contract, weights: Weights) -> onnx.ModelProto:
    """The convolutions alone: map (1, 2, G, G) -> features (1, C, G/2, G/2)."""
    g = _begin({n: w for n, w in weights.items() if not n.startswith("head")})
    _features(g, contract, "map")
    cells = contract.cells
    return g.model(
        "grasp_distance_field_features",
        {"map": (1, 2, cells, cells)},
        {"features": (1, len(weights["out.bias"]), cells // 2, cells // 2)},
        OPSET,
        {},
    )


def _in_half(weights: Weights) -> dict[str, NDArray[np.generic]]:
    """The weights with those of `_HALF` in float16."""
    most = float(np.finfo(np.float16).max)
    result: dict[str, NDArray[np.generic]] = {}
    for name, array in weights.items():
        if name.split(".")[0] not in _HALF:
            result[name] = array
            continue
        largest = float(np.abs(array).max())
        if largest > most:
            raise ModelError(f"{name} reaches {largest:g}, too large for half precision")
        result[name] = array.astype(np.float16)
    return result


def _begin(weights: Mapping[str, NDArray[np.generic]]) -> GraphBuilder:
    g = GraphBuilder()
    for name in FIELD_WEIGHTS:
        if name in weights:
            g.constant(name, weights[name])
    return g


def _float(g: GraphBuilder, name: str, value: float) -> str:
    return g.constant(name, np.array(value, np.float32))


def _map(g: GraphBuilder, contract: Contract) -> str:
    """(1, 2, G, G) of depth (1, 1, S, S); bit by bit what metric_map_numpy gives.

    A row of w cells is two rows of 2^k <= w cells, from its first and up to its last, so a footprint is four
    rectangles of power-of-two sides at most. Each is scattered as one cell of a map for its size, and a
    maximum over windows of that size draws them all. Depths are negated meanwhile, unseen is below _NONE / 2.
    """
    size, cells, view = contract.view.size_px, contract.cells, contract.view
    growth = growth_cells_per_m(contract.cell_m, view)
    rays = rays_cells_per_m(contract.cell_m, view)
    widest = int(2 * min(growth * view.far_m, MAX_HALF_CELLS)) + 1
    levels = [2**k for k in range(widest.bit_length())]
    zero, last = _float(g, "zero", 0), _float(g, "last_cell", cells - 1)
    centre, one = _float(g, "centre", cells / 2 - 0.5), _float(g, "one", 1)

    z = g("Reshape", "z", "depth", g.constant("shape_z", int64(size, size)))
    far = _float(g, "far_m", view.far_m)
    kept = g("And", "kept", g("Greater", "positive", z, zero), g("LessOrEqual", "not_far", z, far))
    half = g("Mul", "half_any", z, _float(g, "growth", growth))
    half = g("Min", "half", half, _float(g, "half_most", MAX_HALF_CELLS))
    firsts, seconds, level, within, own, own_within = [], [], [], [kept], [], [kept]
    for axis, shape in (("row", (size, 1)), ("column", (1, size))):
        ray = g.constant(f"rays_{axis}", rays.reshape(shape))
        at = g("Add", f"at_{axis}", g("Mul", f"from_middle_{axis}", z, ray), centre)
        low = g("Ceil", f"low_any_{axis}", g("Sub", f"lower_{axis}", at, half))
        low = g("Max", f"low_{axis}", low, zero)
        high = g("Floor", f"high_any_{axis}", g("Add", f"upper_{axis}", at, half))
        high = g("Min", f"high_{axis}", high, last)
        within.append(g("LessOrEqual", f"covers_{axis}", low, high))
        reach = g("Sub", f"reach_{axis}", high, low)
        which, side = zero, one
        for k, length in enumerate(levels[1:]):  # the greatest that is no longer than reach + 1
            fits = _float(g, f"least_{axis}_{k}", length - 1)
            longer = g("GreaterOrEqual", f"longer_{axis}_{k}", reach, fits)
            which = g(
                "Where", f"level_{axis}_{k}", longer, _float(g, f"k_{axis}_{k}", k + 1), which
            )
            side = g("Where", f"side_{axis}_{k}", longer, _float(g, f"s_{axis}_{k}", length), side)
        level.append(which)
        firsts.append(low)
        back = g("Sub", f"back_{axis}", side, one)
        seconds.append(g("Sub", f"second_{axis}", high, back))
        cell = g(
            "Floor", f"own_{axis}", g("Add", f"rounded_{axis}", at, _float(g, f"h_{axis}", 0.5))
        )
        own_within.append(g("LessOrEqual", f"own_below_{axis}", cell, last))
        own_within.append(g("GreaterOrEqual", f"own_above_{axis}", cell, zero))
        own.append(cell)

    flat, image = (
        g.constant("shape_flat", int64(-1)),
        g.constant("shape_image", int64(1, 1, cells, cells)),
    )
    negated = g("Reshape", "z_flat", g("Neg", "z_negated", z), flat)
    row_start, many = _float(g, "cells", cells), len(levels)

    def all_of(name: str, conditions: list[str]) -> str:
        result = conditions[0]
        for i, condition in enumerate(conditions[1:]):
            result = g("And", f"{name}_{i}", result, condition)
        return result

    def scattered(name: str, indices: list[str], valid: str, room: int) -> str:
        """Greatest negated depth of each of `room` cells; one more takes what is not valid."""
        dummy = _float(g, f"{name}_no_cell", room)
        where = [
            g(
                "Reshape",
                f"{name}_cells_{i}",
                g(
                    "Cast",
                    f"{name}_cell_{i}",
                    g("Where", f"{name}_valid_{i}", valid, index, dummy),
                    to=7,
                ),
                flat,
            )
            for i, index in enumerate(indices)
        ]
        index = where[0] if len(where) == 1 else g("Concat", f"{name}_index", *where, axis=0)
        values = negated
        if len(where) > 1:
            values = g("Concat", f"{name}_values", *[negated] * len(where), axis=0)
        empty = g.constant(f"{name}_empty", np.full(room + 1, _NONE, np.float32))
        drawn = g("ScatterElements", f"{name}_drawn", empty, index, values, axis=0, reduction="max")
        ends = g.constant(f"{name}_first", int64(0)), g.constant(f"{name}_end", int64(room))
        return g("Slice", name, drawn, *ends)

    area = _float(g, "area", cells * cells)
    plane = g("Add", "plane", g("Mul", "plane_row", level[1], _float(g, "levels", many)), level[0])
    start = g("Mul", "plane_start", plane, area)  # column's level first, then row's
    indices = []
    for i, row in enumerate((firsts[0], seconds[0])):
        at_row = g("Add", f"at_row_{i}", start, g("Mul", f"row_start_{i}", row, row_start))
        indices += [
            g("Add", f"corner_{i}{j}", at_row, column)
            for j, column in enumerate((firsts[1], seconds[1]))
        ]
    corners = scattered("corners", indices, all_of("covers", within), many * many * cells * cells)
    stack = g(
        "Reshape", "planes", corners, g.constant("shape_planes", int64(many, many, cells, cells))
    )

    def drawn(name: str, planes: str, along: int) -> str:
        """Greatest over the first axis of planes (levels, ...), each spread over windows of its length."""
        parts = []
        for k, length in enumerate(levels):
            ends = (
                g.constant(f"{name}_{k}_first", int64(k)),
                g.constant(f"{name}_{k}_end", int64(k + 1)),
            )
            part = g("Slice", f"{name}_{k}", planes, *ends)
            if length > 1:
                window, before = [1, 1], [0, 0]
                window[along], before[along] = length, length - 1
                part = g(
                    "MaxPool", f"{name}_{k}_wide", part, kernel_shape=window, pads=[*before, 0, 0]
                )
            parts.append(part)
        return parts[0] if len(parts) == 1 else g("Max", f"{name}_all", *parts)

    rows = g("Transpose", "rows_first", drawn("columns", stack, 1), perm=[1, 0, 2, 3])
    covered = drawn("rows", rows, 0)
    place = g("Add", "own_place", g("Mul", "own_start", own[0], row_start), own[1])
    inside = scattered("own_cells", [place], all_of("own_valid", own_within), cells * cells)
    inside = g("Reshape", "own_image", inside, image)
    none = _float(g, "none", _NONE / 2)
    farthest = g("Where", "drawn", g("Less", "uncovered", covered, none), inside, covered)
    seen = g("Greater", "is_seen", farthest, none)
    height = g("Sub", "off_middle", g("Neg", "nearest", farthest), _float(g, "middle_m", 0.2))
    scaled = g("Mul", "depth_scaled", height, _float(g, "per_m", 10))
    channels = [
        g("Where", name, seen, value, zero) for name, value in (("height", scaled), ("seen", one))
    ]
    return g("Concat", "map", *channels, axis=1)


def _features(g: GraphBuilder, contract: Contract, map_: str, half: bool = False) -> str:
    """(1, C, G/2, G/2) float32 of a map (1, 2, G, G) float32."""

    def conv(layer: str, x: str, name: str = "") -> str:
        kernel, stride = CONVOLUTIONS[layer]
        return g(
            "Conv",
            name or layer,
            x,
            f"{layer}.weight",
            f"{layer}.bias",
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
        )

    def act(layer: str, x: str) -> str:
        return g("LeakyRelu", f"{layer}_act", conv(layer, x), alpha=contract.leaky_slope)

    doubled = g.constant("doubled", np.array([1, 1, 2, 2], np.float32))

    def twice(layer: str, x: str) -> str:
        return g(
            "Resize", f"{layer}_twice", conv(layer, x), "", doubled,
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip

    start = act("in1", map_)
    if half:
        start = g("Cast", "start_half", start, to=onnx.TensorProto.FLOAT16)
    x1 = act("in2", start)
    x2 = act("same2", act("down2", x1))
    x3 = act("same3", act("down3", x2))
    x4 = act("same4", act("down4", x3))
    mean = g("Flatten", "mean_row", g("GlobalAveragePool", "mean", x4), axis=1)
    whole = g("Gemm", "whole_row", mean, "whole.weight", "whole.bias", transB=1)
    column = g.constant("shape_whole", int64(1, -1, 1, 1))
    y = g("Add", "with_whole", x4, g("Reshape", "whole", whole, column))
    for up, mix, skip in (("up3", "mix3", x3), ("up2", "mix2", x2), ("up1", "mix1", x1)):
        y = act(mix, g("Add", f"{up}_skip", twice(up, y), skip))
    if half:
        return g("Cast", "features", conv("out", y), to=onnx.TensorProto.FLOAT)
    return conv("out", y, "features")


def _head(g: GraphBuilder, contract: Contract, weights: Weights, features: str) -> None:
    """distance, probability and spread (N,) of features (1, C, G/2, G/2) and `actions` (N, 3)."""
    axis = g.constant("axis_1", int64(1))
    start, middle, end = (g.constant(f"column_{i}", int64(i)) for i in (0, 2, 3))
    xy = g("Slice", "xy", "actions", start, middle, axis)
    theta = g("Slice", "theta", "actions", middle, end, axis)
    half_side_m = contract.cells * contract.cell_m / 2
    grid = g("Mul", "grid_row", xy, _float(g, "per_half_side", 1 / half_side_m))
    grid = g("Reshape", "grid", grid, g.constant("shape_grid", int64(1, -1, 1, 2)))
    found = g(
        "GridSample", "looked_up", features, grid,
        mode="bilinear", padding_mode="zeros", align_corners=0,
    )  # fmt: skip
    count = len(weights["out.bias"])
    rows = g("Reshape", "columns", found, g.constant("shape_columns", int64(count, -1)))
    rows = g("Transpose", "rows", rows, perm=[1, 0])
    angles = g("Mul", "angles", theta, g.constant("harmonics", np.array([[2, 4]], np.float32)))
    cosine, sine = g("Cos", "cosines", angles), g("Sin", "sines", angles)
    turn = g("Concat", "turn_by_kind", cosine, sine, axis=1)
    order = g.constant("turn_order", int64(0, 2, 1, 3))
    h = g("Concat", "joined", rows, g("Gather", "turn", turn, order, axis=1), axis=1)
    for layer in ("head1", "head2"):
        h = g("Gemm", layer, h, f"{layer}.weight", f"{layer}.bias", transB=1)
        h = g("LeakyRelu", f"{layer}_act", h, alpha=contract.leaky_slope)
    out = g("Gemm", "head3", h, "head3.weight", "head3.bias", transB=1)
    flat = g.constant("shape_out", int64(-1))
    parts = []
    for i in range(3):
        at = g.constant(f"output_{i}", int64(i)), g.constant(f"output_{i}_end", int64(i + 1))
        parts.append(g("Reshape", f"out_{i}", g("Slice", f"out_{i}_row", out, *at, axis), flat))
    scale = _float(g, "distance_scale", contract.distance_scale_m)
    g("Mul", "distance", g("Sinh", "unscaled", parts[0]), scale)
    g("Sigmoid", "probability", parts[1])
    g("Exp", "spread", parts[2])
