"""The live page: what the loop sees, wants and does, in a browser, from a process of its own.

`start(ring_name)` opens it beside a running loop, `review(...)` over a flight record. The loop puts its
cycles into a ring (rt.record.ring) without waiting; this process takes what it can draw, at low priority,
and asks for pause, slow, stop and restart by a byte each. Nothing is fetched from the network: the page
and its scripts come with viser.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
import webbrowser
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from rt.page import PageError
from rt.record.ring import CONTROL, DONE, FAILED, READY, Reader, RingError
from rt.record.schema import simulated
from rt.tools.command import parsed
from rt.tools.process import Child

if TYPE_CHECKING:
    import viser

UPDATES_HZ = 20.0
_NICE = 10
_ALONE_S = 10.0
"""Time that the page stays after the loop's end if no browser is connected."""
_STARTS_WITHIN_S = 60.0
_REMEMBERED = 450
"""Cycles before a moment of a recording that charts and trail show."""


class Page:
    """A page in its own process, from the loop's side. Nothing here waits unless it says so."""

    def __init__(self, child: Child, url: str) -> None:
        self.child, self.url = child, url
        self._said: list[str] = []

    @property
    def alive(self) -> bool:
        return self.child.code is None

    def follow(self, ring_name: str) -> None:
        """Show another loop's ring from now on."""
        self.child.write_line(ring_name)

    def said(self, word: str, within_s: float = 0.0) -> bool:
        """True if the page has said a word since the last call. Waits for it up to `within_s`, while the page
        lives. `watched`: a browser has opened the page; `drawn`: it says that it has drawn it; `start`: START
        was pressed; `restart`: a new scene is wanted."""
        until = time.monotonic() + within_s
        while word not in self._said:
            left_s = until - time.monotonic()
            lines = self.child.lines(min(max(left_s, 0.0), 0.2))
            self._said += lines
            if word not in self._said and not lines and (left_s <= 0 or not self.alive):
                return False
        self._said.remove(word)
        return True

    def close(self) -> None:
        """End the process; the browser says that it lost the connection."""
        self.child.end(3.0)

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
    arguments = [ring_name, "--port", str(port), "--host", host]
    child = Child("rt.page.server", arguments, writes=True, reads=True, one_thread=True)
    page = Page(child, child.first_line(_STARTS_WITHIN_S))
    if not page.url.startswith("http"):
        page.close()
        raise PageError(
            f"the page did not start within {_STARTS_WITHIN_S:g} s (its process {child.end_text}); see the "
            "message above, or run without --view"
        )
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
    server.gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(38, 103, 201))
    return server


def _url(host: str, port: int) -> str:
    return f"http://{'localhost' if host in ('0.0.0.0', '127.0.0.1') else host}:{port}"


class Buttons:
    """Requests of the page to the loop. A robot has one large stop button, the twin all of them; a job
    (rt.clear) has pause, step and skip on both."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._twin = simulated(reader.header)
        self.job = "tries" in (reader.header.get("config") or {})
        self.asked: dict[str, int] = dict.fromkeys(CONTROL, 0)

    def turn_to(self, reader: Reader) -> None:
        """Another run: nothing is asked of it but what was switched on."""
        self._reader = reader
        self.asked["stop"] = 0
        for word in ("pause", "slow"):
            reader.ask(word, self.asked[word])

    def add(self, gui: viser.GuiApi) -> None:
        from rt.page.panel import big_button

        stop = 44 if self._twin else 110
        if not self._twin:
            big_button(gui, "START", "green", 44, lambda: _say("start"))
        big_button(gui, "STOP", "red", stop, lambda: self._ask("stop", 1))
        if not self._twin:
            gui.add_html(
                "<div style='padding:0 10px 6px;font-size:11px;color:#6b7280'>Stops the motion through the "
                "loop. It is no emergency stop: keep that in your hand.</div>"
            )
        if self.job:
            group = gui.add_button_group("job", ("pause", "step", "skip"))
        elif self._twin:
            group = gui.add_button_group("twin", ("pause", "slow", "new scene"))
        else:
            return
        group.on_click(lambda _: self.press(group.value))

    def press(self, word: str) -> None:
        """A button with that word was pressed."""
        if word == "new scene":
            self.asked["pause"] = 0
            self._ask("stop", 1)
            _say("restart")
        elif word in ("step", "skip"):  # the job answers each of them
            self._reader.ask(word, 1)
        else:
            self._ask(word, 0 if self.now()[word] else 1)

    def now(self) -> dict[str, int]:
        """Requests to the loop now, of the page or the keyboard, by word of CONTROL."""
        self.asked = self._reader.asked()
        return self.asked

    def choose(self, target: tuple[float, float, float] | None) -> None:
        """The object at x, y [m] in base, seen at a time [s], is wanted; None: any."""
        self._reader.ask_target(target)

    def _ask(self, word: str, value: int) -> None:
        self._reader.ask(word, value)
        self.asked[word] = value


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the loop may be gone
        print(line, flush=True)


def _say_drawn(server: viser.ViserServer) -> None:
    """Say `drawn` once a browser has drawn the page: it answers a picture of its canvas, which it makes after
    all that it was sent before. A thread of its own waits for it, as long as the browser takes."""
    for client in server.get_clients().values():
        with contextlib.suppress(Exception):  # it may leave meanwhile
            client.get_render(height=16, width=16, transport_format="jpeg")
            _say("drawn")
            return


def _other_ring() -> Reader | None:
    """The ring that the loop's process names on the standard input, if it does so now."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return None
    name = sys.stdin.readline().strip()
    with contextlib.suppress(RingError):
        return Reader(name, "page") if name else None
    return None


