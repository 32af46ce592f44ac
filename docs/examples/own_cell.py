"""A cell of four devices of one's own, and the loop on it: `python docs/examples/own_cell.py`.

So that it runs here, the vendors' libraries are stood in for by the simulated twin. With hardware only
`own_cell` differs: it opens the real libraries, and leaves `advance` out, since real time passes by itself.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import own_backend  # noqa: F401  registers the backend "provider"
from numpy.typing import NDArray
from own_arm import OwnArm
from own_camera import OwnCamera
from own_gripper import OwnGripper
from scipy.spatial.transform import Rotation

from rt.cell.cell import Cell
from rt.distance import open_model
from rt.pose import inverse
from rt.record.report import write
from rt.servo import ServoOptions, run
from rt.tools.files import output_folder
from sim.twin import open_cell as open_twin

T_FLANGE_HAND = np.eye(4)
T_FLANGE_HAND[2, 3] = 0.163


class TwinVendor:
    """The twin behind a vendor's library."""

    def __init__(self, twin: Cell) -> None:
        self._robot, self.halt = twin.robot, twin.robot.stop

    def read(self) -> tuple[int, NDArray[np.float64], NDArray[np.float64], bool]:
        state = self._robot.state()
        T, velocity = state.T_base_hand @ inverse(T_FLANGE_HAND), state.twist.copy()
        velocity[:3] += np.cross(velocity[3:], T[:3, 3] - state.T_base_hand[:3, 3])
        pose = np.concatenate([T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_rotvec()])
        return state.stamp_ns, pose, velocity, True

    def servo(self, pose: NDArray[np.float64]) -> None:
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_rotvec(pose[3:]).as_matrix(), pose[:3]
        self._robot.move(T @ T_FLANGE_HAND)


def own_cell(twin: Cell) -> Cell:
    clock, gripper = twin.robot.now_ns, twin.gripper
    assert gripper is not None

    def grab() -> tuple[int, int, NDArray[np.uint16]]:
        frame = twin.camera.read_latest(np.inf)
        return frame.number, frame.stamp_ns, np.rint(frame.depth * 1e3).astype(np.uint16)

    def ask(line: str) -> str:
        if line != "?":
            {"OPEN": gripper.open, "CLOSE": gripper.close}[line]()
            return "OK"
        state = gripper.state()
        return f"{state.width_m * 1e3:.1f} {state.moving:d} {20.0 * state.holding:.1f}"

    arm = OwnArm(TwinVendor(twin), T_FLANGE_HAND, clock)
    camera = OwnCamera(grab, twin.camera.intrinsics, twin.camera.T_hand_camera, clock)
    own = OwnGripper(ask, clock=clock)
    return replace(twin, robot=arm, camera=camera, gripper=own, name="own", simulated=False)


if __name__ == "__main__":
    config = ServoOptions(
        fast=True, candidates=256
    )  # fast: the twin need not wait; with hardware leave it out
    report = run(config, own_cell(open_twin()), open_model(backend="provider"), candidates=256)
    write(report, output_folder("servo", config.out))
    sys.exit(report.exit_code)
