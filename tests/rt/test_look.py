"""rt.look and rt.look_at: an image of one's own, from the file to the jaws; units are refused by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from needs import needed
from PIL import Image

from rt import look
from rt.camera import CameraError, Intrinsics
from rt.camera.depth_file import intrinsics_of, read_depth_file
from rt.camera.replay import open_replay
from rt.camera.units import other_unit, wrong_mount, wrong_unit
from rt.distance import DistanceError, open_model
from rt.grasp.single_view import look_at
from rt.mount import main as mount_main
from rt.view import VIEW, Reprojector, ViewError

K = Intrinsics(320, 240, 190.0, 190.0, 159.5, 119.5)
NUMBERS = "190,190,159.5,119.5"


def picture(height_m: float = 0.35, tilt_deg: float = 0.0, seed: int = 0) -> np.ndarray:
    """(240, 320) float32 m: a table and one bar on it, 3 cm wide, 14 cm long along the rows, 4 cm high."""
    a = np.radians(tilt_deg)
    R = np.array([[1, 0, 0], [0, -np.cos(a), -np.sin(a)], [0, np.sin(a), -np.cos(a)]])
    rays = K.rays().astype(np.float64) @ R.T  # base: x right, y away, z up
    origin = np.array([0, height_m * np.tan(a), height_m])
    low, high = np.array([-0.07, -0.015, 0]), np.array([0.07, 0.015, 0.04])
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(rays[..., 2] < 0, -origin[2] / rays[..., 2], 0)
        first, second = (low - origin) / rays, (high - origin) / rays
        enter, leave = np.fmin(first, second).max(-1), np.fmax(first, second).min(-1)
        depth = np.where((enter < leave) & (enter > 0), np.fmin(depth, enter), depth)
    noise = np.random.default_rng(seed).normal(0, 0.0005, depth.shape)
    return (depth + noise * (depth > 0)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return open_model()


@pytest.mark.parametrize("tilt_deg", [0.0, 20.0])
def test_the_jaws_close_across_the_bar(network, tilt_deg: float) -> None:
    """The table is found, the jaws lie over the bar at true width, and their line crosses it."""
    seen = look_at(picture(0.35, tilt_deg), K, distance=network)
    assert seen.camera_height_m == pytest.approx(0.35, abs=0.003)
    assert seen.tilt_deg == pytest.approx(tilt_deg, abs=0.3)
    assert abs(seen.action[1]) < 0.012 and abs(seen.action[0]) < 0.07
    assert abs(np.sin(seen.action[2])) > 0.9  # closing across the rows
    assert seen.distance_m < 0.01 and seen.probability is not None and seen.probability > 0.5
    assert seen.view.shape == (64, 64) and seen.filled > 0.9
    assert seen.map_m.shape == (33, 33)
    row, _ = np.unravel_index(seen.map_m.argmin(), seen.map_m.shape)
    assert abs(row - 16) <= 2  # the map's rows are y
    line, *fingers = seen.jaws_px()
    if tilt_deg == 0:
        width_px = np.linalg.norm(line[1] - line[0])
        depth = 0.35 - 0.04
        assert width_px == pytest.approx(network.contract.hand.opening_m * 190 / depth, rel=0.03)
        assert line.mean(axis=0) == pytest.approx(
            [159.5 + seen.action[0] * 190 / depth, 119.5 + seen.action[1] * 190 / depth], abs=2
        )
    assert [f.shape for f in fingers] == [(4, 2)] * 2
    T = seen.T_camera_hand
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)


def test_a_told_height_a_mount_and_a_pixel_say_where_the_hand_is(network) -> None:
    depth = picture(0.45)
    told = look_at(depth, K, height_m=0.45, distance=network)
    np.testing.assert_allclose(told.T_camera_view[:3, 3], (0, 0, 0.15), atol=1e-6)
    mount = np.eye(4)
    mount[2, 3] = -0.12  # the camera 12 cm behind the fingertips
    mounted = look_at(depth, K, T_view_camera=mount, distance=network)
    np.testing.assert_allclose(mounted.T_camera_view[:3, 3], (0, 0, 0.12), atol=1e-12)
    assert mounted.camera_height_m is None
    assert not any("height:" in line for line in told.warnings)
    doubted = look_at(depth, K, height_m=0.35, distance=network).warnings
    assert any("seen 0.45 m below the camera, and 0.35 m were told" in line for line in doubted)
    with pytest.raises(ViewError, match="lies outside the image, 320x240"):
        look_at(depth, K, at_px=(320, 10), distance=network)
    aside = look_at(depth, K, at_px=(159.5 + 46, 119.5), distance=network)
    assert aside.T_camera_view[0, 3] == pytest.approx(46 / 190 * 0.45, abs=0.003)
    assert aside.action[0] < told.action[0] + 0.1


def test_faults_of_the_image_are_said(network) -> None:
    def words(depth: np.ndarray) -> str:
        return " | ".join(look_at(depth, K, distance=network).warnings)

    assert words(picture(0.35)) == ""
    assert "tilted by 12 deg" in words(picture(0.35, 12.0))
    assert "too high: 0.80 m" in words(picture(0.80))
    assert "too near: 0.12 m" in words(picture(0.12))
    holed = picture(0.35)
    holed[:, :170] = 0
    assert "holes:" in words(holed)
    rng = np.random.default_rng(0)
    heap = rng.uniform(0.2, 0.5, (240, 320)).astype(np.float32)
    assert "no table was found" in words(heap)


def test_other_units_are_refused_with_their_name(network) -> None:
    metres = picture(0.35)
    for factor, name in (
        (100, "centimetres"),
        (1000, "millimetres"),
        (10000, "tenths of a millimetre"),
        (1e6, "micromet"),
    ):
        wrong = metres * np.float32(factor)
        assert name in other_unit(wrong) and name in wrong_unit(wrong)
        with pytest.raises(ViewError, match=name):
            look_at(wrong, K, distance=network)
        with pytest.raises(ViewError, match=f"nothing is in the view: .*{name}"):
            Reprojector(K, np.eye(4))(wrong)
    assert "divided by 1000" in other_unit(metres / 1000)
    assert other_unit(metres) == wrong_unit(metres) == wrong_unit(metres * 0) == ""
    assert other_unit(metres * 1e9) == "" and "no unit fits" in wrong_unit(metres * 1e9)
    with pytest.raises(ViewError, match=r"0\.1mm.*it would be 0.35 m"):
        look_at(metres * 10, K, distance=network)
    # an image without any return stays an empty view, which the guard holds
    assert not Reprojector(K, np.eye(4))(metres * 0).any()


def test_a_mount_in_millimetres_is_refused_where_it_enters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    T = np.eye(4)
    T[:3, 3] = (0, -70.5, -100.0)
    assert "millimetres" in wrong_mount(T) and not wrong_mount(np.eye(4))
    with pytest.raises(ViewError, match="millimetres: divide it by 1000"):
        Reprojector(K, T)
    (tmp_path / "a.db3").write_bytes(b"")
    with pytest.raises(CameraError, match="millimetres"):
        open_replay(tmp_path / "a.db3", T)
    assert mount_main(["--mount", "0,-70.5,-100,-12.4", "--out", str(tmp_path)]) == 2
    assert "millimetres" in capsys.readouterr().err


def test_an_empty_view_is_no_question_for_a_network(network) -> None:
    with pytest.raises(DistanceError, match="depth is empty"):
        network(np.zeros((64, 64), np.float32), np.zeros((1, 3), np.float32))
    with pytest.raises(ViewError, match="no return at all"):
        look_at(np.zeros((240, 320), np.float32), K, distance=network)
    with pytest.raises(ViewError, match="nothing of the image is in the view"):
        far = np.eye(4)
        far[2, 3] = -1.9
        look_at(picture(0.35), K, T_view_camera=far @ np.diag([1.0, -1, -1, 1]), distance=network)
    with pytest.raises(ViewError, match="the intrinsics are of"):
        look_at(picture(0.35)[:100], K, distance=network)
    with pytest.raises(ViewError, match=r"0\.02 to 5 m"):
        look_at(picture(0.35), K, height_m=350.0, distance=network)


def files(folder: Path) -> dict[str, Path]:
    """One picture in every format."""
    depth = picture(0.35)
    made = {name: folder / f"depth.{name}" for name in ("png", "tiff", "npy", "npz")}
    Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(made["png"])
    Image.fromarray(depth).save(made["tiff"])
    np.save(made["npy"], depth.astype(np.float64))
    np.savez(made["npz"], depth=depth, intrinsics=[190, 190, 159.5, 119.5])
    return made


def test_every_format_gives_the_same_depth(tmp_path: Path) -> None:
    depth = picture(0.35)
    for name, path in files(tmp_path).items():
        read = read_depth_file(path)
        np.testing.assert_allclose(read.depth, depth, atol=0.0005 if name == "png" else 1e-7)
        assert read.unit == ("mm" if name == "png" else "m")
    assert read_depth_file(tmp_path / "depth.npz").intrinsics == K
    tenths = tmp_path / "tenths.png"
    Image.fromarray(np.round(depth * 10000).astype(np.uint16)).save(tenths)
    np.testing.assert_allclose(read_depth_file(tenths, "0.1mm").depth, depth, atol=0.00006)
    np.savez(tmp_path / "mm.npz", depth_mm=depth * 1000)
    np.testing.assert_allclose(read_depth_file(tmp_path / "mm.npz").depth, depth, atol=1e-6)


def test_exr_is_read_by_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("calib", "cv2")
    monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", "1")
    import cv2

    path, depth = tmp_path / "depth.exr", picture(0.35)
    try:
        written = cv2.imwrite(str(path), depth)
    except cv2.error:
        written = False
    if not written:
        pytest.skip("no EXR in this OpenCV: set OPENCV_IO_ENABLE_OPENEXR=1 and use a build with it")
    np.testing.assert_allclose(read_depth_file(path).depth, depth, atol=1e-6)


def test_what_is_no_depth_image_is_refused(tmp_path: Path) -> None:
    depth = picture(0.35)

    def refused(name: str, words: str, unit: str = "auto") -> None:
        with pytest.raises(CameraError, match=words):
            read_depth_file(tmp_path / name, unit)

    refused("none.png", "no file")
    (tmp_path / "depth.txt").write_text("1 2 3")
    refused("depth.txt", "is none of .png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    refused("broken.png", "no .png file, or not a whole one")
    np.savez(tmp_path / "whole.npz", depth=depth)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    refused("cut.npz", "not a whole one .*; copy or save it again")
    (tmp_path / "page.npy").write_text("<!DOCTYPE html>")
    refused("page.npy", "no .npy file, .*; copy or save it again")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    refused("colour.png", "coloured picture of depth")
    Image.fromarray(np.full((4, 4), 200, np.uint8)).save(tmp_path / "grey.png")
    refused("grey.png", "uint8 pixels, too coarse")
    np.save(tmp_path / "mm.npy", depth * 1000)
    refused("mm.npy", "read as m: .*millimetres; divide them by 1000")
    np.save(tmp_path / "empty.npy", depth * 0)
    refused("empty.npy", "no return at all")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused("objects.npy", "no .npy file")
    np.savez(tmp_path / "two.npz", a=depth, b=depth)
    refused("two.npz", "call the depth `depth`")
    np.save(tmp_path / "m.npy", depth)
    refused("m.npy", "no unit 'inch'", "inch")
    for bad, words in (
        ([1, 2, 3], "fx,fy,cx,cy"),
        ([23, 23, 159.5, 119.5], "do not fit an image 320 px wide"),
        ([190, 190, 500, 119.5], "lie outside the image"),
        ([159.5, 119.5, 190, 190], "the order is fx,fy,cx,cy"),
    ):
        with pytest.raises(CameraError, match=words):
            intrinsics_of(bad, (240, 320))


def run(*arguments: object) -> int:
    return look.main([str(a) for a in arguments])


def test_the_command_from_file_to_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = files(tmp_path)["png"], tmp_path / "out"
    assert run(path, "--intrinsics", NUMBERS, "--out", out) == 0
    said = capsys.readouterr().out
    assert "whole numbers were taken for mm" in said and "look.png" in said
    result = json.loads((out / "look.json").read_text())
    (one,) = result["images"]
    assert one["name"] == "depth" and one["distance_m"] < 0.01 and one["view_filled"] > 0.9
    assert np.shape(one["view_m"]) == (64, 64) and np.shape(one["map_m"]) == (33, 33)
    assert np.shape(one["jaws_px"][0]) == (2, 2)
    assert one["camera_height_m"] == pytest.approx(0.35, abs=0.003)
    with Image.open(out / "look.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    green = (np.abs(pixels - (20, 164, 77)) < 30).all(axis=-1)
    assert green.sum() > 200  # the jaws are there, in the image and in the view
    columns = np.nonzero(green.any(axis=0))[0]
    assert columns.min() < pixels.shape[1] * 0.5 < columns.max()


def test_a_folder_says_which_image_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    np.savez(folder / "a.npz", depth=picture(0.35), intrinsics=[190, 190, 159.5, 119.5])
    np.save(folder / "b.npy", picture(0.35) * 1000)
    assert run(folder, "--out", out) == 1
    said = capsys.readouterr()
    assert "b.npy" in said.err and "millimetres" in said.err
    result = json.loads((out / "look.json").read_text())
    assert [i["name"] for i in result["images"]] == ["a"]
    assert [f["name"] for f in result["failed"]] == ["b.npy"]
    assert (out / "look_a.png").is_file()


def test_mistakes_are_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = files(tmp_path)["npy"], tmp_path / "out"
    (tmp_path / "session.bag").write_bytes(b"#ROSBAG V2.0\n")
    for arguments, words in (
        ((path,), "give --intrinsics fx,fy,cx,cy"),
        ((path, "--intrinsics", "230,230"), "must be 4 numbers"),
        ((path, "--intrinsics", NUMBERS, "--camera", "D405"), "exclude each other"),
        ((path, "--intrinsics", NUMBERS, "--height", "0.3", "--fit-table"), "exclude each other"),
        ((path, "--camera", "D999"), "known are D405"),
        ((path, "--camera", "D405", "--at", "1"), "must be 2 numbers"),
        ((path, "--camera", "D405", "--unit", "mm"), "divided by 1000"),
        ((tmp_path / "session.bag",), "session.bag"),
        ((tmp_path / "session.bag", "--camera", "D405"), "knows its own; leave it out"),
        ((path, "--camera", "D405", "--frame", "3"), "--frame 3 is for recordings"),
        ((tmp_path / "flight.mcap", "--at", "1,1"), "the view is the hand's own"),
        ((tmp_path / "flight.mcap", "--height", "0.3"), "know theirs"),
        ((tmp_path / "nothing.png",), "no file"),
    ):
        assert run(*arguments, "--out", out) == 2, arguments
        error = capsys.readouterr().err.strip()
        assert re.search(words, error) and error.count("\n") == 0, error
    assert not out.exists()


def test_a_flight_record_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flights import cycle, header

    from rt.record.recorder import Recorder

    path = tmp_path / "flight.mcap"
    with Recorder(path, header()) as recorder:
        for k in range(3):
            recorder.put(**cycle(k))
    assert run(path, "--frame", 1, "--out", tmp_path / "out") == 0
    (one,) = json.loads((tmp_path / "out" / "look.json").read_text())["images"]
    np.testing.assert_allclose(one["T_camera_view"], np.eye(4))
    assert run(path, "--frame", 3, "--out", tmp_path / "out") == 2
    assert "has 3 frames" in capsys.readouterr().err


def test_a_recording_is_the_twins_camera(tmp_path: Path) -> None:
    """The whole loop on recorded images, and never with a real arm."""
    from rt.cell.open import settle
    from rt.cell.options import ServoOptions
    from rt.cell.transform import CellError
    from rt.servo import main as servo_main

    first, again = tmp_path / "first", tmp_path / "again"
    quick = ("--fast", "--candidates", "32", "--iterations", "12")
    assert servo_main([*quick, "--out", str(first)]) == 0
    record = first / "flight.mcap"
    replayed = ("--camera", "replay", "--camera-device", str(record), "--out", str(again))
    assert servo_main([*quick, *replayed, "--iterations", "6"]) in (
        0,
        1,
    )  # 1: the recording is over
    result = json.loads((again / "servo.json").read_text())
    assert result["cycles"] >= 4 and result["true_distance_start_m"] is None
    assert result["cell"]["images"].startswith("recorded")
    with pytest.raises(CellError, match="needs a recording"):
        settle(ServoOptions(camera="replay"))
    cell = tmp_path / "cell.toml"
    cell.write_text((Path(look.__file__).parent / "cell" / "cell.example.toml").read_text())
    with pytest.raises(CellError, match="do not follow an arm"):
        settle(ServoOptions(cell=cell, camera="replay", camera_device=str(record)))


def test_the_view_is_what_the_loop_would_see(network) -> None:
    """The same image, mounted: the look's view is the Reprojector's, its gaps closed."""
    from rt.view import close_gaps

    depth, mount = picture(0.40), np.eye(4)
    mount[:3, 3] = (0.0, 0.0, -0.1)
    seen = look_at(depth, K, T_view_camera=mount, distance=network)
    np.testing.assert_array_equal(seen.view, close_gaps(Reprojector(K, mount)(depth)))
    assert replace(seen, view=seen.view).surface_m <= VIEW.far_m


def test_an_older_librarys_bag_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Topics as librealsense recorded them: 16-bit depth in the unit of the option Depth Units."""
    rosbag1 = pytest.importorskip("rosbags.rosbag1", reason="no rosbags: pip install rosbags")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    types, path, sensor = store.types, tmp_path / "session.bag", "/device_0/sensor_0"
    stamp = types["builtin_interfaces/msg/Time"](sec=7, nanosec=5)
    head = types["std_msgs/msg/Header"](seq=0, stamp=stamp, frame_id="0")
    pixels = np.round(picture(0.35) * 10000).astype(np.uint16)
    image = types["sensor_msgs/msg/Image"](
        header=head, height=240, width=320, encoding="mono16", is_bigendian=0, step=640,
        data=pixels.view(np.uint8).ravel(),
    )  # fmt: skip
    region = types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    matrix = np.array([190, 0, 159.5, 0, 190, 119.5, 0, 0, 1.0])
    info = types["sensor_msgs/msg/CameraInfo"](
        header=head, height=240, width=320, distortion_model="", D=np.zeros(5), K=matrix,
        R=np.eye(3).ravel(), P=np.zeros(12), binning_x=0, binning_y=0, roi=region,
    )  # fmt: skip
    unit = types["std_msgs/msg/Float32"](data=1e-4)
    with rosbag1.Writer(path) as writer:
        for topic, message in (
            (f"{sensor}/option/Depth Units/value", unit),
            (f"{sensor}/Depth_0/info/camera_info", info),
            (f"{sensor}/Depth_0/image/data", image),
        ):
            kind = message.__msgtype__
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, 8 * 10**9, store.serialize_ros1(message, kind))
    camera = open_replay(path, np.eye(4), paced=False)
    frame = camera.read_latest(1.0)
    assert frame.intrinsics == replace(K, distortion=(0.0,) * 5) and len(camera) == 1
    np.testing.assert_allclose(frame.depth, picture(0.35), atol=0.00006)
    assert run(path, "--out", tmp_path / "out") == 0
    (one,) = json.loads((tmp_path / "out" / "look.json").read_text())["images"]
    assert one["camera_height_m"] == pytest.approx(0.35, abs=0.003)
