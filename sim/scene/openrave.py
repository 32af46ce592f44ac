"""Depth by OpenRAVE's rays, with the interface of sim.scene.render.Renderer; `sim.compare` compares both.

openravepy is not on PyPI; it is built from source. Its CheckCollisionRays has crashed in some builds, so
it is tried in a child process before this one relies on it.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.scene.raster import RasterRenderer
from sim.scene.render import Renderer
from sim.scene.scene import Scene

RANGE_M = 5.0
"""Longest ray: far beyond any view. OpenRAVE takes a ray's length as its range."""

_PROBE = """
import numpy as np
import openravepy as rave
env = rave.Environment()
body = rave.RaveCreateKinBody(env, "")
points = np.array([[-1.0, -1, 0], [3, -1, 0], [-1, 3, 0]])
body.InitFromTrimesh(rave.TriMesh(points, np.array([[0, 1, 2]], np.int32)), False)
body.SetName("probe")
env.Add(body)
env.SetCollisionChecker(rave.RaveCreateCollisionChecker(env, "ode"))
hit, info = env.CheckCollisionRays(np.array([[0, 0, 2.0, 0, 0, -5], [9, 9, 2, 0, 0, -5]]), body)
assert list(hit) == [True, False] and abs(info[0, 2]) < 1e-6, (hit, info)
"""


class RendererError(RuntimeError):
    """A renderer that is not here, or does not work here."""


@functools.cache
def probe() -> None:
    """Cast two rays in a child process. Raises RendererError if openravepy is missing, wrong or crashes."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        raise RendererError("openravepy's rays did not answer in 60 s") from None
    if done.returncode < 0:
        raise RendererError(
            f"openravepy's CheckCollisionRays crashes here (signal {-done.returncode}): its Python "
            "binding converts an index wrongly in some versions; use a patched build"
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RendererError(
            f"openravepy is not usable here ({last}); build it from source, with numpy < 2"
        )


class OpenraveRenderer:
    """Depth of one scene and its table (the plane z = 0), as sim.scene.render.Renderer gives it."""

    def __init__(self, scene: Scene) -> None:
        probe()
        import openravepy as rave

        self._environment = rave.Environment()
        self._body = rave.RaveCreateKinBody(self._environment, "")
        mesh = rave.TriMesh(scene.vertices.astype(np.float64), scene.faces.astype(np.int32))
        self._body.InitFromTrimesh(mesh, False)
        self._body.SetName("scene")
        self._environment.Add(self._body)
        checker: Any = rave.RaveCreateCollisionChecker(self._environment, "ode")
        self._environment.SetCollisionChecker(checker)

    def depth(
        self, T_world_camera: NDArray[np.floating], rays: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Depth image (H, W) float32 metres along the optical axis, 0 where nothing is hit.

        T_world_camera (4, 4), rays (H, W, 3) with z = 1: as for sim.scene.render.Renderer.depth.
        """
        R, origin = T_world_camera[:3, :3].astype(np.float64), T_world_camera[:3, 3]
        directions = rays.reshape(-1, 3).astype(np.float64) @ R.T
        length = np.linalg.norm(directions, axis=1)
        unit = directions / length[:, None]
        segments = np.column_stack([np.tile(origin, (len(unit), 1)), RANGE_M * unit])
        hit, info = self._environment.CheckCollisionRays(segments, self._body)
        hit = np.asarray(hit, bool)
        depth = np.full(len(unit), np.inf)
        # Rows of misses are not initialised.
        depth[hit] = np.einsum("ij,ij->i", info[hit, :3] - origin, unit[hit]) / length[hit]
        with np.errstate(divide="ignore"):
            table = -origin[2] / directions[:, 2]
        depth = np.where(table > 0, np.minimum(depth, table), depth)
        depth[~np.isfinite(depth)] = 0
        return depth.astype(np.float32).reshape(rays.shape[:2])

    def __del__(self) -> None:
        if hasattr(self, "_environment"):
            self._environment.Destroy()


RENDERERS: dict[str, Any] = {
    "raster": RasterRenderer,
    "embree": Renderer,
    "openrave": OpenraveRenderer,
}
"""Classes that trace a set's views, by the name of --renderer."""
