"""Content of a flight record: MCAP topics and their schemas, and one cycle as messages and back.

    /cycle        grasp_servo.Cycle          every number of the cycle (its schema is made from ring.CYCLE)
    /view/image        foxglove.RawImage      the depth view, 32FC1 metres, in the frame `hand`
    /view/calibration  foxglove.CameraCalibration  of the view, in its frame, as Foxglove pairs them
    /view/points       foxglove.PointCloud    the same in space, at most POINTS_HZ (rerun takes no such image
                                              for depth)
    /tf                foxglove.FrameTransforms  base -> hand (measured), command, goal
    /candidates        foxglove.PosesInFrame  the kept candidates, in the frame `hand`, at the view's exposure
    /log               foxglove.Log           guard events, changes of phase, beginning and end

Records of before had /view and /calibration; they are read too. Metadata `flight` holds the header as JSON,
`end` what was lost. A message's sequence number is the record's number, its time the cycle's on the wall
clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransforms_pb2 import FrameTransforms
from foxglove_schemas_protobuf.Log_pb2 import Log
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.PosesInFrame_pb2 import PosesInFrame
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rt.pose import top_down
from rt.record.schema import BLANK, CYCLE

Message = Any
"""A protobuf message; their classes are made at run time."""

_NAMED = {"stage_ms": "stages", "guard_counts": "guard"}
"""Fields of CYCLE whose elements have names, and where the header lists them."""
_LEFT_OUT = ("view", *_NAMED)
_PROTO = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "f8": _PROTO.TYPE_DOUBLE,
    "f4": _PROTO.TYPE_FLOAT,
    "i8": _PROTO.TYPE_INT64,
    "i4": _PROTO.TYPE_INT32,
    "u4": _PROTO.TYPE_UINT32,
}
_BLANK = BLANK[0]

VIEW_TOPICS = ("/view/image", "/view")
"""Topics of the view, the second in records of before."""
POINTS_HZ = 10.0
"""Most point clouds in a second: they are three times as large as the views."""


def names(header: dict[str, Any], field: str) -> list[str]:
    """Of the elements of `stage_ms` or `guard_counts`: the header's, or their numbers."""
    entries = header.get(_NAMED[field], [])
    given = [str(e["name"] if isinstance(e, dict) else e) for e in entries]
    return given[: CYCLE[field].shape[0]]


def cycle_class(header: dict[str, Any]) -> Callable[[], Message]:
    """The protobuf class grasp_servo.Cycle: CYCLE's fields, those of _NAMED as messages of their own."""
    file = descriptor_pb2.FileDescriptorProto(
        name="grasp_servo/cycle.proto", package="grasp_servo", syntax="proto3"
    )
    cycle = file.message_type.add(name="Cycle")
    for number, name in enumerate(CYCLE.names or (), start=1):
        if name == "view":
            continue
        field = cycle.field.add(name=name, number=number)
        field.label = _PROTO.LABEL_REPEATED if CYCLE[name].shape else _PROTO.LABEL_OPTIONAL
        if name in _NAMED:
            field.label, field.type = _PROTO.LABEL_OPTIONAL, _PROTO.TYPE_MESSAGE
            field.type_name = f".grasp_servo.Cycle.{name.title()}"
            inner = cycle.nested_type.add(name=name.title())
            for i, element in enumerate(names(header, name), start=1):
                identifier = re.sub(r"\W", "_", element)
                inner.field.add(
                    name=identifier,
                    number=i,
                    type=_TYPES[CYCLE[name].base.str[1:]],
                    label=_PROTO.LABEL_OPTIONAL,
                )
        elif CYCLE[name].base.kind == "S":
            field.type = _PROTO.TYPE_STRING
        else:
            field.type = _TYPES[CYCLE[name].base.str[1:]]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("grasp_servo.Cycle")
    made: Callable[[], Message] = message_factory.GetMessageClass(found)
    return made


