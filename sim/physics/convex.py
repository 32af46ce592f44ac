"""Convex parts of a mesh, for collisions: approximate decomposition by CoACD, cached on disk.

Wei et al., "Approximate convex decomposition for 3D meshes with collision-aware concavity and tree
search", 2022. A thin-walled mug keeps its cavity. It takes seconds a mesh, so its result is kept in the
user's cache folder (`$XDG_CACHE_HOME/grasp-servo/convex`, by default below `~/.cache`), which any number
of processes may share.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from rt.tools.files import shown, whole
from sim import catalogue
from sim.scene.objects import ObjectError, catalogue_set

Array = NDArray[np.float64]

SAME_M = 1e-5
"""Two meshes with the same faces whose vertices agree to this are one: a scene's vertices are float32."""
_SETTINGS: dict[str, Any] = {
    # Concavity left, by CoACD's measure on a mesh scaled to a box of side 2: 2.5 mm on a mug.
    "threshold": 0.05,
    # A narrower search than CoACD's default, which takes minutes on a mug; parts came out as many.
    "mcts_max_depth": 2,
    "mcts_iterations": 20,
    "mcts_nodes": 8,
    "resolution": 500,
    "seed": 0,
}
_TURNS = 4
"""Ways to turn a mesh that CoACD aborts on, the first being not at all."""
_PATIENCE_S, _NO_COACD = 1800.0, 3
"""Longest decomposition, and the exit code of a process that finds no CoACD."""
_LEAST_VOLUME_M3 = 1e-10
"""Parts flatter than this (a cube of half a millimetre) are dropped: no contact depends on them."""


class PhysicsError(RuntimeError):
    """Lifts cannot be simulated here, or not with these arguments."""


def cache_folder() -> Path:
    """Folder of the cached decompositions."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "grasp-servo" / "convex"


def convex_parts(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], name: str = ""
) -> list[Array]:
    """Vertices (V_k, 3) of the convex parts of a closed mesh, in the mesh's own frame [m].

    vertices (V, 3) may be off by rounding (as taken back from a scene); with the name of a catalogue's
    object its exact mesh is decomposed, so that the result does not depend on the first scene that needs it.
    Raises PhysicsError if CoACD is not installed and the mesh is not in the cache.
    """
    points = np.asarray(vertices, np.float64)
    triangles = np.asarray(faces).astype(np.int32)
    topology = hashlib.sha256(repr(sorted(_SETTINGS.items())).encode() + triangles.tobytes())
    folder = cache_folder() / topology.hexdigest()[:24]
    for path in shown(folder, {".npz"}) if folder.is_dir() else ():
        with np.load(path) as kept:
            if kept["mesh"].shape == points.shape and np.allclose(
                kept["mesh"], points, rtol=0, atol=SAME_M
            ):
                return np.split(kept["points"], kept["ends"][:-1])
    points = _exact(points, triangles, name)
    parts = _decompose(points, triangles)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(points.tobytes()).hexdigest()[:24]}.npz"
    with whole(path) as beside:
        ends = np.cumsum([len(p) for p in parts])
        np.savez(beside, mesh=points, points=np.concatenate(parts), ends=ends)
    return parts


def _exact(points: Array, faces: NDArray[np.int32], name: str) -> Array:
    """The catalogue's own vertices where the mesh is its object of that name, else the points."""
    if name.partition("/")[0] in catalogue.CATEGORIES:
        try:
            thing = catalogue_set("all").get(name)
        except ObjectError:
            return points
        if np.array_equal(thing.faces, faces) and np.allclose(
            thing.vertices, points, rtol=0, atol=SAME_M
        ):
            return thing.vertices.astype(np.float64)
    return points


def _decompose(points: Array, faces: NDArray[np.int32]) -> list[Array]:
    """The parts by CoACD, in a process of its own and of one thread. On a few meshes, where triangles meet in
    a degenerate way, an assertion of CoACD aborts its process, and holds once the mesh is turned."""
    for turn in range(_TURNS):
        R = Rotation.from_rotvec(np.array([0.1, 0.2, 0.3]) * turn).as_matrix()
        parts = _parts_of_process(points @ R.T, faces)
        if parts is None:
            continue
        if not parts:
            raise PhysicsError(
                f"no convex part found in a mesh of {len(faces)} faces; is it closed?"
            )
        return [part @ R for part in parts]
    raise PhysicsError(
        f"CoACD aborts on a mesh of {len(faces)} faces, turned in {_TURNS} ways; simplify it"
    )


def _parts_of_process(points: Array, faces: NDArray[np.int32]) -> list[Array] | None:
    """The parts, found by `python -m sim.physics.convex`: a pool would fail in a script without a main guard.
    None if CoACD aborts. Raises PhysicsError."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "mesh.npz", Path(folder) / "parts.npz"
        np.savez(given, points=points, faces=faces)
        words = [sys.executable, "-m", "sim.physics.convex", str(given), str(found)]
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                words,
                env={**os.environ, **single},
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
            )
        except subprocess.TimeoutExpired as error:
            raise PhysicsError(
                f"CoACD took over {_PATIENCE_S:g} s on a mesh of {len(faces)} faces; simplify it"
            ) from error
        if done.returncode == _NO_COACD:
            raise PhysicsError(done.stderr.strip().splitlines()[-1])
        if done.returncode or not found.is_file():
            return None
        with np.load(found) as kept:
            return [kept[name] for name in kept.files]


def _run_coacd(points: Array, faces: NDArray[np.int32]) -> list[Array]:
    try:
        import coacd
    except ImportError as error:
        raise PhysicsError(
            f"lifts need the extra `physics` (pip install 'grasp-servo[physics]'): {error}"
        ) from error
    coacd.set_log_level("error")
    found = coacd.run_coacd(coacd.Mesh(points, faces), **_SETTINGS)
    return [corners for vertices, _ in found if (corners := _corners(vertices)) is not None]


def _corners(points: Array) -> Array | None:
    """The corners of the points' hull, None if it is flat."""
    try:
        hull = ConvexHull(points)
    except QhullError:
        return None
    return np.asarray(points[hull.vertices]) if hull.volume > _LEAST_VOLUME_M3 else None


def main() -> None:
    """The child's process: points and faces from one file, parts to another."""
    with np.load(sys.argv[1]) as given:
        try:
            parts = _run_coacd(given["points"], given["faces"])
        except PhysicsError as error:
            print(error, file=sys.stderr)
            raise SystemExit(_NO_COACD) from None
    named: dict[str, Any] = {f"part{k:05d}": part for k, part in enumerate(parts)}
    np.savez(sys.argv[2], **named)


if __name__ == "__main__":
    main()
