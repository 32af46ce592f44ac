"""README and docs: links, paths, module names and commands are true; the architecture page is the tree."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from needs import no

from bench import architecture

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"S": "1"}
"""Words that stand for a number."""


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What GitHub names the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_relative_link_is_broken(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [
        p.name for p in PAGES[1:] if p.name != "README.md" and f"]({p.name})" not in index
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_path_in_code_exists(page: Path) -> None:
    """Paths such as `rt/view.py` in inline code."""
    paths = re.findall(r"`((?:rt|sim|train|calib|bench|tests|docs)/[\w./-]*)`", prose(page))
    assert [path for path in paths if not (ROOT / path).exists()] == []


NAME = r"(?:rt|sim|train|calib|bench)(?:\.[A-Za-z_]\w*)+"


def resolves(name: str) -> bool:
    """True if a dotted name is a module, or an attribute of one."""
    for k in range(len(parts := name.split(".")), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/data-flow.svg"], ids=lambda p: p.name)
def test_every_name_in_code_resolves(page: Path) -> None:
    """Names such as `rt.guard.Limits` in inline code, and those of the picture."""
    pattern = rf"`({NAME})" if page.suffix == ".md" else rf">({NAME})<"
    names = dict.fromkeys(re.findall(pattern, prose(page)))
    retired = {"bench.page", "bench.tracking"}
    assert [name for name in names if name not in retired and not resolves(name)] == []


def test_every_command_in_a_docstring_exists() -> None:
    """`python -m NAME` in any Python file; tests of unknown modules have their own names."""
    named: dict[str, str] = {}
    for package in architecture.PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in re.findall(rf"python -m ({NAME})", path.read_text()):
                named.setdefault(name, str(path.relative_to(ROOT)))
    assert len(named) > 20
    gone = {
        name: path
        for name, path in named.items()
        if not (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
        and not (ROOT / name.replace(".", "/") / "__main__.py").exists()
    }
    assert gone == {}


def test_the_architecture_page_is_the_tree() -> None:
    """One row per Python file in git, equal to the first sentence of its docstring."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *(f"{package}/*.py" for package in architecture.PACKAGES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    text = (ROOT / architecture.PAGE).read_text()
    rows = re.findall(r"^\| (\*\*)?`([\w/.]+)`", text, flags=re.MULTILINE)
    shown = [path + "__init__.py" if room else path for room, path in rows]
    assert sorted(shown) == sorted(path for path in listed if (ROOT / path).exists())
    made = architecture.page().splitlines()
    stale = [line for line in made if line not in text.splitlines()]
    assert not stale, "run `python -m bench.architecture`:\n" + "\n".join(stale)


def test_a_docstring_gives_its_first_sentence(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""Poses, as in e.g. a|b: one\nsentence. And another.\n\nMore."""\n')
    assert architecture.first_sentence(path) == "Poses, as in e.g. a\\|b: one sentence"
    path.write_text("x = 1\n")
    with pytest.raises(architecture.ArchitectureError, match="no docstring"):
        architecture.first_sentence(path)


def commands(page: Path) -> list[str]:
    """Every command of the project on a page, as `module arguments`: lines of code, and inline code."""
    text = page.read_text().replace("\\\n", " ")
    pattern = r"(?:^|[`\s])(?:python|torchrun [^`\n]*?) -m ((?:rt|sim|train|calib|bench)\.[^`\n]*)"
    inline = r"`((?:rt|sim|train|calib|bench)\.\w+ [^`\n]*)`"
    found = re.findall(pattern, text, flags=re.MULTILINE) + re.findall(inline, text)
    return [line for line in dict.fromkeys(found) if not re.search(r"\.\.\.|…", line)]


class Parsed(BaseException):
    """The arguments were understood."""


def parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a command's arguments to its own parser. Raises Parsed, or SystemExit as the command would."""
    module, *arguments = shlex.split(line.rstrip(".,:"), comments=True)
    arguments = [PLACEHOLDERS.get(a, a) for a in arguments]
    arguments = [a for a in arguments if a not in (">", "cell.toml")] if ">" in line else arguments
    original = tyro.cli

    def only_parse(kind: Any, *rest: Any, **options: Any) -> None:
        original(kind, *rest, **options)
        raise Parsed

    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    monkeypatch.setattr(tyro, "cli", only_parse)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.syspath_prepend(ROOT / "docs/examples")  # own_controller:Mean and the like
    found.main()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "architecture.md"], ids=lambda p: p.name
)
def test_every_command_parses(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for line in commands(page):
        try:
            parse(line, monkeypatch)
            wrong.append(f"{line}: no parser was asked")
        except Parsed:
            pass
        except SystemExit:
            wrong.append(f"{line}: {capsys.readouterr().err}")
        finally:
            monkeypatch.undo()
    assert not wrong, "\n".join(wrong)


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of README.md, with a view and candidates for its two names."""
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    names: dict[str, Any] = {
        "depth": np.full((64, 64), 0.4, np.float32),
        "actions": np.zeros((3, 3), np.float32),
    }
    exec(compile("\n".join(code), "README.md", "exec"), names)
    assert names["d"].shape == (3,) and names["step"].number > 0
    assert (tmp_path / "flight.mcap").stat().st_size > 0


def test_the_labels_of_the_formats_page_are_those_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first Python block of the training set's format, on boxes, against the trainer's labels."""
    synthetic = pytest.importorskip("synthetic", reason=no("train"))
    from sim.dataset.store import open_split
    from train.offsets import nearest_grasp

    synthetic.make_dataset(tmp_path / "data/small", train_scenes=1, test_scenes=2, views=2)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/formats.md").read_text()
    names: dict[str, Any] = {}
    exec(
        compile(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0], "formats", "exec"),
        names,
    )
    test, image = open_split("data/small", "test"), np.array([names["image"]])
    np.testing.assert_array_equal(names["depth_m"], test.depth_m(image)[0])
    action = names["action"].astype(np.float32)[None, None]
    expected = nearest_grasp(test, image, action)[0][0, 0]
    assert names["label_m"] == pytest.approx(expected, abs=1e-6) and expected < 1


def test_commands_are_found_and_a_wrong_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rt.servo --rate 30" in commands(ROOT / "README.md")
    assert sum(len(commands(page)) for page in PAGES) > 20
    with pytest.raises(SystemExit):
        parse("rt.servo --no-such-option 3", monkeypatch)
