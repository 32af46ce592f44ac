"""Depth frames of a ROS 1 bag: those that older RealSense libraries and the ROS driver recorded (.bag)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rt.camera.frames import Recorded
from rt.camera.intrinsics import CameraError, Intrinsics

_ENCODINGS = {"16UC1": "<u2", "mono16": "<u2", "32FC1": "<f4"}
_ROS_UNIT_M = 0.001


def read_bag(path: Path, max_bytes: int) -> tuple[list[Recorded], Intrinsics]:
    """Every depth frame, and the intrinsics. Raises CameraError, also without the package `rosbags`."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise CameraError(
            f"{path}: the RealSense library plays .db3 only; a .bag is read by the package rosbags: "
            "pip install rosbags"
        ) from error
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS1_NOETIC)) as reader:
            return _frames(path, reader, max_bytes)
    except CameraError:
        raise
    except Exception as error:  # a damaged bag raises anything
        raise CameraError(f"{path} cannot be read: {error or type(error).__name__}") from error


def _frames(path: Path, reader: Any, max_bytes: int) -> tuple[list[Recorded], Intrinsics]:
    def named(kind: str) -> list[Any]:
        return [
            c for c in reader.connections
            if c.msgtype.endswith(f"/{kind}") and "depth" in c.topic.lower() and "aligned" not in c.topic
        ]  # fmt: skip

    images, cameras = named("Image"), named("CameraInfo")
    if not images or not cameras:
        raise CameraError(f"{path} has no depth images with a camera_info")
    intrinsics = _intrinsics(next(_messages(reader, cameras[:1]))[1])
    units = [m.data for _, m in _messages(reader, _unit_options(reader))]
    unit_m, held, frames = float(units[0]) if units else _ROS_UNIT_M, 0, []
    for number, (stamp_ns, message) in enumerate(_messages(reader, images[:1])):
        if message.encoding not in _ENCODINGS:
            raise CameraError(
                f"{path}: depth is {message.encoding}; known are {', '.join(_ENCODINGS)}"
            )
        pixels: NDArray[Any] = np.frombuffer(
            np.asarray(message.data).tobytes(), _ENCODINGS[message.encoding]
        ).reshape(message.height, message.width)
        held += pixels.nbytes
        if held > max_bytes:
            raise CameraError(f"{path} is longer than {max_bytes >> 20} MiB of memory; cut it")
        unit = 1.0 if pixels.dtype == np.float32 else unit_m
        frames.append(Recorded(stamp_ns, number, pixels, unit))
    return frames, intrinsics


def _messages(reader: Any, connections: list[Any]) -> Any:
    """(stamp [ns], message) of each; of no connection none."""
    if not connections:
        return
    for connection, received_ns, raw in reader.messages(connections):
        message = reader.deserialize(raw, connection.msgtype)
        stamp = getattr(getattr(message, "header", None), "stamp", None)
        at = stamp.sec * 10**9 + stamp.nanosec if stamp is not None else 0
        yield at or received_ns, message


def _unit_options(reader: Any) -> list[Any]:
    """Connections of the RealSense library's option Depth Units."""
    return [c for c in reader.connections if "Depth_Units/value" in c.topic.replace(" ", "_")]


def _intrinsics(info: Any) -> Intrinsics:
    K = np.asarray(getattr(info, "K", getattr(info, "k", None)), np.float64).reshape(3, 3)
    D = np.asarray(getattr(info, "D", getattr(info, "d", ())), np.float64)
    distortion = tuple(D[:5].tolist()) if len(D) in (4, 5) else ()
    return Intrinsics(
        int(info.width), int(info.height), K[0, 0], K[1, 1], K[0, 2], K[1, 2], distortion
    )
