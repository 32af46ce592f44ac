"""Tables of docs/architecture.md from the modules' docstrings: `python -m bench.architecture`.

Every Python file of the packages has one row: the first sentence of its docstring. `--check` only compares.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from rt.tools.command import DONE, NOT_DONE, command
from rt.tools.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = "docs/architecture.md"
PACKAGES = ("rt", "sim", "train", "calib", "bench")


class ArchitectureError(ValueError):
    """A module has no docstring, or the page no block for a package."""


@dataclass(frozen=True)
class ArchitectureOptions:
    """Write the tables of docs/architecture.md, one row per Python file, from the docstrings.

    Example: python -m bench.architecture --check
    """

    check: bool = False
    """Write nothing; exit code 1 if the page differs from the files."""


def first_sentence(path: Path) -> str:
    """First sentence of a module's docstring, on one line. Raises ArchitectureError without one."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    if not docstring:
        raise ArchitectureError(f"{path} has no docstring; begin it with one sentence")
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph)[0]
    return sentence.removesuffix(".").replace("|", "\\|")


def table(package: str, root: Path = ROOT) -> str:
    """Markdown rows of a package: its own files first, then room by room."""
    rows = ["| file | purpose |", "| --- | --- |"]
    files = sorted(
        (path.relative_to(root) for path in (root / package).rglob("*.py")),
        key=lambda path: (len(path.parts) > 2, path.parent, path.name != "__init__.py", path.name),
    )
    for path in files:
        room = path.name == "__init__.py"
        name = f"**`{path.parent}/`**" if room else f"`{path}`"
        rows.append(f"| {name} | {first_sentence(root / path)} |")
    return "\n".join(rows)


def page(root: Path = ROOT) -> str:
    """docs/architecture.md with its tables as the files are. Raises ArchitectureError."""
    text = (root / PAGE).read_text()
    for package in PACKAGES:
        block = rf"(<!-- files:{package} -->\n).*?(<!-- /files -->)"
        if not re.search(block, text, flags=re.DOTALL):
            raise ArchitectureError(f"{PAGE} has no block `<!-- files:{package} -->`")
        made = table(package, root).replace("\\", r"\\")
        text = re.sub(block, rf"\g<1>{made}\n\g<2>", text, flags=re.DOTALL)
    return text


@command("bench.architecture", ArchitectureOptions)
def main(config: ArchitectureOptions) -> int:
    """Run the command; returns NOT_DONE if `--check` finds a difference."""
    made = page()
    if config.check:
        same = made == (ROOT / PAGE).read_text()
        print(
            f"{PAGE}: up to date" if same else f"{PAGE} differs: run `python -m bench.architecture`"
        )
        return DONE if same else NOT_DONE
    write_text(ROOT / PAGE, made)
    print(f"{PAGE}: written")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
