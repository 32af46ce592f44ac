"""The controller's ports: RTDE on 30004, programs on 30003, the dashboard on 29999; one selector for all.

RTDE is big-endian: uint16 size (with this header), uint8 type, payload. The primary and secondary interfaces
(30001, 30002) tell the version and nothing more. A client that sends nonsense, or more than a connection may
hold unread, loses its connection; the emulator goes on.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from sim.hardware.ur.controller import PLAYING, STOPPED, EmulatedController
from sim.hardware.ur.fields import FORMATS, Value, input_type, output, values
from sim.hardware.ur.safety import SAFETY

RTDE_PORT, SCRIPT_PORT, DASHBOARD_PORT = 30004, 30003, 29999
PRIMARY_PORT, SECONDARY_PORT = 30001, 30002
_NONSENSE = (struct.error, ValueError, IndexError, KeyError, OverflowError)
"""Errors of a packet that is none."""


class Line:
    """One accepted connection. `handle` takes what came and returns what is left to complete."""

    most_bytes = 70_000
    """Longest that may be left to complete."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server, self.sock, self.got, self.unsent = server, sock, b"", b""
        sock.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send data and keep the rest that the peer does not take now; a peer that takes none is cut off."""
        self.unsent += data
        with suppress(BlockingIOError):
            try:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
            except (BrokenPipeError, ConnectionError):
                self.server.close(self)
                return
        if len(self.unsent) > 4_000_000:
            self.server.close(self)

    def readable(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.closed()
            self.server.close(self)
            return
        self.got += data
        try:
            self.handle()
        except _NONSENSE as error:
            self.cut(f"{type(error).__name__}: {error}")
        if len(self.got) > self.most_bytes:
            self.cut(f"{len(self.got)} bytes that are no message")

    def cut(self, why: str) -> None:
        """Close the connection of a client that sends nonsense."""
        self.server.controller.note(f"{type(self).__name__.lower()} connection cut: {why}"[:200])
        self.got = b""
        self.server.close(self)

    def handle(self) -> None:
        raise NotImplementedError

    def closed(self) -> None:
        """The peer has gone."""


class Rtde(Line):
    """One RTDE client."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        super().__init__(server, sock)
        self.fields: list[tuple[str, Value]] = []
        self.packing, self.every, self.started = struct.Struct(">BHB"), 1, False
        self.recipes: dict[int, tuple[list[str], struct.Struct]] = {}
        self.last = b""

    def handle(self) -> None:
        while len(self.got) >= 3:
            size, kind = struct.unpack_from(">HB", self.got)
            if size < 3:
                raise ValueError(f"a packet of {size} bytes")
            if len(self.got) < size:
                return
            payload, self.got = self.got[3:size], self.got[size:]
            self.packet(chr(kind), payload)

    def reply(self, kind: str, payload: bytes) -> None:
        self.send(struct.pack(">HB", len(payload) + 3, ord(kind)) + payload)

    def packet(self, kind: str, payload: bytes) -> None:
        c = self.server.controller
        if kind == "V":
            self.reply("V", bytes([payload == b"\0\2"]))
        elif kind == "v":
            self.reply("v", struct.pack(">4I", *c.model.version))
        elif kind == "O":
            self.outputs(payload)
        elif kind == "I":
            self.inputs(payload)
        elif kind == "S":
            self.started = True
            self.reply("S", b"\1")
        elif kind == "P":
            self.started = False
            self.reply("P", b"\1")
        elif kind == "U" and payload and payload[0] in self.recipes:
            names, packing = self.recipes[payload[0]]
            if len(payload) == packing.size + 1:
                got = dict(zip(names, packing.unpack_from(payload, 1), strict=False))
                c.receive(got, self.server.now_s())

    def outputs(self, payload: bytes) -> None:
        (rate_hz,) = struct.unpack_from(">d", payload)
        names = [n for n in payload[8:].decode().split(",") if n]
        found = [output(n) for n in names]
        types = [f[0] if f else "NOT_FOUND" for f in found]
        self.fields = [f for f in found if f]
        self.packing = struct.Struct(">HBB" + "".join(FORMATS[t] for t, _ in self.fields))
        self.every = max(1, round(self.server.controller.model.rate_hz / max(rate_hz, 1)))
        self.reply("O", b"\1" + ",".join(types).encode())

    def inputs(self, payload: bytes) -> None:
        names = [n for n in payload.decode().split(",") if n]
        types = [input_type(n) for n in names]
        if self.server.controller.in_use:
            self.reply("I", b"\0" + ",".join("IN_USE" for _ in names).encode())
            return
        number = len(self.recipes) + 1
        if number > 255:
            raise ValueError("more than 255 recipes")
        known = [(n, t) for n, t in zip(names, types, strict=True) if t in FORMATS]
        packing = struct.Struct(">" + "".join(FORMATS[t] for _, t in known))
        self.recipes[number] = ([n for n, _ in known], packing)
        self.reply("I", bytes([number]) + ",".join(types).encode())

    def publish(self, again: bool) -> None:
        """One packet of data; `again` repeats the last one as it was."""
        if not (again and self.last):
            size = self.packing.size
            got = values(self.fields, self.server.controller)
            self.last = self.packing.pack(size, ord("U"), 1, *got)
        self.send(self.last)


