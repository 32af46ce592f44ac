"""Every target is found where it is drawn, whichever way round, and prints in true size."""

import re
import zlib

import cv2
import numpy as np
import pytest

from calib.collect.rig import make_rig
from calib.errors import CalibrationError
from calib.solve.model import project
from calib.solve.se3 import inverse
from calib.target.detect import detect, why_not
from calib.target.printing import page, print_target
from calib.target.targets import Target, parse

SPECS = [
    "charuco:7x5:30:22:DICT_5X5_100",
    "charuco:6x8:22:16:DICT_4X4_50",
    "aprilgrid:4x3:40:12",
    "chessboard:9x6:22",
    "circles:7x6:25",
    "acircles:4x11:15",
]


@pytest.mark.parametrize("spec", SPECS)
def test_points_are_found_in_a_rendered_view(spec):
    target = parse(spec)
    rig = make_rig(1, target)
    T = rig._pose @ rig.truth.T_mount_camera
    image = rig.picture(T)
    found = detect(target, image)
    assert found is not None and len(found.ids) > 0.7 * len(target.points())
    C = inverse(T) @ rig.truth.T_fixed_target
    p = target.points()[found.ids] @ C[:3, :3].T + C[:3, 3]
    error = found.pixels - project(rig.truth.camera, p)[0]
    if len(target.symmetries()) > 1 and np.abs(error).max() > 2:
        S = target.symmetries()[1]
        p = (target.points()[found.ids] @ S[:3, :3].T + S[:3, 3]) @ C[:3, :3].T + C[:3, 3]
        error = found.pixels - project(rig.truth.camera, p)[0]
    assert np.sqrt(np.mean(error**2)) < 0.12


def raster(spec: str):
    image, A = parse(spec).raster(2500, 0.02)
    return image, A


@pytest.mark.parametrize(
    "spec", ["charuco:7x5:30:22:DICT_5X5_100", "chessboard:9x6:22", "acircles:4x11:15"]
)
@pytest.mark.parametrize("quarter", range(4))
def test_turned_images_keep_the_numbering(spec, quarter):
    target = parse(spec)
    assert len(target.symmetries()) == 1
    image, A = raster(spec)
    found = detect(target, np.ascontiguousarray(np.rot90(image, quarter)))
    assert found is not None
    xy = target.points()[found.ids, :2]
    uv = np.c_[xy, np.ones(len(xy))] @ A[:2].T
    h, w = image.shape
    for _ in range(quarter):  # np.rot90 turns anticlockwise: (u, v) goes to (v, w - 1 - u)
        uv = np.stack([uv[:, 1], w - 1 - uv[:, 0]], axis=-1)
        h, w = w, h
    np.testing.assert_allclose(found.pixels, uv, atol=0.2)


def test_mirrored_and_misnamed_targets_are_explained():
    image, _ = raster("charuco:7x5:30:22:DICT_5X5_100")
    target = parse("charuco:7x5:30:22:DICT_5X5_100")
    flipped = cv2.flip(image, 1)
    assert detect(target, flipped) is None
    assert "mirrored" in why_not(target, [flipped])
    assert "exchanged" in why_not(target, [255 - image])
    assert "charuco:7x5" in why_not(parse("charuco:5x7:30:22:DICT_5X5_100"), [image])
    assert "DICT_5X5" in why_not(parse("charuco:7x5:30:22:DICT_4X4_50"), [image])
    chess, _ = raster("chessboard:9x6:22")
    assert "chessboard:9x6" in why_not(parse("chessboard:10x7:22"), [chess])


def test_nothing_is_found_in_noise():
    noise = np.random.default_rng(0).integers(0, 255, (240, 320), dtype=np.uint8)
    for spec in ("charuco:7x5:30", "aprilgrid:4x3:40", "circles:7x6:25"):
        assert detect(parse(spec), noise) is None


@pytest.mark.parametrize("spec", SPECS)
def test_spec_round_trips(spec):
    target = parse(spec)
    assert parse(target.spec) == target


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("chess:9x6:22", "not one of"),
        ("chessboard:9:22", "KIND:COLUMNSxROWS"),
        ("chessboard:9x6", "KIND:COLUMNSxROWS"),
        ("chessboard:9x6:0.025", "millimetres"),
        ("charuco:7x5:20:30", "do not fit"),
        ("charuco:7x5:30:22:DICT_NO", "no dictionary"),
        ("circles:1x6:20", "not possible"),
    ],
)
def test_wrong_specs_are_refused_with_the_remedy(spec, words):
    with pytest.raises(CalibrationError, match=words):
        parse(spec)


