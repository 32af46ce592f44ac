"""Renderers against each other: embree, the plain oracle, OpenRAVE where it is present."""

import importlib.util
import subprocess
import sys
import types

import numpy as np
import pytest
from solids import box

from bench.plain_render import PlainRenderer
from bench.renderers import RenderersOptions, compare
from rt.pose import top_down
from rt.view import VIEW
from sim.scene import openrave
from sim.scene.openrave import OpenraveRenderer, RendererError, probe
from sim.scene.render import Renderer
from sim.scene.scene import assemble

HERE = importlib.util.find_spec("openravepy") is not None


@pytest.fixture
def scene():
    return assemble([(box((0.06, 0.04, 0.05)), np.eye(4))])


def test_the_plain_renderer_agrees_with_embree_on_real_scenes():
    found = compare(RenderersOptions("embree", "plain", scenes=1, views=1, seed=2))
    assert found["largest_on_a_surface_m"] < 1e-5
    assert found["pixels_on_other_surfaces"] <= 4 and found["pixels"] == 4096


def test_the_plain_renderer_sees_a_box_where_it_is(scene):
    depth = PlainRenderer(scene).depth(top_down(0, 0, 0.3, 0), VIEW.rays())
    assert depth[32, 32] == pytest.approx(0.25, abs=1e-7)
    assert depth[0, 0] == pytest.approx(0.30, abs=1e-7)


def test_openrave_agrees_with_embree():
    pytest.importorskip("openravepy", reason="no openravepy: build OpenRAVE from source")
    found = compare(RenderersOptions("embree", "openrave", scenes=2, views=2))
    assert found["largest_on_a_surface_m"] < 1e-5


@pytest.mark.skipif(HERE, reason="openravepy is here: run where it is not")
def test_openrave_that_is_missing_is_said_in_a_line():
    command = [sys.executable, "-m", "sim.compare", "--other", "openrave", "--scenes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "openravepy is not usable here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_crash_is_found_in_a_child(monkeypatch):
    monkeypatch.setattr(openrave, "_PROBE", "import os; os.kill(os.getpid(), 11)")
    probe.cache_clear()
    with pytest.raises(RendererError, match="crashes here"):
        probe()
    probe.cache_clear()


def test_rays_are_asked_for_as_openrave_wants_them(scene, monkeypatch):
    """A stand-in for openravepy with its conventions, answered by embree: length is range, misses are
    not initialised."""
    embree = Renderer(scene)

    class Environment:
        def Add(self, body):
            pass

        def SetCollisionChecker(self, checker):
            pass

        def Destroy(self):
            pass

        def CheckCollisionRays(self, rays, body):
            assert rays.shape == (4096, 6) and rays.dtype == np.float64
            origins, along = (
                np.ascontiguousarray(r, np.float32) for r in (rays[:, :3], rays[:, 3:])
            )
            t = embree.range(origins, along)
            hit = t <= 1
            info = np.full((len(rays), 6), np.nan)
            info[hit, :3] = rays[hit, :3] + t[hit, None] * rays[hit, 3:]
            return hit, info

    body = types.SimpleNamespace(InitFromTrimesh=lambda *_: None, SetName=lambda _: None)
    fake = types.SimpleNamespace(
        Environment=Environment,
        RaveCreateKinBody=lambda *_: body,
        TriMesh=lambda v, f: (v, f),
        RaveCreateCollisionChecker=lambda *_: None,
    )
    monkeypatch.setitem(sys.modules, "openravepy", fake)
    monkeypatch.setattr(openrave, "probe", lambda: None)
    pose = top_down(0.02, -0.01, 0.25, 0.7)
    ours = OpenraveRenderer(scene).depth(pose, VIEW.rays())
    np.testing.assert_allclose(ours, embree.depth(pose, VIEW.rays()), atol=1e-6)