class Primary(Line):
    """The primary and the secondary interface: the version message alone."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        super().__init__(server, sock)
        major, minor, bugfix, build = server.controller.model.version
        name = b"URControl"
        body = struct.pack(">qbbB", 0, -2, 3, len(name)) + name
        body += struct.pack(">BBii", major, minor, bugfix, build) + b"01-01-2020, 00:00:00"
        self.send(struct.pack(">iB", len(body) + 5, 20) + body)

    def handle(self) -> None:
        self.got = b""


class Script(Line):
    """A program comes as text; it ends where its outermost block does, or with the connection."""

    most_bytes = 4_000_000

    def handle(self) -> None:
        if self.got.rstrip().endswith(b"end"):
            self.closed()

    def closed(self) -> None:
        if self.got.strip():
            self.server.controller.upload(self.got.decode(errors="replace"))
        self.got = b""


class Dashboard(Line):
    def __init__(self, server: Server, sock: socket.socket) -> None:
        super().__init__(server, sock)
        self.send(b"Connected: Universal Robots Dashboard Server\n")

    def handle(self) -> None:
        while b"\n" in self.got:
            line, self.got = self.got.split(b"\n", 1)
            self.send(self.answer(line.decode(errors="replace").strip()).encode() + b"\n")

    def answer(self, line: str) -> str:
        c, words = self.server.controller, line.lower()
        version = ".".join(str(v) for v in c.model.version[:3])
        safety = "REDUCED" if c.reduced and c.safety == "normal" else SAFETY[c.safety].word
        if words == "stop":
            if c.runtime != STOPPED:
                c.program_stop("program stopped")
            return "Stopped"
        answers = {
            "polyscopeversion": f"URSoftware {version}.{c.model.version[3]} (emulated)",
            "get serial number": "20201234567",
            "get robot model": c.model.arm.name.removesuffix("e"),  # as there
            "is in remote control": str(c.remote).lower(),
            "robotmode": f"Robotmode: {'RUNNING' if c.powered else 'POWER_OFF'}",
            "safetymode": f"Safetymode: {safety}",
            "safetystatus": f"Safetystatus: {safety}",
            "running": f"Program running: {str(c.runtime == PLAYING).lower()}",
            "programstate": f"{'PLAYING' if c.runtime == PLAYING else 'STOPPED'} rtde_control",
            "close popup": "closing popup",
            "close safety popup": "closing safety popup",
            "quit": "Disconnected",
        }
        if words.startswith(("popup", "addtolog")):
            return "showing popup"
        return answers.get(words, f"could not understand: '{line}'")


class Server:
    """Listens, serves, and publishes; `now_s` is the controller's time at this moment."""

    def __init__(
        self, address: str, controller: EmulatedController, now_s: Callable[[], float]
    ) -> None:
        self.address, self.controller, self.now_s = address, controller, now_s
        self.selector = selectors.DefaultSelector()
        self.lines: list[Line] = []
        self.listening: list[socket.socket] = []
        self.frozen = self.frozen_time = False
        self.slow_every = 1
        """Of so many packets only one is sent."""
        self.listen()

    def listen(self) -> None:
        for port, kind in (
            (RTDE_PORT, Rtde),
            (SCRIPT_PORT, Script),
            (DASHBOARD_PORT, Dashboard),
            (PRIMARY_PORT, Primary),
            (SECONDARY_PORT, Primary),
        ):
            listener = socket.create_server((self.address, port))
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, kind)
            self.listening.append(listener)

    def refuse(self) -> None:
        """Nobody can connect any more; `listen` undoes it."""
        for listener in self.listening:
            self.selector.unregister(listener)
            listener.close()
        self.listening.clear()

    def drop(self) -> None:
        """Cut every connection."""
        for line in list(self.lines):
            self.close(line)

    def close(self, line: Line) -> None:
        if line in self.lines:
            self.lines.remove(line)
            self.selector.unregister(line.sock)
            line.sock.close()

    def wait(self, seconds: float) -> None:
        """Serve what comes until then; frozen, nothing is read."""
        for key, _ in self.selector.select(max(seconds, 0)):
            if isinstance(key.fileobj, socket.socket) and key.fileobj in self.listening:
                with suppress(OSError):
                    sock, _ = key.fileobj.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    line = key.data(self, sock)
                    self.lines.append(line)
                    self.selector.register(sock, selectors.EVENT_READ, line)
            elif isinstance(key.data, Line) and key.data in self.lines:
                key.data.readable()

    def publish(self) -> None:
        """After a tick: data to every client that wants it now."""
        if self.frozen:
            return
        for line in list(self.lines):
            if isinstance(line, Rtde) and line.started:
                every = line.every * self.slow_every
                if self.controller.ticks % every == 0:
                    line.publish(again=self.frozen_time)