@pytest.mark.parametrize("spec", SPECS)
def test_printed_squares_have_true_size(spec, tmp_path):
    target = parse(spec)
    path = tmp_path / "target.pdf"
    print_target(target, path)
    data = path.read_bytes()
    _, width, height = page(target)
    box = [float(x) for x in re.search(rb"/MediaBox \[([^\]]*)\]", data)[1].split()]
    np.testing.assert_allclose(np.array(box[2:]) * 25.4 / 72, [width, height], atol=0.1)
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.S)
    text = b"".join(zlib.decompress(m) for m in streams if m[:1] == b"x")
    xy = np.array(
        [[float(a), float(b)] for a, b in re.findall(rb"([-\d.]+) ([-\d.]+) [ml]\b", text)]
    )
    x0, y0, x1, y1 = (v * 1e3 for v in target.extent())
    drawn = np.ptp(xy[xy[:, 1] > 20 / 25.4 * 72], axis=0) * 25.4 / 72
    # the page's own frame is among the paths of some targets; the target's extent must be too
    ptp = np.array([x1 - x0, y1 - y0])
    if np.all(drawn < [width - 1, height - 25]):
        np.testing.assert_allclose(drawn, ptp, atol=0.05)
    assert np.all(ptp < [width, height])


def test_too_large_a_target_is_refused():
    with pytest.raises(CalibrationError, match="A0"):
        page(Target("chessboard", 40, 40, 0.05))


@pytest.mark.parametrize("spec", ["circles:7x6:25", "acircles:4x11:15"])
def test_white_circles_on_black_are_read(spec):
    target = parse(spec)
    image, _ = raster(spec)
    found = detect(target, 255 - image)
    assert found is not None
    straight = detect(target, image)
    np.testing.assert_allclose(found.pixels, straight.pixels, atol=0.1)


def slanted(spec, tilt_deg, share, light, white):
    """A 640x480 picture of circles, as a camera of 580 px focal length sees them, and their centres."""
    target = parse(spec)
    flat, A = target.raster(6000, 0.03)
    p = target.points()
    R = (
        cv2.Rodrigues(np.radians([tilt_deg, 0.4 * tilt_deg, 0]))[0]
        @ cv2.Rodrigues(np.radians([0.0, 0, 20]))[0]
    )
    away = np.array([0, 0, 580 * np.ptp(p, axis=0).max() / (share * 640)])
    K = np.array([[580, 0, 319.5], [0, 580, 239.5], [0, 0, 1]])
    H = K @ np.c_[R[:, :2], away - R @ (p.max(axis=0) + p.min(axis=0)) / 2]
    fine = np.array([[3.0, 0, 1], [0, 3, 1], [0, 0, 1]]) @ H @ np.linalg.inv(A)
    image = cv2.warpPerspective(flat, fine, (1920, 1440), flags=cv2.INTER_AREA, borderValue=255)
    image = cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA).astype(np.float64)
    image = (255 - image if white else image) * light(np.linspace(0, 1, 640))
    image = cv2.GaussianBlur(image, (0, 0), 0.7) + np.random.default_rng(0).normal(0, 2, (480, 640))
    centres = cv2.perspectiveTransform(p[None, :, :2], H)[0]
    return target, np.clip(image, 0, 255).astype(np.uint8), centres


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("spec", ["circles:7x6:20", "acircles:4x11:15"])
@pytest.mark.parametrize(
    ("tilt_deg", "share", "light"),
    [
        (20, 0.17, lambda x: 1 + 0 * x),  # small
        (60, 0.4, lambda x: 1 + 0 * x),  # at a slant
        (30, 0.4, lambda x: 1 - 0.8 * x),  # light from one side
        (30, 0.4, lambda x: 0.2 + 0 * x),  # dark: OpenCV finds none of the black ones
    ],
)
def test_circles_are_found_where_opencv_finds_them_and_nearer_to_the_truth(
    spec, tilt_deg, share, light, white
):
    target, image, centres = slanted(spec, tilt_deg, share, light, white)

    def error_px(pixels):
        return np.sqrt(
            np.mean(np.min(np.linalg.norm(pixels[:, None] - centres, axis=2), axis=1) ** 2)
        )

    found = detect(target, image)
    assert found is not None and error_px(found.pixels) < 0.05
    kind = cv2.CALIB_CB_ASYMMETRIC_GRID if "a" in spec[:1] else cv2.CALIB_CB_SYMMETRIC_GRID
    black = 255 - image if white else image
    ok, theirs = cv2.findCirclesGrid(black, (target.columns, target.rows), flags=kind)
    if ok:
        assert error_px(found.pixels) < error_px(theirs[:, 0]) + 0.01


def test_tags_are_found_in_a_large_image():
    flat, _ = raster("aprilgrid:4x3:40:12")
    large = cv2.resize(flat, None, fx=6, fy=6, interpolation=cv2.INTER_LINEAR)
    assert max(large.shape) > 3000
    found = detect(parse("aprilgrid:4x3:40:12"), large)
    assert found is not None and len(found.ids) == 48


def test_a_large_chessboard_is_found_to_a_fraction_of_a_pixel():
    target = parse("chessboard:9x6:22")
    image, A = target.raster(12000, 0.02)
    assert max(image.shape) > 2500
    found = detect(target, image)
    xy = target.points()[found.ids, :2]
    np.testing.assert_allclose(found.pixels, np.c_[xy, np.ones(len(xy))] @ A[:2].T, atol=0.2)


def test_a_single_tag_is_found():
    found = detect(parse("aprilgrid:1x1:60:18"), raster("aprilgrid:1x1:60:18")[0])
    assert found is not None and len(found.ids) == 4
