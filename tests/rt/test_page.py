"""rt.page: the picture puts things where they are, lamps and banner tell the truth, and a real browser
draws it, sees it change, and stops the loop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import NO_CHROMIUM, needed
from numpy.typing import NDArray
from PIL import Image

from rt.guard.rows import ROWS
from rt.hand import load_hand
from rt.page.picture import (
    CHOSEN,
    COLOURS,
    HAND,
    SIDE_PX,
    draw,
    field,
    relief,
    surface_depth,
    veil,
)
from rt.page.server import PageError, start
from rt.pose import top_down
from rt.record.ring import Ring
from rt.record.schema import BLANK, CYCLE, best_candidates
from rt.view import END_HEIGHT_M, VIEW

STAGES = ("camera", "view", "distance", "whole")
HEADER: dict[str, Any] = {
    "cell": {"name": "twin"},
    "stages": STAGES,
    "guard": [{"name": r.name, "action": r.action.value, "unit": r.unit} for r in ROWS],
}
GOAL = np.array([0.05, -0.03, 0.15, 0.4])


def view_of_a_box(hand: NDArray[np.float64]) -> NDArray[np.float32]:
    """A box of 6 by 3 cm, 5 cm high, that lies at GOAL on the table, seen by a hand at x, y, z, yaw."""
    rays = VIEW.rays().astype(np.float64)
    T = top_down(*hand)
    view = np.zeros((64, 64), np.float32)
    for depth, half in ((hand[2], None), (hand[2] - 0.05, (0.03, 0.015))):
        points = rays * depth @ T[:3, :3].T + T[:3, 3]
        c, s = np.cos(GOAL[3]), np.sin(GOAL[3])
        x, y = points[..., 0] - GOAL[0], points[..., 1] - GOAL[1]
        inside = np.ones(x.shape, bool)
        if half is not None:
            inside = (abs(x * c + y * s) < half[0]) & (abs(y * c - x * s) < half[1])
        view[inside] = depth
    return view


def record(k: int, of: int = 60) -> NDArray[np.void]:
    """Cycle k of a synthetic approach, (1,) of CYCLE: the hand goes to GOAL and down."""
    row = BLANK.copy()
    done = min(k / of, 1.0)
    hand = np.array([-0.04, 0.04, 0.30, 0.0]) * (1 - done) + GOAL * done
    rng = np.random.default_rng(k)
    actions = rng.normal(0, 0.02, (200, 3)).astype(np.float32)
    away = np.linalg.norm(GOAL[:2] - hand[:2])
    values = {
        "cycle": k,
        "stamp_ns": 10**9 + k * 33_333_333,
        "phase": "approach",
        "hand": hand,
        "T_base_hand": top_down(*hand),
        "goal": GOAL,
        "command": hand,
        "frame": k,
        "frame_stamp_ns": 10**9 + k * 33_333_333,
        "frame_age_s": 0.03,
        "view": view_of_a_box(hand),
        "weighed": 200,
        "action": [0.01, 0.005, 0.2],
        "predicted_m": away + 0.004,
        "predicted_best_m": away * 0.5,
        "true_m": away,
        "slack_s": 0.028,
        "missed": 0,
        "held": 0,
    }
    for name, value in values.items():
        row[name] = value
    row["candidates"], row["distances"] = best_candidates(
        actions, np.linalg.norm(actions, axis=1).astype(np.float32)
    )
    row["stage_ms"][0, : len(STAGES)] = (0.3, 0.2, 2.0 + rng.random(), 3.0)
    return row


# The picture.


def to_a_point(at: tuple[float, float]) -> Any:
    def distance(depth: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.linalg.norm(actions[:, :2] - np.float32(at), axis=1).astype(np.float32)

    return distance


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(0.15, 0.3))
def test_the_field_is_least_where_the_view_sees_the_goal(x: float, y: float, depth: float) -> None:
    at = VIEW.intrinsics
    u, v = (x * at.fx_px / depth + at.cx_px + 0.5, y * at.fy_px / depth + at.cy_px + 0.5)
    if not (1 < u < 63 and 1 < v < 63):
        return
    values = field(to_a_point((x, y)), np.full((64, 64), depth, np.float32), 0.0, depth)
    row, column = np.unravel_index(int(values.argmin()), values.shape)
    cell = VIEW.size_px / len(values)
    assert (
        abs((column + 0.5) * cell - u) <= 0.51 * cell and abs((row + 0.5) * cell - v) <= 0.51 * cell
    )


def test_the_overlay_is_bright_at_a_grasp_and_dark_far_from_it() -> None:
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), (150, 150, 150))
    values = field(to_a_point((0.05, 0.0)), np.full((64, 64), 0.2, np.float32), 0.0, 0.2)
    layer = veil(values)
    image.paste(layer, (0, 0), layer)
    picture = np.asarray(image).astype(int)
    near = picture[SIDE_PX // 2, SIDE_PX // 2 + round(0.05 * VIEW.focal_px / 0.2 * SIDE_PX / 64)]
    far = picture[SIDE_PX // 2, 4]
    assert near[0] > far[0] + 60 and near[1] > far[1] + 60
    unknown = np.asarray(veil(np.full((48, 48), np.nan, np.float32)))
    assert (unknown[..., :3] == COLOURS[-1]).all()


def test_hand_and_choice_are_drawn_where_they_are() -> None:
    def grey() -> Image.Image:
        return Image.new("RGB", (SIDE_PX, SIDE_PX), (150, 150, 150))

    nothing = np.full((4, 3), np.nan, np.float32)
    hand, depth = load_hand(), 0.25
    action = np.array([0.05, -0.03, 0.0], np.float32)
    picture = draw(grey(), depth, nothing, np.full(4, np.nan), action, hand)

    def middle(colour: tuple[int, int, int]) -> NDArray[np.float64]:
        rows, columns = np.nonzero((picture == colour).all(axis=2))
        return np.array([columns.mean(), rows.mean()])

    metre = VIEW.focal_px / depth * SIDE_PX / VIEW.size_px
    assert np.allclose(middle(CHOSEN) - middle(HAND), action[:2] * metre, atol=4)
    unknown = draw(grey(), depth, nothing, np.full(4, np.nan), np.full(3, np.nan), hand)
    assert not (unknown == CHOSEN).all(axis=2).any()


def test_no_return_is_dark_and_an_empty_view_is_drawn() -> None:
    view = np.full((64, 64), 0.3, np.float32)
    view[:, 40:] = 0
    picture = np.asarray(relief(view))
    side = len(picture)
    assert picture[:, : side // 2].min() > 90 > picture[:, -side // 8 :].max()
    empty = np.asarray(relief(np.zeros((64, 64), np.float32)))
    assert empty.shape == (side, side, 3) and empty.max() < 90


def test_surface_depth_is_that_of_the_object_under_the_action() -> None:
    hand = np.array([*GOAL[:2], 0.30, 0.0])
    view = view_of_a_box(hand)
    assert surface_depth(view, np.zeros(2)) == pytest.approx(0.25, abs=1e-6)
    assert surface_depth(view, np.array([0.1, 0.1])) == pytest.approx(0.30, abs=1e-6)
    assert surface_depth(np.zeros((64, 64), np.float32), np.zeros(2)) == VIEW.far_m


# What needs viser, but no browser.

needed("view", "viser")


def test_the_cloud_lies_where_the_table_is() -> None:
    from rt.page.scene import cloud

    hand = np.array([0.1, -0.2, 0.27, 0.7])
    points, far = cloud(view_of_a_box(hand))
    T = top_down(*hand)
    height = points @ T[2, :3] + T[2, 3]
    assert np.all((abs(height) < 1e-6) | (abs(height - 0.05) < 1e-6)) and far == np.float32(0.27)


def test_the_way_ahead_leads_from_the_command_to_the_goal_at_the_end_height() -> None:
    from rt.page.scene import way_ahead

    command = np.array([0.0, 0.0, 0.28, 0.0])
    way = way_ahead(command, GOAL, 0.2, 0.003)
    assert np.allclose(way[0, 0], command[:3], atol=1e-7)
    assert np.allclose(way[-1, 1], [*GOAL[:2], END_HEIGHT_M], atol=1e-5)
    assert np.array_equal(way[1:, 0], way[:-1, 1])
    assert len(way_ahead(command, np.full(4, np.nan), 0.2, 0.003)) == 0


def test_the_arm_is_found_by_its_name_or_by_its_joints_and_its_links_meet() -> None:
    from rt.page.arm import links, mounting
    from rt.pose import inverse
    from rt.robot.kinematics import ARMS, joint_frames

    model, q = ARMS["UR10e"], np.radians([20.0, -80, 95, -105, -90, 30])
    T_robot_base, T_flange_hand = np.eye(4), np.eye(4)
    T_robot_base[:3, 3], T_flange_hand[2, 3] = (0.1, -0.2, -0.3), 0.163
    frames = joint_frames(model, q)
    T_base_hand = inverse(T_robot_base) @ frames[6] @ T_flange_hand
    cell = {"T_robot_table": T_robot_base.tolist(), "T_flange_hand": T_flange_hand.tolist()}
    for decision in ({}, {"controller": {"arm": "UR10e"}}, {"controller": {"arm": "unknown"}}):
        found = mounting({"cell": {**cell, **decision}}, q, T_base_hand)
        assert found is not None and found.model == model
        assert np.allclose(found.T_base_robot[:3, 3], [-0.1, 0.2, 0.3])
    assert mounting({"cell": {"name": "twin"}}, q, T_base_hand) is None
    assert mounting({"cell": cell}, np.full(6, np.nan), T_base_hand) is None
    # From the base to the flange each bar begins where one before it ended, at any joints.
    reached = [np.zeros(3)]
    for T, bars in zip(frames, links(model), strict=True):
        for a, b, radius, _ in bars:
            begin, end = (T[:3, :3] @ p + T[:3, 3] for p in (a, b))
            assert min(np.linalg.norm(begin - p) for p in reached) < 1e-9 and radius > 0.02
            reached += [begin, end]
    assert np.allclose(reached[-1], frames[6, :3, 3])


def test_a_lamp_is_green_until_its_row_interferes_and_then_remembers() -> None:
    from rt.page.panel import AMBER, GREEN, RECENT_CYCLES, RED, Lamps, guard_rows

    lamps = Lamps(guard_rows(HEADER))
    names = [name for name, _ in lamps.rows]
    clamp, stop = names.index("speed"), names.index("following_error")
    lamps.see(record(0)[0])
    assert {colour for _, colour, _, _ in lamps.states()} == {GREEN}
    row = record(1)
    row["guard_counts"][0, clamp] = 1
    lamps.see(row[0])
    assert lamps.states()[clamp][1:] == (AMBER, True, 1)
    row["cycle"] = 1 + RECENT_CYCLES
    row["guard_counts"][0, stop] = 1
    lamps.see(row[0])
    assert lamps.states()[clamp][1:] == (AMBER, False, 1)
    assert lamps.states()[stop][1:] == (RED, True, 1)
    assert "speed" in lamps.html()
    lamps.see(record(0)[0])  # another run
    assert {colour for _, colour, _, _ in lamps.states()} == {GREEN}


def test_a_page_that_comes_late_does_not_light_what_is_long_past() -> None:
    from rt.page.panel import AMBER, Lamps

    lamps = Lamps([("speed", "clamp")])
    row = record(500)
    row["guard_counts"][0, 0] = 3
    lamps.see(row[0])
    assert lamps.states() == [("speed", AMBER, False, 3)]


@pytest.mark.parametrize(
    ("changes", "age_s", "over", "asked", "word"),
    [
        ({}, 0.0, False, {}, "APPROACH"),
        ({}, 0.0, False, {"slow": 1}, "APPROACH"),
        ({"guard_name": "frame_age", "guard_action": "hold"}, 0.0, False, {}, "HOLDING"),
        ({"guard_name": "force", "guard_action": "stop"}, 9.0, True, {}, "STOPPED"),
        ({}, 0.0, False, {"pause": 1}, "PAUSED"),
        ({}, 0.0, False, {"stop": 1}, "STOPPING"),
        ({}, 2.0, False, {}, "SILENT"),
        ({}, 2.0, True, {"stop": 1}, "ENDED"),
    ],
)
def test_the_banner_says_what_the_loop_does(
    changes: dict[str, Any], age_s: float, over: bool, asked: dict[str, int], word: str
) -> None:
    from rt.page.panel import banner, state

    row = record(3)
    for name, value in changes.items():
        row[name] = value
    decision = state(row[0], age_s=age_s, over=over, asked=asked)
    assert decision[0] == word
    text = banner(*decision, row[0], {"page": "20/s"})
    assert word in text and "20/s" in text
    assert banner(*decision, BLANK[0], {})  # nothing is known: dashes, no error


def test_the_banner_quotes_what_others_wrote() -> None:
    from rt.page.panel import banner

    assert "<script>" not in banner("A", "red", "<script>alert(1)</script>", None, {})


def test_charts_keep_the_last_seconds_and_begin_again_with_a_run() -> None:
    from rt.page.panel import CHART_S, History

    history = History(STAGES)
    for k in range(900):
        history.append(record(k)[0] if k % 100 == 0 else _moved(k))
    table = history.table()
    assert table.shape[1] == 5 + len(STAGES) and len(table) <= 600
    assert table[-1, 0] - table[0, 0] <= CHART_S and np.all(np.diff(table[:, 0]) > 0)
    history.append(record(0)[0])
    assert len(history.table()) == 1


def test_a_page_that_comes_after_the_last_view_still_shows_it() -> None:
    from rt.page.display import Display
    from rt.page.server import serve

    server = serve("127.0.0.1", 8871)
    try:
        display = Display(server, HEADER, lambda gui: None)
        for k in range(5):
            display.see(record(k)[0])
        last = record(5)
        last["frame"] = -1
        display.see(last[0])
        display.draw(last[0], everything=True)
        assert display._picture._image.image.std() > 5
        assert len(display.scene._cloud.points) == 64 * 64
    finally:
        server.stop()


def test_a_chart_holds_no_nan_which_would_blank_it() -> None:
    from rt.page.panel import carried

    nan = np.nan
    assert carried(np.array([nan, 3.0, nan, nan, 5.0, nan])).tolist() == [3, 3, 3, 3, 5, 5]
    assert carried(np.full(3, nan)).tolist() == [0, 0, 0]


def _moved(k: int) -> Any:
    row = BLANK.copy()
    row["cycle"], row["stamp_ns"] = k, 10**9 + k * 33_333_333
    return row[0]


def test_a_recording_plays_in_its_own_time_and_can_be_sought() -> None:
    from rt.page.player import Player

    player = Player([5 * 10**9 + k * 100_000_000 for k in range(101)])
    assert [player.step(t) for t in (50.0, 50.05, 50.1, 51.0)] == [0, 0, 1, 10]
    player.speed = 4.0
    assert player.step(52.0) == 50
    player.seek(3.0)
    assert player.step(60.0) == 30 and not player.playing
    player.toggle()
    assert player.step(100.0) == 100 and not player.playing
    player.toggle()
    assert player.step(100.0) == 0 and player.playing


# The process.


@contextmanager
def fed(header: dict[str, Any] = HEADER, rate_hz: float = 30.0) -> Iterator[tuple[Ring, Any]]:
    """A loop of sorts: a ring with a cycle every period, until a stop is asked for."""
    over, stopped = threading.Event(), threading.Event()
    rows = [record(k) for k in range(60)]
    names = [name for name in CYCLE.names or () if name != "cycle"]

    def feed(ring: Ring) -> None:
        k = 0
        while not over.wait(1 / rate_hz):
            if ring.asked("stop"):
                stopped.set()
                return
            row = rows[k % len(rows)][0]
            fields = {name: row[name] for name in names} | {"cycle": k}
            fields["stamp_ns"] = 10**9 + k * 33_333_333
            fields["frame"], fields["frame_stamp_ns"] = k, fields["stamp_ns"]
            ring.put(**fields)
            k += 1

    with Ring(header, 64) as ring:
        thread = threading.Thread(target=feed, args=(ring,), daemon=True)
        thread.start()
        try:
            yield ring, stopped
        finally:
            over.set()
            thread.join(5)


def test_the_page_is_served_from_its_own_process_and_needs_no_network() -> None:
    with fed() as (ring, _), start(ring.name, port=8731) as page:
        assert page.alive and page.process.pid != os.getpid()
        assert os.getpriority(os.PRIO_PROCESS, page.process.pid) >= 10
        text = urllib.request.urlopen(page.url, timeout=10).read()
        assert b'<div id="root">' in text
        assert b'src="http' not in text and b'rel="stylesheet" href="http' not in text
    assert not page.alive


def test_a_page_without_its_ring_says_so() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "rt.page.server", "grasp-servo-none"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "no ring" in result.stderr and "Traceback" not in result.stderr


def test_a_page_that_cannot_start_is_an_error_at_once() -> None:
    with pytest.raises(PageError, match="did not start"):
        start("grasp-servo-none")
    with Ring(HEADER, 4) as ring, pytest.raises(PageError, match="did not start"):
        start(ring.name, port=70_000)


# The browser.


def chromium() -> str | None:
    """A Chromium of this machine; playwright's own if it has been installed."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
            return path if Path(path).is_file() else None
    except ImportError:
        return None


