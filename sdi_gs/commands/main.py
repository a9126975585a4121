"""The program ``sdi-gs``: hands over to a command and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sdi_gs import __version__
from sdi_gs.commands.common import EXIT_INTERRUPTED, EXIT_PIPE_CLOSED, EXIT_USER_ERROR
from sdi_gs.commands.output import output_of_any_kind
from sdi_gs.commands.parsing import parse_command, with_one_name
from sdi_gs.commands.table import COMMANDS, command_of
from sdi_gs.commands.train_help import HELP_FLAGS
from sdi_gs.console import forget, say
from sdi_gs.errors import UserError
from sdi_gs.runs.interrupts import terminating_like_ctrl_c


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C,
    SIGTERM or SIGHUP, 141 if the reader of its output went away.

    ``doctor --full`` returns 1 if a check fails.
    """
    # Two OpenMP runtimes live in one process; threads of one that spin while waiting starve the other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with terminating_like_ctrl_c(), output_of_any_kind(), _warnings_in_one_line():
            return _run_or_help(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        say(f"sdi-gs: {' '.join(str(error).split())}")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        say("sdi-gs: stopped")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has read enough, as `head` does; there is nobody to tell.
        forget(sys.stdout)
        return EXIT_PIPE_CLOSED
    except (MemoryError, RuntimeError) as error:
        # Needs torch, which has been imported by whatever ran out of memory.
        from sdi_gs.devices import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        say("sdi-gs: out of memory: close other programs, or ask for fewer or smaller pictures")
        return EXIT_USER_ERROR


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print this project's warnings without the line of code that they come from."""

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if category is UserWarning:
            say(f"sdi-gs: warning: {message}")
        else:
            say(warnings.formatwarning(message, category, *place[:2], line="").strip())

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _run_or_help(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except SystemExit as stop:
        # Help was shown.
        return int(stop.code or 0)


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"sdi-gs {__version__}")
        return 0
    arguments = with_one_name(arguments, COMMANDS)
    if arguments and arguments[0] in COMMANDS:
        show_help = COMMANDS[arguments[0]].show_help
        if show_help is not None and not set(HELP_FLAGS).isdisjoint(arguments):
            show_help(arguments[1:])
            return 0
    options = parse_command(arguments, {name: command.options for name, command in COMMANDS.items()})
    return command_of(options).run(options)
