"""sim.gpd: hands fit around what was seen, the descriptor shows it, labels follow the full surface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import needed
from solids import box

from rt.hand import load_hand
from rt.pose import top_down, wrap_theta
from sim.gpd.descriptor import CHANNELS, DEPTH_M, HEIGHT_M, SIDE_PX, WIDTH_M, describe
from sim.gpd.detector import (
    FINE,
    LAYERS,
    WEIGHTS,
    Cloud,
    Detector,
    GpdError,
    candidates,
    cloud_of,
)
from sim.gpd.train import _mirror, antipodal, surface
from sim.scene.render import Renderer
from sim.scene.scene import Scene, assemble

HAND = load_hand()
EYE = top_down(0.03, -0.02, 0.30, 0.4)


def bar() -> Scene:
    """5 cm across (x), 16 cm along (y), 4 cm high."""
    return assemble([(box((0.05, 0.16, 0.04)), np.eye(4))])


def seen(scene: Scene) -> Cloud:
    depth = Renderer(scene).depth(EYE, FINE.rays())
    cloud = cloud_of(depth, FINE.rays(), EYE)
    assert cloud is not None
    return cloud


def test_the_cloud_lies_on_the_object_with_normals_to_the_camera() -> None:
    cloud = seen(bar())
    assert (np.abs(cloud.points[:, 0]) < 0.0251).all() and (
        np.abs(cloud.points[:, 1]) < 0.0801
    ).all()
    assert cloud.points[:, 2].min() > 0.009 and cloud.points[:, 2].max() < 0.0401
    inside = (np.abs(cloud.points[:, :2]) < [0.015, 0.07]).all(axis=1)
    assert inside.sum() > 200 and (cloud.normals[inside, 2] > 0.99).all()
    assert cloud.height.max() == pytest.approx(0.04, abs=1e-3)
    # Surface that the bar hides from the camera is not in front of the bar.
    assert (cloud.shadow[:, 2] < 0.04).all() and len(cloud.shadow) > 100


def test_an_empty_table_has_no_cloud() -> None:
    depth = np.full((160, 160), 0.3, np.float32)
    assert cloud_of(depth, FINE.rays(), top_down(0, 0, 0.3, 0)) is None
    assert Detector().best(depth, FINE.rays(), top_down(0, 0, 0.3, 0)) is None


def test_hands_go_down_beside_what_was_seen_and_are_centred_on_it() -> None:
    hands = candidates(seen(bar()), HAND, np.random.default_rng(0))
    assert len(hands) > 20
    x, y, z, yaw = hands.T
    assert (z > 0.002).all() and (z <= 0.031).all()
    # Turned by t the bar is 50 / cos t + 22 tan t mm wide between the fingers: 85 mm at 40 degrees. A
    # hand along it would have its fingers in it, but at its ends.
    across = np.abs(wrap_theta(yaw)) < np.radians(42)
    middle = np.abs(y) < 0.05
    assert across[middle].all() and (np.abs(x[across & middle]) < 0.006).all()


def test_labels_are_of_the_full_surface() -> None:
    points, normals = surface(bar(), np.random.default_rng(0))
    hands = np.array(
        [
            [0.0, 0.02, 0.015, 0.0],  # across
            [0.0, 0.02, 0.015, np.radians(35)],  # across a corner: normals 35 degrees off
            [0.03, 0.02, 0.015, 0.0],  # a finger in the bar
            [0.2, 0.0, 0.015, 0.0],  # nothing there
        ]
    )
    assert antipodal(points, normals, hands, HAND).tolist() == [True, False, False, False]


def test_the_descriptor_shows_a_point_where_it_is_in_each_projection() -> None:
    hands = np.array([[0.1, -0.2, 0.02, 0.7]])
    closing, lateral, up = 0.02, 0.004, 0.03
    x = np.array([np.cos(0.7), np.sin(0.7), 0]) * closing
    y = np.array([np.sin(0.7), -np.cos(0.7), 0]) * lateral
    point = (hands[0, :3] + x + y + [0, 0, up]).astype(np.float32)[None]
    normal = np.array([[np.cos(0.7), np.sin(0.7), 0]], np.float32)
    image = describe(point, normal, np.zeros((0, 3), np.float32), hands, HAND)
    assert image.shape == (1, CHANNELS, SIDE_PX, SIDE_PX)
    place = np.array([closing / WIDTH_M + 0.5, lateral / HEIGHT_M + 0.5, up / DEPTH_M])
    for projection, (a, b) in enumerate(((0, 2), (0, 1), (1, 2))):
        shown = image[0, 5 * projection : 5 * projection + 5]
        row, column = np.argwhere(shown[0] > 0).mean(axis=0)
        assert column == pytest.approx(place[a] * SIDE_PX, abs=1)
        assert row == pytest.approx(place[b] * SIDE_PX, abs=1)
        # The normal is along the closing axis; nothing is hidden.
        assert shown[0].max() == pytest.approx(1, abs=1e-5) and shown[1].max() < 1e-5
        assert shown[3].max() == pytest.approx(place[3 - a - b], abs=1e-5) and not shown[4].any()


def test_mirrored_examples_are_descriptors_of_the_mirrored_scene() -> None:
    """The training's augmentation is exact: a mirrored cloud gives the mirrored image."""
    torch = needed("train", "torch")
    rng = np.random.default_rng(0)
    points = rng.uniform((-0.04, -0.009, 0.005), (0.04, 0.009, 0.05), (60, 3)).astype(np.float32)
    normals = rng.standard_normal((60, 3)).astype(np.float32)
    hands = np.zeros((1, 4))
    image = torch.from_numpy(describe(points, normals, points, hands, HAND))
    for closing, lateral in ((True, False), (False, True), (True, True)):
        sign = np.float32([-1 if closing else 1, -1 if lateral else 1, 1])
        other = describe(points * sign, normals * sign, points * sign, hands, HAND)
        same = np.isclose(_mirror(image, lateral, closing).numpy(), other, atol=1e-4)
        assert same.mean() > 0.99  # a point on a pixel's edge may fall to the other side


