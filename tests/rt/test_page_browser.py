"""rt.page in a real browser: the page is drawn, changes, and its button stops the loop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from needs import NO_CHROMIUM, needed
from pages import HEADER, record

from rt.record.schema import CYCLE

needed("view", "viser")


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


PATIENT = ("--rate", "8", "--limits.max-missed-in-a-row", "1000")
"""A browser that draws without a GPU takes every processor: late cycles must not end the run."""


def test_a_browser_draws_it_sees_it_change_and_its_stop_button_stops_the_loop(
    tmp_path: Path,
) -> None:
    browser_or_skip()
    command = [sys.executable, "-m", "rt.servo", "--view", "--view-port", "8761"]
    command += ["--iterations", "10000", "--candidates", "64", *PATIENT, "--out", str(tmp_path)]
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


def test_the_buttons_of_a_job_in_a_browser(tmp_path: Path) -> None:
    """rt.clear on a small table: pause and go on, skip, one step, stop; the page stays until nobody looks."""
    browser_or_skip()
    command = [sys.executable, "-m", "rt.clear", "--view", "--view-port", "8771", "--objects", "2"]
    command += ["--candidates", "64", *PATIENT]
    errors = (tmp_path / "said").open("w+")
    environment = {**os.environ, "BROWSER": "true"}
    command += ["--out", str(tmp_path)]
    with (
        errors,
        subprocess.Popen(command, stdout=errors, stderr=errors, env=environment) as job,
    ):
        try:
            with browsed(address(job, tmp_path / "said"), []) as view:
                press_and_look(view)
            assert job.wait(120) == 1, (tmp_path / "said").read_text()
        finally:
            job.kill()
    told = json.loads((tmp_path / "clear.json").read_text())
    outcomes = [attempt["outcome"] for attempt in told["attempts"]]
    assert outcomes[0] == "skipped" and len(outcomes) == 2 and told["placed"] == 1
    assert told["outcome"] == "stopped" and "operator_stop" in told["reason"]


def press_and_look(view: Any) -> None:
    state = "document.querySelector('#grasp-servo-state')?.innerText"

    def press(name: str) -> None:
        view.get_by_role("button", name=name, exact=True).click(no_wait_after=True, timeout=60_000)

    wait_for(view, f"/LOOK|TRAVEL|APPROACH/.test({state})")
    press("pause")
    wait_for(view, f"{state}.includes('PAUSED') || {state}.includes('holds its target')")
    press("pause")
    wait_for(view, f"/TRAVEL|APPROACH/.test({state})")
    press("skip")
    wait_for(view, "document.body.innerText.includes('0 of 2')")
    press("step")  # this pick, then it waits
    wait_for(view, f"{state}.includes('CARRY')")
    wait_for(view, f"{state}.includes('PAUSED')")
    assert view.get_by_text("Any object").count() == 0  # nothing is to be chosen in a job
    view.screenshot(path=Path("runs/test_page/job.png"), timeout=240_000)
    press("STOP")
    wait_for(view, f"{state}.includes('STOPPED') && {state}.includes('operator_stop')")


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
    choose(view)
    view.get_by_role("button", name="STOP").click(no_wait_after=True)
    wait_for(view, f"{state}.includes('STOPPED') && {state}.includes('operator_stop')")


def choose(view: Any) -> None:
    """A click on the drawn view names the wanted object, another one another, and a button any."""
    words = "document.querySelector('#grasp-servo-choice-words')?.innerText"
    picture = view.evaluate("""() => {
        const mark = document.querySelector('#grasp-servo-choice');
        const after = (e) => mark.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING;
        const image = [...document.querySelectorAll('img')].find(
          (e) => after(e) && e.src.startsWith('blob:'));
        const box = image.getBoundingClientRect();
        return [box.x, box.y, box.width, box.height] }""")
    told = set()
    for part in (0.3, 0.6):
        before = view.evaluate(words)
        view.mouse.click(picture[0] + part * picture[2], picture[1] + 0.5 * picture[3])
        wait_for(view, f"(before) => {words} !== before", arg=before)
        told.add(view.evaluate(words))
    assert len(told) == 2 and all("Wanted: the object at" in line for line in told)
    view.get_by_role("button", name="Any object").click(no_wait_after=True)
    wait_for(view, f"{words}.includes('Any object')")


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
