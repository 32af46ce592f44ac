"""Who looks at the live page in bench.page: a client of its websocket, or a headless Chromium.

Each says `ready` over its pipe, is told the page's address, says `watching` when it sees the loop run, and
at the end sends what it has Seen. Each is a process of its own at the lowest priority: it stands for another
computer. `glance` and `client` cost next to nothing; a Chromium that draws without a GPU takes all that is
left of this one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

_CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (0.5, -0.6, 0.5),
    "fov": 0.7,
    "near": 0.01,
    "far": 1000.0,
    "image_height": 640,
    "image_width": 1000,
    "look_at": (0.0, 0.0, 0.2),
    "up_direction": (0.0, 0.0, 1.0),
}
"""What a browser says first: from then on the page counts it as one that looks."""
_RATE, _DROPPED = (
    re.compile(rf"{name}</div><div[^>]*>(\d+){unit}<")
    for name, unit in (("page", "/s"), ("dropped", ""))
)
_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--mute-audio"]
"""WebGL without a GPU: ANGLE on SwiftShader is the fastest that Chromium offers."""
_COUNTS = "/page<.div><div[^>]*>[1-9]/"
"""In JavaScript: the page counts updates, so the loop runs."""
_TELL = """() => document.querySelector('#grasp-servo-state')?.parentElement.innerHTML ?? ''"""


@dataclass
class Seen:
    """What a viewer tells at its end."""

    rates_hz: list[float] = field(default_factory=list)
    """The page's own count of its updates, as it was shown from time to time."""
    dropped: int = 0
    """Cycles that the page came too late for, as it says."""
    received_bytes: int = 0
    """By the websocket's client; 0 for a browser."""

    def look(self, html: str) -> None:
        """At the banner."""
        if found := _RATE.search(html):
            self.rates_hz.append(float(found[1]))
        if found := _DROPPED.search(html):
            self.dropped = int(found[1])


def glance(pipe: Connection, over: Any) -> None:
    """Look until the loop runs, which waits for a browser, and go."""
    _look(pipe, over, leaves=True)


def client(pipe: Connection, over: Any) -> None:
    """Read all that the page sends, as fast as it comes, and draw nothing."""
    _look(pipe, over, leaves=False)


def _look(pipe: Connection, over: Any, leaves: bool) -> None:
    import msgspec
    import zstandard

    _come_last()
    seen, unpack, watching = Seen(), zstandard.ZstdDecompressor(), False
    pipe.send("ready")
    url = pipe.recv()
    protocol: Any = f"viser-v{version('viser')}"
    options: dict[str, Any] = {"subprotocols": [protocol], "max_size": None, "compression": None}
    with connect(url.replace("http", "ws"), **options) as socket:
        socket.send(msgspec.msgpack.encode(_CAMERA))
        while not over.is_set() and not (watching and leaves):
            with suppress(TimeoutError):
                message = socket.recv(timeout=0.2)
                assert isinstance(message, bytes)
                # viser: two lengths, then the texts, compressed; then arrays
                packed = message[16 : 16 + int.from_bytes(message[8:16], "little")]
                text = unpack.decompress(packed, int.from_bytes(message[:8], "little"))
                seen.look(text.decode(errors="replace"))
                if watching:
                    seen.received_bytes += len(message)
                elif any(seen.rates_hz):
                    watching = True
                    pipe.send("watching")
    over.wait()
    pipe.send(seen)


def chromium(pipe: Connection, over: Any) -> None:
    """A real browser without a window."""
    from playwright.sync_api import sync_playwright

    _come_last()
    seen = Seen()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(), args=_FLAGS, timeout=120_000
        )
        view = browser.new_page(viewport={"width": 1000, "height": 640})
        view.set_default_timeout(120_000)
        pipe.send("ready")
        view.goto(pipe.recv())
        view.wait_for_function(f"({_TELL})().match({_COUNTS})")
        pipe.send("watching")
        while not over.wait(1.0):
            seen.look(view.evaluate(_TELL))
        pipe.send(seen)
        browser.close()


VIEWERS: dict[str, Callable[[Connection, Any], None]] = {
    "nobody": glance,
    "elsewhere": client,
    "chromium": chromium,
}


def chromium_path() -> str | None:
    """A Chromium of this machine, or playwright's own; None if there is none, or no playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
        return path if Path(path).is_file() else None


def _come_last() -> None:
    """The lowest priority, also where the kernel groups processes by session."""
    with suppress(OSError):
        os.setsid()
    with suppress(OSError):
        os.nice(19)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
