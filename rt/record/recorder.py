"""The flight record: every cycle of a run in one MCAP file, which Foxglove and rerun open.

The loop puts cycles into a ring (rt.record.ring); a process of its own (`-m rt.record.recorder RING FILE`)
writes them. A cycle is in the file half a second after its put at the latest, so the file can be read
after the loop, or the writer, was killed: `read_record` takes whole and broken-off files alike. A full
disk ends the record and not the run: `Recorder.error` says so.

    with Recorder(folder / "flight.mcap", flight_header(...)) as recorder:
        recorder.put(cycle=0, stamp_ns=..., view=view, ...)
    print(recorder.dropped, recorder.error)
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rt.distance.contract import Contract
from rt.record.ring import DONE, FAILED, READY, Reader, Ring, RingError
from rt.record.schema import BLANK, CYCLE

FORMAT = "grasp-servo-flight/1"
FLUSH_S = 0.5
"""Longest time from a cycle to the file."""

_START_S = 60.0
"""Longest start of the writer, which imports its libraries on a busy machine."""
_END_S = 20.0
"""Longest time for the writer to finish."""
_CHUNK_BYTES = 1 << 20


class RecordError(RuntimeError):
    """A record that cannot be begun, or that is none."""


def flight_header(
    *,
    config: Any,
    cell: Mapping[str, Any],
    contract: Contract,
    model: str,
    backend: str,
    candidates: int,
    stages: Sequence[str],
    guard: Iterable[Any],
    robot_now_ns: int,
) -> dict[str, Any]:
    """Header of a record, about the whole flight.

    config: the command's dataclass, or a mapping; cell: name and info; model: the file's path; guard:
    rows with name, action and unit (rt.guard.ROWS); robot_now_ns: Robot.now_ns() now, which ties the
    robot's clock to the wall clock.
    """
    values = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    return {
        "format": FORMAT,
        "config": _plain(values),
        "cell": _plain(cell),
        "model": {
            "path": model,
            "weights_sha256": contract.weights_sha256,
            "training_set": contract.training_set,
            "backend": backend,
            "candidates": candidates,
        },
        "hand": asdict(contract.hand),
        "view": {**asdict(contract.view), "focal_px": contract.view.focal_px},
        "stages": list(stages),
        "guard": [{"name": row.name, "action": str(row.action), "unit": row.unit} for row in guard],
        "robot_now_ns": int(robot_now_ns),
        "unix_ns": time.time_ns(),
    }


def _plain(value: Any) -> Any:
    """For JSON."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


class Recorder:
    """The loop's end of a flight record: a ring, and the process that writes it to a file."""

    def __init__(
        self, path: str | Path | None, header: Mapping[str, Any], slots: int = 2048
    ) -> None:
        """path: the file; None for a ring without a file, for others to read. slots: cycles that may wait
        for a writer whom a busy computer keeps waiting; 2048 take 38 MB and last 68 s at 30 Hz."""
        self.path = None if path is None else Path(path)
        self._header, self._slots = header, slots
        self._process: subprocess.Popen[bytes] | None = None
        self._over: tuple[int, str] | None = None

    def __enter__(self) -> Recorder:
        """Returns when the file is open and its header written. Raises RecordError or RingError."""
        if self.path is not None and self.path.is_fifo():  # opening it would wait for a reader
            raise RecordError(f"cannot write: {self.path} is a pipe; give a file")
        self.ring = Ring(self._header, self._slots)
        self.put = self.ring.put
        try:
            if self.path is not None:
                self._start(self.path)
        except BaseException:
            self._end()
            raise
        return self

    def _start(self, path: Path) -> None:
        # A session of its own: Ctrl-C in the terminal is for the loop.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rt.record.recorder", self.ring.name, str(path.absolute())],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + _START_S
        while self.ring.fare("recorder").state != READY:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RecordError(self.error or f"the recorder did not start in {_START_S:g} s")
            time.sleep(0.005)

    @property
    def dropped(self) -> int:
        """Cycles that the writer came too late for."""
        return self._over[0] if self._over else self.ring.fare("recorder").lost

    @property
    def error(self) -> str:
        """Why the record ended early, or empty."""
        if self._over is not None:
            return self._over[1]
        fare = self.ring.fare("recorder")
        if fare.state == FAILED:
            return fare.error
        code = None if self._process is None else self._process.poll()
        if code is None or (code == 0 and fare.state == DONE):
            return ""
        if code < 0:
            return f"the recorder was killed by {signal.Signals(-code).name}"
        return f"the recorder ended with exit code {code}"

    def _end(self) -> None:
        self.ring.finish()
        late = ""
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                late = f"the recorder had not written everything after {_END_S:g} s"
                self._process.kill()
                self._process.wait()
        self._over = (self.dropped, late or self.error)
        self.ring.close()

    def __exit__(self, *_: object) -> None:
        """Waits until the file is complete."""
        self._end()


@dataclass
class FlightRecord:
    """A record in memory."""

    header: dict[str, Any]
    cycles: NDArray[np.void]
    """(n,) of ring.CYCLE, in order; `cycles["hand"]` is (n, 4). A cycle without a frame has no view."""
    log: list[str] = field(default_factory=list)
    """Guard events, changes of phase, the end."""
    whole: bool = False
    """True if its writer finished it."""
    lost: int = 0
    """Cycles that never reached the writer."""

    @property
    def stages(self) -> dict[str, NDArray[np.float32]]:
        """Times of each stage (n,) [ms]; NaN where a cycle did not come to it."""
        columns: NDArray[np.float32] = self.cycles["stage_ms"]
        return {name: columns[:, i] for i, name in enumerate(self.header.get("stages", []))}


