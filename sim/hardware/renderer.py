"""Renderer of the emulated camera, a process of its own: `python -m sim.hardware.renderer`.

Started by sim.hardware.realsense.emulated. It asks the arm's emulator for the tool's true pose, renders the
scene from there, and writes z16 frames to its output as sim.hardware.realsense.Piped reads them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rt.camera import CameraError
from rt.camera.models import parse_size
from rt.camera.own_hand import hand_depth
from rt.cell.file import load_cell
from rt.hand import HandError, load_hand
from rt.pose import inverse
from rt.robot import RobotError
from rt.tools.clock import Clock, ClockError
from rt.tools.command import parsed
from sim.hardware.presence import GripperClient, Presence
from sim.hardware.realsense import HEADER, d405_modes, to_z16
from sim.scene.objects import ObjectError, Split, object_set
from sim.scene.scene import Scene

UNIT_M = 1e-4


@dataclass(frozen=True)
class RendererOptions:
    """Render a scene from where an emulated arm is; frames go to the standard output, as bytes.

    Example: python -m sim.hardware.renderer --host 127.0.0.2 --scene 3 > frames.bin
    """

    host: str = "127.0.0.2"
    """Address of the arm's emulator."""
    control_port: int = 30999
    """Port of its control channel."""
    seed: int = 0
    """Of the scene."""
    scene: int = 0
    """Its number."""
    objects: Split = "test"
    """Objects of which split: test or train."""
    size: str = "240x136"
    """Width and height [px]; 87 degrees wide."""
    rate_hz: float = 30.0
    """Frames a second [Hz]."""
    cell: str = ""
    """Cell file that says where the hand is on the flange and the table under the arm. Default: the hand
    is the tool centre point, the table the base's z = 0."""
    camera: str = ""
    """T_hand_camera, 16 numbers, row by row, with commas. Default: the camera sits in the hand's frame."""
    origin: str = ""
    """Position of the scene's origin on the table, x,y [m]. Default: an object is below the hand at the
    beginning."""
    place: str = ""
    """Middle of a bin on the table, x,y [m]: the emulated gripper then takes objects from the scene
    (sim.hardware.presence). Default: nothing is ever taken."""
    gone: str = ""
    """File that keeps what lies in the bin."""


def main() -> int:
    try:
        config = parsed(RendererOptions, "python -m sim.hardware.renderer")
        render(config)
    except (KeyboardInterrupt, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads: that is how it ends
        return 0
    except (
        CameraError,
        RobotError,
        ClockError,
        ObjectError,
        HandError,
        ValueError,
        OSError,
    ) as error:
        print(f"sim.hardware.renderer: {error}", file=sys.stderr)
        return 1
    return 0


def render(config: RendererOptions) -> None:
    """Frames until nobody reads them. Raises RobotError if the emulator is gone."""
    from sim.scene.grasps import numbered_scene
    from sim.scene.render import Renderer
    from sim.scene.scene import camera_poses

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the terminal's goes to the loop; it ends this one
    T_hand_camera = _matrix(config.camera)
    world, _, rng = numbered_scene(object_set(config.objects), config.seed, "test", config.scene)
    where = hand_of(config)
    _, T_table_hand = where()
    above = camera_poses(world, 1, rng)[0]
    origin = T_table_hand[:2, 3] - above[:2]
    if config.origin:
        origin = _numbers(config.origin, 2, "origin")
    presence = presence_of(config, world, origin)
    renderer = Renderer(world)
    intrinsics = d405_modes([parse_size(config.size)], [round(config.rate_hz)])[0].intrinsics
    rays, clock, number = intrinsics.rays(), Clock(config.rate_hz), 0
    fingers = fingers_of(config, T_hand_camera, rays)
    print(
        f"sim.hardware.renderer: scene {config.scene} of {len(world.placed)} objects, its origin at "
        f"{np.round(origin, 3).tolist()} m on the table",
        file=sys.stderr,
    )
    out = sys.stdout.buffer
    while True:
        clock.wait()
        stamp_ns, T_table_hand = where()
        T_table_hand[:2, 3] -= origin
        T_world_camera = T_table_hand @ T_hand_camera
        if presence is not None:
            presence.update(T_table_hand)
            renderer = presence.renderer
        depth = renderer.depth(T_world_camera, rays)
        nearer = (fingers > 0) & ((depth <= 0) | (fingers < depth))
        pixels = to_z16(np.where(nearer, fingers, depth), UNIT_M)
        out.write(HEADER.pack(stamp_ns, number, *pixels.shape) + pixels.tobytes())
        out.flush()
        number += 1


def fingers_of(
    config: RendererOptions, T_hand_camera: NDArray[np.float64], rays: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Depth (H, W) of the cell's open gripper, which a camera beside it sees; it does not close here. Zeros
    without one."""
    cell = load_cell(config.cell) if config.cell else None
    if cell is None or cell.gripper.kind == "none":
        return np.zeros(rays.shape[:2], np.float32)
    return hand_depth(T_hand_camera, rays, load_hand(cell.hand))


def presence_of(
    config: RendererOptions, world: Scene, origin: NDArray[np.float64]
) -> Presence | None:
    """The rule by which objects are taken; None without a place. Raises OSError without a gripper."""
    if not config.place:
        return None
    from sim.hardware.ur.process import Emulator

    return Presence(
        world,
        _numbers(config.place, 2, "place") - origin,
        GripperClient(config.host).get,
        Emulator(config.host, config.control_port).tell,
        Path(config.gone) if config.gone else None,
    )


def hand_of(config: RendererOptions) -> Callable[[], tuple[int, NDArray[np.float64]]]:
    """A function that tells time.monotonic_ns and T_table_hand (4, 4) then, of the emulated arm."""
    from rt.robot.ur_pose import transform
    from sim.hardware.ur.process import Emulator

    arm = Emulator(config.host, config.control_port)
    if not config.cell:
        return arm.pose
    cell = load_cell(config.cell)
    T_table_robot, T_flange_hand = inverse(cell.T_robot_table), cell.robot.T_flange_hand

    def hand() -> tuple[int, NDArray[np.float64]]:
        answer = arm.tell("flange")
        return answer["monotonic_ns"], T_table_robot @ transform(answer["pose"]) @ T_flange_hand

    return hand


def _numbers(text: str, count: int, name: str) -> NDArray[np.float64]:
    values = np.array([float(v) for v in text.split(",")])
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{name} = {text!r} must be {count} finite numbers with commas between")
    return values


def _matrix(text: str) -> NDArray[np.float64]:
    return _numbers(text, 16, "camera").reshape(4, 4) if text else np.eye(4)


if __name__ == "__main__":
    sys.exit(main())