def browser_or_skip() -> tuple[Any, str]:
    api = needed("dev", "playwright.sync_api")
    path = chromium()
    if path is None:
        pytest.skip(NO_CHROMIUM)
    return api, path


@contextmanager
def browsed(url: str, asked_for: list[str]) -> Iterator[Any]:
    api, path = browser_or_skip()
    options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options, timeout=120_000)
        view = browser.new_page(viewport={"width": 1360, "height": 860})
        view.set_default_timeout(240_000)
        view.on("request", lambda request: asked_for.append(request.url))
        view.goto(url)
        try:
            yield view
        finally:
            browser.close()


FIGURES = """() => {
  const state = document.querySelector('#grasp-servo-state');
  const images = [...document.querySelectorAll('img')].map(image => image.src);
  const charts = Object.values(window.__viserTestpoints?.uplots ?? {});
  return {state: state?.innerText ?? '', text: state?.parentElement.innerText ?? '',
          image: images.find(source => source.startsWith('blob:')) ?? '',
          charts: charts.map(c => c.chart.data[0].length)};
}"""


def test_a_browser_draws_it_sees_it_change_and_its_stop_button_stops_the_loop(
    tmp_path: Path,
) -> None:
    browser_or_skip()
    command = [sys.executable, "-m", "rt.servo", "--view", "--view-port", "8761"]
    command += ["--iterations", "10000", "--candidates", "64", "--out", str(tmp_path)]
    asked_for: list[str] = []
    errors = (tmp_path / "stderr").open("w+")
    environment = {**os.environ, "BROWSER": "true"}  # rt.servo opens none of its own
    with errors, subprocess.Popen(command, stderr=errors, env=environment) as loop:
        try:
            url = address(loop, tmp_path / "stderr")
            with browsed(url, asked_for) as view:
                look_and_stop(view)
            # Nobody looks any more: the page closes, and the command ends.
            assert loop.wait(120) == 1
        finally:
            loop.kill()
    outcome = json.loads((tmp_path / "servo.json").read_text())["outcome"]
    assert "operator_stop" in outcome
    elsewhere = [u for u in asked_for if not u.startswith((url, "data:", "blob:"))]
    assert not elsewhere, f"the page needs the network: {elsewhere}"


