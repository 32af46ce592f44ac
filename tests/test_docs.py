"""README and docs: no relative link is broken, and every command named in them parses."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

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
    found.main()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
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


def test_commands_are_found_and_a_wrong_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rt.servo --rate 30" in commands(ROOT / "README.md")
    assert sum(len(commands(page)) for page in PAGES) > 20
    with pytest.raises(SystemExit):
        parse("rt.servo --no-such-option 3", monkeypatch)
