"""Intrinsics as other programs store them: ROS, OpenCV, ViSP, RealSense, plain JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from calib.errors import CalibrationError
from calib.solve.model import LensModel
from rt.tools.files import read_bounded, shown

_SUFFIXES = (".json", ".yaml", ".yml", ".xml", ".txt", ".csv")


class _AnyTag(yaml.SafeLoader):  # type: ignore[misc]
    """YAML whose unknown tags (!!opencv-matrix) are read as what they hold."""


def _untagged(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_AnyTag.add_multi_constructor("", _untagged)
_AnyTag.add_multi_constructor("tag:yaml.org,2002:opencv", _untagged)
_AnyTag.add_multi_constructor("tag:yaml.org,2002:python", _untagged)
# 1e-3 without a dot is a number too
_AnyTag.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(text: str) -> Any:
    """YAML of any program, OpenCV's %YAML:1.0 header included; raises ValueError."""
    text = re.sub(r"^%YAML.*\n", "", text)
    try:
        documents = [d for d in yaml.load_all(text, Loader=_AnyTag) if d is not None]
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error
    return documents[0] if len(documents) == 1 else documents


def find_camera(folder: Path) -> LensModel | None:
    """The intrinsics in a folder, by any file that holds some."""
    names = ("intrin", "camera", "calib", "cam", "k")
    files = shown(folder, _SUFFIXES, below=True)
    for name in names:
        for file in sorted(files):
            stem = file.stem.lower()
            if (name in stem if len(name) > 1 else stem == name) and file.stat().st_size < 1 << 20:
                try:
                    return read_camera(file)
                except CalibrationError:
                    continue
    return None


def read_camera(path: Path, size: tuple[int, int] | None = None) -> LensModel:
    """Intrinsics from a file; raises CalibrationError if there are none in it."""
    if not path.is_file():
        raise CalibrationError(f"{path} does not exist")
    try:
        text = read_bounded(path, errors="replace")
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from error
    try:
        if path.suffix.lower() == ".json":
            data = json.loads(text)
        elif path.suffix.lower() == ".xml":
            return _visp(path, text)
        elif path.suffix.lower() in (".txt", ".csv"):
            numbers = [float(x) for x in re.split(r"[\s,;]+", text.strip())]
            data = {"K": numbers[:9], "dist": numbers[9:]}
        else:
            data = load_yaml(text)
    except ValueError as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from error
    camera = _from_mapping(data)
    if camera is None:
        raise CalibrationError(
            f"{path} holds no intrinsics; write JSON with width, height, fx, fy, cx, cy and dist"
        )
    return camera


def _from_mapping(data: Any) -> LensModel | None:
    if not isinstance(data, dict):
        return None
    low = {re.sub(r"[^a-z0-9]", "", str(k).lower()): v for k, v in data.items()}

    def numbers(*keys: str) -> list[float] | None:
        for key in keys:
            value = low.get(key)
            value = value.get("data", value) if isinstance(value, dict) else value
            if value is not None:
                try:
                    return [float(x) for x in np.asarray(value, dtype=np.float64).ravel()]
                except (TypeError, ValueError):
                    continue
        return None

    K = numbers("cameramatrix", "k", "intrinsicmatrix", "intrinsics", "intrinsic", "mtx", "matrix")
    dist = numbers("distortioncoefficients", "dist", "d", "distcoeffs", "coeffs", "distortion")
    if K is not None and len(K) == 9:
        fx, fy, cx, cy = K[0], K[4], K[2], K[5]
    elif K is not None and len(K) == 4:
        fx, fy, cx, cy = K
    else:
        parts = [
            numbers(*keys) for keys in (("fx",), ("fy",), ("cx", "ppx", "u0"), ("cy", "ppy", "v0"))
        ]
        if any(p is None or len(p) != 1 for p in parts):
            for value in data.values():
                if (inner := _from_mapping(value)) is not None:
                    return inner
            return None
        fx, fy, cx, cy = (p[0] for p in parts if p is not None)
    size = [numbers("width", "imagewidth", "w"), numbers("height", "imageheight", "h")]
    width, height = (int(s[0]) if s else 0 for s in size)
    if not (fx > 0 and fy > 0):
        return None
    dist = (dist or []) + [0.0] * max(0, 5 - len(dist or []))
    if len(dist) not in (5, 8, 12, 14):
        dist = dist[:5]
    return LensModel(width, height, fx, fy, cx, cy, tuple(dist))


def _visp(path: Path, text: str) -> LensModel:
    """ViSP's camera XML (the model with distortion if it has one), or OpenCV's."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)

    def value(tag: str, block: str) -> float | None:
        m = re.search(rf"<{tag}>\s*([-+0-9.eE]+)\s*</{tag}>", block)
        return float(m[1]) if m else None

    if "<opencv_storage>" in text:
        arrays = {
            name: [float(x) for x in data.split()]
            for name, data in re.findall(
                r"<(\w+)[^>]*>(?:(?!</\1>).)*?<data>(.*?)</data>", text, re.S
            )
        }
        numbers = {k: value(k, text) for k in ("image_width", "image_height", "image_Width")}
        camera = _from_mapping({**arrays, **{k: v for k, v in numbers.items() if v is not None}})
        if camera is not None:
            return camera
    found = []
    for block in re.findall(r"<model>.*?</model>", text, re.S):
        px, py, u0, v0 = (value(t, block) for t in ("px", "py", "u0", "v0"))
        if px and py and u0 is not None and v0 is not None and "kannala" not in block.lower():
            width, height = (value(t, text) or 0 for t in ("image_width", "image_height"))
            # kud moves a ray by (1 + kud r^2), as k1 does
            dist = (value("kud", block) or 0.0, 0.0, 0.0, 0.0, 0.0)
            found.append(LensModel(int(width), int(height), px, py, u0, v0, dist))
    if not found:
        raise CalibrationError(
            f"{path} holds no intrinsics of ViSP (perspectiveProj...) or OpenCV (camera_matrix)"
        )
    return max(found, key=lambda c: abs(c.dist[0]))
