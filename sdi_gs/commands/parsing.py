"""Parse a command line into the options of one command, with one-line errors; imports no torch."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Annotated, Any, Union

import tyro

from sdi_gs import __version__
from sdi_gs.errors import UserError

DESCRIPTION = (
    f"sdi-gs {__version__}: a sentence in, a 3D object out. "
    'Start with: sdi-gs train --prompt "a blue robot". `sdi-gs --version` prints the version.'
)

_NO_WRAPPING = "10000"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NARROWEST_HELP = 40
"""Columns below which tyro's layout of help does not end."""
_RULE = re.compile(r"[─-]{3,}")
_INNER_NAMES = re.compile(r"__tyro[\w-]*\.|^Error parsing [A-Z]\w*: ")


def parse_command(arguments: Sequence[str], options: Mapping[str, type[Any]]) -> Any:
    """Parse a command line; ``options`` holds the dataclass of each command's options, by the command's name.

    Help ends the program (SystemExit 0). Raises UserError, in one line, for an unknown command or option and for a
    value that is not accepted.
    """
    arguments = with_one_name(arguments, options)
    commands = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in options.items())]  # noqa: UP007
    said = io.StringIO()
    try:
        with redirect_stderr(said), width_for_tyro(is_help=bool({"-h", "--help"} & set(arguments))):
            return tyro.cli(commands, prog="sdi-gs", description=DESCRIPTION, args=list(arguments))  # pyright: ignore[reportCallIssue, reportArgumentType]
    except SystemExit as stop:
        if not stop.code:
            raise
        command = f"sdi-gs {arguments[0]}" if arguments and arguments[0] in options else "sdi-gs"
        line = one_line(said.getvalue(), command)
        # A command of two words as it is typed.
        raise UserError(line.replace("sdi-gs batch-status", "sdi-gs batch status")) from None
    except ValueError as error:
        # Raised by the checks of the outermost dataclass, which tyro does not catch.
        raise UserError(str(error)) from error


def with_one_name(arguments: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the arguments with a command's two words as its one name: ``batch status`` is ``batch-status``."""
    joined = "-".join(arguments[:2])
    return [joined, *arguments[2:]] if len(arguments) > 1 and joined in names else list(arguments)


@contextmanager
def width_for_tyro(*, is_help: bool) -> Iterator[None]:
    """Keep tyro from breaking the words of a message that is to become one line, and from laying out help for ever."""
    if is_help and shutil.get_terminal_size().columns >= _NARROWEST_HELP:
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(_NARROWEST_HELP) if is_help else _NO_WRAPPING
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def one_line(box: str, command: str) -> str:
    """Return tyro's framed message as one line: what is wrong, the option that was perhaps meant, where help is."""
    plain = _COLOURS.sub("", box)
    sections: list[list[str]] = [[]]
    for line in plain.splitlines():
        text = line.strip("│ ")
        if line.startswith(("╭", "╰")):
            continue
        if _RULE.fullmatch(text):
            sections.append([])
        elif text:
            sections[-1].append(text)
    if "╭" not in plain:
        # Without UTF-8 the title stands over the first rule and not in the frame.
        sections = sections[1:]
    parts = []
    for section in filter(None, sections):
        text = " ".join(section)
        if text.startswith("Perhaps you meant"):
            options = re.findall(r"(?<!\S)--[\w.-]+", " ".join(section[1:]))
            parts.append(f"did you mean {options[0]}?" if options else text)
        elif not text.startswith(("Argument helptext", "For full helptext")):
            parts.append(_INNER_NAMES.sub("", text).removesuffix("."))
    return f"{'; '.join(parts) or 'the command line is not understood'} (see {command} --help)"