def to_cycle(record: np.void, new: Callable[[], Message]) -> Message:
    """A record of CYCLE as a message. Arrays of which nothing is known are left out."""
    message = new()
    for name in CYCLE.names or ():
        value = record[name]
        if name in _LEFT_OUT:
            continue
        if not CYCLE[name].shape:
            setattr(message, name, value.decode() if isinstance(value, bytes) else value.item())
        elif not np.isnan(value).all():
            getattr(message, name).extend(value.ravel().tolist())
    for name in _NAMED:
        inner = getattr(message, name)
        for field, value in zip(inner.DESCRIPTOR.fields, record[name].tolist(), strict=False):
            if value == value:  # not NaN
                setattr(inner, field.name, value)
    return message


def from_cycle(message: Message, record: np.void) -> None:
    """A message into a record of CYCLE, all but its view."""
    for name in CYCLE.names or ():
        if name in _LEFT_OUT or not hasattr(message, name):
            continue
        value = getattr(message, name)
        if not CYCLE[name].shape:
            record[name] = value
        else:
            known = len(value) == _BLANK[name].size
            record[name] = np.reshape(value, CYCLE[name].shape) if known else _BLANK[name]
    for name in _NAMED:
        if message.HasField(name):
            inner = getattr(message, name)
            # only what was set: a stage that was not run stays unknown, and did not take 0 ms
            for field, value in inner.ListFields():
                if field.number <= CYCLE[name].shape[0]:
                    record[name][field.number - 1] = value


def topics(header: dict[str, Any]) -> dict[str, Callable[[], Message]]:
    """The class of every topic's messages."""
    return {
        "/cycle": cycle_class(header),
        "/view/image": RawImage,
        "/view/calibration": CameraCalibration,
        "/view/points": PointCloud,
        "/tf": FrameTransforms,
        "/candidates": PosesInFrame,
        "/log": Log,
    }


class Translator:
    """Records as messages, one after the other: it knows the phase before."""

    def __init__(self, header: dict[str, Any], new_cycle: Callable[[], Message]) -> None:
        self.header, self._new_cycle = header, new_cycle
        # A cycle's time is the robot's; the wall clock's is this much later.
        self.offset_ns = int(header.get("unix_ns", 0)) - int(header.get("robot_now_ns", 0))
        self._units = {e["name"]: e for e in header.get("guard", []) if isinstance(e, dict)}
        self._phase = b""
        self._calibrated_ns = self._points_ns = 0

    def __call__(self, record: np.void) -> Iterator[tuple[str, Message]]:
        """(topic, message) for everything that a record says."""
        unix_ns = int(record["stamp_ns"]) + self.offset_ns
        yield "/cycle", to_cycle(record, self._new_cycle)
        transforms = _transforms(record, unix_ns)
        if transforms.transforms:  # rerun drops a whole chunk of messages without any
            yield "/tf", transforms
        seen_ns = unix_ns
        if record["frame"] >= 0:
            seen_ns = int(record["frame_stamp_ns"]) + self.offset_ns
            if abs(seen_ns - self._calibrated_ns) > 10**9:  # before its view: that one needs it
                self._calibrated_ns = seen_ns
                yield "/view/calibration", self._calibration(record["view"].shape[0], seen_ns)
            yield "/view/image", _view(record["view"], seen_ns)
            if abs(seen_ns - self._points_ns) >= 1e9 / POINTS_HZ:
                self._points_ns = seen_ns
                yield "/view/points", _points(record["view"], self._focal_px(), seen_ns)
        if not np.isnan(record["distances"][0]):
            yield "/candidates", _candidates(record, seen_ns)
        if record["guard_name"]:
            yield "/log", self._guard_event(record, unix_ns)
        if record["phase"] != self._phase:
            self._phase = record["phase"]
            yield "/log", log(unix_ns, Log.INFO, "phase", self._phase.decode())

    def _guard_event(self, record: np.void, unix_ns: int) -> Message:
        name, action = record["guard_name"].decode(), record["guard_action"].decode()
        unit = self._units.get(name, {}).get("unit", "")
        text = (
            f"cycle {record['cycle']}: {name}: {record['guard_value']:.4g} {unit}, "
            f"limit {record['guard_limit']:g}: {action}"
        )
        level = {"stop": Log.ERROR, "hold": Log.WARNING}.get(action, Log.INFO)
        return log(unix_ns, level, "guard", text)

    def _focal_px(self) -> float:
        return float(self.header.get("view", {}).get("focal_px") or BLANK["view"].shape[-1])

    def _calibration(self, size_px: int, unix_ns: int) -> Message:
        f = self._focal_px()
        c = size_px / 2 - 0.5
        message = CameraCalibration(frame_id="hand", width=size_px, height=size_px)
        message.timestamp.FromNanoseconds(max(unix_ns, 0))
        message.K.extend([f, 0, c, 0, f, c, 0, 0, 1])
        message.R.extend([1, 0, 0, 0, 1, 0, 0, 0, 1])
        message.P.extend([f, 0, c, 0, 0, f, c, 0, 0, 0, 1, 0])
        return message


