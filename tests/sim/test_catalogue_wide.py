"""The wide catalogue: a thousand closed solids of household size, and the default one untouched."""

from __future__ import annotations

import numpy as np
import pytest

from sim import catalogue
from sim.catalogue import wide
from sim.scene.objects import catalogue_set, object_set
from sim.scene.repair import examine


def test_a_thousand_of_twenty_categories_split_by_instance() -> None:
    sets = {split: catalogue_set(split, "wide") for split in ("train", "test", "all")}
    assert len(wide.WIDE) == 20 and len(sets["all"]) == 1000
    assert not set(sets["train"].names) & set(sets["test"].names)
    assert len(sets["train"]) + len(sets["test"]) == 1000
    for split in ("train", "test"):
        assert {name.partition("/")[0] for name in sets[split].names} == set(wide.WIDE)


def test_the_default_catalogue_is_as_it_was() -> None:
    assert len(catalogue.instances()) == 381 and not set(catalogue.CATEGORIES) & set(wide.WIDE)
    assert object_set("all").names == catalogue_set("all", "household").names
    prints = {catalogue_set("train", which).fingerprint() for which in ("household", "wide")}
    assert len(prints) == 2


@pytest.mark.parametrize("category", wide.NEW)
def test_a_new_category_s_instances_are_sound_solids_that_differ(category: str) -> None:
    volumes = set()
    for index in (0, 1, 2, 3, 4, 5, 29, 49):
        vertices, faces = catalogue.mesh(category, index)
        assert examine(vertices.astype(np.float64), faces.astype(np.int64)).sound
        longest = float(np.ptp(vertices, axis=0).max())
        assert 0.03 < longest < 0.30
        a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
        volumes.add(round(float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6 * 1e9)))
        assert max(volumes) > 0
    assert len(volumes) == 8


def test_an_instance_is_the_same_every_time() -> None:
    for one, other in zip(
        catalogue.mesh("wide_pan", 7), catalogue.mesh("wide_pan", 7), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError, match="wide_pan has instances 0 to 49, not 50"):
        catalogue.mesh("wide_pan", 50)
