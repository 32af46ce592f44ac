"""Finding a target in an image, to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibrationError
from calib.target.targets import Target
from rt.pose import Array

LEAST_POINTS = 6
"""Fewer points of a target than this do not make a view."""


@dataclass(frozen=True)
class Detection:
    """Points of the target in one image."""

    ids: NDArray[np.intp]
    """(m,) rows of Target.points()."""
    pixels: Array
    """(m, 2); the centre of the first pixel is (0, 0)."""


def gray(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Any image (colour, 16 bit, float) as 8-bit grey; 16-bit infrared is stretched to its range."""
    if image.ndim == 3:
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    if image.dtype != np.uint8:
        lo, hi = np.percentile(image, [0.5, 99.5])
        image = np.clip((image.astype(np.float64) - lo) / max(hi - lo, 1e-9), 0, 1) * 255
    return np.ascontiguousarray(image, dtype=np.uint8)


def detect(target: Target, image: NDArray[np.uint8]) -> Detection | None:
    """The target's points in a grey image, or None if too few are seen."""
    find = {
        "charuco": _charuco,
        "aprilgrid": _aprilgrid,
        "chessboard": _chessboard,
        "circles": _circles,
        "acircles": _circles,
    }[target.kind]
    found = find(target, image)
    if found is None or len(found.ids) < LEAST_POINTS or _collinear(target, found):
        return None
    return found


def why_not(target: Target, images: list[NDArray[np.uint8]]) -> str:
    """A remedy for images in which the target is never found: mirrored, other size, inverted."""
    for image in images[:4]:
        if detect(target, cv2.flip(image, 1)):
            return (
                "it is found when the images are mirrored: switch off the camera's mirror mode, "
                "or print the board again unmirrored"
            )
        if detect(target, 255 - image):
            return "it is found when black and white are exchanged: print it black on white"
        for other in _misread(target):
            if detect(other, image):
                return f"a {other.spec} is found instead: give that as the target"
        if target.tagged:
            for name in ("DICT_4X4_1000", "DICT_5X5_1000", "DICT_6X6_1000", "DICT_7X7_1000",
                         "DICT_ARUCO_ORIGINAL", "DICT_APRILTAG_36h11"):  # fmt: skip
                dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
                ids = cv2.aruco.ArucoDetector(dictionary).detectMarkers(image)[1]
                if ids is not None and len(ids) >= 4:
                    return (
                        f"{len(ids)} markers of {name} with ids {ids.min()} to {ids.max()} are seen: "
                        f"check dictionary ({target.dictionary}), rows and columns"
                    )
    return "check its kind, rows, columns, focus and light"


def _misread(target: Target) -> list[Target]:
    """Targets that are easily taken for it: squares for corners, rows for columns."""
    c, r = target.columns, target.rows
    if target.kind == "charuco":
        sizes = [(r, c)]
    elif target.kind == "chessboard":
        sizes = [(c - 1, r - 1), (r - 1, c - 1), (c + 1, r + 1)]
    else:
        sizes = [(r, c)]
    return [
        replace(target, columns=a, rows=b) for a, b in sizes if a > 2 and b > 2 and (a, b) != (c, r)
    ]


def _collinear(target: Target, found: Detection) -> bool:
    xy = target.points()[found.ids, :2]
    spread = np.linalg.svd(xy - xy.mean(axis=0), compute_uv=False)
    return bool(spread[1] < 0.3 * target.size_m)


@lru_cache(maxsize=8)
def _charuco_detectors(target: Target) -> list[cv2.aruco.CharucoDetector]:
    detectors = []
    for legacy in (False, True):  # boards printed by OpenCV before 4.6 begin with a white square
        board = cv2.aruco.CharucoBoard(
            (target.columns, target.rows), target.size_m, target.second_m, target.aruco()
        )
        board.setLegacyPattern(legacy)
        detectors.append(cv2.aruco.CharucoDetector(board))
        if target.rows % 2:
            break  # then both patterns are the same
    return detectors


def _charuco(target: Target, image: NDArray[np.uint8]) -> Detection | None:
    for detector in _charuco_detectors(target):
        pixels, ids, *_ = detector.detectBoard(image)
        if ids is not None and len(ids) >= LEAST_POINTS:
            return Detection(ids.ravel().astype(np.intp), pixels.reshape(-1, 2).astype(np.float64))
    return None