def log(unix_ns: int, level: Any, name: str, text: str) -> Message:
    """A line of the log."""
    message = Log(level=level, name=name, message=text)
    message.timestamp.FromNanoseconds(max(unix_ns, 0))
    return message


def _view(view: NDArray[np.float32], unix_ns: int) -> Message:
    height, width = view.shape
    message = RawImage(
        frame_id="hand",
        width=width,
        height=height,
        encoding="32FC1",
        step=4 * width,
        data=view.astype("<f4").tobytes(),
    )
    message.timestamp.FromNanoseconds(max(unix_ns, 0))
    return message


def _points(view: NDArray[np.float32], focal_px: float, unix_ns: int) -> Message:
    """The returns of a view in the frame `hand`, x, y, z float32."""
    v, u = np.nonzero(view > 0)
    z, centre = view[v, u], (view.shape[0] - 1) / 2
    xyz = np.stack([(u - centre) * z / focal_px, (v - centre) * z / focal_px, z], axis=1)
    message = PointCloud(frame_id="hand", point_stride=12, data=xyz.astype("<f4").tobytes())
    message.timestamp.FromNanoseconds(max(unix_ns, 0))
    message.pose.orientation.w = 1.0
    for k, name in enumerate("xyz"):
        message.fields.add(name=name, offset=4 * k, type=PackedElementField.FLOAT32)
    return message


def to_view(message: Message) -> NDArray[np.float32]:
    """The image of a /view message."""
    return np.frombuffer(message.data, "<f4").reshape(message.height, message.width)


def _transforms(record: np.void, unix_ns: int) -> Message:
    message = FrameTransforms()
    known: list[tuple[str, NDArray[np.float64]]] = []
    if not np.isnan(record["T_base_hand"]).any():
        known.append(("hand", record["T_base_hand"]))
    elif not np.isnan(record["hand"]).any():
        known.append(("hand", top_down(*record["hand"])))
    for name in ("command", "goal"):
        if not np.isnan(record[name]).any():
            known.append((name, top_down(*record[name])))
    if not known:
        return message
    turns = Rotation.from_matrix(np.stack([T[:3, :3] for _, T in known])).as_quat().tolist()
    for (name, T), turn in zip(known, turns, strict=True):  # x, y, z, w
        transform = message.transforms.add(parent_frame_id="base", child_frame_id=name)
        transform.timestamp.FromNanoseconds(max(unix_ns, 0))
        _place(transform.translation, transform.rotation, T[:3, 3].tolist(), turn)
    return message


def _candidates(record: np.void, unix_ns: int) -> Message:
    message = PosesInFrame(frame_id="hand")
    message.timestamp.FromNanoseconds(max(unix_ns, 0))
    for x, y, theta in record["candidates"][~np.isnan(record["distances"])].tolist():
        pose = message.poses.add()
        turn = (0.0, 0.0, float(np.sin(theta / 2)), float(np.cos(theta / 2)))
        _place(pose.position, pose.orientation, (x, y, 0.0), turn)
    return message


def _place(where: Any, turn: Any, position: Sequence[float], quaternion: Sequence[float]) -> None:
    where.x, where.y, where.z = (float(v) for v in position)
    turn.x, turn.y, turn.z, turn.w = quaternion
