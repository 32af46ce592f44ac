"""rt.record: what was put is in the file, whatever happens to the loop, the writer or the disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flights import cycle, header
from mcap.reader import make_reader

from rt.record.recorder import FLUSH_S, Recorder, RecordError, read_record
from rt.record.schema import BLANK, CYCLE

LOOP = """
import sys, time
from flights import cycle, header
from rt.record.recorder import Recorder
with Recorder(sys.argv[1], header()) as recorder:
    for k in range(10_000):
        recorder.put(**cycle(k))
        print(k, recorder._process.pid, flush=True)
        time.sleep(0.01)
"""


def record(path: Path, count: int = 20) -> Recorder:
    with Recorder(path, header()) as recorder:
        for k in range(count):
            event = {"guard_name": "speed", "guard_action": "clamp", "guard_value": 0.7}
            recorder.put(**cycle(k), **(event if k == 7 else {}), guard_limit=0.5)
    return recorder


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flight") / "flight.mcap"
    recorder = record(path)
    assert (recorder.dropped, recorder.error) == (0, "")
    return path


def test_everything_put_is_read_back_bit_by_bit(flight: Path) -> None:
    read = read_record(flight)
    assert read.whole and read.lost == 0 and len(read.cycles) == 20
    assert read.header["cell"] == {"name": "made up"} and read.header["hand"]["opening_m"] > 0
    for k, got in enumerate(read.cycles):
        put = {**cycle(k), "stamp_ns": got["stamp_ns"], "frame_stamp_ns": got["frame_stamp_ns"]}
        for name in CYCLE.names or ():
            if name.startswith("guard") or name == "stage_ms":
                continue
            wanted = np.asarray(put.get(name, BLANK[0][name])).astype(CYCLE[name].base)
            assert np.array_equal(got[name], wanted, equal_nan=wanted.dtype.kind == "f"), name
    assert [s.tolist() for s in read.stages.values()][3] == [6.0 + k for k in range(20)]
    assert read.cycles["guard_name"][7] == b"speed" and read.cycles["guard_value"][7] == 0.7
    assert read.log == [
        "phase: approach",
        "guard: cycle 7: speed: 0.7 m/s, limit 0.5: clamp",
        "end: the loop ended",
    ]


def test_a_stage_that_was_not_run_stays_unknown(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    times = np.full(CYCLE["stage_ms"].shape, np.nan, np.float32)
    times[1] = 2.0
    with Recorder(path, header()) as recorder:
        recorder.put(**{**cycle(0), "stage_ms": times})
    decision = [float(s[0]) for s in read_record(path).stages.values()]
    assert decision[1] == 2.0 and np.isnan(decision[0]) and np.isnan(decision[2:]).all()


def test_viewers_find_standard_schemas_on_the_wall_clock(flight: Path) -> None:
    with flight.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        schemas = {
            channel.topic: summary.schemas[channel.schema_id].name
            for channel in summary.channels.values()
        }
        assert schemas == {
            "/cycle": "grasp_servo.Cycle",
            "/view/image": "foxglove.RawImage",
            "/view/calibration": "foxglove.CameraCalibration",
            "/view/points": "foxglove.PointCloud",
            "/tf": "foxglove.FrameTransforms",
            "/candidates": "foxglove.PosesInFrame",
            "/log": "foxglove.Log",
        }
        counts = {
            summary.channels[i].topic: n
            for i, n in summary.statistics.channel_message_counts.items()
        }
        for topic in ("/cycle", "/view/image", "/tf", "/candidates"):
            assert counts[topic] == 20
        assert abs(summary.statistics.message_start_time - flight.stat().st_mtime_ns) < 120e9


def test_messages_hold_what_a_viewer_draws(flight: Path) -> None:
    from mcap_protobuf.decoder import DecoderFactory

    with flight.open("rb") as file:
        decoded = make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
        first = {channel.topic: message for _, channel, _, message in reversed(list(decoded))}
    wanted, image = cycle(0), first["/view/image"]
    assert (image.encoding, image.width, image.step) == ("32FC1", 64, 256)
    assert np.array_equal(np.frombuffer(image.data, "<f4").reshape(64, 64), wanted["view"])
    frames = {t.child_frame_id: t for t in first["/tf"].transforms}
    assert set(frames) == {"hand", "command", "goal"}
    assert frames["hand"].translation.z == pytest.approx(0.3)
    # z along the approach: a hand that looks down is turned by half a turn about a level axis.
    assert abs(frames["hand"].rotation.w) < 1e-9 and abs(frames["hand"].rotation.z) < 1e-9
    pose = first["/candidates"].poses[1]
    assert [pose.position.x, pose.position.y] == pytest.approx(wanted["candidates"][1, :2].tolist())
    assert 2 * np.arctan2(pose.orientation.z, pose.orientation.w) == pytest.approx(
        wanted["candidates"][1, 2], abs=1e-6
    )
    assert first["/cycle"].stage_ms.distance == 3.0
    camera = first["/view/calibration"]
    assert camera.K[0] == pytest.approx(32 / np.tan(np.radians(35)))
    points = first["/view/points"]
    assert camera.frame_id == image.frame_id == points.frame_id == first["/candidates"].frame_id
    # the candidates are of the view: both carry its exposure, not the cycle's time
    stamps = {m.timestamp.ToNanoseconds() for m in (first["/candidates"], image, points)}
    assert len(stamps) == 1
    xyz = np.frombuffer(points.data, "<f4").reshape(-1, 3)
    v, u = np.nonzero(wanted["view"] > 0)
    np.testing.assert_array_equal(xyz[:, 2], wanted["view"][v, u])
    np.testing.assert_allclose(xyz[:, 0] * camera.K[0] / xyz[:, 2] + camera.K[2], u, atol=1e-4)
    np.testing.assert_allclose(xyz[:, 1] * camera.K[4] / xyz[:, 2] + camera.K[5], v, atol=1e-4)


def test_records_of_before_are_read(flight: Path, tmp_path: Path) -> None:
    """Their view was on the topic /view, its calibration on /calibration."""
    from mcap.writer import Writer

    old = tmp_path / "old.mcap"
    with flight.open("rb") as source, old.open("wb") as file:
        reader, writer, channels = make_reader(source), Writer(file), {}
        writer.start(library="grasp-servo")
        for metadata in reader.iter_metadata():
            writer.add_metadata(metadata.name, dict(metadata.metadata))
        for schema, channel, message in reader.iter_messages(log_time_order=False):
            topic = {"/view/image": "/view", "/view/calibration": "/calibration"}.get(
                channel.topic, channel.topic
            )
            if topic == "/view/points":
                continue
            if topic not in channels:
                number = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[topic] = writer.register_channel(topic, "protobuf", number)
            writer.add_message(
                channels[topic],
                message.log_time,
                message.data,
                message.publish_time,
                message.sequence,
            )
        writer.finish()
    now, before = read_record(flight).cycles, read_record(old).cycles
    assert len(before) == len(now) == 20
    assert before.tobytes() == now.tobytes()


def test_what_a_viewer_cannot_use_is_not_written(tmp_path: Path) -> None:
    """No message without a transform (rerun drops the others of its chunk), no view before its camera."""
    with Recorder(tmp_path / "flight.mcap", header()) as recorder:
        recorder.put(cycle=0, stamp_ns=time.monotonic_ns(), phase=b"start")
        for k in range(1, 5):
            recorder.put(**cycle(k))
        recorder.put(cycle=5, stamp_ns=time.monotonic_ns(), phase=b"end")
    with (tmp_path / "flight.mcap").open("rb") as file:
        topics = [c.topic for _, c, _ in make_reader(file).iter_messages(log_time_order=False)]
    assert topics.count("/tf") == 4 and topics.count("/cycle") == 6
    assert topics.index("/view/calibration") < topics.index("/view/image")


def start_loop(path: Path) -> tuple[subprocess.Popen[str], int]:
    """A loop in a process of its own, and its writer's process number, after a second of cycles."""
    loop = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"tests{os.pathsep}."},
    )
    assert loop.stdout is not None
    until = time.monotonic() + 60
    while time.monotonic() < until:
        k, writer = (int(word) for word in loop.stdout.readline().split())
        if k >= 60:
            return loop, writer
    raise TimeoutError