def address(loop: subprocess.Popen[bytes], stderr: Path) -> str:
    """Of the page, as the command tells it."""
    for _ in range(600):
        if found := re.search(r"live page is at (\S+)", stderr.read_text()):
            return found[1]
        if loop.poll() is not None:
            break
        time.sleep(0.2)
    pytest.fail(f"no page came: {stderr.read_text()}")


def look_and_stop(view: Any) -> None:
    state = "document.querySelector('#grasp-servo-state')?.innerText"
    wait_for(view, f"{state}?.includes('APPROACH')")
    first = view.evaluate(FIGURES)
    # It changes: other figures, another picture, longer charts.
    wait_for(
        view,
        f"(before) => {{ const now = ({FIGURES})(); return now.text !== before.text"
        " && now.image !== '' && now.image !== before.image"
        " && now.charts.length === 3 && Math.min(...now.charts) > 10 }",
        arg=first,
    )
    # It draws: the 3-D canvas is not of one colour.
    colours = view.evaluate("""() => {
        const canvas = document.querySelector('canvas[data-engine]');
        const small = document.createElement('canvas'); small.width = small.height = 64;
        const pen = small.getContext('2d'); pen.drawImage(canvas, 0, 0, 64, 64);
        const pixels = pen.getImageData(0, 0, 64, 64).data;
        return new Set(pixels.filter((_, k) => k % 4 === 0).map(value => value >> 4)).size }""")
    assert colours > 3
    # The screenshot, to be looked at; the loop goes on meanwhile.
    folder = Path("runs/test_page")
    folder.mkdir(parents=True, exist_ok=True)
    if view.get_by_text("Software WebGL rendering").count():
        view.locator(".mantine-Notification-closeButton").first.click(no_wait_after=True)
    view.screenshot(path=folder / "page.png", timeout=240_000)
    assert (folder / "page.png").stat().st_size > 20_000
    view.get_by_role("button", name="STOP").click(no_wait_after=True)
    wait_for(view, f"{state}.includes('STOPPED') && {state}.includes('operator_stop')")