def read_record(path: str | Path) -> FlightRecord:
    """Read a flight record; one that was broken off is read as far as it goes.

    Raises RecordError for a file that is missing, or no flight record.
    """
    from mcap.records import Channel, Metadata, Schema
    from mcap.records import Message as McapMessage
    from mcap.stream_reader import StreamReader
    from mcap_protobuf.decoder import DecoderFactory

    from rt.record.mcap_format import VIEW_TOPICS, from_cycle, to_view

    header: dict[str, Any] | None = None
    lost, whole = 0, False
    schemas: dict[int, Schema] = {}
    decoders: dict[int, tuple[str, Callable[[bytes], Any]]] = {}
    rows: list[NDArray[np.void]] = []
    log: list[str] = []
    at: dict[int, int] = {}
    factory = DecoderFactory()

    def records() -> Iterator[Any]:
        with Path(path).open("rb") as file:
            yield from StreamReader(file, record_size_limit=1 << 28).records

    try:
        for record in records():
            if isinstance(record, Metadata) and record.name == "flight":
                header = json.loads(record.metadata["header"])
            elif isinstance(record, Metadata) and record.name == "end":
                lost = int(record.metadata.get("lost", 0))
                whole = True
            elif isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel) and record.topic in ("/cycle", *VIEW_TOPICS, "/log"):
                schema = schemas.get(record.schema_id)
                decoder = factory.decoder_for(record.message_encoding, schema)
                if decoder is not None:
                    decoders[record.id] = (record.topic, decoder)
            elif isinstance(record, McapMessage) and record.channel_id in decoders:
                topic, decode = decoders[record.channel_id]
                message = decode(record.data)
                if topic == "/cycle":
                    at[record.sequence] = len(rows)
                    rows.append(BLANK.copy())
                    from_cycle(message, rows[-1][0])
                elif topic in VIEW_TOPICS and record.sequence in at:
                    rows[at[record.sequence]]["view"] = to_view(message)
                elif topic == "/log":
                    log.append(f"{message.name}: {message.message}")
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
    except Exception as error:  # a file broken off, or damaged, in its middle raises anything
        if header is None:
            raise RecordError(f"{path} is no flight record ({error or 'broken off'})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise RecordError(f"{path} is no flight record of format {FORMAT!r}")
    cycles = np.concatenate(rows) if rows else np.zeros(0, CYCLE)
    return FlightRecord(header, cycles, log, whole, lost)


def write(ring: Reader, path: Path) -> None:
    """Write a ring to a file until its producer is gone and all is written. Raises OSError; what was
    flushed before stays readable."""
    from foxglove_schemas_protobuf.Log_pb2 import Log
    from mcap.writer import Writer
    from mcap_protobuf.schema import register_schema

    from rt.record.mcap_format import Translator, log, topics

    classes = topics(ring.header)
    translate = Translator(ring.header, classes["/cycle"])
    with path.open("wb") as file:
        writer: Any = Writer(file, chunk_size=_CHUNK_BYTES)
        writer.start(library="grasp-servo")
        writer.add_metadata("flight", {"header": json.dumps(ring.header)})
        channels = {
            topic: writer.register_channel(topic, "protobuf", register_schema(writer, kind))
            for topic, kind in classes.items()
        }

        def add(topic: str, unix_ns: int, number: int, message: Any) -> None:
            data = message.SerializeToString()
            writer.add_message(channels[topic], max(unix_ns, 0), data, max(unix_ns, 0), number)

        def flush() -> int:
            # To the kernel, which outlives us; a wait for the disk could take longer than the ring lasts.
            writer.flush()
            file.flush()
            return file.tell()

        good = flush()
        ring.say(READY)
        number, unix_ns, due = 0, int(ring.header.get("unix_ns", 0)), time.monotonic() + FLUSH_S
        try:
            for records in ring.follow():
                for record in records:
                    unix_ns = int(record["stamp_ns"]) + translate.offset_ns
                    for topic, message in translate(record):
                        add(topic, unix_ns, number, message)
                    number += 1
                if time.monotonic() >= due:
                    good, due = flush(), time.monotonic() + FLUSH_S
            why = (
                "the loop ended" if ring.closed else "the loop's process is gone: killed or crashed"
            )
            level = Log.INFO if ring.closed else Log.FATAL
            add("/log", unix_ns, number, log(unix_ns, level, "end", why))
            writer.add_metadata("end", {"why": why, "written": str(number), "lost": str(ring.lost)})
            writer.finish()
            file.flush()
            os.fdatasync(file.fileno())
        except OSError:
            file.raw.close()  # with what it still has in memory
            _cut(path, good)
            raise


def _cut(path: Path, size: int) -> None:
    """Drop what was half written when the disk was full."""
    try:
        os.truncate(path, size)
    except OSError as error:
        print(f"rt.record: {path} keeps a broken end: {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """The recorder's process: RING FILE. Started by Recorder; ends by itself when the loop has."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 2:
        print(
            "usage: python -m rt.record.recorder RING FILE (started by the loop)", file=sys.stderr
        )
        return 2
    # It ends when the loop does, however that is told to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        ring = Reader(given[0], role="recorder")
    except RingError as error:
        print(f"rt.record: {error}", file=sys.stderr)
        return 1
    with ring:
        try:
            write(ring, Path(given[1]))
        except (OSError, ImportError) as error:
            ring.say(FAILED, _what_happened(error, Path(given[1])))
            return 3
        ring.say(DONE)
    return 0


def _what_happened(error: Exception, path: Path) -> str:
    if isinstance(error, ImportError):
        return f"the recorder lacks a library ({error}); pip install grasp-servo again"
    number = cast(OSError, error).errno
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{'disk full' if full else 'cannot write'}: {os.strerror(number or 0)}: {path}"


if __name__ == "__main__":
    sys.exit(main())
