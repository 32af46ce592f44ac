"""One way to be a command: options by tyro, errors in one line on stderr, one table of exit codes.

0        the job was done
1        the job was not done: a device, the machine, a run that was stopped, a check that failed
2        a mistake of the user: an option, a file, a package that is not installed
3        the hand arrived, but nothing was grasped (rt.servo)
128 + n  ended by signal n (130: Ctrl-C; 141: nobody reads stdout any more)
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

DONE, NOT_DONE, MISTAKE, NOTHING_GRASPED = 0, 1, 2, 3

INTERRUPTED, UNHEARD = 128 + int(signal.SIGINT), 128 + int(signal.SIGPIPE)

_FILE_MISTAKES = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Errors of the operating system that come from a path that the user gave."""

Options = TypeVar("Options")
Errors = tuple[type[Exception], ...]


class Main(Protocol):
    """A command: its arguments, by default those of the process, to its exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def command(
    name: str,
    options: type[Options],
    *,
    mistakes: Errors = (ValueError,),
    failures: Errors = (),
    interrupted: str = "nothing was written",
    description: str | None = None,
    parse: Callable[[str, Sequence[str] | None], Options] | None = None,
) -> Callable[[Callable[[Options], int]], Main]:
    """Decorator that turns `run(options) -> exit code` into `main(arguments=None) -> exit code`.

    name: the module, such as `sim.lifts`. options: a dataclass, or a union of subcommands. Exceptions of
    `failures` end with NOT_DONE, those of `mistakes` with MISTAKE (failures are looked at first), an
    ImportError with MISTAKE, an OSError with MISTAKE if a path is wrong and with NOT_DONE otherwise; each
    is one line `name: message`. Ctrl-C prints `interrupted` and ends with 130. parse: called with the
    program's name and the arguments in place of `parsed`.
    """

    wrong: Errors = (*mistakes, ImportError, *_FILE_MISTAKES)

    def decorate(run: Callable[[Options], int]) -> Main:
        def main(arguments: Sequence[str] | None = None) -> int:
            try:
                prog = f"python -m {name}"
                if parse is not None:
                    return run(parse(prog, arguments))
                return run(parsed(options, prog, arguments, description=description))
            except KeyboardInterrupt:
                print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
                return INTERRUPTED
            except failures as error:
                return _said(name, error, NOT_DONE)
            except wrong as error:
                return _said(name, error, MISTAKE)
            except BrokenPipeError as error:
                return _unheard() or _said(name, error, NOT_DONE)
            except OSError as error:
                return _said(name, error, NOT_DONE)

        return main

    return decorate


def parsed(kind: Any, prog: str, arguments: Sequence[str] | None = None, **options: Any) -> Any:
    """The arguments as a `kind` by tyro.cli, whose help has the docstrings of its fields as paragraphs."""
    import tyro  # only a command needs it

    _make_paragraphs()
    return tyro.cli(kind, args=arguments, prog=prog, **options)


@cache
def _make_paragraphs() -> None:
    """docstring_parser hands docstrings of fields to tyro with the indentation of the source, and tyro keeps
    an indented line as a line of its own: join the lines of each paragraph before that."""
    from docstring_parser.attrdoc import AttributeDocstrings

    as_written = AttributeDocstrings.get_attr_docs

    def joined(parser: Any, component: Any) -> dict[str, tuple[Any, ...]]:
        return {
            name: ("\n\n".join(" ".join(part.split()) for part in text.split("\n\n")), *rest)
            for name, (text, *rest) in as_written(parser, component).items()
        }

    AttributeDocstrings.get_attr_docs = joined  # type: ignore[method-assign, assignment]


def screen(width: int = 120, **options: Any) -> Console:
    """For the tables of a command: as wide as the terminal, `width` columns in a file or a pipe, which would
    have 80."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, **options)


def _unheard() -> int:
    """UNHEARD if nobody reads stdout any more (`... | head`), else 0."""
    out = select.poll()
    out.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in out.poll(0)):
        return 0
    with open(os.devnull, "w") as nowhere:  # else the interpreter tells of what is left as it ends
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return UNHEARD


def _said(name: str, error: BaseException, code: int) -> int:
    said = "; ".join([str(error), *getattr(error, "__notes__", ())])
    print(f"{name}: {said}", file=sys.stderr)
    return code
