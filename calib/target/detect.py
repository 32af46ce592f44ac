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

MOST_PX = 1600
"""Chessboards and circles are searched in images no larger than this, and refined in the whole image."""


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
    least = min(LEAST_POINTS, len(target.points()))
    if found is None or len(found.ids) < least or _collinear(target, found):
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
    best: Detection | None = None
    for detector in _tag_detectors(target):
        union: dict[int, Array] = {}
        # a Kalibr board's corner squares touch its tags: growing the white sets them apart
        for zoom, grow in ((1.0, 0), (1.0, 3), (_reduced(image)[1], 3), (2.0, 3), (2.0, 5)):
            if zoom > 1 and zoom * max(image.shape) > 3000:
                continue
            seen = _tags(target, detector, image, zoom, grow)
            union |= seen
            for tags in (seen, union):
                found = _tag_corners(target, tags)
                if found is not None and (best is None or len(found.ids) > len(best.ids)):
                    best = found
            if best is not None and len(best.ids) == len(target.points()):
                return _refined_tags(target, image, best)
        if best is not None:
            break
    return None if best is None else _refined_tags(target, image, best)


def _tags(
    target: Target,
    detector: cv2.aruco.ArucoDetector,
    image: NDArray[np.uint8],
    zoom: float,
    grow: int,
) -> dict[int, Array]:
    """Corners (4, 2) of the target's tags in the image scaled by `zoom`, its white grown by `grow` pixels."""
    grown = cv2.resize(
        image,
        None,
        fx=zoom,
        fy=zoom,
        interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR,
    )
    grown = cv2.dilate(grown, np.ones((grow, grow), np.uint8)) if grow else grown
    corners, ids, _ = detector.detectMarkers(grown)
    pairs = zip(() if ids is None else ids.ravel(), corners, strict=False)
    return {
        int(i): (quad[0].astype(np.float64) + 0.5) / zoom - 0.5
        for i, quad in pairs
        if i < target.columns * target.rows
    }


def _refined_tags(target: Target, image: NDArray[np.uint8], found: Detection) -> Detection:
    """Corners of tags as saddle points between tag and corner square, where they are large enough."""
    H, _ = cv2.findHomography(target.points()[found.ids, :2], found.pixels)
    if H is None:
        return found
    side_px = np.sqrt(abs(np.linalg.det(H[:2, :2])) / H[2, 2] ** 2) * target.size_m
    cell_px = side_px / (target.aruco().markerSize + 2)
    most = max(7.0, _NEAR * side_px)
    window = int(min(cell_px * 0.9, side_px * target.second_m / target.size_m * 0.8, most))
    if window < 2:
        return found
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
    start = found.pixels.astype(np.float32)[:, None]
    refined = cv2.cornerSubPix(image, start.copy(), (window, window), (-1, -1), criteria)
    moved = np.linalg.norm(refined - start, axis=-1)
    pixels = np.where(moved < max(4.0, _NEAR * side_px), refined[:, 0], start[:, 0]).astype(
        np.float64
    )
    return Detection(found.ids, pixels)


_NEAR = 0.05
"""Part of a tag's side by which its corners may be off before they are refined."""


def _tag_corners(target: Target, seen: dict[int, Array]) -> Detection | None:
    """Number the corners (4, 2) of tags: makers differ in the first corner and the first row."""
    if len(seen) < min(2, target.columns * target.rows):
        return None
    tags, pixels = np.array(list(seen), dtype=np.intp), np.array(list(seen.values()))
    best: tuple[float, Detection] | None = None
    points = target.points()[:, :2]
    row, column = np.divmod(tags, target.columns)
    side_px = float(np.median(np.linalg.norm(pixels - np.roll(pixels, 1, axis=1), axis=2)))
    near_px = max(4.0, _NEAR * side_px)
    for from_top in (False, True):
        place = (target.rows - 1 - row) * target.columns + column if from_top else tags
        ids = (4 * place[:, None] + np.arange(4)).ravel()
        for turn in range(4):
            turned = np.roll(pixels, turn, axis=1).reshape(-1, 2)
            H, inliers = cv2.findHomography(points[ids], turned, cv2.RANSAC, near_px)
            if H is None or inliers is None:
                continue
            ok = inliers.ravel() > 0
            score = float(np.mean(ok))
            if best is None or score > best[0]:
                best = score, Detection(ids[ok], turned[ok])
    return best[1] if best is not None and best[0] > 0.5 else None


