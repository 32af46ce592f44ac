"""rt.tools.command: one line for every error, and the exit code of the table."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from rt.tools.command import command


class Lost(RuntimeError):
    """A device that is gone."""


@dataclass(frozen=True)
class Probe:
    """A command of the test."""

    size: int = 1
    """Size [m]: a docstring whose first line is long, and which goes on in
    (here) a second.

    A paragraph."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("size = -1 must be 0 or more"), 2),
        (Lost("no arm answers"), 1),
        (FileNotFoundError(2, "No such file", "cell.toml"), 2),
        (OSError(28, "No space left on device", "out"), 1),
        (ImportError("no torch; install grasp-servo[train]"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_is_one_line_and_one_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @command("sim.probe", Probe, failures=(Lost,))
    def main(options: Probe) -> int:
        raise error

    assert main([]) == code
    said = capsys.readouterr().err
    assert said.startswith("sim.probe: ") and said.count("\n") == 1


@pytest.mark.parametrize(("reader", "code", "said"), [("true", 141, b""), ("cat", 1, b"no news")])
def test_a_reader_that_has_gone_is_told_from_a_device_that_has(
    reader: str, code: int, said: bytes
) -> None:
    """As in `python -m rt.servo --help | head -3`."""
    program = (
        "import sys, time\nfrom rt.tools.command import command\nfrom tests.rt.test_command import Probe\n"
        "@command('rt.probe', Probe)\ndef main(options):\n    time.sleep(0.5)\n    print('x' * 100_000)\n"
        "    raise BrokenPipeError(32, 'no news')\n"
        "sys.exit(main([]))"
    )
    read = subprocess.Popen([reader], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert read.stdin is not None
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=read.stdin, stderr=subprocess.PIPE, timeout=60
    )
    read.stdin.close()
    read.wait(10)
    assert done.returncode == code and said in done.stderr and b"Traceback" not in done.stderr
    assert bool(done.stderr) == bool(said)


def test_what_was_noted_on_the_way_is_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    @command("sim.probe", Probe)
    def main(options: Probe) -> int:
        error = ValueError("size = -1 must be 0 or more")
        error.add_note("in trial 3 of seed 0")
        raise error

    assert main([]) == 2
    assert capsys.readouterr().err == (
        "sim.probe: size = -1 must be 0 or more; in trial 3 of seed 0\n"
    )


def test_options_reach_the_run_and_its_code_comes_back() -> None:
    seen = []

    @command("sim.probe", Probe)
    def main(options: Probe) -> int:
        seen.append(options.size)
        return 3

    assert main(["--size", "7"]) == 3 and seen == [7]


def test_an_unknown_option_ends_with_2() -> None:
    @command("sim.probe", Probe)
    def main(options: Probe) -> int:
        return 0

    with pytest.raises(SystemExit) as ended:
        main(["--sise", "7"])
    assert ended.value.code == 2


def test_the_help_has_paragraphs_and_not_the_lines_of_the_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")

    @command("sim.probe", Probe)
    def main(options: Probe) -> int:
        return 0

    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "goes on in (here) a second." in said and "second. A paragraph" not in said