@lru_cache(maxsize=8)
def _tag_detectors(target: Target) -> list[cv2.aruco.ArucoDetector]:
    detectors = []
    for border in (1, 2):  # Kalibr prints its tags with a double border
        parameters = cv2.aruco.DetectorParameters()
        parameters.markerBorderBits = border
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        parameters.cornerRefinementWinSize = 4
        detectors.append(cv2.aruco.ArucoDetector(target.aruco(), parameters))
    return detectors


def _aprilgrid(target: Target, image: NDArray[np.uint8]) -> Detection | None:
    seen: dict[int, Array] = {}
    for detector in _tag_detectors(target):
        # a Kalibr board's corner squares touch its tags: growing the white sets them apart
        for zoom, grow in ((1, 0), (1, 3), (2, 3), (2, 5)):
            if zoom * max(image.shape) > 3000:
                continue
            grown = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
            grown = cv2.dilate(grown, np.ones((grow, grow), np.uint8)) if grow else grown
            corners, ids, _ = detector.detectMarkers(grown)
            for i, quad in zip(() if ids is None else ids.ravel(), corners, strict=False):
                if i < target.columns * target.rows:
                    seen[int(i)] = (quad[0].astype(np.float64) + 0.5) / zoom - 0.5
            if len(seen) == target.columns * target.rows:
                break
        if len(seen) >= 2:
            break
    if len(seen) < 2:
        return None
    found = _tag_corners(target, np.array(list(seen), dtype=np.intp), np.array(list(seen.values())))
    return None if found is None else _refined_tags(target, image, found)


def _refined_tags(target: Target, image: NDArray[np.uint8], found: Detection) -> Detection:
    """Corners of tags as saddle points between tag and corner square, where they are large enough."""
    H, _ = cv2.findHomography(target.points()[found.ids, :2], found.pixels)
    if H is None:
        return found
    side_px = np.sqrt(abs(np.linalg.det(H[:2, :2])) / H[2, 2] ** 2) * target.size_m
    cell_px = side_px / (target.aruco().markerSize + 2)
    window = int(min(cell_px * 0.9, side_px * target.second_m / target.size_m * 0.8, 7))
    if window < 2:
        return found
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
    start = found.pixels.astype(np.float32)[:, None]
    refined = cv2.cornerSubPix(image, start.copy(), (window, window), (-1, -1), criteria)
    moved = np.linalg.norm(refined - start, axis=-1)
    pixels = np.where(moved < 4.0, refined[:, 0], start[:, 0]).astype(np.float64)
    return Detection(found.ids, pixels)


def _tag_corners(target: Target, tags: NDArray[np.intp], pixels: Array) -> Detection | None:
    """Number the corners of tags (k, 4, 2): makers differ in the first corner and the first row."""
    best: tuple[float, Detection] | None = None
    points = target.points()[:, :2]
    row, column = np.divmod(tags, target.columns)
    for from_top in (False, True):
        place = (target.rows - 1 - row) * target.columns + column if from_top else tags
        ids = (4 * place[:, None] + np.arange(4)).ravel()
        for turn in range(4):
            seen = np.roll(pixels, turn, axis=1).reshape(-1, 2)
            H, inliers = cv2.findHomography(points[ids], seen, cv2.RANSAC, 4.0)
            if H is None or inliers is None:
                continue
            ok = inliers.ravel() > 0
            score = float(np.mean(ok))
            if best is None or score > best[0]:
                best = score, Detection(ids[ok], seen[ok])
    return best[1] if best is not None and best[0] > 0.5 else None


def _chessboard(target: Target, image: NDArray[np.uint8]) -> Detection | None:
    size = (target.columns, target.rows)
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY
    found, pixels = cv2.findChessboardCornersSB(image, size, flags=flags)
    if not found:
        found, pixels = cv2.findChessboardCornersSB(
            image, size, flags=flags | cv2.CALIB_CB_EXHAUSTIVE
        )
    if not found:
        found, pixels = cv2.findChessboardCorners(
            image, size, flags=cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_FAST_CHECK
        )
        if not found:
            return None
        p = pixels.reshape(target.rows, target.columns, 2)
        step = min(
            np.linalg.norm(np.diff(p, axis=0), axis=-1).min(),
            np.linalg.norm(np.diff(p, axis=1), axis=-1).min(),
        )
        window = int(np.clip(step / 3, 2, 11))
        criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
        pixels = cv2.cornerSubPix(image, pixels, (window, window), (-1, -1), criteria)
    grid = _right_handed(pixels.reshape(target.rows, target.columns, 2).astype(np.float64))
    if not _first_square_dark(grid, image):
        if (target.columns + target.rows) % 2:
            grid = grid[::-1, ::-1]
        elif target.columns == target.rows:
            grid = np.swapaxes(grid, 0, 1)[::-1]
    return Detection(np.arange(grid.shape[0] * grid.shape[1]), grid.reshape(-1, 2))


