"""rt.page.server: the page is a process of its own, and says so when it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request

import pytest
from needs import needed
from pages import HEADER, fed

from rt.page.server import PageError, start
from rt.record.ring import Ring

needed("view", "viser")


def test_the_page_is_served_from_its_own_process_and_needs_no_network() -> None:
    with fed() as (ring, _), start(ring.name, port=8731) as page:
        assert page.alive and page.child.pid != os.getpid()
        assert os.getpriority(os.PRIO_PROCESS, page.child.pid) >= 10
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
