"""The parsers that are fuzzed: each target is a function of bytes that returns or raises its own error.

Any other exception, a hang and unbounded growth are findings. The bytes of a peer arrive through `Peer`, a
socket whose other end is the input. A target that reads a file or a text returns whether it was accepted.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rt.cell.file import EXAMPLE, load_cell
from rt.cell.transform import CellError
from rt.distance.contract import Contract, ModelError, read_model
from rt.gripper import GripperError
from rt.gripper.robotiq import _Line
from rt.hand import HandError, load_hand, load_tip_travel
from rt.record.mcap_format import log, to_cycle, topics
from rt.record.recorder import FORMAT, RecordError, read_record
from rt.record.schema import BLANK
from rt.robot.ur.link import UrError, _read_line
from sim.hardware.robotiq import GripperEmulator
from sim.hardware.ur.channel import Channel
from sim.hardware.ur.controller import MODELS, EmulatedController
from sim.hardware.ur.wire import Dashboard, Line, Rtde, Script

Target = Callable[[bytes], bool | None]
_TICK_EVERY = 16
"""Inputs for each tick of the emulated controller: a tick costs more than most inputs."""
HANDS = Path(load_hand.__code__.co_filename).parent / "hands"


@dataclass(frozen=True)
class Fuzzed:
    """One parser."""

    run: Callable[[], Target]
    """Makes the target: what is dear is made once."""
    seeds: Callable[[], list[bytes]]
    """Inputs to begin with."""
    longest: int = 4096
    """Of an input [bytes]."""


class Peer:
    """A socket whose other end sends some bytes and closes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def recv(self, size: int, flags: int = 0) -> bytes:
        part = self.data[:size]
        if not flags & socket.MSG_PEEK:
            self.data = self.data[size:]
        return part

    def sendall(self, data: bytes) -> None:
        pass

    def send(self, data: bytes) -> int:
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        pass

    def setblocking(self, yes: bool) -> None:
        pass

    def close(self) -> None:
        pass


def _emulated(kind: type[Line]) -> Callable[[], Target]:
    def made() -> Target:
        controller = EmulatedController(MODELS["cb3"], np.eye(4), None, 0.004, 8.0, 4.0)
        count = itertools.count()
        server: Any = SimpleNamespace(
            controller=controller, now_s=lambda: controller.time_s, close=lambda line: None
        )

        def run(data: bytes) -> None:
            peer: Any = Peer(data)
            line = kind(server, peer)
            while peer.data:
                line.readable()
            line.readable()  # its end
            if isinstance(line, Rtde) and line.fields:
                line.publish(again=False)
            assert len(line.got) <= line.most_bytes
            if next(count) % _TICK_EVERY == 0:
                _tick(controller)

        return run

    return made


def _channel() -> Target:
    controller = EmulatedController(MODELS["cb3"], np.eye(4), None, 0.004, 8.0, 4.0)
    channel = Channel.__new__(Channel)
    server: Any = SimpleNamespace(
        controller=controller, lines=[], listening=[1], slow_every=1, frozen=False, frozen_time=False,
        drop=lambda: None, refuse=lambda: None, listen=lambda: None,
    )  # fmt: skip
    channel.server, channel.controller, channel.gripper_fault = server, controller, ""
    channel.monotonic_ns, channel.quit = lambda: 0, SimpleNamespace(set=lambda: None)  # type: ignore[assignment]

    def run(data: bytes) -> None:
        words = data.decode(errors="replace").split()
        if words:
            with suppress(ValueError, IndexError, TypeError):
                channel.do(words[0], words[1:])
        _tick(controller)

    return run


def _tick(controller: EmulatedController) -> None:
    controller.tick()
    assert np.isfinite(controller.arm.q).all()
    if controller.safety != "normal":
        controller.clear()


def _gripper_emulator() -> Target:
    emulator = GripperEmulator("127.0.0.1", 0, None)

    def run(data: bytes) -> None:
        assert isinstance(emulator.answer(data.decode(errors="replace").strip()), bytes)
        assert 0 <= emulator.travel_m <= 0.014

    return run


def _gripper_driver() -> Target:
    def run(data: bytes) -> None:
        line = _Line("", 0, 0.05)
        line._socket = Peer(data)  # type: ignore[assignment]
        with suppress(GripperError):
            while True:
                line.get("POS")
                line.set("SET POS 255 GTO 1")

    return run


def _dashboard_driver() -> Target:
    def run(data: bytes) -> None:
        peer: Any = Peer(data)
        with suppress(OSError, UrError):
            while peer.data:
                assert len(_read_line(peer, 0.2)) <= 3 * 4096  # a replaced byte is three

    return run


def _of_file(
    name: str, read: Callable[[Path], object], *errors: type[Exception]
) -> Callable[[], Target]:
    def made() -> Target:
        file = os.memfd_create(name)
        path = Path(f"/proc/self/fd/{file}")
        if name.endswith(".toml"):
            path = Path(tempfile.mkdtemp(prefix="fuzz-")) / name
            path.symlink_to(f"/proc/{os.getpid()}/fd/{file}")
            atexit.register(shutil.rmtree, path.parent, ignore_errors=True)

        def run(data: bytes) -> bool:
            os.ftruncate(file, len(data))
            os.pwrite(file, data, 0)
            with suppress(*errors):
                read(path)
                return True
            return False

        return run

    return made


