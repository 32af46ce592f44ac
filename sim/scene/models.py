"""Objects described by a model file with a scale of its own: URDF, and MJCF of MuJoCo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

MODEL_SUFFIXES = (".urdf", ".xml", ".mjcf")
Load = Callable[[Path], trimesh.Trimesh]
"""Reader of one mesh file."""


class ModelFileError(ValueError):
    """A model file that gives no object."""


def is_model(path: Path) -> bool:
    """True for a URDF, or an XML file whose root is MuJoCo's; files that are no XML at all count as URDF."""
    suffix = path.suffix.lower()
    if suffix not in MODEL_SUFFIXES:
        return False
    try:
        root = ElementTree.parse(path).getroot().tag
    except (ElementTree.ParseError, OSError, ValueError):
        return suffix == ".urdf"
    return root in ("robot", "mujoco")


def mesh_files(path: Path) -> list[Path]:
    """Mesh files that a model names and that are there; parts of the object, not objects of their own."""
    root = _root(path)
    if root.tag == "robot":
        found = [_resolved(path, m.get("filename", "")) for m in root.iter("mesh")]
        return [file for file in found if file is not None]
    compiler = root.find("compiler")
    about = {} if compiler is None else compiler.attrib
    folder = path.parent / about.get("meshdir", about.get("assetdir", ""))
    named = [folder / m.get("file", "") for m in root.iter("mesh") if m.get("file")]
    return [file.resolve() for file in named if file.is_file()]


def load_model(
    path: Path, load: Load, readable: Sequence[str]
) -> tuple[trimesh.Trimesh, list[str]]:
    """The object of a model file [m], all its parts in one mesh, and notes on it.

    load reads a mesh file of one of the suffixes `readable`. Joints are at zero. Raises ModelFileError, and
    what load raises.
    """
    root = _root(path)
    if root.tag == "robot":
        return _urdf(path, root, load, readable)
    return _mjcf(path)


