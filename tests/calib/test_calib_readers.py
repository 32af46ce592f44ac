"""Other programs' files are read as they meant them."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from calib.data.intrinsic_files import read_camera
from calib.data.poses import PoseFormat, parse_format
from calib.data.readers import read
from calib.data.recording import Writer
from calib.errors import CalibrationError
from calib.solve.model import LensModel
from calib.solve.se3 import inverse, transform
from calib.target.targets import Target

N = 11
RNG = np.random.default_rng(0)
T = transform(Rotation.random(N, random_state=1).as_matrix(), RNG.uniform(-0.6, 0.6, (N, 3)))
C = transform(
    Rotation.random(N, random_state=2).as_matrix(),
    RNG.uniform(-0.1, 0.1, (N, 3)) + np.array([0, 0, 0.4]),
)
QUAT = Rotation.from_matrix(T[:, :3, :3]).as_quat()
VECTOR = Rotation.from_matrix(T[:, :3, :3]).as_rotvec()


def images(folder, name="image{}.png"):
    for k in range(N):
        cv2.imwrite(str(folder / name.format(k)), np.full((4, 6), k, np.uint8))
    return folder


def check(recording, form=None, inverted=False):
    form = replace(recording.format or form, inverted=inverted)
    assert form is not None
    order = [int("".join(c for c in e.name if c.isdigit())) for e in recording.entries]
    first = min(order)
    np.testing.assert_allclose(form.read(recording.rows), T[[k - first for k in order]], atol=1e-7)


def table(rows, sep=" "):
    return "\n".join(sep.join(f"{x:.12g}" for x in row) for row in rows) + "\n"


@pytest.mark.parametrize("sep", [" ", ",", ";", "\t"])
def test_headerless_matrices(tmp_path, sep):
    (images(tmp_path) / "poses.txt").write_text(table(T.reshape(N, 16), sep))
    check(read(tmp_path))


def test_matrices_of_three_rows_and_stacked_blocks(tmp_path):
    (images(tmp_path) / "poses.txt").write_text(table(T.reshape(-1, 4)))
    check(read(tmp_path))
    (tmp_path / "poses.txt").write_text(table(T[:, :3].reshape(N, 12)))
    check(read(tmp_path))


def test_csv_with_header_and_names_in_any_order(tmp_path):
    lines = ["image,x_mm,y_mm,z_mm,qx,qy,qz,qw"]
    for k in reversed(range(N)):
        lines.append(
            f"image{k}.png," + ",".join(f"{v:.12g}" for v in [*T[k][:3, 3] * 1e3, *QUAT[k]])
        )
    (images(tmp_path) / "robot.csv").write_text("\n".join(lines))
    recording = read(tmp_path)
    assert recording.format == PoseFormat("quat_xyzw", unit="mm")
    check(recording)


def test_csv_header_that_names_a_rotation_vector_in_degrees(tmp_path):
    lines = ["x,y,z,rotvec_x_deg,rotvec_y_deg,rotvec_z_deg"]
    lines += [
        ",".join(f"{v:.12g}" for v in [*T[k][:3, 3], *np.degrees(VECTOR[k])]) for k in range(N)
    ]
    (images(tmp_path) / "robot.csv").write_text("\n".join(lines))
    recording = read(tmp_path)
    assert recording.format == PoseFormat("rotvec", True)
    check(recording)


def test_angles_without_a_convention_stay_open(tmp_path):
    angles = Rotation.from_matrix(T[:, :3, :3]).as_euler("ZYX", degrees=True)
    (images(tmp_path) / "robot.txt").write_text(table(np.c_[T[:, :3, 3] * 1e3, angles]))
    recording = read(tmp_path)
    assert recording.format is None
    check(recording, parse_format("euler_ZYX:deg:mm"))


def test_json_lists_and_mappings(tmp_path):
    images(tmp_path)
    (tmp_path / "poses.json").write_text(
        json.dumps(
            [{"file": f"image{k}.png", "T_base_hand": T[k].tolist()} for k in reversed(range(N))]
        )
    )
    check(read(tmp_path))
    (tmp_path / "poses.json").write_text(json.dumps({f"image{k}": T[k].tolist() for k in range(N)}))
    check(read(tmp_path))
    named = dict(zip("xyz", "xyz", strict=True))
    (tmp_path / "poses.json").write_text(
        json.dumps(
            {
                "poses": [
                    {
                        "image": f"image{k}.png",
                        "position": {a: float(T[k][i, 3]) for i, a in enumerate(named)},
                        "orientation": {a: float(v) for a, v in zip("xyzw", QUAT[k], strict=True)},
                    }
                    for k in range(N)
                ]
            }
        )
    )
    recording = read(tmp_path)
    assert recording.format == PoseFormat("quat_xyzw")
    check(recording)


def test_json_quaternion_list_has_no_stated_order(tmp_path):
    images(tmp_path)
    rows = [{"t": T[k][:3, 3].tolist(), "q": QUAT[k].tolist()} for k in range(N)]
    (tmp_path / "poses.json").write_text(json.dumps(rows))
    recording = read(tmp_path)
    assert recording.format is None
    check(recording, PoseFormat("quat_xyzw"))


def test_opencv_yaml(tmp_path):
    images(tmp_path)
    text = "%YAML:1.0\n---\n"
    for k in range(N):
        data = ", ".join(f"{x:.12g}" for x in T[k].ravel())
        text += (
            f"image{k}: !!opencv-matrix\n   rows: 4\n   cols: 4\n   dt: d\n   data: [ {data} ]\n"
        )
    (tmp_path / "poses.yaml").write_text(text)
    check(read(tmp_path))


def test_visp(tmp_path):
    images(tmp_path, "image-{}.png")
    for k in range(N):
        data = "".join(f"  - [{x:.12g}]\n" for x in [*T[k][:3, 3], *VECTOR[k]])
        (tmp_path / f"pose_fPe_{k}.yaml").write_text(f"rows: 6\ncols: 1\ndata:\n{data}")
        (tmp_path / f"pose_cPo_{k}.yaml").write_text("rows: 6\ncols: 1\ndata:\n" + "  - [0]\n" * 6)
    (tmp_path / "camera.xml").write_text(
        "<root><camera><image_width>6</image_width><image_height>4</image_height><model>"
        "<type>perspectiveProjWithoutDistortion</type><px>610.5</px><py>611</py><u0>3</u0><v0>2</v0>"
        "</model></camera></root>"
    )
    recording = read(tmp_path)
    assert recording.format == PoseFormat("rotvec")
    assert recording.camera is not None and recording.camera.fx == 610.5
    check(recording)


def test_one_text_file_for_each_image(tmp_path):
    images(tmp_path, "{:04d}.png")
    for k in range(N):
        np.savetxt(tmp_path / f"{k:04d}.txt", T[k])
    check(read(tmp_path))


@pytest.mark.parametrize("nested", [True, False])
def test_moveit_calibration_samples(tmp_path, nested):
    def block(M):
        if nested:
            return "".join(
                "    -" + "".join(f"{'     ' if c else ''} - {x:.12g}\n" for c, x in enumerate(r))
                for r in M
            )
        return "".join(f"    - {x:.12g}\n" for x in M.ravel())

    path = tmp_path / "samples.yaml"
    path.write_text(
        "".join(
            f"- effector_wrt_world:\n{block(T[k])}  object_wrt_sensor:\n{block(C[k])}"
            for k in range(N)
        )
    )
    recording = read(path)
    check(recording)
    np.testing.assert_allclose([e.T_camera_target for e in recording.entries], C, atol=1e-7)


def ros(M):
    q = Rotation.from_matrix(M[:3, :3]).as_quat()
    return {
        "translation": {a: float(v) for a, v in zip("xyz", M[:3, 3], strict=True)},
        "rotation": {a: float(v) for a, v in zip("xyzw", q, strict=True)},
    }


def test_easy_handeye_samples(tmp_path):
    one = {
        "parameters": {"eye_on_hand": False},
        "hand_world_samples": {"transforms": [ros(inverse(M)) for M in T]},
        "camera_marker_samples": {"transforms": [ros(M) for M in C]},
    }
    path = tmp_path / "samples.yaml"
    path.write_text(json.dumps(one))  # JSON is YAML
    recording = read(path)
    # a fixed camera's samples hold T_hand_base
    assert recording.eye_in_hand is False and recording.rows_are_fixed_mount
    check(recording, inverted=True)
    two = {"samples": [{"robot": ros(T[k]), "tracking": ros(C[k])} for k in range(N)]}
    path.write_text(json.dumps(two))
    check(read(path))


K = [600, 0, 320, 0, 601, 240, 0, 0, 1]
LENS = {"width": 640, "height": 480, "fx": 600, "fy": 601, "ppx": 320, "ppy": 240}
INTRINSICS = {
    "a.json": json.dumps(LENS | {"coeffs": [0.1, 0, 0, 0, 0]}),
    "b.json": json.dumps(
        {"camera_matrix": np.reshape(K, (3, 3)).tolist(), "dist_coeffs": [[0.1, 0, 0, 0]]}
    ),
    "ros.yaml": "image_width: 640\nimage_height: 480\n"
    f"camera_matrix:\n  rows: 3\n  cols: 3\n  data: {K}\n"
    "distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [0.1, 0, 0, 0, 0]\n",
    "cv.yml": "%YAML:1.0\n---\n"
    f"K: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: {K}\n"
    "D: !!opencv-matrix\n   rows: 5\n   cols: 1\n   dt: d\n   data: [ 1e-1, 0., 0., 0., 0. ]\n",
    "k.txt": "600 0 320\n0 601 240\n0 0 1\n0.1 0 0 0 0\n",
}


@pytest.mark.parametrize("name", INTRINSICS)
def test_intrinsics_of_many_programs(tmp_path, name):
    (tmp_path / name).write_text(INTRINSICS[name])
    camera = read_camera(tmp_path / name)
    np.testing.assert_allclose(camera.vector, [600, 601, 320, 240, 0.1, 0, 0, 0, 0])


def test_counts_that_differ_are_refused_by_name(tmp_path):
    (images(tmp_path) / "poses.csv").write_text(table(T[:-1].reshape(-1, 16)))
    with pytest.raises(CalibrationError, match=r"poses\.csv has 10 poses for 11 images"):
        read(tmp_path)


def test_unreadable_rows_are_refused_by_line(tmp_path):
    (images(tmp_path) / "poses.csv").write_text(table(T.reshape(N, 16)) + "1 2 three\n")
    with pytest.raises(CalibrationError, match=r"poses\.csv, line 12"):
        read(tmp_path)


def test_a_folder_without_images_or_poses_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="no images"):
        read(tmp_path)
    with pytest.raises(CalibrationError, match="no robot poses"):
        read(images(tmp_path))
    with pytest.raises(CalibrationError, match="does not exist"):
        read(tmp_path / "none")


@pytest.mark.parametrize("text", ["euler_abc", "quat", "rotvec:feet", "euler_xxy"])
def test_unknown_formats_are_refused(text):
    with pytest.raises(CalibrationError, match=r"euler_ABC|not known"):
        parse_format(text)


def test_what_is_no_rotation_is_refused():
    M = T.copy()
    M[3, :3, :3] *= 1.1
    with pytest.raises(CalibrationError, match=r"pose 3: .* no rotation"):
        PoseFormat().read(M.reshape(-1, 16))
    M = T.copy()
    M[2, :3, 0] *= -1
    with pytest.raises(CalibrationError, match=r"pose 2: .* mirrors"):
        PoseFormat().read(M.reshape(-1, 16))


def euler(order):
    return Rotation.from_matrix(T[:, :3, :3]).as_euler(order, degrees=True)


def lines_of(pattern, rows):
    return "\n".join(pattern.format(*row) for row in rows) + "\n"


MM = np.array([1e3, 1e3, 1e3])
PROGRAMS = {
    "ur.script": lines_of("movej(p[{}, {}, {}, {}, {}, {}], a=1.2)", np.c_[T[:, :3, 3], VECTOR]),
    "kuka.src": lines_of(
        "PTP {{X {}, Y {}, Z {}, A {}, B {}, C {}}}", np.c_[T[:, :3, 3] * MM, euler("ZYX")]
    ),
    "fanuc.ls": lines_of(
        "P[1]{{\n X = {:.9f} mm, Y = {:.9f} mm, Z = {:.9f} mm,\n"
        " W = {:.9f} deg, P = {:.9f} deg, R = {:.9f} deg\n}};",
        np.c_[T[:, :3, 3] * MM, euler("xyz")],
    ),
    "abb.mod": lines_of(
        "CONST robtarget p:=[[{},{},{}],[{},{},{},{}],[0,0,0,0],[9E+09,9E+09,9E9,9E9,9E9,9E9]];",
        np.c_[T[:, :3, 3] * MM, QUAT[:, [3, 0, 1, 2]]],
    ),
    "echo.txt": lines_of(
        "At time 1.0\n- Translation: [{}, {}, {}]\n- Rotation: in Quaternion [{}, {}, {}, {}]\n"
        "            in RPY (radian) [0.1, 0.2, 0.3]",
        np.c_[T[:, :3, 3], QUAT],
    ),
    "echo2.txt": lines_of(
        "At time 0.0\n- Translation: [{}, {}, {}]\n- Rotation: in Quaternion (xyzw) [{}, {}, {}, {}]",
        np.c_[T[:, :3, 3], QUAT],
    ),
    "list.py": f"poses = {T.tolist()}\n",
    "printed.txt": "".join(f"{M}\n" for M in np.round(T, 9)),
    "franka.txt": table(np.swapaxes(T, 1, 2).reshape(N, 16)),
    "apart.txt": table(np.c_[T[:, :3, :3].reshape(N, 9), T[:, :3, 3]]),
    "counted.txt": f"{N}\n" + table(T.reshape(N, 16)),
    "comma.txt": table(T.reshape(N, 16), "; ").replace(".", ","),
    "blocks.txt": "".join(f"pose{k}\n" + table(M) + "\n" for k, M in enumerate(T)),
    "three.txt": table(T[:, :3].reshape(-1, 4)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_notations_of_robots_and_tools(tmp_path, name):
    with np.printoptions(precision=12):
        (images(tmp_path) / name).write_text(PROGRAMS[name])
    recording = read(tmp_path)
    assert recording.format is not None
    check(recording)


def test_numpy_files(tmp_path):
    np.save(images(tmp_path) / "poses.npy", T)
    check(read(tmp_path))
    (tmp_path / "poses.npy").unlink()
    np.savez(tmp_path / "data.npz", R_gripper2base=T[:, :3, :3], t_gripper2base=T[:, :3, 3:])
    check(read(tmp_path))


def test_times_of_a_tum_file_are_matched_with_images(tmp_path):
    for k in range(N):
        cv2.imwrite(str(tmp_path / f"{100 + k * 0.5:.3f}.png"), np.full((4, 6), k, np.uint8))
    stamps = np.arange(99.0, 107.0, 0.02)
    index = np.argmin(np.abs(stamps[:, None] - (100 + 0.5 * np.arange(N))), axis=1)
    rows = np.c_[stamps, np.tile(T[0, :3, 3], (len(stamps), 1)), np.tile(QUAT[0], (len(stamps), 1))]
    for k in range(N):
        at = int(np.argmin(np.abs(stamps - (100 + 0.5 * k))))
        rows[at, 1:] = [*T[k][:3, 3], *QUAT[k]]
    assert len(index) == len(stamps)
    (tmp_path / "trajectory.tum").write_text(table(rows))
    recording = read(tmp_path)
    np.testing.assert_allclose(recording.format.read(recording.rows), T, atol=1e-7)


def test_a_list_of_images_with_pose_files(tmp_path):
    """cal_data.yaml: each image with the file of its pose."""
    images(tmp_path)
    (tmp_path / "pose").mkdir()
    for k in range(N):
        np.savetxt(tmp_path / "pose" / f"p{chr(97 + k)}.txt", T[k])
    listed = [{"image": f"image{k}.png", "pose": f"pose/p{chr(97 + k)}.txt"} for k in range(N)]
    (tmp_path / "cal_data.yaml").write_text(json.dumps({"data": listed}))
    check(read(tmp_path))


def test_images_without_a_pose_are_listed(tmp_path):
    images(tmp_path)
    lines = [f"image{k}.png " + " ".join(map(str, T[k].ravel())) for k in range(N - 2)]
    (tmp_path / "poses.txt").write_text("\n".join(lines))
    recording = read(tmp_path)
    (found,) = recording.findings
    assert "2 images have no pose" in found.text and "image10.png" in found.text


def test_visp_cameras_with_distortion(tmp_path):
    path = tmp_path / "camera.xml"
    path.write_text(
        "<root><camera><image_width>6</image_width><image_height>4</image_height><model><!--kind-->"
        "<type>perspectiveProjWithDistortion</type><px>600</px><py>601</py><u0>3</u0><v0>2</v0>"
        "<kud>-0.2</kud><kdu>0.2</kdu></model></camera></root>"
    )
    camera = read_camera(path)
    assert camera.fx == 600 and camera.dist[0] == -0.2


@pytest.mark.parametrize("maker", ["kuka", "fanuc", "abb", "ur", "staubli:inverse"])
def test_makers_name_formats(maker):
    form = parse_format(maker)
    assert parse_format(str(form)) == form and form.inverted == maker.endswith(":inverse")


def write_image(path, rng):
    cv2.imwrite(str(path), rng.integers(0, 255, (4, 6), dtype=np.uint8))


def test_poses_without_an_image_and_other_streams_are_named(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for k in range(5):
        write_image(tmp_path / f"ir_{k}.png", rng)
        rows.append([f"ir_{k}", *T[k, :3, 3], *QUAT[k]])
    rows.append(["ir_9", *rows[0][1:]])
    lines = ["name,x,y,z,qx,qy,qz,qw", *(",".join(map(str, r)) for r in rows)]
    (tmp_path / "poses.csv").write_text("\n".join(lines))
    text = "\n".join(map(str, read(tmp_path).findings))
    assert "1 poses have no image and are left out: ir_9" in text
    # without names: the colour images of another camera lie beside, fewer than the poses
    numbers = np.array([r[1:] for r in rows[:5]], dtype=float)
    (tmp_path / "poses.csv").unlink()
    np.savetxt(tmp_path / "poses.txt", numbers)
    for k in range(3):
        write_image(tmp_path / f"colour_{k}.png", rng)
    recording = read(tmp_path)
    assert [e.image.name for e in recording.entries] == [f"ir_{k}.png" for k in range(5)]
    assert "colour_0.png, colour_1.png, colour_2.png" in "\n".join(map(str, recording.findings))
    for k in range(3, 5):
        write_image(tmp_path / f"colour_{k}.png", rng)
    with pytest.raises(CalibrationError, match=r"5 of .*colour_#\.png, 5 of .*ir_#\.png"):
        read(tmp_path)


def test_a_dataset_without_some_of_its_images_is_read(tmp_path):
    camera = LensModel(64, 48, 60.0, 60.0, 31.5, 23.5)
    writer = Writer(tmp_path / "d", Target(), camera, True, "infrared")
    for k in range(4):
        writer.add(np.zeros((48, 64), np.uint8), None, np.eye(4), k, k)
    writer.close()
    (tmp_path / "d/images/0002.png").unlink()
    recording = read(tmp_path / "d")
    assert [e.name for e in recording.entries] == ["0000", "0001", "0003"] and len(
        recording.rows
    ) == 3
    assert "0002.png" in str(recording.findings[0])


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    writer = Writer(tmp_path / "d", Target(), LensModel(64, 48, 60, 60, 31, 23), True, "infrared")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"0000\.png: the disk is full: [\d.]+ .B are free"):
        writer.add(np.zeros((48, 64), np.uint8), None, np.eye(4), 0, 0)
    assert not list((tmp_path / "d/images").iterdir())