def wait_for(view: Any, expression: str, arg: Any = None) -> None:
    """Until it holds in the page. Looked at by a timer: on a starved computer frames may not be drawn."""
    from playwright.sync_api import TimeoutError

    try:
        view.wait_for_function(expression, arg=arg, polling=250)
    except TimeoutError as error:
        pytest.fail(f"{expression} never held: {view.evaluate(FIGURES)}; {error}")


def test_a_flight_record_is_reviewed_with_a_time_slider(tmp_path: Path) -> None:
    import asyncio

    from websockets.asyncio.client import connect

    from rt.record.recorder import Recorder, read_record

    names = list(CYCLE.names or ())
    path = tmp_path / "flight.mcap"
    with Recorder(path, {"format": "grasp-servo-flight/1", **HEADER}) as recorder:
        for k in range(40):
            recorder.put(**{name: record(k)[0][name] for name in names})
    assert len(read_record(path).cycles) == 40
    command = [sys.executable, "-m", "rt.replay", str(path), "--view", "--view-port", "8781"]
    environment = {**os.environ, "BROWSER": "true", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[5].rstrip(";")
            assert url.startswith("http://localhost")

            async def greeting() -> bytes:
                async with connect(
                    url.replace("http", "ws"),
                    subprotocols=["viser-v" + viser_version()],
                    max_size=None,
                ) as socket:
                    heard = b""
                    while b"GuiSliderMessage" not in heard:
                        heard += unpacked(bytes(await asyncio.wait_for(socket.recv(), 60)))
                    return heard

            assert b"time [s]" in asyncio.run(greeting())
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()


def unpacked(message: bytes) -> bytes:
    """The compressed half of one of viser's messages: everything but arrays."""
    import zstandard

    start = message.find(b"\x28\xb5\x2f\xfd")
    return zstandard.ZstdDecompressor().decompressobj().decompress(message[start:])


def viser_version() -> str:
    return version("viser")