def test_the_best_of_a_bar_is_a_grasp_across_it() -> None:
    depth = Renderer(bar()).depth(EYE, FINE.rays())
    found = Detector().best(depth, FINE.rays(), EYE)
    assert found is not None
    assert abs(found.hand[0]) < 0.01 and abs(wrap_theta(found.hand[3])) < np.radians(25)
    again = Detector().best(depth, FINE.rays(), EYE)
    assert again is not None and found.hand.tolist() == again.hand.tolist()


def test_the_shipped_classifier_equals_the_plain_network() -> None:
    torch = needed("train", "torch")
    with np.load(WEIGHTS) as file:
        w = {name: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}
    image = torch.rand(3, 15, 60, 60, generator=torch.Generator().manual_seed(0))
    f = torch.nn.functional
    t = f.max_pool2d(f.conv2d(image, w["conv1.weight"], w["conv1.bias"]), 2)
    t = f.max_pool2d(f.conv2d(t, w["conv2.weight"], w["conv2.bias"]), 2).flatten(1)
    t = f.linear(
        f.relu(f.linear(t, w["fc1.weight"], w["fc1.bias"])), w["fc2.weight"], w["fc2.bias"]
    )
    np.testing.assert_allclose(
        Detector().scores(image.numpy()), (t[:, 1] - t[:, 0]).numpy(), rtol=1e-3, atol=1e-3
    )


def test_a_damaged_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpdError, match=r"sim\.gpd train"):
        Detector(tmp_path / "missing.npz")
    np.savez(tmp_path / "half.npz", **{"conv1.weight": np.zeros(LAYERS["conv1"], np.float16)})
    with pytest.raises(GpdError, match=r"conv1\.bias"):
        Detector(tmp_path / "half.npz")


def test_training_ends_in_a_file_that_the_detector_reads(tmp_path: Path) -> None:
    needed("train", "torch")
    out = tmp_path / "gpd.npz"
    command = "-m sim.gpd train --scenes 2 --held-out 1 --epochs 1 --workers 1 --per-scene 4"
    done = subprocess.run(
        [sys.executable, *command.split(), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    Detector(out)
    assert out.stat().st_size < 20e6
    bad = subprocess.run([sys.executable, "-m", "sim.gpd"], capture_output=True, text=True)
    assert bad.returncode == 2 and "sim.gpd train" in bad.stderr