def _contract() -> Target:
    def run(data: bytes) -> bool:
        with suppress(ModelError):
            Contract.from_json(data.decode(errors="replace"))
            return True
        return False

    return run


def _hand(path: Path) -> None:
    load_hand(path)
    load_tip_travel(path)


def _packets() -> list[bytes]:
    def packet(kind: bytes, payload: bytes) -> bytes:
        return (len(payload) + 3).to_bytes(2, "big") + kind + payload

    registers = b",".join(b"input_double_register_%d" % k for k in range(11))
    recipe = packet(b"I", b"input_int_register_0," + registers)
    order = b"\1" + (24).to_bytes(4, "big") + np.linspace(0.1, 0.5, 11).astype(">f8").tobytes()
    outputs = np.array([125.0], ">f8").tobytes() + b"timestamp,actual_q,output_int_register_0,"
    return [
        packet(b"V", b"\0\2") + packet(b"v", b"") + packet(b"O", outputs) + packet(b"S", b""),
        recipe + packet(b"U", order),
        recipe + packet(b"P", b""),
    ]


def _record() -> list[bytes]:
    """A small flight record, cut at several places."""
    import io

    from mcap.writer import CompressionType, Writer
    from mcap_protobuf.schema import register_schema

    header = {"format": FORMAT, "stages": ["whole"], "guard": ["force"]}
    classes = topics(header)
    cycle, said = to_cycle(BLANK[0], classes["/cycle"]), log(1, 2, "force", "12 N")
    made = io.BytesIO()
    writer: Any = Writer(made, compression=CompressionType.NONE)
    writer.start(library="grasp-servo")
    writer.add_metadata("flight", {"header": json.dumps(header)})
    for topic, message in (("/cycle", cycle), ("/log", said)):
        channel = writer.register_channel(
            topic, "protobuf", register_schema(writer, classes[topic])
        )
        writer.add_message(channel, 1, message.SerializeToString(), 1, 1)
    writer.add_metadata("end", {"why": "over", "written": "1", "lost": "0"})
    writer.finish()
    whole = made.getvalue()
    return [whole, whole[:60], whole[: len(whole) // 2], whole[:-20]]


def _model() -> list[bytes]:
    """A model whose weights are small enough to mutate: another architecture, one weight."""
    from onnx import TensorProto, helper

    contract = Contract(hand=load_hand(), training_set="fuzz", architecture="own")
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["actions"], ["distance"], keepdims=0)],
        "own",
        [
            tensor("depth", TensorProto.FLOAT, [1, 1, 64, 64]),
            tensor("actions", TensorProto.FLOAT, ["N", 3]),
        ],
        [tensor("distance", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])],
    )
    model = helper.make_model(graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = "contract", contract.to_json()
    return [model.SerializeToString()]


def _cells() -> list[bytes]:
    """The example without its comments, and its parts: short inputs are fast."""
    lines = [line.partition("#")[0].strip() for line in EXAMPLE.read_text().splitlines()]
    whole = "\n".join(line for line in lines if line)
    parts = re.split(r"(?m)^(?=\[)", whole)
    return [whole.encode(), *(part.encode() for part in parts if part)]


def _hands() -> list[bytes]:
    return [path.read_bytes() for path in HANDS.glob("*.toml")]


_GRIPPER = [b"POS 120\nack", b"POS 3\n", b"POS ?\n", b"ackPOS 255\nack"]
TARGETS: dict[str, Fuzzed] = {
    "rtde": Fuzzed(_emulated(Rtde), _packets),
    "script": Fuzzed(_emulated(Script), lambda: [b"def rtde_control():\n  sync()\nend\n", b"x end"]),
    "dashboard": Fuzzed(_emulated(Dashboard), lambda: [b"PolyscopeVersion\nstop\n", b"robotmode\n"], 512),
    "channel": Fuzzed(_channel, lambda: [b"push 1 2 3", b"log 1", b"slider 0.5", b"place 0 0 0 0 0 0"], 256),
    "gripper": Fuzzed(_gripper_emulator, lambda: [b"GET POS", b"SET POS 255 SPE 255 FOR 50 GTO 1"], 256),
    "gripper_driver": Fuzzed(_gripper_driver, lambda: _GRIPPER, 512),
    "dashboard_driver": Fuzzed(_dashboard_driver, lambda: [b"URSoftware 5.11.0\n", b"x" * 5000], 6000),
    "cell": Fuzzed(_of_file("cell.toml", load_cell, CellError), _cells, 2048),
    "hand": Fuzzed(_of_file("hand.toml", _hand, HandError), _hands),
    "contract": Fuzzed(_contract, lambda: [Contract(load_hand(), "x").to_json().encode()]),
    "model": Fuzzed(_of_file("model", read_model, ModelError), _model),
    "record": Fuzzed(_of_file("record", read_record, RecordError), _record, 8192),
}  # fmt: skip
"""Every parser of ours, by name."""
