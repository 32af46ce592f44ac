"""The live page: what the loop sees, wants and does, in a browser, from a process of its own.

`start(ring_name)` opens it beside a running loop, `review(...)` over a flight record. The loop puts its
cycles into a ring (rt.ring) and waits for nobody; this process takes what it can draw, at low priority,
and asks for pause, slow, stop and restart by a byte each. Nothing is fetched from the network: the page
and its scripts come with viser.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from rt.controller import RATIO
from rt.distance import Distance, DistanceError, open_model
from rt.hand import Hand, HandError, load_hand
from rt.ring import CONTROL, DONE, FAILED, READY, Reader, RingError

if TYPE_CHECKING:
    import viser

UPDATES_HZ = 20.0
FIELD_SHARE = 0.1
"""Most of a processor's time that the distance field may take: a slow backend draws it less often."""
_NICE = 10
_LINGER_S = 600.0
"""How long the page stays for a browser that still looks at it when the loop is gone."""
_STARTS_WITHIN_S = 30.0


class PageError(RuntimeError):
    """A page that cannot be shown: viser is missing, the port is taken, the ring is gone."""


@dataclass
class Page:
    """A page in its own process."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process; the browser says that it lost the connection."""
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(3.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(3.0)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(
    ring_name: str, *, port: int = 8080, host: str = "127.0.0.1", open_browser: bool = False
) -> Page:
    """Open the page beside the loop whose ring this is; returns when it can be visited.

    port: the first one tried; `url` says which was free. Only this computer can reach it unless `host`
    is another address: whoever reaches it can stop the arm. Raises PageError.
    """
    command = [sys.executable, "-m", "rt.page", ring_name, "--port", str(port), "--host", host]
    # A session of its own: Ctrl-C in the terminal is for the loop, which then closes the page.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    line = b""
    if select.select([process.stdout], [], [], _STARTS_WITHIN_S)[0]:
        line = process.stdout.readline()
    page = Page(process, "")
    try:
        page.url = json.loads(line)["url"]
    except (ValueError, KeyError):
        page.close()
        raise PageError(
            f"the page did not start (exit code {process.returncode}); see the message above, or run "
            "without --view"
        ) from None
    if open_browser:
        # In a thread: finding a browser may take seconds.
        threading.Thread(target=webbrowser.open, args=(page.url,), daemon=True).start()
    return page


def serve(host: str, port: int) -> viser.ViserServer:
    """An empty page. Raises PageError if viser is missing or no port is free."""
    try:
        import viser
    except ImportError as error:
        raise PageError(
            f"the page needs viser ({error}): pip install 'grasp-servo[view]'"
        ) from error
    if not 0 < port < 65536:
        raise PageError(f"port = {port} must be from 1 to 65535")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # viser greets on the terminal
            server = viser.ViserServer(host=host, port=port, label="grasp-servo", verbose=False)
    except OSError as error:
        raise PageError(f"no page at {host}:{port}: {error}; give another --port") from error
    server.gui.configure_theme(
        show_logo=False, show_share_button=False, brand_color=(38, 103, 201)
    )
    return server


class FieldSource:
    """The model that the loop runs, here with one thread, and how often it may be asked."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.distance: Distance | None = None
        self.why = ""
        self._next = 0.0
        model = header.get("model") or {}
        path = model.get("path") if isinstance(model, Mapping) else model
        try:
            self.distance = open_model(path, threads=1)
        except (DistanceError, OSError) as error:
            self.why = f"no field: {error}"

    def __call__(
        self, view: NDArray[np.float32], theta: float, depth_m: float
    ) -> NDArray[np.float32] | None:
        """The field (CELLS, CELLS) [m]; None where it is not its turn or cannot be had."""
        from rt.page_picture import field

        now = time.monotonic()
        if self.distance is None or now < self._next:
            return None
        try:
            result = field(self.distance, view, theta, depth_m)
        except DistanceError as error:
            self.why = f"no field: {error}"
            return None
        # Processor time, so that a busy machine does not make it rarer still.
        self._next = now + (time.monotonic() - now) * (1 / FIELD_SHARE - 1) if FIELD_SHARE else now
        return result


class Display:
    """The page's content: `see` every record, `draw` the one to be looked at."""

    def __init__(
        self,
        server: viser.ViserServer,
        header: Mapping[str, Any],
        buttons: Callable[[viser.GuiApi], None],
    ) -> None:
        from rt import page_panel as panel
        from rt.page_scene import Scene

        self._panel, gui = panel, server.gui
        config = header.get("config") or {}
        self._hand = _hand(header)
        self._field = FieldSource(header)
        self._last_field: NDArray[np.float32] | None = None
        self.scene = Scene(server, self._hand, float(config.get("ratio", RATIO)))
        stages = [str(s) for s in header.get("stages", ())]
        self._history = panel.History(stages)
        self._lamps = panel.Lamps(panel.guard_rows(header))
        self._cycle, self._drawn_frame = -1, -2
        gui.main_panel.dock_right()
        gui.main_panel.set_width(400)
        self._banner = gui.add_html("")
        buttons(gui)
        self._picture = panel.Picture(gui)
        left = gui.add_panel()
        shown = [k for k, name in enumerate(stages) if name != "world"]
        with left.add_tab("Strip charts"):
            self._charts = panel.Charts(gui, stages or ["-"], shown or [0])
            self._guard = gui.add_html("")
        left.dock_left()
        left.set_width(400)

    def see(self, record: Any) -> None:
        """One record, in order, whether it is drawn or not."""
        if int(record["cycle"]) < self._cycle:
            self.forget()
        self._cycle = int(record["cycle"])
        self.scene.remember(record)
        self._history.append(record)
        self._lamps.see(record)

    def forget(self) -> None:
        """Another approach, or another moment of a recording."""
        self.scene.forget()
        self._history.clear()
        self._drawn_frame, self._last_field = -2, None

    def draw(self, record: Any, every_chart: bool = False) -> None:
        """Everything but the banner, for one record that was seen."""
        self.scene.show(record)
        self._charts.show(self._history, every_chart)
        self._guard.content = self._lamps.html()
        if int(record["frame"]) not in (-1, self._drawn_frame):
            self._drawn_frame = int(record["frame"])
            self._draw_picture(record)

    def tell(self, words: tuple[str, str, str], record: Any | None, extra: dict[str, str]) -> None:
        """The banner."""
        self._banner.content = self._panel.banner(*words, record, extra)

    def _draw_picture(self, record: Any) -> None:
        from rt import page_picture as pictures

        view, action = np.array(record["view"]), np.array(record["action"])
        known = bool(np.isfinite(action).all())
        depth = pictures.surface_depth(view, action[:2] if known else np.zeros(2))
        picture = pictures.relief(view)
        fresh = self._field(view, float(action[2]) if known else 0.0, depth)
        self._last_field = fresh if fresh is not None else self._last_field
        note = self._field.why
        if self._last_field is not None and not note:
            picture = pictures.overlay(picture, self._last_field)
            note = f"field at θ = {np.degrees(action[2]):.0f}°, at {depth * 1e3:.0f} mm depth" if known else ""
        picture = pictures.draw(
            picture, depth, record["candidates"], record["distances"], action, self._hand
        )
        self._picture.show(picture, note)


def _hand(header: Mapping[str, Any]) -> Hand:
    """The hand that the header describes, or the default."""
    described = header.get("hand")
    try:
        if isinstance(described, Mapping):
            return Hand(**described)
        return load_hand(described) if described else load_hand()
    except (HandError, TypeError):
        return load_hand()


class Buttons:
    """What the page asks of the loop. A robot has one large stop; the twin may be played with."""

    def __init__(self, reader: Reader, header: Mapping[str, Any]) -> None:
        self._reader, self._twin = reader, header.get("robot", "twin") == "twin"
        self.asked: dict[str, int] = dict.fromkeys(CONTROL, 0)
        self._labels: dict[str, Any] = {}

    def add(self, gui: viser.GuiApi) -> None:
        from rt.page_panel import big_button

        stop = 44 if self._twin else 110
        big_button(gui, "STOP", "red", stop, lambda: self._ask("stop", 1))
        if not self._twin:
            gui.add_html(
                "<div style='padding:0 10px 6px;font-size:11px;color:#6b7280'>Stops the motion through the "
                "loop. It is no emergency stop: keep that in your hand.</div>"
            )
            return
        words = ("pause", "slow", "restart")
        group = gui.add_button_group("twin", ("pause", "slow", "new scene"))

        @group.on_click
        def _(_: Any) -> None:
            word = words[("pause", "slow", "new scene").index(group.value)]
            if word == "restart":
                self.asked |= {"stop": 0, "pause": 0}
                self._reader.ask("pause", 0)
                self._ask("restart", 1)
            else:
                self._ask(word, 0 if self.asked[word] else 1)

    def _ask(self, word: str, value: int) -> None:
        self._reader.ask(word, value)
        self.asked[word] = value


def follow(reader: Reader, server: viser.ViserServer) -> None:
    """Draw what comes until the loop is gone and nobody looks any more."""
    buttons = Buttons(reader, reader.header)
    display = Display(server, reader.header, buttons.add)
    reader.say(READY)
    last: np.void | None = None
    came = drawn_s = time.monotonic()
    ended: float | None = None
    drawn: list[float] = []
    parent = os.getppid()
    deadline = time.monotonic()
    while True:
        over = reader.over
        records = reader.read(256)
        now = time.monotonic()
        clients = len(server.get_clients())
        for record in records:
            display.see(record)
        if len(records):
            last, came = records[-1], now
            if int(last["cycle"]) == 0 or buttons.asked["restart"]:
                buttons.asked["restart"] = 0
        if clients and (len(records) or now - drawn_s > 0.25):
            from rt.page_panel import state

            with server.atomic():
                if len(records):
                    display.draw(last)
                    drawn.append(now)
                words = state(last, age_s=now - came, over=over, asked=buttons.asked)
                drawn = [t for t in drawn if now - t < 2.0]
                extra = {"page": f"{len(drawn) / 2:.0f}/s", "dropped": str(reader.lost)}
                display.tell(words, last, extra)
            drawn_s = now
        if over and not len(records):
            ended = ended or now
            reader.say(DONE)
            gone = os.getppid() != parent
            if gone and (not clients or now - ended > _LINGER_S) and now - ended > 5.0:
                return
        # Absolute deadlines; a draw that took longer skips slots, and leaves others half of its time.
        took = time.monotonic() - now
        deadline = max(deadline + 1 / UPDATES_HZ, now + 1.25 * took)
        time.sleep(max(deadline - time.monotonic(), 0.002))


@dataclass(frozen=True)
class Config:
    """The live page of a loop that runs (rt.servo --view starts it by itself).

    Example: python -m rt.page grasp-servo-1234-5678abcd --port 8080
    """

    ring: tyro.conf.Positional[str]
    """Name of the loop's ring."""
    port: int = 8080
    """First TCP port to try."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other computers look, and press stop."""


def main() -> int:
    config = tyro.cli(Config, prog="python -m rt.page")
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    reader = None
    try:
        reader = Reader(config.ring, "page")
        server = serve(config.host, config.port)
        shown = "localhost" if config.host in ("0.0.0.0", "127.0.0.1") else config.host
        print(json.dumps({"url": f"http://{shown}:{server.get_port()}"}), flush=True)
        follow(reader, server)
    except KeyboardInterrupt:
        return 130
    except (PageError, RingError) as error:
        if reader is not None:
            reader.say(FAILED, str(error))
        print(f"rt.page: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