def wait_for_end(pid: int) -> None:
    """Of a process that is not our child."""
    until = time.monotonic() + 30
    while time.monotonic() < until and Path(f"/proc/{pid}").exists():
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.02)


def test_after_a_sigkill_of_the_loop_every_cycle_it_put_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    loop, writer = start_loop(path)
    assert loop.stdout is not None
    loop.kill()
    last = [int(line.split()[0]) for line in loop.stdout.read().splitlines() if line.count(" ")]
    loop.wait(10)
    loop.stdout.close()
    wait_for_end(writer)
    read = read_record(path)
    assert read.whole and read.lost == 0
    assert read.cycles["cycle"].tolist() == list(range(len(read.cycles)))
    assert len(read.cycles) >= (last[-1] if last else 60)
    assert read.log[-1] == "end: the loop's process is gone: killed or crashed"


def test_after_a_sigkill_of_both_all_but_the_last_second_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    loop, writer = start_loop(path)
    assert loop.stdout is not None
    began = time.monotonic()
    while time.monotonic() < began + FLUSH_S + 0.5:
        k = int(loop.stdout.readline().split()[0])
    os.kill(writer, signal.SIGKILL)
    loop.kill()
    loop.wait(10)
    loop.stdout.close()
    read = read_record(path)
    assert not read.whole
    assert len(read.cycles) >= 60 and k > 60
    assert (read.cycles["view"][:, 0, 0] > 0).all()


