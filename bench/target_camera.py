"""A RealSense over a calibration target, on the hand of an emulated UR arm.

    python -m rt.robot.emulator --address 127.0.0.2                              # in another terminal
    python -m calib.handeye collect --robot ur --address 127.0.0.2 --camera bench.target_camera:emulated

Arm and camera are driven by the drivers of the real ones. The camera is the RealSense library's software
device, fed with pictures and depth of the target, a table and boxes, from where the emulated arm truly is.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from calib.collect.rig import Box, SimulatedRig, random_truth, scattered
from calib.errors import CalibrationError
from calib.options import DEFAULT_TARGET
from calib.solve.model import LensModel, Unknowns
from calib.solve.motions import middle_of
from calib.solve.noise import Noise
from calib.solve.se3 import from_vector, inverse, transform
from calib.target.targets import parse
from rt.camera import Intrinsics
from rt.camera.pictures import PictureCamera, open_pictures
from rt.cell.file import EXAMPLE, load_cell
from rt.pose import Array
from rt.robot.kinematics import ARMS, tool
from rt.robot.ur_pose import transform as pose_transform
from sim.hardware.realsense import FrameFeeder, SoftwareCamera, SoftwareMode, to_z16
from sim.hardware.ur.arm import HOME_Q
from sim.hardware.ur.process import CONTROL_PORT, Emulator, EmulatorError

INTRINSICS = Intrinsics(480, 360, 458.0, 458.0, 239.5, 179.5)
TABLE_Z_M = -0.02
"""Height of the table in the arm's base: the camera begins about 0.45 m above it."""
_MOUNT_ERROR = [*np.radians([1.0, 1.0, 1.0]).tolist(), 0.003, 0.003, 0.003]
"""Standard deviation of the camera's true place from the example cell's: rotation [rad], translation [m]."""
RATE_HZ = 10


def emulated_rig(seed: int, target: str, things: bool, noise: Noise) -> SimulatedRig:
    """The world that the camera sees: the target below the camera of a UR5e in its usual posture.

    The camera is mounted as in the example of a cell, so that its calibration fits a run with that cell.
    """
    rng = np.random.default_rng(seed)
    what = parse(target)
    lens = LensModel.of(INTRINSICS)
    truth = random_truth(rng, lens, what)
    example = load_cell(EXAMPLE)
    T_flange_camera = example.robot.T_flange_hand @ example.camera.T_hand_camera
    T_flange_camera = T_flange_camera @ from_vector(rng.normal(0, _MOUNT_ERROR))
    T_base_camera = tool(ARMS["UR5e"], np.array(HOME_Q), np.eye(4))[0] @ T_flange_camera
    # the table is seen where the optical axis meets it
    axis, eye = T_base_camera[:3, 2], T_base_camera[:3, 3]
    below = eye + axis * (TABLE_Z_M - eye[2]) / axis[2]
    middle = transform(np.eye(3), middle_of(what.points()))
    T_base_middle = transform(truth.T_fixed_target[:3, :3], below)
    boxes: tuple[Box, ...] = scattered(rng, T_base_middle) if things else ()
    placed = Unknowns(T_flange_camera, T_base_middle @ inverse(middle), lens)
    return SimulatedRig(placed, what, noise, rng, things=boxes)


class TargetFeeder(FrameFeeder):
    """Feeds a software device with what a camera on an emulated arm's flange sees: pictures and depth."""

    def __init__(self, rig: SimulatedRig, host: str, control_port: int) -> None:
        mode = SoftwareMode(INTRINSICS, RATE_HZ)
        camera = SoftwareCamera(
            (mode,), name="Intel RealSense D405 (emulated)", serial="emulated", pictures=(mode,)
        )
        super().__init__(camera, RATE_HZ)
        self.rig = rig
        self._arm = Emulator(host, control_port)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._arm.close()

    def true_camera(self) -> tuple[int, Array]:
        """time.monotonic_ns and T_base_camera (4, 4): the arm stands a little beside where it says."""
        told = self._arm.tell("flange")
        T = pose_transform(told["pose"])
        return int(told["monotonic_ns"]), T @ self.rig.error(T) @ self.rig.truth.T_mount_camera

    def send(self, number: int) -> bool:
        try:
            stamp_ns, T = self.true_camera()
        except EmulatorError:
            return False  # the arm has gone: the camera's reader notices
        depth = to_z16(self.rig.depth(T), self.camera.depth_unit_m)
        with suppress(RuntimeError):  # not started yet, or stopped already
            self.camera.send(depth, number, stamp_ns=stamp_ns)
            self.camera.send(self.rig.picture(T), number, stamp_ns=stamp_ns)
        return True


def emulated(
    *,
    address: str = "127.0.0.2",
    stream: str = "infrared",
    control_port: str = str(CONTROL_PORT),
    seed: str = "0",
    target: str = DEFAULT_TARGET,
    things: str = "0",
    knock_mm: str = "0",
    robot_noise_mm: str = "0.1",
    robot_noise_deg: str = "0.01",
) -> PictureCamera:
    """A camera for calib.handeye, `--camera "bench.target_camera:emulated?seed=1&things=1"`.

    address: of the arm's emulator. things: 1 puts boxes on the table. knock_mm: the camera sits so far from
    where `seed` alone puts it. The noise is the arm's, of its absolute pose. Raises CalibrationError for
    another stream or a text that is no number, EmulatorError where no emulator answers.
    """
    if stream != "infrared":
        raise CalibrationError("the emulated camera has infrared pictures only; leave --stream out")
    try:
        noise = Noise(0.1, float(robot_noise_mm) * 1e-3, float(np.radians(float(robot_noise_deg))))
        rig = emulated_rig(int(seed), target, bool(int(things)), noise)
        port, knock_m = int(control_port), float(knock_mm) * 1e-3
    except ValueError as error:
        raise CalibrationError(f"bench.target_camera:emulated: {error}") from error
    rig.knock(from_vector([0, 0, 0, 0.6 * knock_m, 0, 0.8 * knock_m]))
    return open_pictures("infrared", device=TargetFeeder(rig, address, port))