def _root(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ModelFileError(f"is no sound XML: {error}") from error
    if root.tag not in ("robot", "mujoco"):
        raise ModelFileError(
            f"is XML of <{root.tag}>, not a URDF (<robot>) or MJCF (<mujoco>) model"
        )
    return root


def _joined(parts: list[trimesh.Trimesh], joints: int) -> tuple[trimesh.Trimesh, list[str]]:
    if not parts:
        raise ModelFileError("has no shape: no mesh, box, sphere or cylinder in any link")
    notes = [f"its {joints} joints are held at zero"] if joints else []
    joined: Any = trimesh.util.concatenate(parts)
    return joined, notes


def _urdf(
    path: Path, root: ElementTree.Element, load: Load, readable: Sequence[str]
) -> tuple[trimesh.Trimesh, list[str]]:
    places, moving = _link_places(root)
    parts = []
    for link in root.iter("link"):
        T = places.get(link.get("name", ""), np.eye(4))
        for shape in _shapes(link, readable):
            part = _urdf_shape(path, shape, load)
            part.apply_transform(T @ _origin(shape))
            parts.append(part)
    return _joined(parts, moving)


def _shapes(link: ElementTree.Element, readable: Sequence[str]) -> list[ElementTree.Element]:
    """Visual shapes of a link; its collision shapes where the former are in a format that is not read."""
    for kind in ("visual", "collision"):
        shapes = link.findall(kind)
        files = [m.get("filename", "") for shape in shapes for m in shape.iter("mesh")]
        if shapes and all(file.lower().endswith(tuple(readable)) for file in files):
            return shapes
    files = [m.get("filename", "") for m in link.iter("mesh")]
    if files:
        raise ModelFileError(
            f"names {files[0]}, which is not read; convert it to {', '.join(readable)}"
        )
    return []


def _urdf_shape(path: Path, shape: ElementTree.Element, load: Load) -> trimesh.Trimesh:
    geometry = shape.find("geometry")
    found = None if geometry is None or not len(geometry) else geometry[0]
    if found is None:
        raise ModelFileError("has a shape without geometry")
    if found.tag == "mesh":
        name = found.get("filename", "")
        file = _resolved(path, name)
        if file is None:
            raise ModelFileError(f"names the mesh {name}, which is not there")
        mesh = load(file)
        mesh.apply_transform(np.diag([*_numbers(found.get("scale", "1 1 1"), 3), 1]))
        return mesh
    if found.tag == "box":
        return trimesh.creation.box(_numbers(found.get("size", ""), 3))
    if found.tag == "sphere":
        return trimesh.creation.icosphere(3, _numbers(found.get("radius", ""), 1)[0])
    if found.tag == "cylinder":
        radius, length = (_numbers(found.get(n, ""), 1)[0] for n in ("radius", "length"))
        return trimesh.creation.cylinder(radius, length, sections=64)
    raise ModelFileError(f"has a <{found.tag}>, which is not read")


def _link_places(root: ElementTree.Element) -> tuple[dict[str, NDArray[np.float64]], int]:
    """T_root_link of every link with all joints at zero, and the number of joints that move."""
    joints = {}
    for joint in root.findall("joint"):
        parent, child = (joint.find(name) for name in ("parent", "child"))
        if parent is not None and child is not None:
            joints[child.get("link", "")] = (parent.get("link", ""), _origin(joint))
    moving = sum(joint.get("type") != "fixed" for joint in root.findall("joint"))
    places = {}
    for link in joints:
        T, at = np.eye(4), link
        for _ in joints:  # as far as the root, and never for ever
            if at not in joints:
                break
            at, step = joints[at]
            T = step @ T
        places[link] = T
    return places, moving


def _origin(element: ElementTree.Element) -> NDArray[np.float64]:
    T, origin = np.eye(4), element.find("origin")
    if origin is not None:
        T[:3, 3] = _numbers(origin.get("xyz", "0 0 0"), 3)
        rpy = _numbers(origin.get("rpy", "0 0 0"), 3)
        T[:3, :3] = Rotation.from_euler("xyz", rpy).as_matrix()
    return T


def _numbers(text: str, count: int) -> list[float]:
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise ModelFileError(f"has {text!r} where {count} numbers must be")
    return values


def _resolved(path: Path, name: str) -> Path | None:
    """The file that a URDF names; one of a package is looked for beside the URDF and in folders above."""
    name = name.removeprefix("file://")
    tails = [name]
    if name.startswith("package://"):
        whole = name.removeprefix("package://")
        tails = [whole, whole.partition("/")[2]]
    for folder in list(path.resolve().parents)[:6]:
        for tail in tails:
            if tail and (folder / tail).is_file():
                return (folder / tail).resolve()
    return None


def _mjcf(path: Path) -> tuple[trimesh.Trimesh, list[str]]:
    """MuJoCo itself reads its defaults, includes, scales and frames."""
    try:
        import mujoco
    except ImportError as error:
        raise ModelFileError(
            f"an MJCF model needs the extra `physics` (pip install 'grasp-servo[physics]'): {error}"
        ) from error
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ModelFileError(f"MuJoCo refuses it: {str(error).splitlines()[0]}") from error
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    seen = [
        g for g in range(model.ngeom) if not (model.geom_contype[g] or model.geom_conaffinity[g])
    ]
    parts = []
    for g in seen or range(model.ngeom):
        part = _mjcf_shape(mujoco, model, g)
        if part is not None:
            T = np.eye(4)
            T[:3, :3], T[:3, 3] = data.geom_xmat[g].reshape(3, 3), data.geom_xpos[g]
            part.apply_transform(T)
            parts.append(part)
    free = int((model.jnt_type == mujoco.mjtJoint.mjJNT_FREE).sum())
    return _joined(parts, model.njnt - free)


def _mjcf_shape(mujoco: Any, model: Any, g: int) -> trimesh.Trimesh | None:
    """The mesh of a geom in its own frame; None for a floor."""
    kind, size = mujoco.mjtGeom(model.geom_type[g]), model.geom_size[g]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[g]
        v, n = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        f, m = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        return trimesh.Trimesh(
            model.mesh_vert[v : v + n].astype(np.float64), model.mesh_face[f : f + m], process=False
        )
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return trimesh.creation.box(2 * size)
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return trimesh.creation.icosphere(3, size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return trimesh.creation.cylinder(size[0], 2 * size[1], sections=64)
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return trimesh.creation.capsule(2 * size[1], size[0])
    if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        ball = trimesh.creation.icosphere(3)
        ball.apply_scale(size)
        return ball
    return None


def without_parts(paths: Sequence[Path]) -> Iterator[Path]:
    """These files without those that are no models after all, and without the meshes that models name."""
    models = [p for p in paths if p.suffix.lower() in MODEL_SUFFIXES and is_model(p)]
    parts: set[Path] = set()
    for model in models:
        try:
            parts |= set(mesh_files(model))
        except ModelFileError:  # said when it is read
            continue
    for path in paths:
        if path.suffix.lower() in MODEL_SUFFIXES:
            if path in models:
                yield path
        elif path.resolve() not in parts:
            yield path
