"""Materials that depth cameras fail on: shiny, black and transparent objects, each with its own kind of hole.

Stated for a camera that finds depth by a pattern or texture it sees on a surface (docs/sensors.md has a
picture and the sources of each):

- black: little light comes back, least from a slanted face. Depth is lost from a smaller angle on, and in
  patches.
- shiny: a mirror dazzles the camera where its face looks back at it, and shows the room elsewhere.
  Depth is lost around the highlight, and in patches.
- transparent: most pixels have the depth of what lies behind, others, in patches and at grazing angles, have
  none; a rest is seen at its own depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rt.camera import Intrinsics
from sim.scene.raster import RasterRenderer
from sim.scene.scene import Scene
from sim.scene.sensor import grazing_cosine, lost_patches


@dataclass(frozen=True)
class Material:
    """The way that a surface is lost to a depth camera. Numbers are assumptions within what is reported."""

    name: str
    grazing_deg: float = 90.0
    """Angle between ray and normal from which no depth is found."""
    highlight_deg: float = 0.0
    """Angle between ray and normal up to which the camera is dazzled."""
    patches: float = 0.0
    """Share lost in patches."""
    behind: float = 0.0
    """Share of what is left, in patches, that has the depth of what lies behind."""


MATERIALS = {
    "matte": Material("matte"),
    "black": Material("black", grazing_deg=50, patches=0.3),
    "shiny": Material("shiny", highlight_deg=6, grazing_deg=75, patches=0.35),
    "transparent": Material("transparent", grazing_deg=60, patches=0.25, behind=0.8),
}
ODD = tuple(name for name in MATERIALS if name != "matte")
_PATCH_PX = 6
"""Side of a lost patch, in pixels of the traced image."""


def random_materials(count: int, share: float, rng: np.random.Generator) -> tuple[str, ...]:
    """A material for each of `count` objects: matte but for this share, which is one of the others."""
    odd = rng.random(count) < share
    kinds = rng.integers(len(ODD), size=count)
    return tuple(ODD[k] if some else "matte" for some, k in zip(odd, kinds, strict=True))


class MaterialScene:
    """Exact depth of a scene as a camera could know it at best: with holes and with what lies behind glass.

    A DepthRenderer's `depth` with chance; the sensor's own faults (sim.scene.sensor) come on top.
    """

    def __init__(self, scene: Scene, materials: tuple[str, ...], intrinsics: Intrinsics) -> None:
        self._renderer = RasterRenderer(scene)
        self._kinds = [MATERIALS[name] for name in materials]
        self._object, self._intrinsics = scene.face_object, intrinsics
        clear = [k for k, kind in enumerate(self._kinds) if kind.behind > 0]
        rest = ~np.isin(scene.face_object, clear)
        opaque = Scene(scene.placed, scene.vertices, scene.faces[rest], scene.face_object[rest])
        self._behind = RasterRenderer(opaque) if clear else None

    def depth(
        self,
        T_world_camera: NDArray[np.floating],
        rays: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Depth (H, W) [m], 0 = lost, of a camera without distortion; see RasterRenderer.depth."""
        depth, face = self._renderer.depth_and_face(T_world_camera, rays)
        if all(kind.name == "matte" for kind in self._kinds):
            return depth
        owner = np.where(face >= 0, self._object[face], -1)
        cosine = grazing_cosine(depth, self._intrinsics)
        behind = None if self._behind is None else self._behind.depth(T_world_camera, rays)
        for k, kind in enumerate(self._kinds):
            own = owner == k
            if kind.name == "matte" or not own.any():
                continue
            lost = cosine < np.cos(np.radians(kind.grazing_deg))
            if kind.highlight_deg > 0:
                lost |= cosine > np.cos(np.radians(kind.highlight_deg))
            lost |= lost_patches(depth.shape, _PATCH_PX, kind.patches, rng)
            if behind is not None and kind.behind > 0:
                through = own & lost_patches(depth.shape, _PATCH_PX, kind.behind, rng)
                depth[through] = behind[through]
            depth[own & lost] = 0
        return depth
