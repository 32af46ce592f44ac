"""What an installation gets: pinned packages, and the data files that the commands open."""

from __future__ import annotations

import importlib.resources
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
NOT_IN_REGISTRY = {"tensorrt", "pycuda"}
"""Never installed by the tests: from a vendor's index, and built against a CUDA toolkit."""


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def pins() -> list[tuple[str, str]]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return [(canonical(name), version) for name, version in (line.split("==") for line in lines)]


def test_constraints_name_each_package_once() -> None:
    names = [name for name, _ in pins()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_every_required_package_is_pinned(extra: str) -> None:
    required = EXTRAS[extra] if extra else PROJECT["project"]["dependencies"]
    names = {canonical(requirement) for requirement in required}
    assert names - dict(pins()).keys() - NOT_IN_REGISTRY == set()


def test_every_extra_is_explained() -> None:
    text = (ROOT / "docs" / "installing.md").read_text()
    assert {extra for extra in EXTRAS if f"`{extra}`" not in text} == set()


@pytest.mark.parametrize(
    "package, file",
    [
        ("rt", "hands/robotiq_2f85.toml"),
        ("rt", "models/distance.onnx"),
        ("rt", "models/distance.json"),
        ("rt", "models/field.onnx"),
        ("rt", "models/field.json"),
        *((package, "py.typed") for package in ("rt", "sim", "train", "calib", "bench")),
        ("rt", "_native.pyi"),
        ("rt", "cell/cell.example.toml"),
        ("sim", "gpd/gpd.npz"),
        ("bench", "latency/budgets.toml"),
    ],
)
def test_data_files_lie_in_their_packages(package: str, file: str) -> None:
    """A file that lies in a package and is not excluded goes into the wheel."""
    assert importlib.resources.files(package).joinpath(file).is_file()
    assert package in PROJECT["tool"]["scikit-build"]["wheel"]["packages"]
    excluded = PROJECT["tool"]["scikit-build"]["wheel"]["exclude"]
    assert not any(Path(package, file).match(pattern) for pattern in excluded)


def test_tests_are_no_part_of_the_wheel() -> None:
    assert "tests" not in PROJECT["tool"]["scikit-build"]["wheel"]["packages"]


WITHOUT = {
    "ruckig": ("ur", "rt.servo", "--robot", "ur", "--host", "127.0.0.1", "--cell", "cell.toml"),
    "viser": ("view", "rt.servo", "--fast", "--view"),
    "cv2": ("calib", "calib.handeye", "simulate"),
    "torch": ("train", "train.fit", "nowhere"),
    "mujoco": ("physics", "sim.lifts", "--scenes", "1"),
    "ray": ("cluster", "sim.generate", "--engine", "ray", "--scenes", "2"),
}
"""A package, the extra that brings it, a command that needs it."""


@pytest.mark.parametrize("package", WITHOUT)
def test_a_missing_extra_is_named_in_one_line(package: str, tmp_path: Path) -> None:
    """The package is hidden by one of its name that cannot be imported."""
    extra, *command = WITHOUT[package]
    hidden = f"raise ModuleNotFoundError('No module named {package}', name='{package}')\n"
    (tmp_path / f"{package}.py").write_text(hidden)
    (tmp_path / "cell.toml").write_text((ROOT / "rt/cell/cell.example.toml").read_text())
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "grasp-servo[" + extra + "]" in done.stderr
