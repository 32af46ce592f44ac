"""rt.page.flight: a run begins when the page is drawn, on an arm when START is pressed."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from needs import needed

needed("view", "viser")

from rt.cell.options import ServoOptions
from rt.page import PageError, flight, server
from rt.page.flight import LivePage


class Said:
    """A page that says its words after some time [s]."""

    url = "http://localhost:1"

    def __init__(self, words: dict[str, float], alive: bool = True) -> None:
        self.began, self.words, self.alive = time.monotonic(), words, alive
        self.child = SimpleNamespace(end_text="was killed")

    def said(self, word: str, within_s: float = 0.0) -> bool:
        after_s = self.words.get(word)
        if after_s is None or after_s > within_s:
            time.sleep(min(within_s, 0.05))
            return False
        time.sleep(max(self.began + after_s - time.monotonic(), 0.0))
        return True

    def __enter__(self) -> Said:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def shown_after_s(page: Said, simulated: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(flight, "start_page", lambda *_, **__: page)
    recorder: Any = SimpleNamespace(ring=SimpleNamespace(name="ring"))
    with ExitStack() as stack:
        LivePage(ServoOptions(), stack).show(recorder, simulated)
        return time.monotonic() - page.began


def test_a_simulated_run_waits_until_the_page_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_after_s(Said({"watched": 0.1, "drawn": 0.5}), True, monkeypatch) >= 0.5


def test_a_simulated_run_begins_without_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "_BROWSER_S", 0.01)
    assert shown_after_s(Said({}), True, monkeypatch) < 1.0


def test_an_arm_waits_for_start(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Said({"watched": 0.0, "drawn": 0.1, "start": 0.6})
    assert shown_after_s(page, False, monkeypatch) >= 0.6


@pytest.mark.parametrize(("alive", "why"), [(True, "nobody pressed START"), (False, "has ended")])
def test_an_arm_that_nobody_starts_does_not_move(
    alive: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "_STARTS_WITHIN_S", 0.05)
    with pytest.raises(PageError, match=f"{why}.*nothing moved"):
        shown_after_s(Said({"watched": 0.0, "drawn": 0.0}, alive), False, monkeypatch)


def test_a_page_is_drawn_when_the_browser_answers_with_its_picture(
    capfd: pytest.CaptureFixture[str],
) -> None:
    drawn = threading.Event()
    client = SimpleNamespace(get_render=lambda **_: drawn.wait(5))
    thread = threading.Thread(
        target=server._say_drawn, args=(SimpleNamespace(get_clients=lambda: {0: client}),)
    )
    thread.start()
    time.sleep(0.1)
    assert "drawn" not in capfd.readouterr().out
    drawn.set()
    thread.join(5)
    assert "drawn" in capfd.readouterr().out


def test_a_browser_that_leaves_has_drawn_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def gone(**_: Any) -> None:
        raise RuntimeError("the client has gone")

    client: Any = SimpleNamespace(get_render=gone)
    fake: Any = SimpleNamespace(get_clients=lambda: {0: client})
    server._say_drawn(fake)
    assert "drawn" not in capfd.readouterr().out


def test_only_an_arm_has_a_start_button(monkeypatch: pytest.MonkeyPatch) -> None:
    from rt.page import panel

    words: list[str] = []
    monkeypatch.setattr(panel, "big_button", lambda gui, word, *_: words.append(word))
    gui: Any = SimpleNamespace(
        add_html=lambda *_: None,
        add_button_group=lambda *_: SimpleNamespace(on_click=lambda function: function),
    )
    for twin in (True, False):
        reader: Any = SimpleNamespace(
            header={"cell": {"name": "twin" if twin else "ur", "simulated": twin}}
        )
        server.Buttons(reader).add(gui)
    assert words == ["STOP", "START", "STOP"]
