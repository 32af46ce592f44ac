"""rt.tools.interrupt: Ctrl-C in the middle of the imports is one line and 130, in every command."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rt.tools.interrupt import PACKAGES, _begun

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, runpy, signal, sys
class Presses:
    def find_spec(self, name, *_):
        if name == {when!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Presses())
sys.argv, sys.orig_argv = ["-m"], ["python", "-m", {module!r}]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def pressed(module: str, when: str) -> subprocess.CompletedProcess[str]:
    """The command with SIGINT as it imports another module."""
    program = [sys.executable, "-c", PROGRAM.format(module=module, when=when)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["rt.servo", "sim.trials"])
def test_ctrl_c_during_imports_is_one_line(module: str) -> None:
    done = pressed(module, "numpy")
    assert (done.returncode, done.stderr) == (130, f"{module}: interrupted; nothing was done\n")


@pytest.mark.parametrize(("name", "begun"), [("main", True), ("imported", False)])
def test_a_command_has_begun_once_its_main_runs(name: str, begun: bool) -> None:
    program = f"inside = lambda: seen(frame())\ndef {name}():\n    return inside()\nwas = {name}()"
    space: dict[str, Any] = {"__name__": "__main__", "seen": _begun, "frame": sys._getframe}
    exec(program, space)
    assert space["was"] is begun


def test_every_command_calls_main_from_its_module() -> None:
    """By that the signal's handler knows that the imports are over."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
                    assert "main(" in ast.unparse(node), path
        first = ast.parse((ROOT / package / "__init__.py").read_text())
        assert any(ast.unparse(node) == "one_line()" for node in first.body), package