def _right_handed(grid: Array) -> Array:
    """Order (rows, columns, 2) such that columns run right of rows, as on a board seen from its front."""
    across = grid[:, -1].mean(axis=0) - grid[:, 0].mean(axis=0)
    down = grid[-1].mean(axis=0) - grid[0].mean(axis=0)
    return grid if across[0] * down[1] - across[1] * down[0] > 0 else grid[:, ::-1]


def _first_square_dark(grid: Array, image: NDArray[np.uint8]) -> bool:
    """True if the square between the first corners is black; all squares of the grid are compared."""
    centres = (grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:] + grid[1:, 1:]) / 4
    at = centres.reshape(1, -1, 2).astype(np.float32)
    brightness = cv2.remap(image, at, None, cv2.INTER_LINEAR).ravel().astype(np.float64)
    rows, columns = centres.shape[:2]
    even = (np.add.outer(np.arange(rows), np.arange(columns)) % 2 == 0).ravel()
    if even.all():
        return True
    return bool(brightness[even].mean() < brightness[~even].mean())


@lru_cache(maxsize=4)
def _blobs(smallest_px: float, largest_px: float) -> cv2.SimpleBlobDetector:
    p = cv2.SimpleBlobDetector_Params()
    p.minArea, p.maxArea = smallest_px, largest_px
    p.minDistBetweenBlobs = 4
    p.filterByConvexity, p.minConvexity = True, 0.8
    p.filterByInertia, p.minInertiaRatio = True, 0.1
    p.thresholdStep, p.minRepeatability = 8, 3
    return cv2.SimpleBlobDetector_create(p)


def _circles(target: Target, image: NDArray[np.uint8]) -> Detection | None:
    size = (target.columns, target.rows)
    largest = image.size / (target.columns * target.rows)
    blobs = _blobs(12.0, round(largest, -2) + 100.0)
    layout = (
        cv2.CALIB_CB_SYMMETRIC_GRID if target.kind == "circles" else cv2.CALIB_CB_ASYMMETRIC_GRID
    )
    pixels = None
    for flags in (layout, layout | cv2.CALIB_CB_CLUSTERING):
        found, pixels = cv2.findCirclesGrid(image, size, flags=flags, blobDetector=blobs)
        if found:
            break
    else:
        return None
    assert pixels is not None
    grid = pixels.reshape(target.rows, target.columns, 2).astype(np.float64)
    if target.kind == "circles":
        grid = _right_handed(grid)
    return Detection(
        np.arange(target.columns * target.rows), _refined_circles(image, grid.reshape(-1, 2))
    )


def _refined_circles(image: NDArray[np.uint8], centres: Array) -> Array:
    """Centres of gravity of the darkness around blob centres: steadier than the blob detector's."""
    if len(centres) < 2:
        return centres
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    result = centres.copy()
    for k, (u, v) in enumerate(centres):
        half = int(max(2, min(apart[k].min() * 0.5, 60)))
        x0, y0 = round(u) - half, round(v) - half
        if x0 < 0 or y0 < 0 or x0 + 2 * half >= image.shape[1] or y0 + 2 * half >= image.shape[0]:
            continue
        patch = image[y0 : y0 + 2 * half + 1, x0 : x0 + 2 * half + 1].astype(np.float64)
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        x, y = x - (u - round(u)), y - (v - round(v))
        inside = x**2 + y**2 <= half**2
        ink = np.percentile(patch[inside], 85) - patch
        ink = np.where(inside & (ink > 0.15 * ink[inside].max()), ink, 0)
        if ink.sum() > 0:
            shift = np.array([(ink * x).sum(), (ink * y).sum()]) / ink.sum()
            if np.linalg.norm(shift) < 1.5:
                result[k] = centres[k] + shift
    return result


def read_image(path: str) -> NDArray[np.uint8]:
    """An image file as 8-bit grey; raises CalibrationError if it cannot be read."""
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise CalibrationError(f"{path} is not an image that can be read")
    return gray(image)
