"""Convex parts when CoACD aborts its process."""

import os

import numpy as np
import pytest
from needs import needed
from solids import box

from sim.physics import convex


def abort_unless_turned(points, faces):
    if np.ptp(points[:, 0]) == pytest.approx(0.04, abs=1e-9):
        os.abort()
    return [points]


def always_abort(points, faces):
    os.abort()


@pytest.fixture
def cube():
    thing = box((0.04, 0.04, 0.04))
    return thing.vertices.astype(np.float64), thing.faces


def test_a_mesh_that_aborts_is_turned_and_its_parts_turned_back(cube, monkeypatch):
    needed("physics", "coacd")
    monkeypatch.setattr(convex, "_run_coacd", abort_unless_turned)
    (part,) = convex._decompose(*cube)
    np.testing.assert_allclose(part, cube[0], atol=1e-12)


def test_a_mesh_that_always_aborts_is_named(cube, monkeypatch):
    needed("physics", "coacd")
    monkeypatch.setattr(convex, "_run_coacd", always_abort)
    monkeypatch.setattr(convex, "_TURNS", 2)
    with pytest.raises(convex.PhysicsError, match="12 faces, turned in 2 ways"):
        convex._decompose(*cube)
