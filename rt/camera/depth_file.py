"""Depth images in files: PNG, TIFF, NPY, NPZ and EXR, brought to float32 metres."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera.intrinsics import CameraError, Intrinsics
from rt.camera.units import UNITS_M, wrong_unit

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz", ".exr")
MAX_PIXELS = 40_000_000
"""A larger image is refused before it is read whole."""
MOST_UNEQUAL, UNEQUAL = 1.25, 1.03
"""Ratios of fx and fy: intrinsics beyond the first are refused, beyond the second they are doubted."""
_KEYS = ("depth", "depth_m", "depth_mm")


@dataclass(frozen=True)
class DepthFile:
    """One depth image of a file."""

    depth: NDArray[np.float32]
    """(H, W) metres, 0 = no return."""
    unit: str
    """Unit of the file's numbers: a name of UNITS_M."""
    intrinsics: Intrinsics | None
    """Of an NPZ that has them."""
    guessed: bool
    """True if nobody said the unit: whole numbers are taken for millimetres, others for metres."""


def read_depth_file(path: Path, unit: str = "auto") -> DepthFile:
    """A depth image in metres. unit: of the file's numbers, a name of UNITS_M, or `auto`.

    An NPZ holds `depth` (or `depth_m`, `depth_mm`) and, if it likes, `intrinsics` as fx, fy, cx, cy or
    a matrix K (3, 3). Raises CameraError for a file that is no depth image, and for depths in another unit.
    """
    if not path.is_file():
        raise CameraError(f"no file {path}")
    if path.suffix.lower() not in SUFFIXES:
        raise CameraError(f"{path} is none of {', '.join(SUFFIXES)}")
    if unit != "auto" and unit not in UNITS_M:
        raise CameraError(f"no unit {unit!r}; known are auto, {', '.join(UNITS_M)}")
    intrinsics = None
    try:
        if path.suffix.lower() == ".npz":
            pixels, K, said = _read_npz(path)
            unit = said if unit == "auto" and said else unit
        else:
            pixels, K = _read(path), None
    except CameraError:
        raise
    except Exception as error:  # PIL, NumPy and zipfile raise many kinds for a damaged file
        raise CameraError(
            f"{path} is no {path.suffix.lower()} file, or not a whole one "
            f"({str(error).split('. ')[0]}); copy or save it again"
        ) from error
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or not pixels.size:
        raise CameraError(
            f"{path} has shape {pixels.shape}, a depth image has one number a pixel (H, W); is it a "
            "coloured picture of depth? Save the depth itself"
        )
    whole = np.issubdtype(pixels.dtype, np.integer)
    if pixels.dtype == np.uint8 or not (whole or np.issubdtype(pixels.dtype, np.floating)):
        raise CameraError(
            f"{path} has {pixels.dtype} pixels, too coarse for depth; save 16 bits (uint16) or float32"
        )
    guessed = unit == "auto"
    unit = ("mm" if whole else "m") if guessed else unit
    depth = np.asarray(pixels, np.float32) * np.float32(UNITS_M[unit])
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    if not depth.any():
        raise CameraError(f"{path} has no return at all: every depth is 0")
    if doubt := wrong_unit(depth):
        raise CameraError(f"{path}, read as {unit}: {doubt}")
    if K is not None:
        intrinsics = intrinsics_of(K, depth.shape)
    return DepthFile(depth, unit, intrinsics, guessed)


def intrinsics_of(numbers: Any, shape: tuple[int, ...]) -> Intrinsics:
    """Intrinsics of an image (H, W): of fx, fy, cx, cy, or a matrix K (3, 3). Raises CameraError."""
    K = np.asarray(numbers, np.float64)
    if K.shape == (3, 3):
        K = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
    if K.shape != (4,) or not np.isfinite(K).all():
        raise CameraError(f"intrinsics {numbers!r} must be fx,fy,cx,cy [px], or a matrix K (3, 3)")
    height, width = shape
    fx, fy, cx, cy = (float(v) for v in K)
    if not (0.2 * width < fx < 10 * width and 0.2 * width < fy < 10 * width):
        raise CameraError(
            f"fx = {fx:g}, fy = {fy:g} px do not fit an image {width} px wide; they are in pixels of this "
            "very image (not of another mode)"
        )
    if not (0 <= cx < width and 0 <= cy < height):
        raise CameraError(
            f"cx = {cx:g}, cy = {cy:g} px lie outside the image ({width}x{height}); the order is fx,fy,cx,cy"
        )
    if not 1 / MOST_UNEQUAL < fx / fy < MOST_UNEQUAL:
        raise CameraError(
            f"fx = {fx:g}, fy = {fy:g} px differ more than by a factor of {MOST_UNEQUAL:g}, and pixels are "
            "square; the order is fx,fy,cx,cy"
        )
    return Intrinsics(width, height, fx, fy, cx, cy)


def _read(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        _require_size(path, mapped.size)
        return np.array(mapped)
    if suffix == ".exr":
        return _read_exr(path)
    from PIL import Image

    with Image.open(path) as image:
        _require_size(path, image.width * image.height)
        if image.mode == "P":
            raise CameraError(f"{path} is a picture with a palette, and no depth image")
        return np.array(image)


def _read_exr(path: Path) -> NDArray[Any]:
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV looks when it first reads one
    try:
        import cv2
    except ImportError as error:
        raise CameraError(
            f"{path}: EXR needs OpenCV: pip install 'grasp-servo[calib]', or save the depth as .npy"
        ) from error
    try:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise CameraError(f"{path} cannot be read: {error}") from error
    if image is None:
        raise CameraError(f"{path} cannot be read as EXR; save the depth as .npy or 32-bit .tiff")
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]  # some write depth into three equal channels
    return pixels


def _read_npz(path: Path) -> tuple[NDArray[Any], Any, str]:
    """The depth, its intrinsics or None, and the unit that its name says or nothing."""
    with np.load(path, allow_pickle=False) as content:
        names = [k for k in _KEYS if k in content] or (
            content.files if len(content.files) == 1 else []
        )
        if not names:
            raise CameraError(
                f"{path} has {', '.join(content.files) or 'nothing'}; call the depth `depth`"
            )
        name = names[0]
        pixels = content[name]
        _require_size(path, pixels.size)
        K = next((content[k] for k in ("intrinsics", "K") if k in content), None)
    return pixels, K, {"depth_m": "m", "depth_mm": "mm"}.get(name, "")


def _require_size(path: Path, pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise CameraError(f"{path} has {pixels} pixels, the limit is {MAX_PIXELS}: no depth image")
