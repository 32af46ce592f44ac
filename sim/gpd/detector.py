"""Grasp pose detection, the one-shot baseline: an own implementation of ten Pas et al. 2017.

depth image -> point cloud -> candidates (hands that fit around sampled points) -> a 15-channel image of
what is between each hand's fingers -> a LeNet's score -> the best. Kept to what the experiment can
execute: hands that look straight down, with a grid of yaws about the approach at every sample.
`python -m sim.gpd train` makes the classifier (sim/gpd/train.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import grey_closing
from scipy.spatial import cKDTree

from rt.hand import Hand, load_hand
from rt.pose import wrap_theta
from rt.view import View
from sim.gpd.descriptor import CHANNELS, SIDE_PX, describe

FINE = View(size_px=160)
"""The ideal camera's image for this detector: the view's field of view, 2.6 mm a pixel on the table. A point
cloud of 64x64 points would be coarser than the voxels that the detector works with."""

WEIGHTS = Path(__file__).with_name("gpd.npz")
LAYERS = {
    "conv1": (20, CHANNELS, 5, 5),
    "conv2": (50, 20, 5, 5),
    "fc1": (500, 50 * 12 * 12),
    "fc2": (2, 500),
}
"""Weights of the classifier by layer; each has a bias besides. Half precision in the file."""

SAMPLES = 60
"""Points of the cloud at which hands are tried."""
YAWS = 12
"""Hands at every sample, about the approach: 15 degrees apart, the first as the local frame says."""
OFFSETS = 10
"""Places of the open hand along its closing axis, around the sample."""
SCORED = 96
"""Most candidates that are described and scored; more are thinned at random."""
_TABLE_M = 0.010
"""Lower points are the table's and are not sampled."""
_BITE_M, _DEEPEST_M = 0.010, 0.060
"""A hand must get this far below the sample, and goes no further than that."""
_FRAME_M = 0.010
"""Neighbourhood of the local frame's normals."""
_NORMAL_POINTS = 24
"""Points of a normal's plane: a ball of 8 mm at this density."""
_VOXEL_M = 0.003
_GRID_M = 0.002
"""Step of the observed height map that hands are tried against."""
_GAP_M = 0.003
"""Lowest fingertips above the table."""


class GpdError(ValueError):
    """A classifier that is missing or damaged."""


@dataclass(frozen=True)
class Cloud:
    """Point cloud of the objects as the camera saw them, in the world."""

    points: NDArray[np.float32]
    """(P, 3), one in each voxel."""
    normals: NDArray[np.float32]
    """(P, 3), turned to the camera."""
    shadow: NDArray[np.float32]
    """(S, 3): places behind the points that the camera cannot see into."""
    height: NDArray[np.float32]
    """(n, n) observed height above the table; cell [i, j] is at origin + (i, j) * 2 mm."""
    origin: NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """The detector's answer."""

    hand: NDArray[np.float64]
    """(4,) of x, y, z of the fingertips [m], yaw [rad], world."""
    score: float
    """Positive less negative logit."""
    candidates: int
    """Number of candidates that were scored."""


def cloud_of(
    depth: NDArray[np.float32], rays: NDArray[np.float32], T_world_camera: NDArray[np.float64]
) -> Cloud | None:
    """The objects' points of a depth image (H, W) with rays (H, W, 3); None if there are too few."""
    R, eye = T_world_camera[:3, :3].astype(np.float32), T_world_camera[:3, 3].astype(np.float32)
    seen = depth > 0
    p = ((depth[seen][:, None] * rays[seen]) @ R.T + eye).astype(np.float32)
    # From the table up; all of it makes the height map, what stands on it is sampled.
    high = p[p[:, 2] > _TABLE_M]
    if len(high) < 4 * _NORMAL_POINTS:
        return None
    cell = np.floor(high / _VOXEL_M).astype(np.int64)
    key = (cell[:, 0] * 4096 + cell[:, 1]) * 4096 + cell[:, 2]
    points = high[np.unique(key, return_index=True)[1]]
    if len(points) < 4 * _NORMAL_POINTS:
        return None
    _, near = cKDTree(points).query(points, _NORMAL_POINTS)
    around = points[near] - points[near].mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("pni,pnj->pij", around, around))[1][:, :, 0]
    away = np.einsum("pi,pi->p", normals, points - eye) > 0
    normals[away] *= -1
    height, origin = _height_map(p)
    return Cloud(points, normals.astype(np.float32), _shadow(points, eye), height, origin)


