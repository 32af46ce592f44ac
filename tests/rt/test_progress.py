import subprocess
import sys

LOOP = """
import time
import rt.tools.progress
rt.tools.progress.LINE_EVERY_S = {every}
from rt.tools.progress import progress
for _ in progress(range(40), unit="scene", title="set"):
    time.sleep({step})
with progress(total=10, initial=5, unit="shard", title="half") as bar:
    bar.update(5)
"""


def said(every, step):
    code = LOOP.format(every=every, step=step)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stdout
    return done.stderr


def test_without_a_terminal_there_are_plain_lines_with_rate_and_time_left():
    text = said(0.2, 0.02)
    lines = text.splitlines()
    assert "\r" not in text and len(lines) >= 3
    assert all(line.startswith("set: ") and " of 40 scenes" in line for line in lines)
    assert " scene/s" in lines[0] and lines[0].endswith(" left") and "?" not in lines[0]
    assert int(lines[0].split()[1]) < int(lines[-1].split()[1]) <= 40


def test_what_is_soon_done_says_nothing():
    assert said(10.0, 0.0) == ""
