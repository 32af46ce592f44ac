"""The front door: docs/api.md runs, every public name is there and typed, and little is loaded for it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import NO_NATIVE, needed

import calib
import rt
import sim
from rt.outcome import Outcome

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_has_its_examples() -> None:
    assert len(BLOCKS) == 7


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace, one after the other; as a program, the last would be its own `__main__`."""
    needed("calib", "cv2")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["distances_m"].shape == (256,)  # type: ignore[attr-defined]
    servo, flight = names["servo"], names["flight"]
    assert servo.outcome is Outcome.ARRIVED or servo.reason  # type: ignore[attr-defined]
    assert len(flight.cycles) > 10  # type: ignore[attr-defined]
    for row, distances in zip(names["rows"], names["again"], strict=True):  # type: ignore[call-overload]
        known = flight.cycles["distances"][row]  # type: ignore[attr-defined]
        np.testing.assert_allclose(distances, known[~np.isnan(known)], atol=1e-4)
    np.testing.assert_allclose(names["solved"].T_mount_camera, names["X"], atol=1e-6)  # type: ignore[attr-defined]
    assert len(names["report"]["trials"]) == 2  # type: ignore[index]


@pytest.mark.parametrize("package", [rt, sim, calib])
def test_public_names_are_there(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    for name in names:
        if package is calib:
            needed("calib", "cv2")
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_page_lists_every_name() -> None:
    table = PAGE.read_text().split("## Names")[1]
    assert {n for n in rt.__all__ if f"`{n}`" not in table} == set()


def test_lazy_names_and_typed_names_are_the_same() -> None:
    text = (ROOT / "rt" / "__init__.py").read_text()
    pairs = re.findall(r"^    from (\S+) import (\w+) as \2$", text, re.MULTILINE)
    typed = {name: module for module, name in pairs}
    assert typed == rt._HOMES


@pytest.mark.parametrize("module", ["rt", "rt.loop", "rt.servo"])
def test_the_core_loads_neither_the_command_line_nor_drawing(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print([m for m in ('tyro', 'matplotlib', 'rich', 'viser', 'mcap', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("package", ["rt", "sim", "train", "calib", "bench"])
def test_every_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_the_stub_has_every_name_of_the_native_module() -> None:
    native = pytest.importorskip("rt._native", reason=NO_NATIVE)
    stub = (ROOT / "rt" / "_native.pyi").read_text()
    names = {n for n in vars(native) if not n.startswith("_")}
    missing = {n for n in names if not re.search(rf"^(def|class) {n}\b|^{n}:", stub, re.MULTILINE)}
    assert missing == set()


def test_solve_arrays_refuses_what_does_not_fit() -> None:
    needed("calib", "cv2")
    error = importlib.import_module("calib.errors").CalibrationError
    poses = np.tile(np.eye(4), (5, 1, 1))
    with pytest.raises(error, match="either images or T_camera_target"):
        calib.solve_arrays(poses)
    with pytest.raises(error, match=r"shape \(2, 4, 4\)"):
        calib.solve_arrays(poses[:2], T_camera_target=poses)
    with pytest.raises(error, match="T_camera_target has 4 poses"):
        calib.solve_arrays(poses, T_camera_target=poses[:4])
    with pytest.raises(error, match="images need target"):
        calib.solve_arrays(poses, images=[np.zeros((4, 4), np.uint8)] * 5)