def follow(reader: Reader, server: viser.ViserServer) -> None:
    """Draw what comes, one ring after another, until the loop is gone and nobody looks any more."""
    from rt.page.display import Display
    from rt.page.panel import state

    buttons = Buttons(reader)
    choose = None if buttons.job else buttons.choose  # a job takes everything
    display = Display(server, reader.header, buttons.add, choose)
    pace = UpdateRate(server)
    reader.say(READY)
    last = shown = None
    came = alone = time.monotonic()
    decision, watched, rested = 0.0, False, False
    while True:
        if (other := _other_ring()) is not None:
            reader.close()
            reader = other
            reader.say(READY)
            buttons.turn_to(reader)
            display.forget()
        over, records, now = reader.over, reader.read(256), time.monotonic()
        for record in records:
            display.see(record)
            if np.isfinite(record["hand"]).all():
                shown = record
        if len(records):
            last, came = records[-1], now
        if pace.watched and not watched:
            _say("watched")
            threading.Thread(target=_say_drawn, args=(server,), daemon=True).start()
        watched = pace.watched
        if watched and (len(records) or now - decision > 0.25):
            decision = now
            with server.atomic():
                if shown is not None and (len(records) or (over and not rested)):
                    rested = over and not len(records)  # the last picture is whole
                    display.draw(shown, everything=rested)
                words = state(last, age_s=now - came, over=over, asked=buttons.now())
                rate_hz = pace.drawn(bool(len(records)))
                lost = {"page": f"{rate_hz:.0f}/s", "dropped": str(reader.lost)}
                display.tell(words, shown, lost)
        if watched or not over or len(records):
            alone = now
        elif now - alone > _ALONE_S:
            reader.say(DONE)
            return
        pace.wait()


def review(
    header: Mapping[str, Any],
    records: NDArray[np.void],
    *,
    port: int = 8080,
    host: str = "127.0.0.1",
    open_browser: bool = False,
) -> None:
    """The same page over recorded cycles ((n,) of rt.record.schema.CYCLE), with a time slider; until
    Ctrl-C. Raises PageError."""
    if not len(records):
        raise PageError("there is no cycle in this record")
    server = serve(host, port)
    from rt.page.display import Display
    from rt.page.panel import state
    from rt.page.player import Player

    player = Player(records["stamp_ns"].tolist())
    display = Display(server, header, player.add)
    pace, shown = UpdateRate(server), -1
    url = _url(host, server.get_port())
    try:
        print(f"the flight is shown at {url}; Ctrl-C ends it", flush=True)
        if open_browser:
            webbrowser.open(url)
        while True:
            k = player.step(time.monotonic())
            if pace.watched and k != shown:
                if not shown < k <= shown + _REMEMBERED:
                    display.forget()
                    shown = max(-1, k - _REMEMBERED)
                for record in (records[i] for i in range(shown + 1, k + 1)):
                    display.see(record)
                with server.atomic():
                    display.draw(records[k], everything=not player.playing)
                    words = state(records[k], age_s=0.0, over=False, asked={})
                    display.tell(words, records[k], {"time": player.time(k)})
                shown = k
            pace.wait()
    except KeyboardInterrupt:
        server.stop()


class UpdateRate:
    """Absolute deadlines at UPDATES_HZ. A draw that took longer skips slots, and leaves others a fifth
    of its time."""

    def __init__(self, server: viser.ViserServer) -> None:
        self._server, self._drawn = server, deque[float](maxlen=100)
        self._began = self._deadline = time.monotonic()

    @property
    def watched(self) -> bool:
        """True if a browser is connected."""
        return bool(self._server.get_clients())

    def drawn(self, whether: bool) -> float:
        """Counts an update; returns how many a second there were in the last two [Hz]."""
        now = time.monotonic()
        if whether:
            self._drawn.append(now)
        return sum(now - t < 2.0 for t in self._drawn) / 2

    def wait(self) -> None:
        now = time.monotonic()
        self._deadline = max(self._deadline + 1 / UPDATES_HZ, now + 0.2 * (now - self._began))
        time.sleep(max(self._deadline - now, 0.002))
        self._began = time.monotonic()


@dataclass(frozen=True)
class PageOptions:
    """The live page of a loop that runs (rt.servo --view starts it by itself).

    Example: python -m rt.page.server grasp-servo-1234-5678abcd --port 8080
    """

    ring: tyro.conf.Positional[str]
    """Name of the loop's ring."""
    port: int = 8080
    """First TCP port to try."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other computers look, and press stop."""


def _be_modest() -> None:
    """Lower this process's priority. A session of its own is also a scheduling group of its own where
    the kernel groups by session (autogroup), and there only the group's nice value counts."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        if os.getsid(0) == os.getpid():  # started by hand it would slow the whole terminal down
            Path("/proc/self/autogroup").write_text(str(_NICE))


def main() -> int:
    config = parsed(PageOptions, "python -m rt.page.server")
    _be_modest()
    reader = None
    try:
        reader = Reader(config.ring, "page")
        server = serve(config.host, config.port)
        _say(_url(config.host, server.get_port()))
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