def _chessboard(target: Target, image: NDArray[np.uint8]) -> Detection | None:
    corners = _chessboard_corners(image, (target.columns, target.rows))
    if corners is None:
        return None
    pixels, precise = corners
    if not precise:
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


def _chessboard_corners(
    image: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.float32], bool] | None:
    """Corners in a row (m, 1, 2), and whether they are as precise as the image allows."""
    small, zoom = _reduced(image)
    best = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY
    # the last is OpenCV's default, on the whole image: a small board is lost in a reduced one
    for picture, scale, flags in (
        (small, zoom, best),
        (small, zoom, best | cv2.CALIB_CB_EXHAUSTIVE),
        (image, 1.0, 0),
    ):
        found, pixels = cv2.findChessboardCornersSB(picture, size, flags=flags)
        if found:
            return ((pixels + 0.5) / scale - 0.5).astype(np.float32), scale == 1
    # without the fast check this takes minutes where there is no board
    quick = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_FAST_CHECK
    found, pixels = cv2.findChessboardCorners(small, size, flags=quick)
    return (((pixels + 0.5) / zoom - 0.5).astype(np.float32), False) if found else None


def _reduced(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """(the image with at most MOST_PX in a row or column, its scale): searches take minutes on large ones."""
    zoom = min(1.0, MOST_PX / max(image.shape))
    if zoom == 1:
        return image, zoom
    small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8), zoom


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


MOST_SPECKS, MOST_BLOBS = 3000, 500
"""Pictures of more specks are blurred first, and more blobs than this are no target: the searches' time grows
with their square and their cube."""


def _circles(target: Target, image: NDArray[np.uint8]) -> Detection | None:
    """Black circles on white, or white ones on black; with our blob settings and with OpenCV's."""
    small, zoom = _reduced(image)
    lo, hi, *_ = cv2.minMaxLoc(cv2.blur(small, (3, 3)))  # of all but single hot pixels
    even = np.clip((small - lo) * (255 / max(hi - lo, 16)), 0, 255).astype(np.uint8)
    ours = _blobs(12.0, round(small.size / (target.columns * target.rows), -2) + 100.0)
    opencv = cv2.SimpleBlobDetector_create()
    best: tuple[float, Array] | None = None
    for dark in (True, False):
        for picture, blobs in ((even, ours), (even, opencv), (small, opencv)):
            grid = _circle_grid(target, picture if dark else 255 - picture, blobs)
            if grid is None:
                continue
            centres = (grid.reshape(-1, 2) + 0.5) / zoom - 0.5
            pixels, off_px = _circle_centres(target, image if dark else 255 - image, centres)
            # the gaps between small circles make a grid too, a worse one
            if best is None or off_px < best[0]:
                best = off_px, pixels
            break
    return None if best is None else Detection(np.arange(len(best[1])), best[1])


def _circle_grid(
    target: Target, picture: NDArray[np.uint8], blobs: cv2.SimpleBlobDetector
) -> Array | None:
    """Centres (rows, columns, 2) of a grid of dark circles."""
    dark = (picture < picture.mean()).astype(np.uint8)
    if cv2.connectedComponents(dark)[0] > MOST_SPECKS:
        picture = cv2.GaussianBlur(picture, (0, 0), 1.5)
    found = cv2.KeyPoint.convert(blobs.detect(picture))
    if not target.columns * target.rows <= len(found) <= MOST_BLOBS:
        return None
    asymmetric = target.kind == "acircles"
    layout = cv2.CALIB_CB_ASYMMETRIC_GRID if asymmetric else cv2.CALIB_CB_SYMMETRIC_GRID
    for flags in (layout, layout | cv2.CALIB_CB_CLUSTERING):
        ok, pixels = cv2.findCirclesGrid(
            np.array(found)[:, None],
            (target.columns, target.rows),
            flags,
            None,
            cv2.CirclesGridFinderParameters(),
        )
        if ok:
            grid = pixels.reshape(target.rows, target.columns, 2).astype(np.float64)
            return grid if asymmetric else _right_handed(grid)
    return None


