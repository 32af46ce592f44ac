"""Materials that depth cameras fail on: each loses what it should, and glass shows what lies behind."""

from __future__ import annotations

import numpy as np
import pytest
from solids import box

from rt.pose import top_down
from rt.view import VIEW
from sim.dataset.options import GenerateOptions, parameters
from sim.dataset.store import DatasetError
from sim.scene.material import MATERIALS, ODD, MaterialScene, random_materials
from sim.scene.raster import RasterRenderer
from sim.scene.scene import Scene, assemble
from sim.scene.sensor import EDGE_M, flown

RAYS, POSE = VIEW.rays(), top_down(0, 0, 0.25, 0.2)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A box of 6 cm, 4 cm high, and a smaller one beside it."""
    aside = np.eye(4)
    aside[0, 3] = 0.08
    return assemble([(box((0.06, 0.06, 0.04)), np.eye(4)), (box((0.03, 0.03, 0.03)), aside)])


def seen(scene: Scene, *materials: str) -> np.ndarray:
    made = MaterialScene(scene, materials, VIEW.intrinsics)
    return made.depth(POSE, RAYS, np.random.default_rng(0))


def test_matte_objects_are_as_they_are(scene: Scene) -> None:
    np.testing.assert_array_equal(
        seen(scene, "matte", "matte"), RasterRenderer(scene).depth(POSE, RAYS)
    )


@pytest.mark.parametrize("name", ODD)
def test_an_odd_object_alone_is_lost_in_part(scene: Scene, name: str) -> None:
    exact, face = RasterRenderer(scene).depth_and_face(POSE, RAYS)
    own = (face >= 0) & (scene.face_object[face] == 0)
    depth = seen(scene, name, "matte")
    np.testing.assert_array_equal(depth[~own], exact[~own])
    assert 0.15 < (depth[own] == 0).mean() < 1
    assert own.sum() > 100


def test_glass_shows_the_table_behind_it(scene: Scene) -> None:
    exact, face = RasterRenderer(scene).depth_and_face(POSE, RAYS)
    own = (face >= 0) & (scene.face_object[face] == 0)
    depth = seen(scene, "transparent", "matte")[own]
    behind = np.abs(depth - 0.25) < 1e-5
    assert 0.4 < behind.mean() < MATERIALS["transparent"].behind + 0.1
    assert (np.abs(depth - exact[own]) < 1e-6).any()


def test_a_mirror_is_lost_where_it_looks_back(scene: Scene) -> None:
    """The box's top straight below the camera."""
    middle = seen(scene, "shiny", "matte")[29:35, 29:35]
    assert (middle == 0).all()


def test_materials_are_drawn_by_their_share() -> None:
    kinds = random_materials(3000, 0.3, np.random.default_rng(0))
    assert np.mean([kind != "matte" for kind in kinds]) == pytest.approx(0.3, abs=0.03)
    assert set(kinds) == set(MATERIALS)
    assert set(random_materials(50, 0, np.random.default_rng(0))) == {"matte"}


def test_flying_pixels_lie_between_both_sides_of_an_edge() -> None:
    depth = np.full((40, 30), 0.3, np.float32)
    depth[:, 15:] = 0.2
    result = flown(depth, 0.5, np.random.default_rng(0))
    changed = np.flatnonzero((result != depth).any(axis=0))
    np.testing.assert_array_equal(changed, [14])
    moved = result[:, 14][result[:, 14] != depth[:, 14]]
    assert 8 < len(moved) < 32 and (moved > 0.2).all() and (moved < 0.3).all()
    slope = np.linspace(0.2, 0.2 + 25 * EDGE_M, 30, dtype=np.float32)[None].repeat(40, 0)
    np.testing.assert_array_equal(flown(slope, 1.0, np.random.default_rng(0)), slope)


def test_the_share_is_part_of_the_set_and_judged() -> None:
    with pytest.raises(DatasetError, match="--odd-materials -1"):
        parameters(GenerateOptions(odd_materials=-1))
    with pytest.raises(DatasetError, match="--renderer raster"):
        parameters(GenerateOptions(odd_materials=0.1, renderer="embree"))
    assert parameters(GenerateOptions(odd_materials=0.1))["odd_materials"] == 0.1
    assert "odd_materials" not in parameters(GenerateOptions())