def _shadow(points: NDArray[np.float32], eye: NDArray[np.float32]) -> NDArray[np.float32]:
    """Voxels behind the points, as seen from the eye, down to the table."""
    ray = points - eye
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    steps = np.arange(2, 14, dtype=np.float32) * np.float32(0.005)
    behind = (points[:, None] + steps[:, None] * ray[:, None]).reshape(-1, 3)
    behind = behind[behind[:, 2] > 0]
    cell = np.floor(behind / 0.004).astype(np.int64)
    key = (cell[:, 0] * 4096 + cell[:, 1]) * 4096 + cell[:, 2]
    return behind[np.unique(key, return_index=True)[1]]


def _height_map(points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Highest point in each cell; gaps between samples are closed, what was never seen is table."""
    high = points[points[:, 2] > _GAP_M]
    origin = high[:, :2].min(axis=0) - np.float32(0.10)
    shape = np.ceil((high[:, :2].max(axis=0) + np.float32(0.10) - origin) / _GRID_M).astype(int) + 1
    n = int(shape.max())
    i, j = ((high[:, :2] - origin) / np.float32(_GRID_M)).astype(np.int64).T
    grid = np.zeros(n * n, np.float32)
    np.maximum.at(grid, i * n + j, high[:, 2])
    return grey_closing(grid.reshape(n, n), size=(3, 3)), origin


def candidates(
    cloud: Cloud, hand: Hand, rng: np.random.Generator, most: int = SCORED
) -> NDArray[np.float64]:
    """Hands (N, 4) of x, y, z of the fingertips, yaw that are free of what was seen, N at most `most`."""
    points = cloud.points
    which = rng.choice(len(points), min(SAMPLES, len(points)), replace=False)
    sample = np.repeat(points[which], YAWS, axis=0)
    first = _frame_yaw(cloud, which)
    yaw = (first[:, None] + np.arange(YAWS) * np.pi / YAWS).ravel()
    # Heights on a grid of each hand: c along the closing axis, over the width of the fingers.
    step = np.float32(0.0025)
    span = hand.opening_m + 2 * hand.finger_thickness_m
    c = np.arange(-round(span / step), round(span / step) + 1, dtype=np.float32) * step
    w = np.linspace(-0.5, 0.5, 9, dtype=np.float32) * np.float32(hand.finger_width_m)
    profile = _heights(cloud, sample, yaw, c, w).max(axis=2)  # (N, C)
    # The open hand slides past the sample; its fingers must go down beside what is there.
    inner, finger = hand.opening_m / 2, hand.finger_thickness_m
    slide = np.linspace(-0.9, 0.9, OFFSETS) * inner
    tip = np.empty((len(sample), OFFSETS), np.float32)
    for k, s in enumerate(slide):
        beside = (np.abs(np.abs(c - s) - inner - finger / 2) <= finger / 2 + 0.5 * step).nonzero()[
            0
        ]
        tip[:, k] = profile[:, beside].max(axis=1)
    tip = np.maximum(tip + np.float32(0.002), np.float32(_GAP_M))
    free = tip <= sample[:, 2:3] - _BITE_M
    some = free.any(axis=1)
    sample, yaw, tip, free, profile = (a[some] for a in (sample, yaw, tip, free, profile))
    if not len(sample):
        return np.zeros((0, 4))
    middle = _middle(free)
    row = np.arange(len(sample))
    z = np.maximum(tip[row, middle], sample[:, 2] - _DEEPEST_M)
    # Points between the fingers, below the sample; the hand is centred on them, as closing would.
    between = np.abs(c[None] - slide[middle][:, None]) <= inner
    held = between & (profile > z[:, None] + 0.005)
    low = np.where(held, c, np.inf).min(axis=1)
    high = np.where(held, c, -np.inf).max(axis=1)
    ok = held.any(axis=1) & (high - low < hand.opening_m - 0.006)
    sample, yaw, z, low, high = (a[ok] for a in (sample, yaw, z, low, high))
    centre = sample[:, :2] + (0.5 * (low + high))[:, None] * np.stack(
        [np.cos(yaw), np.sin(yaw)], -1
    )
    hands = np.column_stack([centre, z, wrap_theta(yaw)]).astype(np.float64)
    # The palm must stay above everything under it.
    u = np.linspace(-0.5, 0.5, 16, dtype=np.float32) * np.float32(hand.palm_length_m)
    v = np.linspace(-0.5, 0.5, 9, dtype=np.float32) * np.float32(hand.palm_width_m)
    if len(hands):
        under = _heights(cloud, hands[:, :3], hands[:, 3], u, v).max(axis=(1, 2))
        raised = np.maximum(hands[:, 2], under - hand.finger_length_m + 0.002)
        hands[:, 2] = raised
        hands = hands[raised <= sample[:, 2] - _BITE_M]
    if len(hands) > most:
        hands = hands[rng.choice(len(hands), most, replace=False)]
    return hands


def _frame_yaw(cloud: Cloud, which: NDArray[np.integer]) -> NDArray[np.float64]:
    """The yaw along which the surface bends at each sample: the closing axis of its local frame."""
    tree = cKDTree(cloud.points)
    yaw = np.empty(len(which))
    for k, near in enumerate(tree.query_ball_point(cloud.points[which], _FRAME_M)):
        nx, ny = cloud.normals[near, 0].astype(float), cloud.normals[near, 1].astype(float)
        yaw[k] = 0.5 * np.arctan2(2 * (nx * ny).sum(), (nx * nx - ny * ny).sum())
    return yaw


def _heights(
    cloud: Cloud,
    at: NDArray[np.floating],
    yaw: NDArray[np.floating],
    c: NDArray[np.float32],
    w: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Observed heights (N, C, W) on the grid of c (closing axis) and w (lateral axis) of N hands."""
    cos, sin = np.cos(yaw)[:, None, None], np.sin(yaw)[:, None, None]
    c, w = c[None, :, None], w[None, None, :]
    n = len(cloud.height)
    x = at[:, 0, None, None] - cloud.origin[0] + cos * c + sin * w
    y = at[:, 1, None, None] - cloud.origin[1] + sin * c - cos * w
    i, j = (x / _GRID_M).astype(np.int32), (y / _GRID_M).astype(np.int32)
    inside = (i >= 0) & (i < n) & (j >= 0) & (j < n)
    return np.where(inside, cloud.height.ravel()[np.where(inside, i * n + j, 0)], np.float32(0))


def _middle(free: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The middle one of the free places of each row."""
    order = free.cumsum(axis=1)
    return (order > (order[:, -1:] - 1) // 2).argmax(axis=1)


class Detector:
    """GPD with its trained classifier, on ONNX Runtime in one thread."""

    def __init__(self, weights: Path = WEIGHTS, hand: Hand | None = None) -> None:
        """Raises GpdError if the weights cannot be read."""
        self.hand = hand or load_hand()
        self._session = _session(weights)

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Positive less negative logit (N,) of descriptors (N, 15, 60, 60)."""
        logits = self._session.run(None, {"image": images})[0]
        return np.asarray(logits[:, 1] - logits[:, 0])

    def best(
        self,
        depth: NDArray[np.float32],
        rays: NDArray[np.float32],
        T_world_camera: NDArray[np.float64],
        seed: int = 0,
    ) -> Found | None:
        """The grasp of highest score; None if no hand fits anywhere."""
        cloud = cloud_of(depth, rays, T_world_camera)
        if cloud is None:
            return None
        hands = candidates(cloud, self.hand, np.random.default_rng(seed))
        if not len(hands):
            return None
        images = describe(cloud.points, cloud.normals, cloud.shadow, hands, self.hand)
        score = self.scores(images)
        k = int(score.argmax())
        return Found(hands[k], float(score[k]), len(hands))


@cache
def _session(path: Path) -> onnxruntime.InferenceSession:
    """conv - pool - conv - pool - FC - ReLU - FC, as GPD's LeNet, of the weights in a file."""
    try:
        with np.load(path) as file:
            weights = {name: file[name].astype(np.float32) for name in file.files}
    except (OSError, ValueError) as error:
        raise GpdError(f"{path}: {error}; `python -m sim.gpd train` makes it") from error
    for name, shape in LAYERS.items():
        for key, want in ((f"{name}.weight", shape), (f"{name}.bias", shape[:1])):
            if key not in weights or weights[key].shape != want:
                raise GpdError(f"{path}: {key} is missing or not {want}")
    nodes: list[onnx.NodeProto] = []
    at = "image"

    def add(kind: str, inputs: list[str], **options: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **options))
        return f"t{len(nodes) - 1}"

    for name in ("conv1", "conv2"):
        at = add("Conv", [at, f"{name}.weight", f"{name}.bias"])
        at = add("MaxPool", [at], kernel_shape=[2, 2], strides=[2, 2])
    at = add("Flatten", [at])
    at = add("Relu", [add("Gemm", [at, "fc1.weight", "fc1.bias"], transB=1)])
    at = add("Gemm", [at, "fc2.weight", "fc2.bias"], transB=1)
    graph = helper.make_graph(
        nodes,
        "gpd",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, ["n", CHANNELS, SIDE_PX, SIDE_PX]
            )
        ],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