def _circle_centres(
    target: Target, image: NDArray[np.uint8], centres: Array
) -> tuple[Array, float]:
    """Images (m, 2) of the centres of dark circles, from blob centres (m, 2), and their misfit [px].

    The centre of gravity of each circle's darkness, less its distance from the image of the circle's centre:
    a circle seen at a slant is an ellipse about another point (half a pixel, in large pictures).
    """
    points = target.points()[:, :2]
    reach = 0.5 * target.size_m * (np.sqrt(2) if target.kind == "acircles" else 1.0)
    H, _ = cv2.findHomography(points, centres)
    if H is None:
        return centres, np.inf
    refined, radii = centres.copy(), []
    for k, (J, (u, v)) in enumerate(zip(_local(H, points), centres, strict=True)):
        half = np.ceil(np.linalg.norm(J, axis=1) * reach).astype(int) + 1
        x0, y0 = np.round([u, v]).astype(int) - half
        x1, y1 = np.round([u, v]).astype(int) + half + 1
        if min(x0, y0) < 0 or x1 > image.shape[1] or y1 > image.shape[0]:
            continue
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float64)
        way = np.stack([x - u, y - v], axis=-1)
        inside = np.linalg.norm(way @ np.linalg.inv(J).T, axis=-1) <= reach
        shade = image[y0:y1, x0:x1][inside].astype(np.float64)
        light, dark = np.percentile(shade, [85, 2])
        # only the rim is weighed by its shade: light is uneven within a circle too
        ink = np.clip((light - shade) / max(light - dark, 1e-9) * 2 - 0.5, 0, 1)
        shift = ink @ way[inside] / max(ink.sum(), 1e-9)
        if light - dark > 4 and np.linalg.norm(np.linalg.solve(J, shift)) < 0.25 * reach:
            refined[k] += shift
            radii.append(np.sqrt(ink.sum() / np.pi / abs(np.linalg.det(J))))
    H, _ = cv2.findHomography(points, refined)
    if H is None or not radii:
        return centres, np.inf
    refined -= _eccentricity(H, points, float(np.median(radii)))
    off = refined - cv2.perspectiveTransform(points[None], H)[0]
    return refined, float(np.sqrt(np.mean(np.sum(off**2, axis=1))))


def _local(H: Array, points: Array) -> Array:
    """(m, 2, 2) derivatives of a homography at points (m, 2)."""
    h = np.c_[points, np.ones(len(points))] @ H.T
    uv, w = h[:, :2] / h[:, 2:], h[:, 2, None, None]
    return np.asarray((H[None, :2, :2] - uv[:, :, None] * H[None, 2:, :2]) / w)


def _eccentricity(H: Array, points: Array, radius: float) -> Array:
    """(m, 2) from the image of each circle's centre to the centre of the circle's image, an ellipse.

    The ellipse's centre is the pole of the line at infinity: C z with C = H Q H^T, Q the dual conic.
    """
    c = np.c_[points, np.ones(len(points))]
    Q = c[:, :, None] * c[:, None] - radius**2 * np.diag([1.0, 1.0, 0.0])
    ellipse = (H @ Q @ H.T)[:, :, 2]
    centre = c @ H.T
    return np.asarray(ellipse[:, :2] / ellipse[:, 2:] - centre[:, :2] / centre[:, 2:])


def read_image(path: str) -> NDArray[np.uint8]:
    """An image file as 8-bit grey; raises CalibrationError if it cannot be read."""
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise CalibrationError(f"{path} is not an image that can be read")
    return gray(image)
