"""Rules for the whole tree: imports without circles and in one direction, class names, first words."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "rt": {"rt"},
    "sim": {"rt", "sim"},
    "train": {"rt", "sim", "train"},
    "calib": {"rt", "calib"},
    "bench": {"rt", "sim", "train", "calib", "bench"},
}
"""Packages that the modules of a package may import."""
SHIMS = {
    "rt.robot.emulator": "sim.hardware.ur.__main__",
    "rt.robot.emulator.__main__": "sim.hardware.ur.__main__",
    "sim.compare": "bench.renderers",
    "sim.convergence": "bench.labels",
    "calib.study": "bench.handeye",
}
"""Commands that kept their name when they moved: three lines that import the module they moved to."""
RIDDLES = ("What", "Whatever", "Whoever", "Whether", "Where", "Wherever", "Who", "Whose", "How")


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package is named without `__init__`."""
    found = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules of the packages that a module names in an import, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield node.module


IMPORTS = {name: set(imported(tree)) - {name} for name, tree in TREES.items()}


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    names = sorted(imports)
    graph = np.array([[b in imports[a] for b in names] for a in names], dtype=int)
    _, label = connected_components(graph, connection="strong")
    groups = defaultdict(list)
    for name, group in zip(names, label, strict=True):
        groups[group].append(name)
    return [group for group in groups.values() if len(group) > 1]


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_of_imports() -> None:
    found = [
        "; ".join(f"{a} -> {', '.join(sorted(IMPORTS[a] & set(group)))}" for a in group)
        for group in circles(IMPORTS)
    ]
    assert not found, "\n".join(found)


def test_imports_point_one_way() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if other.split(".")[0] not in MAY_IMPORT[name.split(".")[0]] and SHIMS.get(name) != other
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(SHIMS.keys() & MODULES.keys()))
def test_a_shim_only_imports(name: str) -> None:
    """A docstring, imports, and a call under `if __name__`."""
    body = TREES[name].body
    rest = [n for n in body if not isinstance(n, ast.Import | ast.ImportFrom | ast.If | ast.Expr)]
    others = [ast.unparse(n) for n in rest if not (isinstance(n, ast.Assign) and _is_all(n))]
    assert not others and len(body) <= 6, others


def _is_all(node: ast.Assign) -> bool:
    return [ast.unparse(target) for target in node.targets] == ["__all__"]


def test_class_names_are_unique() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    twice = [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    assert not twice, "\n".join(twice)


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    """Docstrings of modules, classes and functions, and the strings below fields and constants."""
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{node.lineno}: {first_line(node.value.value)}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.value.split(maxsplit=1)[:1]
        and node.value.value.split(maxsplit=1)[0].rstrip(",:;") in RIDDLES
    ]
    assert not wrong, "\n".join(wrong)


def first_line(text: str) -> str:
    return text.strip().splitlines()[0]