def test_a_file_cut_anywhere_is_read_as_far_as_it_goes(flight: Path, tmp_path: Path) -> None:
    whole = flight.read_bytes()
    cut = tmp_path / "cut.mcap"
    lengths = []
    for size in np.linspace(len(whole) // 200, len(whole), 12).astype(int):
        cut.write_bytes(whole[:size])
        try:
            read = read_record(cut)
        except RecordError:
            lengths.append(-1)
            continue
        lengths.append(len(read.cycles))
    assert lengths == sorted(lengths) and lengths[-1] == 20 and lengths[0] <= 0


def test_a_full_disk_ends_the_record_and_not_the_run(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    with Recorder(path, header()) as recorder:
        assert recorder._process is not None
        resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE, (300_000, 300_000))
        k = 0
        until = time.monotonic() + 30
        while not recorder.error and time.monotonic() < until:
            recorder.put(**cycle(k))
            k += 1
            time.sleep(0.005)
        recorder.put(**cycle(k))  # nobody reads it; nothing waits
    assert recorder.error == f"disk full: File too large: {path}"
    assert path.stat().st_size <= 300_000
    read = read_record(path)
    assert not read.whole and read.cycles["cycle"].tolist() == list(range(len(read.cycles)))


def test_a_file_that_cannot_be_opened_is_refused_before_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(RecordError, match="cannot write: No such file or directory"),
        Recorder(tmp_path / "missing" / "flight.mcap", header()),
    ):
        raise AssertionError
    with pytest.raises(RecordError, match="disk full"), Recorder("/dev/full", header()):
        raise AssertionError
    assert not list(Path("/dev/shm").glob(f"grasp-servo-{os.getpid()}-*"))


def test_a_killed_writer_is_named_and_does_not_stop_the_loop(tmp_path: Path) -> None:
    with Recorder(tmp_path / "flight.mcap", header(), slots=4) as recorder:
        assert recorder._process is not None and recorder.error == ""
        recorder._process.kill()
        recorder._process.wait(10)
        for k in range(10):
            recorder.put(**cycle(k))
    assert recorder.error == "the recorder was killed by SIGKILL"


def test_a_ring_without_a_file_needs_no_writer() -> None:
    with Recorder(None, header()) as recorder:
        recorder.put(**cycle(0))
    assert (recorder.dropped, recorder.error) == (0, "")


@pytest.mark.parametrize("content", [None, b"", b"not a record at all, and longer than its magic"])
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.mcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match=r"other\.mcap"):
        read_record(path)


def test_a_pipe_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordError, match="is a pipe"), Recorder(tmp_path / "pipe", header()):
        raise AssertionError
